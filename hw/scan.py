"""Looks through a tensor's marks for the pixels to sweep."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import MARK_COLUMNS, AcceleratorConfig
from hw.layouts import Layouts
from hw.marks import SEGMENT_BITS, Marks
from hw.pipeline import delay
from hw.queue import Queue

DEPTH = 8
"""Words of marks that wait."""


class Scan(wiring.Component):
    """Gives the pixels to sweep, in blocks of up to ``config.block`` columns.

    Members
    -------
    step, refresh, start : In
        at ``start``, ``height``, ``width``, ``skip`` and ``marks`` of a step. Without ``skip`` and in a refresh all
        pixels are swept, whatever their marks.
    busy : Out
    take, take_address, take_clear, taken
        to ``Marks``. With ``skip`` every word is cleared as it is read.
    o : Out, stream of ``Layouts.block``
        blocks with some pixel to sweep, row by row, from left to right.

    A word of marks per cycle, so ``MARK_COLUMNS`` pixels that nothing has reached cost one; a block per cycle.
    Latency ``LATENCY`` cycles from ``start``.
    """

    LATENCY = 5

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({"step": In(lay.step), "refresh": In(1), "start": In(1), "busy": Out(1), "take": Out(1),
                          "take_address": Out(lay.mark_address), "take_clear": Out(1), "taken": In(MARK_COLUMNS),
                          "o": Out(stream.Signature(lay.block))})

    def elaborate(self, platform):
        m = Module()
        lay = self.layouts
        layout = StructLayout({"y": unsigned(lay.position), "segment": unsigned(lay.segment),
                               "row": unsigned(lay.pixel), "mask": unsigned(MARK_COLUMNS), "left": unsigned(1),
                               "above": unsigned(MARK_COLUMNS if self.config.line_words else 0)})
        m.submodules.words = words = Queue(layout, depth=DEPTH)
        going, found = self._read(m, words, layout)
        m.d.comb += self.busy.eq(going | found | words.o.valid)
        self._blocks(m, words)
        return m

    def _read(self, m: Module, words: Queue, layout: StructLayout):
        """Words of marks, one after the other, into the queue unless they are 0."""
        lay, step, running, at = self.layouts, self.step, Signal(), Signal(layout)
        width, end, last_segment = Signal.like(step.width), Signal.like(step.height), Signal(lay.segment)
        # ``tail``: of the last word of a row, the columns that there are.
        tail, whole = Signal(MARK_COLUMNS), Signal()
        row_end = at.segment == last_segment
        m.d.comb += self.take.eq(running & (words.level <= DEPTH - 4))
        with m.If(self.take):
            m.d.sync += [self.take_address.eq(self.take_address + 1), at.segment.eq(at.segment + 1)]
            with m.If(row_end):
                m.d.sync += [at.segment.eq(0), at.y.eq(at.y + 1), at.row.eq(at.row + width),
                             running.eq(at.y != end)]
        with m.If(self.start):
            m.d.sync += [running.eq(1), self.take_address.eq(step.marks), at.eq(0), self.take_clear.eq(step.skip),
                         width.eq(step.width), end.eq(step.height - 1), whole.eq(self.refresh | ~step.skip),
                         last_segment.eq((step.width - 1) >> SEGMENT_BITS)]
            m.d.sync += tail.eq(Cat(i <= (step.width - 1)[:SEGMENT_BITS] for i in range(MARK_COLUMNS)))
        valid, taken_at, last = self.take, at, row_end
        for _ in range(Marks.TAKE_LATENCY):
            valid, taken_at, last = delay(m, valid, 1), delay(m, taken_at, 1), delay(m, last, 1)
        word, mask = Signal(layout, reset_less=True), Signal(MARK_COLUMNS)
        m.d.comb += mask.eq((self.taken | whole.replicate(MARK_COLUMNS)) & (tail | (~last).replicate(MARK_COLUMNS)))
        with m.If(valid):
            m.d.sync += [word.y.eq(taken_at.y), word.segment.eq(taken_at.segment), word.row.eq(taken_at.row),
                         word.left.eq(word.mask[-1] & (taken_at.segment != 0)), word.mask.eq(mask)]
        if self.config.line_words:
            # The words of the last row; this row's take their place.
            m.submodules.rows = rows = Memory(shape=MARK_COLUMNS, depth=-(-self.config.max_size // MARK_COLUMNS),
                                              init=[])
            read, write = rows.read_port(domain="comb"), rows.write_port()
            m.d.comb += [read.addr.eq(taken_at.segment), write.addr.eq(taken_at.segment), write.data.eq(mask),
                         write.en.eq(valid)]
            with m.If(valid):
                m.d.sync += word.above.eq(Mux(taken_at.y == 0, 0, read.data))
        found = delay(m, valid, 1)
        m.d.comb += [words.i.valid.eq(found & (word.mask != 0)), words.i.p.eq(word)]
        return running | delay(m, self.take, 1) | valid, found

    def _blocks(self, m: Module, words: Queue) -> None:
        """The head's blocks that are not empty, one after the other."""
        size, head = self.config.block, words.o.p
        count = MARK_COLUMNS // size
        done, left, rest = Signal(count), Signal(count), Signal(count)
        m.d.comb += [left[i].eq(head.mask[i * size:(i + 1) * size].any() & ~done[i]) for i in range(count)]
        m.d.comb += [rest.eq(left & (left - 1)), self.o.valid.eq(words.o.valid),
                     words.o.ready.eq(self.o.ready & (rest == 0)), self.o.p.y.eq(head.y), self.o.p.row.eq(head.row)]
        for i in reversed(range(count)):
            with m.If(left[i]):
                m.d.comb += [self.o.p.mask.eq(head.mask[i * size:(i + 1) * size]),
                             self.o.p.above.eq(head.above >> i * size),
                             self.o.p.left.eq(head.mask[i * size - 1] if i else head.left),
                             self.o.p.x.eq(Cat(Const(i * size, SEGMENT_BITS), head.segment))]
        with m.If(words.o.valid & self.o.ready):
            m.d.sync += done.eq(Mux(rest == 0, 0, done | (left & ~rest)))
