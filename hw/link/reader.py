"""The reader: words of the ring to bytes, all of them or those that changed."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Layouts
from hw.link.mirror import MirrorPort
from hw.link.packets import MEMORY, LinkConfig
from hw.link.words import WordPort
from hw.queue import Queue
from hw.readout import ANSWER, READ

CHUNKS = 4
"""Chunks that wait to be sent: long enough for the ring to find the next word."""


class Reader(wiring.Component):
    """Reads words and sends their bytes, lowest first.

    With ``compare`` every byte is compared with the mirror from ``mirror_base`` on. Only those that differ
    are sent; after every eighth byte, and after the last one, follows a mask of which bit i tells whether
    byte i of these was sent. So it is decoded from its end, and nothing has to be stored here until
    its mask is known.

    Members
    -------
    word : In, ``WordPort``
        the words to read.
    start, busy : In, Out
        read them; ``busy`` from the next cycle until the last byte has been taken.
    count : In
        send nothing, change nothing, only count.
    compare : In
        send changes only, else all bytes.
    update : In
        the mirror keeps what was read.
    low : In
        the words are codes; of each, only the low 8 bits.
    mirror_base : In
        where the mirror of these words begins.
    sent : Out
        bytes sent or counted since ``start``.
    read, answer : streams to and from the ring
    o : Out, stream of bytes
    mirror : Out
        the mirror, used while ``busy``.

    One byte per cycle, or with ``low`` per 10 cycles; a cycle more per chunk and per mask. The next words are read
    while one is sent.
    """

    def __init__(self, config: AcceleratorConfig, link: LinkConfig) -> None:
        self.config, self.link = config, link
        super().__init__({
            "word": In(WordPort(Layouts(config))), "start": In(1), "busy": Out(1),
            "count": In(1), "compare": In(1), "update": In(1), "low": In(1),
            "mirror_base": In(MEMORY["mirror"].shape), "sent": Out(17), "read": Out(stream.Signature(READ)),
            "answer": In(stream.Signature(ANSWER)), "o": Out(stream.Signature(8)),
            "mirror": Out(MirrorPort(link))})

    def elaborate(self, platform):
        m = Module()
        mirror, word, request = self.mirror, self.word, self.read.p
        chunk, bit, left = Signal(32), Signal(5), Signal.like(word.word_bytes)
        code, gathered = Signal(8), Signal(range(CODE_BITS))
        at, mask, known = Signal(mirror.address.shape()), Signal(8), Signal(3)
        old, filled = Signal(8), Signal()
        m.submodules.chunks = chunks = Queue(ANSWER, depth=CHUNKS)
        asking, under_way, ended = Signal(), Signal(range(CHUNKS + 4)), Signal()
        connect(m, flipped(self.answer), chunks.i)
        sending, go, send_mask = Signal(), Signal(), Signal()
        byte = Mux(self.low, code, chunk[:8])
        differs = (byte != old) | ~self.compare
        m.d.comb += [
            request.space.eq(word.space), request.unit.eq(word.unit), request.address.eq(word.address),
            self.o.valid.eq(sending & ~self.count), self.o.p.eq(Mux(send_mask, mask, byte)),
            go.eq(self.o.ready | self.count | ~sending),
            mirror.write_address.eq(at), mirror.write_data.eq(byte),
        ]
        m.d.comb += [self.read.valid.eq(asking & ~word.done), word.next.eq(self.read.valid & self.read.ready)]
        m.d.sync += under_way.eq(under_way + word.next - ended)

        def end_word() -> None:
            m.d.comb += ended.eq(1)
            m.d.sync += [left.eq(word.word_bytes), bit.eq(0)]
            m.next = "CHUNK"
            with m.If(word.done & (under_way == 1)):
                m.next = "LAST_MASK"

        with m.If(sending & go):
            m.d.sync += self.sent.eq(self.sent + 1)
        with m.If(mirror.read):                       # the mirror is read two bytes ahead
            m.d.sync += [old.eq(mirror.data), mirror.address.eq(mirror.address + 1)]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += asking.eq(self.start)
                with m.If(self.start):
                    m.d.sync += [self.sent.eq(0), at.eq(self.mirror_base), known.eq(0), mask.eq(0),
                                 mirror.address.eq(self.mirror_base), filled.eq(0)]
                    m.next = "AHEAD"
            with m.State("AHEAD"):
                m.d.comb += mirror.read.eq(1)
                m.d.sync += [filled.eq(1), left.eq(word.word_bytes), bit.eq(0)]
                with m.If(filled):
                    m.next = "CHUNK"
            with m.State("CHUNK"):
                m.d.comb += chunks.o.ready.eq(1)
                m.d.sync += chunk.eq(chunks.o.p.data)
                with m.If(chunks.o.valid):
                    m.next = "BYTES"
                    with m.If(self.low):
                        m.next = "BITS"
            with m.State("BITS"):
                # a shift of 9 would need a multiplexer per bit; nobody is in a hurry here
                m.d.sync += [chunk.eq(chunk >> 1), bit.eq(bit + 1), gathered.eq(gathered + 1)]
                with m.If(gathered == CODE_BITS - 1):
                    m.d.sync += gathered.eq(0)
                    m.next = "BYTES"
                with m.Else():
                    m.d.sync += code.eq(Cat(code[1:], chunk[0]))
                    with m.If(bit == 31):
                        m.next = "CHUNK"
            with m.State("BYTES"):
                m.d.comb += [sending.eq(differs), mirror.write.eq(go & self.update & ~self.count)]
                with m.If(go):
                    m.d.comb += mirror.read.eq(1)
                    with m.If(~self.low):
                        m.d.sync += [chunk.eq(chunk >> 8), bit.eq(bit + 8)]
                    m.d.sync += [left.eq(left - 1), at.eq(at + 1), known.eq(known + 1),
                                 mask.bit_select(known, 1).eq(differs)]
                    with m.If(self.compare & (known == 7)):
                        m.next = "MASK"
                    with m.Elif(left == 1):
                        end_word()
                    with m.Elif(bit == Mux(self.low, 0, 24)):
                        m.next = "CHUNK"
                    with m.Elif(self.low):
                        m.next = "BITS"
            with m.State("MASK"):
                m.d.comb += [sending.eq(1), send_mask.eq(1)]
                with m.If(go):
                    m.d.sync += mask.eq(0)
                    m.next = "BYTES"
                    with m.If(left == 0):
                        end_word()
                    with m.Elif(bit == 0):
                        m.next = "CHUNK"
                    with m.Elif(self.low):
                        m.next = "BITS"
            with m.State("LAST_MASK"):
                m.d.comb += [sending.eq(self.compare & (known != 0)), send_mask.eq(1)]
                with m.If(go):
                    m.next = "IDLE"
        return m
