"""What a compiled program takes, layer by layer: a table for people."""

from __future__ import annotations

from itertools import islice

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from host.compiler import Program
from host.configs import Named
from host.cycles import CycleModel, observed_frame
from host.rates import Forecast, Rate
from host.rrm_file import Model
from host.video import open_source
from sim.golden import GoldenModel

FRAMES = 4
"""Frames of the clip from which cycles are predicted; the first is computed from scratch."""


def layers(program: Program, model: Model, clip: str | None) -> Group:
    """One row per edge, in the order of the steps, and a line per memory.

    Mode, weight kind, column phases G, weight words of the fullest PE, P words per PE and, where there is a clip,
    predicted cycles of the step: from scratch, and with what changes between its first frames.
    """
    title = f"{program.graph.name} on config {program.config.hash}"
    table = Table("step", "tensor", "feeds", "mode", "kind", title=title)
    cycles = None if clip is None else predicted(program, model, clip)
    for name in ("G", "weights", "P words", *(("scratch", "changes") if clip else ())):
        table.add_column(name, justify="right")
    for number, step in enumerate(program.steps):
        own = ()
        if cycles is not None:
            own = f"{cycles[0, number]:,}", f"{cycles[1:, number].mean():,.0f}" if len(cycles) > 1 else ""
        for e in step.edges or (None,):
            table.add_row(str(number), step.tensor or "(clear)", *_edge(program, e, step.direct), *own)
            own = ("", "") if own else ()
    lines = [f"  {name:18}{used:>9,} of {getattr(program.config, name):,}" for name, used in program.used.items()]
    if cycles is not None:
        total = cycles.sum(axis=1)
        lines.append(f"  predicted cycles a frame: {total[0]:,} from scratch"
                     + (f", {total[1:].mean():,.0f} with changes only" if len(total) > 1 else ""))
    return Group(table, Text("\n".join(lines)))


def _edge(program: Program, number: int | None, direct: bool) -> tuple[str, ...]:
    if number is None:
        return ("", "", "", "", "", "")
    lowered = program.lowered[number]
    kind = lowered.kind.name.lower() + (" vector" if lowered.vector else "")
    return (lowered.edge.target, "direct" if direct else "delta", kind, str(lowered.place.phases),
            f"{lowered.words:,}", f"{lowered.place.words:,}")


def predicted(program: Program, model: Model, clip: str) -> np.ndarray:
    """Cycles int64[frames, steps] of the first frames of a clip, exact mode."""
    golden = GoldenModel(program.graph)
    changes = [observed_frame(golden, codes)[1] for codes in first_codes(model, clip)]
    return np.stack([f.steps for f in CycleModel(program).frames(changes)])


def rate(program: Program, board: Named, model: Model, clip: str) -> Rate:
    """How fast a board is on the first frames of a clip, exact mode, without that from scratch."""
    return Forecast(program.graph, 0, "hold", first_codes(model, clip)).rate(board, program)


def first_codes(model: Model, clip: str) -> list[np.ndarray]:
    """Codes int16[C, H, W] of the input for the first frames of a clip."""
    network, graph = model.network, model.network.graph
    with open_source(clip) as frames:
        return [network.input.to_codes(model.sidecar.input.apply(frame, network.input), graph.tensors[graph.input].code)
                for frame in islice(frames, FRAMES)]
