"""Anti-aliased drawing in NumPy, shared by the clip generator and the training shapes.

Coordinates are (x, y) in pixels; a whole number is a pixel *centre*, as in OpenCV and in the keypoint
decoder. Images are float32[H, W] or float32[H, W, 3]. Everything is deterministic: no library draws for us.
"""

from __future__ import annotations

import numpy as np


def coverage(polygon: np.ndarray, height: int, width: int) -> tuple[slice, slice, np.ndarray] | None:
    """Part of each pixel that a polygon covers: (rows, columns, float32[h, w] in 0..1), None when outside.

    ``polygon`` is float[K, 2], K >= 3, convex or not. The area is exact for straight edges along an axis and
    close to it elsewhere: ``1/2 + signed distance to the boundary``, clipped.
    """
    x0, y0 = np.maximum(np.floor(polygon.min(axis=0)).astype(int) - 1, 0)
    x1, y1 = np.ceil(polygon.max(axis=0)).astype(int) + 2
    x1, y1 = min(x1, width), min(y1, height)
    if x0 >= x1 or y0 >= y1:
        return None
    a = polygon.astype(np.float32)[:, :, None, None]
    e = np.roll(a, -1, axis=0) - a
    wx = np.arange(x0, x1, dtype=np.float32)[None, None, :] - a[:, 0]
    wy = np.arange(y0, y1, dtype=np.float32)[None, :, None] - a[:, 1]
    ex, ey = e[:, 0], e[:, 1]
    t = np.clip((wx * ex + wy * ey) / np.maximum(ex * ex + ey * ey, 1e-12), 0, 1)
    distance = np.sqrt(((wx - ex * t) ** 2 + (wy - ey * t) ** 2).min(axis=0))
    crosses = ((wy >= 0) != (wy - ey >= 0)) & ((wx * ey < wy * ex) == (ey > 0))
    inside = np.logical_xor.reduce(crosses, axis=0)
    return slice(y0, y1), slice(x0, x1), np.clip(0.5 + np.where(inside, distance, -distance), 0, 1)


def contains(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """bool[N]: which of ``points`` float[N, 2] lie inside ``polygon`` float[K, 2]."""
    a, b = polygon[:, None], np.roll(polygon, -1, axis=0)[:, None]
    e, w = b - a, points[None] - a
    straddles = (w[..., 1] >= 0) != (points[None, :, 1] - b[..., 1] >= 0)
    crosses = straddles & ((w[..., 0] * e[..., 1] < w[..., 1] * e[..., 0]) == (e[..., 1] > 0))
    return np.logical_xor.reduce(crosses, axis=0)


def fill(image: np.ndarray, polygon: np.ndarray, paint: np.ndarray | float) -> None:
    """Paint a polygon into ``image`` in place; ``paint`` is a value, a colour [3], or another such image."""
    window = coverage(polygon, *image.shape[:2])
    if window is None:
        return
    rows, columns, alpha = window
    paint = np.asarray(paint, np.float32)
    source = paint[rows, columns] if paint.shape == image.shape else paint
    part = image[rows, columns]
    part += (alpha[..., None] if image.ndim == 3 else alpha) * (source - part)


def ellipse(centre: np.ndarray, radii: tuple[float, float], angle: float, points: int = 28) -> np.ndarray:
    """An ellipse as a polygon float[points, 2], fine enough to show no corner at the sizes used here."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    points_about_0 = np.stack([np.cos(turn) * radii[0], np.sin(turn) * radii[1]], 1)
    return np.asarray(centre) + points_about_0 @ rotation(angle).T


def rotation(angle: float) -> np.ndarray:
    """2x2 rotation by ``angle`` radians (clockwise on screen: y points down)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def project(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points float[..., 2] through a 3x3 homography."""
    moved = points @ homography[:, :2].T + homography[:, 2]
    return moved[..., :2] / moved[..., 2:]


def value_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth random texture float32[H, W] in -1..1: values on a grid of ``cell`` pixels, interpolated."""
    rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
    grid = rng.uniform(-1, 1, (rows + 2, columns + 2)).astype(np.float32)
    for axis, (length, cells) in enumerate(((height, rows), (width, columns))):
        at = np.arange(length, dtype=np.float32) * np.float32(cells / length)
        index = at.astype(int)
        part = (at - index).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        grid = grid.take(index, axis) * (1 - part) + grid.take(index + 1, axis) * part
    return grid


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of float[H, W] with the border repeated; sigma in pixels, 0 leaves it alone."""
    if sigma <= 0:
        return image
    radius = max(1, int(np.ceil(3 * sigma)))
    tap = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    tap = (tap / tap.sum()).astype(np.float32)
    for axis in (0, 1):
        padded = np.pad(image, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        n = image.shape[axis]
        image = sum(w * (padded[k:k + n] if axis == 0 else padded[:, k:k + n]) for k, w in enumerate(tap))
    return image


def warp(image: np.ndarray, homography: np.ndarray, fill_value: float = 0.0) -> np.ndarray:
    """``image`` float[H, W] seen through a homography (source to result), bilinear; same size."""
    height, width = image.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64)
    x, y = np.moveaxis(project(np.linalg.inv(homography), grid), -1, 0)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    ix, iy = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    fx, fy = x - ix, y - iy
    top = image[iy, ix] * (1 - fx) + image[iy, ix + 1] * fx
    bottom = image[iy + 1, ix] * (1 - fx) + image[iy + 1, ix + 1] * fx
    return np.where(inside, top * (1 - fy) + bottom * fy, fill_value).astype(np.float32)
