"""Answers to bytes: header, payload and their CRCs."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.link.checksum import ChecksumPort
from hw.link.countdown import Countdown
from hw.link.packets import ANSWER, CRC_BYTES, HEADER, SYNC


class Transmitter(wiring.Component):
    """Sends one packet at a time.

    Members
    -------
    start, header : In
        send a packet with this header; ``header`` is steady until ``busy`` falls.
    i : In, stream of bytes
        exactly ``header.length`` of them are taken.
    busy : Out
        from the cycle after ``start`` until the last byte has been taken.
    o : Out, stream of bytes
    checksum : Out
        the CRC circuit, used while ``busy``.

    One byte per cycle; 1 cycle before the header, before each CRC and after it.
    """

    def __init__(self) -> None:
        super().__init__({"start": In(1), "header": In(HEADER), "i": In(stream.Signature(8)), "busy": Out(1),
                          "o": Out(stream.Signature(8)), "checksum": Out(ChecksumPort())})

    def elaborate(self, platform):
        m = Module()
        head = Signal(SYNC.size + HEADER.size)
        m.submodules.left = left = Countdown(16, bound=HEADER.size // 8)
        ended, syncing, in_payload = left.ended, left.above, Signal()
        taken, check = Signal(), self.checksum
        m.d.comb += [taken.eq(self.o.valid & self.o.ready), left.taken.eq(taken), check.data.eq(self.o.p)]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.comb += [left.start.eq(1), left.amount.eq(len(head) // 8)]
                m.d.sync += [head.eq(Cat(Const(ANSWER, SYNC.size), self.header)), in_payload.eq(0)]
                with m.If(self.start):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [self.o.valid.eq(~ended), self.o.p.eq(head), check.start.eq(syncing),
                             check.valid.eq(taken & ~check.start)]
                with m.If(taken):
                    m.d.sync += head.eq(head >> 8)
                with m.Elif(ended):
                    m.next = "CRC"
            with m.State("PAYLOAD"):
                m.d.comb += [self.o.valid.eq(self.i.valid & ~ended), self.o.p.eq(self.i.p),
                             self.i.ready.eq(self.o.ready & ~ended), check.valid.eq(taken)]
                with m.If(ended):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [left.start.eq(1), left.amount.eq(CRC_BYTES)]
                m.d.sync += head.eq(check.crc)
                m.next = "SEND_CRC"
            with m.State("SEND_CRC"):
                m.d.comb += [self.o.valid.eq(~ended), self.o.p.eq(head)]
                with m.If(taken):
                    m.d.sync += head.eq(head >> 8)
                with m.Elif(ended):
                    m.d.comb += [check.start.eq(1), left.start.eq(1), left.amount.eq(self.header.length)]
                    m.d.sync += in_payload.eq(1)
                    m.next = "IDLE"
                    with m.If(~in_payload & (self.header.length != 0)):
                        m.next = "PAYLOAD"
        return m
