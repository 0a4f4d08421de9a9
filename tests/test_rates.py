"""Frames per second of boards: the packets are those of a device, and a figure is the smaller of its two parts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import host.configs
from boards.board import get_board
from host import rrm_file
from host.cli import main
from host.configs import link_for, named, program_for
from host.link_device import RtlDevice
from host.rates import Forecast, Rate
from host.session import Session, open_model, quantised
from host.video import open_source, sample_frames


def test_a_rate_is_the_smaller_part() -> None:
    board = get_board("ulx3s")
    rate = Rate(board, cycles=80_000, sent=200, received=100)
    assert (rate.compute, rate.link, rate.frames) == (1000, 1000, 1000)
    slow = Rate(board, cycles=80_000, sent=2000, received=1000)
    assert slow.as_dict() == {"board": "ulx3s", "fps": 100, "compute_fps": 1000, "link_fps": 100}
    assert str(slow) == "100 frames/s = min(compute 1,000 at 80 MHz, link 100 at 3 Mbaud)"
    assert Rate(board, cycles=800_000, sent=200, received=100).frames == 100


@pytest.mark.parametrize("threshold, mode", [(0, "hold"), (3, "truncate")])
def test_a_rehearsal_has_the_packets_of_the_device(tiny_onnx, tiny_clip, threshold, mode) -> None:
    """Byte for byte and frame for frame those of the RTL; cycles as in docs/cycles.md."""
    model = quantised(open_model(tiny_onnx), sample_frames(tiny_clip, 8))
    with Session(model, RtlDevice("sim8"), threshold=threshold, mode=mode) as session, open_source(tiny_clip) as clip:
        frames = [frame for frame, _ in zip(clip, range(5), strict=False)]
        stats = [session.infer(frame)[1] for frame in frames]
        codes = [session.frame_codes(frame) for frame in frames]
        forecast = Forecast(model.network.graph, session.thresholds, session.modes, codes)
        program = session.device.program
    traffic = forecast.traffic(program, link_for(program))
    assert traffic == [(s.link_sent, s.link_received) for s in stats]
    assert len({sent for sent, _ in traffic}) > 1


def test_infer_and_compile_say_how_fast_boards_are(tmp_path, capsys, tiny_onnx, tiny_clip) -> None:
    figure = (r"at most ([\d,.]+) frames/s = min\(compute ([\d,.e+]+) at (\d+) MHz, link ([\d,.]+) at (\d) Mbaud\)")
    assert main(["infer", str(tiny_clip), "--model", str(tiny_onnx), "--backend", "model", "--frames", "3"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "Mbaud" in line]
    assert len(lines) == 3
    for line, (clock, baud) in zip(lines, (("100", "6"), ("100", "6"), ("80", "3")), strict=True):
        whole, compute, at, link, rate = re.search(figure, line).groups()
        assert (at, rate) == (clock, baud)
        assert float(whole.replace(",", "")) == min(float(x.replace(",", "")) for x in (compute, link))
        assert "predicted from the first 3 frames" in line
    assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), "--board", "ulx3s", "-o",
                 str(tmp_path / "n.rrm")]) == 0
    assert re.search("ulx3s: " + figure, capsys.readouterr().out)


def test_what_ran_on_a_boards_accelerator_is_measured(tmp_path, capsys, monkeypatch, tiny_onnx, tiny_clip) -> None:
    """The accelerator of a board: here one that other tests have built."""
    model = quantised(open_model(tiny_onnx), sample_frames(tiny_clip, 8))
    program = program_for(model, named("sim8"))
    board = replace(get_board("ulx3s"), config=program.config, link=link_for(program))
    monkeypatch.setattr(host.configs, "variants", lambda name: (board,) if name == "ulx3s" else ())
    rrm_file.save(tmp_path / "n.rrm", model)
    assert main(["infer", str(tiny_clip), "--model", str(tmp_path / "n.rrm"), "--backend", "rtl:sim8", "--frames", "3",
                 "--json", str(tmp_path / "f.jsonl")]) == 0
    frames = [json.loads(line) for line in Path(tmp_path / "f.jsonl").read_text().splitlines()]
    for frame in frames:
        assert frame["board"] == "ulx3s"
        assert frame["compute_fps"] == pytest.approx(80e6 / frame["cycles"], abs=1e-3)
        assert frame["link_fps"] == pytest.approx(3e5 / (frame["link_sent"] + frame["link_received"]), abs=1e-3)
        assert frame["fps"] == min(frame["compute_fps"], frame["link_fps"])
    printed = capsys.readouterr().out
    mean = sum(f["link_sent"] + f["link_received"] for f in frames) / 3
    assert f"link {3e5 / mean:,.4g} at 3 Mbaud)\n" in printed
