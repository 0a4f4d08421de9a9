"""Deltas or a refresh: which of the two costs the ring less is predicted from a frame's input alone.

After a scene cut nearly every element changes, but only about half of the activations are not zero: sending the
changes then costs more than starting from zero. How much a frame's deltas cost follows closely from one number of its
input, the *activity*: the mean over all elements of ``log2(1 + |change|)``, so small changes count, and large ones
count little more. What a refresh costs hardly depends on the frame. So one limit decides, and it is the limit that
would have cost least on pairs of sample frames, real ones and pairs with a cut in all or in a part of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from host.compiler import Program
from host.cycles import CycleModel, observed_frame
from sim.arithmetic import Mode
from sim.golden import GoldenModel

THRESHOLDS = (0, 2, 4)
"""Thresholds for which a limit is found; others use the one of the next lower."""
CUTS = (0.25, 0.5, 1.0)
"""Parts of the picture that a synthetic cut replaces."""


def activity(previous: np.ndarray, codes: np.ndarray) -> float:
    """Bits of change per element between two frames of codes of the input tensor, int[C, H, W]."""
    change = np.abs(codes.astype(np.int32) - previous)
    return float(np.log2(np.arange(1, change.max() + 2))[change].mean())


@dataclass(frozen=True)
class Sample:
    """A pair of frames: its activity, and the cycles of the second one's deltas and of its refresh."""

    activity: float
    deltas: int
    refresh: int


@dataclass(frozen=True)
class RefreshRule:
    """When to refresh. ``limits``: activity above which a refresh is cheaper, by threshold (infinite: never)."""

    limits: Mapping[int, float]

    def should_refresh(self, previous: np.ndarray, codes: np.ndarray, threshold: int = 0) -> bool:
        """A refresh of the frame ``codes`` is predicted to cost less than its deltas.

        ``previous`` is the input's snapshot, ``threshold`` the smallest of all tensors.
        """
        known = [t for t in self.limits if t <= threshold] or [min(self.limits)]
        return activity(previous, codes) > self.limits[max(known)]

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for a section of an ``.rrm`` file."""
        return {str(t): limit if np.isfinite(limit) else None for t, limit in self.limits.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, float | None]) -> RefreshRule:
        """The inverse of ``to_dict``."""
        return cls({int(t): np.inf if limit is None else limit for t, limit in values.items()})

    @classmethod
    def fit(cls, program: Program, frames: Sequence[np.ndarray], mode: Mode = "hold",
            thresholds: Sequence[int] = THRESHOLDS) -> RefreshRule:
        """Find the limits for a compiled network from frames of codes int[C, H, W] of its input (two or more,
        neighbours in time or not). Takes two frames of the golden and the cycle model per pair."""
        return cls({t: cheapest_limit(measure(program, pairs(frames), t, mode)) for t in thresholds})


def pairs(frames: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames that follow each other, and cuts: from a frame to another one upside down and mirrored, in parts."""
    yield from pairwise(frames)
    for i, part in enumerate(CUTS):
        before, after = frames[i % len(frames)], frames[(i + len(frames) // 2) % len(frames)]
        columns = max(1, round(part * before.shape[2]))
        for cut in (after[:, ::-1], after[:, ::-1, ::-1]):
            yield before, np.concatenate([cut[:, :, :columns], before[:, :, columns:]], axis=2)


def measure(program: Program, of: Iterator[tuple[np.ndarray, np.ndarray]], threshold: int = 0,
            mode: Mode = "hold") -> list[Sample]:
    """Predicted cycles of pairs of frames, by the cycle model."""
    model, cycles, samples = GoldenModel(program.graph, threshold, mode), CycleModel(program), []
    for before, after in of:
        _, refreshed = observed_frame(model, before, refresh=True)
        _, changed = observed_frame(model, after)
        refresh, deltas = (f.total for f in cycles.frames([refreshed, changed]))
        samples.append(Sample(activity(before, after), deltas, refresh))
    return samples


def cheapest_limit(samples: Sequence[Sample]) -> float:
    """The limit that makes the sum of the samples' cycles smallest; halfway to the next sample, or infinite when
    deltas were always the cheaper choice."""
    ordered = sorted(samples, key=lambda s: s.activity)
    gain = np.cumsum([0, *(s.refresh - s.deltas for s in ordered)])       # of sending the first n as deltas
    best = int(gain.argmax())
    if best == len(ordered):
        return float("inf")
    low = ordered[best - 1].activity if best else 0.0
    return (low + ordered[best].activity) / 2
