"""The linear half of a layer: one Edge applied to a map of values, ``P += W * I`` (paper, eq. 3 and 4).

Everything follows from the edge's geometry equation, solved once per axis::

    o * stride + k * dilation == i * upsample + pad      0 <= o < target size,  i inside the window

With ``g = gcd(stride, upsample)`` a tap k meets source ``i = offset + j * (stride / g)`` and target
``o = phase + j * (upsample / g)`` for a range of j. All taps that share a target phase make one matrix
product; an edge without up-sampling has one phase and is then the familiar im2col convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import DTypeLike

from sim.graph import Edge, Shape

BLOCK_ELEMENTS = 1 << 18
"""Elements of the unfolded source that are in flight at once (it should stay in a CPU's cache)."""


@dataclass(frozen=True)
class Tap:
    """Kernel position ``index`` on one axis: it meets source ``offset + j * source_step`` and target
    ``phase + j * target_step`` for every j in ``start <= j < stop``."""

    index: int
    phase: int
    offset: int
    start: int
    stop: int


@dataclass(frozen=True)
class Axis:
    """The geometry equation of one axis, solved: the taps that land in the image at least once."""

    source: int
    target: int
    source_step: int
    target_step: int
    taps: tuple[Tap, ...]

    @classmethod
    def solve(cls, source: int, target: int, kernel: int, stride: int, dilation: int = 1, upsample: int = 1,
              pad: int = 0, window: tuple[int, int] | None = None) -> Axis:
        """Solve for these sizes; only ``window`` = [start, stop) of the source takes part."""
        g = gcd(stride, upsample)
        source_step, target_step = stride // g, upsample // g
        inside = np.arange(*(window or (0, source)))
        taps = []
        for k in range(kernel):
            o, rest = np.divmod(inside * upsample + pad - k * dilation, stride)
            lands = (rest == 0) & (o >= 0) & (o < target)
            if lands.any():
                first, count = int(lands.argmax()), int(lands.sum())
                start, phase = divmod(int(o[first]), target_step)
                taps.append(Tap(k, phase, int(inside[first]) - start * source_step, start, start + count))
        return cls(source, target, source_step, target_step, tuple(taps))

    def source_slice(self, tap: Tap, start: int, stop: int) -> slice:
        """The source positions of a tap for start <= j < stop."""
        first = tap.offset + start * self.source_step
        return slice(first, first + (stop - start - 1) * self.source_step + 1, self.source_step)

    def target_slice(self, phase: int, start: int, stop: int) -> slice:
        """The target positions of a phase for start <= j < stop."""
        first = phase + start * self.target_step
        return slice(first, first + (stop - start - 1) * self.target_step + 1, self.target_step)

    def phases(self) -> Iterator[tuple[int, int, tuple[Tap, ...]]]:
        """(phase, number of target positions, taps) of every target phase that a tap meets."""
        for phase in sorted({t.phase for t in self.taps}):
            count = -(-(self.target - phase) // self.target_step)
            yield phase, count, tuple(t for t in self.taps if t.phase == phase)

    def hits(self, kernel: int) -> np.ndarray:
        """float32[kernel, source]: 1 where a source position lands in the image under a tap, else 0."""
        hits = np.zeros((kernel, self.source), np.float32)
        for t in self.taps:
            hits[t.index, self.source_slice(t, t.start, t.stop)] = 1
        return hits


def edge_axes(edge: Edge, source: Shape, target: Shape) -> tuple[Axis, Axis]:
    """The y and x axes of an edge between maps of these shapes."""
    g, kernel = edge.geometry, edge.kernel
    windows = (None, None) if g.window is None else (g.window[:2], g.window[2:])
    y, x = (Axis.solve(source[1 + a], target[1 + a], kernel[a], g.stride[a], g.dilation[a], g.upsample[a],
                       g.pad[a], windows[a]) for a in (0, 1))
    return y, x


class Scatter:
    """One edge as matrix products, planned once and applied to many maps.

    Columns that feed the same rows form a group and one product; groups of equal size and disjoint rows
    (grouped and depthwise convolution) run as one batched product. Any other pattern of rows is filled
    up with zeros to a single group.

    Parameters
    ----------
    edge, source, target
        the edge and the shapes of its two ends.
    weight
        [K, R, kh, kw] in the order of the edge's tables: ``edge.weight`` or ``edge.weight_code``.
    dtype
        in which products and sums are formed (float32, float64 or int64).
    """

    def __init__(self, edge: Edge, source: Shape, target: Shape, weight: np.ndarray,
                 dtype: DTypeLike = np.float32) -> None:
        self.source, self.target, self.dtype = source, target, np.dtype(dtype)
        self.y, self.x = edge_axes(edge, source, target)
        columns, rows, weight = _groups(edge, np.asarray(weight, self.dtype))
        self.columns = columns                                        # int[G, K]
        self._channels = as_slice(columns.ravel())
        self._rows = as_slice(rows.ravel())
        self._phases = []
        for py, ny, taps_y in self.y.phases():
            for px, nx, taps_x in self.x.phases():
                w = weight[..., [t.index for t in taps_y], :][..., [t.index for t in taps_x]]
                w = np.ascontiguousarray(w.transpose(0, 2, 1, 3, 4))  # [G, R, K, taps_y, taps_x]
                self._phases.append((w.reshape(*w.shape[:2], -1), py, ny, taps_y, px, nx, taps_x))

    def add(self, values: np.ndarray, out: np.ndarray) -> None:
        """``out[C, OH, OW] += W * values[C, H, W]``."""
        for where, part in self.parts(values):
            out[where] += part

    def parts(self, values: np.ndarray) -> Iterator[tuple[tuple, np.ndarray]]:
        """Yield (index into the target, what to add there) for every touched piece of the target.

        Pieces do not overlap. Output rows that see only zeros are left out.
        """
        if values.shape != self.source:
            raise ValueError(f"values of shape {values.shape} on an edge from a map of shape {self.source}")
        groups, width = self.columns.shape
        values = values[self._channels].astype(self.dtype, copy=False)
        values = values.reshape(groups, width, *self.source[1:])
        live = values.any(axis=(0, 1, 3))
        for weight, py, ny, taps_y, px, nx, taps_x in self._phases:
            step = max(1, BLOCK_ELEMENTS // (groups * weight.shape[2] * nx))
            for start in range(0, ny, step):
                stop = min(ny, start + step)
                if not self._touched(live, taps_y, start, stop):
                    continue
                part = weight @ self._unfold(values, taps_y, taps_x, start, stop, nx)
                where = (self._rows, self.y.target_slice(py, start, stop), self.x.target_slice(px, 0, nx))
                yield where, part.reshape(-1, stop - start, nx)

    def _touched(self, live: np.ndarray, taps: tuple[Tap, ...], start: int, stop: int) -> bool:
        spans = ((t, max(start, t.start), min(stop, t.stop)) for t in taps)
        return any(live[self.y.source_slice(t, a, b)].any() for t, a, b in spans if a < b)

    def _unfold(self, values: np.ndarray, taps_y: tuple[Tap, ...], taps_x: tuple[Tap, ...], start: int,
                stop: int, nx: int) -> np.ndarray:
        """[G, K, H, W] -> [G, K * taps, positions] of target rows start..stop, 0 outside the image."""
        groups, width = self.columns.shape
        shape = (groups, width, len(taps_y), len(taps_x), stop - start, nx)
        unfolded = np.zeros(shape, self.dtype)
        for a, ty in enumerate(taps_y):
            first, last = max(start, ty.start), min(stop, ty.stop)
            if first >= last:
                continue
            rows = values[:, :, self.y.source_slice(ty, first, last)]
            for b, tx in enumerate(taps_x):
                unfolded[:, :, a, b, first - start:last - start, tx.start:tx.stop] = (
                    rows[..., self.x.source_slice(tx, tx.start, tx.stop)])
        return unfolded.reshape(groups, -1, (stop - start) * nx)


def scatter(edge: Edge, values: np.ndarray, weight: np.ndarray, target: Shape,
            dtype: DTypeLike = np.float32) -> np.ndarray:
    """``W * values``: one edge applied once to values[C, H, W]; returns [C, OH, OW] of ``target`` shape."""
    out = np.zeros(target, dtype)
    Scatter(edge, values.shape, target, weight, dtype).add(values, out)
    return out


def _groups(edge: Edge, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns int[G, K], rows int[G, R] and weight [G, K, R, kh, kw] of groups with disjoint rows."""
    rows, member = np.unique(edge.rows, axis=0, return_inverse=True)
    sizes = np.bincount(member.ravel())
    if (sizes == sizes[0]).all() and len(np.unique(rows)) == rows.size:
        order = np.argsort(member.ravel(), kind="stable")
        shape = (len(rows), sizes[0])
        return edge.channels[order].reshape(shape), rows, weight[order].reshape(*shape, *weight.shape[1:])
    used = np.unique(edge.rows)
    full = np.zeros((len(edge.rows), len(used), *edge.kernel), weight.dtype)
    full[np.arange(len(edge.rows))[:, None], np.searchsorted(used, edge.rows)] = weight
    return edge.channels[None], used[None], full[None]


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """The same index as a slice where it counts up by one (no copy when it is used)."""
    first = int(index[0])
    if (index == np.arange(first, first + len(index))).all():
        return slice(first, first + len(index))
    return index
