"""Rounding half to even, on every small value: exact halves are half of them at shift 1."""

from __future__ import annotations

from fractions import Fraction

import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import SHIFT_BITS
from hw.requant import ROUND_LATENCY, round_half_even
from tests.hw.bench import simulate

BITS = 9


class Rounding(wiring.Component):
    """``round_half_even`` as a block."""

    def __init__(self) -> None:
        super().__init__({"value": In(signed(BITS)), "shift": In(SHIFT_BITS), "o": Out(signed(BITS))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(round_half_even(m, self.value, self.shift, "r"))
        return m


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 7, 8, 9, 16, 63])
def test_halves_go_to_the_even_neighbour(shift):
    dut, got = Rounding(), []
    values = range(-(1 << BITS - 1), 1 << BITS - 1)

    async def body(ctx):
        ctx.set(dut.shift, shift)
        for n in range(len(values) + ROUND_LATENCY):
            if n < len(values):
                ctx.set(dut.value, values[n])
            if n >= ROUND_LATENCY:
                got.append(ctx.get(dut.o))
            await ctx.tick()

    simulate(dut, body)
    assert got == [round(Fraction(v, 1 << shift)) for v in values]        # Python rounds exact halves to even
