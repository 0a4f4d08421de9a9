"""Super-resolution of the luma: the network's output is the picture itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from host import draw
from host.errors import UserError
from host.heads.base import Head, Outputs, take
from host.preprocess import Placement


@dataclass(frozen=True, eq=False)
class Picture:
    """An enlarged luma, uint8[H, W], and ``region`` (x0, y0, x1, y1) of the frame that it shows."""

    luma: np.ndarray
    region: tuple[float, float, float, float]

    def as_dict(self) -> dict:
        height, width = self.luma.shape
        return {
            "size": [width, height],
            "region": [round(v, 1) for v in self.region],
            "mean": round(self.luma.mean(), 3),
        }


@dataclass(frozen=True)
class SuperRes(Head):
    """An output [1, 1, H, W] of luma; ``scale`` makes pixels 0..255 of it; colour comes from the frame."""

    kind: ClassVar[str] = "superres"
    output: str = ""
    scale: float = 255.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale is {self.scale}; it must be above 0")

    def decode(self, outputs: Outputs, placement: Placement) -> list[Picture]:
        values = take(outputs, self.output, self.kind)
        if values.ndim != 4 or values.shape[:2] != (1, 1):
            raise UserError(
                f"[head] superres: the output has shape {values.shape}; it must be [1, 1, height, width]"
            )
        luma = np.clip(np.rint(values[0, 0] * self.scale), 0, 255).astype(np.uint8)
        region = placement.boxes_to_frame([0, 0, *placement.picture])[0]
        factor = np.array(luma.shape[::-1]) / placement.picture
        (x0, y0), (x1, y1) = np.rint(placement.to_picture(region.reshape(2, 2)) * factor).astype(int).tolist()
        return [Picture(luma[y0:y1, x0:x1], tuple(region.tolist()))]

    def draw(
        self, image: Image.Image, detections: Sequence[Picture], colour: draw.Colour = draw.GREEN
    ) -> Image.Image:
        picture = detections[0]
        small = image.convert("YCbCr")
        size = picture.luma.shape[::-1]
        _, cb, cr = small.resize(size, Image.Resampling.BICUBIC, box=picture.region).split()
        return Image.merge("YCbCr", (Image.fromarray(picture.luma), cb, cr)).convert("RGB")
