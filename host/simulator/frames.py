"""Frames on the simulated ring: the input's threshold rule, which the host keeps, and the steps of a frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from host.compiler import Program
from host.compiler.places import snapshot_place
from host.simulator.ring import RingSimulator
from hw.layouts import Space, StepKind, pack
from sim.arithmetic import Mode, threshold


class FrameRunner:
    """A program on a simulator, frame by frame.

    Parameters
    ----------
    simulator, program
        of the same config; the program is loaded.
    threshold, mode
        of every tensor, or by tensor name (others: 0 and ``hold``).
    """

    def __init__(self, simulator: RingSimulator, program: Program, threshold: int | Mapping[str, int] = 0,
                 mode: Mode | Mapping[str, Mode] = "hold") -> None:
        self.simulator, self.program = simulator, program
        name = program.graph.input
        self._threshold = threshold.get(name, 0) if isinstance(threshold, Mapping) else threshold
        self._mode: Mode = mode.get(name, "hold") if isinstance(mode, Mapping) else mode
        self.input = np.zeros(program.graph.tensors[name].shape, np.int16)
        self._fresh = True
        simulator.load(program, threshold, mode)

    def begin(self, codes: np.ndarray, refresh: bool = False) -> tuple[list[np.ndarray], bool]:
        """(beats of the frame stream for each FRAME step, refresh) of a frame; moves the input's snapshot on."""
        refresh = refresh or self._fresh
        self._fresh = False
        if refresh:
            self.input = np.zeros_like(self.input)
        deltas, value = threshold(codes.astype(np.int16), self.input, 1 if refresh else self._threshold, self._mode)
        self.input = value
        if self.program.graph.input in self.program.places:
            self._write_input()
        beats = [self.simulator.frame_beats(value if step.direct else deltas)
                 for step in self.program.steps if step.kind == StepKind.FRAME]
        return beats, refresh

    def frame(self, codes: np.ndarray, refresh: bool = False) -> int:
        """Run one frame (the first is a refresh); returns its cycles."""
        beats, refresh = self.begin(codes, refresh)
        return self.simulator.run(0, len(self.program.steps), refresh, np.concatenate(beats))

    def read(self, name: str) -> np.ndarray:
        """A tensor or projection int64[C, H, W] as it is now."""
        if name == self.program.graph.input:
            return self.input.astype(np.int64)
        return self.simulator.read_place(self.program, name)

    def _write_input(self) -> None:
        """Nodes that read the input find it in a snapshot, which the host writes."""
        place, sweep = self.program.places[self.program.graph.input], self.simulator.config.sweep
        c, h, w = self.input.shape
        words = np.zeros((h, w, snapshot_place(place.shape, 0, self.simulator.config).blocks * sweep), np.int64)
        words[:, :, :c] = self.input.transpose(1, 2, 0)
        image = pack(self.simulator.layouts.codes, words.reshape(-1, sweep), place.words)
        self.simulator.write(Space.SNAPSHOTS, image, address=place.base)
