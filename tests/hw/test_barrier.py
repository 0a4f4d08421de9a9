"""The barrier between steps, where it matters most: queues full of long columns, for a target of one pixel, which the
next step sweeps at once, or for the rows that it sweeps first."""

from __future__ import annotations

import numpy as np
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


CONVOLUTIONS = Limits(edges=("conv",), nodes=("relu",), channels=12, size=8, layers=3, stride=1, dilation=1,
                      weight_density=1.0, p_extra_edge=0, p_direct=0, p_window=0, p_subset=0, p_codebook=0)


def test_early_rows_wait_for_the_deltas_of_early_rows():
    """A few changes at the top of the picture: they all wait in the queue of the only PE, for its long walks, when the
    next step has rows to sweep that the lower half does not reach, but the top does."""
    overlapping = 0
    for seed in range(12):
        graph = random_graph(seed, CONVOLUTIONS)
        program = compile_graph(graph, CONFIGS["sim1"])
        overlapping += any(0 < step.fields.get("early", 0) < step.fields["height"] for step in program.steps[2:])
        clip = [next(random_clip(graph, seed, 1))]
        low = graph.tensors[graph.input].code.lo
        for _ in range(2):
            codes = clip[-1].copy()
            codes[:, 0, :2] = np.where(codes[:, 0, :2] >= low + 50, codes[:, 0, :2] - 50, low)
            clip.append(codes)
        assert first_mismatch(simulator("sim1"), program, clip) is None
    assert overlapping >= 4
