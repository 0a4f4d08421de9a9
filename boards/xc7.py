"""Artix-7 from netlist to bitstream: Vivado, or the open tools nextpnr-xilinx and Project X-Ray.

Neither comes from a package index; what is missing is said in one line, with a folder that Vivado can build.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from boards.board import Board
from boards.prepare import TOP
from boards.tools import Progress, check, package_command, run
from host.errors import UserError

OPEN_TOOLS = ("nextpnr-xilinx", "fasm2frames", "xc7frames2bit")
"""Programs of the open flow."""
DATABASES = {"CHIPDB_DIR": "/usr/share/nextpnr/xilinx-chipdb", "DB_DIR": "/usr/share/nextpnr/prjxray-db"}
"""Environment variable -> usual place of the open flow's databases; the names that Amaranth uses."""

_WORST_SLACK = re.compile(r"WNS\(ns\).*?\n[\s-]*\n\s*(-?[\d.]+)", re.DOTALL)
_MAX_FREQUENCY = re.compile(r"Max frequency for clock\s+'([^']+)':\s+([\d.]+) MHz")


def write_vivado_folder(folder: Path, progress: Progress = lambda what: None) -> None:
    """Add ``top.v``, written from ``top.il``, to the folder that has ``top.xdc`` and ``top.tcl``."""
    progress("writing Verilog (Yosys)")
    script = f"read_rtlil {TOP}.il; proc -nomux -norom; memory_collect; write_verilog -norename {TOP}.v"
    done = run([*package_command("yosys"), "-q", "-p", script], folder)
    check(done, "Yosys", folder / f"{TOP}.v")


def vivado(board: Board, folder: Path, progress: Progress = lambda what: None) -> dict[str, object]:
    """Build ``top.bit`` in ``folder`` with Vivado; its Fmax and slack. Raises UserError when Vivado fails."""
    progress("building with Vivado (about half an hour)")
    log = folder / "vivado.log"
    check(run(["vivado", "-mode", "batch", "-log", log.name, "-source", f"{TOP}.tcl"], folder), "Vivado", log)
    found = _WORST_SLACK.search((folder / f"{TOP}_timing.rpt").read_text())
    if found is None:
        raise UserError(f"Vivado's timing report {folder / f'{TOP}_timing.rpt'} has no worst slack")
    slack, period = float(found[1]), 1e9 / board.clock_hz
    return {"tool": "Vivado", "fmax_mhz": round(1e3 / (period - slack), 2), "slack_ns": slack}


def missing_open_tools(board: Board) -> list[str]:
    """What the open flow lacks on this machine: programs, and databases by the variable that names them."""
    missing = [tool for tool in OPEN_TOOLS if shutil.which(tool) is None]
    files = {"CHIPDB_DIR": f"{_chip(board)}.bin", "DB_DIR": f"artix7/{board.part_options[0]}/part.yaml"}
    return missing + [f"{variable}/{file}" for variable, file in files.items()
                      if not (_database(variable) / file).exists()]


def open_flow(board: Board, folder: Path, seed: int,
              progress: Progress = lambda what: None) -> dict[str, object]:
    """Build ``top.bit`` from ``top.json`` and ``top.xdc`` with the open tools; Fmax and slack.

    Raises UserError when a tool fails.
    """
    part, artix = board.part_options[0], _database("DB_DIR") / "artix7"
    progress("placing and routing (nextpnr-xilinx)")
    log = folder / f"{TOP}.nextpnr.log"
    check(run(["nextpnr-xilinx", "--chipdb", _database("CHIPDB_DIR") / f"{_chip(board)}.bin",
               "--xdc", f"{TOP}.xdc", "--json", f"{TOP}.json", "--fasm", f"{TOP}.fasm", "--seed", str(seed),
               "--freq", f"{board.clock_hz / 1e6:g}", "--timing-allow-fail", "--log", log.name], folder),
          "nextpnr-xilinx", log)
    speeds = dict(_MAX_FREQUENCY.findall(log.read_text()))  # of each clock the last, the routed one
    if not speeds:
        raise UserError(f"nextpnr-xilinx reports no clock frequency (see {log})")
    progress("packing the bitstream (Project X-Ray)")
    log = folder / f"{TOP}.fasm2frames.log"
    frames = run(["fasm2frames", "--part", part, "--db-root", artix, f"{TOP}.fasm"], folder)
    log.write_text(frames.stderr)
    check(frames, "fasm2frames", log)
    (folder / f"{TOP}.frames").write_text(frames.stdout)
    log = folder / f"{TOP}.xc7frames2bit.log"
    check(run(["xc7frames2bit", "--part_file", artix / part / "part.yaml", "--part_name", part,
               "--frm_file", f"{TOP}.frames", "--output_file", f"{TOP}.bit"], folder, log),
          "xc7frames2bit", log)
    fmax = min(float(speed) for speed in speeds.values())
    return {"tool": "nextpnr-xilinx", "seed": seed, "fmax_mhz": fmax,
            "slack_ns": round(1e9 / board.clock_hz - 1e3 / fmax, 3)}


def _chip(board: Board) -> str:
    """The part without package and speed grade, as the chip databases are called."""
    return board.part_options[0].split("csg")[0]


def _database(variable: str) -> Path:
    return Path(os.environ.get(variable, DATABASES[variable]))
