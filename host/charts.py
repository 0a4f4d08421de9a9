"""Charts of what a network's frames cost, as PNG files (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from host.events import Event
from host.output import AtomicFile

BLUE, GREEN, RED, GREY = "#1f5fa8", "#3a9a5b", "#c0392b", "#9a9a9a"
"""RRM, frame by frame, events, what is only for comparison: as on the frames that ``host.draw`` makes."""
CYCLE = (BLUE, "#e08a1e", GREEN, "#8e44ad", RED, GREY)
"""Series without a colour of their own."""
DPI = 120
LONGEST_NAME = 30


def layer_chart(path: str | Path, layers: Sequence[str], density: ArrayLike, cycles: ArrayLike,
                frame_by_frame: ArrayLike, *, activations: ArrayLike | None = None, title: str = "") -> None:
    """Per layer: density, cycles, and speed-up against frame by frame.

    layers
        names, in the order in which they run; one row each, first on top.
    density
        share 0..1 of the layer's MACs that was done (0 or nan where it has none); mean over the frames shown.
    cycles, frame_by_frame
        mean cycles of the layer per frame: computing only what changed, and computing each frame from scratch on the
        same engine. The first frame of a run, a refresh, gives the latter when nothing better is known.
    activations
        the density that frame by frame has, where it is known: share of MACs whose activation is not zero.

    Raises UserError when ``path`` cannot be written.
    """
    density, cycles, scratch = (np.asarray(a, float) for a in (density, cycles, frame_by_frame))
    y = np.arange(len(layers))
    figure = Figure(figsize=(12, 1.6 + 0.24 * max(len(layers), 4)), dpi=DPI, layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    left.barh(y, 100 * np.nan_to_num(density), color=BLUE, label="RRM: changed and sent")
    if activations is not None:
        left.plot(100 * np.asarray(activations, float), y, "|", color=GREEN, markersize=9, markeredgewidth=2,
                  label="frame by frame: not zero")
    left.set(xlabel="density, % of the layer's MACs", xlim=(0, 100), yticks=y)
    left.set_yticklabels([_short(name) for name in layers], fontsize=7)
    left.invert_yaxis()
    middle.barh(y - 0.2, scratch, 0.4, color=GREEN, label="frame by frame")
    middle.barh(y + 0.2, cycles, 0.4, color=BLUE, label="RRM")
    middle.set(xlabel="cycles a frame")
    gain = np.divide(scratch, cycles, out=np.ones_like(cycles), where=cycles > 0)
    right.barh(y, gain, color=BLUE)
    total = scratch.sum() / cycles.sum() if cycles.sum() else 1.0
    right.axvline(1, color=GREY, linewidth=1)
    right.axvline(total, color=RED, linewidth=1, linestyle="--", label=f"whole network {total:.2f}")
    right.set(xlabel="speed-up against frame by frame")
    for axes in (left, middle, right):
        _plain(axes, "x")
    figure.legend(*_entries(left, middle, right), loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    _save(figure, path, title)


def time_chart(path: str | Path, density: Mapping[str, ArrayLike], cycles: Mapping[str, ArrayLike],
               errors: ArrayLike, events: Sequence[Event], *, title: str = "") -> None:
    """Frame after frame: density and cycles of "frame by frame" and "RRM" by name, and the relative error of the
    outputs.

    ``density`` is 0..1; ``events`` are marked on every axis. Raises UserError when ``path`` cannot be written.
    """
    figure = Figure(figsize=(11, 7), dpi=DPI, layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    for axes, series, factor, label in ((top, density, 100, "density, % of MACs"),
                                        (middle, cycles, 1, "cycles")):
        for (name, values), colour in zip(series.items(), (GREEN, BLUE), strict=True):
            axes.plot(factor * np.asarray(values, float), color=colour, label=name, linewidth=1.5)
        axes.set(ylabel=label)
        axes.set_ylim(bottom=0)
    bottom.plot(np.asarray(errors, float), color=BLUE, linewidth=1.5)
    bottom.set(ylabel="error of the outputs", xlabel="frame")
    for axes in (top, middle, bottom):
        _mark(axes, events)
        _plain(axes)
    figure.legend(*_entries(top), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    _save(figure, path, title)


def tradeoff_chart(path: str | Path, sparsity: ArrayLike, speedups: Mapping[str, ArrayLike], *,
                   title: str = "") -> None:
    """Speed-up of every frame against the sparsity 0..1 of its deltas, by what is counted (paper, figure 5).

    ``speedups``: name -> float[frames]. Raises UserError when ``path`` cannot be written.
    """
    figure = Figure(figsize=(8, 5), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for (name, values), colour, marker in zip(speedups.items(), CYCLE, "osD^v", strict=False):
        axes.plot(np.asarray(sparsity, float), np.asarray(values, float), marker, color=colour, label=name,
                  markersize=4, alpha=0.7)
    axes.axhline(1, color=GREY, linewidth=1)
    axes.set(xlabel="sparsity of the deltas", ylabel="speed-up against frame by frame", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    _plain(axes)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path, title)


def threshold_chart(path: str | Path, thresholds: Sequence[int], errors: Mapping[str, ArrayLike],
                    speedups: Mapping[str, ArrayLike], *, title: str = "") -> None:
    """Error of the outputs, and speed-up, against the threshold in codes (paper, figure 3 and table 3).

    ``errors``, ``speedups``: mode -> float[thresholds]. Raises UserError when ``path`` cannot be written.
    """
    figure = Figure(figsize=(10, 4.5), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for axes, series, label in ((left, errors, "error of the outputs, mean"), (right, speedups, "speed-up (eq. 10)")):
        for (name, values), colour in zip(series.items(), CYCLE, strict=False):
            axes.plot(np.arange(len(thresholds)), np.asarray(values, float), "o-", color=colour, label=name)
        axes.set(xlabel="threshold, codes", ylabel=label, xticks=range(len(thresholds)))
        axes.set_xticklabels([str(t) if t < 256 else "infinite" for t in thresholds])
        axes.set_ylim(bottom=0)
        _plain(axes)
    left.legend(fontsize=8, frameon=False)
    _save(figure, path, title)


def error_chart(path: str | Path, errors: Mapping[str, ArrayLike], events: Sequence[Event], *, title: str = "") -> None:
    """Error of the outputs frame after frame, by rule (paper, figures 2 and 4).

    ``errors``: name -> float[frames]. Raises UserError when ``path`` cannot be written.
    """
    figure = Figure(figsize=(9, 5), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(errors.items(), CYCLE, strict=False):
        axes.plot(np.asarray(values, float), color=colour, label=name, linewidth=1.5)
    _mark(axes, events)
    axes.set(xlabel="frame", ylabel="error of the outputs")
    axes.set_ylim(bottom=0)
    _plain(axes)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path, title)


def pareto_chart(path: str | Path, points: Sequence[tuple[str, float, float, float]], max_error: float | None,
                 min_agreement: float | None, *, title: str = "") -> None:
    """Configurations (label, cycles, error, agreement): error and agreement against cycles, the limits as lines.

    Those labelled "hold N" or "exact" are named, "tuned" is marked, others are dots; a line joins those that no other
    one beats. Raises UserError when ``path`` cannot be written.
    """
    figure = Figure(figsize=(11, 4.8), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    cycles = np.array([p[1] for p in points])
    for axes, values, limit, sign, label in (
            (left, [p[2] for p in points], max_error, 1, "error of the outputs, mean"),
            (right, [p[3] for p in points], min_agreement, -1, "agreement with the float network")):
        values, order = np.array(values), np.argsort(cycles, kind="stable")
        best = np.minimum.accumulate(sign * values[order])
        front = order[(sign * values[order] <= best) & np.r_[True, best[1:] < best[:-1]]]
        axes.plot(cycles[front], values[front], "-", color=GREY, linewidth=1)
        axes.plot(cycles, values, "o", color=BLUE, markersize=4)
        for (name, x, *_), y in zip(points, values, strict=True):
            if name.startswith(("hold", "exact", "tuned")):
                axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
            if name == "tuned":
                axes.plot([x], [y], "o", color=RED, markersize=7)
        if limit is not None:
            axes.axhline(limit, color=RED, linewidth=1, linestyle="--")
        axes.set(xlabel="cycles a frame, estimated", ylabel=label)
        _plain(axes)
    _save(figure, path, title)


def _mark(axes: Axes, events: Sequence[Event]) -> None:
    """Scene cuts and brightness jumps as vertical lines."""
    for event in events:
        axes.axvline(event.frame, color=RED if event.kind == "cut" else GREY, linewidth=1, linestyle=":")
        axes.annotate(event.kind, (event.frame, 1), xycoords=("data", "axes fraction"), fontsize=7, rotation=90,
                      va="top", ha="right", color=RED if event.kind == "cut" else "#606060")


def _entries(*of: Axes) -> tuple[list, list[str]]:
    """Legend entries of several axes, one each by name."""
    handles, labels = zip(*(a.get_legend_handles_labels() for a in of), strict=True)
    return list(chain(*handles)), list(chain(*labels))


def _plain(axes: Axes, grid: str = "both") -> None:
    axes.grid(axis=grid, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _short(name: str) -> str:
    half = LONGEST_NAME // 2 - 1
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}..{name[-half:]}"


def _save(figure: Figure, path: str | Path, title: str) -> None:
    """Write the figure whole or not at all."""
    if title:
        figure.suptitle(title, fontsize=11)
    with AtomicFile(path) as out:
        figure.savefig(out.file, format="png")
        out.commit()
