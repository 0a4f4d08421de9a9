"""A clip of our own: a textured wall with moving objects, a stretch of camera pan, known corner positions.

    python -m models.scene OUT.mp4 [--frames 120] [--size 320x240] [--motion moving] [--noise 0] [--seed 0]

The same arguments give the same frames (:func:`frames`) every time; the bundled clip is the default one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from models.raster import contains, ellipse, fill, project, rotation, value_noise

FPS = 30
MOTIONS = ("static", "moving", "cut")
MARGIN = 40.0
"""How far the wall reaches beyond the picture on each side, in units (a unit is 1/240 of the height)."""


@dataclass(frozen=True)
class Shape:
    """A flat object: painted ``parts`` (polygon, colour) and its ``corners`` [N, 2], about its own centre.

    ``outline`` hides what is behind it. The rest is its motion: units, turns per second, radians.
    """

    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    corners: np.ndarray
    outline: np.ndarray
    centre: np.ndarray
    path: np.ndarray
    phase: float
    speed: float
    spin: float

    def pose(self, seconds: float) -> tuple[np.ndarray, float]:
        """Centre (units) and angle at a time: a slow Lissajous path and a steady rotation."""
        turn = 2 * np.pi * self.speed * seconds + self.phase
        return self.centre + self.path * np.array([np.sin(turn), np.sin(1.5 * turn)]), self.spin * seconds


def _colour(rng: np.random.Generator, low: float = 20, high: float = 235) -> np.ndarray:
    return rng.uniform(low, high, 3)


def _board(rng: np.random.Generator, columns: int, rows: int, square: float):
    """Checkerboard: parts, corners (inner ones and the outline's), outline."""
    x, y = np.arange(columns + 1) * square, np.arange(rows + 1) * square
    middle = np.array([x[-1], y[-1]]) / 2
    light, dark = _colour(rng, 180, 250), _colour(rng, 5, 70)
    box = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    outline = box * [x[-1], y[-1]] - middle
    parts = [(outline, light)]
    parts += [((box + [i, j]) * square - middle, dark)
              for j in range(rows) for i in range(columns) if (i + j) % 2]
    inner = np.stack(np.meshgrid(x[1:-1], y[1:-1]), -1).reshape(-1, 2) - middle
    return tuple(parts), np.concatenate([inner, outline]), outline


def _star(rng: np.random.Generator, points: int, radius: float):
    turn = np.arange(2 * points) * np.pi / points
    reach = radius * np.where(np.arange(2 * points) % 2, 0.45, 1)
    outline = np.stack([np.cos(turn) * reach, np.sin(turn) * reach], 1)
    return ((outline, _colour(rng, 150, 250)),), outline, outline


def _polygon(rng: np.random.Generator, sides: int, radius: float):
    """Polygon with a triangle of another colour in it."""
    turn = (np.arange(sides) + rng.uniform(-0.2, 0.2, sides)) * 2 * np.pi / sides
    outline = np.stack([np.cos(turn), np.sin(turn)], 1) * radius
    inner = outline[:: max(1, sides // 3)][:3] * 0.5
    return (((outline, _colour(rng)), (inner, _colour(rng))),
            np.concatenate([outline, inner]), outline)


def _disc(rng: np.random.Generator, radius: float):
    rings = [(ellipse(np.zeros(2), (radius * k, radius * k), 0), _colour(rng)) for k in (1.0, 0.65, 0.3)]
    return tuple(rings), np.zeros((0, 2)), rings[0][0]


def _objects(rng: np.random.Generator, wide: float) -> list[Shape]:
    """The moving objects of a scene, ``wide`` units across, farthest first."""
    made = [_disc(rng, 20), _polygon(rng, 3, 26), _board(rng, 5, 4, 12), _polygon(rng, 5, 22),
            _star(rng, 5, 24), _polygon(rng, 4, 15)]
    spots = rng.permutation(len(made))
    shapes = []
    for spot, (parts, corners, outline) in zip(spots, made, strict=True):
        centre = np.array([(spot % 3 + 0.5) * wide / 3, (spot // 3 + 0.5) * 120])
        shapes.append(Shape(parts, corners, outline, centre + rng.uniform(-12, 12, 2), rng.uniform(10, 34, 2),
                            rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.2), rng.uniform(-0.9, 0.9)))
    return shapes


def _wall(rng: np.random.Generator, size: tuple[int, int], unit: float) -> tuple[np.ndarray, np.ndarray]:
    """The background float32[H, W, 3] of ``size`` (width, height) pixels and its corners [N, 2] in pixels."""
    width, height = size
    texture = (14 * value_noise(rng, height, width, 30 * unit) + 9 * value_noise(rng, height, width, 9 * unit)
               + 6 * value_noise(rng, height, width, 3 * unit))
    wall = (np.array([128, 120, 110], np.float32) + rng.uniform(-25, 25, 3).astype(np.float32)
            + texture[..., None] * np.array([1.0, 0.95, 0.85], np.float32))
    corners, step = [], 56 * unit
    for y in np.arange(step * 0.45, height, step):
        for x in np.arange(step * 0.45, width, step):
            if rng.random() < 0.45:
                continue
            half = rng.uniform(0.16, 0.32, 2) * step
            box = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half @ rotation(rng.uniform(-0.3, 0.3)).T
            fill(wall, box + [x, y], wall * rng.uniform(0.35, 0.7) + rng.uniform(0, 60, 3).astype(np.float32))
            corners.append(box + [x, y])
    return wall, np.concatenate(corners) if corners else np.zeros((0, 2))


class _Scene:
    """One wall with its objects, drawn at any time."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(seed)
        self.size, self.unit = size, size[1] / 240
        margin = int(np.ceil(MARGIN * self.unit))
        self.wall, self.corners = _wall(rng, (size[0] + 2 * margin, size[1] + 2 * margin), self.unit)
        self.margin = margin
        self.shapes = _objects(rng, size[0] / self.unit)

    def draw(self, seconds: float, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(float32[H, W, 3], corners [N, 2]) with the camera moved by ``camera`` (x, y) units, < MARGIN."""
        width, height = self.size
        start = self.margin + camera * self.unit
        picture = _crop(self.wall, start, width, height)
        corners = self.corners - start
        for shape in self.shapes:
            centre, angle = shape.pose(seconds)
            place = np.eye(3)
            place[:2, :2] = rotation(angle) * self.unit
            place[:2, 2] = (centre - camera) * self.unit
            for polygon, colour in shape.parts:
                fill(picture, project(place, polygon), colour)
            corners = corners[~contains(project(place, shape.outline * 1.04), corners)]
            corners = np.concatenate([corners, project(place, shape.corners)])
        inside = ((corners >= 0) & (corners <= np.array([width - 1, height - 1]))).all(axis=1)
        return picture, corners[inside]


def _crop(image: np.ndarray, start: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear crop at a fractional ``start`` (x, y); a fresh float32 array."""
    x, y = np.floor(start).astype(int)
    fx, fy = (start - [x, y]).astype(np.float32)
    part = image[y:y + height + 1, x:x + width + 1]
    part = part[:, :-1] * (1 - fx) + part[:, 1:] * fx if fx else part[:, :width]
    return part[:-1] * (1 - fy) + part[1:] * fy if fy else part[:height].copy()


def _camera(seconds: float) -> np.ndarray:
    """Camera offset in units: still for 2 s of every 4, then a gentle pan there and back."""
    part = np.clip(seconds % 4 - 1.5, 0, 1.5) / 1.5
    return np.sin(np.pi * part) ** 2 * np.array([30.0, -12.0])


def frames(count: int = 120, size: tuple[int, int] = (320, 240), noise: float = 0.0, seed: int = 0,
           motion: str = "moving") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of the scene: (RGB uint8[H, W, 3], visible corners float64[N, 2] as (x, y) pixels).

    size
        (width, height) in pixels, each at least 32.
    noise
        standard deviation, in codes, of seeded Gaussian sensor noise; 0 is a clean picture.
    motion
        ``static`` (one picture, only noise differs), ``moving`` (objects move all the time, the camera pans
        for a while), ``cut`` (moving, with a cut to another scene half-way).

    Corners are those of the objects and of the wall's tiles; places where one thing merely crosses another
    are not among them. Raises ValueError when an argument is out of its range.
    """
    if motion not in MOTIONS:
        raise ValueError(f"motion is {motion!r}; it can be {', '.join(MOTIONS)}")
    if min(size) < 32 or count < 1 or noise < 0:
        raise ValueError(f"{count} frames of {size[0]}x{size[1]}, noise {noise}: at least 1, 32x32 and 0")
    grain = np.random.default_rng([seed, 1])
    scene = _Scene(seed, size)
    for index in range(count):
        if motion == "cut" and index == count // 2:
            scene = _Scene(seed + 1, size)
        seconds = 0.0 if motion == "static" else index / FPS
        picture, corners = scene.draw(seconds, _camera(seconds))
        if noise:
            picture = picture + grain.normal(0, noise, picture.shape).astype(np.float32)
        yield np.clip(np.rint(picture), 0, 255).astype(np.uint8), corners


def write(path: Path, pictures: Iterator[np.ndarray], crf: int = 18) -> None:
    """Write RGB pictures as an H.264 file of 30 frames/s."""
    import av

    with av.open(str(path), "w") as container:
        stream = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(FPS))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
                stream.options = {"crf": str(crf), "preset": "slow"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _size(text: str) -> tuple[int, int]:
    width, height = (int(part) for part in text.split("x"))
    if width % 2 or height % 2:
        raise ValueError("H.264 wants even sizes")
    return width, height


def main() -> None:
    """Command line: see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m models.scene", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="file to write (.mp4)")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--size", type=_size, default=(320, 240), help="WIDTHxHEIGHT, both even")
    parser.add_argument("--motion", choices=MOTIONS, default="moving")
    parser.add_argument("--noise", type=float, default=0.0, help="sigma of seeded Gaussian noise, in codes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crf", type=int, default=18, help="H.264 quality, lower is better")
    options = parser.parse_args()
    clip = frames(options.frames, options.size, options.noise, options.seed, options.motion)
    write(options.out, (picture for picture, _ in clip), options.crf)


if __name__ == "__main__":
    main()
