"""What a changed pixel reaches: the marks by which a sweep knows what it can leave out (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from host.compiler.axes import Axis
from host.compiler.pools import Pool
from hw.config import MARK_COLUMNS
from hw.layouts import StepKind
from sim.graph import Edge, Graph, Node, Tensor
from sim.graph import Pool as MaxPool

NOWHERE = (1, 0)
"""The span of a coordinate that reaches nothing."""


@dataclass(frozen=True)
class Reach:
    """The pixels of one tensor that a pixel of another reaches.

    step
        the one that sweeps for it.
    y, x
        int[source size, 2]: first and last row (column) that a row (column) reaches; ``NOWHERE``.
    """

    step: int
    y: np.ndarray
    x: np.ndarray

    def of(self, pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """bool[H, W] of the source -> bool of ``shape``: what they reach."""
        y, x = ((a[:, :1] <= np.arange(n)) & (np.arange(n) <= a[:, 1:]) for a, n in ((self.y, shape[0]),
                                                                                    (self.x, shape[1])))
        return (y.T.astype(np.float32) @ pixels @ x.astype(np.float32)) > 0


@dataclass
class Reaches:
    """The tables of reaches while they fill up; ``marks`` words of marks are given away."""

    marks: int = 0
    table: Pool = field(default_factory=lambda: Pool(("marks", "segments", "span_y", "span_x")))
    spans: Pool = field(default_factory=lambda: Pool(("first", "last")))
    placed: dict[int, tuple[int, int]] = field(default_factory=dict)

    def place(self, step: int, tensor: Tensor) -> int:
        """Where the marks of a step's tensor begin."""
        base, segments = self.placed[step] = self.marks, -(-tensor.shape[2] // MARK_COLUMNS)
        self.marks += tensor.shape[1] * segments
        return base

    def add(self, reaches: Sequence[Reach]) -> int:
        """Address of the table's entries for these, one after the other, of steps that are placed."""
        return self.table.add(np.array([[*self.placed[r.step], self.spans.add(r.y), self.spans.add(r.x)]
                                        for r in reaches]))


Order = Sequence[tuple[StepKind, Tensor | None, Node | None, bool, list[int]]]
"""(kind, tensor, node, direct, edge numbers) of every step."""


def skippable(graph: Graph, order: Order) -> list[int]:
    """Steps that can sweep just what was reached: they send deltas, and so do all that their operands come from."""
    told = {tensor.name for _, tensor, _, direct, _ in order if tensor is not None and not direct}
    return [number for number, (kind, _, node, direct, _) in enumerate(order)
            if kind == StepKind.SWEEP and not direct and all(
                op.source in told if op.source in graph.tensors else graph.projections[op.source].mode == "delta"
                for op in node.operands)]


def reaches_of(graph: Graph, order: Order) -> list[list[Reach]]:
    """What the deltas of every step reach, of the tensors whose steps are ``skippable``."""
    found: list[list[Reach]] = [[] for _ in order]
    first = {tensor.name: n for n, (_, tensor, _, direct, _) in reversed(list(enumerate(order)))
             if tensor is not None and not direct}
    for number in skippable(graph, order):
        _, tensor, node, _, _ = order[number]
        for op in node.operands:
            through = graph.edges_into(op.source) if op.source in graph.projections else (None,)
            for edge in through:
                source = edge.source if edge else op.source
                y, x = (_spans(_reached(graph.shape_of(source)[1 + a], graph.shape_of(op.source)[1 + a], edge, a)
                               @ _pooled(graph.shape_of(op.source)[1 + a], tensor.shape[1 + a], node.pool, a))
                        for a in (0, 1))
                known = found[first[source]]
                if not any(r.step == number and np.array_equal(r.y, y) and np.array_equal(r.x, x) for r in known):
                    known.append(Reach(number, y, x))
    return found


def late_row(tensor: Tensor) -> int:
    """The row from which on the deltas of a tensor are late ones."""
    return -(-tensor.shape[1] // 2)


def early_rows(number: int, order: Order, reaches: Sequence[Sequence[Reach]]) -> int:
    """Of a ``skippable`` step: the first rows of its tensor, which late rows of the step before do not reach."""
    _, before, _, _, _ = order[number - 1]
    found = order[number][1].shape[1]
    for reach in reaches[number - 1]:
        if reach.step == number:
            late = reach.y[late_row(before):]
            found = min([found, *late[late[:, 0] <= late[:, 1], 0]])
    return int(found)


def _reached(source: int, target: int, edge: Edge | None, axis: int) -> np.ndarray:
    """float[source, target]: not 0 where a coordinate feeds the other; without an edge they are the same."""
    if edge is None:
        return np.eye(source)
    g = edge.geometry
    window = g.window and g.window[2 * axis:2 * axis + 2]
    solved = Axis.solve(source, target, edge.kernel[axis], g.stride[axis], g.dilation[axis], g.upsample[axis],
                        g.pad[axis], window, 1)
    hits = np.zeros((source, target))
    for at in range(source):
        for k in solved.classes[solved.column[at]][0]:
            hits[at, solved.origin[at] + solved.offset[0, k]] = 1
    return hits


def _pooled(source: int, target: int, pool: MaxPool | None, axis: int) -> np.ndarray:
    """float[source, target]: not 0 where a coordinate lies in the other's window."""
    if pool is None:
        return np.eye(source)
    hits = np.zeros((source, target))
    for out in range(target):
        at = out * pool.stride[axis] - pool.pad[axis] + np.arange(pool.kernel[axis]) * pool.dilation[axis]
        hits[at[(at >= 0) & (at < source)], out] = 1
    return hits


def _spans(hits: np.ndarray) -> np.ndarray:
    """int[source, 2]: first and last target."""
    some = hits.any(axis=1)
    first, last = (hits != 0).argmax(axis=1), hits.shape[1] - 1 - (hits != 0)[:, ::-1].argmax(axis=1)
    return np.where(some[:, None], np.stack([first, last], axis=1), NOWHERE)
