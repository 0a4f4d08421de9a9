"""Max-pool over the words of a window."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Layouts
from hw.sweep import FLAGS


class MaxPool(wiring.Component):
    """Element-wise maximum from the beat flagged ``window_first`` to the one flagged ``window_last``.

    Members
    -------
    i, i_valid, i_flags : In
        S codes; beats flagged ``outside`` do not count.
    o, o_valid : Out
        the maximum, 1 cycle after the window's last beat.

    One beat per cycle, no back-pressure. Without a pool every beat is a window.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        codes = Layouts(config).codes
        super().__init__({"i": In(codes), "i_valid": In(1), "i_flags": In(FLAGS), "o": Out(codes), "o_valid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        lowest = -(1 << CODE_BITS - 1)
        m.d.sync += self.o_valid.eq(self.i_valid & self.i_flags.window_last)
        for lane in range(self.config.sweep):
            x, before = Signal.like(self.i[lane], name=f"x{lane}"), Signal.like(self.i[lane], name=f"before{lane}")
            m.d.comb += [x.eq(Mux(self.i_flags.outside, lowest, self.i[lane])),
                         before.eq(Mux(self.i_flags.window_first, lowest, self.o[lane]))]
            with m.If(self.i_valid):
                m.d.sync += self.o[lane].eq(Mux(x > before, x, before))
        return m
