"""No clip takes hold beyond the bound, and the bound is met where all errors agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.arithmetic import rhe
from sim.error_bound import _rounded, code_bounds, error_bound
from sim.golden import GoldenModel
from sim.graph import GraphError
from tests.networks import onnx_arrays, quantised
from tests.random_graphs import Limits, random_clip, random_graph


@pytest.mark.parametrize("threshold", [2, 5, 30])
@pytest.mark.parametrize("seed", range(11))
def test_hold_stays_within_the_bound(seed, threshold):
    """Every element of every tensor, projection and output, without a refresh."""
    graph = random_graph(seed, Limits(layers=3))
    thresholds = dict.fromkeys(graph.tensors, threshold) | {graph.nodes[0].target: 1}
    model, exact = GoldenModel(graph, thresholds), GoldenModel(graph)
    bounds, outputs = code_bounds(graph, thresholds), error_bound(graph, thresholds)
    moved = 0
    for codes in random_clip(graph, seed, 8):
        ours, right = model.frame(codes), exact.frame(codes)
        for name, bound in bounds.items():
            kept = model.snapshots if name in graph.tensors else model.projections
            other = exact.snapshots if name in graph.tensors else exact.projections
            error = np.abs(kept[name].astype(np.int64) - other[name])
            assert (error <= bound).all(), name
            moved += int(error.sum())
        for name, bound in outputs.items():
            assert bound.shape == ours.outputs[name].shape
            assert (np.abs(ours.outputs[name] - right.outputs[name]) <= bound * (1 + 1e-9)).all()
    assert moved, "no error was made, so nothing is shown"


def test_the_bound_is_met_where_all_errors_agree():
    """A picture that creeps up by T - 1 where the weights are positive and down where they are negative."""
    graph = random_graph(0, Limits(layers=1, edges=("conv",), p_direct=0, wide_input=False))
    first = graph.edges_from(graph.input)[0]
    row, (oy, ox) = int(first.rows[0, 0]), (1, 1)
    bound = code_bounds(graph, 5)[first.target][row, oy, ox]
    probe = GoldenModel(graph)
    shape = graph.tensors[graph.input].shape
    low = np.zeros(shape, np.int16)
    gain = np.zeros(shape, np.int64)                     # weight from every input element to the one output element
    for at in np.ndindex(shape):
        one = low.copy()
        one[at] = 1
        gain[at] = probe.dense(one).projections[first.target][row, oy, ox]
    model = GoldenModel(graph, 5)
    centre = np.full(shape, (graph.tensors[graph.input].code.lo + graph.tensors[graph.input].code.hi) // 2, np.int16)
    model.frame(centre)
    moved = centre + 4 * np.sign(gain).astype(np.int16)
    model.frame(moved)
    exact = probe.dense(moved).projections[first.target][row, oy, ox]
    error = abs(int(model.projections[first.target][row, oy, ox]) - int(exact))
    assert error == bound > 0


@pytest.mark.parametrize(("multiplier", "shift"), [(1, 1), (3, 2), (5, 1), (7, 4), (-9, 3)])
def test_rounding_may_tip_over_and_no_further(multiplier, shift):
    values = np.arange(-60, 61)
    rounded = rhe(values * multiplier, shift)
    most = {d: max(abs(int(a) - int(b)) for a, b in zip(rounded[d:], rounded, strict=False)) for d in range(1, 20)}
    bound = _rounded(np.arange(20.0)[None, None], np.array([multiplier]), np.array([shift]), 1000)[0, 0]
    assert bound[0] == 0
    assert all(most[d] <= bound[d] for d in most)
    assert any(most[d] == bound[d] for d in most)


@pytest.mark.parametrize("seed", range(3))
def test_an_exact_network_has_no_error(seed):
    graph = random_graph(seed)
    for threshold in (0, 1, {graph.input: 1}):
        assert all((b == 0).all() for b in error_bound(graph, threshold).values())


def test_a_real_network_is_within_its_bound():
    network, _ = quantised("mlperftiny_resnet8_cifar10")
    graph, bound = network.graph, error_bound(network.graph, 4)
    code = graph.tensors[graph.input].code
    model, exact = GoldenModel(graph, 4), GoldenModel(graph)
    for array in onnx_arrays("mlperftiny_resnet8_cifar10", 12):
        codes = network.input.to_codes(array, code)
        ours, right = model.frame(codes).outputs, exact.frame(codes).outputs
        assert all((np.abs(ours[name] - right[name]) <= b * (1 + 1e-9)).all() for name, b in bound.items())


def test_real_numbers_have_no_bound():
    network, _ = quantised("mlperftiny_resnet8_cifar10")
    edges = tuple(replace(e, weight_code=None) for e in network.graph.edges)
    with pytest.raises(GraphError, match="not quantised"):
        error_bound(network.graph.with_parts(edges=edges), 2)
