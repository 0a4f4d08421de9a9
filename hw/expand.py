"""Every delta word once per edge of the step, with what the edge's tables say about its pixel."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space
from hw.load import NOTHING, Contents, LoadSignature, loaded_memory
from hw.pipeline import delay


class ItemLayout:
    """One delta word for one edge."""

    def __init__(self, layouts: Layouts) -> None:
        tap_bits = 2 * (layouts.position + 1)
        self.tag = StructLayout({
            "deltas": layouts.codes, "channels": unsigned(layouts.config.sweep), "first": unsigned(layouts.channel),
            "column": unsigned(layouts.column_address), "origin": unsigned(layouts.projection_address),
            "taps": unsigned(tap_bits), "edge": layouts.edge, "late": unsigned(1)})
        self.item = StructLayout({"mask": unsigned(layouts.config.sweep), "whole": unsigned(1), "tag": self.tag})


class Expand(wiring.Component):
    """Looks up, for each delta word and each edge of the step, column class, origin in P and channels.

    Members
    -------
    i : In, stream of ``delta_word``
    step : In
        its ``edge`` and ``edges``, steady from a cycle before the first word.
    o : Out, stream of ``ItemLayout.item``
        items with nothing to do (no channel of this edge changed, no tap in the image) are left out.
    busy : Out
        something is under way.
    load : In
        host writes into the edge, axis and channel tables.

    One item per cycle; latency ``LATENCY`` cycles. Back-pressure holds the whole pipeline. Cost: four small memories,
    one multiplier (taps y x taps x).

    ::

        0 word, edge number | 2 edge | 3 addresses | 5 axis_y, axis_x, channels | 6 sums: o
    """

    LATENCY = 6

    def __init__(self, config: AcceleratorConfig, contents: Contents = NOTHING) -> None:
        self.config, self.layouts, self.contents = config, Layouts(config), contents
        lay = self.layouts
        super().__init__({"i": In(stream.Signature(lay.delta_word)), "step": In(lay.step),
                          "o": Out(stream.Signature(ItemLayout(lay).item)), "busy": Out(1),
                          "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        word, enable = self.i.p, Signal()
        m.d.comb += enable.eq(~self.o.valid | self.o.ready)
        number, last, only = Signal(self.step.edges.shape()), Signal(), self.step.edges <= 1
        m.d.comb += self.i.ready.eq(enable & last)
        with m.If(self.i.valid & enable):
            m.d.sync += [number.eq(Mux(last, 0, number + 1)), last.eq(Mux(last, only, number + 2 >= self.step.edges))]
        with m.Elif(number == 0):
            m.d.sync += last.eq(only)
        valid = [self.i.valid & (self.step.edges != 0)]
        for _ in range(self.LATENCY - 1):
            valid.append(delay(m, valid[-1], 1, enable))

        def later(value, cycles: int):
            return delay(m, value, cycles, enable, reset_less=True)

        edge = self._table(m, Space.EDGES, self.step.edge + number, enable)
        at = {name: later(word[name], 2) for name in ("y", "x", "group")}
        y, x, channels = (self._table(m, space, later(address, 1), enable)
                          for space, address in ((Space.AXIS_Y, edge.axis_y + at["y"]),
                                                 (Space.AXIS_X, edge.axis_x + at["x"]),
                                                 (Space.CHANNELS, edge.channels + at["group"])))
        o, tag, edge = self.o.p, self.o.p.tag, later(edge, 3)
        mask = later(word.mask, 5) & channels.mask
        late = later(later(word.y, 1) >= self.step.late, 4)
        with m.If(enable):
            m.d.sync += [
                self.o.valid.eq(valid[-1] & (mask != 0) & (y.taps != 0) & (x.taps != 0)),
                o.mask.eq(mask), o.whole.eq(edge.vector), tag.deltas.eq(later(word.deltas, 5)),
                tag.channels.eq(channels.mask), tag.first.eq(channels.first),
                tag.column.eq(edge.column + y.column + x.column), tag.origin.eq(edge.origin + y.origin + x.origin),
                tag.taps.eq(y.taps * x.taps), tag.edge.eq(edge), tag.late.eq(late),
            ]
        m.d.comb += self.busy.eq(Cat(self.i.valid, *valid[1:], self.o.valid).any())
        return m

    def _table(self, m: Module, space: Space, address, enable):
        """The word at an address, 2 cycles later."""
        read = loaded_memory(m, space.name.lower(), self.layouts, space, self.load, self.contents).read_port()
        m.d.comb += [read.addr.eq(address), read.en.eq(enable)]
        return delay(m, read.data, 1, enable, reset_less=True)
