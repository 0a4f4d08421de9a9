"""The synthesised netlist of the whole accelerator, with its block RAMs and multipliers, runs clips exactly: of the
network that is built in, then of one that is loaded."""

from __future__ import annotations

import pytest

from boards.family import FAMILIES
from boards.top import SerialDesign
from host.compiler import compile_graph
from host.link.program import device_program
from host.ports import find
from hw.accelerator import Accelerator
from hw.config import AcceleratorConfig
from tests.boards.board_line import board, compile_board, play
from tests.cells import replay
from tests.link.test_accelerator import LINK
from tests.random_graphs import Limits, random_graph

CONFIG = AcceleratorConfig(pes=2, lanes=2, sweep=2, kinds=("dense8",), projection_words=512, weight_words=512,
                           snapshot_words=512, column_words=16, tap_words=16, codebook_words=16, node_words=16,
                           axis_words=16, channel_words=16, step_words=16, edge_words=16, clear_words=16, max_size=4,
                           max_channels=4, max_blocks=4)
CLOCK_HZ, BAUD = 24_000_000, 4_000_000
"""Six cycles per bit, the fastest that the serial port does: fewer cycles to simulate."""


@pytest.mark.parametrize("family", FAMILIES)
def test_netlist(family, tmp_path) -> None:
    built_in, loaded = (compile_graph(random_graph(seed, Limits(channels=4, size=4, layers=2)), CONFIG)
                        for seed in (0, 2))
    made = device_program(built_in)
    design = SerialDesign(Accelerator(CONFIG, LINK, made.contents), clock_hz=CLOCK_HZ, baud=BAUD)
    sources, library, cells = replay.synthesised(design, FAMILIES[family], tmp_path)
    block_rams = {name for name, used in cells.memories().items() if "BRAM" in used}
    for memory in ("accumulators.ram", "walker.weights"):
        assert {f"design.ring.pe{i}.{memory}" for i in range(CONFIG.pes)} <= block_rams
    assert sum(cells.types[kind] for kind in FAMILIES[family].multipliers) >= CONFIG.rows
    with board(compile_board(sources, tmp_path, CLOCK_HZ, BAUD, library)) as port:
        for program, there in ((built_in, made.hash), (loaded, 0)):
            reports = play(program, port, 4)
            assert [r.refresh for r in reports] == [True, False, False, False]
            found = find(port)
            found.transport.close()
            assert found.identity.program == there
