"""The whole ring in compiled simulation against the golden model, on random graphs: every projection at its
barrier, every tensor, every count, of every frame."""

from __future__ import annotations

from functools import cache

import pytest

from host.compiler import compile_graph
from host.simulator import RingSimulator
from host.simulator.compare import first_mismatch
from hw.config import PRESETS
from tests.random_graphs import Limits, random_clip, random_graph

CONFIGS = {"sim1": PRESETS["sim1"], "sim8": PRESETS["sim8"], "lanes1": PRESETS["sim8"].with_(lanes=1, pes=8),
           "wrapping": PRESETS["sim1"].with_(accumulator_bits=12)}


@cache
def simulator(name: str) -> RingSimulator:
    return RingSimulator(CONFIGS[name])


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("threshold,mode", [(0, "hold"), (2, "hold"), (4, "truncate")])
@pytest.mark.parametrize("seed", range(12))
def test_ring_is_the_golden_model(config, threshold, mode, seed):
    graph = random_graph(seed * 7 + threshold, Limits(layers=3))
    graph = graph.with_parts(accumulator_bits=CONFIGS[config].accumulator_bits)
    program = compile_graph(graph, CONFIGS[config])
    assert first_mismatch(simulator(config), program, random_clip(graph, seed, 4), threshold, mode, (0, 2)) is None
