"""The barrier between steps, where it matters most: queues full of long columns for a target of one pixel, which the
next step sweeps at once."""

from __future__ import annotations

import pytest

from host.compiler import compile_graph
from host.simulator.compare import first_mismatch
from tests.hw.test_ring import CONFIGS, simulator
from tests.random_graphs import Limits, random_clip, random_graph

LIMITS = Limits(edges=("fc",), nodes=("relu",), channels=12, size=4, layers=2, weight_density=1.0, p_extra_edge=0,
                p_direct=0, p_window=0, p_subset=0, p_codebook=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_step_waits_for_the_queues_of_the_last(seed):
    graph = random_graph(seed, LIMITS)
    program = compile_graph(graph, CONFIGS["sim1"])
    assert first_mismatch(simulator("sim1"), program, random_clip(graph, seed, 2)) is None
