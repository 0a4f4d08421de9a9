"""Bytes to packets: framing, CRCs, the packet buffer, and recovery from anything else."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.link.checksum import ChecksumPort
from hw.link.packets import CRC_BYTES, HEADER, REQUEST, LinkConfig, Status


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
        the payload, from the cycle after ``valid`` rises; it may be left half read.
    done : In
        the packet has been dealt with.
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
            "o": Out(stream.Signature(8)), "done": In(1), "checksum": Out(ChecksumPort())})

    def elaborate(self, platform):
        m = Module()
        left = Signal(17)
        silence = Signal(range(self.link.timeout + 1))
        taken, writing, rewind = Signal(), Signal(), Signal()
        check, byte, header = self.checksum, self.i.p, self.header
        gone = silence == self.link.timeout
        m.d.comb += [taken.eq(self.i.valid & self.i.ready), check.data.eq(byte)]
        with m.If(taken):
            m.d.sync += [silence.eq(0), left.eq(left - 1)]
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
                m.d.comb += [self.i.ready.eq(1), check.start.eq(1)]
                m.d.sync += left.eq(HEADER.size // 8 + CRC_BYTES)
                with m.If(taken & (byte == REQUEST >> 8)):
                    m.next = "HEADER"
                with m.Elif(taken & (byte != (REQUEST & 0xFF))):
                    m.next = "HUNT"
            with m.State("HEADER"):
                m.d.comb += [self.i.ready.eq(left != 0), check.valid.eq(taken)]
                with m.If(taken & (left > CRC_BYTES)):
                    m.d.sync += header.eq(Cat(header.as_value()[8:], byte))
                with m.Elif(left == 0):
                    m.d.comb += [check.start.eq(1), rewind.eq(1)]
                    m.d.sync += [left.eq(header.length + CRC_BYTES), self.status.eq(Status.OK)]
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
                m.d.comb += [self.i.ready.eq(left != 0), check.valid.eq(taken),
                             writing.eq(taken & (left > CRC_BYTES))]
                with m.If(left == 0):
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
        write, read = memory.write_port(), memory.read_port()
        at = Signal(range(self.link.buffer_bytes + 1))
        m.d.comb += [write.addr.eq(at), write.data.eq(self.i.p), write.en.eq(writing), read.addr.eq(at),
                     read.en.eq(self.valid & (at != self.header.length) & (~self.o.valid | self.o.ready)),
                     self.o.p.eq(read.data)]
        with m.If(rewind):
            m.d.sync += at.eq(0)
        with m.Elif(writing | read.en):
            m.d.sync += at.eq(at + 1)
        with m.If(read.en):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready | ~self.valid):
            m.d.sync += self.o.valid.eq(0)
