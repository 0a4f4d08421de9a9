"""Max-pool over the words of a window."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Layouts
from hw.sweep import FLAGS


class MaxPool(wiring.Component):
    """Element-wise maximum from the beat flagged ``window_first`` to the one flagged ``window_last``.

    Members
    -------
    i, i_valid, i_flags : In
        S codes; beats flagged ``outside`` do not count. With ``left`` the maximum begins with that of the beats flagged
        ``shared`` in the last window of the same group.
    i_group : In
        the channel group of the window.
    o, o_valid : Out
        the maximum, 1 cycle after the window's last beat.

    One beat per cycle, no back-pressure. Without a pool every beat is a window. Cost: a LUT RAM word of S codes per
    channel group.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        codes = self.layouts.codes
        super().__init__({"i": In(codes), "i_valid": In(1), "i_flags": In(FLAGS), "i_group": In(self.layouts.group),
                          "o": Out(codes), "o_valid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        lowest, flags = -(1 << CODE_BITS - 1), self.i_flags
        groups = -(-self.config.max_channels // self.config.sweep)
        m.submodules.kept = kept = Memory(shape=self.layouts.codes, depth=groups, init=[])
        write, read = kept.write_port(), kept.read_port(domain="comb")
        shared = Signal(self.layouts.codes)
        m.d.comb += [read.addr.eq(self.i_group), write.addr.eq(self.i_group),
                     write.en.eq(self.i_valid & flags.window_last)]
        m.d.sync += self.o_valid.eq(self.i_valid & flags.window_last)
        for lane in range(self.config.sweep):
            x, before, tail = (Signal.like(self.i[lane], name=f"{name}{lane}") for name in ("x", "before", "tail"))
            m.d.comb += [x.eq(Mux(flags.outside, lowest, self.i[lane])),
                         before.eq(Mux(flags.window_first, Mux(flags.left, read.data[lane], lowest), self.o[lane])),
                         tail.eq(Mux(flags.window_first, lowest, shared[lane]))]
            m.d.comb += write.data[lane].eq(Mux(flags.shared & (x > tail), x, tail))
            with m.If(self.i_valid):
                m.d.sync += [self.o[lane].eq(Mux(x > before, x, before)), shared[lane].eq(write.data[lane])]
        return m
