"""What the boards' accelerators hold."""

from __future__ import annotations

import pytest

import models
from host import rrm_file
from host.cli import main
from host.compiler.stored import SECTION
from host.configs import boards, link_needs, named
from host.session import open_model, quantised
from host.video import sample_frames
from tests.networks import clip_for, model_path

RESNET8 = ("mlperftiny_resnet8_cifar10", "mlperftiny_resnet8_cifar10_int8qdq")


@pytest.mark.parametrize("stem", RESNET8)
def test_the_100t_holds_all_of_resnet8(stem, tmp_path, capsys) -> None:
    network, out = model_path(stem), tmp_path / "net.rrm"
    clip = ["--calibrate", str(clip_for(stem))] if stem == RESNET8[0] else []
    arguments = ["compile", str(network), *clip, "--board", "arty_a7", "-o", str(out)]
    assert main([*arguments, "--variant", "100"]) == 0
    board = named("arty_a7_100")
    assert board.config.rows == 64
    assert rrm_file.load(out).sections[SECTION]["config_hash"] == board.config.hash
    out.unlink()
    assert main(arguments) == 2
    assert "does not fit" in capsys.readouterr().err
    assert not out.exists()


def test_every_board_holds_the_bundled_network() -> None:
    clip = str(models.default_clip())
    graph = quantised(open_model(models.default_network()), sample_frames(clip, 2)).network.graph
    for board in boards():
        program = board.compile(graph)
        assert link_needs(program)[0] <= board.link.input_channels


@pytest.mark.parametrize("arguments, message", [
    (["--variant", "100"], "--variant is one of a board"),
    (["--board", "arty_a7", "--variant", "200"], "board 'arty_a7' has no variant '200'; it has '35', '100'"),
    (["--board", "ulx4s"], "there is no accelerator 'ulx4s'; the boards are arty_a7_35, arty_a7_100, ulx3s")])
def test_wrong_boards_are_one_line(arguments, message, tmp_path, capsys, tiny_onnx, tiny_clip) -> None:
    assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), *arguments, "-o", str(tmp_path / "n")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
