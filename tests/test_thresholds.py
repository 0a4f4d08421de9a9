"""Epsilon in real units: exactly the changes of at least epsilon are sent, whatever the scale of a tensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from host.errors import UserError
from host.session import Session
from host.thresholds import from_epsilon
from sim.graph import Code, Graph
from tests.random_graphs import random_graph
from tests.test_session import model_of


def scaled(graph: Graph, scale: float, gain: tuple[float, ...] | None = None) -> Graph:
    """The graph with another code of its input."""
    tensor = graph.tensors[graph.input]
    code = Code(scale, tensor.code.lo, tensor.code.hi, tensor.code.zero_point, gain)
    return replace(graph, tensors={**graph.tensors, graph.input: replace(tensor, code=code)})


@pytest.mark.parametrize(("scale", "epsilon", "codes"), [
    (1.0, 0.0, 0), (1.0, 1e-3, 1), (1.0, 1.0, 1), (1.0, 1.01, 2), (0.1, 0.3, 3), (0.1, 0.31, 4),
    (1 / 255, 10 / 255, 10), (0.1, 100.0, 255), (0.1, float("inf"), 255)])
def test_a_change_is_sent_iff_it_is_at_least_epsilon(scale, epsilon, codes):
    graph = scaled(random_graph(0), scale)
    assert from_epsilon(graph, epsilon)[graph.input] == codes
    if 0 < codes < 255:
        assert codes * scale >= epsilon - 1e-9 > (codes - 1) * scale - 1e-9


def test_with_gains_no_change_of_epsilon_or_more_is_held_back():
    graph = random_graph(0)
    channels = graph.tensors[graph.input].shape[0]
    gain = tuple(np.linspace(0.25, 1.0, channels))
    threshold = from_epsilon(scaled(graph, 0.1, gain), 0.35)[graph.input]
    assert all((threshold - 1) * 0.1 * g < 0.35 for g in gain)
    assert threshold * 0.1 * max(gain) >= 0.35


def test_a_session_takes_it():
    graph = random_graph(2)
    session = Session(model_of(graph), epsilon=4 * graph.tensors[graph.input].code.scale)
    assert session.thresholds == from_epsilon(graph, 4 * graph.tensors[graph.input].code.scale)
    assert session.thresholds[graph.input] == 4


@pytest.mark.parametrize("epsilon", [-1.0, float("nan")])
def test_no_epsilon(epsilon):
    with pytest.raises(UserError, match=r"it must be 0 \(exact\) or more"):
        Session(model_of(random_graph(0)), epsilon=epsilon)


def test_epsilon_or_threshold():
    with pytest.raises(UserError, match="give one of them"):
        Session(model_of(random_graph(0)), epsilon=1.0, threshold=2)
