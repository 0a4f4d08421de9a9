"""A test bench for the link's RTL: scripted bytes in, a mock ring, every stream watched and stalled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from amaranth.sim import Simulator

from hw.config import AcceleratorConfig
from hw.layouts import Space
from hw.link.link import Link
from hw.link.packets import LinkConfig
from hw.link.words import read_bytes
from tests.link.device_model import RingModel

CONFIG = AcceleratorConfig(pes=4, lanes=2, sweep=4, projection_words=64, weight_words=64, column_words=32,
                           tap_words=32, codebook_words=32, snapshot_words=64, node_words=8, axis_words=32,
                           channel_words=8, step_words=8, edge_words=8, clear_words=8)
LINK = LinkConfig(buffer_bytes=128, mirror_bytes=512, input_channels=8, timeout=40)
PERIOD = 1e-6
PATIENCE = 20_000
"""Cycles after which a stream that takes nothing is stuck."""
SILENCE = None
"""In a script: wait until the device gives up on what it has of a packet."""


def pauses(kind: str, rng: random.Random) -> Callable[[], int]:
    """Cycles to wait before a transfer: none, random or bursty."""
    if kind == "none":
        return lambda: 0
    if kind == "random":
        return lambda: rng.choice((0, 0, 1, 2, 5))
    return lambda: rng.choice((0,) * 15 + (20,))


def plain(payload):
    """A payload as a plain value that can be compared."""
    return payload.as_bits() if hasattr(payload, "as_bits") else payload


async def put(ctx, port, payload, pause: int) -> None:
    """One transfer into a stream."""
    if pause:
        await ctx.tick().repeat(pause)
    ctx.set(port.payload, payload)
    ctx.set(port.valid, 1)
    for _ in range(PATIENCE):
        *_, ready = await ctx.tick().sample(port.ready)
        if ready:
            break
    else:
        raise AssertionError(f"nothing was taken for {PATIENCE} cycles")
    ctx.set(port.valid, 0)


async def take(ctx, port, pause: int):
    """One transfer out of a stream; ``valid`` has to stay and the payload to be frozen until then."""
    if pause:
        offered = None
        for _ in range(pause):
            _, _, valid, payload = await ctx.tick().sample(port.valid, port.payload)
            assert offered is None or (valid and plain(payload) == offered), "a stream took its offer back"
            offered = plain(payload) if valid else None
    ctx.set(port.ready, 1)
    valid = False
    while not valid:
        await rise(ctx, port.valid)
        *_, valid, payload = await ctx.tick().sample(port.valid, port.payload)
    ctx.set(port.ready, 0)
    return payload


async def rise(ctx, signal) -> None:
    """Wait until a signal is 1; no simulation time is spent on cycles without it."""
    if not ctx.get(signal):
        await ctx.posedge(signal)


class Bench:
    """Runs a script of byte strings and silences on a ``Link``; collects answers and effects on the ring.

    After the script everything must come to rest, and stay so.
    """

    def __init__(self, script: Iterable[bytes | None], *, stalls: str = "none", seed: int = 0,
                 ring: RingModel | None = None, config: AcceleratorConfig = CONFIG,
                 link: LinkConfig = LINK, dut=None) -> None:
        self.rng = random.Random(seed)
        self.script, self.stalls, self.link = script, stalls, link
        self.ring = ring or RingModel(config)
        self.dut = dut or Link(config, link)
        self.answers = bytearray()
        self.errors: list[bool] = []
        self.background = (self._receive, self._load, self._run, self._frame, self._read, self._watch_reset)

    def simulate(self) -> Bench:
        """Run the script in Amaranth's simulator. (In others: ``send`` with ``background``.)"""
        simulator = Simulator(self.dut)
        simulator.add_clock(PERIOD)
        simulator.add_testbench(self.send)
        for process in self.background:
            simulator.add_testbench(process, background=True)
        simulator.run()
        return self

    def _pauses(self) -> Callable[[], int]:
        return pauses(self.stalls, random.Random(self.rng.random()))

    async def send(self, ctx) -> None:
        """The script."""
        pause = self._pauses()
        for item in self.script:
            if item is SILENCE:
                await self._still(ctx)
            else:
                for byte in item:
                    await put(ctx, self.dut.i, byte, pause())
        await self._still(ctx)
        assert not ctx.get(self.dut.o.valid)

    async def _still(self, ctx) -> None:
        """Wait until nothing has happened for longer than any timeout."""
        before = None
        while before != (before := (len(self.answers), len(self.ring.effects))):
            await ctx.delay((self.link.timeout + 300) * PERIOD)
        await ctx.tick()

    async def _receive(self, ctx) -> None:
        pause = self._pauses()
        while True:
            self.answers.append(await take(ctx, self.dut.o, pause()))
            self.errors.append(bool(ctx.get(self.dut.error)))

    async def _load(self, ctx) -> None:
        pause = self._pauses()
        while True:
            p = await take(ctx, self.dut.ring.load, pause())
            fields = (int(p[name]) for name in ("space", "unit", "address", "data", "last"))
            self.ring.effects.append(("load", *fields))

    async def _run(self, ctx) -> None:
        """``idle`` and the taking of runs, as the sequencer does."""
        ring, dut = self.ring, self.dut.ring
        pause = self._pauses()
        self._show_idle(ctx, ring.idle)
        while True:
            await rise(ctx, dut.run.valid)
            *_, valid, ready, run = await ctx.tick().sample(dut.run.valid, dut.run.ready, dut.run.payload)
            if valid and ready:
                ring.run(int(run.first), int(run["count"]), int(run.refresh))
                self._show_idle(ctx, run["count"] == 0)
                await ctx.tick().repeat(1 + min(pause(), 5))
                self._show_idle(ctx, ring.idle)

    def _show_idle(self, ctx, idle: bool) -> None:
        ctx.set(self.dut.ring.idle, idle)
        ctx.set(self.dut.ring.run.ready, idle)

    async def _frame(self, ctx) -> None:
        ring, port = self.ring, self.dut.ring.frame
        pause = self._pauses()
        while True:
            await rise(ctx, port.valid)
            await ctx.tick().repeat(1 + pause())
            if ring.taking:
                ctx.set(port.ready, 1)
                *_, valid, word = await ctx.tick().sample(port.valid, port.payload)
                ctx.set(port.ready, 0)
                if valid:
                    place = (int(word[name]) for name in ("y", "x", "group", "last"))
                    ring.frame(tuple(int(d) for d in word.deltas), *place)
                    if word.last:
                        self._show_idle(ctx, ring.idle)

    async def _read(self, ctx) -> None:
        dut, pause = self.dut.ring, self._pauses()
        while True:
            request = await take(ctx, dut.read, pause())
            assert self.ring.idle
            data = self.ring.read(int(request.space), int(request.unit), int(request.address))
            assert len(data) == read_bytes(self.ring.layouts, Space(int(request.space)))
            chunks = range(0, len(data), 4)
            for i in chunks:
                await put(ctx, dut.answer, {"data": int.from_bytes(data[i:i + 4], "little"),
                                            "last": i == chunks[-1]}, pause())

    async def _watch_reset(self, ctx) -> None:
        while True:
            await rise(ctx, self.dut.reset)
            *_, reset = await ctx.tick().sample(self.dut.reset)
            if reset:
                self.ring.reset()
                self._show_idle(ctx, True)
