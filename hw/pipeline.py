"""Delay lines for fixed-latency pipelines."""

from __future__ import annotations

from amaranth.hdl import Module, Shape, Signal, ValueCastable


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
