"""The recurrent model in real numbers: epsilon to the letter, infinity included."""

from __future__ import annotations

import numpy as np
import pytest

from sim.float_model import FloatModel, RecurrentFloatModel
from sim.graph import Edge
from sim.linear import scatter
from tests.random_graphs import Limits, random_clip, random_graph


def clip(graph, seed: int, count: int) -> list[np.ndarray]:
    """Real inputs that move by less and less."""
    return [graph.tensors[graph.input].code.decode(c) for c in random_clip(graph, seed, count)]


def real(graph, name: str) -> np.ndarray:
    return np.zeros(graph.shape_of(name))


@pytest.mark.parametrize("seed", range(6))
def test_epsilon_zero_is_the_network(seed):
    graph = random_graph(seed, Limits(layers=3))
    model, reference = RecurrentFloatModel(graph, 0.0, dtype=np.float64), FloatModel(graph, np.float64)
    for frame in clip(graph, seed, 5):
        found, expected = model.frame(frame), reference.outputs(frame)
        assert all(t == 0 for t in found.truncated.values())
        for name, value in expected.items():
            np.testing.assert_allclose(found.outputs[name], value, rtol=1e-9, atol=1e-9 * np.abs(value).max())


@pytest.mark.parametrize("mode", ["truncate", "hold"])
def test_with_infinity_nothing_moves_until_the_refresh(mode):
    graph = random_graph(1, Limits(p_direct=0))
    model, frames = RecurrentFloatModel(graph, np.inf, mode), clip(graph, 1, 5)
    first = model.frame(frames[0])
    kept = {name: model.values[name].copy() for name in graph.projections}
    assert first.refresh
    for frame in frames[1:4]:
        later = model.frame(frame)
        assert not later.refresh
        assert not any(s.any() for s in later.sent.values())
        for name, value in kept.items():
            np.testing.assert_array_equal(model.values[name], value)
    again = model.frame(frames[4], refresh=True)
    for name, value in FloatModel(graph).outputs(frames[4]).items():
        np.testing.assert_allclose(again.outputs[name], value, rtol=1e-5, atol=1e-5 * np.abs(value).max())


@pytest.mark.parametrize("mode", ["truncate", "hold"])
def test_a_change_is_sent_iff_it_reaches_epsilon(mode):
    """The first layer by hand over three frames, and what was truncated."""
    graph = random_graph(3, Limits(layers=1, edges=("conv",), p_direct=0, p_window=0, p_subset=0))
    edge: Edge = graph.edges_from(graph.input)[0]
    rng, epsilon = np.random.default_rng(0), 0.5
    frames = [rng.normal(size=graph.shape_of(graph.input)) for _ in range(3)]
    frames[0] = np.rint(frames[0])                          # quarters: many changes are epsilon exactly
    frames[1] = frames[0] + rng.integers(-4, 5, frames[0].shape) / 4
    frames[2] = frames[1] + rng.integers(-4, 5, frames[0].shape) / 4
    model = RecurrentFloatModel(graph, epsilon, mode, np.float64)
    expected = scatter(edge, frames[0], edge.weight, graph.shape_of(edge.target), np.float64)
    reference = frames[0]
    model.frame(frames[0])
    for frame in frames[1:]:
        change = frame - reference
        big = np.abs(change) >= epsilon
        expected += scatter(edge, np.where(big, change, 0), edge.weight, expected.shape, np.float64)
        reference = frame if mode == "truncate" else np.where(big, frame, reference)
        found = model.frame(frame)
        np.testing.assert_array_equal(found.sent[graph.input], big)
        assert found.truncated[graph.input] == pytest.approx(np.sqrt((change[~big] ** 2).sum()))
        np.testing.assert_allclose(model.values[edge.target], expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(model.values[graph.input], reference)
