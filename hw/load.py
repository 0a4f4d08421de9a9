"""The host's write path into the memories, and its assembly from 32-bit chunks."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from hw.layouts import Layouts, Space, address_bits, chunks, size_of

ADDRESS_BITS = 24
UNIT_BITS = 8
SPACE_BITS = 4

LOAD = StructLayout({"space": unsigned(SPACE_BITS), "unit": unsigned(UNIT_BITS), "address": unsigned(ADDRESS_BITS),
                     "data": unsigned(32), "last": unsigned(1)})
"""One chunk of one word. Chunks come lowest first; ``last`` marks a word's last one."""


def load_bits(layouts: Layouts) -> int:
    """Bits of the widest word that the host loads."""
    return max(size_of(shape) for space, (shape, _) in layouts.memories().items()
               if space not in (Space.COUNTERS, Space.PROJECTIONS))


class LoadSignature(wiring.Signature):
    """One word for one memory, in the cycle of ``strobe``."""

    def __init__(self, layouts: Layouts) -> None:
        widest = max(depth for _, depth in layouts.memories().values())
        super().__init__({"strobe": Out(1), "space": Out(SPACE_BITS), "unit": Out(UNIT_BITS),
                          "address": Out(address_bits(widest)), "data": Out(load_bits(layouts))})


class Loader(wiring.Component):
    """Assembles words from 32-bit chunks.

    Members
    -------
    i : In, stream of ``LOAD``
        always ready.
    load : Out
        a word, the cycle after its last chunk. Chunks that a word does not bring are 0.
    """

    def __init__(self, layouts: Layouts) -> None:
        self.layouts = layouts
        super().__init__({"i": In(stream.Signature(LOAD)), "load": Out(LoadSignature(layouts))})

    def elaborate(self, platform):
        m = Module()
        count = chunks(load_bits(self.layouts))
        position = Signal(range(count + 1))
        words = [Signal(32, name=f"chunk{i}") for i in range(count)]
        chunk = self.i.p
        m.d.comb += self.i.ready.eq(1)
        m.d.sync += self.load.strobe.eq(self.i.valid & chunk.last)
        with m.If(self.i.valid):
            m.d.sync += [self.load.space.eq(chunk.space), self.load.unit.eq(chunk.unit),
                         self.load.address.eq(chunk.address)]
            for i, word in enumerate(words):
                with m.If(position == i):
                    m.d.sync += word.eq(chunk.data)
                with m.Elif(position == 0):
                    m.d.sync += word.eq(0)
            with m.If(chunk.last):
                m.d.sync += position.eq(0)
            with m.Elif(position != count):
                m.d.sync += position.eq(position + 1)
        for i, word in enumerate(words):
            m.d.comb += self.load.data[32 * i:32 * i + 32].eq(word)
        return m
