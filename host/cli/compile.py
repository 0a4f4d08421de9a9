"""``rrm-fpga compile``: quantise a network once, for every later run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from host.cli import options as o

_COMPRESSION = "Compression"

def compile_network(
        network: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The network.")],
        output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.rrm", help="File to write.")],
        board: Annotated[str | None, typer.Option(
            metavar="NAME", help="Also compile the program for this board, such as arty_a7 or ulx3s.")] = None,
        variant: Annotated[str | None, typer.Option(
            metavar="NAME", help="The variant of --board, such as 100; its first one if not given.")] = None,
        config: Annotated[str | None, typer.Option(
            metavar="NAME", help="The same for an accelerator by name: a board, or a preset of the simulator "
                                 "(sim64: 64 rows, memories sized to the network).")] = None,
        calibrate: o.CalibrateOption = None,
        weights: o.WeightsOption = "auto",
        prune: Annotated[float | None, typer.Option(
            min=0.0, metavar="P", rich_help_panel=_COMPRESSION, show_default=False,
            help="Set this share of every layer's weights to zero, the smallest first (0.67: two thirds); depthwise "
                 "and small layers, and those that come pruned, stay as they are. There is no retraining.")] = None,
        codebook: Annotated[Literal["16", "256"] | None, typer.Option(
            rich_help_panel=_COMPRESSION, show_default=False,
            help="Share the weights of every layer: that many 16-bit values by k-means, stored with 4-bit relative "
                 "indices (Deep Compression). The same as --weights codebook16 or codebook256.")] = None,
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
    give the same integers on every clip. With --board or --config it also holds the program and the memory images
    for that accelerator, and runs on no other; what each layer takes there is printed.

    Examples:

        rrm-fpga compile net.onnx --calibrate clip.mp4 -o net.rrm
        rrm-fpga compile net.onnx --calibrate clip.mp4 --board ulx3s -o net.rrm
        rrm-fpga compile net.onnx --calibrate clip.mp4 --prune 0.67 --codebook 16 -o small.rrm
    """
    from dataclasses import replace

    from host import compression, rrm_file
    from host.cli import version
    from host.cli.calibrate import calibrated
    from host.cli.terminal import show
    from host.compiler.stored import SECTION, to_section
    from host.configs import named
    from host.errors import UserError
    from host.output import check_writable
    from host.quantiser import accumulator_width
    from host.refresh import with_rule
    from host.report import layers, rate
    from host.session import CALIBRATION_FRAMES, needs_calibration
    from host.video import sample_frames

    check_writable(output)
    if board is not None and config is not None:
        raise UserError("--board and --config both name the accelerator; give one of them")
    if variant is not None and board is None:
        raise UserError("--variant is one of a board; name it with --board")
    accelerator = None if (board or config) is None else named(board or config, variant)
    model = o.PictureOptions(preset, head, size, colour, mean, scale, layout, resize).open_model(network)
    if model.network.graph.quantised:
        raise UserError(f"{network}: it is compiled already")
    if needs_calibration(model) and calibrate is None:
        raise UserError(f"{network}: its activations have no scales yet: give a clip that is like what the "
                        "network will see: --calibrate CLIP")
    if codebook is not None:
        if weights not in ("auto", f"codebook{codebook}"):
            raise UserError(f"--weights {weights} and --codebook {codebook} contradict each other; give one of them")
        weights = f"codebook{codebook}"
    original = model.network
    if prune is not None:
        model = replace(model, network=compression.pruned(original, prune))
    samples = [] if calibrate is None else sample_frames(calibrate, CALIBRATION_FRAMES)
    model = calibrated(model, lambda: samples, weights, wanted=calibrate is not None)
    model = with_rule(model, samples, *([] if accelerator is None else [accelerator.config.rows,
                                                                        accelerator.config.sweep]))
    found = compression.layers(original, model.network)
    if prune is not None or any(layer.codebook_bits for layer in found):
        show(compression.table(found, original.name))
        if samples:
            arrays = (model.sidecar.input.apply(frame, original.input) for frame in samples)
            pruning, both = compression.outputs_sqnr(original, model.network, arrays)
            print(f"  outputs: SQNR {both} dB against the network as imported"
                  + (f" ({pruning} dB by pruning alone)" if prune else "") + f", on {len(samples)} calibration frames")
    if accelerator is not None:
        program = accelerator.compile(model.network.graph)
        model = replace(model, sections={**model.sections, SECTION: to_section(program)})
        show(layers(program, model, calibrate))
        if accelerator.board is not None and calibrate is not None:
            print(f"  {accelerator.name}: at most {rate(program, accelerator, model, calibrate)}")
    rrm_file.save(output, model, f"rrm-fpga {version()}")
    width = accumulator_width(model.network.graph)
    print(f"{output}: {model.network.name}, {output.stat().st_size:,} bytes; accumulators need "
          f"{max(width.values())} of {model.network.graph.accumulator_bits} bits")
