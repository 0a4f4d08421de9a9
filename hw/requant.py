"""Requantisation of S elements: bias, branch, multiplier, sum of operands, rounding, clamp."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, MULTIPLIER_BITS, SHIFT_BITS, AcceleratorConfig
from hw.layouts import Layouts, Space, size_of
from hw.load import LoadSignature
from hw.pipeline import delay
from hw.sweep import FLAGS

ROUND_LATENCY = 3


def round_half_even(m: Module, value, shift, name: str):
    """``rhe(value, shift)``: divide by 2**shift, nearest, exact halves to even. ROUND_LATENCY cycles, one a cycle.

    The bits below the result are guard (the highest of them) and sticky (the rest): up iff guard and (sticky or
    the floor is odd).
    """
    width = len(value)
    doubled = Signal(signed(width + 1), name=f"{name}_doubled")
    m.d.comb += doubled.eq(Cat(0, value).as_signed())
    coarse = Signal(signed(width + 1), name=f"{name}_coarse")
    below = Signal((1 << SHIFT_BITS) - 1, name=f"{name}_below")
    m.d.comb += below.eq((1 << shift) - 1)
    sticky = Signal(name=f"{name}_sticky")
    m.d.sync += [coarse.eq(doubled >> (shift & 0x38)), sticky.eq((doubled[1:] & (below >> 1)).any())]
    fine, fine_shift = Signal(signed(width + 1), name=f"{name}_fine"), delay(m, shift[:3], 1)
    m.d.sync += fine.eq(coarse >> fine_shift)
    result = Signal(signed(width), name=f"{name}_rounded")
    guard, floor = fine[0], fine[1:].as_signed()
    m.d.sync += result.eq(floor + (guard & (delay(m, sticky, 1) | floor[0])))
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
    node, node_valid : In
        row of the node table for the word that comes ``TABLE_LATENCY`` cycles later.
    i, i_valid, i_flags : In
        S source values and their flags.
    o, o_valid, o_flags : Out
        S codes, ``LATENCY`` cycles after the last operand; one beat per sum (``i_flags.last``).
    load : In
        host writes into the node table.

    One operand word per cycle, no back-pressure. Single operands choose the multiplier of their sign; sums of two
    have slopes 0 or 1 only, so ``rectify`` on the sum is enough. Cost per element: a
    (bias_bits + 1) x 24 and a 9 x 24 bit multiplier, two shifters.
    """

    TABLE_LATENCY = 2
    LATENCY = 14

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({
            "step": In(lay.step), "node": In(lay.node_address),
            "i": In(ArrayLayout(signed(config.accumulator_bits), config.sweep)), "i_valid": In(1), "i_flags": In(FLAGS),
            "o": Out(lay.codes), "o_valid": Out(1), "o_flags": Out(FLAGS), "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        shape, depth = self.layouts.node, self.config.node_words
        m.submodules.table = table = Memory(shape=shape, depth=depth, init=[])
        read, write = table.read_port(), table.write_port()
        m.d.comb += [read.addr.eq(self.node), write.addr.eq(self.load.address),
                     write.data.eq(self.load.data[:size_of(shape)]),
                     write.en.eq(self.load.strobe & (self.load.space == Space.NODES))]
        parameters = delay(m, read.data, 1, reset_less=True)
        flags = [self.i_flags]
        for _ in range(self.LATENCY):
            flags.append(delay(m, flags[-1], 1))
        valid = delay(m, self.i_valid, self.LATENCY - 1)
        m.d.sync += self.o_valid.eq(valid & flags[-2].last)
        m.d.comb += self.o_flags.eq(flags[-1])
        for lane in range(self.config.sweep):
            self._lane(m, lane, parameters[lane], flags)
        return m

    def _lane(self, m: Module, lane: int, p, flags) -> None:
        step, bits = self.step, self.config.bias_bits + 1
        t = f"l{lane}"

        def later(name: str, cycles: int):
            return delay(m, p[name], cycles, reset_less=True)

        # 1: bias. 2: the multiplier of this sign. 3, 4: product.
        v = Signal(signed(bits), name=f"{t}_v")
        m.d.sync += v.eq(self.i[lane] + p.bias)
        multiplier, other = later("multiplier", 1), later("negative", 1)
        branch1 = Mux(flags[1].second, step.operands[1].branch, step.operands[0].branch)
        negative = v[-1] ^ multiplier[-1]
        factor, v2 = Signal(signed(MULTIPLIER_BITS), name=f"{t}_factor"), delay(m, v, 1, reset_less=True)
        m.d.sync += factor.eq(Mux(branch1, later("branch", 1), Mux(negative & ~step.two, other, multiplier)))
        product = delay(m, v2 * factor, 2, reset_less=True)
        # 5 to 7: branch code. 8: clamp. 9: its product; what has no branch waits.
        rounded = round_half_even(m, product, later("branch_shift", 4), f"{t}_branch")
        branch = Signal(signed(CODE_BITS), name=f"{t}_branch")
        lo = Mux(flags[7].second, step.operands[1].lo, step.operands[0].lo)
        hi = Mux(flags[7].second, step.operands[1].hi, step.operands[0].hi)
        m.d.sync += branch.eq(clamp(rounded, lo, hi))
        multiplier8, other8 = delay(m, multiplier, 7, reset_less=True), delay(m, other, 7, reset_less=True)
        negative8 = branch[-1] ^ multiplier8[-1]
        again = delay(m, branch * Mux(negative8 & ~step.two, other8, multiplier8), 1, reset_less=True)
        straight = delay(m, product, 5, reset_less=True)
        branched = Mux(flags[9].second, step.operands[1].branch, step.operands[0].branch)
        # 10: sum. 11 to 13: rounding. 14: clamp.
        total = Signal(signed(Shape.cast(product.shape()).width + 1), name=f"{t}_sum")
        m.d.sync += total.eq(Mux(flags[9].first, 0, total) + Mux(branched, again, straight))
        rectified = Signal(total.shape(), name=f"{t}_rectified")
        m.d.comb += rectified.eq(Mux(later("rectify", 10) & total[-1], 0, total))
        x = round_half_even(m, rectified, later("shift", 10), f"{t}_x")
        sign = delay(m, Cat(total != 0, total[-1]).as_signed(), 3, reset_less=True)
        one = Signal(signed(2), name=f"{t}_sign")
        m.d.comb += one.eq(sign)
        m.d.sync += self.o[lane].eq(Mux(step.sign, one, clamp(x, step.lo, step.hi)))
