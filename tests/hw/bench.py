"""Test benches for blocks in Amaranth's simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from amaranth.hdl import Shape
from amaranth.sim import Simulator

from host.compiler import Program
from hw.config import MARK_COLUMNS
from hw.layouts import pack, size_of, unpack
from hw.marks import Marks

STALLS = ("none", "random", "bursty")
"""How a stream is held up."""


def stalls(kind: str, rng: np.random.Generator) -> Callable[[], bool]:
    """A function that says, cycle by cycle, whether to stall."""
    state = {"burst": 0, "on": False}

    def stall() -> bool:
        if kind == "none":
            return False
        if kind == "random":
            return bool(rng.random() < 0.4)
        if state["burst"] == 0:
            state["burst"], state["on"] = int(rng.integers(1, 12)), not state["on"]
        state["burst"] -= 1
        return state["on"]
    return stall


def word(layout, value) -> int:
    """A value as the integer of a layout."""
    chunks = pack(layout, value)[0]
    return sum(int(c) << 32 * i for i, c in enumerate(chunks))


def fields(layout, value: int):
    """An integer as the unpacked fields of a layout (leaves are arrays of one)."""
    count = -(-size_of(layout) // 32)
    image = np.array([[value >> 32 * i & 0xFFFFFFFF for i in range(count)]], np.uint32)
    return unpack(layout, image)


def raw(signal):
    """A port of any shape as one integer value."""
    return signal.as_value() if hasattr(signal, "as_value") else signal


async def send(ctx, port, values: list[int], stall: Callable[[], bool]) -> None:
    """Send integers through a stream; valid stays until taken."""
    for value in values:
        while stall():
            await ctx.tick()
        ctx.set(raw(port.p), value)
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)


async def receive(ctx, port, count: int, stall: Callable[[], bool], got: list, extra: int = 50) -> None:
    """Collect integers from a stream, with the cycle of each; then watch that nothing more comes. Checks that a
    payload is frozen, and valid stays, until it is taken."""
    held, cycle, idle = None, 0, 0
    while idle < extra:
        ready = not stall()
        ctx.set(port.ready, ready)
        _, _, valid, payload = await ctx.tick().sample(port.valid, raw(port.p))
        assert held is None or (valid and payload == held), "a payload changed before it was taken"
        held = payload if valid and not ready else None
        if valid and ready:
            got.append((payload, cycle))
        cycle += 1
        idle = idle + 1 if len(got) >= count else 0
        assert cycle < 200 * (count + 10), f"only {len(got)} of {count} beats came"
    assert len(got) == count, f"{len(got) - count} beats too many"


def simulate(dut, *processes, background=()) -> None:
    """Run test benches until they end."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in processes:
        simulator.add_testbench(process)
    for process in background:
        simulator.add_testbench(process, background=True)
    simulator.run()


def through(dut, values: list[int], expected: int, *, i_stall: str = "none", o_stall: str = "none",
            seed: int = 0) -> list[tuple[int, int]]:
    """Send values through ``dut.i`` and return [(value, cycle)] from ``dut.o``."""
    rng, got = np.random.default_rng(seed), []

    async def source(ctx):
        await send(ctx, dut.i, values, stalls(i_stall, rng))

    async def sink(ctx):
        await receive(ctx, dut.o, expected, stalls(o_stall, rng), got)

    simulate(dut, source, sink)
    return got


def with_fields(program: Program, **changes: int) -> Program:
    """A copy with fields of all its step descriptors replaced."""
    return replace(program, steps=tuple(replace(s, fields=s.fields | changes) for s in program.steps))


async def load(ctx, dut, images) -> None:
    """Write tables through ``dut.load``: (space, words from address 0 on as integers) each."""
    ctx.set(dut.load.strobe, 1)
    for space, values in images:
        for address, value in enumerate(values):
            ctx.set(dut.load.space, int(space))
            ctx.set(dut.load.address, address)
            ctx.set(dut.load.data, value)
            await ctx.tick()
    ctx.set(dut.load.strobe, 0)


class MarksModel:
    """Stands for ``hw.marks`` at the ports ``take`` and ``taken`` of a block; ``words`` int64 is what it holds."""

    def __init__(self, dut, rng: np.random.Generator, words: int) -> None:
        self.dut, self.rng = dut, rng
        self.words, self.taken = self._any(words), []
        self._pipe = [0] * Marks.TAKE_LATENCY

    def cycle(self, ctx) -> None:
        """One cycle; before its tick. Nobody may look at ``taken`` when nothing was."""
        ctx.set(self.dut.taken, self._pipe.pop(0))
        at, word = ctx.get(self.dut.take_address), int(self._any())
        if ctx.get(self.dut.take):
            word = int(self.words[at])
            self.taken.append(at)
            if ctx.get(self.dut.take_clear):
                self.words[at] = 0
        self._pipe.append(word)

    def _any(self, count: int | None = None):
        return self.rng.integers(0, 1 << MARK_COLUMNS, count)


def signed_value(value: int, shape) -> int:
    """A raw integer as a signed number of a shape."""
    width = Shape.cast(shape).width
    return value - (1 << width) if value >> width - 1 else value
