"""Block RAMs and multipliers: what Yosys makes of Amaranth's, simulated with our models of the cells."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth.hdl import Const, Module, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from boards.family import FAMILIES
from tests.cells import replay


def first_contents(width: int, depth: int) -> list[int]:
    """Random words."""
    rng = random.Random(f"{width} {depth}")
    return [rng.getrandbits(width) for _ in range(depth)]


class Ram(wiring.Component):
    """A memory with one write and one read port, with first contents."""

    def __init__(self, width: int, depth: int, enabled: bool) -> None:
        self.width, self.depth, self.enabled = width, depth, enabled
        super().__init__({"ra": In(range(depth)), "rd": Out(width), "re": In(1),
                          "wa": In(range(depth)), "wd": In(width), "we": In(1)})

    def elaborate(self, platform):
        m = Module()
        init = first_contents(self.width, self.depth)
        m.submodules.ram = ram = Memory(shape=unsigned(self.width), depth=self.depth, init=init)
        read, write = ram.read_port(), ram.write_port()
        m.d.comb += [read.addr.eq(self.ra), self.rd.eq(read.data), read.en.eq(self.re if self.enabled else 1),
                     write.addr.eq(self.wa), write.data.eq(self.wd), write.en.eq(self.we)]
        return m


class Product(wiring.Component):
    """A multiplier between registers."""

    def __init__(self, a, b) -> None:
        self.shapes = a, b
        super().__init__({"a": In(a), "b": In(b), "p": Out((Const(0, a) * Const(0, b)).shape())})

    def elaborate(self, platform):
        m = Module()
        a, b = (Signal(shape) for shape in self.shapes)
        m.d.sync += [a.eq(self.a), b.eq(self.b), self.p.eq(a * b)]
        return m


RAMS = {"wide": (36, 512, False), "enabled": (72, 512, True), "half": (18, 1024, False), "p": (108, 1024, False),
        "bytes": (9, 2048, True), "banks": (27, 3000, False)}
PRODUCTS = {"weight": (signed(16), signed(9)), "requant": (signed(28), signed(24)), "again": (signed(9), signed(24)),
            "unsigned": (unsigned(17), unsigned(17)), "mixed": (signed(18), unsigned(12))}


class Bench(wiring.Component):
    """All of them side by side, so that they are synthesised and compiled once."""

    def __init__(self) -> None:
        self.parts = {name: Ram(*sizes) for name, sizes in RAMS.items()}
        self.parts |= {name: Product(*shapes) for name, shapes in PRODUCTS.items()}
        super().__init__({name: Out(part.signature) for name, part in self.parts.items()})

    def elaborate(self, platform):
        m = Module()
        for name, part in self.parts.items():
            m.submodules[name] = part
            wiring.connect(m, wiring.flipped(getattr(self, name)), part)
        return m


@pytest.fixture(scope="module", params=FAMILIES)
def bench(request, tmp_path_factory):
    """(simulated netlist, what is in it) of a family."""
    family = FAMILIES[request.param]
    simulated, cells = replay.netlist(Bench(), family, tmp_path_factory.mktemp(request.param))
    return simulated, cells, family


def test_everything_is_in_block_rams_and_multipliers(bench) -> None:
    _, cells, family = bench
    assert set(cells.memories()) == {f"{name}.ram" for name in RAMS}
    assert all(set(used) == {"BRAM"} for used in cells.memories().values())
    assert sum(cells.types[kind] for kind in family.multipliers) >= len(PRODUCTS)


@pytest.mark.parametrize("name", RAMS)
def test_block_ram(bench, name) -> None:
    width, depth, enabled = RAMS[name]
    rng, cycles = random.Random(name), 6000
    spots = [rng.randrange(depth) for _ in range(40)]
    inputs = {port: [] for port in ("ra", "wa", "wd", "we", "re")}
    contents, expected, held = dict(enumerate(first_contents(width, depth))), [], 0
    for _ in range(cycles):
        expected.append(held)
        ra, wa = (rng.choice(spots) if rng.random() < 0.8 else rng.randrange(depth) for _ in "rw")
        we, re, wd = int(rng.random() < 0.5), int(rng.random() < 0.8) if enabled else 1, rng.getrandbits(width)
        if re and ra == wa:  # what a read of the word that is being written gives is undefined
            we = 0
        for port, value in (("ra", ra), ("wa", wa), ("wd", wd), ("we", we), ("re", re)):
            inputs[port].append(value)
        held = contents[ra] if re else held
        if we:
            contents[wa] = wd
    got = bench[0].run({f"{name}__{port}": values for port, values in inputs.items()}, cycles)[f"{name}__rd"]
    assert np.array_equal(got[1:], expected[1:])


def test_a_read_of_the_word_being_written_gives_garbage(bench) -> None:
    """So a design that depends on it fails in the netlist tests."""
    got = bench[0].run({"wide__wa": [5] * 4, "wide__ra": [5] * 4, "wide__wd": [1] * 4, "wide__we": [1] * 4}, 4)
    assert list(got["wide__rd"][2:]) == [(1 << 36) - 2] * 2


@pytest.mark.parametrize("name", PRODUCTS)
def test_multiplier(bench, name) -> None:
    rng = random.Random(name)
    factors = []
    for shape in PRODUCTS[name]:
        low = -(1 << shape.width - 1) if shape.signed else 0
        high = low + (1 << shape.width) - 1
        factors.append([rng.choice((low, high, 0, 1, rng.randint(low, high), rng.randint(low, high)))
                        for _ in range(2000)])
    got = bench[0].run({f"{name}__a": factors[0], f"{name}__b": factors[1]}, 2000)[f"{name}__p"]
    bits = sum(shape.width for shape in PRODUCTS[name])
    assert list(got[2:]) == [a * b & (1 << bits) - 1 for a, b in zip(*factors, strict=True)][:-2]


@pytest.mark.parametrize("cell, parameters, reason", [
    ("RAMB18E1", 'READ_WIDTH_A(4)', "widths"), ("RAMB18E1", "DOA_REG(1)", "registers"),
    ("RAMB36E1", 'RAM_EXTENSION_A("LOWER")', "cascades"), ("DP16KD", "DATA_WIDTH_A(4)", "widths"),
    ("DP16KD", 'REGMODE_B("OUTREG")', "registers"), ("MULT18X18D", 'REG_OUTPUT_CLK("CLK0")', "registers")])
def test_what_is_not_modelled_is_fatal(cell, parameters, reason, tmp_path) -> None:
    (tmp_path / "top.v").write_text(f"module top(input clk, input d, output q); assign q = d;\n"
                                    f"    {cell} #(.{parameters}) cell_();\nendmodule\n")
    ours = [replay.CELLS / file for files in replay.OURS.values() for file in files]
    ports = (replay.Port("d", 1, False), replay.Port("q", 1, True))
    compiled = replay.compile_replay(tmp_path, ["top.v", *dict.fromkeys(ours)], ports)
    with pytest.raises(RuntimeError, match=f"{cell}: .*{reason}.*not modelled"):
        compiled.run({}, 1)
