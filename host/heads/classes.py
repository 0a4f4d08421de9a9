"""Classification of the whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from host import draw
from host.errors import UserError
from host.heads.base import Head, Label, Outputs, softmax, take
from host.preprocess import Placement


@dataclass(frozen=True)
class Classes(Head):
    """The best ``top`` classes of one output with a score for each class.

    names
        of all classes in order; empty shows "class 281".
    logits
        true when the output is not yet a probability, so that a softmax is due.
    scale, zero_point
        of an integer output that arrives as stored: ``real = (q - zero_point) * scale``.
    """

    kind: ClassVar[str] = "classes"
    names: tuple[str, ...] = ()
    output: str = ""
    logits: bool = False
    top: int = 1
    scale: float = 1.0
    zero_point: int = 0

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top is {self.top}; it must be at least 1")
        if self.scale <= 0:
            raise ValueError(f"scale is {self.scale}; it must be above 0")

    def decode(self, outputs: Outputs, placement: Placement) -> list[Label]:
        values = np.asarray(take(outputs, self.output, self.kind))
        if np.issubdtype(values.dtype, np.integer):
            values = (values.astype(np.float64) - self.zero_point) * self.scale
        scores = softmax(values.ravel()) if self.logits else values.ravel()
        if self.names and len(self.names) != scores.size:
            raise UserError(
                f"[head] classes: {len(self.names)} names, but the network's output has {scores.size} classes"
            )
        best = np.argsort(-scores, kind="stable")[: self.top]
        return [Label(self._name(i), float(scores[i]), i) for i in best.tolist()]

    def draw(
        self, image: Image.Image, detections: Sequence[Label], colour: draw.Colour = draw.GREEN
    ) -> Image.Image:
        draw.caption(image, "\n".join(f"{d.name}  {d.score:.2f}" for d in detections), colour)
        return image

    def _name(self, index: int) -> str:
        return self.names[index] if self.names else f"class {index}"
