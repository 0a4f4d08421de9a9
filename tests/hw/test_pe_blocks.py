"""Accumulators, walker and PE against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from hw.accumulators import Accumulators
from hw.config import AcceleratorConfig
from hw.layouts import Kind, Space
from hw.pe import COLUMN_LATENCY, BusLayouts, ProcessingElement
from hw.walker import Walker
from tests.hw.bench import raw, signed_value, simulate, word

SMALL = dict(projection_words=32, weight_words=64, column_words=16, tap_words=16, codebook_words=32, max_blocks=4,
             snapshot_words=16, node_words=4, axis_words=16, channel_words=4, step_words=4, edge_words=4,
             clear_words=4, max_size=7, max_channels=16)


def wrap(value, bits):
    return ((value + (1 << bits - 1)) & ((1 << bits) - 1)) - (1 << bits - 1)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("addresses", [1, 2, 3, 5, 32])
def test_accumulators_forward_at_every_distance(lanes, addresses):
    """Few addresses make every distance frequent; sums wrap; clears and plain reads see the newest value."""
    config = AcceleratorConfig(pes=1, lanes=lanes, sweep=lanes, accumulator_bits=20, **SMALL)
    rng, count = np.random.default_rng(addresses), 600
    at = rng.integers(0, addresses, count)
    kind = rng.choice(4, count, p=[0.6, 0.1, 0.1, 0.2])           # update, clear, read, nothing (a read, too)
    product = rng.integers(-255 * 32768, 255 * 32768, (count, lanes))
    memory, expected = np.zeros((32, lanes), np.int64), []
    for a, k, p in zip(at, kind, product, strict=True):
        if k == 0:
            memory[a] = wrap(memory[a] + p, 20)
        elif k == 1:
            memory[a] = 0
        expected.append(memory[a].tolist())
    dut, got = Accumulators(config), []
    late = Accumulators.PRODUCT_LATENCY

    async def drive(ctx):
        for i in range(count + Accumulators.LATENCY + 1):
            if i < count:
                ctx.set(dut.op.address, int(at[i]))
                ctx.set(dut.op.update, int(kind[i] == 0))
                ctx.set(dut.op.clear, int(kind[i] == 1))
            if late <= i < count + late:
                for lane in range(lanes):
                    ctx.set(dut.product[lane], int(product[i - late][lane]))
            if i >= Accumulators.LATENCY and i - Accumulators.LATENCY < count:
                got.append([ctx.get(dut.value[lane]) for lane in range(lanes)])
            await ctx.tick()

    simulate(dut, drive)
    assert got == expected


class Pe:
    """A PE with random tables, and what it must compute."""

    def __init__(self, config: AcceleratorConfig, seed: int) -> None:
        self.config, self.rng = config, np.random.default_rng(seed)
        self.dut = ProcessingElement(config, index=0)
        self.lay = self.dut.layouts
        lanes = config.lanes
        self.weights = self.rng.integers(-128, 128, (64, lanes))
        self.taps = np.stack([self.rng.integers(0, 16, 16), self.rng.integers(0, 32, 16)], axis=1)
        self.taps[:, 0] = self.taps[:, 0] // 4 * 4
        self.book = self.rng.integers(-32768, 32768, 32)
        self.book[[0, 16]] = 0
        self.codes = self.rng.integers(0, 16, (64, lanes))
        self.index = self.rng.integers(0, 16, 64)
        self.index[self.codes.any(axis=1) & (self.index == 15)] = 14
        self.csc_from = 32

    async def load(self, ctx) -> None:
        dut, lay = self.dut, self.lay

        async def write(space, address, value):
            ctx.set(dut.load.space, int(space))
            ctx.set(dut.load.address, address)
            ctx.set(dut.load.data, value)
            ctx.set(dut.load.strobe, 1)
            await ctx.tick()
            ctx.set(dut.load.strobe, 0)

        for i in range(64):
            dense = i < self.csc_from or not self.config.csc
            value = (word(lay.dense8, {"weights": self.weights[i:i + 1]}) if dense
                     else word(lay.csc4, {"index": self.index[i], "codes": self.codes[i:i + 1]}))
            await write(Space.WEIGHTS, i, value)
        for i in range(16):
            await write(Space.TAPS, i, word(lay.tap, {"weight": self.taps[i, 0], "offset": self.taps[i, 1]}))
        for i in range(32):
            await write(Space.CODEBOOK, i, word(lay.codebook, self.book[i]))
        for i, c in enumerate(self.columns()):
            await write(Space.COLUMNS, i, word(lay.column, c))

    def columns(self):
        """Even: dense, odd: CSC (when there is), every fourth empty."""
        rng = np.random.default_rng(9)
        out = []
        for i in range(16):
            if i % 4 == 3:
                out.append({"count": 0, "row": 0, "first": 0})
            elif i % 2 and self.config.csc:
                count = int(rng.integers(1, 9))
                out.append({"count": count, "row": int(rng.integers(0, 8)),
                            "first": int(rng.integers(32, 64 - count))})
            else:
                out.append({"count": 2 * int(rng.integers(1, 5)), "row": int(rng.integers(0, 12)), "first": 0})
        return out

    def apply(self, memory, column, start, origin, deltas) -> None:
        """One broadcast, on int64[32, lanes]."""
        c = self.columns()[column]
        is_csc, row = bool(column % 2 and self.config.csc), c["row"]
        for i in range(c["count"]):
            if is_csc:
                at = c["first"] + i
                row += int(self.index[at]) + (i > 0)
                skip = self.index[at] == 15 and not self.codes[at].any()
                weights = self.book[16 + self.codes[at]]
                address = origin + self.taps[(row >> 1) % 16, 1] + (row & 1)
                if skip:
                    continue
            else:
                tap, block = c["row"] + i // 2, i % 2
                weights = self.weights[(start + self.taps[tap % 16, 0] + block) % 64]
                address = origin + self.taps[tap % 16, 1] + block
            memory[address % 32] = wrap(memory[address % 32] + weights * deltas, self.config.accumulator_bits)


@pytest.mark.parametrize("lanes,kinds,queue", [(1, ("dense8", "csc4", "csc8"), 16), (2, ("dense8", "csc4"), 1),
                                               (4, ("dense8",), 3)])
def test_pe_walks_columns_while_it_is_swept(lanes, kinds, queue):
    """Broadcasts at random, sweeps stealing slots at random, then every P word."""
    config = AcceleratorConfig(pes=4, lanes=lanes, sweep=lanes, kinds=kinds, queue_depth=queue, **SMALL)
    pe = Pe(config, lanes)
    dut, rng = pe.dut, pe.rng
    memory, swept, bus = np.zeros((32, lanes), np.int64), [], BusLayouts(pe.lay)
    held = {"stolen": 0, "blocked": 0}

    async def body(ctx):
        await pe.load(ctx)
        ctx.set(dut.clear.start, 1)
        ctx.set(dut.clear["count"], 32)
        await ctx.tick()
        ctx.set(dut.clear.start, 0)
        await ctx.tick().until(~dut.clearing)
        pipe = [None] * (COLUMN_LATENCY + 1)
        left, following = 150, True
        while left or any(pipe):
            ctx.set(dut.sweep, rng.random() < 0.3)
            advance = following
            ctx.set(dut.advance, advance)
            following = not ctx.get(dut.blocked)
            held["stolen"] += ctx.get(dut.held)
            held["blocked"] += not following
            await ctx.tick()
            if advance:
                if pipe[-1]:
                    pe.apply(memory, *pipe[-1][:4])
                new = None
                if left and rng.random() < 0.7:
                    new = (int(rng.integers(16)), int(rng.integers(0, 16)), int(rng.integers(32)),
                           rng.integers(-255, 256, lanes))
                    left -= 1
                pipe = [new, *pipe[:-1]]
                now = pipe[0]
                ctx.set(dut.column.valid, now is not None)
                ctx.set(dut.column.column, now[0] if now else 0)
                out = pipe[-1]
                value = {"valid": int(out is not None)}
                if out:
                    dense = out[0] % 2 == 0 or not config.csc
                    value |= {"start": out[1], "origin": out[2], "deltas": np.tile(out[3], 1)[None],
                              "walk": {"kind": int(Kind.DENSE8 if dense else Kind.CSC4), "last_block": 1,
                                       "block_bits": 1, "codebook": 16}}
                ctx.set(raw(dut.work), word(bus.work, value))
        ctx.set(dut.sweep, 0)
        ctx.set(raw(dut.work), 0)
        await ctx.tick()
        while ctx.get(dut.busy) or ctx.get(dut.clearing):
            await ctx.tick()
        for a in range(32 + ProcessingElement.SWEEP_LATENCY):
            ctx.set(dut.sweep, a < 32)
            ctx.set(dut.sweep_address, max(0, a - Walker.LATENCY) % 32)
            if a >= ProcessingElement.SWEEP_LATENCY:
                swept.append([signed_value(ctx.get(dut.value[i]) & ((1 << 27) - 1), 27) for i in range(lanes)])
            await ctx.tick()

    simulate(dut, body)
    assert swept == memory.tolist()
    assert min(held.values()) > 0
