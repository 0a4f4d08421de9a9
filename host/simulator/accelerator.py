"""The compiled accelerator as a line of bytes: what a serial port is to a board."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from host.errors import UserError
from host.simulator.build import Progress, library
from hw.config import AcceleratorConfig
from hw.link.packets import LinkConfig
from hw.load import NO_IMAGES, Images

PATIENCE = 16
"""A read gives up after so many times the link's own timeout without a byte."""


class AcceleratorSimulator:
    """An accelerator in compiled simulation; a ``host.link.transport.Transport``.

    Its line moves a byte per cycle. Building takes minutes the first time and is cached; ``progress`` is told
    what goes on. ``trace``: waveforms can be written. ``images``: what its memories hold at power-up.

    Members
        cycles: clock cycles so far.
    """

    name = "simulator"

    def __init__(self, config: AcceleratorConfig, link: LinkConfig, progress: Progress = lambda what: None,
                 trace: bool = False, images: Images = NO_IMAGES) -> None:
        self.config, self.link = config, link
        self._library = ctypes.CDLL(str(library(config, progress, link=link, trace=trace, images=images)))
        for name, result, arguments in (
                ("create", ctypes.c_void_p, []), ("destroy", None, [ctypes.c_void_p]),
                ("cycles", ctypes.c_int64, [ctypes.c_void_p]),
                ("run", ctypes.c_int64, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64,
                                         ctypes.POINTER(ctypes.c_int64), ctypes.c_void_p, ctypes.c_int64,
                                         ctypes.c_int64])):
            function = getattr(self._library, f"device_{name}")
            function.restype, function.argtypes = result, arguments
        self._handle = self._library.device_create()
        self._waiting, self.cycles = b"", 0

    def write(self, data: bytes) -> None:
        """Bytes for the device; time passes in ``read``."""
        self._waiting += data

    def read(self, limit: int, timeout: float) -> bytes:
        """``limit`` bytes; fewer when the device has been silent for long, in cycles (``timeout`` is not used)."""
        answer, taken = np.zeros(limit, np.uint8), ctypes.c_int64()
        came = self._library.device_run(self._handle, self._waiting, len(self._waiting), ctypes.byref(taken),
                                        answer.ctypes.data, limit, PATIENCE * self.link.timeout)
        self._waiting = self._waiting[taken.value:]
        self.cycles = self._library.device_cycles(self._handle)
        return answer[:came].tobytes()

    def trace(self, path: str | Path | None) -> None:
        """Write waveforms (VCD, every signal) to a file from now on; None ends it. Needs ``trace=True``.

        Raises UserError when the file cannot be written.
        """
        function = self._library.device_trace
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_int
        if not function(self._handle, None if path is None else str(path).encode()):
            raise UserError(f"{path or 'the trace'}: cannot write waveforms there")

    def close(self) -> None:
        """Free the simulation."""
        if self._handle:
            self._library.device_destroy(self._handle)
            self._handle = None
