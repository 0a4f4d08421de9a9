"""Frames in and out: video files, image folders, cameras and streams; H.264 files (PyAV)."""

from __future__ import annotations

import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from host.errors import UserError

_IMAGES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_CONTAINERS = {".mkv", ".mov", ".mp4"}
_FOLDER_FPS = 25.0
_SEEK_ABOVE = 1500
"""Files with more frames are sampled by seeking, not by decoding them from end to end."""
_OPEN_SECONDS = 10.0
"""How long a camera or a stream may take to answer."""


@dataclass(frozen=True)
class _Shot:
    """A frame not yet converted: its ``number`` and ``time`` (s) in the source, ``rgb()`` uint8[H, W, 3]."""

    number: int
    time: float
    rgb: Callable[[], np.ndarray]


class _Reader(ABC):
    """What delivers shots in order. ``total`` is exact or None; a ``live`` source cannot be read twice."""

    name: str
    size: tuple[int, int]
    fps: float
    total: int | None
    live: bool = False

    @abstractmethod
    def shots(self) -> Iterator[_Shot]:
        """Shots from the first one on. Raises UserError when the source breaks off."""

    @abstractmethod
    def sample(self, count: int) -> list[_Shot]:
        """``count`` shots spread evenly over the source, or all of them when it has fewer."""

    def close(self) -> None:
        """Give back files and devices."""
        return None


class Source:
    """Frames of a source, uint8[H, W, 3] RGB, all of ``size`` (width, height). Made by ``open_source``.

    fps
        frames a second of what is yielded.
    total
        how many frames will come (exact at a constant frame rate), or None when that is not known.
    live
        a camera or a stream: it has no end and cannot be read twice.
    """

    def __init__(
        self, reader: _Reader, fps: float | None, frames: int | None, noise: float, seed: int
    ) -> None:
        self._reader, self._fps, self._frames = reader, fps, frames
        self._noise, self._seed = noise, seed
        self.name, self.size, self.live = reader.name, reader.size, reader.live
        self.fps = fps or reader.fps
        self.total = self._count()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the file or device."""
        self._reader.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        shots = self._reader.shots()
        if self._fps is not None:
            shots = _resample(shots, self._fps, 1 / self._reader.fps)
        for shot in islice(shots, self._frames):
            yield add_noise(shot.rgb(), self._noise, self._seed, shot.number)

    def _count(self) -> int | None:
        total = self._reader.total
        if total is not None and self._fps is not None:
            total = max(1, int(np.ceil(total * self._fps / self._reader.fps - 1e-6)))
        if self._frames is not None and (total is not None or self.live):
            return self._frames if total is None else min(total, self._frames)
        return total


def open_source(
    source: str | Path, fps: float | None = None, frames: int | None = None, noise: float = 0.0, seed: int = 0
) -> Source:
    """Open a video file, a folder of images (natural order), ``camera:N``, ``/dev/videoN`` or a stream URL.

    fps
        resample in time: frames are dropped or repeated by their timestamps. A folder has none: there it is
        the rate at which its images were taken (25 by default).
    frames
        stop after that many.
    noise, seed
        add Gaussian sensor noise of that sigma in 8-bit codes; that of a frame depends on the seed and its
        number in the source only.

    Raises UserError when the source is missing, empty or no video; reading, when it breaks off.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"fps is {fps}; it must be above 0 and at most 1000")
    if frames is not None and frames < 1:
        raise UserError(f"frames is {frames}; it must be at least 1")
    if not 0 <= noise <= 255:
        raise UserError(f"noise is {noise}; it must be 0 to 255 codes")
    reader = _open(source, fps)
    return Source(reader, None if isinstance(reader, _Folder) else fps, frames, noise, seed)


def sample_frames(source: str | Path, count: int = 32, noise: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """``count`` frames uint8[H, W, 3] spread evenly over a file or folder; of a live source the first ones.

    A source with fewer frames gives all it has. Noise and errors as in ``open_source``.
    """
    reader = _open(source, None)
    try:
        return [add_noise(shot.rgb(), noise, seed, shot.number) for shot in reader.sample(count)]
    finally:
        reader.close()


def add_noise(frame: np.ndarray, sigma: float, seed: int, number: int) -> np.ndarray:
    """The frame with Gaussian noise of ``sigma`` codes, made from the seed and the frame's number only."""
    if not sigma:
        return frame
    rng = np.random.default_rng([seed, number])
    noisy = rng.standard_normal(frame.shape, np.float32) * np.float32(sigma) + frame
    return np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy).astype(np.uint8)


def _open(source: str | Path, fps: float | None) -> _Reader:
    text = str(source)
    if "://" in text or text.startswith("camera:") or re.fullmatch(r"/dev/video\d+", text):
        return _Video(text)
    path = Path(source)
    if not path.exists():
        raise UserError(
            f"{path}: there is no such file or folder (a video, a folder of images, camera:0 or a stream URL)"
        )
    return _Folder(path, fps or _FOLDER_FPS) if path.is_dir() else _Video(text)


def _resample(shots: Iterator[_Shot], fps: float, last: float) -> Iterator[_Shot]:
    """For k = 0, 1, ... the latest shot at k / fps after the first; the final one lasts ``last`` seconds."""
    shown, start, k = None, 0.0, 0
    for shot in shots:
        if shown is None:
            start = shot.time
        while shown is not None and k / fps < shot.time - start - 1e-6:
            yield shown
            k += 1
        shown = shot
    while shown is not None and k / fps < shown.time - start + last - 1e-6:
        yield shown
        k += 1


def _spread(total: int, count: int) -> list[int]:
    """``count`` numbers from 0 to total - 1 at even distances, ends included; all when there are fewer."""
    return np.unique(np.rint(np.linspace(0, total - 1, min(count, total))).astype(int)).tolist()


class _Folder(_Reader):
    """Images of one size, in natural order (2 before 10)."""

    def __init__(self, path: Path, fps: float) -> None:
        self.name, self.fps = str(path), fps
        self._files = sorted((p for p in path.iterdir() if p.suffix.lower() in _IMAGES), key=_natural)
        if not self._files:
            raise UserError(f"{path}: the folder has no images ({', '.join(sorted(_IMAGES))})")
        self.total = len(self._files)
        self.size = self._size(self._files[0])
        for file in self._files[1:]:
            if self._size(file) != self.size:
                raise UserError(
                    f"{file}: the image is {_by(self._size(file))}, but {self._files[0].name} is "
                    f"{_by(self.size)}; all images of a folder must have one size"
                )

    def shots(self) -> Iterator[_Shot]:
        return (self._shot(i) for i in range(self.total))

    def sample(self, count: int) -> list[_Shot]:
        return [self._shot(i) for i in _spread(self.total, count)]

    def _shot(self, number: int) -> _Shot:
        return _Shot(number, number / self.fps, lambda: self._read(self._files[number]))

    @staticmethod
    def _size(file: Path) -> tuple[int, int]:
        try:
            with Image.open(file) as image:
                return image.size[::-1] if _orientation(image) >= 5 else image.size
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{file}: this is not an image that can be read: {error}") from None

    @staticmethod
    def _read(file: Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                upright = ImageOps.exif_transpose(image) if _orientation(image) > 1 else image
                return np.asarray(upright.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{file}: the image cannot be decoded: {error}") from None


class _Video(_Reader):
    """A file, camera or stream that FFmpeg can read."""

    def __init__(self, source: str) -> None:
        self.name = source
        self._path, self._format, self._options = _device(source)
        self._is_file = self._format is None and "://" not in source
        self._container = self._connect()
        if not self._container.streams.video:
            self.close()
            raise UserError(f"{source}: there is no video in this file")
        stream = self._container.streams.video[0]
        self.live = not self._is_file and self._container.duration is None
        self.fps = float(stream.average_rate or stream.guessed_rate or _FOLDER_FPS)
        self.total = (stream.frames or None) if self._is_file else None
        self.size = None
        decoded = self._decode(self._container)
        first = next(decoded, None)
        if first is None:
            self.close()
            raise UserError(f"{source}: the video has no frames, or it is truncated")
        self.size = first.rgb().shape[1::-1]
        self._live_shots = chain([first], decoded) if self.live else None

    def close(self) -> None:
        self._container.close()

    def shots(self) -> Iterator[_Shot]:
        if not self.live:
            with self._connect() as container:
                yield from self._decode(container)
        elif self._live_shots is None:
            raise UserError(f"{self.name}: a live source can be read only once")
        else:
            shots, self._live_shots = self._live_shots, None
            yield from shots

    def sample(self, count: int) -> list[_Shot]:
        if self.live:
            return list(islice(self.shots(), count))
        total = self.total or self._count()
        wanted = _spread(total, count)
        if total > _SEEK_ABOVE:
            with self._connect() as container:
                return [self._at(container, number) for number in wanted]
        chosen = set(wanted)
        return [shot for shot in self.shots() if shot.number in chosen]

    def _connect(self) -> av.container.InputContainer:
        try:
            timeout = None if self._is_file else _OPEN_SECONDS
            return av.open(self._path, format=self._format, options=self._options, timeout=timeout)
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{self.name}: {self._why_not(error)}") from None

    def _decode(self, container: av.container.InputContainer) -> Iterator[_Shot]:
        """All shots of a container that was not read yet."""
        stream, number = container.streams.video[0], 0
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    if self.live:
                        continue
                    raise self._broken(number, "the next one is damaged")
                time = frame.time if frame.time is not None else number / self.fps
                yield _Shot(number, time, lambda frame=frame: self._rgb(frame))
                number += 1
        except (av.FFmpegError, OSError) as error:
            raise self._broken(number, error.strerror or str(error)) from None
        # fewer frames than the file announces: cut off, unless they are there and not meant to be shown
        if self.total and number < self.total and self._count() < self.total:
            raise self._broken(number, f"the file announces {self.total}, so it is truncated")

    def _count(self) -> int:
        """Frames in the file, by its packets."""
        with self._connect() as container:
            packets = container.demux(container.streams.video[0])
            return sum(1 for packet in packets if packet.size)

    def _at(self, container: av.container.InputContainer, number: int) -> _Shot:
        """The shot of that number, at a constant frame rate."""
        stream, seconds = container.streams.video[0], number / self.fps
        stamp = (stream.start_time or 0) + round(seconds / stream.time_base)
        container.seek(stamp, stream=stream, backward=True, any_frame=False)
        frame = None
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts >= stamp:
                break
        if frame is None:
            raise self._broken(0, f"nothing can be decoded at {seconds:.1f} s")
        return _Shot(number, seconds, lambda: self._rgb(frame))

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        pixels = frame.to_ndarray(format="rgb24")
        turned = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
        if self.size not in (None, turned.shape[1::-1]):  # a stream may change its size on the way
            turned = np.asarray(Image.fromarray(turned).resize(self.size, Image.Resampling.BILINEAR))
        return turned

    def _broken(self, number: int, why: str) -> UserError:
        whole = (
            "nothing can be decoded" if number == 0 else f"the video breaks off after {number} good frames"
        )
        return UserError(f"{self.name}: {whole}: {why}")

    def _why_not(self, error: Exception) -> str:
        if self._is_file:
            path = Path(self.name)
            if path.stat().st_size == 0:
                return "the file is empty"
            if not os.access(path, os.R_OK):
                return "the file may not be read"
            return f"this is not a video that can be read, or it is truncated ({error.strerror or error})"
        return f"the camera or stream cannot be opened ({getattr(error, 'strerror', None) or error})"


def _device(source: str) -> tuple[str, str | None, dict[str, str]]:
    """(path, FFmpeg format, options) of a source; the format is None where FFmpeg finds it out."""
    number = source.removeprefix("camera:") if source.startswith("camera:") else None
    if number is None:
        return source, "v4l2" if source.startswith("/dev/video") else None, {}
    if not number.isdigit():
        raise UserError(f"{source}: a camera is written camera:0, camera:1, ...")
    if sys.platform == "darwin":
        return number, "avfoundation", {"framerate": "30"}
    if sys.platform == "win32":
        raise UserError(f"{source}: on Windows cameras are not supported; give a stream URL")
    return f"/dev/video{number}", "v4l2", {}


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, from 5 on a quarter turn; PNG, where asking would decode the image, has none."""
    return 1 if image.format == "PNG" else image.getexif().get(0x0112, 1)


def _natural(path: Path) -> list:
    return [
        (int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", path.name)
    ]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


class VideoWriter:
    """An H.264 video that appears under its name only when it is complete.

    Frames are written to a temporary file in the same folder. ``close()`` finishes and moves it into place,
    ``abort()`` removes it; leaving a ``with`` block does the former, or the latter after an exception.
    After Ctrl-C a caller may ``close()`` to keep what is done. H.264 needs even sides: an odd one grows.

    path, fps
        where to (.mp4, .mkv or .mov), and frames a second.
    size
        (width, height) of the frames; None takes it from the first one.

    Raises UserError when the file cannot be written there, at once.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int] | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in _CONTAINERS:
            raise UserError(
                f"{path}: the name of a video to write must end in {', '.join(sorted(_CONTAINERS))}"
            )
        if self.path.is_dir():
            raise UserError(f"{path}: this is a folder; name a file to write")
        self._part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix.lower()}")
        try:
            self._part.touch()
            self._container = av.open(str(self._part), "w")
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
        self._rate = Fraction(fps).limit_denominator(65535)
        self._stream = None
        self._size = size
        self._closed = False
        self.frames = 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, frame: np.ndarray) -> None:
        """Add a frame uint8[H, W, 3] RGB. Raises ValueError for another size, UserError when that fails."""
        height, width = frame.shape[:2]
        self._size = self._size or (width, height)
        if (width, height) != self._size:
            raise ValueError(f"{self.path}: a frame is {width}x{height}, but the video is {_by(self._size)}")
        if width % 2 or height % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            if self._stream is None:
                self._start(frame.shape[1], frame.shape[0])
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            self._container.mux(self._stream.encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        self.frames += 1

    def close(self) -> None:
        """Finish the file and move it into place; without a frame nothing is left. Again does nothing."""
        if self._closed:
            return
        if self._stream is None:
            return self.abort()
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._closed = True
            self._part.replace(self.path)
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise UserError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def abort(self) -> None:
        """Remove what was written. Does nothing after ``close()``."""
        if not self._closed:
            self._closed = True
            self._container.close()
        self._part.unlink(missing_ok=True)

    def _start(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}
