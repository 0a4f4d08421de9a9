"""A network that is built into the accelerator: there at power-up, and recognised until another one is loaded."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from boards.board import get_board
from host.cli import main
from host.compiler import Program
from host.configs import link_for
from host.link.driver import DeviceProgram, Driver
from host.link.program import device_program, region, values
from host.simulator.accelerator import AcceleratorSimulator
from hw import build
from hw.layouts import Space
from hw.load import contents_of, images_hash
from sim.golden import GoldenModel
from tests.boards.standin import StandIn
from tests.link.test_accelerator import small_program
from tests.random_graphs import random_clip


def load_and_run(driver: Driver, program: Program, made: DeviceProgram) -> int:
    """Load a program and run a clip, every tensor that of the golden model; the bytes that loading took."""
    before = driver.link.traffic.sent
    driver.load(made)
    loaded = driver.link.traffic.sent - before
    golden = GoldenModel(program.graph)
    names = [n for n in (*golden.snapshots, *golden.projections) if n in program.places and n != program.graph.input]
    for codes in random_clip(program.graph, 2, 3):
        report = driver.frame(codes, reads=[region(program, n) for n in names])
        golden.frame(codes)
        for name, words in zip(names, report.data, strict=True):
            kept = golden.snapshots if name in golden.snapshots else golden.projections
            np.testing.assert_array_equal(values(program, name, words), kept[name])
    return loaded


def steps_bytes(made: DeviceProgram) -> int:
    return sum(image.data.nbytes for image in made.images if image.space == Space.STEPS)


def test_a_network_is_there_at_power_up() -> None:
    program = small_program(0)
    made = device_program(program)
    bits = next(image for image in made.images if image.space == Space.WEIGHTS)
    other = dataclasses.replace(made, images=[
        dataclasses.replace(i, data=i.data ^ 1) if i is bits else i for i in made.images])
    assert made.hash != other.hash
    device = AcceleratorSimulator(program.config, link_for(program), images=made.contents)
    driver = Driver(device, program.config)
    driver.connect()
    assert driver.link.identity.program == made.hash
    bare = load_and_run(driver, program, made)
    assert bare < steps_bytes(made) + 200
    driver.reset()
    assert load_and_run(driver, program, made) == bare, "steps and snapshots leave the network as it is"
    with pytest.raises(AssertionError):
        load_and_run(driver, program, other)
    driver.connect()
    assert driver.link.identity.program == 0
    assert load_and_run(driver, program, made) > 5 * bare
    device.close()


def test_the_build_takes_a_compiled_network(tmp_path, monkeypatch, capsys, tiny_onnx, tiny_clip) -> None:
    """For its own board only; an uncompiled one is compiled for the board."""
    seen = []
    monkeypatch.setattr(build, "Accelerator", lambda config, link, images: seen.append(images) or StandIn())
    files = {}
    for name, options in (("ulx3s", ("--board", "ulx3s")), ("arty", ("--board", "arty_a7")), ("none", ())):
        files[name] = str(tmp_path / f"{name}.rrm")
        assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), *options, "-o", files[name]]) == 0
    command = ["--board", "ulx3s", "--out", str(tmp_path)]
    assert build.main([*command, "--model", files["ulx3s"]]) == 0
    facts = json.loads((tmp_path / "ulx3s" / "report.json").read_text())
    assert facts["program"] == f"{images_hash(seen[0]):016x}"
    assert len(contents_of(seen[0], unit=7)[Space.WEIGHTS]) > 0
    assert build.contents(files["none"], get_board("ulx3s")) == seen[0]
    capsys.readouterr()
    assert build.main([*command, "--model", files["arty"]]) == 2
    assert "is compiled for config" in capsys.readouterr().err
    assert build.main([*command, "--model", str(tmp_path / "no.rrm")]) == 2
    assert "no.rrm" in capsys.readouterr().err
