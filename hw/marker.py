"""Marks the pixels that a step's deltas reach."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from hw.config import MARK_COLUMNS, AcceleratorConfig
from hw.layouts import Layouts, Space
from hw.load import NOTHING, Contents, LoadSignature, loaded_memory
from hw.marks import SEGMENT_BITS
from hw.pipeline import delay
from hw.queue import Queue

DEPTH = 4
"""Pixels that wait."""


class Marker(wiring.Component):
    """For every pixel with a delta, marks the pixels of later tensors that it reaches (``Layouts.reach``).

    Members
    -------
    step, refresh, start : In
        ``reach`` and ``reaches``, steady from ``start`` on. Without any, and in a refresh, nothing is marked.
    strobe, y, x : In
        a pixel with a delta; only while ``ready``.
    ready : Out
    more : In
        pixels may follow.
    set : Out, stream of ``mark_word``
    busy : Out
        something is under way.
    load : In
        host writes into the reach and span tables.

    The pixels of one row and ``MARK_COLUMNS`` columns are collected until another one comes, or no ``more``; then they
    are marked, while the next ones are collected: per reach 2 cycles and one per pixel.

    ::

        pixel -> queue -> collected -> spans of the row, of each column -> marks of a segment -> set, row by row
    """

    def __init__(self, config: AcceleratorConfig, contents: Contents = NOTHING) -> None:
        self.config, self.layouts, self.contents = config, Layouts(config), contents
        lay = self.layouts
        self.collection = StructLayout({"valid": unsigned(1), "y": unsigned(lay.position),
                                        "segment": unsigned(lay.segment), "pixels": unsigned(MARK_COLUMNS)})
        self.answer = StructLayout({"column": unsigned(1), "row": unsigned(1)})
        super().__init__({"step": In(lay.step), "refresh": In(1), "start": In(1), "strobe": In(1),
                          "y": In(lay.position), "x": In(lay.position), "ready": Out(1), "more": In(1),
                          "set": Out(stream.Signature(lay.mark_word)), "busy": Out(1),
                          "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        collected, take = Signal(self.collection), Signal()
        span, kind, go, busy = Signal(self.layouts.span, reset_less=True), Signal(self.answer), Signal(), Signal()
        waiting = self._collect(m, collected, take, busy)
        reach, coming = self._look_up(m, collected, take, span, kind, go, busy)
        gathered = self._gather(m, reach, span, kind, go, coming)
        m.d.comb += self.busy.eq(waiting | collected.valid | coming | gathered | self.set.valid)
        return m

    def _collect(self, m: Module, collected, take, busy):
        """Pixels as bits of a segment, which goes (``take``) when it is complete and nothing is looked up."""
        lay = self.layouts
        m.submodules.pixels = pixels = Queue(StructLayout({"y": unsigned(lay.position), "x": unsigned(lay.position)}),
                                             depth=DEPTH)
        on = delay(m, (self.step.reaches != 0) & ~self.refresh, 1)
        m.d.comb += [self.ready.eq(pixels.i.ready), pixels.i.valid.eq(self.strobe & on),
                     pixels.i.p.y.eq(self.y), pixels.i.p.x.eq(self.x)]
        pixel, valid, segment, bit = pixels.o.p, pixels.o.valid, Signal(lay.segment), Signal(MARK_COLUMNS)
        same = Signal()
        m.d.comb += [segment.eq(pixel.x >> SEGMENT_BITS), bit.eq(1 << pixel.x[:SEGMENT_BITS]),
                     same.eq((pixel.y == collected.y) & (segment == collected.segment)),
                     take.eq(collected.valid & ~busy & Mux(valid, ~same, ~self.more)),
                     pixels.o.ready.eq(~collected.valid | same | take)]
        with m.If(valid & pixels.o.ready):
            m.d.sync += [collected.valid.eq(1), collected.y.eq(pixel.y), collected.segment.eq(segment),
                         collected.pixels.eq(Mux(collected.valid & same, collected.pixels, 0) | bit)]
        with m.Elif(take):
            m.d.sync += collected.valid.eq(0)
        return valid

    def _look_up(self, m: Module, collected, take, span, kind, go, busy):
        """For each reach of the step, the spans of a segment's row and of its pixels, one per cycle, 2 cycles later."""
        lay, step = self.layouts, self.step
        reaches, spans = (loaded_memory(m, space.name.lower(), lay, space, self.load, self.contents).read_port()
                          for space in (Space.REACHES, Space.SPANS))
        job, left = Signal(self.collection), Signal(step.reaches.shape())
        number, reach = Signal(step.reach.shape()), Signal(lay.reach)
        rest, index = Signal(MARK_COLUMNS), Signal(range(MARK_COLUMNS))      # pixels to come; the one looked up
        asked, latched = Signal(self.answer), Signal(self.answer)
        # The next reach is there by the time it is needed, at least two cycles after the last one.
        m.d.comb += [reaches.addr.eq(number), spans.en.eq(go), busy.eq(job.valid),
                     spans.addr.eq(Mux(asked.row, reach.span_y + job.y,
                                       reach.span_x + (job.segment << SEGMENT_BITS) + index))]
        with m.If(go):
            m.d.sync += [span.eq(spans.data), latched.eq(asked), kind.eq(latched)]
        with m.FSM():
            with m.State("REACH"):
                with m.If(job.valid & go):
                    m.d.sync += [reach.eq(reaches.data), rest.eq(job.pixels), left.eq(left - 1),
                                 number.eq(Mux(left == 1, step.reach, number + 1))]
                    m.next = "ROW"
            with m.State("ROW"):
                m.d.comb += asked.row.eq(1)
                with m.If(go):
                    m.next = "COLUMN"
            with m.State("COLUMN"):
                m.d.comb += asked.column.eq(1)
                with m.If(go & (rest == 0)):
                    m.d.sync += job.valid.eq(left != 0)
                    m.next = "REACH"
        with m.If(go & (asked.row | asked.column)):
            m.d.sync += rest.eq(rest & (rest - 1))
            for i in reversed(range(MARK_COLUMNS)):
                with m.If(rest[i]):
                    m.d.sync += index.eq(i)
        with m.If(take):
            m.d.sync += [job.eq(collected), left.eq(step.reaches)]
        with m.If(self.start):
            m.d.sync += number.eq(step.reach)
        return reach, job.valid | latched.row | latched.column | kind.row | kind.column

    def _gather(self, m: Module, reach, span, kind, go, coming):
        """Spans of columns to marks of one segment of the target, and these into each of its rows."""
        lay = self.layouts
        gathered, segment, marks = Signal(), Signal(lay.segment), Signal(MARK_COLUMNS)
        row, rows, stride, none = Signal(lay.mark_address), Signal(lay.position), Signal(lay.segment), Signal()
        first, last, empty = span.first >> SEGMENT_BITS, span.last >> SEGMENT_BITS, span.last < span.first
        other, crosses, some, add, give = Signal(), Signal(), Signal(), Signal(), Signal()
        low, high = span.first[:SEGMENT_BITS], Mux(crosses, MARK_COLUMNS - 1, span.last[:SEGMENT_BITS])
        m.d.comb += [
            some.eq(kind.column & ~none & ~empty), other.eq(gathered & (first != segment)), crosses.eq(first != last),
            add.eq(some & (~other | give)), go.eq(Mux(kind.row, ~gathered | give, ~some | (add & ~crosses))),
            give.eq(gathered & ~self.set.valid & (kind.row | (some & other) | ~coming))]
        with m.If(kind.row & go):
            m.d.sync += [row.eq(reach.marks + span.first * reach.segments), rows.eq(span.last - span.first),
                         stride.eq(reach.segments), none.eq(empty)]
        left, by = Signal(lay.position), Signal(lay.segment)
        with m.If(self.set.valid & self.set.ready):
            m.d.sync += [self.set.p.address.eq(self.set.p.address + by), left.eq(left - 1),
                         self.set.valid.eq(left != 0)]
        with m.If(give):
            m.d.sync += [gathered.eq(0), self.set.valid.eq(1), self.set.p.address.eq(row + segment),
                         self.set.p.mask.eq(marks), left.eq(rows), by.eq(stride)]
        with m.If(add):
            m.d.sync += [gathered.eq(1), segment.eq(first), marks.eq(
                Mux(gathered & ~other, marks, 0) | Cat((i >= low) & (i <= high) for i in range(MARK_COLUMNS)))]
            with m.If(crosses):
                m.d.sync += span.first.eq((first + 1) << SEGMENT_BITS)
        return gathered
