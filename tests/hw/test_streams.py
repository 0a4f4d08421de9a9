"""Queue and LNZD: values, order, count, cycles, back-pressure."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.lnzd import LeadingNonZero
from hw.queue import Queue
from tests.hw.bench import STALLS, fields, receive, send, simulate, stalls, through, word


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("i_stall", STALLS)
@pytest.mark.parametrize("o_stall", STALLS)
def test_queue_keeps_order(depth, i_stall, o_stall):
    values = np.random.default_rng(depth).integers(0, 256, 80).tolist()
    got = through(Queue(unsigned(8), depth=depth), values, 80, i_stall=i_stall, o_stall=o_stall)
    assert [v for v, _ in got] == values
    if i_stall == o_stall == "none":
        cycles = np.diff([c for _, c in got])
        assert (cycles == 1).all(), "one in and one out per cycle"


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_queue_holds_its_depth(depth):
    dut, taken = Queue(unsigned(8), depth=depth), []

    async def fill(ctx):
        for value in range(depth + 3):
            ctx.set(dut.i.p, value)
            ctx.set(dut.i.valid, 1)
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            taken.append(ready)
        assert ctx.get(dut.level) == depth

    simulate(dut, fill)
    assert sum(taken) == depth


class LnzdWithQueue(wiring.Component):
    """A ``LeadingNonZero`` whose output anybody may hold: a queue knows a cycle ahead whether it has room."""

    def __init__(self, **options) -> None:
        self.lnzd = LeadingNonZero(**options)
        self.i_layout, self.o_layout = self.lnzd.i_layout, self.lnzd.o_layout
        super().__init__({"i": In(stream.Signature(self.i_layout)), "o": Out(stream.Signature(self.o_layout))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.lnzd, ready = self.lnzd, Signal()
        m.submodules.queue = queue = Queue(self.o_layout, depth=4)
        connect(m, flipped(self.i), self.lnzd.i)
        connect(m, queue.o, flipped(self.o))
        m.d.comb += [self.lnzd.ready_next.eq(queue.level <= 1), self.lnzd.o.ready.eq(ready),
                     queue.i.valid.eq(self.lnzd.o.valid & ready), queue.i.p.eq(self.lnzd.o.p)]
        m.d.sync += ready.eq(self.lnzd.ready_next)
        return m


@pytest.mark.parametrize("width", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("o_stall", STALLS)
def test_lnzd_gives_every_non_zero_once(width, density, o_stall):
    rng = np.random.default_rng(width)
    masks = [int(m) or 1 << int(rng.integers(width))
             for m in ((rng.random((40, width)) < density) << np.arange(width)).sum(axis=1)]
    whole = (rng.random(40) < 0.2).astype(int).tolist()
    dut = LnzdWithQueue(width=width, tag=unsigned(6))
    items = [word(dut.i_layout, {"mask": m, "whole": w, "tag": i})
             for i, (m, w) in enumerate(zip(masks, whole, strict=True))]
    expected = [(index, m, i) for i, (m, w) in enumerate(zip(masks, whole, strict=True))
                for index in [k for k in range(width) if m >> k & 1][:1 if w else None]]
    got = through(dut, items, len(expected), o_stall=o_stall)
    beats = [tuple(int(fields(dut.o_layout, v)[k][0]) for k in ("index", "mask", "tag")) for v, _ in got]
    assert beats == expected
    if o_stall == "none":
        assert got[-1][1] - got[0][1] == len(expected) - 1, "a gap between vectors"


def test_a_broken_stream_is_seen():
    """The monitor itself: a payload that changes under back-pressure is an error."""
    dut = Queue(unsigned(8), depth=2)

    async def source(ctx):
        await send(ctx, dut.i, [1, 2, 3], stalls("none", np.random.default_rng(0)))

    async def sink(ctx):
        got: list = []
        with pytest.raises(AssertionError, match="too many"):
            await receive(ctx, dut.o, 2, stalls("none", np.random.default_rng(0)), got, extra=5)

    simulate(dut, source, sink)
