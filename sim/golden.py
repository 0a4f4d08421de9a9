"""The golden model: the quantised network in integers, exactly as ``sim.graph`` defines it.

``GoldenModel.frame`` is the recurrent residual path (paper, Algorithm 1): it keeps every snapshot I and
projection P and feeds the edges with deltas. ``GoldenModel.dense`` computes one frame from scratch.
With thresholds 0 or 1 both give the same integers on every frame, in every tensor and projection.

Linear edges run on BLAS in floating point where a bound proves that every partial sum is an integer the
format holds exactly; accumulators are int64, wrapped to ``graph.accumulator_bits`` after every edge.
Memory traffic limits the speed, not products: a BLAS with one thread (``OPENBLAS_NUM_THREADS=1``, set before
NumPy is imported) is nearly as fast on an idle machine and ten times as fast on a busy one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim.arithmetic import MAX_SHIFT, Mode, node_peak, node_result, threshold, wrap
from sim.float_model import read_outputs
from sim.graph import CODE_BITS, Edge, Graph, GraphError, Node, Tensor
from sim.linear import Scatter, as_slice

DELTA_LIMIT = 1 << (CODE_BITS - 1)
"""Codes and deltas lie in ``-DELTA_LIMIT .. DELTA_LIMIT - 1``."""


@dataclass(frozen=True)
class TensorStats:
    """One tensor in one frame.

    elements, nonzero, deltas
        number of elements; of those, not zero after the threshold rule; changed and sent.
    dropped
        sum of squares of the changes that were lost: by ``truncate``, hold only puts them off.
    """

    elements: int
    nonzero: int
    deltas: int
    dropped: int


@dataclass(frozen=True)
class EdgeStats:
    """Multiply-accumulates (MACs) of one edge in one frame; only those that land inside the image count.

    Each comes twice: with every entry of the edge's weight table, and with its non-zero weights only.

    fed
        source elements sent into the edge's columns (deltas, or non-zero values for a direct projection).
    macs
        needed for what was fed.
    macs_activations
        had all non-zero activations been fed (a sparse engine working frame by frame).
    macs_dense
        had every element been fed.
    """

    source: str
    target: str
    fed: int
    macs: int
    macs_nonzero_weights: int
    macs_activations: int
    macs_activations_nonzero_weights: int
    macs_dense: int
    macs_dense_nonzero_weights: int


@dataclass(frozen=True)
class FrameResult:
    """What one frame gave: real outputs by name, and how much work it was.

    ``tensors`` by name in topological order, ``edges`` in the order of ``graph.edges``; ``cycles`` is a
    prediction, where one was made.
    """

    outputs: Mapping[str, np.ndarray]
    refresh: bool
    tensors: Mapping[str, TensorStats]
    edges: tuple[EdgeStats, ...]
    cycles: int | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """Sum of squares of the changes that were lost, by tensor."""
        return {name: t.dropped for name, t in self.tensors.items()}

    def total(self, field: str) -> int:
        """Sum of a field of TensorStats over all tensors, or of EdgeStats over all edges."""
        parts = self.tensors.values() if field in TensorStats.__dataclass_fields__ else self.edges
        return sum(getattr(p, field) for p in parts)


@dataclass(frozen=True)
class State:
    """Values of a whole network: ``snapshots`` int16 by tensor, ``projections`` int64 by projection."""

    snapshots: dict[str, np.ndarray]
    projections: dict[str, np.ndarray]

    @classmethod
    def zero(cls, graph: Graph) -> State:
        """The state of a device after reset."""
        return cls({n: np.zeros(t.shape, np.int16) for n, t in graph.tensors.items()},
                   {n: np.zeros(p.shape, np.int64) for n, p in graph.projections.items()})


class GoldenModel:
    """A quantised graph and its state from frame to frame.

    Parameters
    ----------
    graph
        a quantised graph.
    threshold, mode
        of every tensor, or by tensor name (others: 0 and ``hold``). They are kept in ``thresholds`` and
        ``modes`` by tensor name and may be changed there between frames.

    Raises GraphError when the graph is not quantised or a name is not a tensor's.
    """

    def __init__(self, graph: Graph, threshold: int | Mapping[str, int] = 0,
                 mode: Mode | Mapping[str, Mode] = "hold") -> None:
        if not graph.quantised:
            raise GraphError(f"graph {graph.name}: it is not quantised yet; the golden model needs integers")
        for node in graph.nodes:
            _check_node(graph, node)
        self.graph = graph
        self.thresholds = _by_tensor(graph, threshold, 0, "threshold")
        self.modes = _by_tensor(graph, mode, "hold", "mode")
        self.state = State.zero(graph)
        self._fresh = True
        self._edges = {id(e): _IntegerEdge(graph, e) for e in graph.edges}
        self._node_dtype = {n.target: _node_dtype(graph, n) for n in graph.nodes}

    @property
    def snapshots(self) -> dict[str, np.ndarray]:
        """The codes of every tensor after the last frame, int16[C, H, W] by name (live, do not write)."""
        return self.state.snapshots

    @property
    def projections(self) -> dict[str, np.ndarray]:
        """The accumulators after the last frame, int64[C, H, W] by name (live, do not write)."""
        return self.state.projections

    def reset(self) -> None:
        """Forget everything: the next frame is a refresh."""
        self._fresh = True

    def frame(self, codes: np.ndarray, refresh: bool = False) -> FrameResult:
        """Process one frame from the state that the last one left; codes are those of the input tensor.

        A refresh (always done on the first frame) starts from the zero state at threshold 1.
        """
        codes, refresh = self._checked(codes), refresh or self._fresh
        if refresh:
            self.state = State.zero(self.graph)
        change = codes - self.snapshots[self.graph.input]
        if change.min() < -DELTA_LIMIT or change.max() >= DELTA_LIMIT:
            raise ValueError(f"frame: codes change by {change.min()}..{change.max()}; each channel of input "
                             f"{self.graph.input!r} must keep to 256 values")
        for projection in self.graph.projections.values():
            if projection.mode == "direct":
                self.projections[projection.name][:] = 0
        self._fresh = False
        tensors, edges = {}, {}
        for tensor, node in self.graph.steps():
            x = codes if node is None else self._node(node, self.state)
            ref, limit = self.snapshots[tensor.name], 1 if refresh else self.thresholds[tensor.name]
            deltas, value = threshold(x, ref, limit, self.modes[tensor.name])
            self.snapshots[tensor.name] = value
            tensors[tensor.name] = _tensor_stats(ref, deltas, value)
            self._scatter(tensor, deltas, value, edges)
        return FrameResult(self.outputs(self.state), refresh, tensors,
                           tuple(edges[id(e)] for e in self.graph.edges))

    def dense(self, codes: np.ndarray) -> State:
        """One frame from scratch, without deltas or thresholds; touches nothing that ``frame`` keeps."""
        state = State.zero(self.graph)
        x = self._checked(codes)
        for tensor, node in self.graph.steps():
            state.snapshots[tensor.name] = x if node is None else self._node(node, state)
            for edge in self.graph.edges_from(tensor.name):
                self._edges[id(edge)].add(state.snapshots[tensor.name], state.projections[edge.target])
        return state

    def outputs(self, state: State) -> dict[str, np.ndarray]:
        """``graph.outputs`` as real values (float64) by name."""
        return decoded_outputs(self.graph, state.snapshots | state.projections)

    def _node(self, node: Node, state: State) -> np.ndarray:
        dtype = self._node_dtype[node.target]
        sources = [(state.snapshots if op.source in state.snapshots else state.projections)[op.source]
                   for op in node.operands]
        return node_result(node, [a.astype(dtype) for a in sources], self.graph.shape_of(node.target))

    def _scatter(self, tensor: Tensor, deltas: np.ndarray, value: np.ndarray,
                 edges: dict[int, EdgeStats]) -> None:
        """Feed every edge that leaves a tensor and note its stats in ``edges``."""
        changed, active = (deltas != 0).astype(np.float32), (value != 0).astype(np.float32)
        for edge in self.graph.edges_from(tensor.name):
            direct = self.graph.projections[edge.target].mode == "direct"
            work = self._edges[id(edge)]
            work.add(value if direct else deltas, self.projections[edge.target])
            edges[id(edge)] = work.stats(active if direct else changed, active)

    def _checked(self, codes: np.ndarray) -> np.ndarray:
        tensor = self.graph.tensors[self.graph.input]
        codes = np.asarray(codes)
        if codes.shape != tensor.shape or codes.dtype.kind not in "iu":
            raise ValueError(f"frame: {codes.dtype}{list(codes.shape)}; input {tensor.name!r} takes integer "
                             f"codes {list(tensor.shape)}")
        if codes.min() < tensor.code.lo or codes.max() > tensor.code.hi:
            raise ValueError(f"frame: codes {codes.min()}..{codes.max()} leave the range {tensor.code.lo}.."
                             f"{tensor.code.hi} of input {tensor.name!r}")
        return codes.astype(np.int16)


def decoded_outputs(graph: Graph, kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``graph.outputs`` as real values (float64) by name, from the codes and accumulators that they read."""
    values = {}
    for source in {r.source for o in graph.outputs for r in o.reads}:
        if source in graph.tensors:
            values[source] = graph.tensors[source].code.decode(kept[source])
        else:
            values[source] = kept[source] * graph.projections[source].scale[:, None, None]
    return read_outputs(graph, values)


class _IntegerEdge:
    """An edge with integer weights: exact accumulation and MAC counts."""

    def __init__(self, graph: Graph, edge: Edge) -> None:
        source, target = graph.tensors[edge.source], graph.projections[edge.target]
        self.edge, self.bits = edge, graph.accumulator_bits
        # No value or delta exceeds `peak` and no projection element adds more than `weights` times that,
        # so that bounds every partial sum, in any order.
        peak = max(source.code.hi - source.code.lo, -source.code.lo, source.code.hi)
        weights = np.zeros(target.shape[0], np.int64)
        np.add.at(weights, edge.rows, np.abs(edge.weight_code.astype(np.int64)).sum(axis=(2, 3)))
        dtype = _exact_dtype(int(weights.max()) * peak, f"edge {edge.source} -> {edge.target}")
        self._scatter = Scatter(edge, source.shape, target.shape, edge.weight_code, dtype)
        self._channels = as_slice(edge.channels)
        self._hits = self._scatter.y.hits(edge.kernel[0]), self._scatter.x.hits(edge.kernel[1])
        self._all = edge.rows.shape[1]
        self._nonzero = np.count_nonzero(edge.weight_code, axis=1)
        self._dense = self._macs(np.ones(source.shape, np.float32))

    def add(self, values: np.ndarray, accumulators: np.ndarray) -> None:
        """``P += W * values`` in place, wrapping."""
        for where, part in self._scatter.parts(values):
            accumulators[where] = wrap(accumulators[where] + part.astype(np.int64), self.bits)

    def stats(self, fed: np.ndarray, active: np.ndarray) -> EdgeStats:
        """MAC counts from the masks (float32[C, H, W] of 0 and 1) of what was fed and of what is not zero."""
        count = int(np.count_nonzero(fed[self._channels]))
        macs = self._macs(fed)
        activations = macs if fed is active else self._macs(active)
        return EdgeStats(self.edge.source, self.edge.target, count, *macs, *activations, *self._dense)

    def _macs(self, mask: np.ndarray) -> tuple[int, int]:
        """In-image MACs of the elements in a mask: (with all weights, with non-zero weights)."""
        hits_y, hits_x = self._hits
        rows = mask[self._channels] @ hits_x.T                        # [K, H, kw], at most W each
        counts = np.matmul(hits_y, rows).astype(np.int64)             # [K, kh, kw], at most H * W < 2**24
        return int(counts.sum()) * self._all, int((counts * self._nonzero).sum())


def _exact_dtype(peak: int, where: str) -> np.dtype:
    """The fastest dtype in which sums of integers stay exact whose partial sums never exceed ``peak``."""
    for dtype, limit in ((np.float32, 1 << 24), (np.float64, 1 << 53), (np.int64, 1 << 63)):
        if peak < limit:
            return np.dtype(dtype)
    raise GraphError(f"{where}: integers up to {peak} leave 64 bits")


def _node_dtype(graph: Graph, node: Node) -> np.dtype:
    """float64 where it proves exact for a node, else int64."""
    projection = 1 << (graph.accumulator_bits - 1)
    peaks = [projection if op.source in graph.projections
             else max(-graph.tensors[op.source].code.lo, graph.tensors[op.source].code.hi)
             for op in node.operands]
    exact = _exact_dtype(node_peak(node, peaks), f"node {node.target}")
    return exact if exact == np.int64 else np.dtype(np.float64)


def _check_node(graph: Graph, node: Node) -> None:
    """The bounds of ``_IntegerEdge`` and the rounding rule rest on these."""
    code = graph.tensors[node.target].code
    low, high = (-1, 1) if node.sign else (node.lo, node.hi)
    if not code.lo <= low <= high <= code.hi:
        raise GraphError(f"node {node.target}: results {low}..{high} leave the codes {code.lo}..{code.hi}")
    shifts = [node.shift, *(op.branch_shift for op in node.operands if op.branch is not None)]
    if min(int(s.min()) for s in shifts) < 0 or max(int(s.max()) for s in shifts) > MAX_SHIFT:
        raise GraphError(f"node {node.target}: a shift is not in 0..{MAX_SHIFT}")


def _by_tensor(graph: Graph, value, default, what: str) -> dict:
    if not isinstance(value, Mapping):
        return dict.fromkeys(graph.tensors, value)
    if unknown := value.keys() - graph.tensors.keys():
        raise GraphError(f"graph {graph.name}: {what} for {sorted(unknown)[0]!r}, which is not a tensor")
    return dict.fromkeys(graph.tensors, default) | dict(value)


def _tensor_stats(ref: np.ndarray, deltas: np.ndarray, value: np.ndarray) -> TensorStats:
    dropped = (value - ref - deltas).astype(np.float64).ravel()
    return TensorStats(value.size, int(np.count_nonzero(value)), int(np.count_nonzero(deltas)),
                       int(dropped @ dropped))
