"""ECP5 from netlist to bitstream: nextpnr and ecppack, both from PyPI."""

from __future__ import annotations

import json
from pathlib import Path

from boards.board import Board
from boards.tools import Progress, check, package_command, run


def place_and_route(board: Board, folder: Path, name: str, seed: int,
                    progress: Progress = lambda what: None) -> dict[str, object]:
    """Place and route ``NAME.json`` with ``NAME.lpf``; writes ``NAME_SEED.config``.

    Returns seed, Fmax and slack of the accelerator's clock and the resources used. Raises UserError when
    nextpnr fails; that timing is not met is not a failure here.
    """
    stem = f"{name}_{seed}"
    progress(f"placing and routing, seed {seed} (nextpnr-ecp5; tens of minutes for a full board)")
    report, log = folder / f"{stem}.report.json", folder / f"{stem}.nextpnr.log"
    done = run([*package_command("nextpnr-ecp5"), *board.part_options, "--quiet", "--seed", str(seed),
                "--json", f"{name}.json", "--lpf", f"{name}.lpf", "--textcfg", f"{stem}.config",
                "--report", report.name, "--log", log.name, "--timing-allow-fail"], folder)
    check(done, "nextpnr-ecp5", log)
    return {"seed": seed} | timing(json.loads(report.read_text()), board.clock_hz)


def timing(report: dict, target_hz: int) -> dict[str, object]:
    """Fmax, slack and critical path of the slowest clock that is to run at ``target_hz``; resources used."""
    target = target_hz / 1e6
    clocks = {name: clock for name, clock in report["fmax"].items() if clock["constraint"] > 0.99 * target}
    if not clocks:
        raise ValueError(f"nextpnr reports no clock of {target:g} MHz, only {sorted(report['fmax'])}")
    name, slowest = min(clocks.items(), key=lambda item: item[1]["achieved"])
    fmax = slowest["achieved"]
    edge = f"posedge {name}"
    path = next((p["path"] for p in report["critical_paths"] if p["from"] == p["to"] == edge), [])
    return {"fmax_mhz": round(fmax, 2), "slack_ns": round(1e3 / target - 1e3 / fmax, 3),
            "critical_path": [f"{step['type']} {step['delay']:.2f} ns {step['to']['cell']}" for step in path],
            "used": {kind: count["used"] for kind, count in report["utilization"].items() if count["used"]}}


def pack(folder: Path, name: str, seed: int, progress: Progress = lambda what: None) -> Path:
    """``NAME_SEED.config`` -> ``NAME.bit``."""
    progress("packing the bitstream (ecppack)")
    bitstream, log = folder / f"{name}.bit", folder / f"{name}.ecppack.log"
    done = run([*package_command("ecppack"), "--compress", "--input", f"{name}_{seed}.config",
                "--bit", bitstream.name], folder, log)
    check(done, "ecppack", log)
    return bitstream
