"""Progress bars on stderr, silent where nobody watches, and the calibration pass that shows one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from host.cli.options import Weights
from host.rrm_file import Model
from host.session import CALIBRATION_FRAMES, needs_calibration, quantised


@contextmanager
def progress(what: str, total: int | None) -> Iterator:
    """A bar; the value is a function to call with the number of frames done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def calibrated(model: Model, samples: Callable[[], Iterable[np.ndarray]], weights: Weights,
               wanted: bool = False) -> Model:
    """The model quantised. ``samples`` gives calibration frames and is only called where some are needed;
    ``wanted``: the user asked for calibration, so say when it is not needed.
    """
    if not needs_calibration(model):
        if wanted:
            note(f"{model.network.name} brings its scales along; --calibrate is not used")
        return quantised(model, weights=weights)
    with progress("calibrating", CALIBRATION_FRAMES) as show:
        return quantised(model, samples(), weights, show)


def note(message: str) -> None:
    """One line for the user that is no error."""
    print(f"rrm-fpga: {message}", file=sys.stderr)
