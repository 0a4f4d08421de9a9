"""The rules of the nonlinear step, one function each (``sim.graph``, *Integer semantics*).

Values are integers in arrays of int64, or of float64 where every one of them is known to stay below
``2**53``: then products, sums and powers of two are exact in both and the results are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from sim.graph import GraphError, Node, Operand, Pool, Shape
from sim.linear import Axis

Mode = Literal["hold", "truncate"]
"""What happens to the snapshot of an element whose change was too small to be sent."""

MAX_SHIFT = 61
"""Largest shift that ``rhe`` takes."""


def rhe(t: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """Divide integers by ``2**shift`` and round to the nearest integer, exact halves to the even one.

    ``t`` is int64, or float64 holding integers below 2**53 (so that ``t * 2.0**-shift`` is exact);
    0 <= shift <= MAX_SHIFT. The result has the dtype of ``t``.
    """
    if t.dtype == np.float64:
        return np.rint(t * np.exp2(-np.asarray(shift, np.float64)))
    floor = t >> shift
    twice_rest = (t - (floor << shift)) << 1
    one = np.int64(1) << np.asarray(shift, np.int64)
    return floor + ((twice_rest > one) | ((twice_rest == one) & (floor & 1 == 1)))


def wrap(p: np.ndarray, bits: int) -> np.ndarray:
    """int64 modulo ``2**bits`` in two's complement: the value in -2**(bits-1) .. 2**(bits-1) - 1."""
    unused = 64 - bits
    return (p << unused) >> unused


def operand_value(operand: Operand, a: np.ndarray) -> np.ndarray:
    """``v``: the source's value a[C, H, W] plus bias, requantised to the branch code if there is one."""
    v = a + _per_channel(operand.bias_code, a)
    if operand.branch is None:
        return v
    t = v * _per_channel(operand.branch_multiplier, a)
    return np.clip(rhe(t, _per_channel(operand.branch_shift, a)), operand.branch.lo, operand.branch.hi)


def activate(node: Node, values: Sequence[np.ndarray]) -> np.ndarray:
    """``x`` before the pool from the operands' values v: sum, slope, one rounding, clamp (or sign)."""
    t = sum(v * _per_channel(op.multiplier, v) for op, v in zip(node.operands, values, strict=True))
    if node.sign:
        return np.sign(t)
    if any((op.multiplier != op.negative_multiplier).any() for op in node.operands):
        negative = sum(v * _per_channel(op.negative_multiplier, v)
                       for op, v in zip(node.operands, values, strict=True))
        t = np.where(t >= 0, t, negative)
    return np.clip(rhe(t, _per_channel(node.shift, t)), node.lo, node.hi)


def max_pool(x: np.ndarray, pool: Pool, target: Shape) -> np.ndarray:
    """Maximum over each window of x[C, H, W], taps outside the image left out; returns ``target`` shape."""
    for axis in (2, 1):
        a = axis - 1
        line = Axis.solve(x.shape[axis], target[axis], pool.kernel[a], pool.stride[a], pool.dilation[a],
                          pad=pool.pad[a])
        covered = np.zeros(target[axis], bool)
        shape = (*x.shape[:axis], target[axis], *x.shape[axis + 1:])
        out = np.full(shape, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
        for tap in line.taps:
            to = (slice(None),) * axis + (line.target_slice(tap.phase, tap.start, tap.stop),)
            from_ = (slice(None),) * axis + (line.source_slice(tap, tap.start, tap.stop),)
            np.maximum(out[to], x[from_], out=out[to])
            covered[to[-1]] = True
        if not covered.all():
            raise GraphError(f"max-pool {pool}: a window of output {target} lies outside the image {x.shape}")
        x = out
    return x


def node_result(node: Node, sources: Sequence[np.ndarray], target: Shape) -> np.ndarray:
    """``x`` of a node, int16 of ``target`` shape, from its operands' source values (int64 or float64)."""
    values = [operand_value(op, a) for op, a in zip(node.operands, sources, strict=True)]
    x = activate(node, values).astype(np.int16)
    return x if node.pool is None else max_pool(x, node.pool, target)


def node_peak(node: Node, sources: Sequence[int]) -> int:
    """Upper bound of the magnitude of every integer inside a node, from those of its operands' sources."""
    peaks, positive, negative = [], 0, 0
    for op, peak in zip(node.operands, sources, strict=True):
        peak += _peak(op.bias_code)
        if op.branch is not None:
            peaks.append(peak * _peak(op.branch_multiplier))
            peak = max(-op.branch.lo, op.branch.hi)
        positive += peak * _peak(op.multiplier)
        negative += peak * _peak(op.negative_multiplier)
        peaks.append(peak)
    return max(*peaks, positive, negative)


def lossy(thresholds: Mapping[str, int], modes: Mapping[str, Mode]) -> frozenset[str]:
    """The tensors whose snapshots may change without a delta: what ``truncate`` does not send it loses."""
    return frozenset(name for name, limit in thresholds.items() if modes[name] == "truncate" and limit > 1)


def threshold(x: np.ndarray, ref: np.ndarray, t: int, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """The threshold rule: (deltas sent, new snapshot) from the result x and the snapshot ``ref``.

    ``d = x - ref`` is sent iff ``|d| >= max(t, 1)``. ``hold`` moves the snapshot where it was sent,
    ``truncate`` (the paper, section 3.4) moves it everywhere.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(get_args(Mode))}")
    d = x - ref
    sent = d if t <= 1 else np.where(np.abs(d) >= t, d, d.dtype.type(0))
    return sent, (ref + sent if mode == "hold" else x)


def _per_channel(table: np.ndarray, like: np.ndarray) -> np.ndarray:
    return table.astype(like.dtype)[:, None, None]


def _peak(table: np.ndarray) -> int:
    return int(np.abs(table.astype(np.int64)).max())
