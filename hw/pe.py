"""One processing element: column lookup, queue, walk, multiply, accumulate."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out, connect

from hw.accumulators import Accumulators
from hw.config import AcceleratorConfig
from hw.layouts import Kind, Layouts, Space
from hw.load import NOTHING, Contents, LoadSignature, loaded_memory
from hw.pipeline import delay
from hw.queue import Queue
from hw.sweep import Sweep
from hw.walker import Walker

COLUMN_LATENCY = 3
"""Cycles from a column number on the bus to the work that belongs to it."""


class BusLayouts:
    """What the scatter broadcasts: ``column`` and who is meant first, ``work`` ``COLUMN_LATENCY`` cycles later."""

    def __init__(self, layouts: Layouts) -> None:
        self.column = StructLayout({
            "valid": unsigned(1), "column": unsigned(layouts.column_address), "vector": unsigned(1),
            "group": unsigned(max(1, layouts.log_groups)), "group_bits": unsigned(layouts.small)})
        self.work = StructLayout({
            "valid": unsigned(1), "start": unsigned(layouts.weight_address),
            "origin": unsigned(layouts.projection_address), "deltas": layouts.codes, "walk": layouts.walk,
            "late": unsigned(1)})


class ProcessingElement(wiring.Component):
    """A PE of the array.

    Parameters
    ----------
    index
        its number; it belongs to sweep group ``index // group_pes``.

    Members
    -------
    column, work : In
        the broadcast (``BusLayouts``). A column that holds nothing for this PE does not enter its queue. A vector
        goes to the PEs of its sweep group, each lane taking its own channel's delta.
    advance : In
        the broadcast moves on in this cycle.
    blocked : Out
        the queue may be full and this PE has to take ``work`` in the next cycle; ``advance`` must be low then.
    sweep, sweep_address : In
        reads a P word; this takes the walk's slot. The address is given ``Walker.LATENCY`` cycles after ``sweep``;
        ``value`` has the word ``SWEEP_LATENCY`` cycles after it.
    clear : In {start, base, count}
        clears ``count`` words from ``base`` in cycles that neither sweep nor walk use; ``clearing`` until done.
    held : Out
        the sweep takes a slot that the walk would have used.
    turn : In
        changes with every step.
    waiting, busy : Out
        deltas are queued, or more than ``ENDING`` words of one are to begin; something of them is under way.
    behind, old : Out
        some of those waiting are not ``late``; some are of the other ``turn``.

    One weight word per cycle. From a broadcast ``column`` to the accumulator written: 3 + 1 + 1 + 9 + 4 cycles.
    """

    ENDING = Sweep.TO_SLOT
    SWEEP_LATENCY = Walker.LATENCY + Accumulators.LATENCY

    def __init__(self, config: AcceleratorConfig, contents: Contents = NOTHING, *, index: int) -> None:
        self.config, self.index, self.layouts, self.contents = config, index, Layouts(config), contents
        lay, bus = self.layouts, BusLayouts(self.layouts)
        super().__init__({
            "column": In(bus.column), "work": In(bus.work), "advance": In(1), "blocked": Out(1),
            "sweep": In(1), "sweep_address": In(lay.projection_address),
            "clear": In(StructLayout({"start": unsigned(1), "base": unsigned(lay.projection_address),
                                      "count": lay.clear.members["count"]})),
            "clearing": Out(1), "value": Out(lay.accumulators), "held": Out(1), "waiting": Out(1), "busy": Out(1),
            "turn": In(1), "behind": Out(1), "old": Out(1),
            "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        # One entry to spare: room that the walk makes is only seen in the cycle after.
        m.submodules.queue = queue = Queue(self.layouts.work, depth=self.config.queue_depth + 1)
        m.submodules.walker = walker = Walker(self.config, self.contents)
        m.submodules.accumulators = accumulators = Accumulators(self.config)
        mine = self.load.strobe & (self.load.unit == self.index)
        m.d.comb += walker.load.strobe.eq(delay(m, mine, 1))
        m.d.comb += [getattr(walker.load, name).eq(delay(m, getattr(self.load, name), 1, reset_less=True))
                     for name in ("space", "unit", "address", "data")]
        self._lookup(m, queue, walker.load)
        connect(m, queue.o, walker.work)
        # What is queued came after what is walked, and is late if that is.
        entry, begun = queue.o.p, walker.walking & (walker.left > self.ENDING)
        m.d.comb += [walker.hold.eq(self.sweep), self.held.eq(self.sweep & walker.walking),
                     self.waiting.eq(queue.o.valid | begun),
                     self.behind.eq((queue.o.valid & ~entry.late) | (begun & ~walker.late)),
                     self.old.eq((queue.o.valid & (entry.turn ^ self.turn)) | (begun & (walker.turn ^ self.turn))),
                     self.busy.eq(queue.o.valid | walker.busy | self._pending(m, walker))]
        self._accumulate(m, walker, accumulators)
        m.d.comb += self.value.eq(accumulators.value)
        return m

    def _lookup(self, m: Module, queue: Queue, load) -> None:
        lay = self.layouts
        read = loaded_memory(m, "columns", lay, Space.COLUMNS, load, self.contents).read_port()
        m.d.comb += [read.addr.eq(self.column.column), read.en.eq(self.advance)]
        entry = delay(m, read.data, 1, self.advance, reset_less=True)
        told, group = self.column, Const(self.index // self.config.group_pes, max(1, lay.log_groups))
        meant = told.valid & (~told.vector | (((told.group ^ group) & ((1 << told.group_bits) - 1)) == 0))
        # Whether the work that comes is for this PE is known a cycle ahead, and so is whether the queue is full then.
        coming = delay(m, meant, COLUMN_LATENCY - 1, self.advance) & (entry.count != 0)
        wanted = delay(m, coming, 1, self.advance)
        entry = delay(m, entry, 1, self.advance, reset_less=True)
        work, push = self.work, wanted & self.advance
        full = (queue.level == queue.depth) | ((queue.level == queue.depth - 1) & push)
        m.d.comb += [
            self.blocked.eq(Mux(self.advance, coming, wanted) & full), queue.i.valid.eq(push),
            queue.i.p.count.eq(entry.count), queue.i.p.row.eq(entry.row), queue.i.p.origin.eq(work.origin),
            queue.i.p.start.eq(Mux(work.walk.kind == Kind.DENSE8, work.start, entry.first)),
            queue.i.p.walk.eq(work.walk), queue.i.p.late.eq(work.late), queue.i.p.turn.eq(self.turn),
        ]
        first = self.index % self.config.group_pes * self.config.lanes
        m.d.comb += [queue.i.p.deltas[lane].eq(work.deltas[first + lane]) for lane in range(self.config.lanes)]

    def _pending(self, m: Module, walker: Walker):
        """Operations that have left the walker but are not written yet."""
        stages, pending = walker.valid, 0
        for _ in range(Accumulators.LATENCY):
            stages = delay(m, stages, 1)
            pending = pending | stages
        return pending

    def _accumulate(self, m: Module, walker: Walker, accumulators: Accumulators) -> None:
        lay, op = self.layouts, accumulators.op
        sweep = delay(m, self.sweep, Walker.LATENCY)
        address, left = Signal(lay.projection_address), Signal(self.clear.count.shape())
        m.d.comb += [self.clearing.eq(left != 0), op.address.eq(address)]
        with m.If(sweep):
            m.d.comb += op.address.eq(self.sweep_address)
        with m.Elif(walker.valid):
            m.d.comb += [op.address.eq(walker.address), op.update.eq(1)]
        with m.Elif(left != 0):
            m.d.comb += op.clear.eq(1)
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        with m.If(self.clear.start):
            m.d.sync += [address.eq(self.clear.base), left.eq(self.clear.count)]
        # Operands wait until the product is due: one register in front of the multiplier, two behind it.
        spare = Walker.LATENCY + Accumulators.PRODUCT_LATENCY - Walker.OPERAND_LATENCY - 3
        weights = delay(m, walker.weights, 1 + spare, reset_less=True)
        deltas = delay(m, walker.deltas, 1 + spare, reset_less=True)
        for lane in range(self.config.lanes):
            product = delay(m, weights[lane] * deltas[lane], 2, reset_less=True)
            m.d.comb += accumulators.product[lane].eq(product)
