"""A serial port: bytes on a line at a fixed baud rate."""

from __future__ import annotations

from fractions import Fraction

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped

MINIMUM_RATIO = 6
"""Clock cycles per bit that the receiver needs: a sample lies within a cycle of where it belongs, which
takes its part of the half bit that the drift of ten bits may use."""
FRAME_BITS = 10
"""Start bit, eight data bits (lowest first), stop bit."""


class BaudError(ValueError):
    """The clock is too slow for the baud rate, or one of them is not positive."""


def cycles_per_bit(clock_hz: int, baud: int) -> Fraction:
    """Clock cycles of one bit. Raises BaudError."""
    if baud < 1 or clock_hz < MINIMUM_RATIO * baud:
        raise BaudError(f"baud is {baud}; a clock of {clock_hz} Hz allows 1..{clock_hz // MINIMUM_RATIO}")
    return Fraction(clock_hz, baud)


class Ticks(wiring.Component):
    """One tick per bit at any ratio of clock and baud rate; exact on average, each late by less than a cycle.

    Parameters
    ----------
    clock_hz, baud
        cycles and bits per second.

    Members
    -------
    start, half : In
        restarts the bit; the next tick comes a whole bit later, or with ``half`` half a bit less one cycle.
    tick : Out
    """

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self.bit, self.step = cycles_per_bit(clock_hz, baud).as_integer_ratio()
        super().__init__({"start": In(1), "half": In(1), "tick": Out(1)})

    def elaborate(self, platform):
        m = Module()
        phase, following = Signal(range(self.bit)), Signal(range(self.bit + self.step))
        m.d.comb += [following.eq(phase + self.step), self.tick.eq(following >= self.bit)]
        m.d.sync += phase.eq(Mux(self.tick, following - self.bit, following))
        with m.If(self.start):
            m.d.sync += phase.eq(Mux(self.half, self.bit // 2 + self.step, 0))
        return m


class UartReceiver(wiring.Component):
    """Line to bytes.

    Members
    -------
    rx : In
        the line, high when idle; synchronised here.
    o : Out, stream of bytes
        a byte, half a bit before its stop bit ends. A byte that comes before the last one was taken is lost.
    framing_error, overrun : Out
        strobes: a stop bit was low (its byte is dropped); a byte was lost.

    Each bit is sampled once, in its middle; a start bit that is not low there is ignored. After a low stop
    bit the line must be high again before the next start.
    """

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self.clock_hz, self.baud = clock_hz, baud
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(8)), "framing_error": Out(1),
                          "overrun": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ticks = ticks = Ticks(clock_hz=self.clock_hz, baud=self.baud)
        line, busy, armed = Signal(init=1), Signal(), Signal()
        m.submodules.synchroniser = FFSynchronizer(self.rx, line, init=1)
        left, bits, byte = Signal(range(FRAME_BITS)), Signal(FRAME_BITS - 1), Signal()
        m.d.comb += ticks.half.eq(1)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(~busy):
            m.d.sync += armed.eq(line)
            m.d.comb += ticks.start.eq(armed & ~line)
            with m.If(ticks.start):
                m.d.sync += [busy.eq(1), left.eq(FRAME_BITS - 1)]
        with m.Elif(ticks.tick):
            m.d.sync += [bits.eq(Cat(bits[1:], line)), left.eq(left - 1)]
            with m.If(left == 0):
                m.d.sync += [busy.eq(0), armed.eq(line)]
                m.d.comb += [byte.eq(line), self.framing_error.eq(~line)]
            with m.Elif((left == FRAME_BITS - 1) & line):
                m.d.sync += [busy.eq(0), armed.eq(1)]
        with m.If(byte):
            m.d.comb += self.overrun.eq(self.o.valid & ~self.o.ready)
            with m.If(~self.overrun):
                m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(bits[1:])]
        return m


class UartTransmitter(wiring.Component):
    """Bytes to line, without a gap between bytes.

    Members
    -------
    i : In, stream of bytes
        a byte is taken when its start bit begins.
    tx : Out
        the line, from a register.
    """

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self.clock_hz, self.baud = clock_hz, baud
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ticks = ticks = Ticks(clock_hz=self.clock_hz, baud=self.baud)
        left, bits = Signal(range(FRAME_BITS + 1)), Signal(FRAME_BITS - 1)
        last = ticks.tick & (left == 1)
        m.d.comb += self.i.ready.eq((left == 0) | last)
        with m.If(ticks.tick & (left != 0)):
            m.d.sync += [Cat(self.tx, bits).eq(Cat(bits, Const(1, 1))), left.eq(left - 1)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [Cat(self.tx, bits).eq(Cat(Const(0, 1), self.i.payload, Const(1, 1))),
                         left.eq(FRAME_BITS)]
            m.d.comb += ticks.start.eq(left == 0)
        return m


class Uart(wiring.Component):
    """A serial port: 8 data bits, no parity, one stop bit, no flow control.

    Members
    -------
    rx, tx : the lines
    i, o : streams of bytes
        to and from the line.
    framing_error, overrun : Out
        strobes of the receiver.
    """

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self.clock_hz, self.baud = clock_hz, baud
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "i": In(stream.Signature(8)),
                          "o": Out(stream.Signature(8)), "framing_error": Out(1), "overrun": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(clock_hz=self.clock_hz, baud=self.baud)
        m.submodules.transmitter = transmitter = UartTransmitter(clock_hz=self.clock_hz, baud=self.baud)
        connect(m, receiver.o, flipped(self.o))
        connect(m, flipped(self.i), transmitter.i)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
                     self.framing_error.eq(receiver.framing_error), self.overrun.eq(receiver.overrun)]
        return m
