"""What a network costs: the RRM graph as a table and as plain values for JSON.

Rules of counting
-----------------
MACs are those that land inside the image. ``macs_dense`` counts every entry of the weight tables, ``macs``
only non-zero weights; both are for one frame computed from scratch, every input element fed.
State is what is kept from frame to frame: 9 bits per element of every snapshot and ``accumulator_bits``
(27) per element of every projection in ``delta`` mode. A projection in ``direct`` mode keeps nothing, and a
tensor that only such projections read needs no snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.network import Network
from sim.graph import CODE_BITS, Edge, Graph, Node, Shape
from sim.linear import edge_axes


@dataclass(frozen=True)
class EdgeRow:
    """One edge: ``kind`` is dense, depthwise or grouped; counts as in the module docstring."""

    source: str
    target: str
    kind: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    upsample: tuple[int, int]
    window: tuple[int, int, int, int] | None
    weights: int
    zeros: int
    macs: int
    macs_dense: int


@dataclass(frozen=True)
class ProjectionRow:
    """One projection; ``scaled`` tells whether its scale is known, ``state_bytes`` what it keeps."""

    name: str
    shape: Shape
    mode: str
    scaled: bool
    state_bytes: int


@dataclass(frozen=True)
class TensorRow:
    """One tensor: the step that makes it from ``operands``, in words, and its codes (None: real numbers)."""

    name: str
    shape: Shape
    operands: tuple[str, ...]
    step: str
    scale: float | None
    codes: tuple[int, int] | None
    state_bytes: int


@dataclass(frozen=True)
class Summary:
    """A network in numbers, see ``summarise``."""

    name: str
    input: str
    input_shape: tuple[int, ...]
    input_type: str
    quantised: bool
    accumulator_bits: int
    tensors: tuple[TensorRow, ...]
    projections: tuple[ProjectionRow, ...]
    edges: tuple[EdgeRow, ...]
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    handed_over: tuple[tuple[str, tuple[int, ...]], ...]
    host_operators: tuple[str, ...]

    @property
    def totals(self) -> dict[str, int]:
        """Sums over the whole network."""
        counts = ("macs", "macs_dense", "weights", "zeros")
        return {"tensors": len(self.tensors), "projections": len(self.projections), "edges": len(self.edges),
                "nodes": sum(1 for t in self.tensors if t.operands),
                **{f: sum(getattr(e, f) for e in self.edges) for f in counts},
                "snapshot_bytes": sum(t.state_bytes for t in self.tensors),
                "projection_bytes": sum(p.state_bytes for p in self.projections)}

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "totals": self.totals}

    def render(self) -> RenderableType:
        """The summary as rich tables."""
        return Group(self._tensor_table(), self._projection_table(), self._footer())

    @property
    def _ids(self) -> dict[str, str]:
        """Short ids for the tables: T0, T1, ... and P0, P1, ..."""
        return ({t.name: f"T{i}" for i, t in enumerate(self.tensors)}
                | {p.name: f"P{i}" for i, p in enumerate(self.projections)})

    def _tensor_table(self) -> Table:
        ids = self._ids
        table = _table("Tensors and the nodes that make them", "", "tensor", "shape", "made of", "by",
                       numbers=("codes", "bytes"))
        for t in self.tensors:
            codes = "real" if t.codes is None else f"{t.codes[0]}..{t.codes[1]}"
            table.add_row(ids[t.name], _short(t.name), _by(t.shape), " + ".join(ids[o] for o in t.operands),
                          t.step, codes, f"{t.state_bytes:,}")
        return table

    def _projection_table(self) -> Table:
        ids = self._ids
        table = _table("Projections and the edges that feed them", "", "projection", "shape", "from", "edge",
                       numbers=("weights", "zeros", "MACs", "dense", "bytes"))
        for p in self.projections:
            head = (ids[p.name], _short(p.name), _by(p.shape), f"{p.state_bytes:,}")
            for e in (e for e in self.edges if e.target == p.name):
                share = e.zeros / e.weights if e.weights else 0.0
                table.add_row(*head[:3], ids[e.source], _edge_words(e), f"{e.weights:,}", f"{share:.0%}",
                              f"{e.macs:,}", f"{e.macs_dense:,}", head[3])
                head = ("", "", "", "")
        return table

    def _footer(self) -> Text:
        t = self.totals
        zeros = t["zeros"] / t["weights"] if t["weights"] else 0.0
        lines = [
            f"{self.name}: {t['tensors']} tensors, {t['projections']} projections, {t['edges']} edges, "
            f"{t['nodes']} nodes; " + ("quantised" if self.quantised else "in real numbers, to be quantised"),
            f"input {self.input} {list(self.input_shape)} {self.input_type}",
            f"{t['macs']:,} MACs per frame from scratch inside the image ({t['macs_dense']:,} with those of "
            f"zero weights); {t['weights']:,} weights, {zeros:.1%} of them zero",
            f"state {t['snapshot_bytes'] + t['projection_bytes']:,} bytes: snapshots {t['snapshot_bytes']:,} "
            f"({CODE_BITS} bits per element), projections {t['projection_bytes']:,} "
            f"({self.accumulator_bits} bits per element of delta mode)",
            "handed over: " + ", ".join(f"{n} {list(s)}" for n, s in self.handed_over),
            "on the host: " + (", ".join(self.host_operators) or "nothing")
            + " -> " + ", ".join(f"{n} {list(s)}" for n, s in self.outputs)]
        return Text("\n".join(lines))


def summarise(network: Network) -> Summary:
    """Count a network, in real numbers or quantised."""
    graph = network.graph
    snapshots = _kept_snapshots(graph)
    tensors = tuple(
        TensorRow(t.name, t.shape, tuple(op.source for op in node.operands) if node else (),
                  _step_words(node), t.code and t.code.scale, t.code and (t.code.lo, t.code.hi),
                  _bytes(t.shape, CODE_BITS) if t.name in snapshots else 0)
        for t, node in graph.steps())
    projections = tuple(
        ProjectionRow(p.name, p.shape, p.mode, p.scale is not None,
                      _bytes(p.shape, graph.accumulator_bits) if p.mode == "delta" else 0)
        for p in graph.projections.values())
    image = network.input
    return Summary(network.name, image.name, image.shape, image.dtype, graph.quantised,
                   graph.accumulator_bits, tensors, projections,
                   tuple(_edge_row(graph, e) for e in graph.edges), network.outputs,
                   tuple((o.name, o.shape) for o in graph.outputs), tuple(host_operators(network)))


def host_operators(network: Network) -> Iterable[str]:
    """The operators of the tail in order, equal neighbours once with their count."""
    if network.tail is None:
        return
    last, count = "", 0
    for op in [*(n.op_type for n in onnx.load_model_from_string(network.tail).graph.node), ""]:
        if op != last and count:
            yield last if count == 1 else f"{count} x {last}"
        last, count = op, count + 1 if op == last else 1


def _kept_snapshots(graph: Graph) -> set[str]:
    """Tensors whose last values are needed: for deltas, as a node's operand, or by the host."""
    delta = {e.source for e in graph.edges if graph.projections[e.target].mode == "delta"}
    operands = {op.source for n in graph.nodes for op in n.operands if op.source in graph.tensors}
    return delta | operands | {r.source for o in graph.outputs for r in o.reads if r.source in graph.tensors}


def _edge_row(graph: Graph, e: Edge) -> EdgeRow:
    codes = e.weight if e.weight_code is None else e.weight_code
    y, x = edge_axes(e, graph.shape_of(e.source), graph.shape_of(e.target))
    hits_y, hits_x = (a.hits(k).sum(axis=1).astype(np.int64) for a, k in zip((y, x), e.kernel, strict=True))
    landings, live = np.outer(hits_y, hits_x), np.count_nonzero(codes, axis=(0, 1))
    kind = "depthwise" if e.vector else "dense" if e.dense else "grouped"
    g = e.geometry
    return EdgeRow(e.source, e.target, kind, e.kernel, g.stride, g.dilation, g.upsample, g.window,
                   codes.size, codes.size - int(live.sum()), int((landings * live).sum()),
                   int(landings.sum()) * codes.shape[0] * codes.shape[1])


def _step_words(node: Node | None) -> str:
    """A node in words, such as "sum, relu, max 3x3 /2"."""
    if node is None:
        return "input"
    words = ["sum"] if len(node.operands) == 2 else []
    if node.sign:
        words.append("sign")
    elif (node.slope == 0).all():
        words.append("relu")
    elif (node.slope != 1).any():
        slopes = np.unique(node.slope)
        words.append(f"leaky relu {slopes[0]:.3g}" if len(slopes) == 1 else "prelu")
    if node.clip != (None, None):
        words.append("clip {}..{}".format(*("" if b is None else f"{b:g}" for b in node.clip)))
    if node.pool is not None:
        words.append(f"max {_by(node.pool.kernel)} /{_by(node.pool.stride)}")
    return ", ".join(words) or "as it is"


def _edge_words(e: EdgeRow) -> str:
    """An edge in words, such as "3x3 depthwise /2x2"."""
    words = [_by(e.kernel), e.kind]
    steps = (("/", e.stride), ("dilated ", e.dilation), ("up ", e.upsample))
    words += [f"{sign}{_by(pair)}" for sign, pair in steps if pair != (1, 1)]
    if e.window is not None:
        words.append("rows {}:{} columns {}:{}".format(*e.window))
    return " ".join(words)


def _bytes(shape: Shape, bits: int) -> int:
    return -(-shape[0] * shape[1] * shape[2] * bits // 8)


def _by(numbers: Iterable[int]) -> str:
    return "x".join(map(str, numbers))


def _short(name: str, width: int = 32) -> Text:
    """A name, its middle left out where it is long (some exporters join many layers' names)."""
    half = width // 2 - 1
    return Text(name if len(name) <= width else f"{name[:half]}..{name[-half:]}")


def _table(title: str, *words: str, numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table
