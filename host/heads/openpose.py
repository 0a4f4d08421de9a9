"""Body poses from part heatmaps and part affinity fields (Cao et al. 2017, "Realtime Multi-Person 2D Pose
Estimation").

The channels are those of the COCO models of OpenPose as ordered by ildoonet/tf-pose-estimation: 18 parts and
the background, then 19 fields of two channels (x and y of the unit vector along a limb).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from host import draw
from host.errors import UserError
from host.heads.base import Head, Outputs, check_probability, take
from host.preprocess import Placement

PARTS = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
LIMBS = (
    (1, 2, 6), (2, 3, 7), (3, 4, 8), (1, 5, 10), (5, 6, 11), (6, 7, 12),
    (1, 8, 0), (8, 9, 1), (9, 10, 2), (1, 11, 3), (11, 12, 4), (12, 13, 5),
    (1, 0, 14), (0, 14, 15), (14, 16, 17), (0, 15, 16), (15, 17, 18), (2, 16, 9), (5, 17, 13),
)  # fmt: skip
"""(part, part, its affinity field); the last two, shoulder to ear, join parts but are not drawn."""
_SAMPLES = 10
_BODY = 17
"""The first limbs, those that are drawn."""


@dataclass(frozen=True)
class Pose:
    """One body: ``points[18]`` is (x, y, score) or None per part, ``score`` the mean of the parts found."""

    points: tuple[tuple[float, float, float] | None, ...]
    score: float

    def as_dict(self) -> dict:
        found = {
            name: [round(point[0], 1), round(point[1], 1), round(point[2], 4)]
            for name, point in zip(PARTS, self.points, strict=True)
            if point is not None
        }
        return {"score": round(self.score, 4), "points": found}


@dataclass(frozen=True)
class OpenPose(Head):
    """One output [1, 57, H, W].

    threshold
        a part is a peak of its heatmap at least this high.
    affinity
        a limb's field along the line must reach this in most of its samples, and on the mean.
    parts
        a body has at least this many parts.
    """

    kind: ClassVar[str] = "openpose"
    output: str = ""
    threshold: float = 0.15
    affinity: float = 0.1
    parts: int = 4

    def __post_init__(self) -> None:
        check_probability(threshold=self.threshold, affinity=self.affinity)
        if self.parts < 1:
            raise ValueError(f"parts is {self.parts}; it must be at least 1")

    def decode(self, outputs: Outputs, placement: Placement) -> list[Pose]:
        maps = take(outputs, self.output, self.kind)
        if maps.ndim != 4 or maps.shape[1] != 57:
            raise UserError(
                f"[head] openpose: the output has shape {maps.shape}; it must be [1, 57, height, width]"
            )
        maps = np.asarray(maps[0], np.float64)
        part, xy, score = peaks(maps[: len(PARTS)], self.threshold)
        bodies = _assemble(part, _connect(part, xy, maps[19:].reshape(19, 2, *maps.shape[1:]), self.affinity))
        cell = np.array(placement.picture) / (maps.shape[2], maps.shape[1])
        framed = placement.to_frame((xy + 0.5) * cell)
        found = []
        for body in bodies:
            chosen = {part[i]: (float(framed[i, 0]), float(framed[i, 1]), float(score[i])) for i in body}
            if len(chosen) >= self.parts:
                points = tuple(chosen.get(p) for p in range(len(PARTS)))
                found.append(Pose(points, float(np.mean([score[i] for i in body]))))
        return sorted(found, key=lambda pose: -pose.score)

    def draw(
        self, image: Image.Image, detections: Sequence[Pose], colour: draw.Colour = draw.GREEN
    ) -> Image.Image:
        for pose in detections:
            joined = [
                (pose.points[a], pose.points[b])
                for a, b, _ in LIMBS[:_BODY]
                if pose.points[a] and pose.points[b]
            ]
            draw.lines(image, np.array([(a[:2], b[:2]) for a, b in joined]), colour)
            draw.points(image, np.array([p[:2] for p in pose.points if p is not None]))
        return image


def peaks(heat: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local maxima of maps [C, H, W]: channel [N], position [N, 2] as (x, y) in cells and height [N].

    A parabola through the neighbours refines the position. Of equal neighbours the first in reading order is
    the maximum.
    """
    height, width = heat.shape[1:]
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    is_peak = heat >= threshold
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            neighbour = padded[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
            if (dy, dx) < (0, 0):
                is_peak &= heat > neighbour
            elif (dy, dx) > (0, 0):
                is_peak &= heat >= neighbour
    c, y, x = np.nonzero(is_peak)
    top = heat[c, y, x]
    shift_x = _vertex(padded[c, y + 1, x], top, padded[c, y + 1, x + 2])
    shift_y = _vertex(padded[c, y, x + 1], top, padded[c, y + 2, x + 1])
    return c, np.stack([x + shift_x, y + shift_y], axis=1), top


def _vertex(before: np.ndarray, top: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where in -0.5..0.5 the parabola through three values has its maximum; 0 at the border or when flat."""
    before, after = np.maximum(before, -1e9), np.maximum(after, -1e9)
    curve = 2 * top - before - after
    inside = (curve > 1e-9) & (curve < 1e8)
    return np.where(inside, (after - before) / (2 * np.where(inside, curve, 1)), 0.0)


def _connect(part: np.ndarray, xy: np.ndarray, fields: np.ndarray, affinity: float) -> list[tuple[int, int]]:
    """Pairs of peaks that a limb joins: per limb, greedily by the mean of its field along the line."""
    pairs = []
    for first, second, field in LIMBS:
        a, b = np.flatnonzero(part == first), np.flatnonzero(part == second)
        if not (a.size and b.size):
            continue
        mean, agreeing = _along(xy[a], xy[b], fields[field], affinity)
        mean = np.where(agreeing & (mean >= affinity), mean, -np.inf)
        while np.isfinite(mean.max()):
            i, j = np.unravel_index(int(np.argmax(mean)), mean.shape)
            pairs.append((int(a[i]), int(b[j])))
            mean[i], mean[:, j] = -np.inf, -np.inf
    return pairs


def _along(a: np.ndarray, b: np.ndarray, field: np.ndarray, affinity: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the field [2, H, W] along each line a [N, 2] to b [M, 2]; whether 7 of 10 samples agree."""
    line = b[None] - a[:, None]
    length = np.linalg.norm(line, axis=2, keepdims=True)
    unit = np.divide(line, length, out=np.zeros_like(line), where=length > 0)
    steps = np.linspace(0, 1, _SAMPLES)[:, None, None, None]
    at = np.rint(a[None, :, None] + steps * line[None]).astype(int)
    x, y = np.clip(at[..., 0], 0, field.shape[2] - 1), np.clip(at[..., 1], 0, field.shape[1] - 1)
    values = field[0, y, x] * unit[..., 0] + field[1, y, x] * unit[..., 1]
    return values.mean(axis=0), (values >= affinity).sum(axis=0) >= 0.7 * _SAMPLES


def _assemble(part: np.ndarray, pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Bodies as lists of peaks: pairs are joined where they share a peak, unless a part would occur twice."""
    bodies: list[dict[int, int]] = []
    for pair in pairs:
        new = {int(part[i]): i for i in pair}
        touching = [body for body in bodies if any(body.get(p) == i for p, i in new.items())]
        joined = dict(new)
        for body in touching:
            if any(joined.get(p, i) != i for p, i in body.items()):
                break
            joined |= body
        else:
            bodies = [body for body in bodies if body not in touching] + [joined]
    return [sorted(body.values()) for body in bodies]
