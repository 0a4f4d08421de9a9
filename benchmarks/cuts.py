"""What scene cuts cost with ``--refresh auto``: ``python -m benchmarks.cuts [-o PAGE.md]``.

A clip made of short pieces of the four clips of ../shared, each piece from another one, and a clip of nothing but cuts.
Cycles of the preset sim64 by the cycle model, over those of the same engine frame by frame (every projection fed with
values). The rule is fitted on four frames of the first clip alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.drift import CLIPS, RESNET, SHARED, VWW
from host.compiler import compile_graph
from host.cycles import CycleModel, observed_frame
from host.refresh import with_rule
from host.session import CALIBRATION_FRAMES, Session, open_model, quantised
from host.video import open_source, sample_frames
from hw.config import PRESETS
from sim.golden import GoldenModel
from sim.graph import Graph

PIECE, PIECES = 6, 8
"""Frames between two cuts; number of pieces."""


def pieces() -> list[np.ndarray]:
    """Frames uint8[H, W, 3]: PIECE of each clip in turn."""
    clips = [list(islice(open_source(SHARED / "clips" / f"{name}.mp4"), 20, 20 + PIECE * PIECES // len(CLIPS)))
             for name in CLIPS.values()]
    return [frame for i in range(PIECES)
            for frame in clips[i % len(clips)][i // len(clips) * PIECE:(i // len(clips) + 1) * PIECE]]


def cycles(graph: Graph, codes: Sequence[np.ndarray], threshold: int, refresh: Sequence[bool]) -> np.ndarray:
    """Predicted cycles int64[frames]."""
    model = GoldenModel(graph, threshold)
    changes = [observed_frame(model, c, r)[1] for c, r in zip(codes, refresh, strict=True)]
    return np.array([f.total for f in CycleModel(compile_graph(graph, PRESETS["sim64"], fit=True)).frames(changes)])


def measure(stem: str, threshold: int) -> str:
    """A row of the table."""
    first = SHARED / "clips" / f"{next(iter(CLIPS.values()))}.mp4"
    samples = sample_frames(first, CALIBRATION_FRAMES)
    model = quantised(open_model(SHARED / "models" / f"{stem}.onnx", preset=stem), samples)
    model = with_rule(model, samples)
    graph, frames = model.network.graph, pieces()
    direct = graph.with_parts(projections={k: replace(p, mode="direct") for k, p in graph.projections.items()})
    cells = []
    for clip in (frames, frames[::PIECE]):
        session = Session(model, threshold=threshold)
        refreshed = [session.infer(f)[1].refresh for f in clip]
        codes = [session.codes(model.sidecar.input.apply(f, model.network.input)) for f in clip]
        alone = cycles(direct, codes, threshold, [False] * len(codes))
        ours = cycles(graph, codes, threshold, refreshed)
        never = cycles(graph, codes, threshold, [i == 0 for i in range(len(codes))])
        at = np.arange(PIECE if clip is frames else 1, len(clip), PIECE if clip is frames else 1)
        cells += [f"{(never / alone)[at].max():.3f}", f"{(ours / alone)[at].max():.3f}",
                  f"{ours.sum() / alone.sum():.3f}", f"{sum(refreshed) - 1} of {len(at)} ({len(clip)})"]
    return f"| {stem} | {threshold} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the page here too")
    options = parser.parse_args()
    lines = ["# Scene cuts", "", "Written by `python -m benchmarks.cuts`.", "", *__doc__.strip().splitlines()[2:], "",
             "| network | threshold | dearest cut, deltas | dearest cut, auto | clip, auto "
             "| refreshes of cuts (frames) | only cuts: dearest, deltas | dearest, auto | clip, auto "
             "| refreshes of cuts (frames) |",
             "|---" * 10 + "|"]
    for stem in (RESNET, VWW):
        for threshold in (0, 2, 4):
            lines.append(measure(stem, threshold))
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
