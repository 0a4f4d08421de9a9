"""The words that a packet names, one after the other."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space, size_of
from hw.link.packets import MEMORY
from hw.readout import answer_layout

READABLE = (Space.PROJECTIONS, Space.SNAPSHOTS, Space.COUNTERS)
"""Spaces that READ, COPY and CHANGES take; in PROJECTIONS a unit is a sweep group."""


def written_bytes(layouts: Layouts, space: Space) -> int:
    """Bytes of a word in a LOAD packet; 0 when the space cannot be loaded."""
    shape, _ = layouts.memories()[space]
    return 0 if space in (Space.PROJECTIONS, Space.COUNTERS) else -(-size_of(shape) // 8)


def read_bytes(layouts: Layouts, space: Space, low: bool = False) -> int:
    """Bytes of a word in the answer to READ, or (``low``) to COPY and CHANGES, which send a snapshot's codes as
    their low 8 bits. 0 when the space cannot be read."""
    if low and space == Space.SNAPSHOTS:
        return layouts.config.sweep
    return -(-size_of(answer_layout(layouts, space)) // 8) if space in READABLE else 0


class WordPort(wiring.Signature):
    """The word that is next.

    ``space``, ``unit``, ``address``; ``word_bytes``, 0 when the space does not take this; ``done``: there is
    none; ``next``: go on.
    """

    def __init__(self, layouts: Layouts) -> None:
        widest = max(size(layouts, s) for s in Space for size in (written_bytes, read_bytes))
        super().__init__({"next": In(1), "done": Out(1), "word_bytes": Out(range(widest + 1)),
                          **{name: Out(MEMORY[name].shape) for name in ("space", "unit", "address")}})


class Words(wiring.Component):
    """Goes through ``words`` addresses of each of ``units`` units.

    Members
    -------
    memory : In
        which words; steady.
    writing, low : In
        they are written, else read; codes of snapshots are read as their low 8 bits.
    start : In
        begin with the first word, and with ``total`` 0.
    word : Out, ``WordPort``
    total : Out
        bytes of all words passed; 65536 or more when they are too many for a packet.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        super().__init__({"memory": In(MEMORY), "writing": In(1), "low": In(1), "start": In(1), "total": Out(17),
                          "word": Out(WordPort(self.layouts))})

    def elaborate(self, platform):
        m = Module()
        memory, word = self.memory, self.word
        words, units, word_bytes = Signal(16), Signal(8), Signal.like(word.word_bytes)
        with m.Switch(memory.space):
            for space in Space:
                with m.Case(space):
                    read = Mux(self.low, read_bytes(self.layouts, space, True), read_bytes(self.layouts, space))
                    m.d.comb += word_bytes.eq(Mux(self.writing, written_bytes(self.layouts, space), read))
        m.d.sync += word.word_bytes.eq(word_bytes)
        m.d.comb += [word.space.eq(memory.space), word.done.eq(units == 0)]
        with m.If(word.next):
            with m.If(~self.total[16]):
                m.d.sync += self.total.eq(self.total + word.word_bytes)
            m.d.sync += [word.address.eq(word.address + 1), words.eq(words - 1)]
            with m.If(words == 1):
                m.d.sync += [words.eq(memory.words), word.address.eq(memory.address),
                             word.unit.eq(word.unit + 1), units.eq(units - 1)]
        with m.If(self.start):
            m.d.sync += [words.eq(memory.words), units.eq(memory.units), word.unit.eq(memory.unit),
                         word.address.eq(memory.address), self.total.eq(0)]
            with m.If(memory.words == 0):
                m.d.sync += units.eq(0)
        return m
