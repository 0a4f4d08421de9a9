"""The ring against the golden model, step by step: the first element, or count, in which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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


def first_mismatch(simulator: RingSimulator, program: Program, frames: Iterable[np.ndarray],
                   threshold: int | Mapping[str, int] = 0, mode: Mode | Mapping[str, Mode] = "hold",
                   refreshes: Iterable[int] = (0,)) -> Mismatch | None:
    """Run frames of codes on both; read every projection at its barrier and every tensor after its step.

    ``refreshes`` are the numbers of the frames that are refreshes (the first always is).
    """
    runner = FrameRunner(simulator, program, threshold, mode)
    model = GoldenModel(program.graph, threshold, mode)
    refreshes, done = set(refreshes), _complete_after(program)
    for number, codes in enumerate(frames):
        result = model.frame(codes, number in refreshes)
        beats, refresh = runner.begin(codes, number in refreshes)
        found = _frame(runner, model, result, beats, refresh, done)
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


def _frame(runner: FrameRunner, model: GoldenModel, result: FrameResult, beats: list[np.ndarray], refresh: bool,
           done: list[list[str]]) -> tuple | None:
    program, simulator = runner.program, runner.simulator
    beats = list(beats)
    for i, step in enumerate(program.steps):
        simulator.run(i, 1, refresh, beats.pop(0) if step.kind == StepKind.FRAME else None)
        for name in done[i]:
            expected = model.snapshots[name] if name in model.snapshots else model.projections[name]
            got = runner.read(name)
            if (got != expected).any():
                at = tuple(int(v) for v in np.argwhere(got != expected)[0])
                return i, name, at, int(expected[at]), int(got[at])
    counters = simulator.counters(program)
    for i, step in enumerate(program.steps):
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
