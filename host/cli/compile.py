"""``rrm-fpga compile``: quantise a network once, for every later run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from host.cli import options as o


def compile_network(
        network: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The network.")],
        output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.rrm", help="File to write.")],
        calibrate: o.CalibrateOption = None,
        weights: o.WeightsOption = "auto",
        preset: o.PresetOption = None,
        head: o.HeadOption = None,
        size: o.SizeOption = None,
        colour: o.ColourOption = None,
        mean: o.MeanOption = None,
        scale: o.ScaleOption = None,
        layout: o.LayoutOption = None,
        resize: o.ResizeOption = None) -> None:
    """Quantise an ONNX network and store it, with its preprocessing and head, as an .rrm file.

    The file is accepted wherever a network is. It needs no calibration any more, so runs start at once and
    give the same integers on every clip.

    Example:

        rrm-fpga compile net.onnx --calibrate clip.mp4 -o net.rrm
    """
    from host import rrm_file
    from host.cli import version
    from host.cli.calibrate import calibrated
    from host.errors import UserError
    from host.output import check_writable
    from host.quantiser import accumulator_width
    from host.session import CALIBRATION_FRAMES, needs_calibration
    from host.video import sample_frames

    check_writable(output)
    model = o.PictureOptions(preset, head, size, colour, mean, scale, layout, resize).open_model(network)
    if model.network.graph.quantised:
        raise UserError(f"{network}: it is compiled already")
    if needs_calibration(model) and calibrate is None:
        raise UserError(f"{network}: its activations have no scales yet: give a clip that is like what the "
                        "network will see: --calibrate CLIP")
    model = calibrated(model, lambda: sample_frames(calibrate, CALIBRATION_FRAMES), weights,
                       wanted=calibrate is not None)
    rrm_file.save(output, model, f"rrm-fpga {version()}")
    width = accumulator_width(model.network.graph)
    print(f"{output}: {model.network.name}, {output.stat().st_size:,} bytes; accumulators need "
          f"{max(width.values())} of {model.network.graph.accumulator_bits} bits")
