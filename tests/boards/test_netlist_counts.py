"""Counting cells and LUT levels of a netlist written by hand."""

from __future__ import annotations

import json

import pytest

from boards.family import ECP5
from boards.netlist import Netlist, NetlistError


def cell(kind: str, inputs: dict, outputs: dict) -> dict:
    return {"type": kind, "parameters": {}, "attributes": {}, "connections": inputs | outputs,
            "port_directions": {p: "input" for p in inputs} | {p: "output" for p in outputs}}


def lut(*inputs: int, out: int) -> dict:
    return cell("LUT4", {port: [bit] for port, bit in zip("ABCD", inputs, strict=False)}, {"Z": [out]})


def register(data: int, out: int) -> dict:
    return cell("TRELLIS_FF", {"DI": [data], "CLK": [1]}, {"Q": [out]})


def netlist(tmp_path, cells: dict) -> Netlist:
    """Bit 1 is the clock; bits 10 and 11 are the memory's output, 20 the multiplier's, 30 a register's."""
    base = {"pe0.ram.0.0": cell("DP16KD", {"ADA4": [30], "CLKA": [1]}, {"DOA0": [10], "DOA1": [11]}),
            "product": cell("MULT18X18D", {"A0": [30]}, {"P0": [20]}), "r": register(99, 30)}
    nets = {"deep": {"bits": [40], "hide_name": 0}, "address": {"bits": [30], "hide_name": 0}}
    module = {"attributes": {"top": "1"}, "ports": {}, "cells": base | cells, "netnames": nets}
    path = tmp_path / "top.json"
    path.write_text(json.dumps({"modules": {"top": module}}))
    return Netlist(path, ECP5)


def test_levels_are_kept_apart_by_where_a_path_begins(tmp_path) -> None:
    carry = cell("CCU2C", {"A0": [41], "CIN": [42]}, {"S0": [43], "COUT": [44]})
    deepest = netlist(tmp_path, {
        "a": lut(10, 30, out=40), "b": lut(40, out=41), "carry": carry, "first": lut(20, out=42),
        "f": register(43, 50), "g": register(44, 51)}).deepest()
    assert {kind: path.levels for kind, path in deepest.items()} == {"memory": 3, "multiplier": 1, "register": 3}
    assert deepest["memory"].cells == ("LUT4", "LUT4", "CCU2C")
    assert deepest["register"].start == "address"


def test_resources_are_counted_by_memory_and_in_all(tmp_path) -> None:
    counted = netlist(tmp_path, {"q.ram.0.0": cell("TRELLIS_DPR16X4", {"RAD0": [30]}, {"DO0": [60]}),
                                 "q.ram.1.0": cell("TRELLIS_DPR16X4", {"RAD0": [30]}, {"DO0": [61]}),
                                 "l": lut(60, 61, out=62)})
    assert counted.used() == {"LUT": 13, "FF": 1, "BRAM": 1, "DSP": 1}
    assert counted.memories() == {"pe0.ram": {"BRAM": 1}, "q.ram": {"LUT": 12}}


def test_a_combinational_loop_is_an_error(tmp_path) -> None:
    with pytest.raises(NetlistError, match="loop through"):
        netlist(tmp_path, {"a": lut(41, out=40), "b": lut(40, out=41)}).deepest()
