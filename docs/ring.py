"""Draws ``docs/ring.svg``, the picture of the accelerator in the README: ``python docs/ring.py [OUT]``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, GREEN, GREY, INK = "#1f5fa8", "#3a9a5b", "#6b7280", "#1b2330"
KEPT, WORK = "#e3f1e7", "#e4edf8"
WIDE, HIGH = 2.3, 0.86
"""Size of a box, in the units of the picture (10.8 x 4.5)."""

BOXES = {
    "sweep": (1.5, 3.55, "SWEEP", "reads P of a layer,\nS elements a cycle", WORK),
    "nonlinear": (4.1, 3.55, "NONLINEAR", "bias, requantise, add,\nactivate, max-pool", WORK),
    "delta": (6.7, 3.55, "DELTA", "changed since the\nlast frame?", WORK),
    "lnzd": (9.3, 3.55, "FIFO, LNZD", "next non-zero\nchange", WORK),
    "scatter": (9.3, 1.0, "SCATTER", "its column of\nthe weights", WORK),
    "pes": (5.4, 1.0, "PE ARRAY", "queue, walk the column,\nmultiply and add", WORK),
    "P": (1.5, 1.0, "ACCUMULATORS P", "kept from\nframe to frame", KEPT),
    "snapshots": (6.7, 2.27, "SNAPSHOTS I", "kept from frame to frame", KEPT),
}
"""Name: centre, title, what it does, colour."""


def box(axes, x: float, y: float, title: str, text: str, colour: str, high: float) -> None:
    """A rounded box with a bold first line."""
    axes.add_patch(FancyBboxPatch((x - WIDE / 2, y - high / 2), WIDE, high, boxstyle="round,pad=0,rounding_size=0.12",
                                  facecolor=colour, edgecolor=GREEN if colour == KEPT else BLUE, linewidth=1.4))
    axes.text(x, y + high / 2 - 0.2, title, ha="center", va="center", fontsize=10, weight="bold", color=INK)
    axes.text(x, y - 0.13, text, ha="center", va="center", fontsize=8.5, color=INK, linespacing=1.15)


def arrow(axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, both: bool = False) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="<|-|>" if both else "-|>", mutation_scale=13, linewidth=1.6,
                                   color=colour, shrinkA=0, shrinkB=0))


def draw() -> Figure:
    """The whole picture."""
    figure = Figure(figsize=(10.8, 4.5), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 10.8), ylim=(0, 4.5))
    axes.axis("off")
    for name, (x, y, title, text, colour) in BOXES.items():
        box(axes, x, y, title, text, colour, 0.66 if name == "snapshots" else HIGH)
    for left, right in (("sweep", "nonlinear"), ("nonlinear", "delta"), ("delta", "lnzd")):
        arrow(axes, (BOXES[left][0] + WIDE / 2, 3.55), (BOXES[right][0] - WIDE / 2, 3.55))
    arrow(axes, (9.3, 3.55 - HIGH / 2), (9.3, 1.0 + HIGH / 2))
    arrow(axes, (9.3 - WIDE / 2, 1.0), (5.4 + WIDE / 2, 1.0))
    arrow(axes, (5.4 - WIDE / 2, 1.0), (1.5 + WIDE / 2, 1.0))
    arrow(axes, (1.5, 1.0 + HIGH / 2), (1.5, 3.55 - HIGH / 2))
    arrow(axes, (6.7, 3.55 - HIGH / 2), (6.7, 2.27 + 0.33), GREEN, both=True)
    arrow(axes, (6.7, 4.42), (6.7, 3.55 + HIGH / 2), GREY)
    axes.text(6.58, 4.25, "frame", ha="right", va="center", fontsize=9.5, color=GREY)
    arrow(axes, (1.5, 1.0 - HIGH / 2), (1.5, 0.12), GREY)
    axes.text(1.62, 0.26, "outputs", ha="left", va="center", fontsize=9.5, color=GREY)
    axes.text(9.18, 2.27, "one delta\na cycle", ha="right", va="center", fontsize=8.5, color=GREY)
    axes.text(1.62, 2.27, "one turn of the ring\nper layer", ha="left", va="center", fontsize=8.5, color=GREY)
    return figure


def main(out: str) -> None:
    """Write the picture in the format of the file's name."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ring", "font.family": "sans-serif",
                                "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"]})
    draw().savefig(out, dpi=100, metadata={"Date": None} if out.endswith(".svg") else None)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("ring.svg")))
