"""The command line: what its files hold, and that every mistake is one clear line and exit code 2."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from PIL import Image

from host.cli import main
from host.errors import UserError
from host.heads import head_for
from host.session import Session, open_model, quantised
from host.video import open_source, sample_frames
from tests.conftest import ROOT, command, environment, run, tiny_model, write_clip

INFER = ("infer", "--backend", "model")
"""These tests are about the command line; the model needs no simulator to be built."""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_video(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


# --------------------------------------------------------------------------------------------------- results

def test_files_hold_what_a_session_returns(here, capsys, tiny_onnx, tiny_clip):
    code = main([*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--threshold", "3", "--json", "f.jsonl",
                 "--save-outputs", "o.npz", "--tap", "features", "--tap", "image", "--refresh", "4"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.err == ""
    model = quantised(open_model(tiny_onnx), sample_frames(tiny_clip, 32))
    session, lines = Session(model, threshold=3, refresh=4), read_lines(here / "f.jsonl")
    with np.load(here / "o.npz") as arrays:
        assert sorted(arrays) == ["features", "heat", "image", "map"]
        for i, frame in enumerate(open_source(tiny_clip)):
            outputs, stats = session.infer(frame)
            found = head_for({"kind": "raw"}).decode(outputs, session.placement(frame))
            assert lines[i] == stats.as_dict() | {"detections": [d.as_dict() for d in found]}
            taps = {name: session.tap(name) for name in ("features", "image")}
            for name, value in {**outputs, **taps}.items():
                assert arrays[name].dtype == value.dtype
                np.testing.assert_array_equal(arrays[name][i], value)
        assert len(lines) == len(arrays["map"]) == 40
    assert sorted(p.name for p in here.iterdir()) == ["f.jsonl", "o.npz"]
    assert "40 frames" in printed.out
    assert [i for i, line in enumerate(lines) if line["refresh"]] == list(range(0, 40, 4))
    assert [lines[i].get("reason") for i in (0, 1, 4)] == ["first", None, "schedule"]
    assert "10 frames of 40 from scratch: 1 at the start, 9 by --refresh" in printed.out


def test_frames_change_neither_calibration_nor_results(here, tiny_onnx, tiny_clip):
    options = [*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--save-outputs"]
    assert main([*options, "all.npz"]) == 0
    assert main([*options, "three.npz", "--frames", "3"]) == 0
    with np.load(here / "all.npz") as whole, np.load(here / "three.npz") as part:
        for name in whole:
            assert len(part[name]) == 3
            np.testing.assert_array_equal(whole[name][:3], part[name])


def test_calibration_on_another_clip(here, tiny_onnx, tiny_clip):
    still = write_clip(here / "still.mp4", 1)
    options = [*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--frames", "2", "--save-outputs"]
    assert main([*options, "a.npz", "--calibrate", str(still)]) == 0
    model = quantised(open_model(tiny_onnx), sample_frames(still, 32))
    outputs, _ = Session(model).infer(next(iter(open_source(tiny_clip))))
    with np.load(here / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["map"][0], outputs["map"])


def test_compile_then_infer_gives_the_same_results(here, capsys, tiny_onnx, tiny_clip):
    assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), "-o", "n.rrm"]) == 0
    assert main([*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--save-outputs", "a.npz"]) == 0
    assert main([*INFER, str(tiny_clip), "--model", "n.rrm", "--save-outputs", "b.npz"]) == 0
    with np.load(here / "a.npz") as a, np.load(here / "b.npz") as b:
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert capsys.readouterr().err == ""
    again = [*INFER, str(tiny_clip), "--model", "n.rrm", "--frames", "1", "--calibrate", str(tiny_clip)]
    assert main(again) == 0
    assert "--calibrate is not used" in capsys.readouterr().err


def test_videos_show_every_frame(here, tiny_onnx, tiny_clip):
    assert main([*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--frames", "5", "--out", "a.mp4",
                 "--compare", "c.mp4", "--sheet", "s.png"]) == 0
    shown, pair = read_video(here / "a.mp4"), read_video(here / "c.mp4")
    assert len(shown) == len(pair) == 5
    assert shown[0].shape == (64, 96, 3)
    assert pair[0].shape[1] >= 2 * 96
    left, right = (pair[2].astype(int)[-64:, half] for half in (slice(0, 96), slice(-96, None)))
    difference = (left - right).reshape(-1, 3)[np.abs(left - right).max(axis=2).ravel() > 50]
    assert len(difference) > 20, "the two halves are drawn in the same colour"
    assert (difference[:, 1] > difference[:, 2]).all(), "green is not on the left, blue not on the right"
    assert np.abs(shown[2].astype(int) - right).mean() < 6, "the right half is not the annotated video"
    with Image.open("s.png") as sheet:
        assert sheet.width > 4 * 400


def test_noise_is_seeded_and_makes_deltas(here, tiny_onnx, tiny_clip):
    def totals(name: str, *options: str) -> list[int]:
        assert main([*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--json", name, *options]) == 0
        return [line["deltas"] for line in read_lines(here / name)]

    noisy = totals("a", "--noise", "2", "--seed", "1")
    assert noisy == totals("b", "--noise", "2", "--seed", "1")
    assert noisy != totals("c", "--noise", "2", "--seed", "2")
    assert sum(noisy) > 1.5 * sum(totals("d"))


def test_a_folder_of_images(here, tiny_onnx, tiny_frames):
    from PIL import Image

    (here / "images").mkdir()
    for i, frame in enumerate(tiny_frames[:3]):
        Image.fromarray(frame).save(here / "images" / f"{i}.png")
    assert main([*INFER, "images", "--model", str(tiny_onnx), "--json", "f.jsonl"]) == 0
    assert [line["frame"] for line in read_lines(here / "f.jsonl")] == [0, 1, 2]


def serve(data: bytes) -> str:
    """The URL of a server on this machine that sends ``data`` to the first who connects, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        with listener, listener.accept()[0] as connection:
            connection.sendall(data)

    threading.Thread(target=send, daemon=True).start()
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_a_stream_is_read_once_from_its_first_frame(here, tiny_onnx):
    """Its first 32 frames calibrate, and are inferred as well."""
    data = write_clip(here / "stream.ts", 40).read_bytes()
    frames = list(open_source(here / "stream.ts"))
    assert main([*INFER, serve(data), "--model", str(tiny_onnx), "--save-outputs", "o.npz"]) == 0
    session = Session(quantised(open_model(tiny_onnx), frames[:32]))
    with np.load(here / "o.npz") as arrays:
        assert len(arrays["map"]) == len(frames) == 40
        for value, frame in zip(arrays["map"], frames, strict=True):
            np.testing.assert_array_equal(value, session.infer(frame)[0]["map"])
        assert main([*INFER, serve(data), "--model", str(tiny_onnx), "--save-outputs", "two.npz",
                     "--frames", "2"]) == 0
        with np.load(here / "two.npz") as two:
            np.testing.assert_array_equal(two["map"], arrays["map"][:2])


def test_a_stream_that_breaks_off_keeps_what_is_finished(here, capsys, monkeypatch, tiny_onnx, tiny_frames):
    class Camera:
        name, fps, total, live = "camera:0", 25.0, None, True

        def __iter__(self):
            yield from tiny_frames[:36]
            raise UserError("camera:0: unplugged")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("host.video.open_source", lambda *_, **__: Camera())
    assert main([*INFER, "camera:0", "--model", str(tiny_onnx), "--json", "f.jsonl"]) == 2
    assert capsys.readouterr().err == "rrm-fpga: camera:0: unplugged\n"
    assert len(read_lines(here / "f.jsonl")) == 36
    assert main([*INFER, "camera:0", "--model", str(tiny_onnx), "--json", "f.jsonl", "--frames", "3"]) == 0
    assert len(read_lines(here / "f.jsonl")) == 3


def test_preprocessing_options_reach_the_network(here, tiny_onnx, tiny_clip):
    options = ["--colour", "bgr", "--mean", "104,117,123", "--scale", "1", "--resize", "crop"]
    assert main([*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--frames", "1", "--tap", "image",
                 "--save-outputs", "o.npz", *options]) == 0
    session = Session(quantised(open_model(tiny_onnx), sample_frames(tiny_clip, 2)))
    sidecar = session.model.sidecar.with_input({"colour": "bgr", "mean": "104,117,123", "scale": "1",
                                                "resize": "crop"})
    expected = sidecar.input.apply(next(iter(open_source(tiny_clip))), session.network.input)
    with np.load(here / "o.npz") as arrays:
        np.testing.assert_array_equal(arrays["image"], expected)


def test_inspect_writes_the_table_as_json(here, capsys, tiny_onnx):
    assert main(["inspect", str(tiny_onnx), "--json", "t.json"]) == 0
    assert "features" in capsys.readouterr().out
    assert json.loads((here / "t.json").read_text())


def test_doctor_says_what_each_thing_enables(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("RRM_FPGA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 0
    rows = {cells[2].strip(): cells for cells in
            (line.split("│") for line in capsys.readouterr().out.splitlines()) if len(cells) == 6}
    for name in ("Python", "Amaranth", "C++ compiler", "Yosys", "Verilator", "openFPGALoader", "serial ports"):
        assert rows[name][4].strip()
    assert rows["C++ compiler"][1].strip() == "no"
    assert rows["Python"][1].strip() == "yes"
    assert all("infer on the RTL" in rows[name][4] for name in ("Amaranth", "C++ compiler", "Yosys", "cache folder"))
    assert str(tmp_path / "cache") in rows["cache folder"][3]


@pytest.mark.parametrize("arguments", [
    [], ["--help"], ["infer", "--help"], ["inspect", "-h"], ["compile", "-h"], ["verify", "-h"], ["doctor", "-h"],
    ["fit-error", "-h"], ["--version"], ["--show-completion", "bash"]])
def test_help_needs_no_network(arguments):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_help_starts_fast():
    """Nothing heavy is imported for help and shell completion."""
    heavy = "('numpy', 'onnx', 'av', 'onnxruntime')"
    program = f"import sys, host.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([*command()[:2], program], cwd=ROOT, env=environment(), capture_output=True,
                          text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------- bad input

def bad_inputs(folder: Path, clip: Path, network: Path) -> dict[str, tuple[list, str]]:
    """Name -> (arguments, part of the message)."""
    whole = clip.read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("not a video")
    (folder / "text.onnx").write_text("not a network")
    (folder / "cut.onnx").write_bytes(network.read_bytes()[:500])
    (folder / "cut.rrm").write_bytes(b"PK")
    (folder / "empty").mkdir()
    dynamic = save(tiny_model(batch="N"), folder / "dynamic.onnx")
    two = save(tiny_model(batch=2), folder / "two.onnx")
    hole = save(tiny_model(nan=True), folder / "hole.onnx")
    unsupported = save(tiny_model(op="Sin"), folder / "unsupported.onnx")
    sided = save(tiny_model(), folder / "sided.onnx")
    (folder / "sided.toml").write_text('[input]\nmaen = 3\n')
    video, model = [*INFER, clip], ["--model", network]
    return {
        "missing video": ([*INFER, "none.mp4", *model], "none.mp4: there is no such file"),
        "truncated video": ([*INFER, "cut.mp4", *model], "cut.mp4: "),
        "text as video": ([*INFER, "text.mp4", *model], "text.mp4: this is not a video"),
        "empty folder": ([*INFER, "empty", *model], "the folder has no images"),
        "missing calibration clip": ([*video, *model, "--calibrate", "none.mp4"], "none.mp4: there is no"),
        "missing network": ([*video, "--model", "none.onnx"], "none.onnx"),
        "not a network": ([*video, "--model", "text.onnx"], "text.onnx"),
        "truncated network": ([*video, "--model", "cut.onnx"], "cut.onnx"),
        "truncated rrm": ([*video, "--model", "cut.rrm"], "cut.rrm: this is not an .rrm file"),
        "dynamic shape": ([*video, "--model", dynamic], "dynamic.onnx"),
        "batch of two": ([*video, "--model", two], "batch"),
        "NaN weights": ([*video, "--model", hole], "NaN"),
        "unsupported operator": ([*video, "--model", unsupported], "activation (Sin)"),
        "wrong sidecar field": ([*video, "--model", sided], "there is no field 'maen'"),
        "unknown preset": ([*video, *model, "--preset", "resnet9"], "there is no preset 'resnet9'"),
        "unknown head": ([*video, *model, "--head", "cats"], "--head: kind = 'cats'"),
        "wrong colour": ([*video, *model, "--colour", "cmyk"], "colour = 'cmyk'"),
        "wrong size": ([*video, *model, "--size", "31x33"], "size is 31x33"),
        "no folder": ([*video, *model, "--json", "none/f.jsonl"], "none/f.jsonl: cannot write"),
        "output is a folder": ([*video, *model, "--save-outputs", "empty"], "empty: cannot write"),
        "output to a device": ([*video, *model, "--json", "/dev/null"], "/dev/null: cannot write"),
        "no such kind of video": ([*video, *model, "--out", "a.gif"], "a.gif"),
        "one file twice": ([*video, *model, "--json", "f", "--save-outputs", "./f"], "the same file"),
        "unknown tap": ([*video, *model, "--tap", "fetures", "--save-outputs", "o.npz"], "names: features"),
        "tap to nowhere": ([*video, *model, "--tap", "features"], "--tap needs --save-outputs"),
        "unknown backend": ([*video, *model, "--backend", "gpu"], "there is no backend 'gpu'"),
        "no frames": ([*video, *model, "--frames", "0"], "--frames"),
        "fps of zero": ([*video, *model, "--fps", "0"], "fps is 0"),
        "fps that is no number": ([*video, *model, "--fps", "nan"], "fps is nan"),
        "negative noise": ([*video, *model, "--noise", "-1"], "--noise"),
        "threshold too large": ([*video, *model, "--threshold", "256"], "--threshold"),
        "unknown mode": ([*video, *model, "--mode", "keep"], "--mode"),
        "unknown weights": ([*video, *model, "--weights", "int4"], "--weights"),
        "unknown option": ([*video, "--modle", network], "--modle"),
        "unknown command": (["infre"], "infre"),
        "compile without clip": (["compile", network, "-o", "n.rrm"], "--calibrate CLIP"),
        "compile to nowhere": (["compile", network, "--calibrate", clip, "-o", "none/n.rrm"], "cannot write"),
        "compile what cannot run": (["compile", unsupported, "--calibrate", clip, "-o", "n.rrm"], "(Sin)"),
        "inspect a text": (["inspect", "text.onnx"], "text.onnx"),
        "inspect to nowhere": (["inspect", network, "--json", "none/t.json"], "cannot write"),
    }


def test_bad_input_is_one_clear_line_and_exit_code_2(here, capsys, tiny_clip, tiny_onnx, subtests):
    cases = bad_inputs(here, tiny_clip, tiny_onnx)
    before = sorted(here.rglob("*"))
    for name, (arguments, message) in cases.items():
        with subtests.test(name):
            code = main(list(map(str, arguments)))
            printed = capsys.readouterr()
            assert code == 2, printed
            assert message in printed.err
            assert printed.out == ""
            lines = printed.err.splitlines()
            assert lines[0].startswith("rrm-fpga: ")
            assert all(line.startswith("  ") for line in lines[1:]), lines  # the parts that cannot run
            assert len(lines) == 1 or "cannot run:" in lines[0], lines
            assert sorted(here.rglob("*")) == before, "a failed command left something behind"


def test_a_bad_input_prints_no_traceback_in_a_real_process(tiny_onnx):
    done = run(*INFER, "none.mp4", "--model", tiny_onnx)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_unwritable_outputs_are_found_before_any_work(here, capsys):
    """Even when the network and the video are wrong as well, the path is what is reported."""
    assert main([*INFER, "none.mp4", "--model", "none.onnx", "--out", "none/a.mp4"]) == 2
    assert "none/a.mp4" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch, tiny_onnx, tiny_clip):
    monkeypatch.setattr("host.session.Session.infer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([*INFER, str(tiny_clip), "--model", str(tiny_onnx)])


def test_a_full_disk_is_one_line(here, capsys, monkeypatch, tiny_onnx, tiny_clip):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("host.output.JsonLines.write", full)
    assert main([*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--json", "f.jsonl"]) == 2
    assert capsys.readouterr().err == "rrm-fpga: the results: No space left on device\n"
    assert os.listdir(here) == []


def test_shell_completion_knows_the_options():
    done = subprocess.run(command(), cwd=ROOT, capture_output=True, text=True, check=True, env={
        **environment(), "_RRM_FPGA_COMPLETE": "complete_bash", "COMP_WORDS": "rrm-fpga infer --sav",
        "COMP_CWORD": "2"})
    assert done.stdout.split() == ["--save-outputs"]


# ------------------------------------------------------------------------------------------------ interrupted

def start(here: Path, network: Path, clip: Path) -> subprocess.Popen:
    """A run of 1600 frames that writes every kind of result; returns when some frames are done."""
    process = subprocess.Popen(
        command(*INFER, clip, "--model", network, "--fps", "1000", "--json", "f.jsonl",
                "--save-outputs", "o.npz", "--out", "a.mp4", "--compare", "c.mp4", "--sheet", "s.png"),
        cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # the tests may run in background
    deadline = time.monotonic() + 90
    while not any(p.stat().st_size for p in here.glob(".f.jsonl.*.part")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_ctrl_c_keeps_the_finished_frames(here, tiny_onnx, tiny_clip):
    process = start(here, tiny_onnx, tiny_clip)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == ""
    assert sorted(p.name for p in here.iterdir()) == ["a.mp4", "c.mp4", "f.jsonl", "o.npz", "s.png"]
    lines = read_lines(here / "f.jsonl")
    assert 0 < len(lines) < 1600
    assert f"{len(lines)} frames (stopped by Ctrl-C)" in out
    with np.load(here / "o.npz") as arrays:
        assert {len(arrays[name]) for name in arrays} == {len(lines)}
        assert np.isfinite(arrays["heat"]).all()
    assert len(read_video(here / "a.mp4")) == len(read_video(here / "c.mp4")) == len(lines)


def test_a_killed_run_leaves_no_half_file(here, tiny_onnx, tiny_clip):
    process = start(here, tiny_onnx, tiny_clip)
    process.kill()
    process.communicate(timeout=60)
    assert [p.name for p in here.iterdir() if not p.name.startswith(".")] == []


def test_an_error_in_the_middle_leaves_nothing(here, monkeypatch, capsys, tiny_onnx, tiny_clip):
    infer, calls = Session.infer, []

    def breaks(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 5:
            raise UserError("the device is gone")
        return infer(self, *arguments, **named)

    monkeypatch.setattr(Session, "infer", breaks)
    assert main([*INFER, str(tiny_clip), "--model", str(tiny_onnx), "--json", "f.jsonl",
                 "--save-outputs", "o.npz", "--out", "a.mp4", "--sheet", "s.png"]) == 2
    assert capsys.readouterr().err == "rrm-fpga: the device is gone\n"
    assert os.listdir(here) == []
