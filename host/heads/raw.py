"""Outputs whose meaning is not known: their largest values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from host import draw
from host.heads.base import Head, Outputs
from host.preprocess import Placement


@dataclass(frozen=True)
class Summary:
    """One output: its range, and the place of its largest value."""

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    place: tuple[int, ...]

    def as_dict(self) -> dict:
        return {
            "output": self.name,
            "shape": list(self.shape),
            "min": round(self.low, 5),
            "max": round(self.high, 5),
            "max_at": list(self.place),
        }


@dataclass(frozen=True)
class Raw(Head):
    """Range and largest value of every output."""

    kind: ClassVar[str] = "raw"

    def decode(self, outputs: Outputs, placement: Placement) -> list[Summary]:
        found = []
        for name, values in outputs.items():
            place = np.unravel_index(int(np.argmax(values)), values.shape)
            found.append(
                Summary(
                    name, values.shape, float(values.min()), float(values.max()), tuple(int(i) for i in place)
                )
            )
        return found

    def draw(
        self, image: Image.Image, detections: Sequence[Summary], colour: draw.Colour = draw.GREEN
    ) -> Image.Image:
        draw.caption(
            image, "\n".join(f"{d.name}: {d.high:.4g} at {list(d.place)}" for d in detections[:3]), colour
        )
        return image
