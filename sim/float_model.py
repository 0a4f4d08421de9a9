"""The network in real numbers, from scratch every frame: the reference for the quantiser."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from sim.arithmetic import max_pool
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


def read_outputs(graph: Graph, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``graph.outputs`` by name (float64) from the real values of the tensors and projections they read."""
    outputs = {}
    for output in graph.outputs:
        flat = [(values[r.source] + np.asarray(r.bias, np.float64)[:, None, None]).ravel()
                for r in output.reads]
        outputs[output.name] = np.concatenate(flat)[output.index]
    return outputs
