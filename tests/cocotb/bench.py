"""A synchronous test bench on cocotb: agents that drive before the clock edge and look at it.

Every cycle: agents set inputs, everything settles, agents see what the rising edge will see, then the edge comes.
So there is no race between agents, and one coroutine serves them all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from cocotb.triggers import Timer

from tests.hw.bench import STALLS, stalls

SHY = (*STALLS, "shy")
"""How a sink holds a stream up; a shy one is ready only when there is something: ``valid`` must not wait for it."""


class Source:
    """Offers values to a stream; an offer stays until it is taken."""

    def __init__(self, dut, port: str, values: Iterable[int], stall: str = "none", seed: int = 0) -> None:
        self.valid, self.ready = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__ready")
        self.payload = getattr(dut, f"{port}__payload")
        self.values, self.stall = list(values), stalls(stall, np.random.default_rng(seed))
        self.at, self.offering = 0, False

    def drive(self) -> None:
        if not self.offering and self.at < len(self.values) and not self.stall():
            self.offering = True
            self.payload.value = self.values[self.at]
        self.valid.value = int(self.offering)

    def see(self) -> None:
        if self.offering and int(self.ready.value):
            self.offering, self.at = False, self.at + 1

    @property
    def done(self) -> bool:
        return self.at == len(self.values)


class Sink:
    """Takes what a stream offers: ``got``, and the cycle of each in ``cycles``."""

    def __init__(self, dut, port: str, stall: str = "none", seed: int = 1) -> None:
        self.valid, self.ready = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__ready")
        self.payload = getattr(dut, f"{port}__payload")
        self.shy = stall == "shy"
        self.stall = stalls("random" if self.shy else stall, np.random.default_rng(seed))
        self.got: list[int] = []
        self.cycles: list[int] = []
        self.cycle, self.offered, self.open = 0, False, False

    def drive(self) -> None:
        self.open = not self.stall() and (self.offered or not self.shy)
        self.ready.value = int(self.open)

    def see(self) -> None:
        self.offered = bool(int(self.valid.value))
        if self.offered and self.open:
            self.got.append(int(self.payload.value))
            self.cycles.append(self.cycle)
            self.offered = False
        self.cycle += 1


class Bench:
    """The clock, the agents and the monitors of a ``Monitored`` design. ``broken`` lists the streams in error."""

    def __init__(self, dut, *agents) -> None:
        self.dut, self.agents = dut, list(agents)
        self.streams = json.loads(Path(os.environ["RRM_STREAMS"]).read_text())

    async def reset(self) -> None:
        """Every input 0, then a reset."""
        for handle in self.dut:
            if handle._name not in ("clk", "rst") and not getattr(handle, "is_const", False):
                try:
                    handle.value = 0
                except (TypeError, ValueError):
                    continue
        self.dut.rst.value = 1
        await self.cycles(2)
        self.dut.rst.value = 0

    async def cycle(self) -> None:
        self.dut.clk.value = 0
        for agent in self.agents:
            agent.drive()
        await Timer(1, "ns")
        for agent in self.agents:
            agent.see()
        self.dut.clk.value = 1
        await Timer(1, "ns")

    async def cycles(self, count: int) -> None:
        for _ in range(count):
            await self.cycle()

    async def until(self, done: Callable[[], bool], limit: int, idle: int = 40) -> None:
        """Run until ``done``, and then ``idle`` cycles in which nothing more should come."""
        for _ in range(limit):
            if done():
                break
            await self.cycle()
        else:
            raise AssertionError(f"not done after {limit} cycles")
        await self.cycles(idle)

    @property
    def broken(self) -> list[str]:
        bits = int(self.dut.violations.value)
        return [name for i, name in enumerate(self.streams) if bits >> i & 1]


class Context:
    """The few calls of Amaranth's simulator that loading tables needs, so that both simulators share them."""

    def __init__(self, bench: Bench, prefix: str) -> None:
        self.bench, self.prefix = bench, prefix

    def set(self, port, value: int) -> None:
        getattr(self.bench.dut, f"{self.prefix}__{port.name}").value = int(value)

    async def tick(self) -> None:
        await self.bench.cycle()
