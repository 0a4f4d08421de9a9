"""The sequencer: runs steps one after the other, with a barrier between them."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space, StepKind, address_bits
from hw.load import NOTHING, Contents, LoadSignature, loaded_memory
from hw.pipeline import delay


def run_layout(layouts: Layouts) -> StructLayout:
    """The RUN command: ``count`` steps from ``first``; ``refresh`` holds for all of them."""
    bits = address_bits(layouts.config.step_words)
    return StructLayout({"first": unsigned(bits), "count": unsigned(bits + 1), "refresh": unsigned(1)})


class Sequencer(wiring.Component):
    """Fetches a step, starts it, waits until nothing of it is in the way of the next one, stores its counters, goes on.

    Members
    -------
    run : In, stream of ``run_layout``
        accepted while idle.
    idle : Out
        no step runs.
    step, refresh : Out
        the descriptor of the running step, steady.
    start : Out
        it starts in this cycle.
    ahead, scan : Out
        the descriptor of a sweep step that will start next: from now on its marks may be looked through.
    turn : Out
        changes with every step.
    quiet : In
        all deltas of the step have been made, and all that they reach is marked.
    fed, finished, drained : In
        all deltas are in the queues of PEs, and those that wait there are of late rows; every change of P will have
        been begun before the next sweep reads, so that it finds it done; nothing is under way in the ring.
    store, index : Out
        the step ``index`` is over.
    clear : Out {start, base, count}, clearing : In
        PEs clear P words of projections that the *next* step is the first to feed.
    load : In
        host writes into the step and clear tables.

    The next step starts 2 cycles after ``fed`` if it has early rows, after ``finished`` if not; the last one of a run
    ends after ``drained``. Beside its work a step takes 3 cycles per clear that its work does not hide.
    """

    def __init__(self, config: AcceleratorConfig, contents: Contents = NOTHING) -> None:
        self.config, self.layouts, self.contents = config, Layouts(config), contents
        lay = self.layouts
        super().__init__({
            "run": In(stream.Signature(run_layout(lay))), "idle": Out(1), "step": Out(lay.step), "refresh": Out(1),
            "start": Out(1), "ahead": Out(lay.step), "scan": Out(1), "turn": Out(1), "quiet": In(1),
            "fed": In(1), "finished": In(1), "drained": In(1), "store": Out(1),
            "index": Out(address_bits(config.step_words)),
            "clear": Out(StructLayout({"start": unsigned(1), "base": unsigned(lay.projection_address),
                                       "count": lay.clear.members["count"]})),
            "clearing": In(1), "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        left, address = Signal(self.run.p["count"].shape()), Signal.like(self.index)
        read, cleared = self._table(m, Space.STEPS, address), self._clear(m)
        # They come from all over the array. A step's own show from its third cycle on, and then ``ahead`` is there.
        quiet, fed, finished, drained = (delay(m, v, 1) for v in (
            self.quiet, self.fed & cleared, self.finished & cleared, self.drained & cleared))
        known, scanned, last = Signal(), Signal(), left == 1
        begin, early = Signal(), Signal()
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.run.ready.eq(1), self.idle.eq(1)]
                m.d.sync += [left.eq(self.run.p["count"]), self.index.eq(self.run.p.first),
                             address.eq(self.run.p.first), self.refresh.eq(self.run.p.refresh)]
                with m.If(self.run.valid & (self.run.p["count"] != 0)):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "DECODE"
            with m.State("DECODE"):
                m.d.sync += self.ahead.eq(read)
                m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += begin.eq(1)
                m.next = "START"
            with m.State("START"):
                m.d.comb += self.start.eq(1)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.sync += known.eq(1)
                with m.If(~known):
                    m.d.sync += self.ahead.eq(read)
                with m.Elif(Mux(last, drained, Mux(self.ahead.early != 0, fed, finished))):
                    m.d.comb += [self.store.eq(1), begin.eq(~last)]
                    m.d.sync += [self.index.eq(self.index + 1), left.eq(left - 1)]
                    m.next = "START"
                    with m.If(last):
                        m.next = "IDLE"
                m.d.comb += early.eq(known & quiet & ~last)
        m.d.comb += self.scan.eq((begin | early) & ~scanned & (self.ahead.kind == StepKind.SWEEP))
        with m.If(begin):
            m.d.sync += [self.step.eq(self.ahead), self.turn.eq(~self.turn), address.eq(address + 1), known.eq(0),
                         scanned.eq(0)]
        with m.Elif(self.scan):
            m.d.sync += scanned.eq(1)
        return m

    def _clear(self, m: Module):
        """Works through the step's clears while the step runs; true when there is nothing left to clear."""
        number, left = Signal(address_bits(self.config.clear_words)), Signal(self.step.clears.shape())
        entry = self._table(m, Space.CLEARS, number)
        # The PEs' answer comes from all over the array and goes back there, so it is looked at a cycle late; the
        # fetch hides that.
        fetched, still = Signal(), delay(m, self.clearing, 1)
        m.d.comb += [self.clear.base.eq(entry.base), self.clear["count"].eq(entry["count"])]
        with m.If(self.start):
            m.d.sync += [number.eq(self.step.clear), left.eq(self.step.clears), fetched.eq(0)]
        with m.Elif((left != 0) & ~still):
            m.d.sync += fetched.eq(1)
            with m.If(fetched):
                m.d.comb += self.clear.start.eq(entry.always | self.refresh)
                m.d.sync += [number.eq(number + 1), left.eq(left - 1), fetched.eq(0)]
        return (left == 0) & ~self.clearing

    def _table(self, m: Module, space: Space, address):
        read = loaded_memory(m, space.name.lower(), self.layouts, space, self.load, self.contents).read_port()
        m.d.comb += read.addr.eq(address)
        return read.data
