"""Expand and scatter against the tables they read; loader, counters and sequencer."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.config import AcceleratorConfig
from hw.counters import Counters
from hw.expand import Expand, ItemLayout
from hw.layouts import Kind, Layouts, Space, StepKind, chunks, size_of
from hw.lnzd import LeadingNonZero
from hw.load import LOAD, Loader
from hw.pe import COLUMN_LATENCY
from hw.scatter import Scatter
from hw.sequencer import Sequencer, run_layout
from tests.hw.bench import STALLS, fields, load, raw, send, simulate, stalls, word

CONFIG = AcceleratorConfig(pes=4, lanes=2, sweep=4, projection_words=128, snapshot_words=64, node_words=8,
                           max_size=15, max_channels=16, step_words=8, weight_words=256, column_words=128, tap_words=16,
                           codebook_words=32, max_blocks=4, axis_words=64, channel_words=16, edge_words=8,
                           clear_words=8)


class ExpandToBus(wiring.Component):
    """expand -> LNZD -> scatter, as in the ring. ``advance`` is told a cycle ahead of ``go``."""

    def __init__(self) -> None:
        self.expand, self.scatter = Expand(CONFIG), Scatter(CONFIG)
        self.lnzd = LeadingNonZero(width=4, tag=ItemLayout(Layouts(CONFIG)).tag)
        e, s = self.expand.signature.members, self.scatter.signature.members
        super().__init__({"i": e["i"], "step": e["step"], "load": e["load"], "advance": In(1), "go": Out(1),
                          **{k: s[k] for k in ("column", "work", "broadcast", "macs")}, "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.expand, m.submodules.lnzd, m.submodules.scatter = self.expand, self.lnzd, self.scatter
        connect(m, flipped(self.i), self.expand.i)
        connect(m, self.expand.o, self.lnzd.i)
        connect(m, self.lnzd.o, self.scatter.i)
        m.d.comb += [self.expand.step.eq(self.step), self.scatter.advance.eq(self.go),
                     self.lnzd.ready_next.eq(self.advance),
                     self.busy.eq(self.expand.busy | self.scatter.busy)]
        m.d.sync += self.go.eq(self.advance)
        m.d.comb += [getattr(self.expand.load, k).eq(getattr(self.load, k)) for k in self.load.signature.members]
        for k in ("column", "work", "broadcast", "macs"):
            m.d.comb += getattr(self, k).eq(getattr(self.scatter, k))
        return m


class Tables:
    """Random tables of three edges: scalar dense, scalar CSC, vector."""

    def __init__(self, rng) -> None:
        self.lay = Layouts(CONFIG)
        self.edges = [{"walk": {"kind": int(kind), "last_block": 1, "block_bits": 1, "codebook": 3}, "vector": vector,
                       "group_bits": i % 2, "axis_y": 8 * i, "axis_x": 8 * i + 24, "channels": 4 * i, "column": 5 * i,
                       "weight": 11 * i, "stride": 7, "origin": 9 * i, "rows": 3 + i}
                      for i, (kind, vector) in enumerate([(Kind.DENSE8, 0), (Kind.CSC4, 0), (Kind.DENSE8, 1)])]
        self.axes = [{"column": rng.integers(0, 20, 64), "origin": rng.integers(0, 128, 64),
                      "taps": rng.integers(0, 4, 64)} for _ in range(2)]
        self.channels = {"mask": rng.integers(0, 16, 16), "first": rng.integers(0, 9, 16)}

    async def load(self, ctx, dut) -> None:
        images = [(Space.EDGES, [word(self.lay.edge, e) for e in self.edges])]
        for space, layout, table in ((Space.AXIS_Y, self.lay.axis, self.axes[0]),
                                     (Space.AXIS_X, self.lay.axis, self.axes[1]),
                                     (Space.CHANNELS, self.lay.channels, self.channels)):
            n = len(next(iter(table.values())))
            images.append((space, [word(layout, {k: v[i] for k, v in table.items()}) for i in range(n)]))
        await load(ctx, dut, images)

    def bus(self, words):
        """What must be broadcast: (column, vector, group, start, origin, deltas), MACs, and cycles at most."""
        out, macs, cycles = [], 0, 0
        for d, y, x, group in words:
            for e in self.edges:
                ay, ax = e["axis_y"] + y, e["axis_x"] + x
                taps = int(self.axes[0]["taps"][ay] * self.axes[1]["taps"][ax])
                mask, first = (int(self.channels[k][e["channels"] + group]) for k in ("mask", "first"))
                hit = [i for i in range(4) if d[i] and mask >> i & 1]
                cycles += len(hit) if taps and hit and not e["vector"] else 1
                if not taps or not hit:
                    continue
                column = e["column"] + int(self.axes[0]["column"][ay] + self.axes[1]["column"][ax])
                origin = e["origin"] + int(self.axes[0]["origin"][ay] + self.axes[1]["origin"][ax])
                for i in hit[:1] if e["vector"] else hit:
                    k = first >> e["group_bits"] if e["vector"] else first + (mask & ((1 << i) - 1)).bit_count()
                    csc = e["walk"]["kind"] != Kind.DENSE8
                    out.append(((column + (k if csc else 0)) % 128, e["vector"], first % 2,
                                (e["weight"] + 7 * k) % 256, (origin + (k if e["vector"] else 0)) % 128,
                                list(d) if e["vector"] else [d[i]] * 4))
                    macs += taps * e["rows"] * (len(hit) if e["vector"] else 1)
        return out, macs, cycles


@pytest.mark.parametrize("i_stall", STALLS)
@pytest.mark.parametrize("o_stall", STALLS)
def test_every_delta_reaches_the_bus_once_per_edge(i_stall, o_stall):
    rng = np.random.default_rng(4)
    tables, dut = Tables(rng), ExpandToBus()
    words = [((rng.integers(-255, 256, 4) * (rng.random(4) < 0.6)).tolist(), *rng.integers(0, 8, 2).tolist(),
              int(rng.integers(4))) for _ in range(40)]
    words = [w for w in words if any(w[0])]
    expected, macs, cycles = tables.bus(words)
    lay, got, counted, columns = tables.lay, [], {"macs": 0, "broadcasts": 0, "cycles": 0}, []
    beats = [word(lay.delta_word, {"deltas": np.array([d]), "mask": sum(1 << i for i in range(4) if d[i]), "y": y,
                                   "x": x, "group": g}) for d, y, x, g in words]
    ready = {"loaded": False, "sent": False}

    async def source(ctx):
        await tables.load(ctx, dut)
        ctx.set(raw(dut.step), word(lay.step, {"edge": 0, "edges": 3}))
        await ctx.tick()
        ready["loaded"] = True
        await send(ctx, dut.i, beats, stalls(i_stall, rng))
        ready["sent"] = True

    async def sink(ctx):
        stall, quiet = stalls(o_stall, rng), 0
        while quiet < 20:
            ctx.set(dut.advance, not stall())
            if ctx.get(dut.go):
                if ctx.get(dut.column.valid):
                    columns.append(tuple(ctx.get(dut.column[k]) for k in ("column", "vector", "group")))
                if ctx.get(dut.work.valid):
                    w = fields(dut.scatter.work.shape(), ctx.get(raw(dut.work)))
                    got.append((int(w["start"][0]), int(w["origin"][0]), w["deltas"][0].tolist()))
            counted["macs"] += ctx.get(dut.macs)
            counted["broadcasts"] += ctx.get(dut.broadcast)
            counted["cycles"] += ready["loaded"]
            quiet = quiet + 1 if ready["sent"] and not ctx.get(dut.busy) else 0
            await ctx.tick()

    simulate(dut, source, sink)
    assert [c[:2] for c in columns] == [e[:2] for e in expected]
    assert [c[2] for c in columns if c[1]] == [e[2] for e in expected if e[1]]
    assert got == [e[3:] for e in expected]
    assert (counted["macs"], counted["broadcasts"]) == (macs, len(expected))
    if i_stall == o_stall == "none":
        latency, quiet = Expand.LATENCY + 4 + COLUMN_LATENCY, 20
        assert counted["cycles"] <= cycles + latency + quiet


def test_loader_assembles_words_and_forgets_the_last_one():
    layouts, rng = Layouts(CONFIG), np.random.default_rng(1)
    dut, got, sent = Loader(layouts), [], []
    beats = []
    for _ in range(40):
        space = Space(int(rng.choice([Space.NODES, Space.WEIGHTS, Space.STEPS])))
        n = chunks(size_of(layouts.memories()[space][0]))
        data, address = rng.integers(0, 1 << 32, n), int(rng.integers(8))
        sent.append((int(space), address, sum(int(d) << 32 * i for i, d in enumerate(data))))
        beats += [word(LOAD, {"space": int(space), "unit": 2, "address": address, "data": d, "last": int(i == n - 1)})
                  for i, d in enumerate(data)]

    async def source(ctx):
        await send(ctx, dut.i, beats, stalls("random", rng))
        await ctx.tick()

    async def watch(ctx):
        while len(got) < len(sent):
            await ctx.tick()
            if ctx.get(dut.load.strobe):
                got.append((ctx.get(dut.load.space), ctx.get(dut.load.address), ctx.get(dut.load.data)))

    simulate(dut, source, watch)
    assert got == sent


def test_counters_keep_each_step_apart():
    """What comes in the two cycles after a step's end still counts for it. Of the cycles none is lost."""
    widths = {name: 9 for name in Layouts(CONFIG).counters.members}
    dut, rng = Counters(CONFIG, widths=widths), np.random.default_rng(2)
    ends = np.cumsum(rng.integers(6, 20, 5))
    adds, step_of = rng.integers(0, 500, (ends[-1] + 3, len(widths))), np.zeros((ends[-1] + 3, len(widths)), int)
    of_cycles = np.array([name == "cycles" for name in widths])
    for end in ends:
        adds[end + 3:end + Counters.LATE + 1, ~of_cycles] = 0
        step_of[end + 3:, ~of_cycles] += 1
        step_of[end - 1:, of_cycles] += 1
    got = []

    async def body(ctx):
        for cycle, row in enumerate(adds):
            for name, v in zip(widths, row, strict=True):
                ctx.set(dut.add[name], int(v))
            ctx.set(dut.store, cycle in ends)
            ctx.set(dut.index, int((ends < cycle).sum()))
            await ctx.tick()
        ctx.set(dut.store, 0)
        await ctx.tick().repeat(Counters.LATE)
        for step in range(5):
            ctx.set(dut.address, step)
            await ctx.tick().repeat(2)
            got.append([ctx.get(dut.data[name]) for name in widths])

    simulate(dut, body)
    assert got == [np.where(step_of == k, adds, 0).sum(axis=0).tolist() for k in range(5)]


@pytest.mark.parametrize("refresh", [0, 1])
def test_sequencer_runs_steps_clears_ahead_and_waits(refresh):
    """Each step starts once, after the last one and its clears are done; optional clears only in a refresh. A sweep is
    scanned once, as soon as the last step is quiet, so before it starts; with early rows it starts when that is fed."""
    dut, rng = Sequencer(CONFIG), np.random.default_rng(refresh)
    kinds = [StepKind(k) for k in (0, 1, 2, 2, 1, 2, 2)]
    steps = [{"kind": int(k), "height": i + 1, "clear": min(i, 3), "clears": (2, 0, 3, 1, 0, 0, 1)[i],
              "early": (0, 0, 2, 0, 0, 7, 1)[i]} for i, k in enumerate(kinds)]
    barrier = [*("fed" if s["early"] else "finished" for s in steps[1:]), "drained"]       # of each step
    clears = [{"base": 3 * i, "count": 4 + i, "always": i % 2} for i in range(6)]
    lay, log, cleared, early = dut.layouts, [], [], 0
    state = {"quiet": 0, "fed": 0, "finished": 0, "drained": 0, "clear": 0}    # cycles until then

    async def body(ctx):
        nonlocal early
        ctx.set(dut.load.strobe, 1)
        for space, layout, rows in ((Space.STEPS, lay.step, steps), (Space.CLEARS, lay.clear, clears)):
            for address, row in enumerate(rows):
                ctx.set(dut.load.space, int(space))
                ctx.set(dut.load.address, address)
                ctx.set(dut.load.data, word(layout, row))
                await ctx.tick()
        ctx.set(dut.load.strobe, 0)
        ctx.set(raw(dut.run.p), word(run_layout(lay), {"first": 0, "count": len(steps), "refresh": refresh}))
        ctx.set(dut.run.valid, 1)
        await ctx.tick().until(dut.run.ready)
        ctx.set(dut.run.valid, 0)
        running, stored, number, begun, done, turn = None, None, None, 0, 0, None
        for cycle in range(1200):
            if ctx.get(dut.start):
                assert running is None
                assert stored in (None, cycle - 1)
                running, begun, done = ctx.get(raw(dut.step)), cycle, None
                assert turn != ctx.get(dut.turn)
                work, turn = np.cumsum(rng.integers(0, 30, 4)) + rng.integers(0, 2), ctx.get(dut.turn)
                state.update(zip(("quiet", "fed", "finished", "drained"), work.tolist(), strict=True))
                number = ctx.get(dut.step.height) - 1
                log.append(("start", number))
            assert running in (None, ctx.get(raw(dut.step))), "the descriptor changed"
            if ctx.get(dut.scan):
                assert state["quiet"] == 0
                early += state["finished"] > 0
                log.append(("scan", ctx.get(dut.ahead.height) - 1))
            if ctx.get(dut.clear.start):
                assert state["clear"] == 0
                state["clear"] = ctx.get(dut.clear["count"])
                cleared.append((number, ctx.get(dut.clear.base), state["clear"]))
            if done is None and cycle > begun and not state[barrier[number]]:
                done = cycle
            if ctx.get(dut.store):
                index = ctx.get(dut.index)
                assert state["quiet"] == state[barrier[index]] == state["clear"] == 0, "the barrier was missed"
                assert steps[index]["clears"] or cycle == max(done + 1, begun + 2)
                running, stored = None, cycle
                log.append(("store", index))
            await ctx.tick()
            for name in state:
                state[name] = max(0, state[name] - 1)
            for name in ("quiet", "fed", "finished", "drained"):
                ctx.set(getattr(dut, name), state[name] == 0)
            ctx.set(dut.clearing, state["clear"] != 0)
        assert ctx.get(dut.idle)

    simulate(dut, body)
    assert [(k, i) for k, i in log if k != "scan"] == [(k, i) for i in range(len(steps)) for k in ("start", "store")]
    assert [i for k, i in log if k == "scan"] == [i for i, k in enumerate(kinds) if k == StepKind.SWEEP]
    assert all(log.index(("scan", i)) in (log.index(("start", i)) - 1, log.index(("start", i)) - 2)
               for i, k in enumerate(kinds) if k == StepKind.SWEEP)
    assert early >= 2
    expected = [(i, c["base"], c["count"]) for i, s in enumerate(steps)
                for c in clears[s["clear"]:s["clear"] + s["clears"]] if c["always"] or refresh]
    assert cleared == expected
