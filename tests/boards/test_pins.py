"""The whole accelerator behind its serial pins, driven by the host's driver through a pseudo-terminal."""

from __future__ import annotations

import pytest

from boards.board import get_board
from boards.top import SerialDesign
from host.compiler import Program
from host.link.driver import Driver, FrameReport
from host.link.program import device_program, region, values
from host.link.transport import SerialTransport
from hw.accelerator import Accelerator
from sim.golden import GoldenModel
from tests.boards.board_line import board, compile_board
from tests.cells import replay
from tests.link.test_accelerator import LINK, small_program
from tests.random_graphs import random_clip


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


@pytest.fixture(scope="module")
def small_board(tmp_path_factory):
    """(program, simulated board) with the clock and the baud rate of the Arty A7."""
    program, real = small_program(0), get_board("arty_a7")
    folder = tmp_path_factory.mktemp("pins")
    design = SerialDesign(Accelerator(program.config, LINK), clock_hz=real.clock_hz, baud=real.baud)
    return program, compile_board(replay.design(design, folder), folder, real.clock_hz, real.baud)


def test_a_clean_line(small_board) -> None:
    program, simulated = small_board
    with board(simulated) as terminal:
        reports = play(program, terminal, 4)
    assert [r.refresh for r in reports] == [True, False, False, False]
    assert sum(r.traffic.repeats for r in reports) == 0


@pytest.mark.parametrize("faults", [{"flip": 3000}, {"drop": 3000}], ids=["wrong bits", "lost bytes"])
def test_a_bad_line(small_board, faults) -> None:
    program, simulated = small_board
    with board(simulated, seed=3, **faults) as terminal:
        reports = play(program, terminal, 8)
    assert sum(r.traffic.repeats for r in reports) > 0


def test_a_reset_in_the_middle(small_board) -> None:
    """The frame that is hit is repeated as a refresh, and says so."""
    program, simulated = small_board
    with board(simulated, reset=400_000) as terminal:
        reports = play(program, terminal, 8)
    assert sum(r.traffic.resets for r in reports) == 1
    assert [r.refresh for r in reports].count(True) == 2
