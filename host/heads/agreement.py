"""Agreement of two decodings of the same frame: do two versions of a network decide the same?

It is called agreement, not accuracy: nobody says that either is right. 1 is the same decision, 0 is nothing in common.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from host.heads.base import Box, Label
from host.heads.boxes import iou
from host.heads.keypoints import Keypoint
from host.heads.openpose import Pose
from host.heads.raw import Summary
from host.heads.superres import Picture

OVERLAP = 0.5
"""Intersection over union from which on two boxes are the same."""
NEAR = 3.0
"""Pixels within which two keypoints are the same."""
PARTS_NEAR = 0.02
"""Share of the frame's diagonal within which two body parts are the same (about a cell of the heat maps)."""


def agreement(a: Sequence, b: Sequence, frame_size: tuple[int, int]) -> float:
    """Of the detections of one head in one frame of (width, height).

    Classes: the best is the same. Boxes, keypoints and the parts of bodies: pairs, best overlap or nearest first, each
    once; 2 * pairs / (number in a + number in b), 1 when there are none at all. Pictures: share of the pixels
    that differ by at most one code. Raw outputs: share whose largest value is at the same place.

    Raises TypeError for anything else.
    """
    if not a and not b:
        return 1.0
    kind = type((*a, *b)[0])
    if kind is Label:
        return float(bool(a) and bool(b) and a[0].name == b[0].name)
    if kind is Summary:
        return float(np.mean([x.place == y.place for x, y in zip(a, b, strict=True)]))
    if kind is Picture:
        return float(np.mean([(np.abs(x.luma.astype(int) - y.luma) <= 1).mean() for x, y in zip(a, b, strict=True)]))
    if kind is Box:
        return _paired(_boxes(a, b))
    if kind is Keypoint:
        return _paired(_points([(0, p.x, p.y) for p in a], [(0, p.x, p.y) for p in b], NEAR))
    if kind is Pose:
        near = PARTS_NEAR * float(np.hypot(*frame_size))
        return _paired(_points(_parts(a), _parts(b), near))
    raise TypeError(f"detections of type {kind.__name__} cannot be compared")


def _paired(likeness: np.ndarray) -> float:
    """2 * pairs / all, from likeness [N, M], 0 where two cannot be a pair; greedy, best first."""
    n, m = likeness.shape
    left, pairs = likeness.copy(), 0
    while left.size and left.max() > 0:
        i, j = np.unravel_index(int(left.argmax()), left.shape)
        left[i], left[:, j] = 0, 0
        pairs += 1
    return 2 * pairs / (n + m) if n + m else 1.0


def _boxes(a: Sequence[Box], b: Sequence[Box]) -> np.ndarray:
    overlap = iou(np.array([x.corners for x in a]), np.array([x.corners for x in b]))
    same = np.array([[x.name == y.name for y in b] for x in a], bool).reshape(overlap.shape)
    return np.where(same & (overlap >= OVERLAP), overlap, 0.0)


def _points(a: list[tuple[int, float, float]], b: list[tuple[int, float, float]], near: float) -> np.ndarray:
    """Points as (kind, x, y)."""
    p, q = (np.array(points, float).reshape(-1, 3) for points in (a, b))
    distance = np.linalg.norm(p[:, None, 1:] - q[None, :, 1:], axis=2)
    same = p[:, None, 0] == q[None, :, 0]
    return np.where(same & (distance <= near), 1 / (1 + distance), 0.0)


def _parts(poses: Sequence[Pose]) -> list[tuple[int, float, float]]:
    return [(i, point[0], point[1]) for pose in poses for i, point in enumerate(pose.points) if point is not None]
