"""Every delta word once per edge of the step, with what the edge's tables say about its pixel."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space, size_of
from hw.load import LoadSignature


class ItemLayout:
    """One delta word for one edge."""

    def __init__(self, layouts: Layouts) -> None:
        tap_bits = 2 * (layouts.position + 1)
        self.tag = StructLayout({
            "deltas": layouts.codes, "channels": unsigned(layouts.config.sweep), "first": unsigned(layouts.channel),
            "column": unsigned(layouts.column_address), "origin": unsigned(layouts.projection_address),
            "taps": unsigned(tap_bits), "edge": layouts.edge})
        self.item = StructLayout({"mask": unsigned(layouts.config.sweep), "whole": unsigned(1), "tag": self.tag})


class Expand(wiring.Component):
    """Looks up, for each delta word and each edge of the step, column class, origin in P and channels.

    Members
    -------
    i : In, stream of ``delta_word``
    step : In
        its ``edge`` and ``edges``, steady.
    o : Out, stream of ``ItemLayout.item``
        items with nothing to do (no channel of this edge changed, no tap in the image) are left out.
    busy : Out
        something is under way.
    load : In
        host writes into the edge, axis and channel tables.

    One item per cycle; latency 4 cycles. Back-pressure holds the whole pipeline. Cost: four small memories, one
    multiplier (taps y x taps x).

    ::

        word, edge number -> edge table -> addresses -> axis_y, axis_x, channels -> sums -> o
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({"i": In(stream.Signature(lay.delta_word)), "step": In(lay.step),
                          "o": Out(stream.Signature(ItemLayout(lay).item)), "busy": Out(1),
                          "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        lay, word = self.layouts, self.i.p
        enable = Signal()
        m.d.comb += enable.eq(~self.o.valid | self.o.ready)
        number = Signal(self.step.edges.shape())
        last = (number + 1) >= self.step.edges
        m.d.comb += self.i.ready.eq(enable & last)
        with m.If(self.i.valid & enable):
            m.d.sync += number.eq(Mux(last, 0, number + 1))
        read = self._table(m, Space.EDGES, self.step.edge + number, enable)
        valid = [self.i.valid & (self.step.edges != 0)]
        words = [word]
        for _ in range(3):
            following, held = Signal(), Signal(lay.delta_word, reset_less=True)
            with m.If(enable):
                m.d.sync += [following.eq(valid[-1]), held.eq(words[-1])]
            valid.append(following)
            words.append(held)
        edge2, edge3 = Signal(lay.edge, reset_less=True), Signal(lay.edge, reset_less=True)
        addresses = {s: Signal(self._depth_bits(s), name=s.name) for s in (Space.AXIS_Y, Space.AXIS_X, Space.CHANNELS)}
        with m.If(enable):
            m.d.sync += [edge2.eq(read), edge3.eq(edge2), addresses[Space.AXIS_Y].eq(read.axis_y + words[1].y),
                         addresses[Space.AXIS_X].eq(read.axis_x + words[1].x),
                         addresses[Space.CHANNELS].eq(read.channels + words[1].group)]
        y, x, channels = (self._table(m, space, address, enable) for space, address in addresses.items())
        o, tag = self.o.p, self.o.p.tag
        mask = words[3].mask & channels.mask
        with m.If(enable):
            m.d.sync += [
                self.o.valid.eq(valid[3] & (mask != 0) & (y.taps != 0) & (x.taps != 0)),
                o.mask.eq(mask), o.whole.eq(edge3.vector), tag.deltas.eq(words[3].deltas),
                tag.channels.eq(channels.mask), tag.first.eq(channels.first),
                tag.column.eq(edge3.column + y.column + x.column), tag.origin.eq(edge3.origin + y.origin + x.origin),
                tag.taps.eq(y.taps * x.taps), tag.edge.eq(edge3),
            ]
        m.d.comb += self.busy.eq(self.i.valid | valid[1] | valid[2] | valid[3] | self.o.valid)
        return m

    def _depth_bits(self, space: Space) -> int:
        return max(1, (self.layouts.memories()[space][1] - 1).bit_length())

    def _table(self, m: Module, space: Space, address, enable):
        shape, depth = self.layouts.memories()[space]
        m.submodules[space.name.lower()] = memory = Memory(shape=shape, depth=depth, init=[])
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += [read.addr.eq(address), read.en.eq(enable), write.addr.eq(self.load.address),
                     write.data.eq(self.load.data[:size_of(shape)]),
                     write.en.eq(self.load.strobe & (self.load.space == space))]
        return read.data
