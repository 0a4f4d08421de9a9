"""Boxes as arrays: overlap, non-maximum suppression, drawing. A box is x0, y0, x1, y1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from host import draw
from host.heads.base import Box
from host.preprocess import Placement


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes a [N, 4] with boxes b [M, 4]: [N, M], 0 where both are empty."""
    a, b = np.asarray(a, np.float64).reshape(-1, 1, 4), np.asarray(b, np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.prod(np.maximum(sides, 0), axis=-1)
    union = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Greedy non-maximum suppression: the kept indices, best score first.

    A box goes when its IoU with a better kept one is above ``overlap``.
    """
    left = np.argsort(-np.asarray(scores), kind="stable")
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[iou(boxes[best], boxes[left])[0] <= overlap]
    return np.array(kept, np.int64)


def detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    threshold: float,
    overlap: float,
    placement: Placement,
) -> list[Box]:
    """Boxes [N, 4] in the picture, scores [N, classes] -> suppressed per class, in the frame, best first."""
    found = []
    for c, name in enumerate(names):
        candidates = np.flatnonzero(scores[:, c] >= threshold)
        kept = candidates[suppress(boxes[candidates], scores[candidates, c], overlap)]
        framed = placement.boxes_to_frame(boxes[kept]).tolist()
        found += [Box(*box, float(s), name) for box, s in zip(framed, scores[kept, c], strict=True)]
    return sorted(found, key=lambda box: -box.score)


def draw_boxes(image: Image.Image, found: Sequence[Box], colour: draw.Colour) -> Image.Image:
    """Boxes with class name and score, drawn in place."""
    draw.boxes(
        image, np.array([box.corners for box in found]), [f"{b.name} {b.score:.2f}" for b in found], colour
    )
    return image
