"""The RTL against the golden model: the first element, or count, in which they differ."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from host.compiler import Program
from host.simulator.frames import FrameRunner
from host.simulator.ring import RingSimulator
from hw.layouts import StepKind
from sim.arithmetic import Mode
from sim.golden import FrameResult, GoldenModel


@dataclass(frozen=True)
class Mismatch:
    """The first difference. ``name`` is a tensor, a projection or ("counter ...") a count of the step; ``at`` is
    (channel, y, x) of an element."""

    frame: int
    step: int
    name: str
    at: tuple[int, ...]
    expected: int
    got: int

    def __str__(self) -> str:
        where = f" at channel {self.at[0]}, y {self.at[1]}, x {self.at[2]}" if self.at else ""
        return f"frame {self.frame}, step {self.step}: {self.name}{where}: expected {self.expected}, got {self.got}"


class Stepped(Protocol):
    """A device that runs a program in parts."""

    program: Program

    def begin(self, codes: np.ndarray, refresh: bool) -> None:
        """The next frame; the first one is a refresh in any case."""

    def run(self, first: int, count: int) -> None:
        """Run steps of it; each once, in order."""

    def read(self, name: str) -> np.ndarray:
        """A tensor or projection [C, H, W] as it is now."""

    def counters(self) -> Mapping[str, np.ndarray]:
        """What the last run of each step counted, int[steps] by name."""


class _RingSteps:
    """The ring alone, at its own streams."""

    def __init__(self, runner: FrameRunner) -> None:
        self.program, self.read, self._runner = runner.program, runner.read, runner

    def begin(self, codes: np.ndarray, refresh: bool) -> None:
        self._beats, self._refresh = self._runner.begin(codes, refresh)

    def run(self, first: int, count: int) -> None:
        beats = [self._beats.pop(0) for s in self.program.steps[first:first + count] if s.kind == StepKind.FRAME]
        self._runner.simulator.run(first, count, self._refresh, np.concatenate(beats) if beats else None)

    def counters(self) -> Mapping[str, np.ndarray]:
        return self._runner.simulator.counters(self.program)


def first_mismatch(simulator: RingSimulator, program: Program, frames: Iterable[np.ndarray],
                   threshold: int | Mapping[str, int] = 0, mode: Mode | Mapping[str, Mode] = "hold",
                   refreshes: Iterable[int] = (0,)) -> Mismatch | None:
    """``first_difference`` of the ring alone: first step by step, then the same frames at once."""
    clip = list(frames)
    for at_once in ((), range(len(clip))):
        steps = _RingSteps(FrameRunner(simulator, program, threshold, mode))
        if found := first_difference(steps, clip, threshold, mode, refreshes, at_once):
            return found
    return None


def first_difference(device: Stepped, frames: Iterable[np.ndarray], threshold: int | Mapping[str, int] = 0,
                     mode: Mode | Mapping[str, Mode] = "hold", refreshes: Container[int] = (0,),
                     at_once: Container[int] = ()) -> Mismatch | None:
    """Run frames of codes on both; read every projection at its barrier and every tensor after its step.

    ``device`` is loaded with these thresholds and modes; ``refreshes`` are the numbers of the frames that are
    refreshes (the first always is). A step that is run alone waits until nothing is under way; in the frames whose
    numbers are in ``at_once`` steps overlap as they do in use, and what lasts until their end is read there.
    """
    model = GoldenModel(device.program.graph, threshold, mode)
    done = _complete_after(device.program)
    for number, codes in enumerate(frames):
        result = model.frame(codes, number in refreshes)
        device.begin(codes, number in refreshes)
        found = _frame(device, model, result, done, number in at_once)
        if found:
            return Mismatch(number, *found)
    return None


def _complete_after(program: Program) -> list[list[str]]:
    """Per step, the tensors and projections that are complete after it."""
    last: dict[str, int] = {}
    for i, step in enumerate(program.steps):
        if step.tensor is not None:
            last[step.tensor] = i
        for e in step.edges:
            last[program.graph.edges[e].target] = i
    return [[name for name, at in last.items() if at == i] for i in range(len(program.steps))]


def _frame(device: Stepped, model: GoldenModel, result: FrameResult, done: list[list[str]],
           at_once: bool) -> tuple | None:
    program, projections = device.program, device.program.graph.projections
    if at_once:
        device.run(0, len(program.steps))
    for i in range(len(program.steps)):
        if not at_once:
            device.run(i, 1)
        for name in done[i]:
            if at_once and name in projections and projections[name].mode == "direct":       # its memory is shared
                continue
            expected = model.snapshots[name] if name in model.snapshots else model.projections[name]
            got = device.read(name)
            if (got != expected).any():
                at = tuple(int(v) for v in np.argwhere(got != expected)[0])
                return i, name, at, int(expected[at]), int(got[at])
    counters = device.counters()
    for i in range(len(program.steps)):
        for name, expected in _counts(program, i, result).items():
            if counters[name][i] != expected:
                return i, f"counter {name}", (), expected, int(counters[name][i])
    return None


def _counts(program: Program, number: int, result: FrameResult) -> dict[str, int]:
    """What a step must have counted."""
    step = program.steps[number]
    counts = {"macs": sum(result.edges[e].macs for e in step.edges)}
    if step.kind == StepKind.SWEEP and program.step_of(step.tensor) == number:
        stats = result.tensors[step.tensor]
        counts |= {"deltas": stats.deltas, "dropped": stats.dropped}
    return counts
