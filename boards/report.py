"""What a build found out: ``report.json`` and a table."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from boards.board import Board
from boards.netlist import Netlist
from boards.tools import versions
from host.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ESTIMATED = "estimated: synthesised by Yosys, before placement"
ROUTED = "placed and routed"


def describe(board: Board, netlist: Netlist, commit: str) -> dict[str, object]:
    """The report of a synthesised board. Every group of numbers says in ``kind`` where it comes from. ``commit``: the
    source that was elaborated."""
    return {
        "board": board.name, "variant": board.variant, "part": board.part, "git": commit,
        "tools": versions(), "clock_mhz": board.clock_hz / 1e6, "baud": board.baud,
        "config": json.loads(board.config.canonical), "config_hash": board.config.hash,
        "link": board.link.as_dict(),
        "resources": {"kind": ESTIMATED, "used": netlist.used(), "available": dict(board.available),
                      "memories": netlist.memories(), "cells": dict(sorted(netlist.types.items()))},
        "logic": {"kind": ESTIMATED, "deepest": {k: asdict(p) for k, p in netlist.deepest().items()}},
    }


def git_hash() -> str:
    """The commit that is checked out, with "-dirty" when files differ from it; "" outside a checkout."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
                              cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def check_fit(board: Board, used: Mapping[str, int]) -> None:
    """Raise UserError that names every resource of which the part has too little."""
    over = [f"{resource} {used[resource]} of {count}" for resource, count in board.available.items()
            if used[resource] > count]
    if over:
        raise UserError(f"{board.label} does not fit {board.part}: {', '.join(over)}; "
                        "make its config smaller (boards/)")


def table(report: Mapping) -> str:
    """Used and available, memory by memory and in all, for people."""
    resources = report["resources"]
    kinds = list(resources["available"])
    rows = [("", *kinds)]
    rows += [(name, *(str(counts.get(kind, "")) for kind in kinds))
             for name, counts in grouped(resources["memories"]).items()]
    rows.append(("all", *(str(resources["used"][kind]) for kind in kinds)))
    rows.append(("available", *(str(resources["available"][kind]) for kind in kinds)))
    width = max(len(row[0]) for row in rows)
    lines = [f"{report['part']}, {resources['kind']}"]
    lines += [row[0].ljust(width) + "".join(cell.rjust(8) for cell in row[1:]) for row in rows]
    for kind, path in report["logic"]["deepest"].items():
        lines.append(f"deepest logic from a {kind}: {path['levels']} LUT levels, "
                     f"{path['start']} -> {path['end']}")
    return "\n".join(lines)


def grouped(memories: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Memories with those of equal PEs added up: "pe0.walker.weights" and its like become one "pe*" row."""
    rows: dict[str, dict[str, int]] = {}
    for name, counts in memories.items():
        parts = ["pe*" if part[:2] == "pe" and part[2:].isdigit() else part for part in name.split(".")]
        row = rows.setdefault(".".join(parts), {})
        for kind, count in counts.items():
            row[kind] = row.get(kind, 0) + count
    return rows


def write(report: Mapping, folder: Path) -> Path:
    """``report.json`` in ``folder``."""
    path = folder / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path
