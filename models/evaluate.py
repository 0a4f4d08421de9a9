"""Judge corner networks against OpenCV's detectors: ``python -m models.evaluate [NETWORK.onnx ...]``.

Every detector sees the same grey pictures of the network's input size, keeps at most as many points, and has
the same non-maximum suppression. The decoder is the one that users get (``host.heads.keypoints``). Measures:

average precision
    on held-out synthetic shapes: the area under precision against recall over all pictures, a detection being
    right when it is the best one within 3 pixels of a corner.
localisation error
    mean distance of the right ones, in pixels.
repeatability
    share of the points that are found again within 3 pixels in the same picture seen through a known random
    homography, of those which both pictures show (DeTone et al., 2018, section 6).

Needs opencv-python-headless (the ``train`` extra). The rest of this package stands alone; this script judges the
network as users get it, with the decoder and the quantiser of ``host``.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from host.heads.keypoints import find_corners, heat_map
from host.session import Session
from models import BOARDS, default_clip, network
from models.export import needs_of, record
from models.raster import project, warp
from models.shapes import Camera, picture, random_view

NEAR = 3.0
"""A detection is right, or repeated, within so many pixels."""
RADIUS = 3
"""Non-maximum suppression of every detector, pixels."""
FLOOR, MOST = 0.005, 300
"""Least score of a network's point here, where every score counts, and most points of every detector."""
BORDER = 4
"""Corners and points closer than this to the picture's edge are not judged."""

Detector = Callable[[np.ndarray], np.ndarray]
"""Grey uint8[H, W] -> float64[N, 3]: x, y, score, best first; (0, 0) is the centre of the first pixel."""


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of a network's input, from its sidecar."""
    return tuple(tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))["input"]["size"])


def network_detector(path: Path) -> Detector:
    """A detector from an ONNX corner network, in floating point (onnxruntime)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    side = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))
    mean, scale, cell = side["input"]["mean"], side["input"]["scale"], side["head"]["cell"]

    def detect(image: np.ndarray) -> np.ndarray:
        fed = ((image.astype(np.float32) - mean) * scale).astype(np.float32)[None, None]
        return find_corners(heat_map(session.run(None, {"image": fed})[0][0], cell), FLOOR, RADIUS, MOST)

    return detect


def samples(path: Path) -> Iterator[np.ndarray]:
    """Calibration frames uint8[H, W, 3] for a corner network: synthetic shapes only."""
    return (_rgb(image) for image, _ in synthetic(32, picture_size(path), (0, 8), seed=4))


def int8_detector(path: Path) -> Detector:
    """A detector from the quantised network on the golden model."""
    session = Session(path, calibration=samples(path))
    cell = session.model.sidecar.head.cell

    def detect(image: np.ndarray) -> np.ndarray:
        logits = session.infer(_rgb(image))[0]["logits"]
        return find_corners(heat_map(logits[0], cell), FLOOR, RADIUS, MOST)

    return detect


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def classic_detectors() -> dict[str, Detector]:
    """OpenCV's Harris, Shi-Tomasi (both refined by cornerSubPix) and FAST."""
    import cv2

    def peaks(response: np.ndarray, image: np.ndarray, refine: bool = True) -> np.ndarray:
        largest = cv2.dilate(response, np.ones((2 * RADIUS + 1,) * 2, np.uint8))
        y, x = np.nonzero((response == largest) & (response > 0))
        order = np.argsort(-response[y, x], kind="stable")[:MOST]
        points = np.stack([x, y], 1)[order].astype(np.float32)
        scores = response[y, x][order].astype(np.float64)
        if refine and len(points):
            stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 20, 0.01)
            refined = cv2.cornerSubPix(image, points[:, None].copy(), (2, 2), (-1, -1), stop)[:, 0]
            points = np.where(np.abs(refined - points).max(axis=1, keepdims=True) <= 1.5, refined, points)
        return np.column_stack([points.astype(np.float64), scores])

    def harris(image: np.ndarray) -> np.ndarray:
        return peaks(cv2.cornerHarris(image.astype(np.float32), 3, 3, 0.04), image)

    def shi_tomasi(image: np.ndarray) -> np.ndarray:
        return peaks(cv2.cornerMinEigenVal(image, 3, ksize=3), image)

    def fast(image: np.ndarray) -> np.ndarray:
        response = np.zeros(image.shape, np.float32)
        for point in cv2.FastFeatureDetector_create(threshold=5, nonmaxSuppression=True).detect(image):
            response[round(point.pt[1]), round(point.pt[0])] = point.response
        return peaks(response, image, refine=False)

    return {"Harris": harris, "Shi-Tomasi": shi_tomasi, "FAST": fast}


def inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool[N]: at least BORDER from the edge of a picture of (width, height)."""
    return ((points[:, :2] >= BORDER) & (points[:, :2] <= np.array(size) - 1 - BORDER)).all(axis=1)


def average_precision(detect: Detector,
                      pictures: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """(average precision, mean localisation error in pixels) over (grey uint8[H, W], corners [N, 2])."""
    scores, right, errors, total = [], [], [], 0
    for image, corners in pictures:
        size = image.shape[::-1]
        corners = corners[inside(corners, size)]
        found = detect(image)
        found = found[inside(found, size)]
        total += len(corners)
        free = np.ones(len(corners), bool)
        for x, y, score in found:
            distance = np.where(free, np.hypot(corners[:, 0] - x, corners[:, 1] - y), np.inf)
            best = int(distance.argmin()) if len(corners) else -1
            hit = best >= 0 and distance[best] <= NEAR
            if hit:
                free[best] = False
                errors.append(distance[best])
            scores.append(score)
            right.append(hit)
    hits = np.cumsum(np.array(right)[np.argsort(-np.array(scores), kind="stable")])
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    recall = hits / total
    return float(np.sum(np.diff(recall, prepend=0) * precision)), float(np.mean(errors))


def repeatability(detect: Detector, pictures: Iterable[np.ndarray], seed: int, top: int,
                  noise: float) -> float:
    """Mean over pictures uint8[H, W], each against a copy seen through a random homography."""
    rng, shares = np.random.default_rng(seed), []
    for image in pictures:
        size = image.shape[::-1]
        view = random_view(rng, size)
        seen = warp(image.astype(np.float32), view, fill_value=float(image.mean()))
        first, second = (detect(_noisy(rng, shot, noise)) for shot in (image, seen))
        there, back = project(view, first[:, :2]), project(np.linalg.inv(view), second[:, :2])
        first, there = (a[inside(first, size) & inside(there, size)][:top] for a in (first, there))
        second = second[inside(second, size) & inside(back, size)][:top]
        if len(there) + len(second) == 0:
            continue
        distance = np.linalg.norm(there[:, None] - second[None, :, :2], axis=2)
        near = distance <= NEAR
        shares.append((near.any(axis=1).sum() + near.any(axis=0).sum()) / (len(there) + len(second)))
    return float(np.mean(shares))


def _noisy(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(np.rint(image + rng.normal(0, sigma, image.shape)), 0, 255).astype(np.uint8)


def synthetic(count: int, size: tuple[int, int], noise: tuple[float, float], seed: int = 987654321,
              ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Held-out shapes: (grey uint8[H, W], corners [N, 2]); the seed is none of the training's."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        image, corners = picture(rng, size)
        yield Camera.draw(rng, size, noise).shoot(rng, image).astype(np.uint8), corners


def clip_pictures(path: Path, size: tuple[int, int], every: int) -> list[np.ndarray]:
    """Every so many frames of a clip as the network sees them: grey uint8[H, W]."""
    import av
    from PIL import Image

    with av.open(str(path)) as container:
        kept = [frame.to_image().convert("L") for index, frame in enumerate(container.decode(video=0))
                if index % every == 0]
    return [np.asarray(image.resize(size, Image.Resampling.BOX)) for image in kept]


def judge(detect: Detector, size: tuple[int, int], clips: list[Path], count: int) -> dict[str, float]:
    """All measures of one detector at one picture size."""
    top = round(size[0] * size[1] / 256)  # as dense as 300 points in 320x240
    row = {}
    for name, noise in (("clean", (0.0, 2.0)), ("noisy", (6.0, 10.0))):
        ap, error = average_precision(detect, synthetic(count, size, noise))
        row |= {f"ap_{name}": ap, f"error_{name}": error}
    for clip in clips:
        pictures = clip_pictures(clip, size, every=5)
        row[f"repeat_{clip.stem.split('_')[0]}"] = repeatability(detect, pictures, 1, top, 2.0)
    return {name: round(value, 4) for name, value in row.items()}


def main() -> None:
    """Command line: see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", type=Path, help="default: the bundled ones")
    parser.add_argument("--clips", type=Path, help="folder of .mp4 files, besides the bundled clip")
    parser.add_argument("--count", type=int, default=500, help="synthetic pictures per measure")
    parser.add_argument("--record", action="store_true", help="write into metrics.json beside the network")
    parser.add_argument("--int8", action="store_true", help="also quantised, on the golden model")
    parser.add_argument("--no-opencv", action="store_true", help="only the networks")
    options = parser.parse_args()
    clips = [default_clip(), *sorted(options.clips.glob("*.mp4"))] if options.clips else [default_clip()]
    rows: dict[str, dict] = {}
    for path in options.networks or map(network, BOARDS):
        size = picture_size(path)
        rows[path.stem] = judge(network_detector(path), size, clips, options.count)
        parts = {"needs": vars(needs_of(path)), "float": rows[path.stem]}
        if options.int8:
            rows[f"{path.stem} int8"] = parts["int8"] = judge(int8_detector(path), size, clips, options.count)
        for name, classic in ({} if options.no_opencv else classic_detectors()).items():
            label = f"{name} {size[0]}x{size[1]}"
            if label not in rows:
                rows[label] = judge(classic, size, clips, options.count)
            parts[name] = rows[label]
        if options.record:
            record(path.parent, path.stem, evaluation={"synthetic_pictures": options.count, **parts})
    columns = list(next(iter(rows.values())))
    print("| detector | " + " | ".join(c.replace("_", " ") for c in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + " |")


if __name__ == "__main__":
    main()
