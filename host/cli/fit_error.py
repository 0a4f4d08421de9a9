"""``rrm-fpga fit-error``: learn to predict the error of truncation, for ``infer --max-error``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fit_error(
        network: Annotated[Path, typer.Argument(metavar="MODEL.rrm", help="The compiled network.")],
        clips: Annotated[list[str], typer.Argument(
            metavar="CLIP...", help="Video files or image folders like what the network will see.")],
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="FILE.rrm", help="File to write; MODEL.rrm itself if not given.")] = None,
        threshold: Annotated[list[int] | None, typer.Option(
            min=2, max=255, metavar="T", show_default=False,
            help="Threshold to learn from; may be repeated. 2, 4 and 8 if not given.")] = None,
        frames: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N frames of each clip.")] = None,
        quantile: Annotated[float, typer.Option(
            min=0.5, max=0.999, metavar="Q", help="Share of the frames whose error is to stay below the "
                                                  "prediction.")] = 0.95,
        noise: Annotated[float, typer.Option(min=0.0, metavar="SIGMA", help="As of `infer`.")] = 0.0,
        seed: Annotated[int, typer.Option(min=0, metavar="S", help="Seed of --noise.")] = 0) -> None:
    """Fit the error model of a compiled network and store it there.

    Every clip runs in mode truncate at every threshold beside the exact run. The polynomial of fourth order that
    predicts the error of the outputs from what was truncated so far (paper, eq. 7 and 8) is then what
    `infer --max-error` goes by.

    Example:

        rrm-fpga fit-error net.rrm clip1.mp4 clip2.mp4
        rrm-fpga infer my.mp4 --model net.rrm --mode truncate --threshold 4 --max-error 0.1
    """
    from dataclasses import replace
    from itertools import islice

    from host import rrm_file
    from host.aecs import SECTION, ErrorModel, shares_below
    from host.cli import version
    from host.cli.terminal import progress
    from host.drift import Drift
    from host.output import check_writable
    from host.video import open_source

    model = rrm_file.load(network)
    output = check_writable(network if output is None else output)
    thresholds, pairs = sorted(set(threshold or (2, 4, 8))), []
    for clip in clips:
        drift = Drift(model, thresholds)
        with open_source(clip, noise=noise, seed=seed) as source:
            total = min((n for n in (source.total, frames) if n is not None), default=None)
            with progress(f"running {source.name}", total) as show:
                for number, frame in enumerate(islice(source, frames), start=1):
                    drift.add(frame)
                    show(number)
            for t in thresholds:
                own = drift.pairs[t]
                print(f"  {source.name}, threshold {t}: {len(own)} frames; largest e_t "
                      f"{max((e for e, _ in own), default=0):,.4g}, error {max((x for _, x in own), default=0):.3g}")
                pairs += own
    fitted = ErrorModel.fit(pairs, quantile)
    model = replace(model, sections={**model.sections, SECTION: fitted.to_section()})
    rrm_file.save(output, model, f"rrm-fpga {version()}")
    print(f"{output}: error model from {fitted.pairs} frames, {shares_below(fitted, pairs):.1%} of them below it; it "
          f"predicts {fitted(fitted.low):.3g} at e_t {fitted.low:,.4g} to {fitted.largest:.3g} at {fitted.high:,.4g}")
