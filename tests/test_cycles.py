"""The cycle model against the RTL in compiled simulation: every step, whole networks, and models that are wrong.

A step may be off by a tenth or by ``SLACK`` cycles: the model shares the sweep's slots evenly among the PEs that lose
them, so a short step is off by the part of a word's reads (up to a window times two operands) that is still open at
its end. Whole networks must be right within 3%.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import count

import numpy as np
import pytest

import host.cycles
from host.compiler import Program, compile_graph
from host.cycles import Changes, CycleModel, observed_frame
from host.errors import UserError
from host.simulator import RingSimulator
from host.simulator.frames import FrameRunner
from hw.config import PRESETS
from hw.layouts import StepKind
from sim.golden import GoldenModel
from sim.graph import Code, Edge, Graph, Output, Projection, Read, Tensor
from tests.hw.bench import with_fields
from tests.networks import onnx_arrays, quantised
from tests.random_graphs import OVERLAPPING, Limits, random_clip, random_graph

CONFIGS = {"sim8": PRESETS["sim8"], "lanes1": PRESETS["sim8"].with_(lanes=1, pes=8, line_words=256)}
"""Those of ``tests/hw/test_ring.py``, so that their simulators are built once."""
RULES = ((0, "hold"), (2, "hold"), (4, "truncate"))
SLACK = 18
LIMITS = Limits(layers=2, channels=14, size=20, p_subset=0.1)
GRAPHS = 24


@dataclass(frozen=True)
class Run:
    """Frames of a program: what changed, and what the RTL counted, int64[frame, step] by counter."""

    program: Program
    changes: list[Changes]
    counters: dict[str, np.ndarray]


def run(simulator: RingSimulator, program: Program, frames, threshold, mode, refreshes=(0,)) -> Run:
    runner = FrameRunner(simulator, program, threshold, mode)
    model = GoldenModel(program.graph, threshold, mode)
    changes, counters = [], []
    for number, codes in enumerate(frames):
        runner.frame(codes, number in refreshes)
        changes.append(observed_frame(model, codes, number in refreshes)[1])
        counters.append(simulator.counters(program))
    return Run(program, changes, {k: np.stack([c[k] for c in counters]) for k in counters[0]})


@cache
def random_runs(config: str) -> list[Run]:
    simulator, runs = RingSimulator(CONFIGS[config]), []
    for seed in count():
        graph = random_graph(seed, LIMITS)
        try:
            program = compile_graph(graph, CONFIGS[config])
        except (UserError, ValueError):          # too large for the config, or a graph without any edge
            continue
        threshold, mode = RULES[seed % len(RULES)]
        runs.append(run(simulator, program, random_clip(graph, seed, 3), threshold, mode, (0, 2)))
        if len(runs) == GRAPHS:
            return runs


def predicted(run: Run, **config) -> dict[str, np.ndarray]:
    """int64[frame, step] by counter, for the run's config with some fields changed."""
    program = replace(run.program, config=run.program.config.with_(**config))
    frames = CycleModel(program).frames(run.changes)
    return {"cycles": np.stack([f.steps for f in frames]),
            "broadcast_stalls": np.stack([f.broadcast_stalls for f in frames]),
            "broadcasts": np.stack([f.broadcasts for f in frames])}


def wrong_steps(runs: list[Run], **config) -> list[tuple]:
    """(predicted, counted) cycles of the steps that are further off than allowed."""
    wrong = []
    for r in runs:
        cycles, counted = predicted(r, **config)["cycles"], r.counters["cycles"]
        off = np.abs(cycles - counted) > np.maximum(0.1 * counted, SLACK)
        wrong += zip(cycles[off].tolist(), counted[off].tolist(), strict=True)
    return wrong


@pytest.mark.parametrize("config", CONFIGS)
def test_every_step_of_random_graphs(config):
    assert wrong_steps(random_runs(config)) == []


@pytest.mark.parametrize("config", CONFIGS)
def test_random_graphs_in_all(config):
    for r in random_runs(config):
        counted = r.counters["cycles"].sum()
        assert abs(predicted(r)["cycles"].sum() - counted) <= 0.03 * counted


def test_max_pool_windows_read_once_what_they_share():
    """With a line memory rows as well as columns; a model that knows nothing of the rows is seen."""
    limits = Limits(layers=2, channels=8, size=20, stride=1, nodes=("relu", "pool"), pools=OVERLAPPING)
    runs, simulator = [], RingSimulator(CONFIGS["lanes1"])
    for seed in count():
        try:
            program = compile_graph(random_graph(seed, limits), CONFIGS["lanes1"])
        except UserError:                        # it does not fit
            continue
        if any(s.fields.get("shared_y") and s.fields["height"] > 4 for s in program.steps):
            runs.append(run(simulator, program, random_clip(program.graph, seed, 3), 2, "hold"))
        if len(runs) == 8:
            break
    assert wrong_steps(runs) == []
    for r in runs:
        assert abs(predicted(r)["cycles"].sum() - r.counters["cycles"].sum()) <= 0.03 * r.counters["cycles"].sum()
    assert wrong_steps([replace(r, program=with_fields(r.program, shared_y=0)) for r in runs])


@pytest.mark.parametrize("config", CONFIGS)
def test_broadcasts_are_those_of_the_rtl(config):
    for r in random_runs(config):
        assert (predicted(r)["broadcasts"] == r.counters["broadcasts"]).all()


@pytest.mark.parametrize("config", CONFIGS)
def test_broadcast_stalls(config):
    """Cycles in which a full queue holds the broadcast: right in all, and to the percent in most networks (where
    several edges leave gaps between the broadcasts, a stall may close them)."""
    name = "broadcast_stalls"
    pairs = np.array([(predicted(r)[name].sum(), r.counters[name].sum()) for r in random_runs(config)])
    model, counted = pairs[pairs[:, 1] > 500].T
    assert len(counted) >= 5
    assert abs(model.sum() - counted.sum()) <= 0.05 * counted.sum()
    assert (np.abs(model - counted) <= 0.01 * counted).mean() >= 0.5


@pytest.mark.parametrize("name,change", [("BARRIER", 20), ("TO_DELTA", 20), ("TO_WALK", 20), ("TO_QUEUE", 20)])
def test_a_wrong_latency_is_seen(monkeypatch, name, change):
    monkeypatch.setattr(host.cycles, name, getattr(host.cycles, name) + change)
    assert wrong_steps(random_runs("sim8"))


@pytest.mark.parametrize("field", ["queue_depth", "fifo_depth"])
def test_a_wrong_depth_is_seen(field):
    assert wrong_steps(random_runs("sim8"), **{field: 1})


def test_walks_that_lose_no_slots_to_the_sweep_are_seen(monkeypatch):
    monkeypatch.setattr(host.cycles._Plan, "_sweep", _sweep_without_stolen_slots)
    assert wrong_steps(random_runs("sim8"))


def _sweep_without_stolen_slots(self, program):
    fields = self.step.fields
    self.words = fields["height"] * fields["width"] * fields["groups"]
    self.reads = (1 + fields["two"]) * fields["window_y"]["kernel"] * fields["window_x"]["kernel"]
    self.window = 1 + fields["two"], *((fields[f"window_{k}"]["kernel"], fields[f"shared_{k}"]) for k in "yx")


def test_weight_words_walked():
    """With one lane: at least one per MAC of a non-zero weight; none where there are no MACs."""
    for r in random_runs("lanes1"):
        model, cycles = GoldenModel(r.program.graph), CycleModel(r.program)
        result, changes = observed_frame(model, next(random_clip(r.program.graph, 1, 1)))
        words = cycles.frame(changes).words
        for step, counted in zip(r.program.steps, words, strict=True):
            stats = [result.edges[e] for e in step.edges]
            assert counted >= sum(s.macs_nonzero_weights for s in stats)
            assert counted == 0 or any(s.macs for s in stats)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_walk_is_that_of_the_fullest_pe(config):
    """Between an even share of the words and all of them, and over before the next step walks; mostly more than an even
    share."""
    pes, uneven, walked = CONFIGS[config].pes, 0, 0
    for r in random_runs(config):
        for f in CycleModel(r.program).frames(r.changes):
            assert (f.words <= pes * f.walk).all()
            assert (f.walk <= f.words).all()
            assert (f.walk <= f.steps + host.cycles.HEAD).all()
            uneven += np.count_nonzero(f.words < pes * f.walk)
            walked += np.count_nonzero(f.words)
    assert uneven > 0.5 * walked > 0


def test_the_walk_of_rows_that_are_not_equally_full():
    """A codebook layer of 8 rows on 8 PEs; row 3 has a weight for each of the 12 inputs, the others for the first."""
    weight = np.zeros((8, 12, 1, 1), np.int32)
    weight[:, 0], weight[3] = 1, 1
    edge = replace(Edge.conv("x", "y", weight.astype(float)), weight_code=weight.swapaxes(0, 1), codebook_bits=4)
    index = np.arange(8).reshape(1, 8, 1, 1)
    graph = Graph("fc", "x", {"x": Tensor("x", (12, 1, 1), Code(1.0, -128, 127))},
                  {"y": Projection("y", (8, 1, 1), np.ones(8))}, (edge,), (),
                  (Output("y", index.shape, (Read("y", np.zeros(8)),), index),))
    graph.validate()
    model, sent = CycleModel(compile_graph(graph, CONFIGS["lanes1"])), np.arange(12) >= 7
    for mask, words, walk in ((sent, 5, 5), (~sent, 14, 7)):
        masks = {"x": mask[:, None, None]}
        frame = model.frame(Changes(False, masks, masks))
        assert (frame.words.tolist(), frame.walk.tolist()) == ([0, words], [0, walk])


@pytest.mark.parametrize("rule", RULES)
def test_what_changed_is_what_the_edges_were_fed_with(rule):
    for seed in range(6):
        graph = random_graph(seed)
        model = GoldenModel(graph, *rule)
        for number, codes in enumerate(random_clip(graph, seed, 4)):
            result, changes = observed_frame(model, codes, number == 2)
            assert changes.refresh == (number in (0, 2))
            for edge, stats in zip(graph.edges, result.edges, strict=True):
                direct = graph.projections[edge.target].mode == "direct"
                mask = (changes.nonzero if direct else changes.sent)[edge.source]
                assert np.count_nonzero(mask[edge.channels]) == stats.fed
            for name, stats in result.tensors.items():
                assert np.count_nonzero(changes.sent[name]) == stats.deltas


def test_resnet8_at_64_rows():
    """Frame by frame, exact and hold 2, on three frames each."""
    stem = "mlperftiny_resnet8_cifar10"
    network, _ = quantised(stem)
    graph = network.graph
    frames = [network.input.to_codes(a, graph.tensors[graph.input].code) for a in onnx_arrays(stem, 3)]
    direct = graph.with_parts(projections={k: replace(p, mode="direct") for k, p in graph.projections.items()})
    simulator = RingSimulator(PRESETS["sim64"])
    for g, threshold in ((direct, 0), (graph, 0), (graph, 2)):
        done = run(simulator, compile_graph(g, PRESETS["sim64"]), frames, threshold, "hold")
        cycles, counted = predicted(done)["cycles"], done.counters["cycles"]
        assert (np.abs(cycles - counted) <= np.maximum(0.1 * counted, SLACK)).all()
        assert (np.abs(cycles.sum(axis=1) - counted.sum(axis=1)) <= 0.03 * counted.sum(axis=1)).all()
        assert done.program.steps[1].kind == StepKind.FRAME
