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

    Latency 1 cycle into an empty queue. Cost: ``depth - 1`` words of LUT RAM and a head register.

    ::

        i --+--> LUT RAM --+--> head --> o
            +--------------+    (straight through while the RAM is empty)
    """

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
        push, pop = Signal(), Signal()
        m.d.comb += [push.eq(self.i.valid & self.i.ready), pop.eq(self.o.valid & self.o.ready),
                     self.o.valid.eq(valid), self.o.p.eq(head)]
        m.d.sync += self.level.eq(self.level + push - pop)
        if self.depth == 1:
            m.d.comb += self.i.ready.eq(~valid | self.o.ready)
            with m.If(self.i.ready):
                m.d.sync += [valid.eq(self.i.valid), head.eq(self.i.p)]
            return m
        words = self.depth - 1
        m.submodules.ram = ram = Memory(shape=size_of(self.shape), depth=words, init=[])
        write, read = ram.write_port(), ram.read_port(domain="comb")
        stored = Signal(range(words + 1))
        load, straight, from_ram = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(self.level != self.depth),
            load.eq(~valid | pop),
            from_ram.eq(load & (stored != 0)),
            straight.eq(load & (stored == 0) & push),
            write.data.eq(self.i.p), write.en.eq(push & ~straight),
        ]
        for port, step in ((write, write.en), (read, from_ram)):
            with m.If(step):
                m.d.sync += port.addr.eq(Mux(port.addr == words - 1, 0, port.addr + 1))
        m.d.sync += stored.eq(stored + write.en - from_ram)
        with m.If(load):
            m.d.sync += [valid.eq(from_ram | straight), head.eq(Mux(from_ram, read.data, self.i.p))]
        return m


class DeepQueue(wiring.Component):
    """First in, first out, in block RAM; one in and one out per cycle.

    Parameters and members as of ``Queue``. Latency 3 cycles into an empty queue. Cost: one RAM of ``depth`` words
    with a registered read port, and a ``Queue`` that hides its latency.

    ::

        i --> RAM --(1 cycle)--> Queue --> o
    """

    AHEAD = 3
    """Words that have left the RAM: one on its way and two to hide that."""

    def __init__(self, shape, *, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"DeepQueue: depth is {depth}; it must be at least 1")
        self.shape, self.depth = shape, depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
                          "level": Out(range(depth + 1))})

    def elaborate(self, platform):
        m = Module()
        size = size_of(self.shape)
        m.submodules.ram = ram = Memory(shape=size, depth=self.depth, init=[])
        m.submodules.ahead = ahead = Queue(size, depth=self.AHEAD)
        write, read = ram.write_port(), ram.read_port()
        stored, on_its_way = Signal(range(self.depth + 1)), Signal()
        push, fetch = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(self.level != self.depth), push.eq(self.i.valid & self.i.ready),
            fetch.eq((stored != 0) & (ahead.level + on_its_way < self.AHEAD)),
            write.en.eq(push), write.data.eq(self.i.p),
            ahead.i.valid.eq(on_its_way), ahead.i.p.eq(read.data),
            self.o.valid.eq(ahead.o.valid), self.o.p.eq(ahead.o.p), ahead.o.ready.eq(self.o.ready),
        ]
        for port, step in ((write, push), (read, fetch)):
            with m.If(step):
                m.d.sync += port.addr.eq(Mux(port.addr == self.depth - 1, 0, port.addr + 1))
        m.d.sync += [on_its_way.eq(fetch), stored.eq(stored + push - fetch),
                     self.level.eq(self.level + push - (self.o.valid & self.o.ready))]
        return m


def queue(shape, *, depth: int) -> Queue | DeepQueue:
    """A queue in LUT RAM up to 64 entries, in block RAM beyond."""
    return (Queue if depth <= 64 else DeepQueue)(shape, depth=depth)
