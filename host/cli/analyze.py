"""``rrm-fpga analyze``: what a clip costs a network, layer by layer, and what computing only changes saves."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from host.cli import options as o


def analyze(
        network: Annotated[Path, typer.Argument(metavar="MODEL", help="The network, .onnx or .rrm.")],
        source: Annotated[str, typer.Argument(metavar="CLIP", help="Video file, image folder or stream URL.")],
        backend: Annotated[str, typer.Option(
            metavar="NAME", help="model: cycles as the cycle model predicts them. rtl: as the accelerator takes them, "
                                 "in compiled simulation; it runs the clip twice.")] = "model",
        config: Annotated[str | None, typer.Option(
            metavar="NAME", help="Accelerator: a board or preset; by default what an .rrm file is compiled for, else "
                                 "sim64.")] = None,
        frames: Annotated[int, typer.Option(min=1, metavar="N", help="Stop after N frames.")] = 24,
        fps: Annotated[float | None, typer.Option(metavar="F", help="Frames per second to take.")] = None,
        noise: Annotated[float, typer.Option(
            min=0.0, metavar="SIGMA", help="Add Gaussian noise to every pixel, as sensors do.")] = 0.0,
        seed: Annotated[int, typer.Option(min=0, metavar="S", help="Seed of --noise.")] = 0,
        threshold: Annotated[int | None, typer.Option(
            min=0, max=255, metavar="T", show_default=False, help="As of `infer`.")] = None,
        epsilon: Annotated[float | None, typer.Option(
            min=0.0, metavar="E", show_default=False, help="As of `infer`.")] = None,
        mode: Annotated[Literal["hold", "truncate"], typer.Option(help="As of `infer`.")] = "hold",
        refresh: Annotated[str, typer.Option(metavar="auto|never|N", help="As of `infer`.")] = "auto",
        max_error: Annotated[float | None, typer.Option(
            metavar="E", show_default=False, help="As of `infer`.")] = None,
        clock: Annotated[float, typer.Option(
            min=0.001, metavar="MHZ", help="Clock for which times are given; 100 MHz is that of the Arty A7.")] = 100.0,
        baud: Annotated[float, typer.Option(
            min=1.0, metavar="BAUD", help="Of the serial link; 6 Mbaud is that of the Arty A7.")] = 6e6,
        json: Annotated[Path | None, typer.Option(
            metavar="FILE", help="All figures, per layer and per frame, as one JSON object.")] = None,
        charts: Annotated[Path | None, typer.Option(
            metavar="DIR", help="PNG charts: layers, time, tradeoff, threshold, error. The last two take some more "
                                "runs of the model.")] = None,
        calibrate: o.CalibrateOption = None,
        weights: o.WeightsOption = "auto",
        preset: o.PresetOption = None) -> None:
    """Measure what computing only changes saves, per layer and overall, against the same engine frame by frame.

    Sparsity (eq. 9 of the paper), complexity (eq. 6) and theoretical speed-up (eq. 10) count convolutions and fully
    connected layers, with MACs that land inside the image. Cycles, load balance and bytes are of the whole network.

    Examples:

        rrm-fpga analyze net.onnx clip.mp4 --charts charts/
        rrm-fpga analyze net.rrm clip.mp4 --backend rtl --threshold 2 --json analysis.json
    """
    from host import analysis_report as report
    from host.aecs import SECTION as ERRORS
    from host.aecs import ErrorModel
    from host.analysis import Rule, analyse
    from host.cli.calibrate import calibrated
    from host.cli.terminal import progress, show, waiting
    from host.configs import named, program_for
    from host.devices import open_device
    from host.errors import UserError
    from host.output import JsonLines, check_writable
    from host.refresh import SECTION as CUTS
    from host.refresh import RefreshRule, with_rule
    from host.session import CALIBRATION_FRAMES
    from host.thresholds import chosen
    from host.video import open_source, sample_frames

    if json is not None:
        check_writable(json)
    if charts is not None:
        _folder(charts)
    if backend not in ("model", "rtl"):
        raise UserError(f"--backend {backend}: analyze takes model or rtl; --config names the accelerator")
    model = o.PictureOptions(preset, *[None] * 7).open_model(network)
    sampled = cache(lambda: sample_frames(calibrate or source, CALIBRATION_FRAMES, noise, seed))
    model = calibrated(model, sampled, weights, wanted=calibrate is not None)
    program = program_for(model, None if config is None else named(config))
    policy = int(refresh) if refresh.isdecimal() else refresh
    if policy == "auto" and CUTS not in model.sections:
        model = with_rule(model, sampled(), program.config.rows, program.config.sweep)
    sections, limits = model.sections, chosen(model, threshold, epsilon)
    rule = Rule(limits, mode, policy, max_error,
                RefreshRule.from_section(sections[CUTS]) if CUTS in sections else None,
                ErrorModel.from_section(sections[ERRORS]) if ERRORS in sections else None)
    device = None
    if backend == "rtl":
        with waiting() as say:
            device = open_device(backend if config is None else f"{backend}:{config}", say)
            device.load(model, limits, mode)
    with (open_source(source, fps=fps, noise=noise, seed=seed) as clip,
          progress("analysing", min(frames, clip.total or frames)) as done):
        found = analyse(model, islice(clip, frames), rule, program, device, done)
    if device is not None:
        device.close()
    label = f"{found.network} on {Path(source).name}, " + (
        "exact" if rule.exact else f"{mode} {limits if isinstance(limits, int) else 'by tensor'}")
    print(f"{label}, config {found.config} ({program.config.rows} rows)")
    show(report.layer_table(found))
    show(report.totals_table(found, clock * 1e6, baud))
    if json is not None:
        run = {"clip": source, "fps": fps, "noise": noise, "seed": seed, "threshold": limits, "mode": mode,
               "refresh": refresh, "max_error": max_error}
        with JsonLines(json) as out:
            out.write(report.as_dict(found, run, clock * 1e6, baud))
            out.commit()
    if charts is not None:
        with open_source(source, fps=fps, noise=noise, seed=seed) as clip:
            report.draw(charts, found, model, islice(clip, frames), rule, label, clock * 1e6, baud)
        print(f"charts in {charts}")


def _folder(path: Path) -> None:
    """Make the folder if need be. Raises UserError when that cannot be done."""
    from host.errors import UserError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make this folder: {error.strerror}") from error
