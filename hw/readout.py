"""The host's read path: projections, snapshots and counters, while no step runs."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space, address_bits, chunks, size_of
from hw.load import ADDRESS_BITS, SPACE_BITS, UNIT_BITS

READ = StructLayout({"space": unsigned(SPACE_BITS), "unit": unsigned(UNIT_BITS), "address": unsigned(ADDRESS_BITS)})
"""A read request. PROJECTIONS: ``unit`` is the sweep group, the answer the S accumulators of its PEs at
``address``. SNAPSHOTS: a word of S codes. COUNTERS: those of step ``address``."""
ANSWER = StructLayout({"data": unsigned(32), "last": unsigned(1)})
"""One 32-bit chunk of the answer, lowest first."""


def answer_layout(layouts: Layouts, space: Space):
    """Layout of the word that answers a read of a space."""
    return {Space.PROJECTIONS: ArrayLayout(layouts.accumulators.elem_shape, layouts.config.sweep),
            Space.SNAPSHOTS: layouts.codes, Space.COUNTERS: layouts.counters}[space]


class Readout(wiring.Component):
    """Reads one word at a time through ports that the ring has anyway.

    Members
    -------
    i : In, stream of ``READ``; o : Out, stream of ``ANSWER``
    idle : In
        no step runs; requests wait for it.
    projection, group, address : Out
        a read of P through the sweep's request bus; of the other spaces ``address`` alone.
    active : Out
        ``address`` is the readout's.
    projections, snapshot, counters : In
        the words, ``wait`` cycles after ``address`` or earlier and then steady (``projections`` exactly then).

    Parameters
    ----------
    wait
        cycles from request to word.
    """

    def __init__(self, config: AcceleratorConfig, *, wait: int) -> None:
        self.config, self.wait, self.layouts = config, wait, Layouts(config)
        lay = self.layouts
        widest = address_bits(max(config.projection_words, config.snapshot_words, config.step_words))
        super().__init__({
            "i": In(stream.Signature(READ)), "o": Out(stream.Signature(ANSWER)), "idle": In(1), "active": Out(1),
            "projection": Out(1), "group": Out(max(1, lay.log_groups)), "address": Out(widest),
            **{space.name.lower(): In(answer_layout(lay, space))
               for space in (Space.PROJECTIONS, Space.SNAPSHOTS, Space.COUNTERS)}})

    def elaborate(self, platform):
        m = Module()
        spaces = {s: getattr(self, s.name.lower()) for s in (Space.PROJECTIONS, Space.SNAPSHOTS, Space.COUNTERS)}
        sizes = {s: size_of(answer_layout(self.layouts, s)) for s in spaces}
        count = chunks(max(sizes.values()))
        word, left = Signal(32 * count), Signal(range(count + 1))
        space, waiting = Signal(SPACE_BITS), Signal(range(self.wait + 1))
        m.d.comb += [self.o.p.data.eq(word[:32]), self.o.p.last.eq(left == 1)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(self.idle)
                m.d.sync += [space.eq(self.i.p.space), self.group.eq(self.i.p.unit),
                             self.address.eq(self.i.p.address), waiting.eq(0), self.projection.eq(0)]
                with m.If(self.i.valid & self.idle):
                    m.d.sync += self.projection.eq(self.i.p.space == Space.PROJECTIONS)
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += self.active.eq(1)
                m.d.sync += [waiting.eq(waiting + 1), self.projection.eq(0)]
                with m.If(waiting == self.wait):
                    for s, value in spaces.items():
                        with m.If(space == s):
                            m.d.sync += [word.eq(Cat(value)), left.eq(chunks(sizes[s]))]
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.o.valid.eq(left != 0)
                with m.If(left == 0):
                    m.next = "IDLE"
                with m.Elif(self.o.ready):
                    m.d.sync += [word.eq(word >> 32), left.eq(left - 1)]
        return m
