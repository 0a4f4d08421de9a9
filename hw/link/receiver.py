"""Bytes to packets: framing, CRCs, the packet buffer, and recovery from anything else."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.link.checksum import ChecksumPort
from hw.link.countdown import Countdown
from hw.link.packets import CRC_BYTES, HEADER, REQUEST, LinkConfig, Status
from hw.queue import Queue

AHEAD = 3
"""Bytes of the payload that have left the buffer: one on its way and two to hide that."""


class Receiver(wiring.Component):
    """Takes one packet at a time and shows it once its CRCs have passed.

    Members
    -------
    i : In, stream of bytes
        not taken while a packet is shown.
    valid : Out
        there is a packet, or something that was meant to be one; steady until ``done``.
    status : Out
        OK, or what is wrong with it: DAMAGED, TRUNCATED, TOO_LONG.
    header : Out
        of an OK packet.
    o : Out, stream of bytes
        the payload, from three cycles after ``valid`` rises.
    rest : Out
        not all of the payload has been taken.
    done : In
        the packet has been dealt with, and its payload taken.
    checksum : Out
        the CRC circuit, used while no packet is shown.

    Bytes that do not begin with the sync word are skipped without a word. After damage everything is thrown
    away until the line has been silent for ``timeout`` cycles, because where a packet ends is not known then;
    only after that silence is the status shown, so a host that sees it may send again at once.
    One byte per cycle, 2 + 2 cycles for the CRCs. Cost: the buffer, ``buffer_bytes`` x 8 bits.

    ::

        i -> sync -> header -> CRC? -> payload -> CRC? -> shown
                                |  too long      |
                                +--> wait for silence <-- (silence within a packet: truncated)
    """

    def __init__(self, link: LinkConfig) -> None:
        self.link = link
        super().__init__({
            "i": In(stream.Signature(8)), "valid": Out(1), "status": Out(Status), "header": Out(HEADER),
            "o": Out(stream.Signature(8)), "rest": Out(1), "done": In(1), "checksum": Out(ChecksumPort())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.left = left = Countdown(17, bound=CRC_BYTES)
        ended, inside = left.ended, left.above
        silence = Signal(range(self.link.timeout + 1))
        taken, writing, rewind = Signal(), Signal(), Signal()
        check, byte, header = self.checksum, self.i.p, self.header
        gone = silence == self.link.timeout
        m.d.comb += [taken.eq(self.i.valid & self.i.ready), left.taken.eq(taken), check.data.eq(byte)]
        with m.If(taken):
            m.d.sync += silence.eq(0)
        with m.Elif(~gone):
            m.d.sync += silence.eq(silence + 1)
        self._buffer(m, writing, rewind)

        def fail(status: Status, state: str) -> None:
            m.d.sync += self.status.eq(status)
            m.next = state

        with m.FSM():
            with m.State("HUNT"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(taken & (byte == (REQUEST & 0xFF))):
                    m.next = "SYNC"
            with m.State("SYNC"):
                m.d.comb += [self.i.ready.eq(1), check.start.eq(1), left.start.eq(1),
                             left.amount.eq(HEADER.size // 8 + CRC_BYTES)]
                with m.If(taken & (byte == REQUEST >> 8)):
                    m.next = "HEADER"
                with m.Elif(taken & (byte != (REQUEST & 0xFF))):
                    m.next = "HUNT"
            with m.State("HEADER"):
                m.d.comb += [self.i.ready.eq(~ended), check.valid.eq(taken)]
                with m.If(taken & inside):
                    m.d.sync += header.eq(Cat(header.as_value()[8:], byte))
                with m.Elif(ended):
                    m.d.comb += [check.start.eq(1), rewind.eq(1), left.start.eq(1),
                                 left.amount.eq(header.length + CRC_BYTES)]
                    m.d.sync += self.status.eq(Status.OK)
                    with m.If(~check.match):
                        fail(Status.DAMAGED, "SILENCE")
                    with m.Elif(header.length > self.link.buffer_bytes):
                        fail(Status.TOO_LONG, "SILENCE")
                    with m.Elif(header.length == 0):
                        m.next = "SHOW"
                    with m.Else():
                        m.next = "PAYLOAD"
                with m.Elif(gone & ~taken):
                    fail(Status.TRUNCATED, "SHOW")
            with m.State("PAYLOAD"):
                m.d.comb += [self.i.ready.eq(~ended), check.valid.eq(taken), writing.eq(taken & inside)]
                with m.If(ended):
                    m.d.comb += rewind.eq(1)
                    m.next = "SHOW"
                    with m.If(~check.match):
                        fail(Status.DAMAGED, "SILENCE")
                with m.Elif(gone & ~taken):
                    fail(Status.TRUNCATED, "SHOW")
            with m.State("SILENCE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(gone & ~taken):
                    m.next = "SHOW"
            with m.State("SHOW"):
                m.d.comb += self.valid.eq(1)
                with m.If(self.done):
                    m.next = "HUNT"
        return m

    def _buffer(self, m: Module, writing: Signal, rewind: Signal) -> None:
        """The packet buffer: written with the bytes received, read by ``o`` while the packet is shown."""
        m.submodules.buffer = memory = Memory(shape=8, depth=self.link.buffer_bytes, init=[])
        m.submodules.ahead = ahead = Queue(8, depth=AHEAD)
        write, read = memory.write_port(), memory.read_port()
        at, fetched, unread = Signal(range(self.link.buffer_bytes + 1)), Signal(), Signal()
        m.d.comb += [write.addr.eq(at), write.data.eq(self.i.p), write.en.eq(writing), read.addr.eq(at),
                     unread.eq(self.valid & (self.status == Status.OK) & (at != self.header.length)),
                     read.en.eq(unread & (ahead.level + fetched < AHEAD)),
                     ahead.i.valid.eq(fetched), ahead.i.p.eq(read.data),
                     self.rest.eq(unread | fetched | ahead.o.valid)]
        connect(m, ahead.o, flipped(self.o))
        m.d.sync += fetched.eq(read.en)
        with m.If(rewind):
            m.d.sync += at.eq(0)
        with m.Elif(writing | read.en):
            m.d.sync += at.eq(at + 1)
