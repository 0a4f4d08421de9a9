"""What the compiler says a change reaches, against what changes in the golden model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from host.compiler import compile_graph
from host.compiler.program import Program
from host.compiler.reach import NOWHERE
from host.compiler.stored import from_section, to_section
from host.cycles import Changes, observed_frame, swept_pixels
from hw.config import MARK_COLUMNS, PRESETS
from hw.layouts import Space, StepKind, unpack
from sim.golden import GoldenModel
from sim.graph import Code, Edge, Geometry, Graph, Node, Operand, Output, Pool, Projection, Read, Tensor
from tests.random_graphs import Limits, quiet_clip, random_clip, random_graph

LIMITS = (Limits(size=10), Limits(size=40, channels=2, layers=5, p_direct=0.1),
          Limits(size=20, layers=6, nodes=("relu", "pool", "add", "tensor"), p_extra_edge=0.6, p_direct=0))
RULES = ((0, "hold"), (2, "hold"), (4, "truncate"))


def compiled(seed: int) -> Program:
    return compile_graph(random_graph(seed, LIMITS[seed % len(LIMITS)]), PRESETS["sim8"], fit=True)


def operands_changed(graph: Graph, node: Node, before: dict, after: dict) -> np.ndarray:
    """bool[H, W] of the target: some element of an operand, anywhere in the window of the pixel, has changed."""
    changed = np.any([(after[op.source] != before[op.source]).any(axis=0) for op in node.operands], axis=0)
    if node.pool is None:
        return changed
    pool, found = node.pool, np.zeros(graph.tensors[node.target].shape[1:], bool)
    for out in np.ndindex(found.shape):
        for tap in np.ndindex(pool.kernel):
            y, x = (out[a] * pool.stride[a] - pool.pad[a] + tap[a] * pool.dilation[a] for a in (0, 1))
            if 0 <= y < changed.shape[0] and 0 <= x < changed.shape[1]:
                found[out] |= changed[y, x]
    return found


def values(model: GoldenModel) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in (*model.snapshots.items(), *model.projections.items())}


@pytest.mark.parametrize("threshold,mode", RULES)
@pytest.mark.parametrize("first", range(0, 60, 15))
def test_what_is_left_out_has_not_changed(threshold, mode, first):
    """Every pixel with a changed operand is swept, and all others are as they were; many are left out."""
    left = whole = 0
    for seed in range(first, first + 15):
        program = compiled(seed)
        graph, model = program.graph, GoldenModel(program.graph, threshold, mode)
        nodes = {node.target: node for node in graph.nodes}
        clip = (quiet_clip, random_clip)[seed % 2](graph, seed, 5)
        for number, codes in enumerate(clip):
            before = values(model)
            _, changes = observed_frame(model, codes, number == 3)
            after, swept = values(model), swept_pixels(program, changes)
            assert number not in (0, 3) or all(pixels is None for pixels in swept)
            for step, pixels in zip(program.steps, swept, strict=True):
                if pixels is None:
                    continue
                assert step.kind == StepKind.SWEEP
                assert not step.direct
                name = step.tensor
                assert not (operands_changed(graph, nodes[name], before, after) & ~pixels).any(), name
                assert (after[name] == before[name])[:, ~pixels].all(), name
                assert not changes.sent[name][:, ~pixels].any()
                left, whole = left + np.count_nonzero(~pixels), whole + pixels.size
    assert whole
    assert left > 0.3 * whole, "hardly anything is left out"


def test_steps_that_sweep_all_have_a_reason():
    """They are a tensor's second (direct) step, or something that an operand comes from is not told of."""
    skipping = 0
    for seed in range(40):
        program = compiled(seed)
        graph = program.graph
        told = {s.tensor for s in program.steps if s.tensor is not None and not s.direct}
        nodes = {node.target: node for node in graph.nodes}
        for step in (s for s in program.steps if s.kind == StepKind.SWEEP):
            sources = {op.source for op in nodes[step.tensor].operands}
            untold = [n for n in sources if (n in graph.tensors and n not in told)
                      or (n in graph.projections and graph.projections[n].mode == "direct")]
            assert step.fields["skip"] == (not step.direct and not untold)
            skipping += step.fields["skip"]
    assert skipping > 40


def test_images_say_what_the_steps_reach():
    """Tables read back as the marker reads them; the marks of no two steps overlap."""
    entries = 0
    for seed in range(30):
        program = compiled(seed)
        lay, graph = program.layouts, program.graph
        reach, span = (unpack(layout, program.images[space][0]) for layout, space in ((lay.reach, Space.REACHES),
                                                                                     (lay.span, Space.SPANS)))
        used = np.zeros(program.used["mark_words"], int)
        for step in program.steps:
            if step.fields.get("skip"):
                _, height, width = graph.shape_of(step.tensor)
                used[step.fields["marks"]:step.fields["marks"] + height * -(-width // MARK_COLUMNS)] += 1
            assert step.fields.get("reaches", 0) == len(step.reaches)
            for number, own in enumerate(step.reaches, step.fields.get("reach", 0)):
                target = program.steps[own.step]
                assert target.fields["skip"]
                assert reach["marks"][number] == target.fields["marks"]
                assert reach["segments"][number] == -(-graph.shape_of(target.tensor)[2] // MARK_COLUMNS)
                for name, spans, size in zip(("span_y", "span_x"), (own.y, own.x), graph.shape_of(step.tensor)[1:],
                                             strict=True):
                    rows = slice(reach[name][number], reach[name][number] + size)
                    assert np.stack([span["first"][rows], span["last"][rows]], axis=1).tolist() == spans.tolist()
                entries += 1
        assert (used == 1).all()
    assert entries > 60


def edge(source: str, target: str, size: int, **geometry) -> Edge:
    """A convolution of one channel with weights 1."""
    weight = np.ones((1, 1, size, size))
    return replace(Edge.conv(source, target, weight, Geometry(**geometry)), weight_code=weight.astype(np.int32))


def node(target: str, *sources: str, pool: Pool | None = None) -> Node:
    """The sum of some maps of one channel."""
    one = np.ones(1, np.int64)
    operands = tuple(Operand(s, np.zeros(1), None, 0 * one, one, one) for s in sources)
    return Node(target, operands, np.ones(1), pool=pool, shift=0 * one, lo=-128, hi=127)


def test_spans_of_a_network_worked_out_by_hand():
    """x -> 3 x 3 -> max-pool by 2 -> a; a -> every other row, of the columns 0 and 1 -> b; a -> 3 x 3, + a -> c."""
    shapes = {name: (1, n, n) for name, n in zip("xpaqbrc", (8, 8, 4, 2, 2, 4, 4), strict=True)}
    index = np.arange(16).reshape(1, 4, 4)
    graph = Graph(
        "hand", "x", {n: Tensor(n, shapes[n], Code(1.0, -128, 127)) for n in "xabc"},
        {n: Projection(n, shapes[n], np.ones(1)) for n in "pqr"},
        (edge("x", "p", 3, pad=(1, 1)), edge("a", "q", 1, stride=(2, 2), window=(0, 4, 0, 2)),
         edge("a", "r", 3, pad=(1, 1))),
        (node("a", "p", pool=Pool((3, 2), (2, 2), (1, 0))), node("b", "q"), node("c", "r", "a")),
        (Output("c", (1, 4, 4), (Read("c", np.zeros(1)),), index),))
    graph.validate()
    program = compile_graph(graph, PRESETS["sim8"])
    assert [s.tensor for s in program.steps] == [None, "x", "a", "b", "c"]
    found = [[(r.step, r.y.tolist(), r.x.tolist()) for r in s.reaches] for s in program.steps]
    gone, around, itself = list(NOWHERE), [[0, 1], [0, 2], [1, 3], [2, 3]], [[i, i] for i in range(4)]
    assert found == [
        [],
        [(2, [[0, 1], [0, 1], [0, 2], [1, 2], [1, 3], [2, 3], [2, 3], [3, 3]],
          [[0, 0], [0, 1], [0, 1], [1, 2], [1, 2], [2, 3], [2, 3], [3, 3]])],
        [(3, [[0, 0], gone, [1, 1], gone], [[0, 0], gone, gone, gone]), (4, around, around), (4, itself, itself)],
        [], []]
    sent = {name: np.zeros(shapes[name], bool) for name in "xabc"}
    sent["x"][0, 2, 7] = sent["a"][0, 3, 1] = True
    swept = swept_pixels(program, Changes(False, sent, sent))
    assert [p if p is None else np.argwhere(p).tolist() for p in swept] == [
        None, None, [[0, 3], [1, 3], [2, 3]], [], [[2, 0], [2, 1], [2, 2], [3, 0], [3, 1], [3, 2]]]
    assert swept_pixels(program, Changes(False, sent, sent, frozenset("a")))[4] is None


@pytest.mark.parametrize("seed", range(6))
def test_a_stored_program_reaches_the_same(seed):
    """What the section of an .rrm file keeps: reaches, and the operands for which truncate sweeps everything."""
    program = compiled(seed)
    again = from_section(to_section(program), program.graph)
    assert any(s.reaches for s in program.steps)
    for ours, theirs in zip(again.steps, program.steps, strict=True):
        assert (ours.fields, ours.reads) == (theirs.fields, theirs.reads)
        assert [r.step for r in ours.reaches] == [r.step for r in theirs.reaches]
        for a, b in zip(ours.reaches, theirs.reaches, strict=True):
            assert np.array_equal(a.y, b.y)
            assert np.array_equal(a.x, b.x)
    assert np.array_equal(again.step_image(4, "truncate"), program.step_image(4, "truncate"))
