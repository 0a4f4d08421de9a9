"""cocotb tests of the whole accelerator at its two byte streams, through the host's own driver, against the golden
model; every stream inside is watched. Run by ``test_cocotb.py``."""

from __future__ import annotations

import cocotb
from cocotb.task import bridge, resume

from host.compiler import Program, compile_graph
from tests.cocotb.bench import Bench, Sink, Source
from tests.cocotb.designs import ACCELERATOR, LIMITS, LINK
from tests.link.test_accelerator import play
from tests.random_graphs import random_graph


def program(seed: int) -> Program:
    """A random network for the one accelerator of these tests."""
    return compile_graph(random_graph(seed, LIMITS), ACCELERATOR)


class Line:
    """A transport for the driver, which runs in a thread of its own; both directions stall."""

    name = "verilator"

    def __init__(self, bench: Bench, stall: str) -> None:
        self.bench = bench
        self.source, self.sink = Source(bench.dut, "i", [], stall), Sink(bench.dut, "o", stall)
        bench.agents = [self.source, self.sink]

    def write(self, data: bytes) -> None:
        self.source.values += data

    def read(self, limit: int, timeout: float) -> bytes:
        resume(self._wait)()
        data, self.sink.got[:limit] = bytes(self.sink.got[:limit]), []
        return data

    async def _wait(self) -> None:
        """Until a byte comes, or the line has been silent for longer than the device waits."""
        silence = 0
        while not self.sink.got and silence < 4 * LINK.timeout:
            silence = silence + 1 if self.source.done else 0
            await self.bench.cycle()


@cocotb.test()
@cocotb.parametrize((("seed", "threshold", "mode", "stall"), [
    (4, 0, "hold", "none"), (10, 3, "hold", "random"), (3, 4, "truncate", "bursty"), (6, 0, "hold", "bursty"),
    (0, 2, "hold", "none"), (5, 4, "truncate", "random")]))
async def frames(dut, seed, threshold, mode, stall):
    """Load, four frames with a refresh and noise on the way; every tensor and projection, and the MACs."""
    bench = Bench(dut)
    await bench.reset()
    line = Line(bench, stall)
    await bridge(play)(program(seed), line, seed, threshold, mode, 4)
    count = len(line.sink.got)
    await bench.cycles(200)
    assert len(line.sink.got) == count, "bytes that nobody asked for"
    assert bench.broken == []
