"""The host's write path into the memories: its assembly from 32-bit chunks, and what they hold without it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import Layout, StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.layouts import Layouts, Space, address_bits, chunks, size_of
from hw.pipeline import delay

ADDRESS_BITS = 24
UNIT_BITS = 8
SPACE_BITS = 4

LOAD = StructLayout({"space": unsigned(SPACE_BITS), "unit": unsigned(UNIT_BITS), "address": unsigned(ADDRESS_BITS),
                     "data": unsigned(32), "last": unsigned(1)})
"""One chunk of one word. Chunks come lowest first; ``last`` marks a word's last one."""


Images = Mapping[tuple[Space, int], Sequence[int]]
"""Words of memories, from address 0, by space and unit: a program that is there at power-up."""
Contents = Mapping[Space, Sequence[int]]
"""The words of one unit of them."""
NO_IMAGES: Images = MappingProxyType({})
NOTHING: Contents = MappingProxyType({})


def images_hash(images: Images) -> int:
    """64 bits that tell programs apart, not 0; 0 without any word."""
    words = sorted((int(space), unit, tuple(map(int, words))) for (space, unit), words in images.items() if len(words))
    return int(hashlib.sha256(repr(words).encode()).hexdigest()[:16], 16) or 1 if words else 0


def contents_of(images: Images, unit: int = 0) -> Contents:
    """What a unit's memories hold at power-up."""
    return {space: words for (space, of), words in images.items() if of == unit}


def loaded_memory(m: Module, name: str, layouts: Layouts, space: Space, load, contents: Contents) -> Memory:
    """A memory that the host writes (``load``: ``LoadSignature``), as submodule ``name``."""
    shape, depth = layouts.memories()[space]
    m.submodules[name] = memory = Memory(shape=shape, depth=depth, init=[_constant(shape, word)
                                                                         for word in contents.get(space, ())])
    write = memory.write_port()
    m.d.comb += [write.addr.eq(load.address), write.data.eq(load.data[:size_of(shape)]),
                 write.en.eq(load.strobe & (load.space == space))]
    return memory


def _constant(shape, word: int):
    """A word as the first content of a memory of this shape."""
    if isinstance(shape, Layout):
        return shape.from_bits(int(word))
    return int(word) - (shape.signed and int(word) >> shape.width - 1) * (1 << shape.width)


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
        a word, two cycles after its last chunk. Chunks that a word does not bring are 0.
    """

    def __init__(self, layouts: Layouts) -> None:
        self.layouts = layouts
        super().__init__({"i": In(stream.Signature(LOAD)), "load": Out(LoadSignature(layouts))})

    def elaborate(self, platform):
        m = Module()
        count = chunks(load_bits(self.layouts))
        position = Signal(range(count + 1))
        words = [Signal(32, name=f"chunk{i}", reset_less=True) for i in range(count)]
        valid, chunk = delay(m, self.i.valid, 1), delay(m, self.i.p, 1, reset_less=True)
        m.d.comb += self.i.ready.eq(1)
        m.d.sync += self.load.strobe.eq(valid & chunk.last)
        with m.If(valid):
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
