"""How much of a part of a packet is left."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Countdown(wiring.Component):
    """Counts bytes down; what is asked in every cycle is ready in registers.

    Members
    -------
    start, amount : In
        ``amount`` bytes are left from the next cycle on.
    taken : In
        one less; ``start`` goes before it.
    ended : Out
        none is left.
    above : Out
        from ``start`` on until a byte is taken that leaves at most ``bound``.
    """

    def __init__(self, bits: int, bound: int) -> None:
        self.bound = bound
        super().__init__({"start": In(1), "amount": In(bits), "taken": In(1), "ended": Out(1), "above": Out(1)})

    def elaborate(self, platform):
        m = Module()
        left = Signal.like(self.amount)
        with m.If(self.start):
            m.d.sync += [left.eq(self.amount), self.ended.eq(0), self.above.eq(1)]
        with m.Elif(self.taken):
            m.d.sync += [left.eq(left - 1), self.ended.eq(left == 1), self.above.eq(left > self.bound + 1)]
        return m
