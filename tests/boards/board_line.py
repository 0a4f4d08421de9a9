"""A simulated board behind a pseudo-terminal."""

from __future__ import annotations

import os
import subprocess
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hw.uart import cycles_per_bit
from tests.cells import replay

MAIN = Path(__file__).with_name("line.cc")


def compile_board(sources: list, folder: Path, clock_hz: int, baud: int, library: list[Path] | None = None) -> Path:
    """Verilog of a ``boards.top.SerialDesign`` (top module ``top``) -> a program for ``board``."""
    cycles, bits = cycles_per_bit(clock_hz, baud).as_integer_ratio()
    return replay.verilate(folder, "top", sources, MAIN.read_text(), {"CYCLES": cycles, "BITS": bits}, library or [])


@contextmanager
def board(program: Path, *, seed: int = 0, flip: int = 0, drop: int = 0, reset: int = 0) -> Iterator[str]:
    """The path of a terminal with the board behind it. ``flip`` and ``drop``: bytes per million to the device that
    arrive with a wrong bit or not at all; ``reset``: the cycle of a reset (0: none)."""
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    process = subprocess.Popen([program, *map(str, (ours, seed, flip, drop, reset))], pass_fds=[ours])
    try:
        yield os.ttyname(theirs)
        assert process.poll() is None, "the simulated board stopped"
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
