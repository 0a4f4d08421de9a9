"""Synthesis with Yosys: RTLIL to a netlist of one family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boards.family import Family
from boards.netlist import Netlist
from boards.tools import Progress, check, package_command, run

COLLISIONS = "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i"
"""Lets a synchronous read port return anything for an address that is written in the same cycle. The design
never looks at that answer; otherwise the ECP5 would get registers and multiplexers around every block RAM. The cell
models of the tests return garbage there, and every memory has one write port."""


def synthesise(rtlil: str, family: Family, folder: Path, name: str, *, options: str = "",
               lut_rams: Sequence[str] = (), progress: Progress = lambda what: None) -> Netlist:
    """RTLIL of a design with top ``name`` -> its netlist, in ``folder`` as ``NAME.json`` and ``NAME_net.v``.

    ``options`` are further ones of the family's Yosys command; memories called as in ``lut_rams`` are kept out of
    block RAM. Raises UserError when Yosys fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.il").write_text(rtlil)
    command = f"{family.synthesis.format(options=options)} {name}"
    distributed = [f'setattr -set ram_style "distributed" m:{memory}' for memory in lut_rams]
    # abc9 fails on buses of which it can keep only some bits in place (YosysHQ/yosys#4349), hence splitnets.
    script = [f"read_rtlil {name}.il", COLLISIONS, *distributed, f"{command} -run begin:map_luts", "splitnets",
              f"{command} -run map_luts:", f"write_json {name}.json", f"write_verilog -noattr {name}_net.v"]
    (folder / f"{name}.ys").write_text("\n".join(script) + "\n")
    progress("synthesising (Yosys; the first run on a machine takes a minute or two longer)")
    log = folder / f"{name}.yosys.log"
    done = run([*package_command("yosys"), "-q", "-l", log.name, f"{name}.ys"], folder)
    check(done, "Yosys", log)
    return Netlist(folder / f"{name}.json", family)
