"""Corners from a cell-softmax network (MagicPoint; DeTone et al., "SuperPoint", 2018), with trails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from host import draw
from host.errors import UserError
from host.heads.base import Head, Outputs, check_probability, take
from host.preprocess import Placement


@dataclass(frozen=True)
class Keypoint:
    """A corner at (x, y), in pixels of the frame, with a score 0..1."""

    x: float
    y: float
    score: float

    def as_dict(self) -> dict:
        return {"x": round(self.x, 2), "y": round(self.y, 2), "score": round(self.score, 4)}


def heat_map(logits: np.ndarray, cell: int) -> np.ndarray:
    """Probability of a corner at each pixel, float64[h*cell, w*cell].

    ``logits`` is [cell*cell, h, w]: the pixels of each cell row by row. One of them or none is the corner;
    "none" has the logit 0.
    """
    h, w = logits.shape[1:]
    top = np.maximum(logits.max(axis=0), 0).astype(np.float64)
    e = np.exp(logits - top)
    heat = e / (e.sum(axis=0) + np.exp(-top))
    return heat.reshape(cell, cell, h, w).transpose(2, 0, 3, 1).reshape(h * cell, w * cell)


def find_corners(heat: np.ndarray, threshold: float, radius: int, top: int) -> np.ndarray:
    """Corners of a heat map [H, W]: float64[N, 3] of x, y, score, best first; (0, 0) is a pixel's centre.

    A pixel's mass is the probability summed over 3x3 pixels, since a corner between pixels shares itself among
    them, across cells as well. Its score is the mass times the mass's share of the heat within ``radius`` pixels (a
    square): heat that lies along an edge makes no good corner anywhere on it. A pixel stays when its score is at
    least ``threshold`` and the best of that square; its place is the centroid of the 3x3 probabilities. At most
    ``top`` remain.
    """
    mass, rows, columns = _moments(heat)
    around = _over(heat, radius, np.sum)
    score = np.divide(mass**2, around, out=np.zeros_like(mass), where=around > 0)
    y, x = np.nonzero((score >= threshold) & (score == _over(score, radius, np.max)) & (score > 0))
    order = np.argsort(-score[y, x], kind="stable")
    y, x = y[order], x[order]
    found = np.stack([x + columns[y, x] / mass[y, x], y + rows[y, x] / mass[y, x], score[y, x]], axis=1)
    found = found[_apart(found, radius)][:top]
    return np.column_stack([found[:, :2], np.minimum(found[:, 2], 1.0)])


def _moments(heat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over 3x3 of the heat, of heat * dy and of heat * dx."""
    height, width = heat.shape
    padded = np.pad(heat, 1)
    shift = {(dy, dx): padded[1 + dy:1 + dy + height, 1 + dx:1 + dx + width]
             for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
    return (sum(shift.values()), sum(dy * part for (dy, _), part in shift.items()),
            sum(dx * part for (_, dx), part in shift.items()))


def _over(image: np.ndarray, radius: int, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    """Sum or largest value (``reduce``) within ``radius`` pixels on both axes; beyond its edge the image is 0."""
    for axis in (0, 1):
        padded = np.pad(image, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)])
        image = reduce(np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis), axis=-1)
    return image


def _apart(found: np.ndarray, radius: int) -> list[int]:
    """Indices of those (best first) without a better one near: breaks ties of equal scores."""
    kept: list[int] = []
    for index, (x, y, _) in enumerate(found):
        if all(max(abs(x - found[k, 0]), abs(y - found[k, 1])) > radius - 1 for k in kept):
            kept.append(index)
    return kept


class Trails:
    """Follows points from frame to frame: each goes on from the nearest one of the frame before.

    reach
        how far (pixels) a point may move between two frames.
    length
        positions remembered per trail.
    """

    def __init__(self, reach: float, length: int) -> None:
        self.reach, self.length = reach, length
        self.points = np.zeros((0, 2))
        self.trails: list[list[tuple[float, float]]] = []

    def follow(self, points: np.ndarray) -> list[list[tuple[float, float]]]:
        """The trail of each of ``points`` float[N, 2], oldest position first, its own last.

        Pairs are made by distance, nearest first, each point once. The same points again change nothing.
        """
        points = np.asarray(points, np.float64).reshape(-1, 2)
        if np.array_equal(points, self.points):
            return self.trails
        distance = np.linalg.norm(points[:, None] - self.points[None], axis=2)
        trails: list[list[tuple[float, float]]] = [[] for _ in points]
        free_new, free_old = np.ones(len(points), bool), np.ones(len(self.points), bool)
        for flat in np.argsort(distance, axis=None, kind="stable"):
            new, old = np.unravel_index(flat, distance.shape)
            if distance[new, old] > self.reach:
                break
            if free_new[new] and free_old[old]:
                free_new[new] = free_old[old] = False
                trails[new] = self.trails[old][1 - self.length:]
        for trail, (x, y) in zip(trails, points, strict=True):
            trail.append((float(x), float(y)))
        self.points, self.trails = points, trails
        return trails


@dataclass(frozen=True)
class Keypoints(Head):
    """Corners of an output [1, cell*cell, h, w] of logits; "no corner in this cell" has the logit 0.

    threshold
        least score, 0..1.
    radius
        no two corners are closer than this, in pixels of the network's picture.
    top
        at most so many corners, the best.
    trail
        positions drawn behind each corner; 0 or 1 draws none.
    """

    kind: ClassVar[str] = "keypoints"
    output: str = ""
    cell: int = 8
    threshold: float = 0.15
    radius: int = 3
    top: int = 300
    trail: int = 12
    _trails: dict[draw.Colour, Trails] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_probability(threshold=self.threshold)
        for name, least in (("cell", 1), ("radius", 1), ("top", 1), ("trail", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def decode(self, outputs: Outputs, placement: Placement) -> list[Keypoint]:
        logits = take(outputs, self.output, self.kind)
        if logits.ndim != 4 or logits.shape[:2] != (1, self.cell**2):
            raise UserError(f"[head] keypoints: the output has shape {logits.shape}; it must be "
                            f"[1, {self.cell**2}, height, width] for cell = {self.cell}")
        found = find_corners(heat_map(logits[0], self.cell), self.threshold, self.radius, self.top)
        scale = np.array(placement.picture) / [logits.shape[3] * self.cell, logits.shape[2] * self.cell]
        places = placement.to_frame((found[:, :2] + 0.5) * scale)
        inside = ((places >= 0) & (places <= placement.frame)).all(axis=1)
        return [Keypoint(float(x), float(y), float(score))
                for (x, y), score in zip(places[inside], found[inside, 2], strict=True)]

    def draw(self, image: Image.Image, detections: Sequence[Keypoint],
             colour: draw.Colour = draw.GREEN) -> Image.Image:
        """Dots with trails; the trails of each colour are followed from one call to the next."""
        if colour not in self._trails:
            self._trails[colour] = Trails(reach=min(image.size) / 20, length=max(1, self.trail))
        pen, width = ImageDraw.Draw(image, "RGBA"), draw.stroke(image.size)
        for trail in self._trails[colour].follow(np.array([(d.x, d.y) for d in detections])):
            for age, pair in enumerate(zip(trail[-2::-1], trail[:0:-1], strict=True)):
                opacity = round(255 * (1 - age / self.trail))
                pen.line([*pair[0], *pair[1]], fill=(*colour, opacity), width=width)
        draw.points(image, np.array([(d.x, d.y) for d in detections]), colour)
        return image
