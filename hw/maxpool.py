"""Max-pool over the words of a window."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Layouts
from hw.sweep import FLAGS

LOWEST = -(1 << CODE_BITS - 1)


class MaxPool(wiring.Component):
    """Element-wise maximum from the beat flagged ``window_first`` to the one flagged ``window_last``.

    Members
    -------
    i, i_valid, i_flags : In
        S codes; beats flagged ``outside`` do not count. With ``left`` the maximum takes in that of the beats flagged
        ``shared_x`` in the last window of the same group; with ``above`` that of the beats flagged ``shared_y`` in the
        last window of the same line word. Such a window has two beats at least.
    i_group, i_line : In
        the channel group of the window, and its word in the line memory.
    o, o_valid : Out
        the maximum, 1 cycle after the window's last beat.

    One beat per cycle, no back-pressure. Without a pool every beat is a window. Cost: a LUT RAM word of S or 2 S codes
    per channel group, and ``line_words`` words of 2 S codes.

    ::

        of a window:  . . x    x: ``shared_x``, for the window to the right
                      . . x    y: ``shared_y``, for the one below
                      y y c    c: both; the c of its neighbours is what a window lacks for its own x and y when it
                                  leaves out columns to the left or rows above
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        codes = self.layouts.codes
        super().__init__({"i": In(codes), "i_valid": In(1), "i_flags": In(FLAGS), "i_group": In(self.layouts.group),
                          "i_line": In(self.layouts.line), "o": Out(codes), "o_valid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        flags, codes, lines = self.i_flags, self.layouts.codes, bool(self.config.line_words)
        groups = -(-self.config.max_channels // self.config.sweep)
        # Of the last window of every group, the maxima of its shared columns, and of what is in shared rows of those.
        m.submodules.lefts = lefts = Memory(shape=ArrayLayout(codes, 1 + lines), depth=groups, init=[])
        read, write = lefts.read_port(domain="comb"), lefts.write_port()
        m.d.comb += [read.addr.eq(self.i_group), write.addr.eq(self.i_group),
                     write.en.eq(self.i_valid & flags.window_last)]
        left = [[Mux(flags.left, code, LOWEST) for code in part] for part in read.data]
        x = [Signal.like(code, name=f"x{lane}") for lane, code in enumerate(self.i)]
        m.d.comb += [now.eq(Mux(flags.outside, LOWEST, code)) for now, code in zip(x, self.i, strict=True)]
        whole, columns = self._running(m, "whole", x, 1, left[0]), self._running(m, "columns", x, flags.shared_x)
        kept = [columns]
        if lines:
            rows = self._running(m, "rows", x, flags.shared_y, left[1])
            corner = self._running(m, "corner", x, flags.shared_x & flags.shared_y)
            above = self._line(m, write.en, rows, corner)
            whole, kept = _larger(whole, above[0]), [_larger(columns, above[1]), corner]
        m.d.comb += write.data.eq(Cat(*kept))
        m.d.sync += self.o_valid.eq(write.en)
        with m.If(self.i_valid):
            m.d.sync += [o.eq(code) for o, code in zip(self.o, whole, strict=True)]
        return m

    def _running(self, m: Module, name: str, x: list[Signal], counts, start: Sequence | None = None) -> list[Signal]:
        """The maximum of ``start`` and of those beats ``x`` of the window up to now that ``counts``."""
        result = []
        for lane, code in enumerate(x):
            before, now, last = (Signal.like(code, name=f"{name}{lane}_{k}") for k in ("before", "now", "last"))
            m.d.comb += [now.eq(Mux(counts & (code > before), code, before)),
                         before.eq(Mux(self.i_flags.window_first, start[lane] if start else LOWEST, last))]
            with m.If(self.i_valid):
                m.d.sync += last.eq(now)
            result.append(now)
        return result

    def _line(self, m: Module, ends, rows: list[Signal], corner: list[Signal]) -> list[list]:
        """Stores ``rows`` and ``corner`` at the end of a window; gives those of the window above."""
        m.submodules.line = line = Memory(shape=ArrayLayout(self.layouts.codes, 2), depth=self.config.line_words,
                                          init=[])
        read, write = line.read_port(), line.write_port()
        m.d.comb += [read.addr.eq(self.i_line), read.en.eq(self.i_valid & self.i_flags.window_first),
                     write.addr.eq(self.i_line), write.en.eq(ends), write.data.eq(Cat(rows, corner))]
        return [[Mux(self.i_flags.above, code, LOWEST) for code in part] for part in read.data]


def _larger(a: Sequence, b: Sequence) -> list:
    return [Mux(x > y, x, y) for x, y in zip(a, b, strict=True)]
