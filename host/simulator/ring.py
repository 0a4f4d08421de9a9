"""The compiled ring: load a program, run frames, read projections, snapshots and counters."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping

import numpy as np

from host.compiler import Program
from host.simulator.build import Progress, library
from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space, chunks, pack, size_of, unpack
from hw.load import LOAD
from hw.readout import ANSWER, READ, answer_layout
from hw.ring import frame_layout
from hw.sequencer import run_layout
from sim.arithmetic import Mode


class _Beats(ctypes.Structure):
    _fields_ = [("beats", ctypes.c_void_p), ("count", ctypes.c_int64), ("chunks", ctypes.c_int64)]

    @classmethod
    def of(cls, array: np.ndarray) -> _Beats:
        return cls(array.ctypes.data, len(array), array.shape[1])


class SimulationStuck(RuntimeError):
    """The ring did not come to an end within the cycles it was given."""


class RingSimulator:
    """A ring of one config, in compiled simulation, at the ring's own streams.

    Building takes minutes the first time and is cached; ``progress`` is told what goes on.
    """

    def __init__(self, config: AcceleratorConfig, progress: Progress = lambda what: None) -> None:
        self.config, self.layouts = config, Layouts(config)
        self._library = ctypes.CDLL(str(library(config, progress)))
        self._library.ring_create.restype = ctypes.c_void_p
        self._library.ring_destroy.argtypes = [ctypes.c_void_p]
        self._library.ring_run.restype = ctypes.c_int64
        self._library.ring_run.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Beats), ctypes.POINTER(_Beats),
                                           ctypes.c_int, ctypes.c_int64]
        self._handle = self._library.ring_create()

    def close(self) -> None:
        """Free the simulation."""
        if self._handle:
            self._library.ring_destroy(self._handle)
            self._handle = None

    def load(self, program: Program, threshold: int | Mapping[str, int] = 0,
             mode: Mode | Mapping[str, Mode] = "hold") -> None:
        """Write every memory of a program. The next frame must be a refresh."""
        for space, images in program.images.items():
            for unit, image in enumerate(images):
                self.write(space, image, unit)
        self.write(Space.STEPS, program.step_image(threshold, mode))

    def write(self, space: Space, image: np.ndarray, unit: int = 0, address: int = 0) -> None:
        """Write uint32[words, chunks] from ``address`` on."""
        words, n = image.shape
        beats = pack(LOAD, {"space": int(space), "unit": unit, "data": image.reshape(-1).astype(np.int64),
                            "address": np.repeat(np.arange(words) + address, n),
                            "last": np.tile(np.arange(n) == n - 1, words)}, words * n)
        self._run(load=beats, max_cycles=words * n + 100)

    def run(self, first: int, count: int, refresh: bool, frame: np.ndarray | None = None,
            max_cycles: int = 1 << 31) -> int:
        """Run steps; ``frame`` are the beats for FRAME steps among them (``frame_beats``). Returns cycles."""
        command = pack(run_layout(self.layouts), {"first": first, "count": count, "refresh": int(refresh)})
        return self._run(run=command, frame=frame, until_idle=True, max_cycles=max_cycles)

    def frame_beats(self, deltas: np.ndarray) -> np.ndarray:
        """Deltas (or values) [C, H, W] of the input tensor as beats of the frame stream; words of 0 are left out."""
        c, h, w = deltas.shape
        sweep = self.config.sweep
        padded = np.zeros((-(-c // sweep) * sweep, h, w), np.int64)
        padded[:c] = deltas
        words = padded.reshape(-1, sweep, h, w).transpose(2, 3, 0, 1)          # [y, x, group, S]
        y, x, group = np.nonzero(words.any(axis=3))
        if not len(y):
            y = x = group = np.zeros(1, np.int64)
        last = np.arange(len(y)) == len(y) - 1
        return pack(frame_layout(self.layouts), {"deltas": words[y, x, group], "y": y, "x": x, "group": group,
                                                 "last": last}, len(y))

    def read(self, space: Space, unit: Iterable[int], address: Iterable[int]) -> np.ndarray | dict:
        """Unpacked words of PROJECTIONS (``unit``: sweep group), SNAPSHOTS or COUNTERS."""
        address = np.asarray(address).reshape(-1)
        layout = answer_layout(self.layouts, space)
        n = chunks(size_of(layout))
        requests = pack(READ, {"space": int(space), "unit": np.asarray(unit).reshape(-1), "address": address},
                        len(address))
        beats = self._run(read=requests, expect=len(address) * n, max_cycles=len(address) * (n + 100) + 100)
        return unpack(layout, unpack(ANSWER, beats)["data"].astype(np.uint32).reshape(len(address), n))

    def read_place(self, program: Program, name: str) -> np.ndarray:
        """A projection or snapshot int64[C, H, W]."""
        place = program.places[name]
        address, group = place.addresses(self.config.sweep)
        space = Space.PROJECTIONS if place.projection else Space.SNAPSHOTS
        words = self.read(space, group if place.projection else np.zeros_like(group), address)
        _, h, w = place.shape
        return place.by_channel(words.reshape(h, w, -1).transpose(2, 0, 1))

    def counters(self, program: Program) -> dict[str, np.ndarray]:
        """Counters of the last run of every step, int64[steps] by name."""
        steps = np.arange(len(program.steps))
        return self.read(Space.COUNTERS, np.zeros_like(steps), steps)

    def _run(self, *, load=None, run=None, frame=None, read=None, expect: int = 0, until_idle: bool = False,
             max_cycles: int) -> int | np.ndarray:
        sources = [np.zeros((0, 1), np.uint32) if a is None else np.ascontiguousarray(a, np.uint32)
                   for a in (load, run, frame, read)]
        beats = (_Beats * 4)(*map(_Beats.of, sources))
        answer = np.zeros((expect, chunks(ANSWER.size)), np.uint32)
        sink = _Beats.of(answer)
        cycles = self._library.ring_run(self._handle, beats, ctypes.byref(sink), until_idle, max_cycles)
        if cycles == max_cycles or sink.count or any(b.count for b in beats):
            raise SimulationStuck(f"the ring is not done after {cycles} cycles; beats left: load, run, frame, read "
                                  f"{[b.count for b in beats]}, answers {sink.count}")
        return answer if expect else cycles

