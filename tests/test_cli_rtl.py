"""The command line on the compiled RTL: the same results as on the model, compiled files, verify, waveforms.

All of it runs on the smallest accelerators (``sim8``, which ``test_devices`` builds as well, and ``sim1``).
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from host import rrm_file
from host.cli import main
from host.compiler.stored import SECTION, from_section

WORK = ("frame", "refresh", "elements", "deltas", "macs", "macs_dense", "density", "detections")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, tiny_onnx, tiny_clip) -> Path:
    """The tiny network for ``sim8``."""
    path = tmp_path_factory.mktemp("compiled") / "tiny.rrm"
    assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), "--config", "sim8", "-o", str(path)]) == 0
    return path


def infer(clip: Path, model: Path, backend: str | None, name: str, *options: str) -> tuple[list[dict], dict]:
    """(JSON lines, arrays) of a run."""
    chosen = [] if backend is None else ["--backend", backend]
    assert main(["infer", str(clip), "--model", str(model), *chosen, "--json", f"{name}.jsonl", "--save-outputs",
                 f"{name}.npz", "--tap", "features", *options]) == 0
    with np.load(f"{name}.npz") as arrays:
        return [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()], dict(arrays)


def damaged(path: Path, out: Path) -> Path:
    """The compiled file with one weight of its memory image changed; its network stays as it is."""
    model = rrm_file.load(path)
    section = dict(model.sections[SECTION])
    weights = [np.array(image) for image in section["images"]["WEIGHTS"]]
    weights[1][0, 0] ^= 0x10
    section["images"] = {**section["images"], "WEIGHTS": weights}
    rrm_file.save(out, replace(model, sections={SECTION: section}))
    return out


@pytest.mark.parametrize("options", [(), ("--threshold", "3"), ("--threshold", "2", "--mode", "truncate", "--refresh",
                                                                "4")])
def test_the_rtl_gives_what_the_model_gives(here, capsys, tiny_onnx, tiny_clip, options):
    ours, outputs = infer(tiny_clip, tiny_onnx, "rtl:sim8", "rtl", "--frames", "7", *options)
    printed = capsys.readouterr().out
    model, expected = infer(tiny_clip, tiny_onnx, "model", "model", "--frames", "7", *options)
    assert [[line[k] for k in WORK] for line in ours] == [[line[k] for k in WORK] for line in model]
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)
    assert all(line["cycles"] > 0 and line["link_sent"] > 0 and line["link_received"] > 0 for line in ours)
    assert "cycles a frame" not in printed
    for part in ("simulated cycles/s", "a frame", "bytes a frame to the device", "ulx3s: fits"):
        assert part in printed


def test_two_simulators_in_chunks_give_what_one_gives(here, capsys, compiled, tiny_clip):
    one, expected = infer(tiny_clip, compiled, None, "one", "--frames", "6")
    capsys.readouterr()
    two, outputs = infer(tiny_clip, compiled, None, "two", "--frames", "6", "--chunks", "2")
    printed = capsys.readouterr().out
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)
    assert [line["detections"] for line in two] == [line["detections"] for line in one]
    assert [line["frame"] for line in two] == list(range(6))
    assert [line["frame"] for line in two if line["refresh"]] == [0, 3]
    assert all(line["cycles"] > 0 and line["link_received"] > 0 for line in two)
    assert "simulated cycles/s" in printed


def test_a_compiled_file_runs_its_own_program(here, capsys, compiled, tiny_clip):
    model, expected = infer(tiny_clip, compiled, "model", "model", "--frames", "3")
    ours, outputs = infer(tiny_clip, compiled, None, "rtl", "--frames", "3")
    assert [line["macs"] for line in ours] == [line["macs"] for line in model]
    np.testing.assert_array_equal(outputs["map"], expected["map"])
    _, wrong = infer(tiny_clip, damaged(compiled, here / "damaged.rrm"), "rtl", "wrong", "--frames", "3")
    assert (wrong["map"] != expected["map"]).any(), "the images in the file are not what is loaded"


def test_a_compiled_file_keeps_the_program(compiled):
    model = rrm_file.load(compiled)
    section = model.sections[SECTION]
    program = from_section(section, model.network.graph)
    from host.configs import named

    made = named("sim8").compile(model.network.graph)
    assert section["config_hash"] == program.config.hash == made.config.hash
    assert program.places == made.places
    assert program.used == made.used
    np.testing.assert_array_equal(program.step_image(3, "truncate"), made.step_image(3, "truncate"))
    for space, images in made.images.items():
        for ours, theirs in zip(program.images[space], images, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [(e.kind, e.vector, e.words, e.descriptor) for e in program.lowered] == [
        (e.kind, e.vector, e.words, e.descriptor) for e in made.lowered]


def test_compile_prints_every_layer(here, capsys, tiny_onnx, tiny_clip):
    assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), "--board", "arty_a7", "-o", "a.rrm"]) == 0
    printed = capsys.readouterr().out
    for part in ("features", "delta", "dense8", "scratch", "weight_words", "predicted cycles a frame"):
        assert part in printed


def test_verify_finds_the_first_difference(here, capsys, compiled, tiny_clip):
    assert main(["verify", str(compiled), str(tiny_clip), "--frames", "2", "--threshold", "2"]) == 0
    assert "2 frames equal to the model" in capsys.readouterr().out
    assert main(["verify", str(damaged(compiled, here / "damaged.rrm")), str(tiny_clip), "--frames", "2"]) == 1
    found = capsys.readouterr().out
    assert found.startswith("frame 0, step 1: ")
    for part in ("channel", "y", "x", "expected", "got"):
        assert part in found


def bad(compiled: Path, network: Path, clip: Path) -> dict[str, tuple[list, str]]:
    on, rtl = ["infer", clip], ["--backend", "rtl"]
    return {
        "another board": ([*on, "--model", compiled, "--backend", "rtl:ulx3s"], "is compiled for config"),
        "no such board": ([*on, "--model", network, "--backend", "rtl:ulx4s"], "there is no accelerator 'ulx4s'"),
        "no such config": (["compile", network, "--calibrate", clip, "--config", "sim2", "-o", "a.rrm"],
                           "there is no accelerator 'sim2'"),
        "two accelerators": (["compile", network, "--calibrate", clip, "--config", "sim8", "--board", "ulx3s", "-o",
                              "a.rrm"], "give one of them"),
        "waveforms of the model": ([*on, "--model", network, "--backend", "model", "--trace", "a.vcd"],
                                   "needs the RTL"),
        "waveforms to nowhere": ([*on, "--model", network, *rtl, "--trace", "none/a.vcd"], "none/a.vcd"),
    }


@pytest.mark.parametrize("name", bad(Path(), Path(), Path()))
def test_one_clear_error(here, capsys, compiled, tiny_onnx, tiny_clip, name):
    arguments, message = bad(compiled, tiny_onnx, tiny_clip)[name]
    assert main([str(a) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert os.listdir(here) == []


def test_a_missing_compiler_is_one_error(here, capsys, monkeypatch, tiny_onnx, tiny_clip):
    monkeypatch.setenv("PATH", str(here))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("RRM_FPGA_CACHE", str(here / "cache"))
    assert main(["infer", str(tiny_clip), "--model", str(tiny_onnx)]) == 2
    err = capsys.readouterr().err
    assert "needs a C++ compiler" in err
    assert "--backend model" in err
    assert err.count("\n") == 1


def test_a_network_too_large_for_a_board(here, capsys, monkeypatch, tiny_onnx, tiny_clip):
    from host.configs import Named
    from hw.config import PRESETS
    from hw.link.packets import LinkConfig

    small = Named("small", PRESETS["sim8"].with_(projection_words=64), LinkConfig())
    monkeypatch.setattr("host.link_device.named", lambda name: small)
    assert main(["infer", str(tiny_clip), "--model", str(tiny_onnx), "--backend", "rtl:small"]) == 2
    err = capsys.readouterr().err
    assert "projection_words needs 144, has 64" in err
    assert "--backend model" in err


def test_waveforms_of_one_frame(here, tiny_onnx, tiny_clip):
    assert main(["infer", str(tiny_clip), "--model", str(tiny_onnx), "--backend", "rtl:sim1", "--frames", "2",
                 "--trace", "a.vcd", "--trace-frame", "1"]) == 0
    text = (here / "a.vcd").read_text()
    assert os.listdir(here) == ["a.vcd"]
    assert " ring " in text
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert times == sorted(times)
    assert times[0] > 0, "the frame before is in the file"
    assert len(times) > 1000
