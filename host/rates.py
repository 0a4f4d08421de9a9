"""Frames per second of boards: what they compute at their clock, and what their serial line carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boards.board import Board
from host.compiler import Program
from host.configs import Named, handed_out
from host.cycles import CycleModel, observed_frame
from host.link.rehearsal import LinkEstimate
from hw.link.packets import LinkConfig
from hw.uart import FRAME_BITS
from sim.arithmetic import Mode
from sim.golden import GoldenModel
from sim.graph import Graph


@dataclass(frozen=True)
class Rate:
    """How fast a board is.

    cycles
        clock cycles of a frame.
    sent, received
        bytes of a frame on the line. Requests and answers take turns, so they share its baud rate.
    """

    board: Board
    cycles: float
    sent: float
    received: float

    @property
    def compute(self) -> float:
        """Frames per second of the accelerator, were there no line."""
        return self.board.clock_hz / self.cycles

    @property
    def link(self) -> float:
        """Frames per second of the line, did the accelerator take no time."""
        return self.board.baud / (FRAME_BITS * (self.sent + self.received))

    @property
    def frames(self) -> float:
        """Frames per second: the smaller of the two."""
        return min(self.compute, self.link)

    def __str__(self) -> str:
        clock, baud = self.board.clock_hz / 1e6, self.board.baud / 1e6
        return (f"{self.frames:,.4g} frames/s = min(compute {self.compute:,.4g} at {clock:g} MHz, "
                f"link {self.link:,.4g} at {baud:g} Mbaud)")

    def as_dict(self) -> dict[str, float | str]:
        """Plain values for JSON."""
        return {"board": self.board.label, "fps": round(self.frames, 3), "compute_fps": round(self.compute, 3),
                "link_fps": round(self.link, 3)}


class Forecast:
    """Cycles and packets of the first frames of a clip on any board: by the cycle model, and by the driver.

    Parameters
        graph, threshold, mode: as of ``GoldenModel``.
        frames: their codes int[C, H, W]; the first is computed from scratch.
    """

    def __init__(self, graph: Graph, threshold: int | Mapping[str, int], mode: Mode | Mapping[str, Mode],
                 frames: Sequence[np.ndarray]) -> None:
        golden, names = GoldenModel(graph, threshold, mode), (graph.input, *handed_out(graph))
        self._changes, self._kept = [], []
        for codes in frames:
            self._changes.append(observed_frame(golden, codes)[1])
            kept = golden.projections | golden.snapshots
            self._kept.append({name: kept[name].copy() for name in names})

    def rate(self, board: Named, program: Program, refreshed: float = 0.0) -> Rate:
        """How fast a board runs its program when this share of the frames is computed from scratch."""
        cycles = [frame.total for frame in CycleModel(program).frames(self._changes)]
        sent, received = zip(*self.traffic(program, board.link), strict=True)

        def mean(values: Sequence[int]) -> float:
            first, rest = values[0], values[1:] or values
            return refreshed * first + (1 - refreshed) * sum(rest) / len(rest)

        return Rate(board.board, mean(cycles), mean(sent), mean(received))

    def traffic(self, program: Program, link: LinkConfig) -> list[tuple[int, int]]:
        """(bytes sent, bytes received) of each frame on the link of a device."""
        line = LinkEstimate(program, link)
        return [line.frame(kept) for kept in self._kept]
