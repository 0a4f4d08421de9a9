"""FPGA families as the synthesis sees them: how to map to one, and what its cells cost.

Counts are before placement: carry chains, LUT RAM and shift registers are turned into the LUTs they occupy,
and packing two small LUTs into one is not counted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RESOURCES = ("LUT", "FF", "BRAM", "DSP")
"""What is counted. BRAM: RAMB18E1 (half a RAMB36E1) or DP16KD; DSP: DSP48E1 or MULT18X18D."""


@dataclass(frozen=True)
class Family:
    """A family's mapping and cells.

    synthesis
        the Yosys command; ``{options}`` takes further ones, the top module follows.
    models
        simulation models of its cells, in Yosys's share folder.
    cells
        type -> resources it occupies.
    registers, memories, multipliers
        types whose outputs begin a timing path and whose inputs end one (a multiplier without registers too).
    levels
        combinational type -> LUT levels that a path through it counts.
    chained
        input ports of combinational cells that add no level (carry in).
    """

    name: str
    synthesis: str
    models: tuple[str, ...]
    cells: Mapping[str, Mapping[str, int]]
    registers: frozenset[str]
    memories: frozenset[str]
    multipliers: frozenset[str]
    levels: Mapping[str, int]
    chained: frozenset[str]


def _luts(*names: str) -> dict[str, dict[str, int]]:
    return {name: {"LUT": 1} for name in names}


_XC7_LUTS = tuple(f"LUT{n}" for n in range(1, 7))
_XC7_FFS = ("FDRE", "FDSE", "FDCE", "FDPE")
_XC7_SRLS = ("SRL16E", "SRLC32E")
_ECP5_FFS = ("TRELLIS_FF", "FD1S3BX", "FD1S3DX")

XC7 = Family(
    name="xc7",
    synthesis="synth_xilinx -family xc7 -flatten {options} -top",
    models=("xilinx/cells_sim.v",),
    cells=_luts(*_XC7_LUTS, *_XC7_SRLS, "INV") | {name: {"FF": 1} for name in _XC7_FFS} | {
        "RAM32M": {"LUT": 4}, "RAM64M": {"LUT": 4}, "RAM32X1D": {"LUT": 2}, "RAM64X1D": {"LUT": 2},
        "RAM128X1D": {"LUT": 4}, "RAM32X1S": {"LUT": 1}, "RAM64X1S": {"LUT": 1}, "RAM128X1S": {"LUT": 2},
        "RAM256X1S": {"LUT": 4},
        "RAMB18E1": {"BRAM": 1}, "RAMB36E1": {"BRAM": 2}, "DSP48E1": {"DSP": 1}},
    registers=frozenset(_XC7_FFS + _XC7_SRLS),
    memories=frozenset({"RAMB18E1", "RAMB36E1"}), multipliers=frozenset({"DSP48E1"}),
    levels={name: 1 for name in (*_XC7_LUTS, "INV", "RAM32M", "RAM64M", "RAM32X1D", "RAM64X1D", "RAM128X1D",
                                 "RAM32X1S", "RAM64X1S", "RAM128X1S", "RAM256X1S")}
    | {"CARRY4": 0, "MUXF7": 0, "MUXF8": 0},
    chained=frozenset())

ECP5 = Family(
    name="ecp5",
    synthesis="synth_ecp5 {options} -top",
    models=("ecp5/cells_sim.v",),
    cells=_luts("LUT4") | {name: {"FF": 1} for name in _ECP5_FFS} | {
        "CCU2C": {"LUT": 2}, "TRELLIS_DPR16X4": {"LUT": 6}, "DP16KD": {"BRAM": 1}, "MULT18X18D": {"DSP": 1}},
    registers=frozenset(_ECP5_FFS), memories=frozenset({"DP16KD"}), multipliers=frozenset({"MULT18X18D"}),
    levels={"LUT4": 1, "CCU2C": 1, "PFUMX": 0, "L6MUX21": 0, "TRELLIS_DPR16X4": 1},
    chained=frozenset({"CIN"}))

FAMILIES = {family.name: family for family in (XC7, ECP5)}
"""Families by name."""
