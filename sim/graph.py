"""The RRM graph: a network as the accelerator sees it, and the integer arithmetic it stands for.

Four kinds of things make a graph (the same four names are used by importer, quantiser, golden model,
compiler and RTL):

``Tensor``
    An activation map ``I[C, H, W]`` of codes, and its *snapshot* (the delta buffer). A tensor's value
    *is* its snapshot after the threshold rule, and every consumer sees that value.
``Projection``
    The accumulators ``P[C, H, W]`` of one linear layer before its activation (paper, eq. 3).
``Edge``
    A linear operator Tensor -> Projection, ``P += W * I``, as a *column scatter*: one column is one
    input channel, its entries are (tap, output channel, weight). Convolution, depthwise and grouped
    convolution, fully connected, transposed convolution, average pooling, up-sampling, channel shuffle,
    split and concat all are column scatters and differ only in tables.
``Node``
    The nonlinear step projection(s)/snapshot(s) -> Tensor: bias, requantisation, sum of at most two
    operands, activation, clamp, max-pool, and the comparison with the snapshot.

One graph serves twice. As imported it holds real numbers only (``Edge.weight``, ``Operand.bias``,
``Node.slope``...). The quantiser fills in the integer fields beside them (``Tensor.code``,
``Projection.scale``, ``Edge.weight_code``, ``Operand.bias_code``, ``Operand.multiplier``,
``Node.shift``...); then ``graph.quantised`` is true and the integer semantics below are defined. A network in
QuantizeLinear/DequantizeLinear form arrives with ``Tensor.code`` and ``Projection.scale`` already set.

Integer semantics
-----------------
*Codes.* ``real = scale * gain[channel] * code``; ``code = q - zero_point``, so padding and absence are code
0. Codes are 9-bit signed and those of one tensor lie in ``lo..hi``, at most 256 values (the input tensor may use
different 256-value ranges in different channels), so a delta is 9-bit signed as well.

*Linear edge.* Source element (channel ``channels[k]``, y, x) with delta (or value) d adds
``weight_code[k, r, ky, kx] * d`` to P[rows[k, r], oy, ox] for every tap with::

    oy * stride_y + ky * dilation_y == y * upsample_y + pad_top      0 <= oy < OH   (same for x)

Only source elements inside ``window`` take part. Accumulators wrap modulo ``2**accumulator_bits``
(27 by default) in two's complement; they start at 0.

*Node.* Per operand, with a the projection's or the snapshot's value and c the channel::

    v = a + bias_code[c]                                              (integer, unit of the source)
    if branch:  v = clamp(rhe(v * branch_multiplier[c], branch_shift[c]), branch.lo, branch.hi)
    t_pos = sum over operands of v * multiplier[c]
    t     = t_pos if t_pos >= 0 else sum over operands of v * negative_multiplier[c]
    x     = clamp(rhe(t, shift[c]), lo, hi)                           (``sign`` nodes: x = sign(t_pos))
    x     = max over the pool window of x                             (taps outside the image are left out)

``rhe(t, s)`` divides by 2**s and rounds to the nearest integer, exact halves to the even one. Multipliers
are 24-bit signed. ``negative_multiplier`` is ``slope * multiplier``, so a leaky activation costs no second
rounding. A node with two operands has slopes 0 or 1 only.

*Threshold rule*, per tensor with threshold T (0 and 1 are exact), x the node's result, ref the snapshot::

    d = x - ref;  send d iff |d| >= max(T, 1)
    hold:      ref += d where d was sent            truncate:  ref = x everywhere

*Projection mode.* ``delta``: P is kept and fed with the deltas. ``direct``: P is cleared every frame and
fed with the non-zero values themselves. A refresh sets every P and snapshot to 0 and runs one frame at T=1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

ACCUMULATOR_BITS = 27
"""Default width of an accumulator in bits (two's complement, wrapping)."""
MULTIPLIER_BITS = 24
"""Width of a requantisation multiplier in bits (signed)."""
CODE_BITS = 9
"""Width of an activation code and of a delta in bits (signed)."""

Shape = tuple[int, int, int]
"""(channels, height, width)."""


class GraphError(ValueError):
    """The graph breaks one of its own rules; the message names the part and the rule."""


@dataclass(frozen=True)
class Code:
    """The integer code of a tensor: ``real = scale * gain[c] * code`` with ``lo <= code <= hi``.

    zero_point
        only matters where a stored 8-bit value q enters or leaves: ``code = q - zero_point``.
    gain
        one factor per channel c, for tensors whose channels differ so much that one scale would not serve
        them all (requantisation and the consumers' weights absorb it); None is 1 for every channel.
    """

    scale: float
    lo: int
    hi: int
    zero_point: int = 0
    gain: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        limit = 1 << (CODE_BITS - 1)
        if not (self.scale > 0 and np.isfinite(self.scale)):
            raise GraphError(f"code: scale is {self.scale}; it must be positive and finite")
        if not -limit <= self.lo <= 0 <= self.hi < limit:
            raise GraphError(f"code: range {self.lo}..{self.hi} does not hold 0 or leaves {CODE_BITS} bits")

    def scales(self, channels: int) -> np.ndarray:
        """Real value of one code per channel: float64[channels]."""
        return self.scale * (np.ones(channels) if self.gain is None else np.array(self.gain))

    def encode(self, real: np.ndarray) -> np.ndarray:
        """Real values ([C, H, W], or any shape without ``gain``) to codes int16: nearest, halves to even, clamped."""
        return np.clip(np.rint(np.asarray(real, np.float64) / self._step), self.lo, self.hi).astype(np.int16)

    def decode(self, code: np.ndarray) -> np.ndarray:
        """Codes ([C, H, W], or any shape without ``gain``) to real values float64."""
        return np.asarray(code, np.float64) * self._step

    @property
    def _step(self) -> float | np.ndarray:
        return self.scale if self.gain is None else self.scales(len(self.gain))[:, None, None]


@dataclass(frozen=True, eq=False)
class Tensor:
    """An activation map and its snapshot. ``name`` is the ONNX value it holds."""

    name: str
    shape: Shape
    code: Code | None = None


@dataclass(frozen=True, eq=False)
class Projection:
    """The accumulators of one linear layer; ``scale[C]`` is the real value of one unit per channel."""

    name: str
    shape: Shape
    scale: np.ndarray | None = None
    mode: Literal["delta", "direct"] = "delta"


@dataclass(frozen=True)
class Geometry:
    """Where a column's taps land: ``oy * stride + ky * dilation == y * upsample + pad`` on each axis.

    All pairs are (y, x). ``pad`` is the top/left padding and may be negative (a crop). ``window`` is
    (y0, y1, x0, x1), half open: the part of the source that feeds this edge; None is all of it.
    """

    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    upsample: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Edge:
    """A linear operator Tensor -> Projection in column form.

    channels
        int[K], strictly ascending: the source channel of each column.
    rows
        int[K, R]: the output channels that column k feeds, ascending and without repeats within a column.
    weight
        float[K, R, kh, kw]: real weights (scaled so that real P = sum of weight * real I).
    weight_code
        int32[K, R, kh, kw] once quantised: ``weight ~ weight_code * projection.scale[row] / tensor scale``.
    codebook_bits
        None for plain int8 weights, 4 or 8 when the codes come from a codebook of 16 or 256 16-bit values.
    """

    source: str
    target: str
    channels: np.ndarray
    rows: np.ndarray
    weight: np.ndarray
    geometry: Geometry = field(default_factory=Geometry)
    weight_code: np.ndarray | None = None
    codebook_bits: Literal[None, 4, 8] = None

    @classmethod
    def conv(cls, source: str, target: str, weight: np.ndarray, geometry: Geometry | None = None,
             groups: int = 1, channels: np.ndarray | None = None) -> Edge:
        """Edge from an ONNX ``Conv`` weight [Co, Ci / groups, kh, kw].

        ``channels`` [Ci]: source channel of each weight input channel (any order, no repeats); None: 0..Ci-1.
        """
        co, ci_group, kh, kw = weight.shape
        if co % groups:
            raise GraphError(f"edge {source} -> {target}: {co} output channels in {groups} groups")
        ci, rows_group = ci_group * groups, co // groups
        columns = (weight.reshape(groups, rows_group, ci_group, kh, kw).transpose(0, 2, 1, 3, 4)
                   .reshape(ci, rows_group, kh, kw))
        rows = (np.arange(ci)[:, None] // ci_group) * rows_group + np.arange(rows_group)[None, :]
        channels = np.arange(ci) if channels is None else np.asarray(channels)
        order = np.argsort(channels, kind="stable")
        return cls(source, target, channels[order], rows[order], np.ascontiguousarray(columns[order]),
                   geometry or Geometry())

    @property
    def kernel(self) -> tuple[int, int]:
        """(kh, kw)."""
        return self.weight.shape[2], self.weight.shape[3]

    @cached_property
    def dense(self) -> bool:
        """Every column feeds the same rows (an ordinary convolution or a fully connected layer)."""
        return bool((self.rows == self.rows[0]).all())

    @cached_property
    def vector(self) -> bool:
        """Every column feeds exactly one row of its own (depthwise)."""
        return self.rows.shape[1] == 1 and len(np.unique(self.rows)) == len(self.rows)


@dataclass(frozen=True)
class Pool:
    """Max-pool window, (y, x) pairs; the output size is the target tensor's (so ceil mode needs no flag)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class Operand:
    """One input of a node: a projection or another tensor's snapshot.

    bias
        float[C], real, added to the source's real value.
    branch
        Code to which this operand is requantised on its own before the sum (QDQ networks), or None.
    bias_code, multiplier, negative_multiplier
        int64[C]: the integer form, see the module docstring. ``bias_code`` is in units of the source.
    branch_multiplier, branch_shift
        int64[C] when ``branch`` is set.
    """

    source: str
    bias: np.ndarray
    branch: Code | None = None
    bias_code: np.ndarray | None = None
    multiplier: np.ndarray | None = None
    negative_multiplier: np.ndarray | None = None
    branch_multiplier: np.ndarray | None = None
    branch_shift: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """The nonlinear step into ``target``; in reals ``pool(clip(act(sum of source + bias)))``.

    slope
        float[C]: factor of negative values: 1 identity, 0 ReLU, else LeakyReLU/PReLU.
    clip
        (low, high) in real units, None where there is no bound (ReLU6 is (0, 6)).
    sign
        the activation is Sign (-1, 0, 1); ``slope`` and ``clip`` are then not used.
    shift, lo, hi
        int64[C], int, int: the integer form; lo..hi is the clip within the target's code range.
    """

    target: str
    operands: tuple[Operand, ...]
    slope: np.ndarray
    clip: tuple[float | None, float | None] = (None, None)
    sign: bool = False
    pool: Pool | None = None
    shift: np.ndarray | None = None
    lo: int | None = None
    hi: int | None = None


@dataclass(frozen=True, eq=False)
class Read:
    """A tensor or projection read back as real values: ``scale * code + bias[C]``."""

    source: str
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Output:
    """A value handed to the host: element i is element ``index[i]`` of all ``reads``, flattened and joined.

    name, shape
        the ONNX value's; ``index`` is int64 of that shape (views such as Concat or Transpose live here).
    """

    name: str
    shape: tuple[int, ...]
    reads: tuple[Read, ...]
    index: np.ndarray


@dataclass(frozen=True, eq=False)
class Graph:
    """Tensors, projections, edges and nodes of one network; ``nodes`` is in topological order.

    input
        name of the tensor that the host writes each frame.
    outputs
        what the host reads each frame, in order.
    """

    name: str
    input: str
    tensors: Mapping[str, Tensor]
    projections: Mapping[str, Projection]
    edges: tuple[Edge, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    accumulator_bits: int = ACCUMULATOR_BITS

    @cached_property
    def quantised(self) -> bool:
        """Every integer field is filled in."""
        return (all(t.code is not None for t in self.tensors.values())
                and all(p.scale is not None for p in self.projections.values())
                and all(e.weight_code is not None for e in self.edges)
                and all(n.shift is not None for n in self.nodes))

    @cached_property
    def _edges_by(self) -> tuple[dict[str, tuple[Edge, ...]], dict[str, tuple[Edge, ...]]]:
        from_, into = {n: () for n in self.tensors}, {n: () for n in self.projections}
        for e in self.edges:
            from_[e.source] += (e,)
            into[e.target] += (e,)
        return from_, into

    def edges_from(self, tensor: str) -> tuple[Edge, ...]:
        """The edges that leave a tensor, in order."""
        return self._edges_by[0][tensor]

    def edges_into(self, projection: str) -> tuple[Edge, ...]:
        """The edges that feed a projection, in order."""
        return self._edges_by[1][projection]

    def steps(self) -> Iterator[tuple[Tensor, Node | None]]:
        """Tensors in topological order, each with the node that makes it (None for the input)."""
        yield self.tensors[self.input], None
        for node in self.nodes:
            yield self.tensors[node.target], node

    def shape_of(self, name: str) -> Shape:
        """Shape of a tensor or projection."""
        return (self.tensors.get(name) or self.projections[name]).shape

    def with_parts(self, **changes) -> Graph:
        """A copy with some fields replaced, validated."""
        graph = replace(self, **changes)
        graph.validate()
        return graph

    def validate(self) -> None:
        """Check names, shapes and order; raise GraphError naming the first part that is wrong."""
        if clash := self.tensors.keys() & self.projections.keys():
            raise GraphError(f"graph {self.name}: {sorted(clash)[0]!r} names a tensor and a projection")
        if self.input not in self.tensors:
            raise GraphError(f"graph {self.name}: input {self.input!r} is not a tensor")
        for e in self.edges:
            self._validate_edge(e)
        made, fed = {self.input}, set(self.projections)
        position = {t.name: i for i, (t, _) in enumerate(self.steps())}
        for p in self.projections.values():
            if not self.edges_into(p.name):
                raise GraphError(f"projection {p.name}: no edge feeds it")
        for node in self.nodes:
            if node.target not in self.tensors or node.target in made:
                raise GraphError(f"node {node.target}: target is no tensor or is made twice")
            if not 1 <= len(node.operands) <= 2:
                raise GraphError(f"node {node.target}: {len(node.operands)} operands; 1 or 2 are possible")
            channels = self.tensors[node.target].shape[0]
            for op in node.operands:
                if op.source in self.tensors:
                    ready = op.source in made
                else:
                    ready = op.source in fed and all(
                        position.get(e.source, len(position)) < position[node.target]
                        for e in self.edges_into(op.source))
                if not ready:
                    raise GraphError(f"node {node.target}: operand {op.source} is not there before it")
                shape = self.shape_of(op.source)
                if shape[0] != channels or (node.pool is None and shape != self.tensors[node.target].shape):
                    raise GraphError(f"node {node.target}: operand {op.source} has shape {shape}")
            made.add(node.target)
        if missing := self.tensors.keys() - made:
            raise GraphError(f"tensor {sorted(missing)[0]}: no node makes it")
        for out in self.outputs:
            total = sum(int(np.prod(self.shape_of(r.source))) for r in out.reads)
            if out.index.shape != tuple(out.shape) or out.index.min() < 0 or out.index.max() >= total:
                raise GraphError(f"output {out.name}: index does not fit its reads")

    def _validate_edge(self, e: Edge) -> None:
        where = f"edge {e.source} -> {e.target}"
        if e.source not in self.tensors or e.target not in self.projections:
            raise GraphError(f"{where}: an end is missing")
        columns, rows = e.rows.shape
        if e.channels.shape != (columns,) or e.weight.shape[:2] != (columns, rows):
            raise GraphError(f"{where}: channels {e.channels.shape}, rows {e.rows.shape}, weight {e.weight.shape}")
        if (np.diff(e.channels) <= 0).any() or e.channels[0] < 0 or e.channels[-1] >= self.shape_of(e.source)[0]:
            raise GraphError(f"{where}: channels are not ascending or not in the source")
        if (np.diff(e.rows, axis=1) <= 0).any() or e.rows.min() < 0 or e.rows.max() >= self.shape_of(e.target)[0]:
            raise GraphError(f"{where}: rows are not ascending or not in the projection")
