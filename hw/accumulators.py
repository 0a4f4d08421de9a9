"""The accumulators of one PE: read, add, write, with every near update forwarded."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Layouts
from hw.pipeline import delay


class Accumulators(wiring.Component):
    """P memory of a PE (``projection_words`` words of ``lanes`` accumulators) and its adder.

    Members
    -------
    op : In {address, update, clear}
        one operation per cycle, every cycle: ``update`` adds ``product`` to the word, ``clear`` makes it 0,
        neither only reads it.
    product : In
        signed products of the operation given ``PRODUCT_LATENCY`` cycles ago, one per lane.
    value : Out
        the word after the operation given ``LATENCY`` cycles ago (sums wrap).

    ::

        cycle 0  address -> RAM     1  RAM latch     2  output register, + product     3  value; RAM written

    A word written in cycle 3 is there for addresses of cycle 4 on, so results are forwarded at distances 1, 2
    and 3; the RAM's answer to a read in the cycle of a write to the same address does not matter (distance 3).
    Cost: one RAM of ``lanes * accumulator_bits`` bits with one read and one write port; an adder per lane.
    """

    LATENCY = 3
    PRODUCT_LATENCY = 2

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        self.products = ArrayLayout(signed(config.weight_bits + CODE_BITS), config.lanes)
        self.op_layout = StructLayout({"address": unsigned(self.layouts.projection_address),
                                       "update": unsigned(1), "clear": unsigned(1)})
        super().__init__({"op": In(self.op_layout), "product": In(self.products),
                          "value": Out(self.layouts.accumulators)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Memory(shape=self.layouts.accumulators, depth=self.config.projection_words, init=[])
        read, write = ram.read_port(), ram.write_port()
        m.d.comb += read.addr.eq(self.op.address)
        latch = delay(m, self.op, 1)
        add = delay(m, latch, 1)
        word = delay(m, read.data, 1, reset_less=True)

        # The three operations ahead of the one at the adder, nearest first. Matching addresses a cycle early
        # keeps the comparators out of the adder's path.
        ahead = [delay(m, add, 1)]
        ahead += [delay(m, ahead[0], 1)]
        ahead += [delay(m, ahead[1], 1)]
        values = [self.value, delay(m, self.value, 1, reset_less=True)]
        values += [delay(m, values[1], 1, reset_less=True)]
        matches = [delay(m, (op.update | op.clear) & (op.address == latch.address), 1)
                   for op in (add, ahead[0], ahead[1])]

        for lane in range(self.config.lanes):
            old = Signal(signed(self.config.accumulator_bits), name=f"old{lane}")
            m.d.comb += old.eq(Mux(matches[0], values[0][lane], Mux(matches[1], values[1][lane],
                               Mux(matches[2], values[2][lane], word[lane]))))
            with m.If(add.clear):
                m.d.sync += self.value[lane].eq(0)
            with m.Elif(add.update):
                m.d.sync += self.value[lane].eq(old + self.product[lane])
            with m.Else():
                m.d.sync += self.value[lane].eq(old)
        m.d.comb += [write.addr.eq(ahead[0].address), write.data.eq(self.value),
                     write.en.eq(ahead[0].update | ahead[0].clear)]
        return m
