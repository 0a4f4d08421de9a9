"""The writer: bytes of a LOAD packet to chunks for the ring's memories."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts
from hw.link.words import WordPort
from hw.load import LOAD


class Writer(wiring.Component):
    """Puts bytes together, four to a chunk, fewer at the end of a word.

    Members
    -------
    word : In, ``WordPort``
        the words to write.
    start, busy : In, Out
        write them; ``busy`` from the next cycle until the last chunk has been taken.
    i : In, stream of bytes; o : Out, stream of ``LOAD``

    One byte per cycle, a cycle more per chunk.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({"word": In(WordPort(Layouts(config))), "start": In(1), "busy": Out(1),
                          "i": In(stream.Signature(8)), "o": Out(stream.Signature(LOAD))})

    def elaborate(self, platform):
        m = Module()
        word, o = self.word, self.o.p
        chunk, lane, left = Signal(32), Signal(2), Signal.like(word.word_bytes)
        m.d.comb += [o.space.eq(word.space), o.unit.eq(word.unit), o.address.eq(word.address),
                     o.data.eq(chunk), o.last.eq(left == 0)]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(self.start):
                    m.next = "WORD"
            with m.State("WORD"):
                m.d.sync += [left.eq(word.word_bytes), lane.eq(0), chunk.eq(0)]
                m.next = "BYTES"
                with m.If(word.done):
                    m.next = "IDLE"
            with m.State("BYTES"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [chunk.word_select(lane, 8).eq(self.i.p), lane.eq(lane + 1),
                                 left.eq(left - 1)]
                    with m.If((lane == 3) | (left == 1)):
                        m.next = "CHUNK"
            with m.State("CHUNK"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [chunk.eq(0), lane.eq(0)]
                    m.d.comb += word.next.eq(left == 0)
                    m.next = "BYTES"
                    with m.If(left == 0):
                        m.next = "WORD"
        return m
