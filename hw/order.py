"""The order in which a sweep goes over the words of a block."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts


class SweepOrder(wiring.Component):
    """Blocks of pixels to their words: channel group after channel group, in each the pixels from left to right.

    Members
    -------
    groups : In
        of the tensor, steady.
    i : In, stream of ``Layouts.block``
        ``x`` is a multiple of the block's size, ``mask`` is not 0.
    o : Out, stream of ``Layouts.sweep_word``

    One word per cycle without a gap between blocks; latency 1 cycle.
    """

    LATENCY = 1

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({"groups": In(lay.group), "i": In(stream.Signature(lay.block)),
                          "o": Out(stream.Signature(lay.sweep_word))})

    def elaborate(self, platform):
        m = Module()
        block, valid, size = Signal(self.layouts.block, reset_less=True), Signal(), self.config.block
        pending, group = Signal(size, reset_less=True), Signal(self.layouts.group, reset_less=True)
        group_end, rest, done = Signal(reset_less=True), Signal(size), Signal()
        o = self.o.p
        m.d.comb += [rest.eq(pending & (pending - 1)), done.eq((rest == 0) & group_end),
                     self.i.ready.eq(~valid | (self.o.ready & done)),
                     self.o.valid.eq(valid), o.y.eq(block.y), o.row.eq(block.row), o.group.eq(group)]
        for i in reversed(range(size)):
            with m.If(pending[i]):
                m.d.comb += [o.x.eq(block.x | i), o.left.eq(block.mask[i - 1] if i else block.left),
                             o.above.eq(block.above >> i)]
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), block.eq(self.i.p), pending.eq(self.i.p.mask), group.eq(0),
                         group_end.eq(self.groups == 1)]
        with m.Elif(self.o.ready):
            m.d.sync += pending.eq(rest)
            with m.If(rest == 0):
                m.d.sync += [pending.eq(block.mask), group.eq(group + 1), group_end.eq(group + 2 == self.groups)]
        return m
