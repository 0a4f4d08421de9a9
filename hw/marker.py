"""Marks the pixels that a step's deltas reach."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from hw.config import MARK_COLUMNS, AcceleratorConfig
from hw.layouts import Layouts, Space
from hw.load import NOTHING, Contents, LoadSignature, loaded_memory
from hw.pipeline import delay
from hw.queue import Queue

SEGMENT_BITS = MARK_COLUMNS.bit_length() - 1
DEPTH = 4
"""Pixels that wait."""


class Marker(wiring.Component):
    """For every pixel with a delta, marks the pixels of later tensors that it reaches (``Layouts.reach``).

    Members
    -------
    step, refresh : In
        ``reach`` and ``reaches``, steady. Without any, and in a refresh, nothing is marked.
    strobe, y, x : In
        a pixel with a delta; only while ``ready``.
    ready : Out
    set : Out, stream of ``mark_word``
    busy : Out
        something is under way.
    load : In
        host writes into the reach and span tables.

    Pixels of one row and ``MARK_COLUMNS`` columns are collected while the ones before them are marked. Marking takes, for
    each reach, about 8 cycles, one per pixel, and 4 per row and word of marks, these beside the pixels of the next word.

    ::

        pixel -> queue -> collected -> row and columns of a reach -> marks of a segment -> set, row by row
    """

    def __init__(self, config: AcceleratorConfig, contents: Contents = NOTHING) -> None:
        self.config, self.layouts, self.contents = config, Layouts(config), contents
        lay = self.layouts
        super().__init__({"step": In(lay.step), "refresh": In(1), "strobe": In(1), "y": In(lay.position),
                          "x": In(lay.position), "ready": Out(1), "set": Out(stream.Signature(lay.mark_word)),
                          "busy": Out(1), "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        on, free = Signal(), Signal()
        m.d.sync += on.eq((self.step.reaches != 0) & ~self.refresh)
        waiting, collected = self._collect(m, on, free)
        active = self._mark(m, collected, free)
        m.d.comb += self.busy.eq(waiting | collected.valid | active | self.set.valid)
        return m

    def _collect(self, m: Module, on, free):
        """Pixels as bits of a segment; it is given away when the marking is ``free``."""
        lay = self.layouts
        m.submodules.pixels = pixels = Queue(StructLayout({"y": unsigned(lay.position), "x": unsigned(lay.position)}),
                                             depth=DEPTH)
        m.d.comb += [self.ready.eq(pixels.i.ready), pixels.i.valid.eq(self.strobe & on),
                     pixels.i.p.y.eq(self.y), pixels.i.p.x.eq(self.x)]
        collected = Signal(StructLayout({"valid": unsigned(1), "y": unsigned(lay.position),
                                         "segment": unsigned(lay.segment), "pixels": unsigned(MARK_COLUMNS)}))
        pixel, segment, bit = pixels.o.p, Signal(lay.segment), Signal(MARK_COLUMNS)
        same, keep = Signal(), Signal(MARK_COLUMNS)
        m.d.comb += [segment.eq(pixel.x >> SEGMENT_BITS), bit.eq(1 << pixel.x[:SEGMENT_BITS]),
                     same.eq((pixel.y == collected.y) & (segment == collected.segment)),
                     keep.eq(Mux(collected.valid & ~free, collected.pixels, 0)),
                     pixels.o.ready.eq(~collected.valid | free | same)]
        with m.If(pixels.o.valid & pixels.o.ready):
            m.d.sync += [collected.valid.eq(1), collected.y.eq(pixel.y), collected.segment.eq(segment),
                         collected.pixels.eq(keep | bit)]
        with m.Elif(free):
            m.d.sync += collected.valid.eq(0)
        return pixels.o.valid, collected

    def _mark(self, m: Module, collected, free):
        """Takes a segment and goes through the reaches of the step."""
        lay, step = self.layouts, self.step
        reaches, spans = (loaded_memory(m, space.name.lower(), lay, space, self.load, self.contents).read_port()
                          for space in (Space.REACHES, Space.SPANS))
        y, segment, pixels = Signal(lay.position), Signal(lay.segment), Signal(MARK_COLUMNS)
        number, left = Signal(step.reach.shape()), Signal(step.reaches.shape())
        reach, span = delay(m, reaches.data, 1, reset_less=True), Signal(lay.span, reset_less=True)
        rest, index = Signal(MARK_COLUMNS), Signal(range(MARK_COLUMNS))      # pixels to come; the one looked up
        first_x, rows, row = Signal(lay.span_address), Signal(lay.position), Signal(lay.mark_address)
        columns, idle = Signal(), Signal()
        go, gathered = Signal(), Signal()
        looked, latched, shown = Signal(), Signal(), Signal()                # a column's span on its way
        m.d.comb += [reaches.addr.eq(number), spans.en.eq(go), free.eq(idle & collected.valid),
                     spans.addr.eq(Mux(columns, first_x + index, reach.span_y + y))]
        with m.If(go):
            m.d.sync += [span.eq(spans.data), looked.eq(columns & (rest != 0)), latched.eq(looked), shown.eq(latched),
                         rest.eq(rest & (rest - 1))]
            for i in reversed(range(MARK_COLUMNS)):
                with m.If(rest[i]):
                    m.d.sync += index.eq(i)
        wait = Signal(3)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += idle.eq(1)
                m.d.sync += [y.eq(collected.y), segment.eq(collected.segment), pixels.eq(collected.pixels),
                             number.eq(step.reach), left.eq(step.reaches), wait.eq(0)]
                with m.If(collected.valid):
                    m.next = "ROWS"
            with m.State("ROWS"):
                # Cycle 2 has the reach, 4 its rows.
                m.d.sync += [wait.eq(wait + 1), rest.eq(pixels), first_x.eq(reach.span_x + (segment << SEGMENT_BITS)),
                             rows.eq(span.last - span.first), row.eq(reach.marks + span.first * reach.segments)]
                with m.If(wait == 4):
                    m.next = "COLUMNS"
                    with m.If(span.last < span.first):
                        m.next = "NEXT"
            with m.State("COLUMNS"):
                m.d.comb += columns.eq(1)
                with m.If((rest == 0) & ~(looked | latched | shown | gathered)):
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += [number.eq(number + 1), left.eq(left - 1), wait.eq(0)]
                m.next = "ROWS"
                with m.If(left == 1):
                    m.next = "IDLE"
        self._gather(m, span, shown, (rest != 0) | looked | latched, go, gathered, row, rows, reach.segments)
        return ~idle

    def _gather(self, m: Module, span, shown, more, go, gathered, row, rows, stride) -> None:
        """Spans of columns to marks of one segment of the target, and these into each of its rows."""
        lay = self.layouts
        segment, marks = Signal(lay.segment), Signal(MARK_COLUMNS)
        first, last = (getattr(span, k) >> SEGMENT_BITS for k in ("first", "last"))
        other, crosses, add, give = Signal(), Signal(), Signal(), Signal()
        low, high = span.first[:SEGMENT_BITS], Mux(crosses, MARK_COLUMNS - 1, span.last[:SEGMENT_BITS])
        some = shown & (span.first <= span.last)
        m.d.comb += [other.eq(gathered & (first != segment)), crosses.eq(first != last), add.eq(some & ~other),
                     go.eq(~some | (add & ~crosses)),
                     give.eq(~self.set.valid & Mux(some, other, gathered & ~shown & ~more))]
        with m.If(add):
            m.d.sync += [gathered.eq(1), segment.eq(first), marks.eq(
                Mux(gathered, marks, 0) | Cat((i >= low) & (i <= high) for i in range(MARK_COLUMNS)))]
            with m.If(crosses):
                m.d.sync += span.first.eq((first + 1) << SEGMENT_BITS)
        left, step = Signal(lay.position), Signal(lay.segment)
        with m.If(self.set.valid & self.set.ready):
            m.d.sync += [self.set.p.address.eq(self.set.p.address + step), left.eq(left - 1),
                         self.set.valid.eq(left != 0)]
        with m.If(give):
            m.d.sync += [gathered.eq(0), self.set.valid.eq(1), self.set.p.address.eq(row + segment),
                         self.set.p.mask.eq(marks), left.eq(rows), step.eq(stride)]
