"""A simulated board behind a pseudo-terminal."""

from __future__ import annotations

import os
import subprocess
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host.compiler import Program
from host.link.driver import Driver, FrameReport
from host.link.program import device_program, region, values
from host.link.transport import SerialTransport
from hw.uart import cycles_per_bit
from sim.golden import GoldenModel
from tests.cells import replay
from tests.random_graphs import random_clip

MAIN = Path(__file__).with_name("line.cc")


def compile_board(sources: list, folder: Path, clock_hz: int, baud: int, library: list[Path] | None = None) -> Path:
    """Verilog of a ``boards.top.SerialDesign`` (top module ``top``) -> a program for ``board``."""
    cycles, bits = cycles_per_bit(clock_hz, baud).as_integer_ratio()
    return replay.verilate(folder, "top", sources, MAIN.read_text(), {"CYCLES": cycles, "BITS": bits}, library or [])


@contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: (our end, the path of the other)."""
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    try:
        yield ours, os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@contextmanager
def board(program: Path, *, seed: int = 0, flip: int = 0, drop: int = 0, reset: int = 0) -> Iterator[str]:
    """The path of a terminal with the board behind it. ``flip`` and ``drop``: bytes per million, in either direction,
    that arrive with a wrong bit or not at all; ``reset``: the reset button is pressed when so many bytes have reached
    the board (0: never)."""
    with terminal() as (ours, path):
        process = subprocess.Popen([program, *map(str, (ours, seed, flip, drop, reset))], pass_fds=[ours])
        try:
            yield path
            assert process.poll() is None, "the simulated board stopped"
        finally:
            process.kill()
            process.wait()


def play(program: Program, terminal: str, frames: int) -> list[FrameReport]:
    """Run a clip; every tensor and projection after every frame is that of the golden model."""
    transport = SerialTransport(terminal, 115200)  # a terminal has no baud rate; the simulated line has one
    try:
        driver = Driver(transport, program.config)
        driver.connect()
        driver.load(device_program(program, 0, "hold"))
        golden, reports = GoldenModel(program.graph, 0, "hold"), []
        names = [n for n in (*golden.snapshots, *golden.projections)
                 if n in program.places and n != program.graph.input]
        for codes in random_clip(program.graph, 1, frames):
            report = driver.frame(codes, reads=[region(program, n) for n in names])
            golden.frame(codes, report.refresh)
            for name, words in zip(names, report.data, strict=True):
                kept = golden.snapshots if name in golden.snapshots else golden.projections
                assert (values(program, name, words) == kept[name]).all(), name
            reports.append(report)
        return reports
    finally:
        transport.close()
