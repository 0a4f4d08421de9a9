"""A small design with the accelerator's outside: what the build flow is tried on."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class StandIn(wiring.Component):
    """Answers every byte with bits 4 to 11 of a running sum: byte times the byte ``words`` bytes earlier.

    A block RAM, a multiplier and a few adders.
    """

    def __init__(self, words: int = 512) -> None:
        self.words = words
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8)), "busy": Out(1),
                          "error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Memory(shape=36, depth=self.words, init=[])
        read, write = ram.read_port(), ram.write_port()
        at, byte, old = Signal(range(self.words)), Signal(8), Signal(8)
        product, total = Signal(16), Signal(16)
        m.d.comb += [read.addr.eq(at), write.addr.eq(at), write.data.eq(byte), self.busy.eq(~self.i.ready),
                     self.o.payload.eq(total[4:12])]
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += byte.eq(self.i.payload)
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += old.eq(read.data)
                m.d.comb += write.en.eq(1)
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += product.eq(byte * old)
                m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += [total.eq(total + product), at.eq(at + 1)]
                m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "TAKE"
        return m


def standin_answers(data: bytes, words: int = 512) -> bytes:
    """What ``StandIn`` answers to ``data``."""
    total, answers = 0, bytearray()
    for i, byte in enumerate(data):
        total += byte * (data[i - words] if i >= words else 0)
        answers.append(total >> 4 & 0xFF)
    return bytes(answers)
