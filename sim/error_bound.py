"""How wrong ``hold`` can ever make an output: thresholds propagated through |W|.

In mode ``hold`` no snapshot is T or more codes from the result of its node, and every projection is exactly
``W * snapshot``. So with B the largest distance from the exact run's codes, in codes and element by element::

    B(tensor)     <= B(result of its node) + max(T, 1) - 1
    B(projection) <= sum over its edges of |W| * B(source)
    B(result)     <= floor(B(sum of operands) * |multiplier| / 2**shift) + 1     where the sum can differ at all

(the 1 is the rounding, which may tip over), never more than the node's range, and the maximum over a pool window.
It holds for every clip, for ever, without refreshes. It assumes that all errors meet with the worst sign, so deep
networks are far better than it says.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.arithmetic import max_pool
from sim.graph import Graph, GraphError, Node
from sim.linear import scatter


def error_bound(graph: Graph, threshold: int | Mapping[str, int]) -> dict[str, np.ndarray]:
    """``graph.outputs`` by name: the largest |error| of each element in real units (float64 of the output's shape).

    ``threshold`` in codes is for all tensors or by tensor name (others: 0). Raises GraphError when the graph is not
    quantised.
    """
    bounds = code_bounds(graph, threshold)
    for name, bound in bounds.items():
        scale = (graph.tensors[name].code.scales(len(bound)) if name in graph.tensors
                 else graph.projections[name].scale)
        bounds[name] = bound * scale[:, None, None]
    return {out.name: np.concatenate([bounds[r.source].ravel() for r in out.reads])[out.index]
            for out in graph.outputs}


def code_bounds(graph: Graph, threshold: int | Mapping[str, int]) -> dict[str, np.ndarray]:
    """The same for every tensor and projection, in its own codes or units: float64[C, H, W] by name."""
    if not graph.quantised:
        raise GraphError(f"graph {graph.name}: it is not quantised yet; a bound needs its integers")
    bounds = {name: np.zeros(p.shape) for name, p in graph.projections.items()}
    for tensor, node in graph.steps():
        limit = threshold.get(tensor.name, 0) if isinstance(threshold, Mapping) else threshold
        span = tensor.code.hi - tensor.code.lo if node is None else 2 if node.sign else node.hi - node.lo
        made = np.zeros(tensor.shape) if node is None else _result(graph, node, bounds)
        bounds[tensor.name] = np.minimum(made + max(limit, 1) - 1, span)
        for edge in graph.edges_from(tensor.name):
            weight, shape = np.abs(edge.weight_code.astype(np.float64)), graph.shape_of(edge.target)
            bounds[edge.target] += scatter(edge, bounds[tensor.name], weight, shape, np.float64)
    return bounds


def _result(graph: Graph, node: Node, bounds: Mapping[str, np.ndarray]) -> np.ndarray:
    """Bound of a node's result before the threshold rule."""
    total = 0.0
    for op in node.operands:
        value = bounds[op.source]
        if op.branch is not None:
            value = _rounded(value, op.branch_multiplier, op.branch_shift, op.branch.hi - op.branch.lo)
        total = total + value * _channels(np.maximum(np.abs(op.multiplier), np.abs(op.negative_multiplier)))
    if node.sign:
        result = np.where(total > 0, 2.0, 0.0)
    else:
        result = _rounded(total, np.ones_like(node.shift), node.shift, node.hi - node.lo)
    return result if node.pool is None else max_pool(result, node.pool, graph.shape_of(node.target))


def _rounded(value: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, span: int) -> np.ndarray:
    """Bound after a multiplication, a rounding shift and a clamp to a range of ``span``, from the one before."""
    moved = value * _channels(np.abs(multiplier)) / np.exp2(_channels(shift))
    return np.where(moved > 0, np.minimum(np.floor(moved) + 1, span), 0.0)


def _channels(per_channel: np.ndarray) -> np.ndarray:
    return np.asarray(per_channel, np.float64)[:, None, None]
