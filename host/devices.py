"""Devices: what can run a quantised network frame by frame.

A backend is a way of getting a device; ``BACKENDS`` lists them all. ``open_device("rtl")`` gives the compiled
RTL, ``open_device("model")`` the golden model in NumPy, which needs nothing but this machine,
``open_device("serial:/dev/ttyUSB1")`` a board. A backend may take an argument after a colon
("NAME:ARGUMENT"), which its function is handed; the function's docstring says what it is to users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from host.errors import UserError
from host.rrm_file import Model
from sim.arithmetic import Mode
from sim.golden import FrameResult, GoldenModel

if TYPE_CHECKING:
    from host.cycles import CycleModel

DeviceProgress = Callable[[str], None]
"""Called with what a device is waiting for now (building a simulator takes minutes)."""


class Result(Protocol):
    """What one frame gave: real outputs by name, whether it was computed from scratch, and how much work it was.

    ``cycles`` are clock cycles of the accelerator, None when nobody knows; ``dropped`` are sums of squares of the
    changes that were not sent, by tensor. The golden model's is a ``sim.golden.FrameResult``, a device's a
    ``host.link_device.DeviceResult``.
    """

    outputs: Mapping[str, np.ndarray]
    refresh: bool

    @property
    def cycles(self) -> int | None: ...

    @property
    def dropped(self) -> Mapping[str, int]: ...

    def total(self, field: str) -> int | None:
        """Sum of a count over the network, see ``FrameResult.total``; None for what is not counted."""


class Device(Protocol):
    """Runs one quantised network. Every device gives the same integers for the same calls."""

    def load(self, model: Model, threshold: int | Mapping[str, int] = 0,
             mode: Mode | Mapping[str, Mode] = "hold") -> None:
        """Make the device ready for the first frame. Threshold and mode are for all tensors, or by name.

        Raises UserError when the network does not fit the device.
        """

    def frame(self, codes: np.ndarray, refresh: bool = False) -> Result:
        """Run one frame. ``codes`` are those of the input tensor, int[C, H, W].

        The first frame after ``load`` or ``reset`` is a refresh, asked for or not.
        """

    def read_tensor(self, name: str) -> np.ndarray:
        """The snapshot of a tensor (int16[C, H, W]) or a projection (int64[C, H, W]) after a frame.

        Raises UserError for a projection whose memory holds something else by then.
        """

    def reset(self) -> None:
        """Forget everything that was kept from frame to frame."""

    def close(self) -> None:
        """Give the device back; nothing may be called after this."""


class ModelDevice:
    """The golden model as a device.

    predict
        also predict the cycles of the accelerator for which the ``.rrm`` file is compiled, else of one with memories
        sized to the network; where it cannot be compiled there is no prediction. ``accelerator`` names it.
    """

    def __init__(self, predict: bool = False) -> None:
        self._predict = predict
        self._cycles: CycleModel | None = None

    def load(self, model: Model, threshold: int | Mapping[str, int] = 0,
             mode: Mode | Mapping[str, Mode] = "hold") -> None:
        self._model = GoldenModel(model.network.graph, threshold, mode)
        if self._predict:
            self._cycles, self.accelerator = _cycle_model(model)

    def frame(self, codes: np.ndarray, refresh: bool = False) -> FrameResult:
        if self._cycles is None:
            return self._model.frame(codes, refresh)
        from host.cycles import observed_frame

        result, changes = observed_frame(self._model, codes, refresh)
        return replace(result, cycles=self._cycles.frame(changes).total)

    def read_tensor(self, name: str) -> np.ndarray:
        kept = self._model.snapshots if name in self._model.snapshots else self._model.projections
        return kept[name].copy()

    def reset(self) -> None:
        self._model.reset()

    def close(self) -> None:
        pass


def _cycle_model(model: Model) -> tuple[CycleModel | None, str]:
    from host.compiler.stored import SECTION
    from host.configs import DEFAULT, program_for
    from host.cycles import CycleModel

    try:
        program = program_for(model)
    except UserError:
        return None, ""
    return CycleModel(program), f"config {program.config.hash}" if SECTION in model.sections else DEFAULT


def _model(argument: str, progress: DeviceProgress) -> Device:
    """the exact integer model in NumPy (model:cycles: and predicted cycles)"""
    if argument not in ("", "cycles"):
        raise UserError(f"backend 'model' is followed by nothing or by :cycles, not by ':{argument}'")
    return ModelDevice(predict=bool(argument))


def _rtl(argument: str, progress: DeviceProgress) -> Device:
    """the accelerator in compiled simulation (rtl:NAME: that of a board or preset)"""
    from host.link_device import RtlDevice  # needs Amaranth, which takes its time to import

    return RtlDevice(argument or None, progress)


def _serial(argument: str, progress: DeviceProgress) -> Device:
    """a board on a serial port (serial:PORT, or serial:PORT@BAUD)"""
    from host.link_device import SerialDevice
    from host.ports import port_and_rates

    return SerialDevice(*port_and_rates(argument))


BACKENDS: dict[str, Callable[[str, DeviceProgress], Device]] = {"rtl": _rtl, "model": _model, "serial": _serial}
"""Name of a backend -> function from the text after the colon to a device that is not loaded yet."""


def open_device(backend: str, progress: DeviceProgress = lambda what: None) -> Device:
    """The device of a backend "NAME" or "NAME:ARGUMENT". Raises UserError listing the backends there are."""
    name, _, argument = backend.partition(":")
    if name not in BACKENDS:
        raise UserError(f"there is no backend '{name}'; the backends are {', '.join(BACKENDS)}")
    return BACKENDS[name](argument, progress)
