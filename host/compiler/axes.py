"""Column classes: which taps a source coordinate feeds, and where they land in P (docs/architecture.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Taps = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """One axis of an edge, output columns dealt out to ``phases`` (``out mod phases``).

    classes
        the distinct tap sets: per class, per phase, the kernel indices that land inside the image, ascending.
    column
        int[source size]: class of each coordinate.
    origin
        int[source size]: output position (in words of its phase, ``out // phases``) that offsets count from.
    taps
        int[source size]: taps inside the image, all phases together.
    offset
        int[phases, kernel]: position of a tap relative to the origin. It depends on the tap and the phase alone.
    """

    classes: tuple[tuple[Taps, ...], ...]
    column: np.ndarray
    origin: np.ndarray
    taps: np.ndarray
    offset: np.ndarray

    @classmethod
    def solve(cls, source: int, target: int, kernel: int, stride: int, dilation: int, upsample: int, pad: int,
              window: tuple[int, int] | None, phases: int) -> Axis:
        """Solve ``out * stride + k * dilation == at * upsample + pad`` for every coordinate ``at``."""
        first, stop = window or (0, source)
        classes: dict[tuple[Taps, ...], int] = {}
        column, origin, taps = (np.zeros(source, np.int64) for _ in range(3))
        offset = np.zeros((phases, kernel), np.int64)
        for at in range(source):
            position = at * upsample + pad
            origin[at] = position // stride // phases
            sets: list[list[int]] = [[] for _ in range(phases)]
            for k in range(kernel if first <= at < stop else 0):
                out, rest = divmod(position - k * dilation, stride)
                if rest == 0 and 0 <= out < target:
                    sets[out % phases].append(k)
                    offset[out % phases, k] = out // phases - origin[at]
            taps[at] = sum(map(len, sets))
            column[at] = classes.setdefault(tuple(map(tuple, sets)), len(classes))
        return cls(tuple(classes), column, origin, taps, offset)
