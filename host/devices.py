"""Devices: what can run a quantised network frame by frame.

A backend is a way of getting a device; ``BACKENDS`` lists them all. ``open_device("model")`` gives the golden
model in NumPy, which needs nothing but this machine. A backend may take an argument after a colon
("NAME:ARGUMENT"), which its function is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from host.errors import UserError
from host.network import Network
from sim.arithmetic import Mode
from sim.golden import FrameResult, GoldenModel


class Device(Protocol):
    """Runs one quantised network. Every device gives the same integers for the same calls."""

    def load(self, network: Network, threshold: int | Mapping[str, int] = 0,
             mode: Mode | Mapping[str, Mode] = "hold") -> None:
        """Make the device ready for the first frame. Threshold and mode are for all tensors, or by name."""

    def frame(self, codes: np.ndarray, refresh: bool = False) -> FrameResult:
        """Run one frame. ``codes`` are those of the input tensor, int[C, H, W].

        The first frame after ``load`` or ``reset`` is a refresh, asked for or not.
        """

    def read_tensor(self, name: str) -> np.ndarray:
        """The snapshot of a tensor (int16[C, H, W]) or a projection (int64[C, H, W]) after a frame."""

    def reset(self) -> None:
        """Forget everything that was kept from frame to frame."""

    def close(self) -> None:
        """Give the device back; nothing may be called after this."""


class ModelDevice:
    """The golden model as a device."""

    def __init__(self, argument: str = "") -> None:
        if argument:
            raise UserError(f"backend 'model' takes no argument, but it was given '{argument}'")

    def load(self, network: Network, threshold: int | Mapping[str, int] = 0,
             mode: Mode | Mapping[str, Mode] = "hold") -> None:
        self._model = GoldenModel(network.graph, threshold, mode)

    def frame(self, codes: np.ndarray, refresh: bool = False) -> FrameResult:
        return self._model.frame(codes, refresh)

    def read_tensor(self, name: str) -> np.ndarray:
        kept = self._model.snapshots if name in self._model.snapshots else self._model.projections
        return kept[name].copy()

    def reset(self) -> None:
        self._model.reset()

    def close(self) -> None:
        pass


BACKENDS: dict[str, Callable[[str], Device]] = {"model": ModelDevice}
"""Name of a backend -> function from the text after the colon to a device that is not loaded yet."""


def open_device(backend: str) -> Device:
    """The device of a backend "NAME" or "NAME:ARGUMENT". Raises UserError listing the backends there are."""
    name, _, argument = backend.partition(":")
    if name not in BACKENDS:
        raise UserError(f"there is no backend '{name}'; the backends are {', '.join(BACKENDS)}")
    return BACKENDS[name](argument)
