"""From a video frame to the array that an ONNX network is fed with, and back from its pixels to the frame.

Pixel coordinates are continuous: pixel i covers [i, i + 1), so its centre is at i + 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from host.errors import UserError

_CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}


class InputArray(Protocol):
    """What preprocessing must know of a network's input; ``host.network.NetworkInput`` is one."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the picture that the network sees: ``picture = frame * zoom + offset``.

    All pairs are (x, y) or (width, height) in pixels. A crop has negative offsets, a letterbox positive ones.
    """

    frame: tuple[int, int]
    picture: tuple[int, int]
    zoom: tuple[float, float]
    offset: tuple[float, float]

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] as (x, y) in the network's picture -> the same points in the frame (float64)."""
        return (np.asarray(points, np.float64) - self.offset) / self.zoom

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] as (x, y) in the frame -> the same points in the network's picture (float64)."""
        return np.asarray(points, np.float64) * self.zoom + self.offset

    def boxes_to_frame(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [N, 4] as x0, y0, x1, y1 in the picture -> in the frame, clipped to it (float64)."""
        corners = self.to_frame(np.asarray(boxes, np.float64).reshape(-1, 2, 2))
        return np.clip(corners, 0, self.frame).reshape(-1, 4)


@dataclass(frozen=True)
class Preprocess:
    """How a frame becomes a network input: section ``[input]`` of a sidecar.

    size
        (width, height) of the network's picture; None takes it from the shape of the network's input.
    colour
        the network's channels: ``rgb``, ``bgr``, or ``grey`` (one channel, luma of BT.601).
    mean, scale
        ``real = (pixel - mean) * scale`` for pixels 0..255, one value or one per network channel. Integer
        inputs are fed that value rounded and clamped to their type.
    layout
        ``nchw``, ``nhwc``, or ``auto``: whichever axis has the right number of channels.
    resize
        ``stretch`` to the picture, ``letterbox`` (all of the frame, borders of value ``fill``), or ``crop``
        (the largest centred part of the picture's shape).
    filter
        ``bilinear`` (widened when it shrinks, so nothing aliases) or ``area`` (mean over the area that
        a pixel covers; bilinear where the frame must grow).
    """

    size: tuple[int, int] | None = None
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    filter: Literal["bilinear", "area"] = "bilinear"
    fill: int = 0

    def __post_init__(self) -> None:
        channels = _CHANNELS[self.colour]
        for name in ("mean", "scale"):
            if len(getattr(self, name)) not in (1, channels):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} values; {self.colour} takes 1 or {channels}"
                )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size is {self.size[0]}x{self.size[1]}; it must be at least 1x1")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill is {self.fill}; it must be 0..255")

    def picture_size(self, network_input: InputArray) -> tuple[int, int]:
        """(width, height) of the network's picture. Raises UserError when the fields do not fit it."""
        return _fit(self, network_input)[0]

    def placement(self, frame_size: tuple[int, int], network_input: InputArray) -> Placement:
        """Where a frame of (width, height) lies in the network's picture."""
        return _place(self.resize, tuple(frame_size), self.picture_size(network_input))

    def to_frame(
        self, points: np.ndarray, frame_size: tuple[int, int], network_input: InputArray
    ) -> np.ndarray:
        """Points [..., 2] as (x, y) in the network's picture -> in a frame of (width, height)."""
        return self.placement(frame_size, network_input).to_frame(points)

    def apply(self, frame: np.ndarray, network_input: InputArray) -> np.ndarray:
        """A frame uint8[H, W, 3] RGB -> exactly the array that onnxruntime would be fed with."""
        size, nchw = _fit(self, network_input)
        picture = self._picture(frame, size)
        tables = _tables(self.mean, self.scale, picture.shape[2], network_input.dtype)
        planes = [table[picture[:, :, c]] for c, table in enumerate(tables)]
        return np.stack(planes, axis=0 if nchw else 2).reshape(network_input.shape)

    def _picture(self, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The network's picture, uint8[h, w, channels] in the network's channel order."""
        height, width = frame.shape[:2]
        image = Image.fromarray(np.ascontiguousarray(frame))
        if self.colour == "grey":
            image = image.convert("L")
        place = _place(self.resize, (width, height), size)
        if self.resize == "letterbox":
            inner = tuple(round(n * z) for n, z in zip((width, height), place.zoom, strict=True))
            whole = Image.new(image.mode, size, (self.fill,) * len(image.getbands()))
            whole.paste(_resized(image, inner, self.filter), tuple(int(o) for o in place.offset))
            image = whole
        elif self.resize == "crop":
            box = tuple(place.boxes_to_frame([0, 0, *size])[0].tolist())
            image = _resized(image, size, self.filter, box)
        else:
            image = _resized(image, size, self.filter)
        picture = np.asarray(image)
        return (
            picture[:, :, None] if picture.ndim == 2 else picture[:, :, :: -1 if self.colour == "bgr" else 1]
        )


def default_preprocess(network_input: InputArray) -> Preprocess:
    """A sensible guess from the shape and type of an input: RGB or grey, real = pixel / 255.

    Integer inputs take the pixel itself (uint8) or pixel - 128 (int8). Raises UserError for no picture.
    """
    shape = tuple(network_input.shape)
    channels = [n for n in (shape[1], shape[3]) if n in (1, 3)] if len(shape) == 4 else []
    if not channels:
        raise UserError(
            f"input '{network_input.name}' has shape {_shape(shape)}: no picture of 1 or 3 channels; "
            "write a sidecar with [input] size and colour"
        )
    mean, scale = {"int8": (128.0, 1.0), "uint8": (0.0, 1.0)}.get(network_input.dtype, (0.0, 1 / 255))
    colour = "rgb" if channels[0] == 3 else "grey"
    chosen = Preprocess(colour=colour, mean=(mean,), scale=(scale,), filter="area")
    chosen.picture_size(network_input)
    return chosen


def _resized(image: Image.Image, size: tuple[int, int], name: str, box: tuple | None = None) -> Image.Image:
    x0, y0, x1, y1 = box or (0, 0, *image.size)
    shrinks = size[0] <= x1 - x0 and size[1] <= y1 - y0
    resample = Image.Resampling.BOX if name == "area" and shrinks else Image.Resampling.BILINEAR
    return image if image.size == size and box is None else image.resize(size, resample, box=box)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


@lru_cache(maxsize=64)
def _place(resize: str, frame: tuple[int, int], picture: tuple[int, int]) -> Placement:
    stretch = [p / f for p, f in zip(picture, frame, strict=True)]
    if resize == "stretch":
        return Placement(frame, picture, tuple(stretch), (0.0, 0.0))
    if resize == "crop":
        zoom = (max(stretch),) * 2
        return Placement(
            frame, picture, zoom, tuple((p - f * z) / 2 for p, f, z in zip(picture, frame, zoom, strict=True))
        )
    inner = [max(1, round(f * min(stretch))) for f in frame]
    zoom = tuple(i / f for i, f in zip(inner, frame, strict=True))
    return Placement(
        frame, picture, zoom, tuple(float((p - i) // 2) for p, i in zip(picture, inner, strict=True))
    )


def _fit(pre: Preprocess, network_input: InputArray) -> tuple[tuple[int, int], bool]:
    """((width, height), is NCHW) for this input; raises UserError naming the field that does not fit."""
    return _fit_shape(pre, network_input.name, tuple(network_input.shape))


@lru_cache(maxsize=64)
def _fit_shape(pre: Preprocess, name: str, shape: tuple[int, ...]) -> tuple[tuple[int, int], bool]:
    channels = _CHANNELS[pre.colour]
    what = f"input '{name}' of the network has shape {_shape(shape)}"
    if len(shape) != 4:
        if pre.size is None:
            raise UserError(
                f"{what}: it is not 4-dimensional, so [input] size must give the picture's width and height"
            )
        if int(np.prod(shape)) != channels * pre.size[0] * pre.size[1]:
            raise UserError(f"[input] size {_shape(pre.size)} with colour {pre.colour} does not fit: {what}")
        return pre.size, pre.layout != "nhwc"
    axis = {"nchw": 1, "nhwc": 3}.get(pre.layout) or (1 if shape[1] == channels else 3)
    if shape[axis] != channels:
        raise UserError(
            f"[input] colour {pre.colour} is {channels} channel(s) in layout {pre.layout}, but {what}"
        )
    size = (shape[3], shape[2]) if axis == 1 else (shape[2], shape[1])
    if pre.size not in (None, size):
        raise UserError(f"[input] size is {_shape(pre.size)}, but {what}, which is {_shape(size)} pixels")
    return size, axis == 1


@lru_cache(maxsize=64)
def _tables(mean: tuple, scale: tuple, channels: int, dtype: str) -> tuple[np.ndarray, ...]:
    """Per channel, the 256 values that the 8-bit pixels become: one rounding only, from exact arithmetic."""
    pixels = np.arange(256, dtype=np.float64)
    tables = []
    for c in range(channels):
        real = (pixels - mean[c % len(mean)]) * scale[c % len(scale)]
        if np.issubdtype(np.dtype(dtype), np.integer):
            info = np.iinfo(dtype)
            real = np.clip(np.rint(real), info.min, info.max)
        tables.append(real.astype(dtype))
    return tuple(tables)
