"""The whole accelerator behind its bytes: compiler, driver, link and ring against the golden model."""

from __future__ import annotations

import pytest
from amaranth.sim import Simulator

from host.compiler import Program, compile_graph
from host.link.driver import Driver
from host.link.program import device_program, region, values
from host.link.transport import Transport
from hw.accelerator import Accelerator
from hw.config import AcceleratorConfig
from hw.link.packets import LinkConfig
from sim.arithmetic import Mode
from sim.golden import GoldenModel
from tests.link.bench import PERIOD, rise
from tests.random_graphs import Limits, random_clip, random_graph

LINK = LinkConfig(buffer_bytes=512, mirror_bytes=1024, input_channels=8, timeout=300)


def small_program(seed: int) -> Program:
    """A random network of two layers, compiled for an accelerator of 4 rows."""
    graph = random_graph(seed, Limits(channels=4, size=4, layers=2))
    config = AcceleratorConfig(pes=2, lanes=2, sweep=2, projection_words=16, weight_words=16, column_words=16,
                               tap_words=16, codebook_words=16, snapshot_words=16, node_words=4, axis_words=16,
                               channel_words=4, step_words=8, edge_words=8, clear_words=8, max_size=4,
                               max_channels=4, max_blocks=4)
    return compile_graph(graph, config, fit=True)


def play(program: Program, transport: Transport, seed: int, threshold: int, mode: Mode, frames: int) -> None:
    """Every tensor and projection after every frame, with noise on the line and a refresh on the way."""
    graph = program.graph
    driver = Driver(transport, program.config)
    driver.connect()
    driver.load(device_program(program, threshold, mode))
    golden = GoldenModel(graph, threshold, mode)
    names = [n for n in (*golden.snapshots, *golden.projections) if n in program.places and n != graph.input]
    assert len(names) >= 3
    for i, codes in enumerate(random_clip(graph, seed, frames)):
        if i == 2:
            transport.write(b"\xa5\x5a noise that begins like a packet")
        report = driver.frame(codes, refresh=i == 3, reads=[region(program, n) for n in names])
        assert report.refresh == (i in (0, 3))
        result = golden.frame(codes, report.refresh)
        for name, words in zip(names, report.data, strict=True):
            kept = golden.snapshots if name in golden.snapshots else golden.projections
            assert (values(program, name, words) == kept[name]).all(), name
        counters = driver.counters(0, len(program.steps))
        assert counters["macs"].sum() == sum(e.macs for e in result.edges)
        assert (counters["cycles"] > 0).all()


class SimulatedAccelerator:
    """A transport into Amaranth's simulator. A silence lasts longer than the link's timeout."""

    name = "simulator"

    def __init__(self, config: AcceleratorConfig, link: LinkConfig) -> None:
        self.dut = Accelerator(config, link)
        self.link, self.cycles = link, 0
        self.to_device, self.to_host = bytearray(), bytearray()
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(PERIOD)
        self.simulator.add_testbench(self._send, background=True)
        self.simulator.add_testbench(self._receive, background=True)

    async def _send(self, ctx) -> None:
        port = self.dut.i
        while True:
            ctx.set(port.valid, bool(self.to_device))
            ctx.set(port.payload, self.to_device[0] if self.to_device else 0)
            *_, taken = await ctx.tick().sample(port.valid & port.ready)
            if taken:
                del self.to_device[0]

    async def _receive(self, ctx) -> None:
        port = self.dut.o
        ctx.set(port.ready, 1)
        while True:
            await rise(ctx, port.valid)
            *_, valid, byte = await ctx.tick().sample(port.valid, port.payload)
            if valid:
                self.to_host.append(byte)

    def write(self, data: bytes) -> None:
        self.to_device += data

    def read(self, limit: int, timeout: float) -> bytes:
        silence = 0
        while not self.to_host and silence < 3 * self.link.timeout:
            silence = 0 if self.to_device else silence + 50
            self.cycles += 50
            self.simulator.run_until(self.cycles * PERIOD)
        data = bytes(self.to_host[:limit])
        del self.to_host[:limit]
        return data


@pytest.mark.parametrize("seed, threshold, mode", [(0, 0, "hold"), (1, 40, "truncate"), (3, 40, "hold")])
def test_frames_through_the_link(seed, threshold, mode):
    program = small_program(seed)
    play(program, SimulatedAccelerator(program.config, LINK), seed, threshold, mode, frames=4)
