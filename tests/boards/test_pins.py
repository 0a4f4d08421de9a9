"""The whole accelerator behind its serial pins, used by the command line through a pseudo-terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boards.board import get_board
from boards.top import SerialDesign
from host import rrm_file
from host.cli import main
from host.compiler.stored import SECTION, from_section
from host.link.driver import Driver
from host.link.program import device_program
from host.link.rehearsal import Rehearsal
from host.rates import Forecast
from host.report import first_codes
from hw.accelerator import Accelerator
from hw.config import PRESETS, AcceleratorConfig
from hw.link.packets import LinkConfig
from tests.boards.board_line import board, compile_board, terminal
from tests.cells import replay

CONFIG = AcceleratorConfig(pes=2, lanes=2, sweep=2, kinds=("dense8",), projection_words=64, weight_words=64,
                           column_words=16, tap_words=16, codebook_words=16, snapshot_words=64, node_words=4,
                           axis_words=16, channel_words=8, step_words=4, edge_words=4, clear_words=4, max_size=16,
                           max_channels=8, max_blocks=4)
"""Its memories grow to what the network needs."""
LINK = LinkConfig(buffer_bytes=512, mirror_bytes=2048, input_channels=4, timeout=4000)
FRAMES = 4


@pytest.fixture(scope="module")
def network(tmp_path_factory, tiny_onnx, tiny_clip) -> Path:
    """The tiny network, compiled for ``CONFIG``."""
    path = tmp_path_factory.mktemp("pins") / "tiny.rrm"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "pins", CONFIG)
        assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), "--config", "pins", "-o",
                     str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def simulated(network) -> Path:
    """A board with the accelerator of the network, with the clock and the baud rate of the Arty A7."""
    real, model = get_board("arty_a7"), rrm_file.load(network)
    config = from_section(model.sections[SECTION], model.network.graph).config
    design = SerialDesign(Accelerator(config, LINK), clock_hz=real.clock_hz, baud=real.baud)
    return compile_board(replay.design(design, network.parent), network.parent, real.clock_hz, real.baud)


def infer(network: Path, clip: Path, backend: str, folder: Path) -> tuple[list[dict], dict[str, np.ndarray]]:
    """(JSON lines, arrays) of a run."""
    lines, arrays = folder / "frames.jsonl", folder / "outputs.npz"
    assert main(["infer", str(clip), "--model", str(network), "--backend", backend, "--frames", str(FRAMES), "--json",
                 str(lines), "--save-outputs", str(arrays)]) == 0
    with np.load(arrays) as loaded:
        return [json.loads(line) for line in lines.read_text().splitlines()], dict(loaded)


@pytest.fixture(scope="module")
def rtl(network, tiny_clip, tmp_path_factory) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The same run on the RTL in compiled simulation (of an accelerator that other tests build as well)."""
    folder = tmp_path_factory.mktemp("rtl")
    bare = folder / "bare.rrm"
    rrm_file.save(bare, replace(rrm_file.load(network), sections={}))
    return infer(bare, tiny_clip, "rtl:sim8", folder)


def same(arrays: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(arrays) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(arrays[name], values)


def bytes_until(frame: int, network: Path, clip: Path) -> int:
    """What the command line sends until this frame begins."""
    model = rrm_file.load(network)
    program = from_section(model.sections[SECTION], model.network.graph)
    driver = Driver(Rehearsal(program, LINK), program.config)
    driver.connect()
    asked = driver.link.traffic.sent  # once more, before the program is known
    driver.load(device_program(program))
    frames = Forecast(program.graph, 0, "hold", first_codes(model, str(clip))).traffic(program, LINK)
    return asked + driver.link.traffic.sent + sum(sent for sent, _ in frames[:frame])


def test_a_clean_line(network, simulated, tiny_clip, tmp_path, rtl) -> None:
    with board(simulated) as port:
        lines, arrays = infer(network, tiny_clip, f"serial:{port}", tmp_path)
    same(arrays, rtl[1])
    count = ("frame", "refresh", "deltas", "macs", "macs_dense")
    assert [[line[k] for k in count] for line in lines] == [[line[k] for k in count] for line in rtl[0]]
    assert [line["refresh"] for line in lines] == [True] + [False] * (FRAMES - 1)
    assert all(line["cycles"] > 0 and line["link_repeats"] == 0 for line in lines)


@pytest.mark.parametrize("faults", [{"flip": 1000}, {"drop": 600}], ids=["wrong bits", "lost bytes"])
def test_a_bad_line(network, simulated, tiny_clip, tmp_path, rtl, faults) -> None:
    with board(simulated, seed=3, **faults) as port:
        lines, arrays = infer(network, tiny_clip, f"serial:{port}", tmp_path)
    same(arrays, rtl[1])
    assert [line["refresh"] for line in lines] == [line["refresh"] for line in rtl[0]]
    assert sum(line["link_repeats"] for line in lines) > 0


def test_a_reset_in_the_middle_of_a_frame(network, simulated, tiny_clip, tmp_path, rtl) -> None:
    """The frame that is hit is repeated as a refresh, and the JSON says so."""
    with board(simulated, reset=bytes_until(2, network, tiny_clip) + 40) as port:
        lines, arrays = infer(network, tiny_clip, f"serial:{port}", tmp_path)
    same(arrays, rtl[1])
    assert [line["frame"] for line in lines if line["refresh"]] == [0, 2]
    assert [line["frame"] for line in lines if line["link_resets"]] == [2]


def test_devices_says_who_answers(network, simulated, capsys) -> None:
    model = rrm_file.load(network)
    with board(simulated) as port, terminal() as (_, silent):
        assert main(["devices", port, silent]) == 0
        printed = capsys.readouterr().out
        assert main(["devices", silent]) == 1
    assert model.sections[SECTION]["config_hash"] in printed
    assert "config of no board" in printed
    assert "6,000,000 baud" in printed
    assert "nothing came" in printed
    for backend in ("rtl", "model", "serial"):
        assert backend in printed
