// MULT18X18D, for simulating synthesised netlists: the bare multiplier, as Yosys uses it (FPGA-TN-02205).
module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE", parameter REG_INPUTB_CLK = "NONE", parameter REG_INPUTC_CLK = "NONE",
    parameter REG_PIPELINE_CLK = "NONE", parameter REG_OUTPUT_CLK = "NONE"
) (
    input A17, input A16, input A15, input A14, input A13, input A12, input A11, input A10, input A9,
    input A8, input A7, input A6, input A5, input A4, input A3, input A2, input A1, input A0,
    input B17, input B16, input B15, input B14, input B13, input B12, input B11, input B10, input B9,
    input B8, input B7, input B6, input B5, input B4, input B3, input B2, input B1, input B0,
    input C17, input C16, input C15, input C14, input C13, input C12, input C11, input C10, input C9,
    input C8, input C7, input C6, input C5, input C4, input C3, input C2, input C1, input C0,
    input SIGNEDA, input SIGNEDB, input SOURCEA, input SOURCEB,
    output P35, output P34, output P33, output P32, output P31, output P30, output P29, output P28, output
    P27, output P26, output P25, output P24, output P23, output P22, output P21, output P20, output P19,
    output P18, output P17, output P16, output P15, output P14, output P13, output P12, output P11, output
    P10, output P9, output P8, output P7, output P6, output P5, output P4, output P3, output P2, output
    P1, output P0
);
    initial
        if (REG_INPUTA_CLK != "NONE" || REG_INPUTB_CLK != "NONE" || REG_INPUTC_CLK != "NONE"
            || REG_PIPELINE_CLK != "NONE" || REG_OUTPUT_CLK != "NONE")
            $fatal(1, "MULT18X18D: registers are not modelled");
    always @(*) if (SOURCEA || SOURCEB) $fatal(1, "MULT18X18D: shifted inputs are not modelled");

    wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    wire signed [35:0] wide_a = SIGNEDA ? {{18{a[17]}}, a} : {18'b0, a};
    wire signed [35:0] wide_b = SIGNEDB ? {{18{b[17]}}, b} : {18'b0, b};
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = wide_a * wide_b;
endmodule
