"""The whole ring in compiled simulation against the golden model, on random graphs: every projection at its
barrier, every tensor, every count, of every frame. Step by step, which waits for everything in between, and in whole
frames, in which a step begins while the last one still drains."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from host.compiler import Program, compile_graph
from host.errors import UserError
from host.simulator import RingSimulator
from host.simulator.compare import first_mismatch
from host.simulator.frames import FrameRunner
from hw.config import MARK_COLUMNS, PRESETS
from hw.layouts import StepKind
from tests.hw.bench import with_fields
from tests.random_graphs import OVERLAPPING, Limits, quiet_clip, random_clip, random_graph

CONFIGS = {"sim1": PRESETS["sim1"], "sim8": PRESETS["sim8"],
           "lanes1": PRESETS["sim8"].with_(lanes=1, pes=8, line_words=256),
           "wrapping": PRESETS["sim1"].with_(accumulator_bits=12)}


@cache
def simulator(name: str) -> RingSimulator:
    return RingSimulator(CONFIGS[name])


def frames_cycles(config: str, program: Program, clip: list[np.ndarray], threshold: int, mode: str) -> list[int]:
    """What the steps of each frame counted."""
    runner, cycles = FrameRunner(simulator(config), program, threshold, mode), []
    for codes in clip:
        runner.frame(codes)
        cycles.append(int(simulator(config).counters(program)["cycles"].sum()))
    return cycles


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("threshold,mode", [(0, "hold"), (2, "hold"), (4, "truncate")])
@pytest.mark.parametrize("seed", range(12))
def test_ring_is_the_golden_model(config, threshold, mode, seed):
    graph = random_graph(seed * 7 + threshold, Limits(layers=3))
    graph = graph.with_parts(accumulator_bits=CONFIGS[config].accumulator_bits)
    program = compile_graph(graph, CONFIGS[config])
    assert first_mismatch(simulator(config), program, random_clip(graph, seed, 4), threshold, mode, (0, 2)) is None


@pytest.mark.parametrize("config", ["sim8", "lanes1"])
def test_ring_with_blocks_of_columns_and_moved_channels(config):
    """Steps of several channel groups that feed projections with column phases, and channels dealt out anew."""
    assert CONFIGS[config].block > 1
    blocks = moved = 0
    for seed in (4, 7, 15, 20, 45, 51):
        graph = random_graph(seed, Limits(layers=2, channels=14, size=8, p_subset=0.1, weight_density=0.4))
        graph = graph.with_parts(accumulator_bits=CONFIGS[config].accumulator_bits)
        program = compile_graph(graph, CONFIGS[config])
        blocks += sum(s.kind == StepKind.SWEEP and s.fields["groups"] > 1
                      and any(program.places[graph.edges[e].target].phase_bits for e in s.edges) for s in program.steps)
        moved += sum(p.order is not None for p in program.places.values())
        assert first_mismatch(simulator(config), program, random_clip(graph, seed, 3), 2, "hold", (0, 2)) is None
    assert blocks >= 4
    assert moved >= 4


QUIET = (Limits(layers=4, size=14, channels=6, nodes=("relu", "pool", "add", "tensor"), p_extra_edge=0.5, p_direct=0),
         Limits(layers=4, size=14, channels=6, p_direct=0.15),
         Limits(layers=2, size=50, channels=2, stride=1, nodes=("relu", "pool", "add"), edges=("conv", "depthwise"),
                p_direct=0, p_window=0, p_extra_edge=0))
"""Graphs with sums, max-pools and projections of several edges; with all kinds; with rows of two words of marks."""


@pytest.mark.parametrize("config", ["sim8", "lanes1"])
@pytest.mark.parametrize("threshold,mode", [(0, "hold"), (2, "hold"), (4, "truncate")])
def test_ring_leaves_out_what_nothing_has_reached(config, threshold, mode):
    """Frames in which a few pixels change: the same integers, in fewer cycles than a refresh, or without ``skip``."""
    graphs = fewer = sooner = wide = 0
    for seed, limits in ((seed, limits) for seed in range(5) for limits in QUIET):
        graph = random_graph(seed, limits)
        try:
            program = compile_graph(graph, CONFIGS[config])
        except UserError:                       # it does not fit
            continue
        if not any(s.fields.get("skip") for s in program.steps):
            continue
        clip = list(quiet_clip(graph, seed, 5))
        assert first_mismatch(simulator(config), program, clip, threshold, mode, (0, 3)) is None
        whole = with_fields(program, skip=0)
        cycles, slow = (frames_cycles(config, p, clip, threshold, mode) for p in (program, whole))
        graphs, fewer, sooner = graphs + 1, fewer + (max(cycles[1:]) < cycles[0]), sooner + (sum(cycles) < sum(slow))
        wide += max(program.graph.shape_of(s.tensor)[2] for s in program.steps if s.fields.get("skip")) > MARK_COLUMNS
    assert graphs >= 10
    assert wide >= 2
    assert fewer >= 0.9 * graphs
    assert sooner >= 0.9 * graphs


@pytest.mark.parametrize("threshold,mode", [(0, "hold"), (2, "hold"), (4, "truncate")])
def test_max_pool_windows_read_once_what_they_share(threshold, mode):
    """Windows that have rows and columns in common, all of them swept or islands of all shapes: where the one above,
    the one to the left or both are left out, the same integers, in fewer cycles than with rows read again."""
    limits = Limits(layers=3, size=28, channels=4, kernel=2, stride=1, edges=("conv", "depthwise"), p_direct=0,
                    p_window=0, nodes=("relu", "pool", "add"), pools=OVERLAPPING)
    graphs = sooner = 0
    for seed in range(20):
        try:
            program = compile_graph(random_graph(seed, limits), CONFIGS["lanes1"])
        except UserError:                       # it does not fit
            continue
        both = [s.fields for s in program.steps if s.fields.get("shared_x") and s.fields.get("shared_y")]
        if not any(min(f["height"], f["width"]) > 2 for f in both):
            continue
        apart = with_fields(program, shared_y=0)
        for clip in (list(random_clip(program.graph, seed, 3)), list(quiet_clip(program.graph, seed, 6, spots=12))):
            assert first_mismatch(simulator("lanes1"), program, clip, threshold, mode) is None
            together, alone = (sum(frames_cycles("lanes1", p, clip, threshold, mode)) for p in (program, apart))
            graphs, sooner = graphs + 1, sooner + (together < alone)
    assert graphs >= 12
    assert sooner >= 0.7 * graphs


def test_a_seeded_fault_is_found():
    """The comparison itself: one weight changed in the image is found in the first frame that uses it."""
    graph = random_graph(2, Limits(edges=("conv",), nodes=("relu",), layers=1, p_codebook=0, p_direct=0,
                                   weight_density=1.0))
    program = compile_graph(graph, CONFIGS["sim1"])
    space = next(iter(program.images))
    broken = [image.copy() for image in program.images[space]]
    broken[0][0, 0] ^= 1
    broken = replace(program, images={**program.images, space: broken})
    clip = list(random_clip(graph, 2, 3))
    assert first_mismatch(simulator("sim1"), program, clip) is None
    found = first_mismatch(simulator("sim1"), broken, clip)
    assert found is not None
    assert found.name in graph.projections
    assert "expected" in str(found)


def test_clearing_shows_only_where_there_are_no_idle_slots():
    """From memories that are 0 anyway, a refresh with clears against one without. A single PE has hardly any idle
    slots, so some of each clear shows here, but never more than its words, and not all of them."""
    graph = random_graph(4, Limits(edges=("conv",), nodes=("relu",), layers=5, channels=6, size=8, p_window=0,
                                   p_subset=0, p_direct=0))
    program = compile_graph(graph, CONFIGS["sim1"])
    without = with_fields(program, clears=0)
    codes = next(random_clip(graph, 4, 1))
    cycles = []
    for p in (program, without):
        fresh = RingSimulator(CONFIGS["sim1"])
        FrameRunner(fresh, p).frame(codes)
        cycles.append(fresh.counters(p)["cycles"])
        fresh.close()
    shown = cycles[0] - cycles[1]
    words = np.zeros(len(program.steps), int)
    for name, place in program.places.items():
        if place.projection:
            fed = min(i for i, s in enumerate(program.steps)
                      for e in s.edges if graph.edges[e].target == name)
            words[fed - 1] += place.words
    assert words[0] <= shown[0] <= words[0] + 8, "nothing hides the first clear"
    assert (0 <= shown).all()
    assert (shown <= words + 8).all()
    assert shown[1:].sum() <= 0.75 * words[1:].sum()
