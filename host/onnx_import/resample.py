"""Moving along one image axis as a linear edge: crops, zero padding, resizing.

The building block is a matrix A[O, I]: output position o is the sum of ``A[o, i]`` times input position i.
An edge can only apply one row of taps to every position, ``out[o] += taps[k] * in[i]`` where
``o * stride + k == i * upsample + pad``, so a matrix is cut into *segments* of input positions that share
their taps: one for a plain shift, three for a linear resize whose border pixels are repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import gcd, lcm, prod

import numpy as np

from host.onnx_import.errors import Unsupported
from host.onnx_import.values import Planes
from sim.graph import Geometry

MAX_SEGMENTS = 12
"""Most segments of one axis: an axis that needs more is not made of repeated taps."""
MAX_TAPS = 64
"""Longest row of taps of a resized axis."""

FINEST_STEP = 1024
"""Taps are whole multiples of 1 / this at least, or their scale is left to the quantiser."""


@dataclass(frozen=True)
class Span:
    """Unit positions ``unit + step * j`` stand at view positions ``view + gap * j`` for 0 <= j < count."""

    view: int
    unit: int
    count: int
    gap: int
    step: int

    @classmethod
    def of(cls, positions: np.ndarray) -> Span | None:
        """From ``Planes.rows`` or ``columns``; None when they are not evenly spaced and ascending."""
        inside = np.flatnonzero(positions >= 0)
        values = positions[inside]
        gaps, steps = np.unique(np.diff(inside)), np.unique(np.diff(values))
        if len(gaps) > 1 or len(steps) > 1 or (steps < 1).any():
            return None
        return cls(int(inside[0]), int(values[0]), len(inside), *(int(d[0]) if len(d) else 1 for d in (gaps, steps)))

    def window(self, size: int) -> tuple[int, int]:
        """Half-open range of the unit's positions that may take part, as wide as it can be."""
        start = 0 if self.unit < self.step else self.unit
        stop = self.unit + self.step * self.count
        return start, size if stop >= size else stop - self.step + 1


def plane_geometry(planes: Planes, kernel: tuple[int, int], geometry: Geometry) -> Geometry | None:
    """The geometry of a layer on a view, restated for the unit behind it; None when no edge can do it.

    With ``v = view + gap * (u - unit) / step`` for unit position u, the layer's own equation
    ``o * stride + k * dilation == v * upsample + pad`` times ``step`` is an edge's again, as long as it has
    no solution at a u between the steps.
    """
    spans = [Span.of(planes.rows), Span.of(planes.columns)]
    if any(s is None or gcd(s.step, s.gap * u) > 1 for s, u in zip(spans, geometry.upsample, strict=True)):
        return None
    sizes = planes.unit.shape[1:]
    window = sum((s.window(n) for s, n in zip(spans, sizes, strict=True)), ())
    return Geometry(
        stride=tuple(st * s.step for st, s in zip(geometry.stride, spans, strict=True)),
        dilation=tuple(d * s.step if k > 1 else 1
                       for d, k, s in zip(geometry.dilation, kernel, spans, strict=True)),
        upsample=tuple(u * s.gap for u, s in zip(geometry.upsample, spans, strict=True)),
        pad=tuple((s.view * u + p) * s.step - s.unit * s.gap * u
                  for s, u, p in zip(spans, geometry.upsample, geometry.pad, strict=True)),
        window=None if window == (0, sizes[0], 0, sizes[1]) else window)


@dataclass(frozen=True, eq=False)
class Segment:
    """Input positions start..stop of one axis and the taps that they all have."""

    start: int
    stop: int
    pad: int
    taps: np.ndarray


@dataclass(frozen=True, eq=False)
class AxisMap:
    """A matrix over one axis, with the ratio ``upsample / stride`` of output to input positions."""

    matrix: np.ndarray
    stride: int = 1
    upsample: int = 1

    @classmethod
    def gather(cls, positions: np.ndarray, size: int) -> AxisMap:
        """Output o is input ``positions[o]`` (zero where that is -1)."""
        matrix = np.zeros((len(positions), size))
        inside = np.flatnonzero(positions >= 0)
        matrix[inside, positions[inside]] = 1
        if len(inside) < 2:
            return cls(matrix)
        step, gap = int(np.median(np.diff(positions[inside]))), int(np.median(np.diff(inside)))
        if step == 0:
            return cls(matrix, 1, int(np.median(np.unique(positions[inside], return_counts=True)[1])))
        ratio = Fraction(gap, max(step, 1))
        return cls(matrix, ratio.denominator, ratio.numerator)

    def after(self, other: AxisMap) -> AxisMap:
        """This map applied to the result of another."""
        ratio = Fraction(self.upsample * other.upsample, self.stride * other.stride)
        return AxisMap(self.matrix @ other.matrix, ratio.denominator, ratio.numerator)

    def segments(self) -> list[Segment]:
        """Cut into ranges of input positions with common taps; raises Unsupported when there are too many."""
        outputs, inputs = self.matrix.shape
        o = np.arange(outputs)
        found: list[tuple[int, dict[int, float]]] = []
        for i in range(inputs):
            column = dict(zip((i * self.upsample - o * self.stride).tolist(), self.matrix[:, i].tolist(),
                              strict=True))
            if found and all(found[-1][1].get(t, w) == w for t, w in column.items()):
                found[-1][1].update(column)
            else:
                found.append((i, column))
        stops = [start for start, _ in found[1:]] + [inputs]
        parts = [_segment(start, stop, taps) for (start, taps), stop in zip(found, stops, strict=True)]
        parts = [p for p in parts if p is not None]
        if len(parts) > MAX_SEGMENTS:
            raise Unsupported("along one axis it neither spaces nor repeats pixels evenly")
        return parts


def common_step(*maps: AxisMap | None) -> float | None:
    """The real number of which every product of these maps' entries is a whole multiple; None if too fine."""
    axes = [lcm(*(Fraction(w).limit_denominator(FINEST_STEP).denominator for w in np.unique(m.matrix)))
            for m in maps if m is not None]
    return 1 / prod(axes) if prod(axes) <= FINEST_STEP else None


def _segment(start: int, stop: int, taps: dict[int, float]) -> Segment | None:
    used = [t for t, w in taps.items() if w]
    if not used:
        return None
    first, count = min(used), max(used) - min(used) + 1
    if count > MAX_TAPS:
        raise Unsupported(f"resizing needs {count} taps along one axis; at most {MAX_TAPS} are possible: use "
                          "a factor that is a small fraction")
    return Segment(start, stop, -first, np.array([taps.get(first + k, 0.0) for k in range(count)]))


def separable_edges(y: AxisMap, x: AxisMap) -> Iterator[tuple[Geometry, np.ndarray]]:
    """(geometry, taps [kh, kw]) of every edge that together apply one map to each axis."""
    sizes = y.matrix.shape[1], x.matrix.shape[1]
    for a, b in product(y.segments(), x.segments()):
        window = a.start, a.stop, b.start, b.stop
        geometry = Geometry((y.stride, x.stride), (1, 1), (y.upsample, x.upsample), (a.pad, b.pad),
                            None if window == (0, sizes[0], 0, sizes[1]) else window)
        yield geometry, np.outer(a.taps, b.taps)
