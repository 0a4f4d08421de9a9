"""What every head offers, and the detections that it hands over (in pixels of the frame)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from host import draw
from host.errors import UserError
from host.preprocess import Placement

Outputs = Mapping[str, np.ndarray]
"""Every network output under its ONNX name, dequantised."""


@dataclass(frozen=True)
class Label:
    """A class of the whole picture."""

    name: str
    score: float
    index: int

    def as_dict(self) -> dict:
        return {"name": self.name, "score": round(self.score, 4), "index": self.index}


@dataclass(frozen=True)
class Box:
    """An object: corners (x0, y0) and (x1, y1), score 0..1 and the name of its class."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    name: str

    @property
    def corners(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1

    def as_dict(self) -> dict:
        return {"name": self.name, "score": round(self.score, 4), "box": [round(v, 1) for v in self.corners]}


class Head(ABC):
    """The meaning of a network's outputs. A subclass is a frozen dataclass.

    Its fields are those of ``[head]``; ``kind`` is its name in a sidecar.
    Wrong field values raise ValueError in ``__post_init__``.
    """

    kind: ClassVar[str]

    @abstractmethod
    def decode(self, outputs: Outputs, placement: Placement) -> list:
        """Detections (frozen dataclasses with ``as_dict()`` for JSON) in the frame's pixels, best first.

        Raises UserError when the outputs are not those of such a network.
        """

    @abstractmethod
    def draw(self, image: Image.Image, detections: Sequence, colour: draw.Colour = draw.GREEN) -> Image.Image:
        """The picture to show: ``image`` (RGB) drawn on in place, or a new one, always of the same size."""


def take(outputs: Outputs, name: str, kind: str) -> np.ndarray:
    """One output by name, or by being the only one when ``name`` is empty. Raises UserError naming both."""
    if not name and len(outputs) == 1:
        return next(iter(outputs.values()))
    if name not in outputs:
        asked = f"output '{name}'" if name else "a single output"
        raise UserError(f"[head] {kind}: the network has no {asked}; its outputs are {', '.join(outputs)}")
    return outputs[name]


def check_probability(**values: float) -> None:
    """Raises ValueError naming the first value that is not in 0..1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it must be 0..1")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64)))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(np.asarray(x, np.float64) - np.max(x, axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)
