"""Delta and position to column number, first weight and origin in P: what the PEs are told."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.expand import ItemLayout
from hw.layouts import Kind, Layouts
from hw.lnzd import beat_layout
from hw.pe import COLUMN_LATENCY, BusLayouts
from hw.pipeline import delay


class Scatter(wiring.Component):
    """Broadcasts one delta (or one vector) per cycle.

    Members
    -------
    i : In, stream of ``LeadingNonZero`` beats with ``ItemLayout.tag``
    advance : In
        no PE is blocked; everything moves on together.
    column, work : Out
        the broadcast bus; ``work`` follows ``column`` after ``COLUMN_LATENCY`` advances.
    busy : Out
        something is under way.
    broadcast, macs : Out
        a column was told; four cycles later, its MACs that lie in the image, counted over every entry of the
        edge's table.

    A column's number among the edge's columns is the number of its word's first one plus the number of feeding
    channels below it. Latency 3 cycles to ``column``. Cost: two multipliers.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay, bus = self.layouts, BusLayouts(self.layouts)
        beat = beat_layout(config.sweep, ItemLayout(lay).tag)
        self.macs_bits = 2 * (lay.position + 1) + lay.channel + config.sweep.bit_length()
        super().__init__({"i": In(stream.Signature(beat)), "advance": In(1), "column": Out(bus.column),
                          "work": Out(bus.work), "busy": Out(1), "broadcast": Out(1), "macs": Out(self.macs_bits)})

    def elaborate(self, platform):
        m = Module()
        lay, go, config = self.layouts, self.advance, self.config
        tag, mask, index = self.i.p.tag, self.i.p.mask, self.i.p.index
        m.d.comb += self.i.ready.eq(go)
        # 1: column number among the edge's, delta on every lane
        below = Signal(config.sweep)
        m.d.comb += below.eq(tag.channels & ((1 << index) - 1))
        rank = sum((below[i] for i in range(config.sweep)), start=0)
        number = Signal(lay.channel, reset_less=True)
        deltas1, changed = Signal(lay.codes, reset_less=True), Signal(range(config.sweep + 1), reset_less=True)
        vector = tag.edge.vector
        info = StructLayout({"edge": lay.edge, "column": unsigned(lay.column_address),
                             "origin": unsigned(lay.projection_address), "group": unsigned(lay.channel),
                             "taps": tag.taps.shape(), "late": unsigned(1)})
        info1 = Signal(info, reset_less=True)
        with m.If(go):
            m.d.sync += [number.eq(Mux(vector, tag.first >> tag.edge.group_bits, tag.first + rank)),
                         changed.eq(Mux(vector, sum((mask[i] for i in range(config.sweep)), start=0), 1)),
                         info1.edge.eq(tag.edge), info1.column.eq(tag.column), info1.origin.eq(tag.origin),
                         info1.group.eq(tag.first), info1.taps.eq(tag.taps), info1.late.eq(tag.late)]
            m.d.sync += [deltas1[i].eq(Mux(vector, tag.deltas[i], tag.deltas[index])) for i in range(config.sweep)]
        valid1 = delay(m, self.i.valid, 1, go)
        # 2: its first weight
        number2, info2 = delay(m, number, 1, go, reset_less=True), delay(m, info1, 1, go, reset_less=True)
        weight = delay(m, number * info1.edge.stride, 1, go, reset_less=True)
        valid2, changed2 = delay(m, valid1, 1, go), delay(m, changed, 1, go, reset_less=True)
        # 3: the bus
        work = Signal(BusLayouts(lay).work)
        csc, edge = info2.edge.walk.kind != Kind.DENSE8, info2.edge
        with m.If(go):
            m.d.sync += [
                self.column.valid.eq(valid2), self.column.column.eq(info2.column + Mux(csc, number2, 0)),
                self.column.vector.eq(edge.vector), self.column.group.eq(info2.group),
                self.column.group_bits.eq(edge.group_bits), work.valid.eq(valid2), work.start.eq(edge.weight + weight),
                work.origin.eq(info2.origin + Mux(edge.vector, number2, 0)), work.walk.eq(edge.walk),
                work.late.eq(info2.late), work.deltas.eq(delay(m, deltas1, 1, go, reset_less=True)),
            ]
        works = [work]
        for _ in range(COLUMN_LATENCY):
            works.append(delay(m, works[-1], 1, go))
        m.d.comb += self.work.eq(works[-1])
        m.d.sync += self.broadcast.eq(work.valid & go)
        # MACs: only counted, so the multiplier may lie anywhere, between registers of its own; the second factor is
        # small, and its bits choose what is added
        taps3, rows3, changed3 = (delay(m, value, 1, go, reset_less=True)
                                  for value in (info2.taps, edge.rows, changed2))
        area = delay(m, delay(m, Mux(work.valid & go, taps3, 0), 1) * delay(m, rows3, 1), 2)
        bits = [Mux(bit, area << i, 0) for i, bit in enumerate(delay(m, changed3, 3))]
        m.d.sync += self.macs.eq(sum(delay(m, sum(bits[i:i + 2]), 1) for i in range(0, len(bits), 2)))
        m.d.comb += self.busy.eq(Cat(self.i.valid, valid1, valid2, *(w.valid for w in works)).any())
        return m
