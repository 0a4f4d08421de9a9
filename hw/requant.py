"""Requantisation of S elements: bias, branch, multiplier, sum of operands, rounding, clamp."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import MULTIPLIER_BITS, AcceleratorConfig
from hw.layouts import Layouts, Space, size_of
from hw.load import NOTHING, Contents, LoadSignature
from hw.pipeline import delay, multiply
from hw.sweep import FLAGS

ROUND_LATENCY = 3
FINE_BITS = 3
"""Bits of the shift that are left to the second cycle of a rounding."""


def round_half_even(m: Module, value, shift, name: str, zero=None):
    """``rhe(value, shift)`` if that is a code, else a number on the same side of all codes; 0 where ``zero`` is set.
    ROUND_LATENCY cycles, one a cycle.

    The bits below the result are guard (the highest of them) and sticky (the rest): up iff guard and (sticky or
    the floor is odd). Cycle 1 shifts by whole bytes and keeps the two bytes of which the rest of the shift can make
    a code with its guard. Cycle 2 does the rest, or takes the largest or smallest number when a byte ``above``
    them is more than sign. Cycle 3 rounds.
    """
    step, coarse, sign = 1 << FINE_BITS, shift[FINE_BITS:], value[-1]
    count, choices = -(-(len(value) + 1) // step), 1 << len(coarse)
    doubled = Cat(0, value, sign.replicate(count * step - len(value) - 1))
    parts = [doubled[step * i:step * i + step] for i in range(count)]
    some, more = ([Signal(name=f"{name}_{what}{i}") for i in range(count)] for what in ("some", "more"))
    for i, part in enumerate(parts):
        m.d.comb += [some[i].eq(part.any()), more[i].eq((part ^ sign.replicate(step)).any())]
    parts += [sign.replicate(step)] * (choices + 1 - count)
    window, sticky, above = (Signal(n, name=f"{name}_{what}", reset_less=True)
                             for what, n in (("window", 2 * step), ("sticky", 1), ("above", 1)))
    with m.Switch(coarse):
        for i in range(choices):
            with m.Case(i):
                m.d.sync += [window.eq(Cat(parts[i:i + 2])), sticky.eq(Cat(some[:i]).any()),
                             above.eq(Cat(more[i + 2:]).any())]
    sign1, rest = delay(m, sign, 1, reset_less=True), delay(m, shift[:FINE_BITS], 1, reset_less=True)
    fine, result = (Signal(signed(2 * step + 1), name=f"{name}_{what}", reset_less=True)
                    for what in ("fine", "rounded"))
    below = Signal(step - 1, name=f"{name}_below")
    m.d.comb += below.eq((1 << rest) - 1)
    m.d.sync += fine.eq(Mux(above, Cat((~sign1).replicate(2 * step), sign1), Cat(window, sign1).as_signed() >> rest))
    lost = delay(m, sticky | (window[:step - 1] & below).any(), 1, reset_less=True)
    guard, floor = fine[0], fine[1:].as_signed()
    m.d.sync += result.eq(floor + (guard & (lost | floor[0])))
    if zero is not None:
        with m.If(delay(m, zero, 2, reset_less=True)):
            m.d.sync += result.eq(0)
    return result


def clamp(value, lo, hi):
    """``value`` within lo..hi."""
    return Mux(value < lo, lo, Mux(value > hi, hi, value))


class Requantise(wiring.Component):
    """The integer form of a nonlinear node without its max-pool (``Integer semantics``, *Node*).

    Members
    -------
    step : In
        the step descriptor (branch codes, clamp, sign), steady.
    node : In
        row of the node table for the word that comes ``TABLE_LATENCY`` cycles later.
    i, i_valid, i_flags : In
        S source values and their flags.
    o, o_valid, o_flags : Out
        S codes, ``LATENCY`` cycles after the last operand; one beat per sum (``i_flags.last``).
    load : In
        host writes into the node table.

    One operand word per cycle, no back-pressure. Single operands choose the multiplier of their sign; sums of two
    have slopes 0 or 1 only, so ``rectify`` on the sum is enough. The node table is several memories, each read when
    its fields are needed. Cost per element: two products of (bias_bits + 1) x 24 bits, two rounding shifters.

    ::

        stage 1 bias | 4 x branch multiplier | 7 rounded | 8 code, or the value | 9 factor by sign
              | 12 product | 13 sum of operands | 16 rounded | 17 clamped
    """

    TABLE_LATENCY = 2
    LATENCY = 17

    def __init__(self, config: AcceleratorConfig, contents: Contents = NOTHING) -> None:
        self.config, self.layouts, self.contents = config, Layouts(config), contents
        lay = self.layouts
        super().__init__({
            "step": In(lay.step), "node": In(lay.node_address),
            "i": In(ArrayLayout(signed(config.accumulator_bits), config.sweep)), "i_valid": In(1), "i_flags": In(FLAGS),
            "o": Out(lay.codes), "o_valid": Out(1), "o_flags": Out(FLAGS), "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        rows, flags = [self.node], [self.i_flags]
        for _ in range(self.LATENCY):
            rows.append(delay(m, rows[-1], 1, reset_less=True))
            flags.append(delay(m, flags[-1], 1, reset_less=True))
        m.d.sync += self.o_valid.eq(delay(m, self.i_valid, self.LATENCY - 1) & flags[-2].last)
        m.d.comb += self.o_flags.eq(flags[-1])
        branch, scale, slopes, shift = (self._table(m, rows[stage], *names) for stage, *names in (
            (0, "bias", "branch"), (4, "branch_shift"), (8, "multiplier", "negative"), (13, "shift", "rectify")))
        operand7 = Signal(self.layouts.operand)
        m.d.sync += operand7.eq(Mux(flags[6].second, self.step.operands[1], self.step.operands[0]))
        for lane in range(self.config.sweep):
            value = self._value(m, lane, branch[lane], scale[lane], operand7)
            self._result(m, lane, value, slopes[lane], shift[lane], flags)
        return m

    def _table(self, m: Module, row, *names: str):
        """These fields of every lane of a row, ``TABLE_LATENCY`` cycles later."""
        lane = StructLayout({name: self.layouts.node_lane.members[name] for name in names})
        rows = map(self.layouts.node.from_bits, self.contents.get(Space.NODES, ()))
        init = [[{name: row[i][name] for name in names} for i in range(self.config.sweep)] for row in rows]
        m.submodules[names[0]] = table = Memory(shape=ArrayLayout(lane, self.config.sweep),
                                                depth=self.config.node_words, init=init)
        read, write = table.read_port(), table.write_port()
        loaded = self.layouts.node(self.load.data[:size_of(self.layouts.node)])
        m.d.comb += [read.addr.eq(row), write.addr.eq(self.load.address),
                     write.en.eq(self.load.strobe & (self.load.space == Space.NODES))]
        m.d.comb += [write.data[i][name].eq(loaded[i][name]) for i in range(self.config.sweep) for name in names]
        return delay(m, read.data, 1, reset_less=True)

    def _value(self, m: Module, lane: int, branch, scale, operand7):
        """Stages 1 to 8: with bias, and as its branch's code if it has one."""
        bits = self.config.bias_bits + 1
        biased, value = (Signal(signed(bits), name=f"l{lane}_{what}", reset_less=True) for what in ("biased", "value"))
        m.d.sync += biased.eq(self.i[lane] + branch.bias)
        product = multiply(m, biased, delay(m, branch.branch, 1, reset_less=True))
        rounded = round_half_even(m, product, scale.branch_shift, f"l{lane}_branch")
        code = clamp(rounded, operand7.lo, operand7.hi)
        m.d.sync += value.eq(Mux(operand7.branch, code, delay(m, biased, 6, reset_less=True)))
        return value

    def _result(self, m: Module, lane: int, value, slopes, shift, flags) -> None:
        """Stages 9 to 17: times the multiplier of its sign, summed, rounded, clamped."""
        step, negative = self.step, value[-1] ^ slopes.multiplier[-1]
        factor = Signal(signed(MULTIPLIER_BITS), name=f"l{lane}_factor", reset_less=True)
        m.d.sync += factor.eq(Mux(negative & ~step.two, slopes.negative, slopes.multiplier))
        product = multiply(m, delay(m, value, 1, reset_less=True), factor)
        total = Signal(signed(len(product) + 1), name=f"l{lane}_sum", reset_less=True)
        m.d.sync += total.eq(Mux(flags[12].first, 0, total) + product)
        rounded = round_half_even(m, total, shift.shift, f"l{lane}", zero=shift.rectify & total[-1])
        sign = delay(m, Cat(total != 0, total[-1]).as_signed(), ROUND_LATENCY, reset_less=True)
        m.d.sync += self.o[lane].eq(Mux(step.sign, sign, clamp(rounded, step.lo, step.hi)))
