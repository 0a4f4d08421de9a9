"""cocotb tests of the whole accelerator (run by test_cocotb.py): the driver against the golden model, on Verilator."""

from __future__ import annotations

import random

import cocotb
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import FallingEdge

from hw.accelerator import Accelerator
from tests.link.bench import PERIOD, pauses, put
from tests.link.cocotb_link import monitor
from tests.link.test_accelerator import LINK, play, small_program
from tests.link.verilator import Context, pins, start

SEED = 1                                # direct and delta edges; 40 drops different deltas in hold and truncate
PROGRAM = small_program(SEED)


class Line:
    """A transport for a driver that runs in a thread of its own; both directions stall."""

    name = "verilator"

    def __init__(self, context: Context, ports, stalls: str) -> None:
        self.context, self.ports = context, ports
        self.pauses = [pauses(stalls, random.Random(i)) for i in range(2)]
        self.to_device, self.to_host = bytearray(), bytearray()

    async def send(self) -> None:
        ctx, port, pause = self.context, self.ports.i, self.pauses[0]
        while True:
            for _ in range(pause()):
                await ctx.tick()
            if not self.to_device:
                await ctx.tick()
                continue
            await put(ctx, port, self.to_device[0], 0)
            del self.to_device[0]

    async def receive(self) -> None:
        ctx, port, pause = self.context, self.ports.o, self.pauses[1]
        while True:
            for _ in range(pause()):
                await ctx.tick()
            ctx.set(port.ready, 1)
            *_, valid, byte = await ctx.tick().sample(port.valid, port.payload)
            ctx.set(port.ready, 0)
            if valid:
                self.to_host.append(byte)

    def write(self, data: bytes) -> None:
        self.to_device += data

    def read(self, limit: int, timeout: float) -> bytes:
        resume(self._wait)()
        data = bytes(self.to_host[:limit])
        del self.to_host[:limit]
        return data

    async def _wait(self) -> None:
        silence = 0
        while not self.to_host and silence < 4 * LINK.timeout:
            silence = 0 if self.to_device else silence + 1
            await self.context.tick()


@cocotb.test()
@cocotb.parametrize(stalls=["none", "random", "bursty"], rule=[(0, "hold"), (40, "hold"), (40, "truncate")])
async def frames(dut, stalls, rule):
    """Load, seven frames, every tensor and projection after each."""
    period = round(PERIOD * 1e9)
    cocotb.start_soon(Clock(dut.clk, period, "ns").start())
    ports = pins(dut, Accelerator(PROGRAM.config, LINK).signature)
    ports.i.valid.set(0)
    ports.o.ready.set(0)
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    line = Line(Context(dut.clk, period), ports, stalls)
    tasks = [start(line.send), start(line.receive), start(monitor, line.context, ports.o)]
    await bridge(play)(PROGRAM, line, SEED, *rule, frames=7)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
