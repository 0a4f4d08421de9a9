"""``hold`` against ``truncate`` with accumulated-error control: ``python -m benchmarks.drift [-o PAGE.md]``.

Networks of ../shared on one clip each, on the integer model. Error is ``||y - y0|| / ||y0||`` over the accelerator's
outputs, y0 those of the exact run. The error model H of every network (``rrm-fpga fit-error``) is fitted on the other
three clips, up to 120 frames of each, at thresholds 2, 4 and 8; no run but that with AECS refreshes after its first
frame, unless an accumulator could wrap otherwise. Density is the share of the dense MACs that is done, the refreshes
included.

Above the limit: share of the frames whose error is, and in parentheses of those that H, too, says so of. The latter
are the frames with which the limit is crossed: their outputs are out before the refresh, which is the next frame. In
the others H predicts too little, because the clip errs more than those to which H was fitted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from host.aecs import QUANTILE, SECTION, ErrorModel, relative_error
from host.charts import error_chart
from host.drift import Drift
from host.rrm_file import Model
from host.session import CALIBRATION_FRAMES, Session, open_model, quantised
from host.video import open_source, sample_frames

SHARED = Path(__file__).resolve().parents[2] / "shared"
CLIPS = {"asl": "asl_again_640x480_77f", "bottles": "bottles_still_640x360_200f", "cars": "cars_a_768x432_120f",
         "person": "person_walk_a_768x432_250f"}
RESNET, VWW, ULTRAFACE = "mlperftiny_resnet8_cifar10", "mlperftiny_vww_96", "ultraface_slim_320_rawheads"
CASES = ((RESNET, "person", 0.0), (RESNET, "person", 2.0), (RESNET, "asl", 0.0), (VWW, "person", 0.0),
         (ULTRAFACE, "asl", 0.0), (ULTRAFACE, "person", 0.0))
"""(network, clip, sigma of the noise)."""
THRESHOLDS = (2, 4, 8)
LIMITS = (0.1, 0.2)
"""Errors that AECS is to keep to."""
FITTED = 120
"""Most frames of each other clip from which the error model is fitted."""


@dataclass(frozen=True)
class Run:
    """A clip in one way: error, predicted error (nan: none) and density of every frame, and how many of them were
    refreshes after the first."""

    name: str
    errors: np.ndarray
    predicted: np.ndarray
    density: np.ndarray
    refreshes: int


def clip(key: str, noise: float, frames: int | None) -> list[np.ndarray]:
    """Frames uint8[H, W, 3] of a clip."""
    with open_source(SHARED / "clips" / f"{CLIPS[key]}.mp4", noise=noise, seed=1) as source:
        return list(islice(source, frames))


def prepared(stem: str, key: str, noise: float, quantile: float) -> Model:
    """The network, calibrated on its clip, with an error model fitted on the others."""
    path = SHARED / "clips" / f"{CLIPS[key]}.mp4"
    model = quantised(open_model(SHARED / "models" / f"{stem}.onnx", preset=stem),
                      sample_frames(path, CALIBRATION_FRAMES, noise, 1))
    pairs = []
    for other in (c for c in CLIPS if c != key):
        drift = Drift(model, THRESHOLDS)
        for frame in clip(other, noise, FITTED):
            drift.add(frame)
        pairs += [p for own in drift.pairs.values() for p in own]
    return replace(model, sections={SECTION: ErrorModel.fit(pairs, quantile).to_section()})


def run(model: Model, name: str, arrays: Sequence[np.ndarray], exact: Sequence[dict], **options) -> Run:
    """One run beside the outputs of the exact one."""
    session, errors, predicted, density, refreshes = Session(model, refresh="never", **options), [], [], [], -1
    for array, y0 in zip(arrays, exact, strict=True):
        stats = session.infer_array(array)[1]
        errors.append(relative_error(stats.detail.outputs, y0))
        predicted.append(stats.predicted_error)
        density.append(stats.density)
        refreshes += stats.refresh
    return Run(name, np.array(errors), np.array(predicted, float), np.array(density), refreshes)


def measure(stem: str, key: str, noise: float, frames: int | None, quantile: float) -> dict[str, Run]:
    """All runs of a case by name."""
    model = prepared(stem, key, noise, quantile)
    arrays = [model.sidecar.input.apply(f, model.network.input) for f in clip(key, noise, frames)]
    session = Session(model, refresh="never")
    exact = [dict(session.infer_array(a)[1].detail.outputs) for a in arrays]
    wanted = {"exact": {}}
    wanted |= {f"hold {t}": {"threshold": t} for t in (*THRESHOLDS[:1], 3, *THRESHOLDS[1:])}
    wanted |= {f"truncate {t}": {"threshold": t, "mode": "truncate"} for t in THRESHOLDS}
    largest = ErrorModel.from_section(model.sections[SECTION]).largest
    wanted |= {f"truncate {t} + AECS {limit}": {"threshold": t, "mode": "truncate", "max_error": limit}
               for limit in LIMITS if limit < largest for t in THRESHOLDS}
    return {name: run(model, name, arrays, exact, **options) for name, options in wanted.items()}


def table(runs: dict[str, Run]) -> list[str]:
    """Markdown rows."""
    lines = ["| | density | mean error | error of 95% of the frames | largest | above the limit | refreshes |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for r in runs.values():
        limit = float(r.name.rpartition("AECS ")[2]) if "AECS" in r.name else None
        above = "" if limit is None else (f"{(r.errors > limit).mean():.1%} "
                                          f"({((r.errors > limit) & (r.predicted > limit)).mean():.1%})")
        lines.append(f"| {r.name} | {r.density.mean():.3f} | {r.errors.mean():.3f} | "
                     f"{np.quantile(r.errors, 0.95):.3f} | {r.errors.max():.3f} | {above} | {r.refreshes} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the page here too, and its chart beside it")
    parser.add_argument("--frames", type=int, help="at most so many frames of each clip")
    parser.add_argument("--network", choices=(RESNET, VWW, ULTRAFACE), action="append", help="only this one")
    parser.add_argument("--quantile", type=float, default=QUANTILE, help="as of rrm-fpga fit-error")
    options = parser.parse_args()
    lines = ["# Hold or truncate", "", "Written by `python -m benchmarks.drift`.", "",
             *__doc__.strip().splitlines()[2:]]
    for stem, key, noise in CASES:
        if options.network and stem not in options.network:
            continue
        began = time.perf_counter()
        runs = measure(stem, key, noise, options.frames, options.quantile)
        with_noise = f", noise sigma {noise:g}" if noise else ""
        title = f"{stem} on {CLIPS[key]}{with_noise}"
        lines += ["", f"## {title}", "", *table(runs)]
        print("\n".join(lines[-len(runs) - 4:]), f"\n{time.perf_counter() - began:.0f} s", flush=True)
        if options.output and (stem, key, noise) == CASES[0]:
            shown = ("truncate 4", f"truncate 4 + AECS {LIMITS[0]}", "hold 4", "exact")
            picture = options.output.with_name("drift.png")
            error_chart(picture, {n: runs[n].errors for n in shown if n in runs}, (), title=title)
            lines += ["", f"![Error after every frame]({picture.name})"]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
