"""The order in which a sweep goes over the words of a tensor."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts
from hw.pipeline import delay


class SweepOrder(wiring.Component):
    """Counts the words of a tensor in the order y, x div B, channel group, x mod B, with ``B = step.interleave + 1``.

    Members
    -------
    step : In
        ``height``, ``width``, ``groups``, ``interleave`` and ``snapshot``, steady from ``start`` on.
    start : In
        the next word is the first.
    advance : In
        the word is done with.
    y, x, group, address : Out
        where it is; ``address`` is its snapshot word.
    within, back, onward, down : Out
        to which word ``advance`` leads: the next column of the block, the block's first column in the next group,
        the next block, the next row. Exactly one of them is set.
    last : Out
        it is the last word of all.

    One word per cycle. All comparisons are made a word ahead, so every output is a register or one LUT behind some.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({"step": In(lay.step), "start": In(1), "advance": In(1), "y": Out(lay.position),
                          "x": Out(lay.position), "group": Out(lay.group), "address": Out(lay.snapshot_address),
                          "within": Out(1), "back": Out(1), "onward": Out(1), "down": Out(1), "last": Out(1)})

    def elaborate(self, platform):
        m = Module()
        step, x, y, group = self.step, self.x, self.y, self.group
        # The block's first column, whether the row ends with it and, of the group under way, its word.
        block, block_alone, block_address = Signal.like(x), Signal(), Signal.like(self.address)
        row_end, block_end, group_end, column_end = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.within.eq(~block_end), self.back.eq(block_end & ~group_end),
            self.onward.eq(block_end & group_end & ~row_end), self.down.eq(block_end & group_end & row_end),
            self.last.eq(self.down & column_end)]
        # Of the step, a cycle late: at ``start`` it is looked at directly.
        narrow, flat, alone = step.width == 1, step.groups == 1, step.interleave == 0
        narrow_late, flat_late, alone_late = (delay(m, v, 1) for v in (narrow, flat, alone))
        to_row_end, to_column_end, to_group_end = (delay(m, v - 2, 1) for v in (step.width, step.height, step.groups))
        low = Signal(step.interleave.shape())
        m.d.comb += low.eq(x + 1)
        with m.If(self.advance):
            m.d.sync += self.address.eq(Mux(block_end, Mux(group_end, self.address, block_address) + 1,
                                            self.address + step.groups))
            with m.If(self.down):
                m.d.sync += [x.eq(0), block.eq(0), row_end.eq(narrow_late), block_end.eq(narrow_late | alone_late),
                             block_alone.eq(narrow_late), y.eq(y + 1), column_end.eq(y == to_column_end)]
            with m.Elif(self.back):
                m.d.sync += [x.eq(block), row_end.eq(block_alone), block_end.eq(block_alone | alone_late),
                             group.eq(group + 1), group_end.eq(group == to_group_end),
                             block_address.eq(block_address + 1)]
            with m.Else():
                m.d.sync += [x.eq(x + 1), row_end.eq(x == to_row_end),
                             block_end.eq((x == to_row_end) | ((low & step.interleave) == step.interleave))]
            with m.If(block_end & group_end):
                m.d.sync += [group.eq(0), group_end.eq(flat_late), block_address.eq(self.address + 1)]
            with m.If(self.onward):
                m.d.sync += [block.eq(x + 1), block_alone.eq(x == to_row_end)]
        with m.If(self.start):
            m.d.sync += [x.eq(0), block.eq(0), y.eq(0), group.eq(0), row_end.eq(narrow), block_end.eq(narrow | alone),
                         block_alone.eq(narrow), group_end.eq(flat), column_end.eq(step.height == 1),
                         self.address.eq(step.snapshot), block_address.eq(step.snapshot)]
        return m
