"""The integer semantics of ``sim.graph`` once more, one element at a time in Python integers.

Slow and obvious: written from the module docstring alone, it shares nothing with ``sim.linear``,
``sim.arithmetic`` or ``sim.golden`` and is what they are tested against.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from sim.graph import Edge, Graph, Node, Operand, Pool, Shape


def rounded(t: int, shift: int) -> int:
    """``rhe``; rounding of a Fraction is half to even by the language's definition."""
    return round(Fraction(t, 1 << shift))


def wrapped(value: int, bits: int) -> int:
    """Two's complement of ``bits`` bits."""
    value %= 1 << bits
    return value - (1 << bits) if value >= 1 << (bits - 1) else value


def landings(edge: Edge, source: Shape, target: Shape) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(y, x, ky, kx, oy, ox) of every tap of every source position that lands in the image."""
    g = edge.geometry
    y0, y1, x0, x1 = g.window or (0, source[1], 0, source[2])
    for y in range(y0, y1):
        for x in range(x0, x1):
            for ky in range(edge.kernel[0]):
                for kx in range(edge.kernel[1]):
                    oy, rest_y = divmod(y * g.upsample[0] + g.pad[0] - ky * g.dilation[0], g.stride[0])
                    ox, rest_x = divmod(x * g.upsample[1] + g.pad[1] - kx * g.dilation[1], g.stride[1])
                    if rest_y == rest_x == 0 and 0 <= oy < target[1] and 0 <= ox < target[2]:
                        yield y, x, ky, kx, oy, ox


def scatter(edge: Edge, values: np.ndarray, weight: np.ndarray, out: np.ndarray) -> tuple[int, int]:
    """Add ``W * values`` into ``out`` (object array); return the MACs done: (all, with non-zero weight).

    One MAC is one weight entry meeting one non-zero source element inside the image.
    """
    macs = macs_nonzero = 0
    for y, x, ky, kx, oy, ox in landings(edge, values.shape, out.shape):
        for k, channel in enumerate(edge.channels):
            d = int(values[channel, y, x])
            if d:
                for r, row in enumerate(edge.rows[k]):
                    w = int(weight[k, r, ky, kx])
                    macs, macs_nonzero = macs + 1, macs_nonzero + (w != 0)
                    out[row, oy, ox] += w * d
    return macs, macs_nonzero


def operand_value(op: Operand, a: int, c: int) -> int:
    """``v`` of one element of channel c."""
    v = a + int(op.bias_code[c])
    if op.branch is None:
        return v
    v = rounded(v * int(op.branch_multiplier[c]), int(op.branch_shift[c]))
    return min(max(v, op.branch.lo), op.branch.hi)


def node_element(node: Node, sources: list[int], c: int) -> int:
    """``x`` of one element of channel c before the pool."""
    values = [operand_value(op, a, c) for op, a in zip(node.operands, sources, strict=True)]
    t = sum(v * int(op.multiplier[c]) for v, op in zip(values, node.operands, strict=True))
    if node.sign:
        return (t > 0) - (t < 0)
    if t < 0:
        t = sum(v * int(op.negative_multiplier[c]) for v, op in zip(values, node.operands, strict=True))
    return min(max(rounded(t, int(node.shift[c])), node.lo), node.hi)


def pooled(x: np.ndarray, pool: Pool, target: Shape) -> np.ndarray:
    """Maximum of each window of x[C, H, W] over the taps inside the image."""
    out = np.zeros(target, object)
    for c, oy, ox in np.ndindex(target):
        ys = [oy * pool.stride[0] - pool.pad[0] + k * pool.dilation[0] for k in range(pool.kernel[0])]
        xs = [ox * pool.stride[1] - pool.pad[1] + k * pool.dilation[1] for k in range(pool.kernel[1])]
        out[c, oy, ox] = max(x[c, y, z] for y in ys for z in xs
                             if 0 <= y < x.shape[1] and 0 <= z < x.shape[2])
    return out


class PlainModel:
    """Snapshots, projections and counts of a graph from frame to frame, by the book.

    After ``frame``: ``results`` x of every tensor before the threshold rule, ``deltas`` what was sent,
    ``fed`` the MACs of each edge in graph order (see ``scatter``).
    """

    def __init__(self, graph: Graph, thresholds: dict[str, int], modes: dict[str, str]) -> None:
        self.graph, self.thresholds, self.modes = graph, thresholds, modes
        self.reset()

    def reset(self) -> None:
        """Every P and snapshot to 0; the next frame runs at threshold 1."""
        self.snapshots = {n: np.zeros(t.shape, object) for n, t in self.graph.tensors.items()}
        self.projections = {n: np.zeros(p.shape, object) for n, p in self.graph.projections.items()}
        self.fresh = True

    def frame(self, codes: np.ndarray, refresh: bool = False) -> None:
        """Process one frame."""
        if refresh:
            self.reset()
        for name, projection in self.graph.projections.items():
            if projection.mode == "direct":
                self.projections[name][:] = 0
        self.results, self.deltas = {}, {}
        fed = {}
        for tensor, node in self.graph.steps():
            x = codes.astype(object) if node is None else self.node(node)
            t = max(1 if self.fresh else self.thresholds[tensor.name], 1)
            ref, sent = self.snapshots[tensor.name], np.zeros(tensor.shape, object)
            for i in np.ndindex(tensor.shape):
                d = x[i] - ref[i]
                if abs(d) >= t:
                    sent[i] = d
                    ref[i] += d
                if self.modes[tensor.name] == "truncate":
                    ref[i] = x[i]
            self.results[tensor.name], self.deltas[tensor.name] = x, sent
            for edge in self.graph.edges_from(tensor.name):
                target = self.graph.projections[edge.target]
                p = self.projections[edge.target]
                fed[id(edge)] = scatter(edge, sent if target.mode == "delta" else ref, edge.weight_code, p)
                for i in np.ndindex(p.shape):
                    p[i] = wrapped(p[i], self.graph.accumulator_bits)
        self.fed = [fed[id(e)] for e in self.graph.edges]
        self.fresh = False

    def node(self, node: Node) -> np.ndarray:
        """``x`` of a node for the present snapshots and projections."""
        sources = [(self.snapshots | self.projections)[op.source] for op in node.operands]
        x = np.zeros(sources[0].shape, object)
        for i in np.ndindex(x.shape):
            x[i] = node_element(node, [int(a[i]) for a in sources], i[0])
        return x if node.pool is None else pooled(x, node.pool, self.graph.shape_of(node.target))
