"""Fixed-latency pipelines: delay lines and wide products."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Shape, Signal, ValueCastable

LIMB_BITS = 17
"""Unsigned bits that an 18 x 18 bit signed multiplier takes, the smallest of the families' hard multipliers."""
MULTIPLY_LATENCY = 3


def delay(m: Module, value, cycles: int, enable=1, reset_less: bool = False):
    """``value`` as it was ``cycles`` enabled clock cycles ago (in domain ``sync``, starting at 0).

    A view keeps its layout. ``reset_less`` registers map to shift register primitives where a family has them.
    """
    for _ in range(cycles):
        shape = value.shape() if isinstance(value, ValueCastable) else Shape.cast(value.shape())
        register = Signal(shape, reset_less=reset_less)
        with m.If(enable):
            m.d.sync += register.eq(value)
        value = register
    return value


def multiply(m: Module, a, b):
    """``a * b`` of MULTIPLY_LATENCY cycles ago, one product per cycle; both signed, of 19 to 35 bits.

    Each factor is ``high << LIMB_BITS | low``. A cycle does one multiplication of two limbs, or one addition; the
    products of equal limbs do not overlap, so they are put side by side.
    """
    low, high = (a[:LIMB_BITS], b[:LIMB_BITS]), (a[LIMB_BITS:].as_signed(), b[LIMB_BITS:].as_signed())
    lows, highs, cross, crossed = (delay(m, x * y, 1, reset_less=True) for x, y in (
        low, high, (low[0], high[1]), (high[0], low[1])))
    outer = delay(m, Cat(lows, highs), 1, reset_less=True)
    inner = delay(m, cross + crossed, 1, reset_less=True)
    upper = delay(m, outer[LIMB_BITS:].as_signed() + inner, 1, reset_less=True)
    return Cat(delay(m, outer[:LIMB_BITS], 1, reset_less=True), upper)[:len(a) + len(b)].as_signed()
