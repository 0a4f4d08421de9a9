"""Objects from the raw outputs of a YOLO network of version 3 or 4 (Redmon & Farhadi 2018, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from host import draw
from host.errors import UserError
from host.heads.base import Box, Head, Outputs, check_probability, sigmoid, take
from host.heads.boxes import detections, draw_boxes
from host.preprocess import Placement


@dataclass(frozen=True)
class Yolo(Head):
    """Outputs [1, A * (5 + classes), H, W]: per anchor x, y, w, h, objectness and a score for each class.

    anchors
        per output the A (width, height) in pixels of the network's picture.
    """

    kind: ClassVar[str] = "yolo"
    outputs: tuple[str, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    names: tuple[str, ...]
    threshold: float = 0.5
    overlap: float = 0.45

    def __post_init__(self) -> None:
        check_probability(threshold=self.threshold, overlap=self.overlap)
        if len(self.anchors) != len(self.outputs):
            raise ValueError(f"anchors has {len(self.anchors)} entries, but outputs has {len(self.outputs)}")

    def decode(self, outputs: Outputs, placement: Placement) -> list[Box]:
        levels = [
            self._level(
                take(outputs, name, self.kind), name, np.asarray(anchors, np.float64), placement.picture
            )
            for name, anchors in zip(self.outputs, self.anchors, strict=True)
        ]
        boxes, scores = (np.concatenate(part) for part in zip(*levels, strict=True))
        return detections(boxes, scores, self.names, self.threshold, self.overlap, placement)

    def draw(
        self, image: Image.Image, detections: Sequence[Box], colour: draw.Colour = draw.GREEN
    ) -> Image.Image:
        return draw_boxes(image, detections, colour)

    def _level(
        self, output: np.ndarray, name: str, anchors: np.ndarray, picture: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """One output -> boxes [N, 4], scores [N, classes] where the objectness reaches the threshold."""
        values = 5 + len(self.names)
        if output.ndim != 4 or output.shape[1] != len(anchors) * values:
            raise UserError(
                f"[head] yolo: output '{name}' has shape {output.shape}; {len(anchors)} anchors and "
                f"{len(self.names)} class(es) need {len(anchors) * values} channels"
            )
        grid = np.asarray(output[0], np.float64).reshape(len(anchors), values, *output.shape[2:])
        a, y, x = np.nonzero(sigmoid(grid[:, 4]) >= self.threshold)
        cell = grid[a, :, y, x]
        stride = np.array(picture) / (grid.shape[3], grid.shape[2])
        centre = (sigmoid(cell[:, :2]) + np.stack([x, y], axis=1)) * stride
        half = np.exp(cell[:, 2:4]) * anchors[a] / 2
        return np.concatenate([centre - half, centre + half], axis=1), sigmoid(cell[:, 4:5]) * sigmoid(
            cell[:, 5:]
        )
