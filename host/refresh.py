"""Which frames are computed from scratch, and why.

After a scene cut nearly every element changes, but only about half of the activations are not zero: sending the
changes then costs more than starting from zero. How much a frame's deltas cost follows closely from one number of its
input, the *activity*: the mean over all elements of ``log2(1 + |change|)``, so small changes count, and large ones
count little more. What a refresh costs hardly depends on the frame. So one limit decides (``RefreshRule``), and it is
the limit that would have cost least on pairs of sample frames, real ones and pairs with a cut in all or in a part of
the picture.

``Schedule`` puts this reason for a refresh together with all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from host.aecs import ErrorControl
from host.errors import UserError
from host.rrm_file import Model
from sim.golden import FrameResult, GoldenModel
from sim.graph import Graph

SECTION = "refresh"
"""Name of the rule's section in an ``.rrm`` file."""
THRESHOLDS = (0, 2, 4)
"""Thresholds for which a limit is found; others use the one of the next lower."""
FRAMES = 4
"""Sample frames from which the limits are found."""
CUTS = (0.25, 0.5, 1.0)
"""Parts of the picture that a synthetic cut replaces."""
ROWS, SWEEP, STEP = 64, 16, 60
"""Rows and sweep width of the preset ``sim64``, and the cycles that a step takes beyond its work."""

Policy = int | Literal["auto", "never"]
"""N: every Nth frame is precise; ``auto``: the frames of which the rule says that it is cheaper; ``never``: neither."""
Reason = Literal["first", "asked", "schedule", "cut", "error", "range", "device"]
"""Why a frame was computed from scratch: nothing was kept, the caller wanted it, its number, cheaper than its deltas,
the predicted error, accumulators that could wrap otherwise, the device had lost its state."""


def activity(previous: np.ndarray, codes: np.ndarray) -> float:
    """Bits of change per element between two frames of codes of the input tensor, int[C, H, W]."""
    change = np.abs(codes.astype(np.int32) - previous)
    return float(np.log2(np.arange(1, change.max() + 2))[change].mean())


@dataclass(frozen=True)
class Sample:
    """A pair of frames: its activity, and what the second one costs as deltas and as a refresh."""

    activity: float
    deltas: float
    refresh: float


@dataclass(frozen=True)
class RefreshRule:
    """When to refresh. ``limits``: activity above which a refresh is cheaper, by threshold (infinite: never)."""

    limits: Mapping[int, float]

    def should_refresh(self, previous: np.ndarray, codes: np.ndarray, threshold: int = 0) -> bool:
        """A refresh of the frame ``codes`` is predicted to cost less than its deltas.

        ``previous`` is the input's snapshot, ``threshold`` the one that most tensors have.
        """
        known = [t for t in self.limits if t <= threshold] or [min(self.limits)]
        return activity(previous, codes) > self.limits[max(known)]

    def to_section(self) -> dict[str, float | None]:
        """Plain values for a section of an ``.rrm`` file."""
        return {str(t): limit if np.isfinite(limit) else None for t, limit in self.limits.items()}

    @classmethod
    def from_section(cls, values: Mapping[str, float | None]) -> RefreshRule:
        """The inverse of ``to_section``."""
        return cls({int(t): np.inf if limit is None else limit for t, limit in values.items()})

    @classmethod
    def fit(cls, graph: Graph, frames: Sequence[np.ndarray], thresholds: Sequence[int] = THRESHOLDS,
            rows: int = ROWS, sweep: int = SWEEP) -> RefreshRule:
        """Find the limits from one or more frames of codes int[C, H, W] of the input, neighbours in time or not, for an
        accelerator with so many rows and elements per sweep. Takes a frame of the golden model per sample."""
        return cls({t: cheapest_limit(samples(graph, frames, t, rows, sweep)) for t in thresholds})


def with_rule(model: Model, frames: Sequence[np.ndarray], rows: int = ROWS, sweep: int = SWEEP) -> Model:
    """The quantised model with a rule fitted on some of these sample frames, uint8[H, W, 3] RGB; as it is when it has
    one, or when there are no frames."""
    if SECTION in model.sections or not len(frames):
        return model
    network = model.network
    code = network.graph.tensors[network.graph.input].code
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))]
    codes = [network.input.to_codes(model.sidecar.input.apply(f, network.input), code) for f in chosen]
    rule = RefreshRule.fit(network.graph, codes, rows=rows, sweep=sweep)
    return replace(model, sections={**model.sections, SECTION: rule.to_section()})


def samples(graph: Graph, frames: Sequence[np.ndarray], threshold: int = 0, rows: int = ROWS,
            sweep: int = SWEEP) -> list[Sample]:
    """What the frames and cuts of ``clip_with_cuts`` cost at a threshold, each after the one before."""
    model, found = GoldenModel(graph, threshold), []
    for number, codes in enumerate(clip_with_cuts(frames)):
        previous = model.snapshots[graph.input]
        result = model.frame(codes)
        if number:
            found.append(Sample(activity(previous, codes), cost(graph, result, "macs", rows, sweep),
                                cost(graph, result, "macs_activations", rows, sweep)))
    return found


def clip_with_cuts(frames: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames, and then cuts: a growing part of the picture changes to another frame upside down or mirrored."""
    yield from frames
    shown = frames[-1]
    for i, part in enumerate(CUTS):
        other = frames[(len(frames) // 2 + i) % len(frames)]
        columns = max(1, round(part * shown.shape[2]))
        for cut in (other[:, ::-1], other[:, :, ::-1]):
            shown = np.concatenate([cut[:, :, :columns], shown[:, :, columns:]], axis=2)
            yield shown


def cost(graph: Graph, result: FrameResult, macs: Literal["macs", "macs_activations"], rows: int = ROWS,
         sweep: int = SWEEP) -> float:
    """Cycles that a frame takes at least: per step its MACs, broadcasts or sweep, whichever is most (within some 10% of
    the ring's, and the same part of them for deltas and for a refresh).

    ``macs``: as deltas, or as a refresh of the same frame.
    """
    work: dict[str, list[float]] = {name: [0.0, 0.0] for name in graph.tensors}
    for edge, stats in zip(graph.edges, result.edges, strict=True):
        done = getattr(stats, macs)
        _, height, width = graph.shape_of(edge.source)
        fed = len(edge.channels) * height * width * done / max(1, stats.macs_dense)
        work[edge.source][0] += done / rows
        work[edge.source][1] += fed / sweep if edge.vector else fed
    swept = {node.target: sum(np.prod(graph.shape_of(op.source)) for op in node.operands) / sweep
             for node in graph.nodes}
    return sum(max(*work[name], swept.get(name, 0.0)) + STEP for name in graph.tensors)


def cheapest_limit(of: Sequence[Sample]) -> float:
    """The limit that makes the sum of the samples' costs smallest; halfway to the next sample, or infinite when
    deltas were always the cheaper choice."""
    ordered = sorted(of, key=lambda s: s.activity)
    gain = np.cumsum([0, *(s.refresh - s.deltas for s in ordered)])       # of sending the first n as deltas
    best = int(gain.argmax())
    if best == len(ordered):
        return float("inf")
    low = ordered[best - 1].activity if best else 0.0
    return (low + ordered[best].activity) / 2


class Schedule:
    """Decides which frames of a session are refreshes.

    Parameters
        policy: see ``Policy``. Raises UserError for anything else.
        rule: for ``auto``; without one no frame counts as a cut.
        threshold: of all tensors, by name.
        wrap_after: frames after which an accumulator could wrap, or None.
        control: the accumulated-error control, or None.
    """

    def __init__(self, policy: Policy, rule: RefreshRule | None, threshold: Mapping[str, int],
                 wrap_after: int | None = None, control: ErrorControl | None = None) -> None:
        if policy not in ("auto", "never") and not (isinstance(policy, int) and policy >= 1):
            raise UserError(f"refresh is '{policy}'; it must be auto, never or a number of frames (1 or more)")
        self._every = policy if isinstance(policy, int) else None
        self._rule = rule if policy == "auto" else None
        self._threshold = sorted(threshold.values())[len(threshold) // 2]
        self._wrap_after, self._control = wrap_after, control
        self._frame = 0
        self.reset()

    def reset(self) -> None:
        """Nothing is kept: the next frame is a refresh. Frame numbers go on."""
        self._since: int | None = None

    def reason(self, previous: Any, codes: np.ndarray, asked: bool) -> Reason | None:
        """Why the next frame, int[C, H, W], should be a refresh; None when it should not.

        ``previous``: a function that gives the input's snapshot.
        """
        if self._since is None:
            return "first"
        if asked:
            return "asked"
        if self._every is not None and self._frame % self._every == 0:
            return "schedule"
        if self._wrap_after is not None and self._since >= self._wrap_after:
            return "range"
        if self._control is not None and self._control.due:
            return "error"
        if self._rule is not None and self._rule.should_refresh(previous(), codes, self._threshold):
            return "cut"
        return None

    def done(self, reason: Reason | None, refresh: bool) -> Reason | None:
        """A frame was run, and whether it was a refresh: why."""
        self._frame += 1
        self._since = 0 if refresh else self._since + 1
        return (reason or "device") if refresh else None
