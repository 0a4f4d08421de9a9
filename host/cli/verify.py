"""``rrm-fpga verify``: the RTL against the golden model, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from host.cli import options as o


def verify(
        network: Annotated[Path, typer.Argument(metavar="MODEL", help="The network, .onnx or .rrm.")],
        source: Annotated[str, typer.Argument(metavar="SOURCE", help="Video file, image folder or stream URL.")],
        frames: Annotated[int, typer.Option(min=1, metavar="N", help="How many frames.")] = 3,
        threshold: Annotated[int, typer.Option(
            min=0, max=255, metavar="T", help="Send a change of at least T codes, as of `infer`.")] = 0,
        mode: Annotated[Literal["hold", "truncate"], typer.Option(
            help="What becomes of smaller changes, as of `infer`.")] = "hold",
        config: Annotated[str | None, typer.Option(
            metavar="NAME", help="Accelerator to simulate: a board or preset; by default what an .rrm file is compiled "
                                 "for, else sim64.")] = None,
        calibrate: o.CalibrateOption = None,
        weights: o.WeightsOption = "auto",
        preset: o.PresetOption = None) -> int:
    """Find the first difference between the RTL and the golden model.

    Every projection is read at its barrier, every tensor after its step, and every count of deltas and MACs
    after its frame. Exit code 0: all are equal; 1: they are not, and the first difference is printed (frame, step,
    tensor or projection, channel, y, x, expected, got).

    Examples:

        rrm-fpga verify net.onnx my.mp4
        rrm-fpga verify net.rrm my.mp4 --frames 2 --threshold 3
    """
    from itertools import islice

    from host.cli.calibrate import calibrated
    from host.cli.terminal import progress, waiting
    from host.link_device import RtlDevice
    from host.session import CALIBRATION_FRAMES, Session
    from host.simulator.compare import first_difference
    from host.video import open_source, sample_frames

    model = o.PictureOptions(preset, *[None] * 7).open_model(network)
    model = calibrated(model, lambda: sample_frames(calibrate or source, CALIBRATION_FRAMES), weights)
    with waiting() as say:
        session = Session(model, RtlDevice(config, say), threshold=threshold, mode=mode)
    done = 0
    with session, open_source(source) as clip, progress("verifying", frames) as show:
        def codes():
            nonlocal done
            for frame in islice(clip, frames):
                yield session.codes(session.model.sidecar.input.apply(frame, session.network.input))
                done += 1
                show(done)

        every = session.refresh_every
        refreshes = range(0, frames, every + 1) if every is not None else (0,)
        found = first_difference(session.device, codes(), threshold, mode, refreshes, at_once=range(1, frames, 2))
    if found is not None:
        print(found)
        return 1
    graph = session.network.graph
    print(f"{session.network.name}: {done} frames equal to the model: {len(graph.projections)} projections, "
          f"{len(graph.tensors)} tensors, deltas and MACs of every step")
    return 0
