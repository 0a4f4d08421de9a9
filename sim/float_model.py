"""The network in real numbers: from scratch every frame (the reference for the quantiser), and recurrent with the
paper's threshold epsilon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from sim.arithmetic import Mode, max_pool
from sim.graph import Graph, Node
from sim.linear import Scatter


class FloatModel:
    """Runs a graph in real numbers; codes, branch codes and projection modes play no part.

    Parameters
    ----------
    graph
        any graph; only its real fields are read.
    dtype
        of weights, sums and values: float32 (default) or float64.
    """

    def __init__(self, graph: Graph, dtype: DTypeLike = np.float32) -> None:
        self.graph, self.dtype = graph, np.dtype(dtype)
        self._scatters = {
            id(e): Scatter(e, graph.shape_of(e.source), graph.shape_of(e.target), e.weight, self.dtype)
            for e in graph.edges}

    def run(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        """Real input [C, H, W] -> the value of every tensor and every projection (without bias) by name."""
        graph = self.graph
        shape = graph.tensors[graph.input].shape
        if frame.shape != shape:
            raise ValueError(f"frame of shape {frame.shape}; input {graph.input!r} has shape {shape}")
        values = {name: np.zeros(p.shape, self.dtype) for name, p in graph.projections.items()}
        for tensor, node in graph.steps():
            value = frame.astype(self.dtype) if node is None else self._node(node, values)
            values[tensor.name] = value
            for edge in graph.edges_from(tensor.name):
                self._scatters[id(edge)].add(value, values[edge.target])
        return values

    def outputs(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        """Real input [C, H, W] -> ``graph.outputs`` by name."""
        return read_outputs(self.graph, self.run(frame))

    def _node(self, node: Node, values: Mapping[str, np.ndarray]) -> np.ndarray:
        total = sum(values[op.source] + self._channels(op.bias) for op in node.operands)
        if node.sign:
            total = np.sign(total)
        else:
            total = np.where(total < 0, total * self._channels(node.slope), total)
            if node.clip != (None, None):
                total = np.clip(total, *node.clip)
        return total if node.pool is None else max_pool(total, node.pool, self.graph.shape_of(node.target))

    def _channels(self, per_channel: np.ndarray) -> np.ndarray:
        return np.asarray(per_channel, self.dtype)[:, None, None]


@dataclass(frozen=True)
class FloatFrame:
    """What one frame of ``RecurrentFloatModel`` gave, by tensor in topological order.

    sent
        mask bool[C, H, W] of the elements whose change was sent.
    truncated
        L2 norm of the changes that were not sent (the paper's l2(u), eq. 7).
    """

    outputs: Mapping[str, np.ndarray]
    refresh: bool
    sent: Mapping[str, np.ndarray]
    truncated: Mapping[str, float]


class RecurrentFloatModel(FloatModel):
    """Runs a graph in real numbers from frame to frame, sending only what changed (paper, Algorithm 1).

    A change is sent iff ``|change| >= epsilon``; with 0 the outputs are those of ``FloatModel`` but for rounding, with
    infinity they stay those of the last refresh. ``mode`` as in ``sim.graph``; ``values`` holds every snapshot and
    projection.
    """

    def __init__(self, graph: Graph, epsilon: float, mode: Mode = "truncate", dtype: DTypeLike = np.float32) -> None:
        super().__init__(graph, dtype)
        self.epsilon, self.mode = epsilon, mode
        self.values: dict[str, np.ndarray] | None = None

    def frame(self, frame: np.ndarray, refresh: bool = False) -> FloatFrame:
        """Process one real input [C, H, W]; a refresh (always the first) computes it from scratch."""
        graph, refresh = self.graph, refresh or self.values is None
        if refresh:
            parts = (graph.tensors | graph.projections).items()
            self.values = {name: np.zeros(part.shape, self.dtype) for name, part in parts}
        values, sent, truncated = self.values, {}, {}
        for name in (p.name for p in graph.projections.values() if p.mode == "direct"):
            values[name][:] = 0
        for tensor, node in graph.steps():
            x = frame.astype(self.dtype) if node is None else self._node(node, values)
            change = x - values[tensor.name]
            sends = np.abs(change) >= (0.0 if refresh else self.epsilon)
            deltas = np.where(sends, change, 0)
            values[tensor.name] = x if self.mode == "truncate" else np.where(sends, x, values[tensor.name])
            sent[tensor.name] = sends & (change != 0)
            truncated[tensor.name] = float(np.linalg.norm(change[~sends]))
            for edge in graph.edges_from(tensor.name):
                direct = graph.projections[edge.target].mode == "direct"
                self._scatters[id(edge)].add(values[tensor.name] if direct else deltas, values[edge.target])
        return FloatFrame(read_outputs(graph, values), refresh, sent, truncated)


def read_outputs(graph: Graph, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``graph.outputs`` by name (float64) from the real values of the tensors and projections they read."""
    outputs = {}
    for output in graph.outputs:
        flat = [(values[r.source] + np.asarray(r.bias, np.float64)[:, None, None]).ravel()
                for r in output.reads]
        outputs[output.name] = np.concatenate(flat)[output.index]
    return outputs
