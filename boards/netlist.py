"""A synthesised netlist (Yosys JSON): what it occupies, memory by memory, and how deep its logic is."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from boards.family import RESOURCES, Family

_PART = re.compile(r"(\.\d+)+$")
_UNIQUE = re.compile(r"\$\d+(?=\.|$)")


class NetlistError(ValueError):
    """The netlist has a cell that its family does not know, or a combinational loop."""


@dataclass(frozen=True)
class LogicPath:
    """The deepest logic behind one kind of start: LUT ``levels`` from ``start`` to ``end``, by ``cells``."""

    levels: int
    start: str
    end: str
    cells: tuple[str, ...]


class Netlist:
    """One flat module of a synthesised design.

    Parameters
    ----------
    path
        the JSON file.
    family
        what its cells are.
    """

    def __init__(self, path: Path, family: Family) -> None:
        self.family = family
        modules = json.loads(path.read_text())["modules"]
        (module,) = [m for m in modules.values() if int(m["attributes"].get("top", "0"), 2)]
        self.cells: dict[str, dict] = {name: cell for name, cell in module["cells"].items()
                                       if cell["type"] != "$scopeinfo"}
        self._nets = module["netnames"]

    @cached_property
    def types(self) -> Counter[str]:
        """Cells by type."""
        return Counter(cell["type"] for cell in self.cells.values())

    def used(self) -> dict[str, int]:
        """Resources that the design occupies."""
        total = Counter({resource: 0 for resource in RESOURCES})
        for kind, count in self.types.items():
            for resource, each in self.family.cells.get(kind, {}).items():
                total[resource] += each * count
        return dict(total)

    def memories(self) -> dict[str, dict[str, int]]:
        """Resources of each memory (block RAM or LUT RAM) by its place in the design."""
        found: dict[str, Counter[str]] = {}
        for name, cell in self.cells.items():
            if cell["type"] in self.family.memories or self._is_lut_ram(cell["type"]):
                memory = _UNIQUE.sub("", _PART.sub("", name))
                found.setdefault(memory, Counter()).update(self.family.cells[cell["type"]])
        return {name: dict(found[name]) for name in sorted(found)}

    def deepest(self) -> dict[str, LogicPath]:
        """The deepest logic from a memory output, from a multiplier output and from a register to the next
        register, memory or multiplier. Raises NetlistError."""
        return _Depth(self).run()

    def _is_lut_ram(self, kind: str) -> bool:
        return kind.startswith(("RAM32", "RAM64", "RAM128", "RAM256", "TRELLIS_DPR16X4"))

    def passes(self, kind: str, port: str) -> bool:
        """An input port of a combinational cell leads to its outputs (of a LUT RAM only the addresses do)."""
        return not self._is_lut_ram(kind) or port.startswith(("A", "DPRA", "RAD"))

    @cached_property
    def net_names(self) -> dict[int, str]:
        """Bit -> the name that the source gave it, if it gave one."""
        names: dict[int, str] = {}
        for name, net in sorted(self._nets.items(), key=lambda item: (item[1]["hide_name"], len(item[0]))):
            for position, bit in enumerate(net["bits"]):
                if isinstance(bit, int):
                    names.setdefault(bit, f"{name}[{position}]" if len(net["bits"]) > 1 else name)
        return names


class _Depth:
    """Levels of every net in topological order, kept apart by the kind of its start."""

    def __init__(self, netlist: Netlist) -> None:
        self.netlist, self.family = netlist, netlist.family
        self.starts: dict[int, str] = {}
        self.driver: dict[int, str] = {}
        self.users: dict[int, list[str]] = {}
        self.waiting: dict[str, int] = {}
        self.arrival: dict[int, dict[str, tuple[int, int | None]]] = {}
        self.best: dict[str, tuple[int, int, str]] = {}

    def run(self) -> dict[str, LogicPath]:
        self._connect()
        ready = [name for name, count in self.waiting.items() if not count]
        for bit, kind in self.starts.items():
            self.arrival[bit] = {kind: (0, None)}
        for bit in self.starts:
            ready += self._release(bit)
        while ready:
            name = ready.pop()
            ready += self._evaluate(name)
        if stuck := [name for name, count in self.waiting.items() if count > 0]:
            raise NetlistError(f"combinational loop through {', '.join(sorted(stuck)[:5])}")
        self._end()
        return {kind: self._path(kind, *found) for kind, found in sorted(self.best.items())}

    def _connect(self) -> None:
        family = self.family
        for name, cell in self.netlist.cells.items():
            kind = ("register" if cell["type"] in family.registers else
                    "memory" if cell["type"] in family.memories else
                    "multiplier" if cell["type"] in family.multipliers else None)
            inputs = set()
            for port, bits in cell["connections"].items():
                output = cell["port_directions"][port] == "output"
                for bit in (b for b in bits if isinstance(b, int)):
                    if output:
                        self.driver[bit] = name
                        if kind:
                            self.starts[bit] = kind
                    elif self.netlist.passes(cell["type"], port):
                        inputs.add(bit)
            if kind is None and cell["type"] in family.levels:
                for bit in inputs:
                    self.users.setdefault(bit, []).append(name)
                self.waiting[name] = len(inputs)
            elif kind is None:  # pads, clock buffers, loops: what leaves them begins nothing
                for port, bits in cell["connections"].items():
                    if cell["port_directions"][port] == "output":
                        self.starts.update({b: "pad" for b in bits if isinstance(b, int)})
        undriven = set(self.users) - set(self.driver)
        self.starts.update({bit: "pad" for bit in undriven})

    def _release(self, bit: int) -> list[str]:
        ready = []
        for name in self.users.get(bit, ()):
            self.waiting[name] -= 1
            if not self.waiting[name]:
                ready.append(name)
        return ready

    def _evaluate(self, name: str) -> list[str]:
        cell, latest = self.netlist.cells[name], {}
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output" or not self.netlist.passes(cell["type"], port):
                continue
            step = 0 if port in self.family.chained else self.family.levels[cell["type"]]
            for bit in (b for b in bits if isinstance(b, int)):
                for kind, (levels, _) in self.arrival.get(bit, {}).items():
                    if kind not in latest or levels + step > latest[kind][0]:
                        latest[kind] = (levels + step, bit)
        self.waiting[name] = -1
        ready = []
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output":
                for bit in (b for b in bits if isinstance(b, int)):
                    self.arrival[bit] = latest
                    ready += self._release(bit)
        return ready

    def _end(self) -> None:
        """Where paths end: the inputs of registers, memories (the written ones of LUT RAMs) and multipliers."""
        sinks = self.family.registers | self.family.memories | self.family.multipliers
        for name, cell in self.netlist.cells.items():
            for port, bits in cell["connections"].items():
                ends = cell["type"] in sinks or not self.netlist.passes(cell["type"], port)
                if not ends or cell["port_directions"][port] == "output":
                    continue
                for bit in (b for b in bits if isinstance(b, int)):
                    for kind, (levels, _) in self.arrival.get(bit, {}).items():
                        if kind not in self.best or levels > self.best[kind][0]:
                            self.best[kind] = (levels, bit, name)

    def _path(self, kind: str, levels: int, bit: int, end: str) -> LogicPath:
        names, cells, at = self.netlist.net_names, [], bit
        while (before := self.arrival[at][kind][1]) is not None:
            cells.append(self.netlist.cells[self.driver[at]]["type"])
            at = before
        cell = self.netlist.cells[end]
        outputs = [b for port, bits in cell["connections"].items()
                   if cell["port_directions"][port] == "output" for b in bits if b in names]
        return LogicPath(levels, names.get(at, self.driver.get(at, str(at))),
                         names[outputs[0]] if outputs else end, tuple(reversed(cells)))
