// What the block RAM models share: two ports on bytes of 9 bits. A port reads and writes LANES_* consecutive bytes
// from byte address addr_*, a multiple of LANES_*. Both ports run on one clock.
//
// A byte that one port reads while the other one writes it comes out inverted: on the devices it may be undefined,
// and no design here may depend on it.
module byte_ram #(
    parameter integer LOG2_BYTES = 11,
    parameter integer LANES_A = 1, parameter integer LANES_B = 1,
    parameter integer MODE_A = 0, parameter integer MODE_B = 0  // read while writing: 0 old, 1 new, 2 unchanged
) (
    input clk_a, input en_a, input [7:0] we_a, input [LOG2_BYTES - 1:0] addr_a, input [71:0] d_a,
    output reg [71:0] q_a,
    input clk_b, input en_b, input [7:0] we_b, input [LOG2_BYTES - 1:0] addr_b, input [71:0] d_b,
    output reg [71:0] q_b
);
    reg [8:0] bytes [0:(1 << LOG2_BYTES) - 1];
    integer a, b;
    initial begin
        q_a = 0;
        q_b = 0;
    end

    function automatic [8:0] seen(input [8:0] old, input [8:0] fresh, input [8:0] held, input we,
                                  input integer mode, input collides);
        seen = collides ? ~old : (!we || mode == 0) ? old : mode == 1 ? fresh : held;
    endfunction

    // The other port writes byte `at`.
    function automatic written(input integer at, input en, input [7:0] we, input [LOG2_BYTES - 1:0] first,
                               input integer lanes);
        written = en && at >= 32'(first) && at < 32'(first) + lanes && we[3'(at - 32'(first))];
    endfunction

    always @(posedge clk_a) if (en_a)
        for (a = 0; a < LANES_A; a = a + 1) begin
            q_a[9 * a +: 9] <= seen(bytes[addr_a + a], d_a[9 * a +: 9], q_a[9 * a +: 9], we_a[a], MODE_A,
                                    written(addr_a + a, en_b, we_b, addr_b, LANES_B));
            if (we_a[a]) bytes[addr_a + a] <= d_a[9 * a +: 9];
        end

    always @(posedge clk_b) if (en_b)
        for (b = 0; b < LANES_B; b = b + 1) begin
            q_b[9 * b +: 9] <= seen(bytes[addr_b + b], d_b[9 * b +: 9], q_b[9 * b +: 9], we_b[b], MODE_B,
                                    written(addr_b + b, en_a, we_a, addr_a, LANES_A));
            if (we_b[b]) bytes[addr_b + b] <= d_b[9 * b +: 9];
        end
endmodule
