"""Synthetic grey pictures with known corners and junctions: all that the corner network learns from.

The recipe of MagicPoint (DeTone et al., "SuperPoint", 2018, section 4): polygons, strokes, stars,
checkerboards, stripes, cubes, ellipses (no corners) and plain noise, each through a random homography, then
lighting, blur and noise. A *corner* is a place where the picture turns, by these rules, none marked by hand:

1. a vertex of an outline that turns by at least ``TURN``, or a crossing of the outlines of two things;
2. not hidden by what was painted later;
3. visible: the structure tensor of the clean picture has a smaller eigenvalue of ``CONTRAST**2`` or more;
4. those closer than ``MERGE`` pixels are one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.raster import blur, contains, ellipse, fill, project, rotation, value_noise, warp

TURN = np.radians(28)
MERGE = 3.0
CONTRAST = 5.0
"""Least visible corner: root of the structure tensor's smaller eigenvalue, grey codes per pixel over 5x5."""
FAINT = 3.0
"""The same for textures, where corners count by how well they repeat."""


class Canvas:
    """A grey picture float32[H, W] (0..255) that remembers the corners of what is painted on it."""

    def __init__(self, ground: np.ndarray) -> None:
        self.image = ground
        self.outlines: list[tuple[int, np.ndarray]] = []
        self.corners = np.zeros((0, 2))
        self.groups = 0

    def paint(self, polygons: list[tuple[np.ndarray, np.ndarray | float]]) -> None:
        """Paint the polygons (points [K, 2], grey) of one thing; crossings count only between things."""
        for polygon, grey in polygons:
            fill(self.image, polygon, grey)
            hidden = contains(polygon, self.corners)
            fresh = [_vertices(polygon)]
            for index, (group, other) in enumerate(self.outlines):
                if group == self.groups:
                    continue
                points = _crossings(other, polygon)
                for later_group, later in self.outlines[index + 1:]:
                    if later_group != self.groups and len(points):
                        points = points[~contains(later, points)]
                fresh.append(points)
            self.corners = np.concatenate([self.corners[~hidden], *fresh])
        self.outlines += [(self.groups, polygon) for polygon, _ in polygons]
        self.groups += 1

    def visible_corners(self) -> np.ndarray:
        """float64[N, 2], by rules 3 and 4 of the module."""
        height, width = self.image.shape
        points = self.corners
        points = points[((points >= 0) & (points <= [width - 1, height - 1])).all(axis=1)]
        points = merge(points)
        x, y = np.rint(points).astype(int).T
        return points[smaller_eigenvalue(self.image)[y, x] >= CONTRAST**2]


def _vertices(polygon: np.ndarray) -> np.ndarray:
    """The vertices where the outline turns by at least TURN."""
    ahead = np.roll(polygon, -1, axis=0) - polygon
    behind = np.roll(ahead, 1, axis=0)
    cross = behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0]
    return polygon[np.abs(np.arctan2(cross, (behind * ahead).sum(axis=1))) >= TURN]


def _crossings(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Where the edges of two polygons cross, float64[N, 2]."""
    if (one.min(0) > two.max(0)).any() or (two.min(0) > one.max(0)).any():
        return np.zeros((0, 2))
    p, q = one[:, None], two[None]
    r, s = np.roll(one, -1, axis=0)[:, None] - p, np.roll(two, -1, axis=0)[None] - q
    scale = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]
    scale = np.where(np.abs(scale) < 1e-9, np.inf, scale)
    d = q - p
    t = (d[..., 0] * s[..., 1] - d[..., 1] * s[..., 0]) / scale
    u = (d[..., 0] * r[..., 1] - d[..., 1] * r[..., 0]) / scale
    # Two edges that cross at a very flat angle make no corner.
    flat = np.abs(scale) < np.sin(TURN) * np.linalg.norm(r, axis=-1) * np.linalg.norm(s, axis=-1)
    return (p + t[..., None] * r)[(t > 0) & (t < 1) & (u > 0) & (u < 1) & ~flat]


def merge(points: np.ndarray, distance: float = MERGE) -> np.ndarray:
    """Points closer than ``distance`` to an earlier one join it; each group becomes its mean."""
    if len(points) < 2:
        return points
    near = ((points[:, None] - points[None]) ** 2).sum(-1) < distance**2
    first = near.argmax(axis=1)
    return np.stack([points[first == k].mean(axis=0) for k in np.unique(first)])


def smaller_eigenvalue(image: np.ndarray) -> np.ndarray:
    """Smaller eigenvalue of the structure tensor over 5x5 pixels, float32[H, W] (Shi and Tomasi, 1994)."""
    gy, gx = np.gradient(image)
    xx, xy, yy = (_box5(product) for product in (gx * gx, gx * gy, gy * gy))
    return (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)


def _box5(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    padded = np.pad(image, 2, mode="edge")
    rows = sum(padded[k:k + height] for k in range(5))
    return sum(rows[:, k:k + width] for k in range(5)) / 25


def _quad(centre: np.ndarray, size: np.ndarray, angle: float) -> np.ndarray:
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2 @ rotation(angle).T + centre


def _view(rng: np.random.Generator, width: int, height: int, reach: float = 1.0) -> np.ndarray:
    """A random homography about the picture's centre: turn, stretch, tilt and shift, float64[3, 3]."""
    stretch = np.diag(np.exp(rng.uniform(-0.35, 0.35, 2) + rng.uniform(-0.3, 0.3)))
    place = np.eye(3)
    place[:2, :2] = rotation(rng.uniform(-np.pi, np.pi)) @ stretch @ rotation(rng.uniform(-np.pi, np.pi))
    place[2, :2] = rng.uniform(-1, 1, 2) * 0.5 / width
    shift = np.eye(3)
    shift[:2, 2] = np.array([width, height]) * (0.5 + rng.uniform(-0.35, 0.35, 2) * reach)
    return shift @ place


def _greys(rng: np.random.Generator, count: int, apart: float = 25) -> np.ndarray:
    """Random greys, neighbours at least ``apart``."""
    greys = rng.uniform(5, 250, count)
    for k in range(1, count):
        while abs(greys[k] - greys[k - 1]) < apart:
            greys[k] = rng.uniform(5, 250)
    return greys


def _ground(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Background: one grey, a gradient, or smooth texture."""
    image = np.full((height, width), rng.uniform(20, 235), np.float32)
    image += rng.uniform(0, 30) * value_noise(rng, height, width, rng.uniform(20, 80))
    if rng.random() < 0.4:
        image += rng.uniform(2, 14) * value_noise(rng, height, width, rng.uniform(3, 12))
    return np.clip(image, 0, 255)


def _polygons(rng: np.random.Generator, canvas: Canvas) -> None:
    height, width = canvas.image.shape
    for _ in range(rng.integers(1, 9)):
        sides = rng.integers(3, 7)
        turn = np.sort(rng.uniform(0, 2 * np.pi, sides))
        if np.diff(np.append(turn, turn[0] + 2 * np.pi)).min() < 0.4:
            turn = (np.arange(sides) + rng.uniform(-0.25, 0.25, sides)) * 2 * np.pi / sides
        reach = rng.uniform(0.6, 1, sides) * np.exp(rng.uniform(np.log(5), np.log(45)))
        outline = np.stack([np.cos(turn) * reach, np.sin(turn) * reach], 1)
        canvas.paint([(outline + rng.uniform(0, 1, 2) * [width, height], _texture(rng, canvas))])


def _texture(rng: np.random.Generator, canvas: Canvas) -> np.ndarray | float:
    """A grey, sometimes with texture."""
    grey = rng.uniform(5, 250)
    if rng.random() < 0.25:
        height, width = canvas.image.shape
        return grey + rng.uniform(3, 15) * value_noise(rng, height, width, rng.uniform(3, 15))
    return grey


def _strokes(rng: np.random.Generator, canvas: Canvas) -> None:
    height, width = canvas.image.shape
    for _ in range(rng.integers(1, 8)):
        ends = rng.uniform(0, 1, (2, 2)) * [width, height]
        way = ends[1] - ends[0]
        length = np.hypot(*way) + 8
        canvas.paint([(_quad(ends.mean(0), np.array([length, rng.uniform(1.2, 5)]), np.arctan2(*way[::-1])),
                       rng.uniform(5, 250))])


def _star(rng: np.random.Generator, canvas: Canvas) -> None:
    """Strokes from one centre, or a pointed star."""
    height, width = canvas.image.shape
    view = _view(rng, width, height)
    points, radius = rng.integers(3, 8), rng.uniform(15, 40)
    if rng.random() < 0.5:
        turn = np.arange(2 * points) * np.pi / points
        reach = radius * np.where(np.arange(2 * points) % 2, rng.uniform(0.25, 0.6), 1)
        canvas.paint([(project(view, np.stack([np.cos(turn) * reach, np.sin(turn) * reach], 1)),
                       _texture(rng, canvas))])
        return
    grey, thick = rng.uniform(5, 250), rng.uniform(1.5, 4)
    for turn in (np.arange(points) + rng.uniform(-0.3, 0.3, points)) * 2 * np.pi / points:
        bar = _quad(np.array([radius / 2, 0]), np.array([radius, thick]), 0)
        canvas.paint([(project(view, bar @ rotation(turn).T), grey)])


def _board(rng: np.random.Generator, canvas: Canvas) -> None:
    """Checkerboard, or stripes when it has one row; the squares' greys vary a little."""
    height, width = canvas.image.shape
    view = _view(rng, width, height)
    columns, rows = rng.integers(3, 9), rng.integers(3, 8) if rng.random() < 0.75 else 1
    x, y = (np.cumsum(np.append(0, rng.uniform(0.75, 1.25, n))) for n in (columns, rows))
    square = rng.uniform(7, 18) if rows > 1 else rng.uniform(5, 14)
    x, y = (x - x[-1] / 2) * square, (y - y[-1] / 2) * square * (1 if rows > 1 else rng.uniform(3, 8))
    greys = _greys(rng, 2, 40)
    jitter = rng.uniform(0, 8)
    squares = []
    for j, i in np.ndindex(rows, columns):
        box = np.array([[x[i], y[j]], [x[i + 1], y[j]], [x[i + 1], y[j + 1]], [x[i], y[j + 1]]])
        squares.append((project(view, box), greys[(i + j) % 2] + rng.uniform(-jitter, jitter)))
    canvas.paint(squares)


def _cube(rng: np.random.Generator, canvas: Canvas) -> None:
    """The three visible faces of a box."""
    height, width = canvas.image.shape
    turn, tilt = rng.uniform(0.2, np.pi / 2 - 0.2), rng.uniform(0.25, 0.8)
    a, b, c = rng.uniform(12, 35, 3)
    u = np.array([np.cos(turn), np.sin(turn) * np.sin(tilt)]) * a
    v = np.array([-np.sin(turn), np.cos(turn) * np.sin(tilt)]) * b
    w = np.array([0, np.cos(tilt)]) * c
    place = rotation(rng.uniform(-np.pi, np.pi))
    centre = rng.uniform(0.2, 0.8, 2) * [width, height]
    greys = _greys(rng, 4)[:3]
    if abs(greys[0] - greys[2]) < 20:
        greys[2] = (greys[0] + 60) % 250
    near = u + v
    faces = ([np.zeros(2), u, near, v], [u, near, near + w, u + w], [v, near, near + w, v + w])
    canvas.paint([(np.array(face) @ place.T + centre, grey) for face, grey in zip(faces, greys, strict=True)])


def _ellipses(rng: np.random.Generator, canvas: Canvas) -> None:
    """One to five ellipses apart from each other: outlines without a corner."""
    height, width = canvas.image.shape
    placed: list[tuple[np.ndarray, float]] = []
    for _ in range(rng.integers(1, 6)):
        radii = np.exp(rng.uniform(np.log(5), np.log(30))) * np.array([1, rng.uniform(0.5, 1)])
        centre = rng.uniform(0, 1, 2) * [width, height]
        if all(np.hypot(*(centre - c)) > radii.max() + r + 3 for c, r in placed):
            placed.append((centre, radii.max()))
            canvas.paint([(ellipse(centre, tuple(radii), rng.uniform(0, np.pi), 40), _texture(rng, canvas))])


def _clutter(rng: np.random.Generator, canvas: Canvas) -> None:
    """Several kinds at once, as in a real picture."""
    for kind in rng.choice(len(_KINDS) - 1, rng.integers(2, 4)):
        _KINDS[kind](rng, canvas)


def _nothing(rng: np.random.Generator, canvas: Canvas) -> None:
    """Background only."""


_KINDS = (_polygons, _strokes, _star, _board, _cube, _ellipses, _nothing, _clutter)
_SHARE = (0.22, 0.10, 0.10, 0.18, 0.08, 0.06, 0.03, 0.23)


def picture(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One clean picture float32[H, W] (0..255) of ``size`` (width, height) and its corners float64[N, 2]."""
    canvas = Canvas(_ground(rng, *size))
    _KINDS[rng.choice(len(_KINDS), p=_SHARE)](rng, canvas)
    return np.clip(canvas.image, 0, 255), canvas.visible_corners()


def texture(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One clean picture of curved patches, grain or stripes, in most of them with shapes and specks on it, and
    its corners float64[N, 3]: x, y, share.

    Most of it has no vertex. Besides the vertices that there are (share 1), its corners are by definition the places
    where the smaller eigenvalue of the structure tensor is largest within 3 pixels and FAINT**2 or more (Shi and
    Tomasi, 1994), as good as they repeat (:func:`repeats`).
    """
    canvas = Canvas(_cloth(rng, *size))
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 3)):
            _KINDS[rng.integers(len(_KINDS) - 2)](rng, canvas)
    if rng.random() < 0.25:
        _specks(rng, canvas)
    canvas.image = np.clip(canvas.image, 0, 255)
    response = smaller_eigenvalue(canvas.image)
    tops = peaks(np.where(response < FAINT**2, 0, response), 3)
    vertices = canvas.visible_corners()
    if len(vertices):
        tops = tops[np.linalg.norm(tops[:, None] - vertices[None], axis=2).min(axis=1) > MERGE]
    return canvas.image, np.concatenate([with_share(vertices), with_share(tops, repeats(rng, canvas.image, tops))])


def _cloth(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Grain, patches or stripes in any direction, float32[height, width] in 0..255."""
    reach = int(np.hypot(width, height)) + 4
    image = np.zeros((reach, reach), np.float32)
    cell, stretch = np.exp(rng.uniform(np.log(6), np.log(40))), np.exp(rng.uniform(0, 2.5))
    for octave in range(3):
        size_here = max(2.0, cell / 2**octave)
        noise = value_noise(rng, max(2, round(reach / stretch)), reach, size_here)
        rows = np.minimum((np.arange(reach) / stretch).astype(int), len(noise) - 1)
        image += blur(noise[rows], size_here / 8) * rng.uniform(0.2, 1) / 2**octave
    if rng.random() < 0.6:  # patches with sharp outlines
        levels = rng.integers(2, 5)
        step, part = np.divmod(image * levels, 1)
        image = step + np.clip((part - 0.5) * 20, -0.5, 0.5)
    turn = np.eye(3)
    turn[:2, :2] = rotation(rng.uniform(-np.pi, np.pi))
    turn[2, :2] = rng.uniform(-0.3, 0.3, 2) / reach
    middle = np.eye(3)
    middle[:2, 2] = -reach / 2
    image = warp(image, np.linalg.inv(middle) @ turn @ middle, float(image.mean()))
    x, y = (reach - width) // 2, (reach - height) // 2
    image = image[y:y + height, x:x + width]
    image = (image - image.mean()) / max(float(np.abs(image - image.mean()).max()), 1e-6)
    return np.clip(rng.uniform(60, 195) + rng.uniform(15, 110) * blur(image, 0.5), 0, 255)


def _specks(rng: np.random.Generator, canvas: Canvas) -> None:
    """Dots of one to three pixels."""
    height, width = canvas.image.shape
    for _ in range(rng.integers(5, 40)):
        side = np.full(2, rng.uniform(1.0, 2.5))
        canvas.paint([(_quad(rng.uniform(0, 1, 2) * [width, height], side, rng.uniform(0, np.pi)),
                       rng.uniform(5, 250))])


def with_share(corners: np.ndarray, share: np.ndarray | float = 1.0) -> np.ndarray:
    """Corners [N, 2] with how much of a corner each one is, float64[N, 3]."""
    return np.column_stack([corners, np.broadcast_to(share, len(corners))])


def repeats(rng: np.random.Generator, image: np.ndarray, corners: np.ndarray, views: int = 6) -> np.ndarray:
    """How well corners [N, 2] repeat, float64[N] in 0..1: the share of ``views`` through random homographies and
    noise in which one of the strongest peaks of the structure tensor lies within 2 pixels.

    The homographic adaptation of SuperPoint (section 5), with Shi and Tomasi's response for the detector.
    "Strongest" are as many as 300 in 320x240 pixels. A corner that no view shows counts as repeated.
    """
    height, width = image.shape
    seen, found = np.zeros(len(corners)), np.zeros(len(corners))
    for _ in range(views):
        view = random_view(rng, (width, height))
        shot = warp(image, view, float(image.mean())) + rng.normal(0, 4, image.shape).astype(np.float32)
        response = smaller_eigenvalue(shot)
        tops = peaks(response, 3)
        x, y = np.rint(tops).astype(int).T
        tops = tops[np.argsort(-response[y, x], kind="stable")[:round(width * height / 256)]]
        there = project(view, corners)
        shown = ((there >= 2) & (there <= [width - 3, height - 3])).all(axis=1)
        seen += shown
        found += shown & (np.linalg.norm(there[:, None] - tops[None], axis=2).min(axis=1) <= 2)
    return np.where(seen > 0, found / np.maximum(seen, 1), 1.0)


def random_view(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A moderate homography about the middle: up to 20 degrees, 20% of size, some tilt and shift."""
    width, height = size
    middle, back, bend = np.eye(3), np.eye(3), np.eye(3)
    middle[:2, 2] = -np.array([width, height]) / 2
    back[:2, 2] = np.array([width, height]) / 2 + rng.uniform(-0.06, 0.06, 2) * width
    bend[:2, :2] = rotation(np.radians(rng.uniform(-20, 20))) * rng.uniform(0.85, 1.2)
    bend[2, :2] = rng.uniform(-0.15, 0.15, 2) / width
    return back @ bend @ middle


def peaks(response: np.ndarray, radius: int) -> np.ndarray:
    """Where ``response`` [H, W] is above 0 and the largest within ``radius`` pixels, float64[N, 2].

    Refined by a parabola on each axis.
    """
    largest = response
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(largest, pad), 2 * radius + 1, axis)
        largest = windows.max(axis=-1)
    y, x = np.nonzero(((response == largest) & (response > 0))[1:-1, 1:-1])
    y, x = y + 1, x + 1
    refined = []
    for before, here, after in ((response[y, x - 1], response[y, x], response[y, x + 1]),
                                (response[y - 1, x], response[y, x], response[y + 1, x])):
        bend = np.minimum(before - 2 * here + after, -1e-6)
        refined.append(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
    return np.stack([x + refined[0], y + refined[1]], axis=1).astype(np.float64)


@dataclass(frozen=True)
class Camera:
    """How a clean picture is seen: blur, uneven light, contrast, brightness; each shot has its own noise."""

    softness: float
    light: np.ndarray
    brightness: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator, size: tuple[int, int],
             noise: tuple[float, float] = (0, 8)) -> Camera:
        """A random camera for pictures of ``size`` (width, height); ``noise``: range of sigma in codes."""
        light = 1 + rng.uniform(0, 0.35) * value_noise(rng, size[1], size[0], rng.uniform(40, 120))
        return cls(rng.uniform(0.3, 1.0), light * np.float32(rng.uniform(0.45, 1.1)), rng.uniform(90, 165),
                   rng.uniform(*noise))

    def shoot(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """float32[H, W] of whole codes 0..255 from a clean picture."""
        seen = (blur(image, self.softness) - 128) * self.light + np.float32(self.brightness)
        if self.noise:
            seen = seen + self.noise * rng.standard_normal(image.shape, np.float32)
        return np.clip(np.rint(seen), 0, 255)


def main() -> None:
    """``python -m models.shapes SHEET.png``: a contact sheet of pictures with their corners, to look at."""
    from PIL import Image, ImageDraw

    parser = argparse.ArgumentParser(prog="python -m models.shapes", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clean", action="store_true", help="before blur, light and noise")
    parser.add_argument("--textures", action="store_true")
    options = parser.parse_args()
    rng, zoom, size = np.random.default_rng(options.seed), 3, (128, 96)
    rows = []
    for _ in range(5):
        row = []
        for _ in range(6):
            image, corners = (texture if options.textures else picture)(rng, size)
            seen = image if options.clean else Camera.draw(rng, size).shoot(rng, image)
            tile = Image.fromarray(seen.astype(np.uint8)).convert("RGB")
            tile = tile.resize((size[0] * zoom, size[1] * zoom), Image.Resampling.NEAREST)
            draw = ImageDraw.Draw(tile)
            for x, y in (corners[:, :2] + 0.5) * zoom:
                draw.ellipse([x - 4, y - 4, x + 4, y + 4], outline=(255, 60, 0))
            row.append(np.asarray(tile))
        rows.append(np.hstack(row))
    Image.fromarray(np.vstack(rows)).save(options.out)


if __name__ == "__main__":
    main()
