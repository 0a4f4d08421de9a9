"""Deltas or a refresh: the rule decides as the costs turn out, on clips with cuts that it was not fitted on."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from host.compiler import Program, compile_graph
from host.refresh import RefreshRule, Sample, activity, cheapest_limit, measure
from hw.config import PRESETS
from sim.graph import Graph
from tests.networks import onnx_arrays, quantised
from tests.random_graphs import Limits, random_graph


@cache
def program() -> Program:
    limits = Limits(channels=12, size=16, layers=1, edges=("conv",), nodes=("relu",), p_direct=0, p_window=0,
                    p_subset=0, wide_input=False)
    return compile_graph(random_graph(0, limits), PRESETS["sim8"], fit=True)


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


def test_a_cut_is_refreshed_and_movement_is_not():
    graph = program().graph
    rule = RefreshRule.fit(program(), scene(graph, 1, 5), thresholds=(0,))
    clip = scene(graph, 2, 4) + scene(graph, 3, 4)
    chosen = [rule.should_refresh(a, b) for a, b in pairwise(clip)]
    assert chosen == [i == 3 for i in range(7)]
    for choice, sample in zip(chosen, measure(program(), pairwise(clip)), strict=True):
        assert (sample.refresh < sample.deltas) == choice


def test_the_rule_saves_cycles_on_a_real_network_with_cuts():
    network, _ = quantised("mlperftiny_resnet8_cifar10")
    code = network.graph.tensors[network.graph.input].code
    frames = [network.input.to_codes(a, code) for a in onnx_arrays("mlperftiny_resnet8_cifar10", 24)]
    compiled = compile_graph(network.graph, PRESETS["sim64"], fit=True)
    rule = RefreshRule.fit(compiled, frames[:6], thresholds=(0,))
    clip = frames[8:12] + [f[:, ::-1] for f in frames[12:14]] + [f[:, :, ::-1] for f in frames[14:16]]
    order = list(pairwise(clip))
    samples = measure(compiled, order)
    ruled = sum(s.refresh if rule.should_refresh(a, b) else s.deltas for s, (a, b) in zip(samples, order, strict=True))
    best = sum(min(s.refresh, s.deltas) for s in samples)
    assert best <= ruled <= 1.01 * best
    assert ruled < sum(s.deltas for s in samples)
    assert ruled < sum(s.refresh for s in samples)


@pytest.mark.parametrize("low,high", [(3, 3), (1, 2)])
def test_limit_lies_where_the_choice_turns(low, high):
    samples = [Sample(1.0, 10, 20), Sample(float(low), 15, 20), Sample(high + 1.0, 30, 20), Sample(9.0, 40, 20)]
    assert cheapest_limit(samples) == (low + high + 1.0) / 2
    assert cheapest_limit(samples[:2]) == np.inf
    assert cheapest_limit(samples[2:]) == (high + 1.0) / 2


def test_activity_counts_bits_of_change():
    before = np.zeros((1, 2, 2), np.int16)
    assert activity(before, before) == 0
    assert activity(before, before + np.array([[[0, 1], [-3, 255]]], np.int16)) == (0 + 1 + 2 + 8) / 4


def test_rule_survives_storing_and_takes_the_next_lower_threshold():
    rule = RefreshRule.from_dict(RefreshRule({0: 2.0, 2: 3.5, 4: np.inf}).to_dict())
    assert rule.limits == {0: 2.0, 2: 3.5, 4: np.inf}
    before = np.zeros((1, 1, 1), np.int16)
    decisions = [[rule.should_refresh(before, before + d, t) for t in (0, 1, 2, 3, 5)] for d in (7, 15)]
    assert decisions == [[True, True, False, False, False], [True, True, True, True, False]]
