// DP16KD, for simulating synthesised netlists: the modes that Yosys gives this project's memories (FPGA-TN-02204).
// Widths 9, 18 and, as one write port A and one read port B, 36; no output registers, no resets.
module DP16KD #(
    parameter integer DATA_WIDTH_A = 18, parameter integer DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG", parameter REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC", parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000", parameter CSDECODE_B = "0b000",
    parameter WRITEMODE_A = "NORMAL", parameter WRITEMODE_B = "NORMAL",
    parameter CLKAMUX = "CLKA", parameter CLKBMUX = "CLKB", parameter GSR = "AUTO",
    parameter [319:0]
        INITVAL_00 = 320'h0, INITVAL_01 = 320'h0, INITVAL_02 = 320'h0, INITVAL_03 = 320'h0, INITVAL_04 =
        320'h0, INITVAL_05 = 320'h0, INITVAL_06 = 320'h0, INITVAL_07 = 320'h0, INITVAL_08 = 320'h0,
        INITVAL_09 = 320'h0, INITVAL_0A = 320'h0, INITVAL_0B = 320'h0, INITVAL_0C = 320'h0, INITVAL_0D =
        320'h0, INITVAL_0E = 320'h0, INITVAL_0F = 320'h0, INITVAL_10 = 320'h0, INITVAL_11 = 320'h0,
        INITVAL_12 = 320'h0, INITVAL_13 = 320'h0, INITVAL_14 = 320'h0, INITVAL_15 = 320'h0, INITVAL_16 =
        320'h0, INITVAL_17 = 320'h0, INITVAL_18 = 320'h0, INITVAL_19 = 320'h0, INITVAL_1A = 320'h0,
        INITVAL_1B = 320'h0, INITVAL_1C = 320'h0, INITVAL_1D = 320'h0, INITVAL_1E = 320'h0, INITVAL_1F =
        320'h0, INITVAL_20 = 320'h0, INITVAL_21 = 320'h0, INITVAL_22 = 320'h0, INITVAL_23 = 320'h0,
        INITVAL_24 = 320'h0, INITVAL_25 = 320'h0, INITVAL_26 = 320'h0, INITVAL_27 = 320'h0, INITVAL_28 =
        320'h0, INITVAL_29 = 320'h0, INITVAL_2A = 320'h0, INITVAL_2B = 320'h0, INITVAL_2C = 320'h0,
        INITVAL_2D = 320'h0, INITVAL_2E = 320'h0, INITVAL_2F = 320'h0, INITVAL_30 = 320'h0, INITVAL_31 =
        320'h0, INITVAL_32 = 320'h0, INITVAL_33 = 320'h0, INITVAL_34 = 320'h0, INITVAL_35 = 320'h0,
        INITVAL_36 = 320'h0, INITVAL_37 = 320'h0, INITVAL_38 = 320'h0, INITVAL_39 = 320'h0, INITVAL_3A =
        320'h0, INITVAL_3B = 320'h0, INITVAL_3C = 320'h0, INITVAL_3D = 320'h0, INITVAL_3E = 320'h0,
        INITVAL_3F = 320'h0
) (
    input DIA17, input DIA16, input DIA15, input DIA14, input DIA13, input DIA12, input DIA11, input
    DIA10, input DIA9, input DIA8, input DIA7, input DIA6, input DIA5, input DIA4, input DIA3, input DIA2,
    input DIA1, input DIA0, input ADA13, input ADA12, input ADA11, input ADA10, input ADA9, input ADA8,
    input ADA7, input ADA6, input ADA5, input ADA4, input ADA3, input ADA2, input ADA1, input ADA0,
    input DIB17, input DIB16, input DIB15, input DIB14, input DIB13, input DIB12, input DIB11, input
    DIB10, input DIB9, input DIB8, input DIB7, input DIB6, input DIB5, input DIB4, input DIB3, input DIB2,
    input DIB1, input DIB0, input ADB13, input ADB12, input ADB11, input ADB10, input ADB9, input ADB8,
    input ADB7, input ADB6, input ADB5, input ADB4, input ADB3, input ADB2, input ADB1, input ADB0,
    input CEA, input OCEA, input CLKA, input WEA, input RSTA, input CSA2, input CSA1, input CSA0,
    input CEB, input OCEB, input CLKB, input WEB, input RSTB, input CSB2, input CSB1, input CSB0,
    output DOA17, output DOA16, output DOA15, output DOA14, output DOA13, output DOA12, output DOA11,
    output DOA10, output DOA9, output DOA8, output DOA7, output DOA6, output DOA5, output DOA4, output
    DOA3, output DOA2, output DOA1, output DOA0, output DOB17, output DOB16, output DOB15, output DOB14,
    output DOB13, output DOB12, output DOB11, output DOB10, output DOB9, output DOB8, output DOB7, output
    DOB6, output DOB5, output DOB4, output DOB3, output DOB2, output DOB1, output DOB0
);
    localparam WIDE = DATA_WIDTH_A == 36;  // port A writes 36 bits through both data inputs
    localparam integer LANES_A = DATA_WIDTH_A < 9 ? 1 : DATA_WIDTH_A / 9;
    localparam integer LANES_B = DATA_WIDTH_B < 9 ? 1 : DATA_WIDTH_B / 9;
    localparam integer MODE_A = WRITEMODE_A == "READBEFOREWRITE" ? 0 : WRITEMODE_A == "WRITETHROUGH" ? 1 : 2;
    localparam integer MODE_B = WRITEMODE_B == "READBEFOREWRITE" ? 0 : WRITEMODE_B == "WRITETHROUGH" ? 1 : 2;

    initial begin
        if ((DATA_WIDTH_A != 9 && DATA_WIDTH_A != 18 && !WIDE) || (DATA_WIDTH_B != 9 && DATA_WIDTH_B != 18
            && (DATA_WIDTH_B != 36 || !WIDE)))
            $fatal(1, "DP16KD: widths %0d and %0d are not modelled", DATA_WIDTH_A, DATA_WIDTH_B);
        if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG") $fatal(1, "DP16KD: output registers are not modelled");
        if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000" || CLKAMUX != "CLKA" || CLKBMUX != "CLKB")
            $fatal(1, "DP16KD: decoded selects and inverted clocks are not modelled");
    end
    wire [17:0] dia = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    always @(posedge CLKA, posedge CLKB) begin
        if (RSTA || RSTB) $fatal(1, "DP16KD: resets of the outputs are not modelled");
        if (CSA0 || CSA1 || CSA2 || CSB0 || CSB1 || CSB2) $fatal(1, "DP16KD: selects are not modelled");
        if (WIDE && WEB) $fatal(1, "DP16KD: port B of a 36 bit wide memory only reads");
    end

    // From 18 bits on, the lowest address bits enable the bytes.
    wire [7:0] we_a = !WEA ? 8'b0 : WIDE ? {4'b0, ada[3:0]} : DATA_WIDTH_A == 18 ? {6'b0, ada[1:0]} : 8'b1;
    wire [7:0] we_b = !WEB ? 8'b0 : DATA_WIDTH_B == 18 ? {6'b0, adb[1:0]} : 8'b1;
    wire [10:0] bytes_a = WIDE ? {ada[13:5], 2'b0} : DATA_WIDTH_A == 18 ? {ada[13:4], 1'b0} : ada[13:3];
    wire [10:0] bytes_b = DATA_WIDTH_B == 36 ? {adb[13:5], 2'b0} : DATA_WIDTH_B == 18 ? {adb[13:4], 1'b0} : adb[13:3];
    wire [71:0] q_a, q_b;
    wire [17:0] doa = DATA_WIDTH_B == 36 ? q_b[17:0] : q_a[17:0];
    wire [17:0] dob = DATA_WIDTH_B == 36 ? q_b[35:18] : q_b[17:0];
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = doa;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = dob;
    byte_ram #(.LOG2_BYTES(11), .LANES_A(LANES_A), .LANES_B(LANES_B), .MODE_A(MODE_A), .MODE_B(MODE_B)) ram (
        .clk_a(CLKA), .en_a(CEA), .we_a(we_a), .addr_a(bytes_a), .d_a({36'b0, WIDE ? dib : 18'b0, dia}), .q_a(q_a),
        .clk_b(CLKB), .en_b(CEB), .we_b(we_b), .addr_b(bytes_b), .d_b({54'b0, dib}), .q_b(q_b));

    // Sixteen words of 18 bits, 20 bits apart, in each parameter.
    wire [20479:0] words = {
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
        INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
        INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
        INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
        INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
        INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
        INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
        INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};
    integer i;
    initial for (i = 0; i < 1024; i = i + 1) {ram.bytes[2 * i + 1], ram.bytes[2 * i]} = words[20 * i +: 18];
endmodule
