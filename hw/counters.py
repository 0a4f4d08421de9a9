"""Counters of a step, and the memory that keeps those of every step."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, address_bits
from hw.pipeline import delay


class Counters(wiring.Component):
    """Adds up what happens during a step.

    Members
    -------
    add : In
        what to add to each counter in this cycle (same names as ``Layouts.counters``).
    store : In
        the step ``index`` is over: keep its counters and start again from 0. All but ``cycles`` may still come for 2
        cycles, and the next step has nothing else to count for ``LATE``.
    address, data : In, Out
        reads the counters of a step; 1 cycle.
    """

    LATE = 4

    def __init__(self, config: AcceleratorConfig, *, widths: dict[str, int]) -> None:
        self.config, self.layouts = config, Layouts(config)
        address = address_bits(config.step_words)
        super().__init__({"add": In(StructLayout(widths)), "store": In(1), "index": In(address),
                          "address": In(address), "data": Out(self.layouts.counters)})

    def elaborate(self, platform):
        m = Module()
        layout = self.layouts.counters
        m.submodules.memory = memory = Memory(shape=layout, depth=self.config.step_words, init=[])
        read, write = memory.read_port(), memory.write_port()
        now, add = Signal(layout), delay(m, self.add, 1)
        late, kept = delay(m, self.store, self.LATE), Signal.like(now.cycles)
        m.d.comb += [read.addr.eq(self.address), self.data.eq(read.data),
                     write.addr.eq(delay(m, self.index, self.LATE)), write.data.eq(now), write.data.cycles.eq(kept),
                     write.en.eq(late)]
        with m.If(self.store):
            m.d.sync += kept.eq(now.cycles)
        for name in layout.members:
            m.d.sync += now[name].eq(now[name] + add[name])
            with m.If(self.store if name == "cycles" else late):
                m.d.sync += now[name].eq(add[name])
        return m
