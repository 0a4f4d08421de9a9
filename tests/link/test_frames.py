"""What the frame decoder costs: cycles per packet, by what is in it."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from host.link.packing import parts
from hw.link.frames import FrameDecoder
from hw.link.mirror import Mirror
from hw.link.packets import LinkConfig
from tests.link.bench import CONFIG, PERIOD

LINK = LinkConfig(buffer_bytes=4096, mirror_bytes=2048, input_channels=8)
PACKET = 12
"""Cycles that a packet takes whatever is in it."""


class Decoding(wiring.Component):
    """A decoder and its mirror."""

    def __init__(self) -> None:
        super().__init__({})
        self.decoder, self.mirror = FrameDecoder(CONFIG, LINK), Mirror(LINK)

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder, m.submodules.mirror = self.decoder, self.mirror
        connect(m, self.decoder.mirror, self.mirror.frames)
        return m


def cycles(packets: list[tuple[bytes, dict]], channels: int, width: int) -> list[int]:
    """Cycles of each packet when bytes are there and words are taken at once."""
    top, counted = Decoding(), []
    dut = top.decoder

    async def bench(ctx):
        ctx.set(dut.input, {"width": width, "channels": channels})
        ctx.set(dut.measure, 1)
        await ctx.tick()
        ctx.set(dut.measure, 0)
        await ctx.tick().until(~dut.measuring)
        ctx.set(dut.o.ready, 1)
        for data, fields in packets:
            ctx.set(dut.frame, fields)
            ctx.set(dut.start, 1)
            ctx.set(dut.first, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.first, 0)
            at, count = 0, 0
            while ctx.get(dut.busy):
                ctx.set(dut.i.valid, ctx.get(dut.wants))
                ctx.set(dut.i.payload, data[at] if at < len(data) else 0)
                *_, ready = await ctx.tick().sample(dut.i.ready)
                at, count = at + ready, count + 1
            assert at == len(data)
            counted.append(count)

    simulator = Simulator(top)
    simulator.add_clock(PERIOD)
    simulator.add_testbench(bench)
    simulator.run()
    return counted


@pytest.mark.parametrize("channels, width, height", [(1, 32, 40), (3, 16, 16), (8, 9, 11)])
def test_cycles_of_a_packet(channels, width, height):
    """One per byte; with values one per element; one per 64 elements in full; never one per element that stays."""
    rng = np.random.default_rng(channels)
    n = channels * width * height
    old = rng.integers(0, 256, n, dtype=np.uint8)
    packets, limits = [], []
    for density in (0, 0.01, 0.1, 0.5, 1):
        new = np.where(rng.random(n) < density, old + 1 + rng.integers(0, 255, n, dtype=np.uint8), old).astype(np.uint8)
        for values in (0, 1):
            (part,) = parts(new, old, 4096)
            fields = {"changes": part.changes, "elements": n, "end": 1, "values": values}
            packets.append((part.data, fields))
            if part.changes and not values:
                limits.append(len(part.data))
            else:
                masks = -(-n // 8) if part.changes else 0
                limits.append(n + masks + -(-n // 64))
        old = new
    counted = cycles(packets, channels, width)
    assert all(limit <= count <= limit + PACKET for count, limit in zip(counted, limits, strict=True)), (
        list(zip(counted, limits, strict=True)))
