"""Faces from the raw heads of an SSD network such as UltraFace.

Priors and variances: Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from PIL import Image

from host import draw
from host.errors import UserError
from host.heads.base import Box, Head, Outputs, check_probability, softmax, take
from host.heads.boxes import detections, draw_boxes
from host.preprocess import Placement


@dataclass(frozen=True)
class SsdFaces(Head):
    """Per level an output of scores [1, A * (1 + names), H, W] and one of offsets [1, A * 4, H, W].

    scores, offsets
        ONNX names, one per level; class 0 of the scores is the background.
    strides, min_boxes
        per level the pixels of a cell and the sides of its A square priors.
    variances
        of centre and size: ``centre = prior + offset * v0 * side``, ``size = side * exp(offset * v1)``.
    """

    kind: ClassVar[str] = "ssd_faces"
    scores: tuple[str, ...]
    offsets: tuple[str, ...]
    strides: tuple[int, ...]
    min_boxes: tuple[tuple[float, ...], ...]
    variances: tuple[float, float] = (0.1, 0.2)
    names: tuple[str, ...] = ("face",)
    threshold: float = 0.7
    overlap: float = 0.3

    def __post_init__(self) -> None:
        check_probability(threshold=self.threshold, overlap=self.overlap)
        for name in ("offsets", "strides", "min_boxes"):
            if len(getattr(self, name)) != len(self.scores):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries, but scores has {len(self.scores)}"
                )

    def decode(self, outputs: Outputs, placement: Placement) -> list[Box]:
        scores, boxes = [], []
        for name, offset_name, stride, sides in zip(
            self.scores, self.offsets, self.strides, self.min_boxes, strict=True
        ):
            classes = self._rows(take(outputs, name, self.kind), name, len(sides), 1 + len(self.names))
            offsets = self._rows(take(outputs, offset_name, self.kind), offset_name, len(sides), 4)
            priors = _priors(outputs[name].shape[2:], stride, sides, placement.picture)
            if len(offsets) != len(priors):
                raise UserError(f"[head] ssd_faces: outputs '{name}' and '{offset_name}' differ in size")
            centre = priors[:, :2] + offsets[:, :2] * self.variances[0] * priors[:, 2:]
            half = priors[:, 2:] * np.exp(offsets[:, 2:] * self.variances[1]) / 2
            scores.append(softmax(classes)[:, 1:])
            boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        return detections(
            np.concatenate(boxes), np.concatenate(scores), self.names, self.threshold, self.overlap, placement
        )

    def draw(
        self, image: Image.Image, detections: Sequence[Box], colour: draw.Colour = draw.GREEN
    ) -> Image.Image:
        return draw_boxes(image, detections, colour)

    def _rows(self, output: np.ndarray, name: str, anchors: int, values: int) -> np.ndarray:
        """[1, A * values, H, W] -> [H * W * A, values]."""
        if output.ndim != 4 or output.shape[1] != anchors * values:
            raise UserError(
                f"[head] ssd_faces: output '{name}' has shape {output.shape}; {anchors} priors need "
                f"{anchors * values} channels"
            )
        return (
            output[0].reshape(anchors, values, -1).transpose(2, 0, 1).reshape(-1, values).astype(np.float64)
        )


@lru_cache(maxsize=16)
def _priors(
    cells: tuple[int, int], stride: int, sides: tuple[float, ...], picture: tuple[int, int]
) -> np.ndarray:
    """Priors [H * W * A, 4] as centre x, y, width, height, clamped to the picture as in training."""
    y, x, a = np.meshgrid(np.arange(cells[0]), np.arange(cells[1]), np.arange(len(sides)), indexing="ij")
    side = np.asarray(sides, np.float64)[a]
    priors = np.stack([(x + 0.5) * stride, (y + 0.5) * stride, side, side], axis=-1).reshape(-1, 4)
    return np.minimum(priors, [*picture, *picture])
