// RAMB18E1 and RAMB36E1, for simulating synthesised netlists: the modes that Yosys gives this project's memories (UG473).
// Simple dual-port at full width, true dual-port at 9 bits and its doubles; no output registers, no resets.

module RAMB18E1 #(
    parameter integer READ_WIDTH_A = 0, parameter integer READ_WIDTH_B = 0,
    parameter integer WRITE_WIDTH_A = 0, parameter integer WRITE_WIDTH_B = 0,
    parameter integer DOA_REG = 0, parameter integer DOB_REG = 0,
    parameter RAM_MODE = "TDP", parameter WRITE_MODE_A = "WRITE_FIRST", parameter WRITE_MODE_B = "WRITE_FIRST",
    parameter [17:0] SRVAL_A = 0, parameter [17:0] SRVAL_B = 0,
    parameter [17:0] INIT_A = 0, parameter [17:0] INIT_B = 0,
    parameter [255:0]
        INITP_00 = 256'h0, INITP_01 = 256'h0, INITP_02 = 256'h0, INITP_03 = 256'h0, INITP_04 = 256'h0,
        INITP_05 = 256'h0, INITP_06 = 256'h0, INITP_07 = 256'h0,
        INIT_00 = 256'h0, INIT_01 = 256'h0, INIT_02 = 256'h0, INIT_03 = 256'h0, INIT_04 = 256'h0, INIT_05
        = 256'h0, INIT_06 = 256'h0, INIT_07 = 256'h0, INIT_08 = 256'h0, INIT_09 = 256'h0, INIT_0A =
        256'h0, INIT_0B = 256'h0, INIT_0C = 256'h0, INIT_0D = 256'h0, INIT_0E = 256'h0, INIT_0F = 256'h0,
        INIT_10 = 256'h0, INIT_11 = 256'h0, INIT_12 = 256'h0, INIT_13 = 256'h0, INIT_14 = 256'h0, INIT_15
        = 256'h0, INIT_16 = 256'h0, INIT_17 = 256'h0, INIT_18 = 256'h0, INIT_19 = 256'h0, INIT_1A =
        256'h0, INIT_1B = 256'h0, INIT_1C = 256'h0, INIT_1D = 256'h0, INIT_1E = 256'h0, INIT_1F = 256'h0,
        INIT_20 = 256'h0, INIT_21 = 256'h0, INIT_22 = 256'h0, INIT_23 = 256'h0, INIT_24 = 256'h0, INIT_25
        = 256'h0, INIT_26 = 256'h0, INIT_27 = 256'h0, INIT_28 = 256'h0, INIT_29 = 256'h0, INIT_2A =
        256'h0, INIT_2B = 256'h0, INIT_2C = 256'h0, INIT_2D = 256'h0, INIT_2E = 256'h0, INIT_2F = 256'h0,
        INIT_30 = 256'h0, INIT_31 = 256'h0, INIT_32 = 256'h0, INIT_33 = 256'h0, INIT_34 = 256'h0, INIT_35
        = 256'h0, INIT_36 = 256'h0, INIT_37 = 256'h0, INIT_38 = 256'h0, INIT_39 = 256'h0, INIT_3A =
        256'h0, INIT_3B = 256'h0, INIT_3C = 256'h0, INIT_3D = 256'h0, INIT_3E = 256'h0, INIT_3F = 256'h0
) (
    input CLKARDCLK, input CLKBWRCLK, input ENARDEN, input ENBWREN, input REGCEAREGCE, input REGCEB,
    input RSTRAMARSTRAM, input RSTRAMB, input RSTREGARSTREG, input RSTREGB,
    input [13:0] ADDRARDADDR, input [13:0] ADDRBWRADDR,
    input [15:0] DIADI, input [15:0] DIBDI, input [1:0] DIPADIP, input [1:0] DIPBDIP,
    input [1:0] WEA, input [3:0] WEBWE,
    output [15:0] DOADO, output [15:0] DOBDO, output [1:0] DOPADOP, output [1:0] DOPBDOP
);
    localparam SDP = RAM_MODE == "SDP";  // port A reads, port B writes, both 36 bits wide
    localparam integer WIDTH_A = READ_WIDTH_A != 0 ? READ_WIDTH_A : WRITE_WIDTH_A;
    localparam integer WIDTH_B = READ_WIDTH_B != 0 ? READ_WIDTH_B : WRITE_WIDTH_B;
    localparam integer LANES_A = WIDTH_A < 9 ? 1 : WIDTH_A / 9;
    localparam integer LANES_B = WIDTH_B < 9 ? 1 : WIDTH_B / 9;
    localparam integer MODE_A = WRITE_MODE_A == "READ_FIRST" ? 0 : WRITE_MODE_A == "WRITE_FIRST" ? 1 : 2;
    localparam integer MODE_B = WRITE_MODE_B == "READ_FIRST" ? 0 : WRITE_MODE_B == "WRITE_FIRST" ? 1 : 2;

    function modelled(input integer read, input integer write);
        modelled = (read == 0 || write == 0 || read == write)
            && (read + write == 0 || read == 9 || write == 9 || read == 18 || write == 18);
    endfunction
    initial begin
        if (SDP ? READ_WIDTH_A != 36 || WRITE_WIDTH_B != 36 || READ_WIDTH_B != 0 || WRITE_WIDTH_A != 0
                : RAM_MODE != "TDP" || !modelled(READ_WIDTH_A, WRITE_WIDTH_A)
                  || !modelled(READ_WIDTH_B, WRITE_WIDTH_B))
            $fatal(1, "RAMB18E1: %s with widths %0d %0d %0d %0d is not modelled", RAM_MODE, READ_WIDTH_A,
                   WRITE_WIDTH_A, READ_WIDTH_B, WRITE_WIDTH_B);
        if (DOA_REG != 0 || DOB_REG != 0 || INIT_A != 0 || INIT_B != 0)
            $fatal(1, "RAMB18E1: output registers, their first values and cascades are not modelled");
    end
    always @(posedge CLKARDCLK, posedge CLKBWRCLK)
        if (RSTRAMARSTRAM || RSTRAMB) $fatal(1, "RAMB18E1: resets of the outputs are not modelled");

    wire [71:0] q_a, q_b;
    wire [71:0] d_a = {54'b0, {DIPADIP[1], DIADI[15:8], DIPADIP[0], DIADI[7:0]}};
    wire [71:0] d_b = {54'b0, {DIPBDIP[1], DIBDI[15:8], DIPBDIP[0], DIBDI[7:0]}};
    wire [71:0] d_wide = {36'b0, {DIPBDIP[1], DIBDI[15:8], DIPBDIP[0], DIBDI[7:0]}, {DIPADIP[1], DIADI[15:8], DIPADIP[0], DIADI[7:0]}};
    assign {DOPADOP[1], DOADO[15:8], DOPADOP[0], DOADO[7:0]} = q_a[17:0];
    assign {DOPBDOP[1], DOBDO[15:8], DOPBDOP[0], DOBDO[7:0]} = SDP ? q_a[35:18] : q_b[17:0];
    byte_ram #(.LOG2_BYTES(11), .LANES_A(LANES_A), .LANES_B(LANES_B), .MODE_A(MODE_A), .MODE_B(MODE_B)) ram (
        .clk_a(CLKARDCLK), .en_a(ENARDEN && WIDTH_A != 0),
        .we_a(WRITE_WIDTH_A == 0 ? 8'b0 : 8'(WEA)), .addr_a(11'(ADDRARDADDR >> 3)),
        .d_a(d_a), .q_a(q_a),
        .clk_b(CLKBWRCLK), .en_b(ENBWREN && WIDTH_B != 0),
        .we_b(WRITE_WIDTH_B == 0 ? 8'b0 : 8'(WEBWE)), .addr_b(11'(ADDRBWRADDR >> 3)),
        .d_b(SDP ? d_wide : d_b), .q_b(q_b));

    wire [16383:0] data = {
        INIT_3F, INIT_3E, INIT_3D, INIT_3C, INIT_3B, INIT_3A, INIT_39, INIT_38, INIT_37, INIT_36, INIT_35,
        INIT_34, INIT_33, INIT_32, INIT_31, INIT_30, INIT_2F, INIT_2E, INIT_2D, INIT_2C, INIT_2B, INIT_2A,
        INIT_29, INIT_28, INIT_27, INIT_26, INIT_25, INIT_24, INIT_23, INIT_22, INIT_21, INIT_20, INIT_1F,
        INIT_1E, INIT_1D, INIT_1C, INIT_1B, INIT_1A, INIT_19, INIT_18, INIT_17, INIT_16, INIT_15, INIT_14,
        INIT_13, INIT_12, INIT_11, INIT_10, INIT_0F, INIT_0E, INIT_0D, INIT_0C, INIT_0B, INIT_0A, INIT_09,
        INIT_08, INIT_07, INIT_06, INIT_05, INIT_04, INIT_03, INIT_02, INIT_01, INIT_00};
    wire [2047:0] parity = {
        INITP_07, INITP_06, INITP_05, INITP_04, INITP_03, INITP_02, INITP_01, INITP_00};
    integer i;
    initial for (i = 0; i < 2048; i = i + 1) ram.bytes[i] = {parity[i], data[8 * i +: 8]};
endmodule

module RAMB36E1 #(
    parameter integer READ_WIDTH_A = 0, parameter integer READ_WIDTH_B = 0,
    parameter integer WRITE_WIDTH_A = 0, parameter integer WRITE_WIDTH_B = 0,
    parameter integer DOA_REG = 0, parameter integer DOB_REG = 0,
    parameter RAM_MODE = "TDP", parameter WRITE_MODE_A = "WRITE_FIRST", parameter WRITE_MODE_B = "WRITE_FIRST",
    parameter RAM_EXTENSION_A = "NONE", parameter RAM_EXTENSION_B = "NONE",
    parameter [35:0] SRVAL_A = 0, parameter [35:0] SRVAL_B = 0,
    parameter [35:0] INIT_A = 0, parameter [35:0] INIT_B = 0,
    parameter [255:0]
        INITP_00 = 256'h0, INITP_01 = 256'h0, INITP_02 = 256'h0, INITP_03 = 256'h0, INITP_04 = 256'h0,
        INITP_05 = 256'h0, INITP_06 = 256'h0, INITP_07 = 256'h0, INITP_08 = 256'h0, INITP_09 = 256'h0,
        INITP_0A = 256'h0, INITP_0B = 256'h0, INITP_0C = 256'h0, INITP_0D = 256'h0, INITP_0E = 256'h0,
        INITP_0F = 256'h0,
        INIT_00 = 256'h0, INIT_01 = 256'h0, INIT_02 = 256'h0, INIT_03 = 256'h0, INIT_04 = 256'h0, INIT_05
        = 256'h0, INIT_06 = 256'h0, INIT_07 = 256'h0, INIT_08 = 256'h0, INIT_09 = 256'h0, INIT_0A =
        256'h0, INIT_0B = 256'h0, INIT_0C = 256'h0, INIT_0D = 256'h0, INIT_0E = 256'h0, INIT_0F = 256'h0,
        INIT_10 = 256'h0, INIT_11 = 256'h0, INIT_12 = 256'h0, INIT_13 = 256'h0, INIT_14 = 256'h0, INIT_15
        = 256'h0, INIT_16 = 256'h0, INIT_17 = 256'h0, INIT_18 = 256'h0, INIT_19 = 256'h0, INIT_1A =
        256'h0, INIT_1B = 256'h0, INIT_1C = 256'h0, INIT_1D = 256'h0, INIT_1E = 256'h0, INIT_1F = 256'h0,
        INIT_20 = 256'h0, INIT_21 = 256'h0, INIT_22 = 256'h0, INIT_23 = 256'h0, INIT_24 = 256'h0, INIT_25
        = 256'h0, INIT_26 = 256'h0, INIT_27 = 256'h0, INIT_28 = 256'h0, INIT_29 = 256'h0, INIT_2A =
        256'h0, INIT_2B = 256'h0, INIT_2C = 256'h0, INIT_2D = 256'h0, INIT_2E = 256'h0, INIT_2F = 256'h0,
        INIT_30 = 256'h0, INIT_31 = 256'h0, INIT_32 = 256'h0, INIT_33 = 256'h0, INIT_34 = 256'h0, INIT_35
        = 256'h0, INIT_36 = 256'h0, INIT_37 = 256'h0, INIT_38 = 256'h0, INIT_39 = 256'h0, INIT_3A =
        256'h0, INIT_3B = 256'h0, INIT_3C = 256'h0, INIT_3D = 256'h0, INIT_3E = 256'h0, INIT_3F = 256'h0,
        INIT_40 = 256'h0, INIT_41 = 256'h0, INIT_42 = 256'h0, INIT_43 = 256'h0, INIT_44 = 256'h0, INIT_45
        = 256'h0, INIT_46 = 256'h0, INIT_47 = 256'h0, INIT_48 = 256'h0, INIT_49 = 256'h0, INIT_4A =
        256'h0, INIT_4B = 256'h0, INIT_4C = 256'h0, INIT_4D = 256'h0, INIT_4E = 256'h0, INIT_4F = 256'h0,
        INIT_50 = 256'h0, INIT_51 = 256'h0, INIT_52 = 256'h0, INIT_53 = 256'h0, INIT_54 = 256'h0, INIT_55
        = 256'h0, INIT_56 = 256'h0, INIT_57 = 256'h0, INIT_58 = 256'h0, INIT_59 = 256'h0, INIT_5A =
        256'h0, INIT_5B = 256'h0, INIT_5C = 256'h0, INIT_5D = 256'h0, INIT_5E = 256'h0, INIT_5F = 256'h0,
        INIT_60 = 256'h0, INIT_61 = 256'h0, INIT_62 = 256'h0, INIT_63 = 256'h0, INIT_64 = 256'h0, INIT_65
        = 256'h0, INIT_66 = 256'h0, INIT_67 = 256'h0, INIT_68 = 256'h0, INIT_69 = 256'h0, INIT_6A =
        256'h0, INIT_6B = 256'h0, INIT_6C = 256'h0, INIT_6D = 256'h0, INIT_6E = 256'h0, INIT_6F = 256'h0,
        INIT_70 = 256'h0, INIT_71 = 256'h0, INIT_72 = 256'h0, INIT_73 = 256'h0, INIT_74 = 256'h0, INIT_75
        = 256'h0, INIT_76 = 256'h0, INIT_77 = 256'h0, INIT_78 = 256'h0, INIT_79 = 256'h0, INIT_7A =
        256'h0, INIT_7B = 256'h0, INIT_7C = 256'h0, INIT_7D = 256'h0, INIT_7E = 256'h0, INIT_7F = 256'h0
) (
    input CLKARDCLK, input CLKBWRCLK, input ENARDEN, input ENBWREN, input REGCEAREGCE, input REGCEB,
    input RSTRAMARSTRAM, input RSTRAMB, input RSTREGARSTREG, input RSTREGB,
    input [15:0] ADDRARDADDR, input [15:0] ADDRBWRADDR,
    input [31:0] DIADI, input [31:0] DIBDI, input [3:0] DIPADIP, input [3:0] DIPBDIP,
    input [3:0] WEA, input [7:0] WEBWE,
    output [31:0] DOADO, output [31:0] DOBDO, output [3:0] DOPADOP, output [3:0] DOPBDOP
);
    localparam SDP = RAM_MODE == "SDP";  // port A reads, port B writes, both 72 bits wide
    localparam integer WIDTH_A = READ_WIDTH_A != 0 ? READ_WIDTH_A : WRITE_WIDTH_A;
    localparam integer WIDTH_B = READ_WIDTH_B != 0 ? READ_WIDTH_B : WRITE_WIDTH_B;
    localparam integer LANES_A = WIDTH_A < 9 ? 1 : WIDTH_A / 9;
    localparam integer LANES_B = WIDTH_B < 9 ? 1 : WIDTH_B / 9;
    localparam integer MODE_A = WRITE_MODE_A == "READ_FIRST" ? 0 : WRITE_MODE_A == "WRITE_FIRST" ? 1 : 2;
    localparam integer MODE_B = WRITE_MODE_B == "READ_FIRST" ? 0 : WRITE_MODE_B == "WRITE_FIRST" ? 1 : 2;

    function modelled(input integer read, input integer write);
        modelled = (read == 0 || write == 0 || read == write)
            && (read + write == 0 || read == 9 || write == 9 || read == 18 || write == 18 || read == 36 || write == 36);
    endfunction
    initial begin
        if (SDP ? READ_WIDTH_A != 72 || WRITE_WIDTH_B != 72 || READ_WIDTH_B != 0 || WRITE_WIDTH_A != 0
                : RAM_MODE != "TDP" || !modelled(READ_WIDTH_A, WRITE_WIDTH_A)
                  || !modelled(READ_WIDTH_B, WRITE_WIDTH_B))
            $fatal(1, "RAMB36E1: %s with widths %0d %0d %0d %0d is not modelled", RAM_MODE, READ_WIDTH_A,
                   WRITE_WIDTH_A, READ_WIDTH_B, WRITE_WIDTH_B);
        if (DOA_REG != 0 || DOB_REG != 0 || INIT_A != 0 || INIT_B != 0
            || RAM_EXTENSION_A != "NONE" || RAM_EXTENSION_B != "NONE")
            $fatal(1, "RAMB36E1: output registers, their first values and cascades are not modelled");
    end
    always @(posedge CLKARDCLK, posedge CLKBWRCLK)
        if (RSTRAMARSTRAM || RSTRAMB) $fatal(1, "RAMB36E1: resets of the outputs are not modelled");

    wire [71:0] q_a, q_b;
    wire [71:0] d_a = {36'b0, {DIPADIP[3], DIADI[31:24], DIPADIP[2], DIADI[23:16], DIPADIP[1], DIADI[15:8], DIPADIP[0], DIADI[7:0]}};
    wire [71:0] d_b = {36'b0, {DIPBDIP[3], DIBDI[31:24], DIPBDIP[2], DIBDI[23:16], DIPBDIP[1], DIBDI[15:8], DIPBDIP[0], DIBDI[7:0]}};
    wire [71:0] d_wide = {{DIPBDIP[3], DIBDI[31:24], DIPBDIP[2], DIBDI[23:16], DIPBDIP[1], DIBDI[15:8], DIPBDIP[0], DIBDI[7:0]}, {DIPADIP[3], DIADI[31:24], DIPADIP[2], DIADI[23:16], DIPADIP[1], DIADI[15:8], DIPADIP[0], DIADI[7:0]}};
    assign {DOPADOP[3], DOADO[31:24], DOPADOP[2], DOADO[23:16], DOPADOP[1], DOADO[15:8], DOPADOP[0], DOADO[7:0]} = q_a[35:0];
    assign {DOPBDOP[3], DOBDO[31:24], DOPBDOP[2], DOBDO[23:16], DOPBDOP[1], DOBDO[15:8], DOPBDOP[0], DOBDO[7:0]} = SDP ? q_a[71:36] : q_b[35:0];
    byte_ram #(.LOG2_BYTES(12), .LANES_A(LANES_A), .LANES_B(LANES_B), .MODE_A(MODE_A), .MODE_B(MODE_B)) ram (
        .clk_a(CLKARDCLK), .en_a(ENARDEN && WIDTH_A != 0),
        .we_a(WRITE_WIDTH_A == 0 ? 8'b0 : 8'(WEA)), .addr_a(12'(ADDRARDADDR >> 3)),
        .d_a(d_a), .q_a(q_a),
        .clk_b(CLKBWRCLK), .en_b(ENBWREN && WIDTH_B != 0),
        .we_b(WRITE_WIDTH_B == 0 ? 8'b0 : 8'(WEBWE)), .addr_b(12'(ADDRBWRADDR >> 3)),
        .d_b(SDP ? d_wide : d_b), .q_b(q_b));

    wire [32767:0] data = {
        INIT_7F, INIT_7E, INIT_7D, INIT_7C, INIT_7B, INIT_7A, INIT_79, INIT_78, INIT_77, INIT_76, INIT_75,
        INIT_74, INIT_73, INIT_72, INIT_71, INIT_70, INIT_6F, INIT_6E, INIT_6D, INIT_6C, INIT_6B, INIT_6A,
        INIT_69, INIT_68, INIT_67, INIT_66, INIT_65, INIT_64, INIT_63, INIT_62, INIT_61, INIT_60, INIT_5F,
        INIT_5E, INIT_5D, INIT_5C, INIT_5B, INIT_5A, INIT_59, INIT_58, INIT_57, INIT_56, INIT_55, INIT_54,
        INIT_53, INIT_52, INIT_51, INIT_50, INIT_4F, INIT_4E, INIT_4D, INIT_4C, INIT_4B, INIT_4A, INIT_49,
        INIT_48, INIT_47, INIT_46, INIT_45, INIT_44, INIT_43, INIT_42, INIT_41, INIT_40, INIT_3F, INIT_3E,
        INIT_3D, INIT_3C, INIT_3B, INIT_3A, INIT_39, INIT_38, INIT_37, INIT_36, INIT_35, INIT_34, INIT_33,
        INIT_32, INIT_31, INIT_30, INIT_2F, INIT_2E, INIT_2D, INIT_2C, INIT_2B, INIT_2A, INIT_29, INIT_28,
        INIT_27, INIT_26, INIT_25, INIT_24, INIT_23, INIT_22, INIT_21, INIT_20, INIT_1F, INIT_1E, INIT_1D,
        INIT_1C, INIT_1B, INIT_1A, INIT_19, INIT_18, INIT_17, INIT_16, INIT_15, INIT_14, INIT_13, INIT_12,
        INIT_11, INIT_10, INIT_0F, INIT_0E, INIT_0D, INIT_0C, INIT_0B, INIT_0A, INIT_09, INIT_08, INIT_07,
        INIT_06, INIT_05, INIT_04, INIT_03, INIT_02, INIT_01, INIT_00};
    wire [4095:0] parity = {
        INITP_0F, INITP_0E, INITP_0D, INITP_0C, INITP_0B, INITP_0A, INITP_09, INITP_08, INITP_07,
        INITP_06, INITP_05, INITP_04, INITP_03, INITP_02, INITP_01, INITP_00};
    integer i;
    initial for (i = 0; i < 4096; i = i + 1) ram.bytes[i] = {parity[i], data[8 * i +: 8]};
endmodule
