"""The CRC circuit, shared by the two directions."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.link.packets import CRC


class ChecksumPort(wiring.Signature):
    """What a user of the CRC circuit drives and sees.

    ``start`` begins a new CRC, ``valid`` adds ``data`` (after ``start``, if both); a cycle later ``crc`` is
    that of all bytes since, and ``match`` tells that the last four of them were the CRC of those before.
    """

    def __init__(self) -> None:
        super().__init__({"start": Out(1), "valid": Out(1), "data": Out(8),
                          "crc": In(CRC.algorithm.crc_width), "match": In(1)})


class Checksum(wiring.Component):
    """CRC-32, one byte per cycle, for receiver and transmitter, which never use it at the same time.

    Members
    -------
    receiver, transmitter : In, ``ChecksumPort``
    """

    def __init__(self) -> None:
        super().__init__({"receiver": In(ChecksumPort()), "transmitter": In(ChecksumPort())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = CRC.create()
        m.d.comb += [crc.data.eq(self.receiver.data),
                     crc.start.eq(self.receiver.start | self.transmitter.start),
                     crc.valid.eq(self.receiver.valid | self.transmitter.valid)]
        with m.If(self.transmitter.valid):
            m.d.comb += crc.data.eq(self.transmitter.data)
        for port in (self.receiver, self.transmitter):
            m.d.comb += [port.crc.eq(crc.crc), port.match.eq(crc.match_detected)]
        return m
