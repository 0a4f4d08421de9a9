"""The memory of marks: which pixels of a tensor a change has reached."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import MARK_COLUMNS, AcceleratorConfig
from hw.layouts import Layouts
from hw.pipeline import delay

SEGMENT_BITS = MARK_COLUMNS.bit_length() - 1
"""Low bits of a column number, which say the bit in a word of marks; the others are its segment."""


class Marks(wiring.Component):
    """A bit per pixel, ``MARK_COLUMNS`` pixels of a row in a word. All are 0 at power-up.

    Members
    -------
    take, take_address, take_clear : In
        reads a word, and makes it 0 if ``take_clear``.
    taken : Out
        the word, ``TAKE_LATENCY`` cycles later. (Taken again that soon after ``take_clear``, it is not cleared yet.)
    set : In, stream of ``mark_word``
        adds marks to a word, never to one that is taken in the same step.

    One of them per cycle; a take comes first, and what is added to one word twice within ``TAKE_LATENCY`` cycles waits.
    Cost: one RAM of ``mark_words`` words.

    ::

        cycle 0  address -> RAM     1  RAM latch     2  taken; RAM written
    """

    TAKE_LATENCY = 2

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({"take": In(1), "take_address": In(lay.mark_address), "take_clear": In(1),
                          "taken": Out(MARK_COLUMNS), "set": In(stream.Signature(lay.mark_word))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Memory(shape=unsigned(MARK_COLUMNS), depth=self.config.mark_words, init=[])
        read, write = ram.read_port(), ram.write_port()
        op = StructLayout({"write": unsigned(1), "clear": unsigned(1), "address": unsigned(self.layouts.mark_address),
                           "mask": unsigned(MARK_COLUMNS)})
        now = Signal(op)
        one = delay(m, now, 1)
        two = delay(m, one, 1)
        added = self.set.p
        soon = Cat(o.write & (o.address == added.address) for o in (one, two)).any()
        m.d.comb += [
            self.set.ready.eq(~self.take & ~soon), self.taken.eq(delay(m, read.data, 1, reset_less=True)),
            read.addr.eq(now.address), now.address.eq(Mux(self.take, self.take_address, added.address)),
            now.write.eq(Mux(self.take, self.take_clear, self.set.valid & self.set.ready)),
            now.clear.eq(self.take), now.mask.eq(added.mask), write.en.eq(two.write), write.addr.eq(two.address),
            write.data.eq(Mux(two.clear, 0, self.taken | two.mask))]
        return m
