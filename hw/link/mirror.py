"""The mirror: what host and device both know, so that only changes need to travel."""

from __future__ import annotations

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.layouts import address_bits
from hw.link.packets import LinkConfig


class MirrorPort(wiring.Signature):
    """``data`` is the byte that was at ``address`` in the last cycle with ``read``; ``write`` stores ``write_data``."""

    def __init__(self, link: LinkConfig) -> None:
        bits = address_bits(link.mirror_bytes)
        super().__init__({"read": Out(1), "address": Out(bits), "data": In(8), "write": Out(1),
                          "write_address": Out(bits), "write_data": Out(8)})


class Mirror(wiring.Component):
    """A memory of bytes: the last frame sent, from address 0, and behind it the last outputs read.

    Members
    -------
    frames, reads : In, ``MirrorPort``
        its two users.
    reading : In
        ``reads`` has it, else ``frames``.

    A byte is never read and written in the same cycle. Cost: ``mirror_bytes`` x 8 bits.
    """

    def __init__(self, link: LinkConfig) -> None:
        self.link = link
        super().__init__({"frames": In(MirrorPort(link)), "reads": In(MirrorPort(link)), "reading": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=self.link.mirror_bytes, init=[])
        write, read = memory.write_port(), memory.read_port()
        for name, signal in (("read", read.en), ("address", read.addr), ("write_address", write.addr),
                             ("write_data", write.data)):
            m.d.comb += signal.eq(Mux(self.reading, getattr(self.reads, name), getattr(self.frames, name)))
        m.d.comb += write.en.eq(self.reads.write | self.frames.write)
        for user in (self.frames, self.reads):
            m.d.comb += user.data.eq(read.data)
        return m
