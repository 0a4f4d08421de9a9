"""The memory of marks: which pixels of a tensor a change has reached."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import MARK_COLUMNS, AcceleratorConfig
from hw.layouts import Layouts
from hw.pipeline import delay


class Marks(wiring.Component):
    """A bit per pixel, ``MARK_COLUMNS`` pixels of a row in a word. All are 0 at power-up.

    Members
    -------
    take, take_address, take_clear : In
        reads a word, and makes it 0 if ``take_clear``.
    taken : Out
        the word, ``TAKE_LATENCY`` cycles later.
    set : In, stream of ``mark_word``
        adds marks to a word, never to one that is taken in the same step.

    A take per cycle; ``set`` takes 4 cycles, and waits while words are taken. Cost: one RAM of ``mark_words`` words.
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
        m.d.comb += [read.addr.eq(Mux(self.take, self.take_address, self.set.p.address)),
                     self.taken.eq(delay(m, read.data, 1, reset_less=True))]
        # A word is cleared in the cycle after its read, because a read port's answer must not depend on a write.
        clear, address = delay(m, self.take & self.take_clear, 1), delay(m, self.take_address, 1, reset_less=True)
        merged, writing = Signal(MARK_COLUMNS, reset_less=True), Signal()
        m.d.comb += [write.en.eq(clear | writing), write.addr.eq(Mux(clear, address, self.set.p.address)),
                     write.data.eq(Mux(clear, 0, merged)), self.set.ready.eq(writing & ~clear)]
        with m.FSM():
            with m.State("READ"):
                with m.If(self.set.valid & ~self.take):
                    m.next = "LATCH"
            with m.State("LATCH"):
                m.next = "MERGE"
            with m.State("MERGE"):
                m.d.sync += merged.eq(self.taken | self.set.p.mask)
                m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += writing.eq(1)
                with m.If(~clear):
                    m.next = "READ"
        return m
