"""Deltas or a refresh: the rule decides as the costs turn out, on clips with cuts that it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from host.compiler import Program, compile_graph
from host.cycles import CycleModel, observed_frame
from host.errors import UserError
from host.refresh import (
    SECTION,
    RefreshRule,
    Sample,
    activity,
    cheapest_limit,
    clip_with_cuts,
    samples,
    with_rule,
)
from host.session import Session
from hw.config import PRESETS
from sim.golden import GoldenModel
from sim.graph import Graph
from tests.networks import onnx_arrays, quantised
from tests.random_graphs import Limits, random_graph
from tests.test_session import model_of


@cache
def program() -> Program:
    limits = Limits(channels=12, size=16, layers=1, edges=("conv",), nodes=("relu",), p_direct=0, p_window=0,
                    p_subset=0, wide_input=False)
    return compile_graph(random_graph(0, limits), PRESETS["sim8"], fit=True)


def fitted(frames: list[np.ndarray]) -> RefreshRule:
    return RefreshRule.fit(program().graph, frames, rows=program().config.rows, sweep=program().config.sweep)


def scene(graph: Graph, seed: int, count: int) -> list[np.ndarray]:
    """A picture in which six of ten codes are 0, and a small square that moves. After a cut to another such picture
    .64 of the codes change."""
    tensor, rng = graph.tensors[graph.input], np.random.default_rng(seed)
    c, h, w = tensor.shape
    picture = rng.integers(tensor.code.lo, tensor.code.hi, (c, h, w), endpoint=True) * (rng.random((c, h, w)) < 0.4)
    frames = []
    for i in range(count):
        frame = picture.copy()
        x = i % (w - 3)
        frame[:, h // 3:h // 3 + 3, x:x + 3] = tensor.code.hi
        frames.append(frame.astype(np.int16))
    return frames


def measured(program: Program, of: Iterable[tuple[np.ndarray, np.ndarray]], threshold: int = 0) -> list[Sample]:
    """Cycles of pairs of frames, by the cycle model."""
    model, cycles, found = GoldenModel(program.graph, threshold), CycleModel(program), []
    for before, after in of:
        _, refreshed = observed_frame(model, after, refresh=True)
        model.frame(before, refresh=True)
        _, changed = observed_frame(model, after)
        refresh, deltas = (f.total for f in cycles.frames([refreshed, changed]))
        found.append(Sample(activity(before, after), deltas, refresh))
    return found


def array(graph: Graph, codes: np.ndarray) -> np.ndarray:
    """What ``model_of`` takes."""
    return codes[None].astype(np.int32) + graph.tensors[graph.input].code.zero_point


def test_a_cut_is_refreshed_and_movement_is_not():
    graph = program().graph
    rule = fitted(scene(graph, 1, 4))
    clip = scene(graph, 2, 4) + scene(graph, 3, 4)
    chosen = [rule.should_refresh(a, b) for a, b in pairwise(clip)]
    assert chosen == [i == 3 for i in range(7)]
    for choice, sample in zip(chosen, measured(program(), pairwise(clip)), strict=True):
        assert (sample.refresh < sample.deltas) == choice


@pytest.mark.parametrize("threshold", [0, 3])
def test_a_session_refreshes_at_cuts_and_costs_no_more_than_frame_by_frame(threshold):
    """The cut frame costs at most 1.10 of what it costs frame by frame, a clip of nothing but cuts 1.03."""
    graph, frames = program().graph, [s for seed in range(2, 8) for s in scene(program().graph, seed, 3)]
    model = model_of(graph)
    model = replace(model, sections={SECTION: fitted(scene(graph, 1, 4)).to_section()})
    direct = graph.with_parts(projections={k: replace(p, mode="direct") for k, p in graph.projections.items()})
    alone = cycles_of(direct, frames, threshold, [False] * len(frames))
    session = Session(model, threshold=threshold)
    stats = [session.infer_array(array(graph, f))[1] for f in frames]
    assert [s.reason for s in stats] == ["first", None, None] + ["cut", None, None] * 5
    ours = cycles_of(graph, frames, threshold, [s.refresh for s in stats])
    cuts = range(0, len(frames), 3)
    for i in cuts:
        assert ours[i] <= 1.10 * alone[i]
    assert sum(ours) < 0.8 * sum(alone)
    only, session = [frames[i] for i in cuts], Session(model, threshold=threshold)
    refreshed = [session.infer_array(array(graph, f))[1].refresh for f in only]
    assert sum(cycles_of(graph, only, threshold, refreshed)) <= 1.03 * sum(
        cycles_of(direct, only, threshold, [False] * len(only)))
    ignored = cycles_of(graph, frames, threshold, [i == 0 for i in range(len(frames))])
    assert all(ignored[i] > 1.10 * alone[i] for i in cuts[1:]), "the cuts are not worth a refresh, so nothing is shown"


def cycles_of(graph: Graph, frames: list[np.ndarray], threshold: int, refresh: list[bool]) -> list[int]:
    """Predicted cycles of each frame on sim8."""
    model = GoldenModel(graph, threshold)
    changes = [observed_frame(model, f, r)[1] for f, r in zip(frames, refresh, strict=True)]
    return [f.total for f in CycleModel(compile_graph(graph, PRESETS["sim8"], fit=True)).frames(changes)]


def test_the_rule_saves_cycles_on_a_real_network_with_cuts():
    network, _ = quantised("mlperftiny_resnet8_cifar10")
    code = network.graph.tensors[network.graph.input].code
    frames = [network.input.to_codes(a, code) for a in onnx_arrays("mlperftiny_resnet8_cifar10", 24)]
    compiled = compile_graph(network.graph, PRESETS["sim64"], fit=True)
    rule = RefreshRule.fit(network.graph, frames[:6], thresholds=(0,))
    clip = frames[8:12] + [f[:, ::-1] for f in frames[12:14]] + [f[:, :, ::-1] for f in frames[14:16]]
    order = list(pairwise(clip))
    found = measured(compiled, order)
    ruled = sum(s.refresh if rule.should_refresh(a, b) else s.deltas for s, (a, b) in zip(found, order, strict=True))
    best = sum(min(s.refresh, s.deltas) for s in found)
    assert best <= ruled <= 1.01 * best
    assert ruled < sum(s.deltas for s in found)
    assert ruled < sum(s.refresh for s in found)


def test_costs_are_in_the_proportion_of_the_cycles():
    """What the rule is fitted on: deltas over refresh as the cycle model has it, sample by sample."""
    network, _ = quantised("mlperftiny_resnet8_cifar10")
    code = network.graph.tensors[network.graph.input].code
    frames = [network.input.to_codes(a, code) for a in onnx_arrays("mlperftiny_resnet8_cifar10", 3)]
    compiled = compile_graph(network.graph, PRESETS["sim64"], fit=True)
    for ours, right in zip(samples(network.graph, frames),
                           measured(compiled, pairwise(clip_with_cuts(frames))), strict=True):
        assert ours.activity == right.activity
        assert ours.deltas / ours.refresh == pytest.approx(right.deltas / right.refresh, rel=0.05)


@pytest.mark.parametrize("low,high", [(3, 3), (1, 2)])
def test_limit_lies_where_the_choice_turns(low, high):
    of = [Sample(1.0, 10, 20), Sample(float(low), 15, 20), Sample(high + 1.0, 30, 20), Sample(9.0, 40, 20)]
    assert cheapest_limit(of) == (low + high + 1.0) / 2
    assert cheapest_limit(of[:2]) == np.inf
    assert cheapest_limit(of[2:]) == (high + 1.0) / 2


def test_activity_counts_bits_of_change():
    before = np.zeros((1, 2, 2), np.int16)
    assert activity(before, before) == 0
    assert activity(before, before + np.array([[[0, 1], [-3, 255]]], np.int16)) == (0 + 1 + 2 + 8) / 4


def test_rule_survives_storing_and_takes_the_next_lower_threshold():
    rule = RefreshRule.from_section(RefreshRule({0: 2.0, 2: 3.5, 4: np.inf}).to_section())
    assert rule.limits == {0: 2.0, 2: 3.5, 4: np.inf}
    before = np.zeros((1, 1, 1), np.int16)
    decisions = [[rule.should_refresh(before, before + d, t) for t in (0, 1, 2, 3, 5)] for d in (7, 15)]
    assert decisions == [[True, True, False, False, False], [True, True, True, True, False]]


def test_a_rule_that_is_there_is_kept():
    model = replace(model_of(program().graph), sections={SECTION: {"0": 1.0}})
    assert with_rule(model, [np.zeros((8, 8, 3), np.uint8)]) is model
    assert with_rule(model_of(program().graph), []).sections == {}


@pytest.mark.parametrize(("policy", "expected"), [
    ("never", ["first"] + [None] * 7),
    (3, ["first", None, None, "schedule", None, None, "schedule", None]),
    ("auto", ["first", None, None, None, "cut", None, None, None]),
    (1, ["first"] + ["schedule"] * 7)])
def test_policies(policy, expected):
    graph = program().graph
    model = replace(model_of(graph), sections={SECTION: fitted(scene(graph, 1, 4)).to_section()})
    session = Session(model, refresh=policy)
    clip = scene(graph, 2, 4) + scene(graph, 3, 4)
    stats = [session.infer_array(array(graph, f))[1] for f in clip]
    assert [s.reason for s in stats] == expected
    assert [s.as_dict().get("reason") for s in stats] == expected
    assert [s.refresh for s in stats] == [r is not None for r in expected]
    session.reset()
    assert session.infer_array(array(graph, clip[-1]))[1].reason == "first"
    assert session.infer_array(array(graph, clip[-1]), refresh=True)[1].reason == "asked"


@pytest.mark.parametrize("policy", ["sometimes", 0, -2, 1.5])
def test_a_wrong_policy(policy):
    with pytest.raises(UserError, match="it must be auto, never or a number of frames"):
        Session(model_of(program().graph), refresh=policy)
