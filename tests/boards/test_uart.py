"""The serial port against a line that is driven and read in real time, independently of its clock."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from hw.uart import BaudError, Uart, UartReceiver, UartTransmitter, cycles_per_bit

RATES = [(100_000_000, 6_000_000), (80_000_000, 3_000_000), (48_000_000, 8_000_000), (1_000_000, 9_600)]


def simulate(dut, clock_hz: int, *benches) -> None:
    sim = Simulator(dut)
    sim.add_clock(1 / clock_hz)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


async def send(ctx, line, data: bytes, baud: float, gap_bits: float = 0.0) -> None:
    """Drive ``line`` as a serial port with a clock of its own."""
    bit = 1 / baud
    for byte in data:
        for level in (0, *(byte >> i & 1 for i in range(8)), 1):
            ctx.set(line, level)
            await ctx.delay(bit)
        if gap_bits:
            await ctx.delay(bit * gap_bits)


async def collect(ctx, o, count: int, cycles: int) -> bytes:
    """Take bytes from a stream for ``cycles`` cycles; there must be ``count``."""
    got = bytearray()
    ctx.set(o.ready, 1)
    for _ in range(cycles):
        _, _, valid, payload = await ctx.tick().sample(o.valid, o.payload)
        if valid:
            got.append(payload)
    assert len(got) == count
    return bytes(got)


@pytest.mark.parametrize("clock_hz, baud, drift", [
    (clock_hz, baud, drift) for clock_hz, baud in RATES for drift in (-0.02, 0.0, 0.02)
    if not drift or clock_hz > 7 * baud])  # six cycles per bit leave no room for drift
def test_receives_back_to_back_bytes_at_any_phase(clock_hz, baud, drift) -> None:
    data = bytes(random.Random(f"{clock_hz} {drift}").randbytes(8)) + b"\x00\xff\x55\xaa\x01\x80"
    dut = UartReceiver(clock_hz=clock_hz, baud=baud)
    got = []

    async def line(ctx):
        await ctx.delay(0.37 / clock_hz)
        await send(ctx, dut.rx, data, baud * (1 + drift))

    async def reader(ctx):
        cycles = int(clock_hz / baud * 10 * (len(data) + 3) / (1 - 0.02))
        got.append(await collect(ctx, dut.o, len(data), cycles))

    simulate(dut, clock_hz, line, reader)
    assert got == [data]


@pytest.mark.parametrize("clock_hz, baud", RATES)
def test_transmits_whole_bits_without_a_gap(clock_hz, baud) -> None:
    data = random.Random(baud).randbytes(8)
    dut = UartTransmitter(clock_hz=clock_hz, baud=baud)
    levels = []

    async def writer(ctx):
        for byte in data:
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, byte)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def watch(ctx):
        for _ in range(int(clock_hz / baud * 10 * (len(data) + 2))):
            _, _, tx = await ctx.tick().sample(dut.tx)
            levels.append(tx)

    simulate(dut, clock_hz, writer, watch)
    ratio, start = clock_hz / baud, levels.index(0)
    expected = [b for byte in data for b in (0, *(byte >> i & 1 for i in range(8)), 1)]
    middles = [levels[int(start + (k + 0.5) * ratio)] for k in range(len(expected))]
    assert middles == expected
    assert all(levels[int(start + len(expected) * ratio):])
    edges = [i for i, (a, b) in enumerate(pairwise(levels)) if a != b]
    assert all(abs((e + 1 - start) / ratio - round((e + 1 - start) / ratio)) < 1.01 / ratio for e in edges)


def test_round_trip_through_both_directions() -> None:
    data = random.Random(1).randbytes(24)
    dut = Uart(clock_hz=80_000_000, baud=3_000_000)
    got = []

    async def loop(ctx):
        async for _, _, tx in ctx.tick().sample(dut.tx):
            ctx.set(dut.rx, tx)

    async def writer(ctx):
        for byte in data:
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, byte)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def reader(ctx):
        got.append(await collect(ctx, dut.o, len(data), 27 * 10 * 27))

    sim = Simulator(dut)
    sim.add_clock(1 / 80e6)
    sim.add_process(loop)
    sim.add_testbench(writer)
    sim.add_testbench(reader)
    sim.run()
    assert got == [data]


def receiver_events(levels: list[tuple[int, float]], ready: bool = True) -> tuple[bytes, int, int]:
    """(bytes, framing errors, overruns) of a line given as (level, bits)."""
    dut = UartReceiver(clock_hz=80_000_000, baud=4_000_000)
    counts, got = {"framing": 0, "overrun": 0}, bytearray()

    async def line(ctx):
        for level, bits in levels:
            ctx.set(dut.rx, level)
            await ctx.delay(bits / 4_000_000)

    async def watch(ctx):
        ctx.set(dut.o.ready, ready)
        for _ in range(int(sum(bits for _, bits in levels) * 20) + 100):
            _, _, valid, byte, framing, overrun = await ctx.tick().sample(
                dut.o.valid, dut.o.payload, dut.framing_error, dut.overrun)
            counts["framing"] += framing
            counts["overrun"] += overrun
            if valid and ready:
                got.append(byte)
        if not ready:
            got.append(ctx.get(dut.o.payload))

    simulate(dut, 80_000_000, line, watch)
    return bytes(got), counts["framing"], counts["overrun"]


def frame(byte: int) -> list[tuple[int, float]]:
    return [(b, 1.0) for b in (0, *(byte >> i & 1 for i in range(8)), 1)]


def test_a_glitch_is_no_byte() -> None:
    assert receiver_events([(1, 3), (0, 0.3), (1, 12), *frame(0x5A), (1, 3)]) == (b"\x5a", 0, 0)


def test_a_low_stop_bit_drops_its_byte_and_waits_for_the_idle_line() -> None:
    assert receiver_events([(1, 3), (0, 40), (1, 12), *frame(0xC3), (1, 3)]) == (b"\xc3", 1, 0)


def test_an_untaken_byte_stays_and_the_next_is_lost() -> None:
    line = [(1, 3), *frame(0x11), *frame(0x22), *frame(0x33), (1, 3)]
    assert receiver_events(line, ready=False) == (b"\x11", 0, 2)


@pytest.mark.parametrize("clock_hz, baud", [(12_000_000, 3_000_000), (100_000_000, 0), (0, 9600)])
def test_impossible_rates_are_refused(clock_hz, baud) -> None:
    with pytest.raises(BaudError, match=f"baud is {baud}"):
        cycles_per_bit(clock_hz, baud)
