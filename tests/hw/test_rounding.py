"""Rounding half to even, on every small value (exact halves are half of them at shift 1) and on wide ones; products."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, SHIFT_BITS
from hw.pipeline import MULTIPLY_LATENCY, multiply
from hw.requant import ROUND_LATENCY, round_half_even
from tests.hw.bench import simulate

BITS = 9


class Rounding(wiring.Component):
    """``round_half_even`` as a block."""

    def __init__(self, bits: int = BITS) -> None:
        super().__init__({"value": In(signed(bits)), "shift": In(SHIFT_BITS), "o": Out(signed(20))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(round_half_even(m, self.value, self.shift, "r"))
        return m


def answers(dut, ports: tuple, cases: list[tuple[int, int]], latency: int) -> list[int]:
    """What a block gives for values at its ports, a case every cycle."""
    got = []

    async def body(ctx):
        for n in range(len(cases) + latency):
            for port, value in zip(ports, cases[min(n, len(cases) - 1)], strict=True):
                ctx.set(port, value)
            if n >= latency:
                got.append(ctx.get(dut.o))
            await ctx.tick()

    simulate(dut, body)
    return got


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 7, 8, 9, 16, 63])
def test_halves_go_to_the_even_neighbour(shift):
    dut, values = Rounding(), range(-(1 << BITS - 1), 1 << BITS - 1)
    got = answers(dut, (dut.value, dut.shift), [(v, shift) for v in values], ROUND_LATENCY)
    assert got == [round(Fraction(v, 1 << shift)) for v in values]        # Python rounds exact halves to even


@pytest.mark.parametrize("bits", [20, 53])
def test_wide_values_become_the_same_code(bits):
    """Around codes and halves between them, at the ends of the range, and anywhere: clamped, the result is exact."""
    dut, rng = Rounding(bits), np.random.default_rng(bits)
    top, code = 1 << bits - 1, 1 << CODE_BITS - 1
    cases = []
    for shift in range(1 << SHIFT_BITS):
        near = rng.integers(-2 * code - 40, 2 * code + 40, 12).tolist()
        values = [(n << shift >> 1) + int(rng.integers(-1, 2)) for n in near]
        values += [-top, top - 1, 0, -1, *rng.integers(-top, top, 8).tolist()]
        cases += [(v, shift) for v in values if -top <= v < top]

    got = answers(dut, (dut.value, dut.shift), cases, ROUND_LATENCY)
    clamped = [min(max(v, -code), code - 1) for v in got]
    assert clamped == [min(max(round(Fraction(v, 1 << shift)), -code), code - 1) for v, shift in cases]


class Product(wiring.Component):
    """``multiply`` as a block."""

    def __init__(self, bits: int) -> None:
        super().__init__({"a": In(signed(bits)), "b": In(signed(24)), "o": Out(signed(bits + 24))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(multiply(m, self.a, self.b))
        return m


@pytest.mark.parametrize("bits", [19, 28, 35])
def test_products_are_exact(bits):
    """Extremes of factors and limbs, and anything."""
    dut, rng, top = Product(bits), np.random.default_rng(bits), 1 << bits - 1
    ends = [-top, top - 1, 0, 1, -1, 0x1FFFF, -0x20000, 0x20000]
    factors = [-(1 << 23), (1 << 23) - 1, 0, 1, -1, 0x1FFFF, -0x20000]
    pairs = [(a, b) for a in ends if -top <= a < top for b in factors]
    pairs += [(int(rng.integers(-top, top)), int(rng.integers(-(1 << 23), 1 << 23))) for _ in range(300)]

    got = answers(dut, (dut.a, dut.b), pairs, MULTIPLY_LATENCY)
    assert got == [a * b for a, b in pairs]
