"""Options that several sub-commands share, and what they make of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import typer

Weights = Literal["auto", "int8", "codebook16", "codebook256"]

NETWORK = "Network"
PICTURE = "Preprocessing and head"

CalibrateOption = Annotated[str | None, typer.Option(
    "--calibrate", metavar="CLIP", rich_help_panel=NETWORK,
    help="Take the ranges of activations from 32 evenly spaced frames of this clip.")]
WeightsOption = Annotated[Weights, typer.Option(
    "--weights", rich_help_panel=NETWORK,
    help="How to quantise: int8 per channel, or 16-bit values from a codebook of 16 or 256; auto chooses a "
         "codebook for networks that are pruned and shared already.")]
PresetOption = Annotated[str | None, typer.Option(
    "--preset", metavar="NAME", rich_help_panel=PICTURE,
    help="Those of a known network. Without it: MODEL.toml beside the network, else the preset of its name, "
         "else a guess.")]
HeadOption = Annotated[str | None, typer.Option(
    "--head", metavar="KIND", rich_help_panel=PICTURE,
    help="What the outputs mean, with the default fields of that kind; more in a sidecar.")]
SizeOption = Annotated[str | None, typer.Option(
    "--size", metavar="WxH", rich_help_panel=PICTURE, help="Size of the network's picture.")]
ColourOption = Annotated[str | None, typer.Option(
    "--colour", "--color", metavar="ORDER", rich_help_panel=PICTURE, help="rgb, bgr or grey.")]
MeanOption = Annotated[str | None, typer.Option(
    "--mean", metavar="M[,M,M]", rich_help_panel=PICTURE, help="Input value = (pixel - mean) * scale.")]
ScaleOption = Annotated[str | None, typer.Option(
    "--scale", metavar="S[,S,S]", rich_help_panel=PICTURE,
    help="See --mean; a fraction such as 1/255 will do.")]
LayoutOption = Annotated[str | None, typer.Option(
    "--layout", metavar="LAYOUT", rich_help_panel=PICTURE, help="nchw, nhwc or auto.")]
ResizeOption = Annotated[str | None, typer.Option(
    "--resize", metavar="HOW", rich_help_panel=PICTURE, help="stretch, letterbox or crop.")]


@dataclass(frozen=True)
class PictureOptions:
    """The preprocessing options as given; None is not given."""

    preset: str | None
    head: str | None
    size: str | None
    colour: str | None
    mean: str | None
    scale: str | None
    layout: str | None
    resize: str | None

    def open_model(self, path):
        """The model of a file with these options applied. Raises UserError where they do not fit."""
        from host.heads import head_for
        from host.session import open_model

        model = open_model(path, self.preset)
        names = ("size", "colour", "mean", "scale", "layout", "resize")
        changes = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        sidecar = model.sidecar.with_input(changes)
        if self.head is not None:
            sidecar = replace(sidecar, head=head_for({"kind": self.head}, "--head"))
        sidecar.input.picture_size(model.network.input)  # the check
        return replace(model, sidecar=sidecar)
