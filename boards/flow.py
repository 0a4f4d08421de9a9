"""The build flow: a board's accelerator to a report, to Verilog, to a bitstream, into the board."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from amaranth.lib import wiring

from boards import ecp5, report, xc7
from boards.board import Board
from boards.prepare import TOP, prepare
from boards.synthesis import synthesise
from boards.tools import Progress, check, run
from host.errors import UserError


@dataclass
class Build:
    """One build of a design for a board.

    board, design
        see ``boards.top.SerialDesign``.
    folder
        where its files go.
    progress
        called with what is being done now.
    program
        ``hw.load.images_hash`` of the network that is built in, 16 hex digits, "" without one.
    """

    board: Board
    design: wiring.Component
    folder: Path
    progress: Progress = lambda what: None
    program: str = ""
    facts: dict = field(default_factory=dict, init=False)

    def estimate(self) -> dict:
        """Elaborate, synthesise, count, write ``report.json``. Raises UserError when it does not fit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        commit = report.git_hash()  # of what is elaborated now, whatever is checked out when synthesis ends
        self.progress("elaborating (Amaranth)")
        for name, text in prepare(self.board, self.design).items():
            (self.folder / name).write_text(text)
        netlist = synthesise((self.folder / f"{TOP}.il").read_text(), self.board.family, self.folder, TOP,
                             lut_rams=self.board.lut_rams, progress=self.progress)
        self.facts = report.describe(self.board, netlist, commit) | ({"program": self.program} if self.program else {})
        report.write(self.facts, self.folder)
        report.check_fit(self.board, self.facts["resources"]["used"])
        return self.facts

    def verilog(self) -> Path:
        """The design as Verilog with constraints and script, for the vendor's tools. Needs ``estimate``."""
        xc7.write_vivado_folder(self.folder, self.progress)
        return self.folder / f"{TOP}.v"

    def bitstream(self, seeds: Sequence[int] = (1,)) -> Path:
        """Place, route and pack the best of ``seeds``; adds ``timing`` to the report. Needs ``estimate``.

        Raises UserError when tools are missing or fail, and when no seed meets the timing.
        """
        runs, finish = {"ecp5": self._ecp5, "xc7": self._xc7}[self.board.family_name](seeds)
        best = max(runs, key=lambda r: r["fmax_mhz"])
        self.facts["timing"] = {
            "kind": report.ROUTED, "target_mhz": self.board.clock_hz / 1e6, "fmax_mhz": best["fmax_mhz"],
            "median_fmax_mhz": statistics.median(r["fmax_mhz"] for r in runs), "slack_ns": best["slack_ns"],
            "runs": runs}
        report.write(self.facts, self.folder)
        if best["slack_ns"] < 0:
            raise UserError(f"{self.board.label}: timing is not met: {best['fmax_mhz']} MHz of "
                            f"{self.board.clock_hz / 1e6:g} MHz (slack {best['slack_ns']} ns)")
        return finish()

    def _ecp5(self, seeds: Sequence[int]):
        # nextpnr uses one core; the seeds know nothing of each other
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            runs = list(pool.map(lambda seed: ecp5.place_and_route(self.board, self.folder, TOP, seed, self.progress),
                                 seeds))
        best = max(runs, key=lambda r: r["fmax_mhz"])
        return runs, lambda: ecp5.pack(self.folder, TOP, best["seed"], self.progress)

    def _xc7(self, seeds: Sequence[int]):
        bitstream = self.folder / f"{TOP}.bit"
        if shutil.which("vivado"):
            self.verilog()
            return [xc7.vivado(self.board, self.folder, self.progress)], lambda: bitstream
        if missing := xc7.missing_open_tools(self.board):
            self.verilog()
            raise UserError(
                f"no bitstream: Vivado is not on PATH and the open tools lack {', '.join(missing)}; "
                f"copy {self.folder} to a machine with Vivado and run there: "
                f"vivado -mode batch -source {TOP}.tcl")
        return [xc7.open_flow(self.board, self.folder, seeds[0], self.progress)], lambda: bitstream


def program(board: Board, bitstream: Path, progress: Progress = lambda what: None) -> None:
    """Load a bitstream with openFPGALoader. Raises UserError when program or board is absent."""
    tool = shutil.which("openFPGALoader")
    if tool is None:
        raise UserError("--program needs openFPGALoader, which is not on PATH: install your system's package "
                        f"openfpgaloader, then run: openFPGALoader -b {board.programmer} {bitstream}")
    progress(f"programming {board.label} (openFPGALoader)")
    log = bitstream.with_suffix(".program.log")
    check(run([tool, "-b", board.programmer, bitstream.resolve()], bitstream.parent, log),
          f"programming {board.label} (is it plugged in and powered?)", log)
