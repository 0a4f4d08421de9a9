"""``rrm-fpga tune``: thresholds and modes for a network, within a limit of error or agreement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from host.cli import options as o


def tune(
        network: Annotated[Path, typer.Argument(metavar="MODEL", help="The network, .onnx or .rrm.")],
        source: Annotated[str, typer.Argument(metavar="CLIP", help="Video file or image folder.")],
        max_error: Annotated[float | None, typer.Option(
            min=0.0, metavar="E", help="Largest mean error of the outputs against the exact run, |y - y0| / |y0|; "
                                       "0.05 is 5%.")] = None,
        min_agreement: Annotated[float | None, typer.Option(
            min=0.0, max=1.0, metavar="A", help="Least mean agreement of the decisions (classes, boxes, keypoints) "
                                                "with the network in real numbers, 0..1.")] = None,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="FILE.rrm", help="Write the network with what was found; runs use it when they "
                                                       "name no threshold of their own.")] = None,
        config: Annotated[str | None, typer.Option(
            metavar="NAME", help="Accelerator: a board or preset; by default what an .rrm file is compiled for, else "
                                 "sim64.")] = None,
        frames: Annotated[int, typer.Option(
            min=4, metavar="N", help="Frames from the start of the clip: the first two thirds to search on, the "
                                     "rest to report on.")] = 24,
        noise: Annotated[float, typer.Option(min=0.0, metavar="SIGMA", help="As of `infer`.")] = 0.0,
        seed: Annotated[int, typer.Option(min=0, metavar="S", help="Seed of --noise.")] = 0,
        json: Annotated[Path | None, typer.Option(
            metavar="FILE", help="Everything that was measured, as one JSON object.")] = None,
        chart: Annotated[Path | None, typer.Option(metavar="FILE.png", help="The Pareto curve.")] = None,
        calibrate: o.CalibrateOption = None,
        weights: o.WeightsOption = "auto",
        preset: o.PresetOption = None) -> None:
    """Find the thresholds, tensor by tensor, that cost fewest cycles within a limit.

    Changes smaller than a tensor's threshold wait until they have added up to it (hold), so the error stays bounded.
    Projections that cost less when they are computed anew in every frame become direct. What is reported was measured
    on frames that the search has not seen.

    Examples:

        rrm-fpga tune net.onnx clip.mp4 --max-error 0.05 -o tuned.rrm
        rrm-fpga tune net.rrm clip.mp4 --min-agreement 0.95 --chart pareto.png -o tuned.rrm
    """
    from dataclasses import asdict, replace

    from host import charts, rrm_file, tuning
    from host.cli import version
    from host.cli.calibrate import calibrated
    from host.cli.terminal import note, show, waiting
    from host.compiler.stored import SECTION, to_section
    from host.configs import named, program_for
    from host.errors import UserError
    from host.output import JsonLines, check_writable
    from host.session import CALIBRATION_FRAMES
    from host.thresholds import SECTION as THRESHOLDS
    from host.video import open_source, sample_frames

    if max_error is None and min_agreement is None:
        raise UserError("tune needs a limit: --max-error E (0.05 is 5%) or --min-agreement A (0..1)")
    for path in (output, json, chart):
        if path is not None:
            check_writable(path)
    model = o.PictureOptions(preset, *[None] * 7).open_model(network)
    model = calibrated(model, lambda: sample_frames(calibrate or source, CALIBRATION_FRAMES, noise, seed), weights,
                       wanted=calibrate is not None)
    accelerator = None if config is None else named(config)
    program = program_for(model, accelerator)
    with open_source(source, frames=frames, noise=noise, seed=seed) as clip:
        pictures = list(clip)
    split = max(2, len(pictures) * 2 // 3)
    with waiting() as say:
        say("the exact run")
        bench = tuning.Bench(model, program, pictures[:split])
        limit = tuning.Limit(max_error, min_agreement)
        best, points = tuning.search(bench, limit, say)
        say("modes")
        graph = tuning.best_modes(program.graph, _compiler(program), bench.changes(best.thresholds))
        tuned = program if graph is program.graph else _compiler(program)(graph)
        say("the frames that the search has not seen")
        rules = {"exact": {}, "hold 2": _all(graph, 2), "hold 4": _all(graph, 4), "tuned thresholds": best.thresholds}
        rest = pictures[split:] if len(pictures) - split > 1 else pictures
        found = tuning.held_out(model, program, rest, rules)
        own = replace(model, network=replace(model.network, graph=graph))
        found += tuning.held_out(own, tuned, rest, {"tuned thresholds and modes": best.thresholds})
    show(_table(found, len(rest) - 1, [p for p in graph.projections.values() if p.mode == "direct"]))
    if not limit.kept(found[-1]):
        note("on those frames the limit is not kept; search on more --frames, or with a stricter limit")
    if json is not None:
        with JsonLines(json) as out:
            out.write({"network": model.network.name, "clip": source, "frames": len(pictures), "searched": split,
                       "max_error": max_error, "min_agreement": min_agreement, "best": best.as_dict(),
                       "direct": [p.name for p in graph.projections.values() if p.mode == "direct"],
                       "points": [p.as_dict() for p in points], "held_out": [asdict(f) for f in found]})
            out.commit()
    if chart is not None:
        charts.pareto_chart(chart, [(p.label, p.cycles, p.error, p.agreement) for p in points], max_error,
                            min_agreement, title=f"{model.network.name} on {Path(source).name}")
    if output is not None:
        sections = dict(own.sections) | {THRESHOLDS: dict(best.thresholds)}
        if SECTION in sections or accelerator is not None:
            sections[SECTION] = to_section(tuned)
        rrm_file.save(output, replace(own, sections=sections), f"rrm-fpga {version()}")
        print(f"{output}: {model.network.name} with {sum(t > 1 for t in best.thresholds.values())} thresholds of "
              f"{len(graph.tensors)} tensors")


def _all(graph, threshold: int) -> dict[str, int]:
    return dict.fromkeys(graph.tensors, threshold)


def _compiler(program):
    """Compiles a graph for the accelerator of a program; presets of the simulator grow with it."""
    from host.compiler import compile_graph
    from host.configs import boards

    fixed = any(b.config == program.config for b in boards())
    return lambda graph: compile_graph(graph, program.config, fit=not fixed)


def _table(found, frames: int, direct):
    from rich.table import Table

    table = Table("", title=f"On {frames} frames that the search has not seen", title_justify="left")
    for name in ("cycles a frame", "speed-up", "error of the outputs", "agreement"):
        table.add_column(name, justify="right")
    for row in found:
        table.add_row(row.label, f"{row.cycles:,.0f}", f"{row.speedup:.2f}", f"{row.error:.2%}", f"{row.agreement:.3f}")
    table.caption = ("cycles as the cycle model predicts them; speed-up against frame by frame; direct: "
                     + (", ".join(p.name.removesuffix("#P") for p in direct) or "none"))
    return table
