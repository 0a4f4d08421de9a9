"""A small FIFO with a registered head."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.layouts import size_of


class Queue(wiring.Component):
    """First in, first out; one in and one out per cycle, at any depth.

    Parameters
    ----------
    shape
        of the payload.
    depth
        entries that it holds, the one at the output included; at least 1.

    Members
    -------
    i, o : streams of ``shape``
        ``i.ready`` falls while ``depth`` entries are held, unless one is taken in the same cycle and depth is 1.
    level : Out
        entries held.

    Latency ``LATENCY`` cycle into an empty queue. Cost: ``depth - 1`` words of LUT RAM and a head register.

    ::

        i --+--> LUT RAM --+--> head --> o
            +--------------+    (straight through while the RAM is empty)
    """

    LATENCY = 1

    def __init__(self, shape, *, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"Queue: depth is {depth}; it must be at least 1")
        self.shape, self.depth = shape, depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
                          "level": Out(range(depth + 1))})

    def elaborate(self, platform):
        m = Module()
        head = Signal(size_of(self.shape), reset_less=True)
        valid = Signal()
        push, load, pop = Signal(), Signal(), Signal()
        m.d.comb += [push.eq(self.i.valid & self.i.ready), load.eq(~valid | self.o.ready), pop.eq(valid & self.o.ready),
                     self.o.valid.eq(valid), self.o.p.eq(head)]
        m.d.sync += self.level.eq(self.level + push - pop)
        if self.depth == 1:
            m.d.comb += self.i.ready.eq(load)
            with m.If(load):
                m.d.sync += [valid.eq(self.i.valid), head.eq(self.i.p)]
            return m
        words = self.depth - 1
        m.submodules.ram = ram = Memory(shape=size_of(self.shape), depth=words, init=[])
        write, read = ram.write_port(), ram.read_port(domain="comb")
        # Something is in the RAM (the level is at least 2: the head never stays empty before it), and there is no
        # room: flip-flops, so that neither side waits for arithmetic.
        stored, full = Signal(), Signal()
        m.d.comb += [self.i.ready.eq(~full), write.data.eq(self.i.p), write.en.eq(push & (stored | ~load))]
        for port, step in ((write, write.en), (read, load & stored)):
            with m.If(step):
                m.d.sync += port.addr.eq(Mux(port.addr == words - 1, 0, port.addr + 1))
        with m.If(push & ~pop):
            m.d.sync += [stored.eq(valid), full.eq(self.level == words)]
        with m.Elif(pop & ~push):
            m.d.sync += [stored.eq(stored & (self.level != 2)), full.eq(0)]
        with m.If(load):
            m.d.sync += [valid.eq(stored | push), head.eq(Mux(stored, read.data, self.i.p))]
        return m
