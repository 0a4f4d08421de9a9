"""Random quantised graphs and clips for tests, the same for the same seed.

``random_graph(seed, limits)`` makes a small graph with every integer field filled in (and real fields that
agree with them), so neither importer nor quantiser is needed. ``random_clip(graph, seed, count)`` makes
frames of codes that change a lot, a little, or not at all. What may occur is chosen with ``Limits``::

    graph = random_graph(7, Limits(channels=4, size=8, edges=("conv", "depthwise"), nodes=("relu", "pool")))
    for codes in random_clip(graph, 7, 4):
        ...

Without wrapping: whatever the seed, no accumulator can leave ``limits.accumulator_bits``. For wrapping,
narrow it afterwards: ``graph.with_parts(accumulator_bits=12)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sim.graph import (
    MULTIPLIER_BITS,
    Code,
    Edge,
    Geometry,
    Graph,
    Node,
    Operand,
    Output,
    Pool,
    Projection,
    Read,
    Shape,
    Tensor,
)

EDGES = ("conv", "pointwise", "grouped", "depthwise", "multiplied", "scattered", "fc", "transposed",
         "average", "upsample", "shuffle")
"""Edge kinds; ``multiplied`` is depthwise with two rows a column, ``scattered`` has any rows per column."""
NODES = ("relu", "leaky", "prelu", "clip", "sign", "pool", "add", "branch", "negative", "tensor")
"""Node features; a node without any is the identity. ``negative`` flips some multipliers (real fields do
not follow), ``tensor`` are nodes that read tensors only."""


@dataclass(frozen=True)
class Limits:
    """What a random graph may hold. All sizes are maxima, all ``p_*`` probabilities.

    channels, size
        of a map and its height and width (transposed edges and up-sampling stay within them too).
    layers
        number of nodes (exactly).
    kernel, stride, dilation
        of an edge; fc kernels are as large as their source.
    weight_density
        share of non-zero weights; None draws it anew for each edge.
    p_window, p_subset, p_extra_edge, p_direct, p_codebook
        of an edge with a window; of an edge from only some channels; of a further edge into a projection;
        of a direct projection; of an edge with codebook weights.
    pools
        max-pools to pick from, over the whole image, in place of random ones.
    mixed_modes
        False: all projections of a graph are delta, or all are direct.
    wide_input
        the input may use different 256-value ranges in different channels.
    """

    channels: int = 6
    size: int = 8
    layers: int = 4
    kernel: int = 3
    stride: int = 3
    dilation: int = 2
    edges: tuple[str, ...] = EDGES
    nodes: tuple[str, ...] = NODES
    weight_density: float | None = None
    p_window: float = 0.15
    p_subset: float = 0.2
    p_extra_edge: float = 0.3
    p_direct: float = 0.3
    p_codebook: float = 0.2
    pools: tuple[Pool, ...] = ()
    mixed_modes: bool = True
    wide_input: bool = True
    accumulator_bits: int = 27


OVERLAPPING = tuple(Pool(kernel, stride, pad, (1, 1)) for kernel, stride, pad in (
    ((3, 3), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((2, 3), (1, 2), (1, 0)), ((3, 2), (2, 1), (0, 1)),
    ((5, 4), (3, 3), (2, 0))))
"""Max-pools whose windows have rows and columns in common."""
MAX_EDGES = 3
"""Most edges into one projection."""


def random_graph(seed: int, limits: Limits | None = None) -> Graph:
    """A validated, quantised graph, the same for the same seed and limits."""
    return _Builder(np.random.default_rng(seed), limits or Limits()).build(f"random-{seed}")


def random_clip(graph: Graph, seed: int, count: int) -> Iterator[np.ndarray]:
    """Yield ``count`` frames of codes int16[C, H, W] of the graph's input: the first at random, then each
    changed by one of: nothing, one element, some, most, everything, extremes, all zero."""
    rng, lo, span = _clip(graph, (seed, 1))
    codes = lo + rng.integers(0, span, graph.tensors[graph.input].shape, endpoint=True)
    yield codes.astype(np.int16)
    for _ in range(count - 1):
        fresh = lo + rng.integers(0, span, codes.shape, endpoint=True)
        change = rng.choice(["none", "one", "some", "most", "all", "extreme", "zero"])
        if change == "one":
            where = rng.integers(codes.size)
            codes.flat[where] = fresh.flat[where]
        elif change in ("some", "most"):
            codes = np.where(rng.random(codes.shape) < (0.1 if change == "some" else 0.7), fresh, codes)
        elif change == "extreme":
            codes = lo + span * rng.integers(0, 2, codes.shape)
        elif change != "none":
            codes = fresh if change == "all" else np.zeros_like(codes)
        yield codes.astype(np.int16)


def quiet_clip(graph: Graph, seed: int, count: int, spots: int = 1) -> Iterator[np.ndarray]:
    """Yield ``count`` frames of codes like ``random_clip``, of which each changes ``spots`` small rectangles of the
    last: up to 3 x 3 pixels, in some of the channels, by a little or by a lot; some change nothing."""
    rng, lo, span = _clip(graph, (seed, 2))
    shape = graph.tensors[graph.input].shape
    codes = lo + rng.integers(0, span, shape, endpoint=True)
    yield codes.astype(np.int16)
    for _ in range(count - 1):
        for _ in range(spots):
            y, x = (slice(a, a + int(rng.integers(0 if rng.random() < 0.1 else 1, 4))) for a in (
                int(rng.integers(n)) for n in shape[1:]))
            some, change = rng.random(shape[0]) < 0.7, int(rng.choice([1, 3, span]))
            part = codes[some, y, x]
            codes[some, y, x] = np.clip(part + rng.integers(-change, change, part.shape, endpoint=True), lo[some],
                                        lo[some] + span)
        yield codes.astype(np.int16)


def _clip(graph: Graph, seed: tuple[int, int]) -> tuple[np.random.Generator, np.ndarray, int]:
    """(generator, int64[C, 1, 1], range): every channel's codes are the first plus 0..range, which include 0."""
    rng, code = np.random.default_rng(seed), graph.tensors[graph.input].code
    span = min(code.hi - code.lo, 255)
    lo = rng.integers(max(code.lo, -span), min(code.hi - span, 0), (graph.tensors[graph.input].shape[0], 1, 1),
                      endpoint=True)
    return rng, lo, span


class _Builder:
    def __init__(self, rng: np.random.Generator, limits: Limits) -> None:
        self.rng, self.limits = rng, limits
        self.tensors: dict[str, Tensor] = {}
        self.projections: dict[str, Projection] = {}
        self.spread: dict[str, float] = {}            # typical size of a projection's accumulators
        self.edges: list[Edge] = []
        self.nodes: list[Node] = []

    # Draws ------------------------------------------------------------------------------------------
    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def upto(self, high: int, low: int = 1) -> int:
        return int(self.rng.integers(low, max(low, high), endpoint=True))

    def pick(self, items):
        return items[int(self.rng.integers(len(items)))]

    def allowed(self, feature: str, p: float) -> bool:
        return feature in self.limits.nodes and self.chance(p)

    def scales(self, channels: int | None = None) -> np.ndarray | float:
        return np.exp2(self.rng.uniform(-0.5, 0.5, channels))

    # Parts ------------------------------------------------------------------------------------------
    def build(self, name: str) -> Graph:
        lim = self.limits
        low = -(-lim.size // 2)
        shape = (self.upto(lim.channels), self.upto(lim.size, low), self.upto(lim.size, low))
        code = self.code()
        if lim.wide_input and self.chance(0.3):
            code = replace(code, lo=-self.upto(200, 130), hi=self.upto(200, 130))
        self.tensors["t0"] = Tensor("t0", shape, code)
        for i in range(1, lim.layers + 1):
            self.node(f"t{i}")
        return Graph(name, "t0", self.tensors, self.projections, tuple(self.edges), tuple(self.nodes),
                     self.outputs(), lim.accumulator_bits).with_parts()

    def code(self) -> Code:
        lo, count = self.pick([-128, 0, -self.upto(255, 0)]), self.pick([256, 256, 256, self.upto(256, 2)])
        return Code(float(self.scales()) / 100, max(lo, 1 - count), max(lo, 1 - count) + count - 1,
                    self.upto(127, -128))

    def node(self, name: str) -> None:
        pair = self.allowed("add", 0.35)
        sources = [self.source(None)]
        shape = self.shape_of(sources[0])
        if pair:
            sources.append(self.source(shape))
        sign = self.allowed("sign", 0.15)
        code = Code(1.0, -1, 1) if sign else self.code()
        slope = self.slope(shape[0], pair)
        shift, operands = None, []
        for source in sources:
            operand, shift = self.operand(source, shape[0], code, slope, shift)
            operands.append(operand)
        lo, hi, clip = code.lo, code.hi, (None, None)
        if self.allowed("clip", 0.3):
            lo, hi = self.upto(0, code.lo), self.upto(code.hi, 0)
            clip = (lo * code.scale, hi * code.scale)
        pool, target = self.pool(shape) if self.allowed("pool", 0.3) else (None, shape)
        self.tensors[name] = Tensor(name, target, code)
        self.nodes.append(Node(name, tuple(operands), slope, clip, sign, pool, shift, lo, hi))

    def source(self, shape: Shape | None) -> str:
        """A projection or tensor for a node to read, of any or of this shape: there already, or new."""
        ready = [n for n in (*self.tensors, *self.projections) if shape in (None, self.shape_of(n))]
        if "tensor" not in self.limits.nodes:
            ready = [n for n in ready if n in self.projections or shape is not None]
        if ready and self.chance(0.15 if shape is None else 0.6):
            return self.pick(ready)
        return self.projection(shape)

    def operand(self, source: str, channels: int, code: Code, slope: np.ndarray,
                shift: np.ndarray | None) -> tuple[Operand, np.ndarray]:
        """An operand and the node's shift (drawn with the first operand, shared by the second)."""
        if source in self.tensors:
            scale, size = np.full(channels, self.tensors[source].code.scale), 100.0
        else:
            scale, size = self.projections[source].scale, self.spread[source]
        bias_code = np.rint(self.rng.normal(0, size / 2, channels)).astype(np.int64)
        branch, branch_multiplier, branch_shift, gain = None, None, None, scale / code.scale
        if self.allowed("branch", 0.3):
            branch = self.code()
            branch_multiplier, branch_shift = self.fixed_point(scale / branch.scale)
            gain = np.full(channels, branch.scale / code.scale)
        if shift is None:
            multiplier, shift = self.fixed_point(gain)
        else:
            multiplier = _multiplier(gain, shift)
        if self.allowed("negative", 0.2):
            multiplier = multiplier * self.rng.choice([-1, 1], channels)
        negative = _limited(np.rint(slope * multiplier))
        return Operand(source, bias_code * scale, branch, bias_code, multiplier, negative, branch_multiplier,
                       branch_shift), shift

    def fixed_point(self, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(multiplier, shift) with ``gain ~ multiplier / 2**shift``; few bits make exact halves frequent."""
        bits = self.rng.integers(1, MULTIPLIER_BITS - 1, gain.shape)
        shift = np.maximum(bits - np.ceil(np.log2(gain)), 0).astype(np.int64)
        return _multiplier(gain, shift), shift

    def slope(self, channels: int, pair: bool) -> np.ndarray:
        kinds = [k for k in ("relu", "leaky", "prelu") if k in self.limits.nodes]
        kind = self.pick(["identity", *(k for k in kinds if k == "relu" or not pair)])
        if kind == "prelu":
            return self.rng.uniform(-0.5, 1.0, channels)
        return np.full(channels, {"identity": 1.0, "relu": 0.0, "leaky": 0.1}[kind])

    def pool(self, shape: Shape) -> tuple[Pool | None, Shape]:
        if self.limits.pools:
            pool = self.pick(self.limits.pools)
            out = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], pool.pad, pool.kernel, pool.stride,
                                                                  strict=True)]
            return (pool, (shape[0], *out)) if min(out) > 0 else (None, shape)
        kernel, stride, dilation = ((self.upto(h), self.upto(h)) for h in (3, 2, 2))
        pad = (self.upto(kernel[0] - 1, 0), self.upto(kernel[1] - 1, 0))
        target = [shape[0]]
        for a in (0, 1):
            size, reach = shape[1 + a], (kernel[a] - 1) * dilation[a]
            out = self.upto(-(-(size + pad[a]) // stride[a]))
            first = np.arange(out)[:, None] * stride[a] - pad[a] + np.arange(0, reach + 1, dilation[a])
            if not ((first >= 0) & (first < size)).any(axis=1).all():
                return None, shape                    # a window without any element
            target.append(out)
        return Pool(kernel, stride, pad, dilation), tuple(target)

    # Linear layers ----------------------------------------------------------------------------------
    def projection(self, shape: Shape | None) -> str:
        name = f"p{len(self.projections)}"
        weight, source, target = self.edge_table(name, shape)
        tables = [(weight, source)]
        while len(tables) < MAX_EDGES and self.chance(self.limits.p_extra_edge):
            tables.append(self.edge_table(name, target)[:2])
        fan_in = sum(e.weight_code[:, 0].size * float(np.square(e.weight_code, dtype=float).mean())
                     for e, _ in tables)
        self.spread[name] = max(1.0, 50 * fan_in ** 0.5)
        scale = self.scales(target[0]) / self.spread[name]
        mode = "direct" if self.chance(self.limits.p_direct) else "delta"
        if self.projections and not self.limits.mixed_modes:
            mode = self.projections["p0"].mode
        self.projections[name] = Projection(name, target, scale, mode)
        for edge, tensor in tables:
            real = edge.weight_code * (scale[edge.rows] / self.tensors[tensor].code.scale)[:, :, None, None]
            self.edges.append(replace(edge, weight=real))
        return name

    def edge_table(self, target_name: str, target: Shape | None) -> tuple[Edge, str, Shape]:
        """An edge (real weights still missing), its source and the shape of its target."""
        source = self.pick(list(self.tensors))
        if self.chance(0.5):
            source = list(self.tensors)[-1]
        shape = self.tensors[source].shape
        channels = np.arange(shape[0])
        if shape[0] > 1 and self.chance(self.limits.p_subset):
            channels = np.sort(self.rng.permutation(shape[0])[:self.upto(shape[0] - 1)])
        kind = self.pick(self.limits.edges)
        geometry, kernel, size = self.geometry(kind, shape)
        if target is not None:
            size = target[1:]                         # the equation leaves out what does not fit
        rows, total = self.rows(kind, len(channels), None if target is None else target[0])
        if self.chance(self.limits.p_window):
            y0, x0 = self.upto(shape[1] - 1, 0), self.upto(shape[2] - 1, 0)
            y1, x1 = self.upto(shape[1], y0 + 1), self.upto(shape[2], x0 + 1)
            geometry = replace(geometry, window=(y0, y1, x0, x1))
        code, bits = self.weights(kind, (*rows.shape, *kernel))
        edge = Edge(source, target_name, channels, rows, code.astype(float), geometry, code, bits)
        return edge, source, (total, *size)

    def geometry(self, kind: str, shape: Shape) -> tuple[Geometry, tuple[int, int], tuple[int, int]]:
        """(geometry, kernel, natural target size) of an edge kind."""
        lim, axes = self.limits, []
        for size in shape[1:]:
            stride = dilation = upsample = 1
            k, before, after = 1, 0, 0
            if kind == "fc":
                k = size
            elif kind in ("transposed", "upsample"):
                upsample = self.upto(max(1, min(3, lim.size // size)))
                k = upsample if kind == "upsample" else self.upto(lim.kernel)
                before = upsample - 1 if kind == "upsample" else self.upto(k - 1, 0)
            elif kind == "average":
                k = stride = self.upto(min(size, 3))
            elif kind not in ("pointwise", "shuffle"):
                k, dilation = self.upto(lim.kernel), self.upto(lim.dilation)
                stride = self.upto(lim.stride) if self.chance(0.4) else 1
                before, after = self.upto(k, -1), self.upto(k, -1)
                dilation = dilation if (k - 1) * dilation < size + before + after else 1
            out = (((size - 1) * upsample + before + after - (k - 1) * dilation) // stride) + 1
            if kind in ("transposed", "upsample"):
                out = size * upsample
            axes.append((stride, dilation, upsample, before, k, min(max(out, 1), lim.size)))
        stride, dilation, upsample, pad, kernel, size = zip(*axes, strict=True)
        return Geometry(stride, dilation, upsample, pad), kernel, size

    def rows(self, kind: str, columns: int, total: int | None) -> tuple[np.ndarray, int]:
        """(rows int[K, R], channels of the target) of an edge kind; ``total`` fixes the latter."""
        limit = self.limits.channels
        if kind in ("depthwise", "average", "upsample", "shuffle", "multiplied"):
            each = 2 if kind == "multiplied" else 1
            fits = columns * each <= (limit if total is None else total)
            if fits:
                total = columns * each if total is None else total
                order = np.arange(columns * each)
                if kind == "shuffle":
                    order = self.rng.permutation(total)[:columns]
                return order.reshape(columns, each), total
        total = total or self.upto(limit)
        if kind == "grouped":
            groups = self.pick([g for g in range(1, columns + 1) if columns % g == 0 and total % g == 0])
            member = self.rng.permutation(np.arange(columns) * groups // columns)
            each = total // groups
            return member[:, None] * each + np.arange(each), total
        if kind == "scattered":
            each = self.upto(total)
            return np.stack([np.sort(self.rng.permutation(total)[:each]) for _ in range(columns)]), total
        return np.tile(np.arange(total), (columns, 1)), total

    def weights(self, kind: str, shape: tuple[int, ...]) -> tuple[np.ndarray, int | None]:
        """(weight codes, codebook bits) that cannot overflow, even with MAX_EDGES such edges."""
        peak = 1 << (self.limits.accumulator_bits - 1)
        limit = (peak - 1) // (512 * MAX_EDGES * shape[0] * shape[2] * shape[3])
        if kind in ("average", "upsample", "shuffle"):
            return np.full(shape, min(limit, self.upto(127)), np.int32), None
        bits = self.pick([4, 8]) if self.chance(self.limits.p_codebook) else None
        if bits:
            limit = min(limit, self.pick([300, 32767]))
            codes = self.pick(self.rng.integers(-limit, limit, (1, 1 << bits), endpoint=True))
            codes = self.rng.choice(codes, shape)
        else:
            limit = min(limit, 127)
            codes = self.rng.integers(-limit, limit, shape, endpoint=True)
        density = self.limits.weight_density
        if density is None:
            density = self.pick([0.1, 0.5, 1.0])
        if density < 1.0:
            codes = np.where(self.rng.random(shape) < density, codes, 0)
        return codes.astype(np.int32), bits

    # Outputs ----------------------------------------------------------------------------------------
    def outputs(self) -> tuple[Output, ...]:
        """The last tensor by itself, and a shuffled selection of elements of two others."""
        last = list(self.tensors.values())[-1]
        plain = Output("last", last.shape, (Read(last.name, np.zeros(last.shape[0])),),
                       np.arange(np.prod(last.shape)).reshape(last.shape))
        names = [self.pick(list(self.tensors)), self.pick([*self.projections] or [*self.tensors])]
        reads = tuple(Read(n, self.rng.normal(size=self.shape_of(n)[0])) for n in names)
        count = sum(int(np.prod(self.shape_of(n))) for n in names)
        index = self.rng.permutation(count)[:self.upto(count)]
        return plain, Output("mixed", (1, len(index)), reads, index[None])

    def shape_of(self, name: str) -> Shape:
        return (self.tensors.get(name) or self.projections[name]).shape


def _multiplier(gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return _limited(np.rint(gain * np.exp2(shift)))


def _limited(multiplier: np.ndarray) -> np.ndarray:
    limit = (1 << (MULTIPLIER_BITS - 1)) - 1
    return np.clip(multiplier, -limit, limit).astype(np.int64)
