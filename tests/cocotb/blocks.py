"""cocotb tests of the blocks, each alone, against NumPy; run by ``test_cocotb.py``."""

from __future__ import annotations

import cocotb
import numpy as np
from amaranth.hdl import signed
from amaranth.lib.data import ArrayLayout

from hw.layouts import Kind, Space
from hw.link.packets import ANSWER, HEADER, REQUEST, Status, packet
from hw.link.packets import pack as pack_fields
from hw.pe import COLUMN_LATENCY, BusLayouts, ProcessingElement
from hw.requant import Requantise
from hw.sweep import FLAGS
from hw.walker import Walker
from sim.arithmetic import rhe, threshold
from tests.cocotb.bench import SHY, Bench, Context, Sink, Source
from tests.cocotb.designs import BLOCK_CONFIG, PE_CONFIG
from tests.hw.bench import STALLS, fields, stalls, word
from tests.hw.test_pe_blocks import Pe
from tests.hw.test_scatter import Tables

COUNT = 60
SOURCES = ArrayLayout(signed(BLOCK_CONFIG.accumulator_bits), BLOCK_CONFIG.sweep)
"""S accumulators, as the nonlinear unit takes them."""


async def fresh(dut) -> Bench:
    bench = Bench(dut)
    await bench.reset()
    return bench


def well_behaved(bench: Bench) -> None:
    """Only the stream that is broken on purpose may be broken."""
    assert [name for name in bench.broken if not name.startswith("Rude")] == []


@cocotb.test()
@cocotb.parametrize(block=["queue1", "queue2", "queue5"], i_stall=STALLS, o_stall=SHY)
async def queue(dut, block, i_stall, o_stall):
    bench = await fresh(dut)
    values = np.random.default_rng(len(i_stall)).integers(0, 256, COUNT).tolist()
    source, sink = Source(dut, f"{block}__i", values, i_stall), Sink(dut, f"{block}__o", o_stall)
    bench.agents = [source, sink]
    await bench.until(lambda: len(sink.got) >= COUNT, 3000)
    assert sink.got == values
    if i_stall == o_stall == "none":
        assert (np.diff(sink.cycles) == 1).all(), "one in and one out per cycle"
    well_behaved(bench)


@cocotb.test()
@cocotb.parametrize(density=[0.1, 0.5, 1.0], i_stall=["none", "bursty"], o_stall=SHY)
async def leading_non_zero(dut, density, i_stall, o_stall):
    bench, rng, width = await fresh(dut), np.random.default_rng(int(10 * density)), 5
    masks = [int(m) or 1 << int(rng.integers(width))
             for m in ((rng.random((COUNT, width)) < density) << np.arange(width)).sum(axis=1)]
    whole = (rng.random(COUNT) < 0.2).astype(int).tolist()
    items = [m | w << width | (i % 64) << width + 1 for i, (m, w) in enumerate(zip(masks, whole, strict=True))]
    expected = [index | m << 3 | (i % 64) << width + 3 for i, (m, w) in enumerate(zip(masks, whole, strict=True))
                for index in [k for k in range(width) if m >> k & 1][:1 if w else None]]
    sink = Sink(dut, "lnzd__o", o_stall)
    bench.agents = [Source(dut, "lnzd__i", items, i_stall), sink]
    await bench.until(lambda: len(sink.got) >= len(expected), 6000)
    assert sink.got == expected
    if i_stall == o_stall == "none":
        assert (np.diff(sink.cycles) == 1).all(), "a gap between vectors"
    well_behaved(bench)


class BusWatch:
    """Lets the broadcast advance, or not, and notes it."""

    def __init__(self, dut, layouts: BusLayouts, stall: str, seed: int) -> None:
        self.dut, self.layouts, self.stall = dut, layouts, stalls(stall, np.random.default_rng(seed))
        self.columns, self.works, self.macs, self.broadcasts = [], [], 0, 0

    def drive(self) -> None:
        self.dut.bus__advance.value = int(not self.stall())

    def see(self) -> None:
        self.macs += int(self.dut.bus__macs.value)
        self.broadcasts += int(self.dut.bus__broadcast.value)
        if int(self.dut.bus__go.value):
            column = fields(self.layouts.column, int(self.dut.bus__column.value))
            if column["valid"]:
                self.columns.append((int(column["column"][0]), int(column["vector"][0])))
            work = fields(self.layouts.work, int(self.dut.bus__work.value))
            if work["valid"]:
                self.works.append((int(work["start"][0]), int(work["origin"][0]), work["deltas"][0].tolist()))


@cocotb.test()
@cocotb.parametrize(i_stall=STALLS, o_stall=STALLS)
async def expand_lnzd_scatter(dut, i_stall, o_stall):
    """Every delta reaches the bus once per edge that it feeds, with the right column, place and weights."""
    bench, rng = await fresh(dut), np.random.default_rng(11)
    tables = Tables(rng)
    words = [((rng.integers(-255, 256, 4) * (rng.random(4) < 0.6)).tolist(), *rng.integers(0, 8, 2).tolist(),
              int(rng.integers(4))) for _ in range(COUNT)]
    words = [w for w in words if any(w[0])]
    expected, macs, _ = tables.bus(words)
    lay = tables.lay

    class Port:
        """Stands for the block where Amaranth's port names are wanted."""

        load = type("Load", (), {k: type("Name", (), {"name": f"load__{k}"})
                                 for k in ("strobe", "space", "unit", "address", "data")})

    await tables.load(Context(bench, "bus"), Port)
    dut.bus__step.value = word(lay.step, {"edge": 0, "edges": 3})
    await bench.cycle()
    beats = [word(lay.delta_word, {"deltas": np.array([d]), "mask": sum(1 << i for i in range(4) if d[i]), "y": y,
                                   "x": x, "group": g}) for d, y, x, g in words]
    source, watch = Source(dut, "bus__i", beats, i_stall), BusWatch(dut, BusLayouts(lay), o_stall, 2)
    bench.agents = [source, watch]
    await bench.until(lambda: source.done and not int(dut.bus__busy.value), 6000)
    assert watch.columns == [e[:2] for e in expected]
    assert watch.works == [e[3:] for e in expected]
    assert (watch.macs, watch.broadcasts) == (macs, len(expected))
    well_behaved(bench)


class Broadcast:
    """Broadcasts to a PE as the scatter does, while a sweep steals slots; keeps what P must be."""

    def __init__(self, dut, pe: Pe, memory: np.ndarray, stall: str) -> None:
        self.dut, self.pe, self.memory = dut, pe, memory
        self.rng, self.bus = np.random.default_rng(3), BusLayouts(pe.lay)
        self.pause, self.steal = stalls(stall, self.rng), stalls(stall, self.rng)
        self.left, self.blocked = 120, 0
        self.pipe: list = [None] * (COLUMN_LATENCY + 1)

    def drive(self) -> None:
        new, out = self.pipe[0], self.pipe[-1]
        self.dut.pe__sweep.value = int(self.steal())
        self.dut.pe__column.value = 0 if new is None else 1 | new[0] << 1
        work = {"valid": 0}
        if out:
            work = {"valid": 1, "start": out[1], "origin": out[2], "deltas": out[3][None],
                    "walk": {"kind": int(Kind.CSC4 if out[0] % 2 else Kind.DENSE8), "last_block": 1,
                             "block_bits": 1, "codebook": 16}}
        self.dut.pe__work.value = word(self.bus.work, work)

    def see(self) -> None:
        if not int(self.dut.pe__advance.value):
            self.blocked += 1
            return
        if self.pipe[-1]:
            self.pe.apply(self.memory, *self.pipe[-1])
        new = None
        if self.left and not self.pause():
            new = (int(self.rng.integers(16)), int(self.rng.integers(16)), int(self.rng.integers(32)),
                   self.rng.integers(-255, 256, 2))
            self.left -= 1
        self.pipe = [new, *self.pipe[:-1]]


@cocotb.test()
@cocotb.parametrize(stall=STALLS)
async def processing_element(dut, stall):
    """Queue, walk and accumulators under broadcasts and sweeps; then every word of P."""
    bench, pe = await fresh(dut), Pe(PE_CONFIG, 5)
    await pe.load(Context(bench, "pe"))
    dut.pe__clear.value = 1 | 32 << 1 + pe.lay.projection_address
    await bench.cycle()
    dut.pe__clear.value = 0
    await bench.until(lambda: not int(dut.pe__clearing.value), 200)
    memory = np.zeros((32, 2), np.int64)
    agent = Broadcast(dut, pe, memory, stall)
    bench.agents = [agent]
    await bench.until(lambda: not agent.left and not any(agent.pipe), 4000)
    assert agent.blocked, "the queue was never full"
    bench.agents = []
    dut.pe__work.value = dut.pe__sweep.value = 0
    await bench.until(lambda: not int(dut.pe__busy.value), 2000)
    swept = []
    for a in range(32 + ProcessingElement.SWEEP_LATENCY):
        dut.pe__sweep.value, dut.pe__sweep_address.value = 1, (a - Walker.LATENCY) % 32
        if a >= ProcessingElement.SWEEP_LATENCY:
            swept.append(fields(pe.lay.accumulators, int(dut.pe__value.value))[0].tolist())
        await bench.cycle()
    assert swept == memory.tolist()
    well_behaved(bench)


class Beats:
    """Drives ``i_valid`` and further ports of a block without back-pressure, and collects its outputs."""

    def __init__(self, dut, beats: list[dict[str, int]], valid: str, stall: str, see) -> None:
        self.dut, self.beats, self.valid, self.look = dut, beats, valid, see
        self.stall, self.at = stalls(stall, np.random.default_rng(4)), 0

    def drive(self) -> None:
        on = self.at < len(self.beats) and not self.stall()
        getattr(self.dut, self.valid).value = int(on)
        if on:
            for port, value in self.beats[self.at].items():
                getattr(self.dut, port).value = value
            self.at += 1

    def see(self) -> None:
        self.look()


@cocotb.test()
@cocotb.parametrize(limit=[0, 3], mode=["hold", "truncate"], refresh=[0, 1], stall=["none", "bursty"])
async def delta_unit(dut, limit, mode, refresh, stall):
    """Deltas, positions, snapshots and counts by the threshold rule, of words in any order."""
    bench, rng = await fresh(dut), np.random.default_rng(limit)
    n, positions = 24, list(np.ndindex(3, 4, 2))                              # height 3, width 4, 2 groups
    order = rng.permutation(n).tolist()
    ref = rng.integers(-100, 156, (n, 4))
    x = np.where(rng.random((n, 4)) < 0.6, ref + rng.integers(-4, 5, (n, 4)).clip(-100 - ref, 155 - ref),
                 rng.integers(-100, 156, (n, 4)))
    x[5] = 0 if refresh else ref[5]
    before = np.zeros_like(ref) if refresh else ref
    sent, value = threshold(x, before, 1 if refresh else limit, mode)
    lay, words, writes, counts = Pe(BLOCK_CONFIG, 0).lay, [], {}, {"deltas": 0, "dropped": 0}
    dut.delta__step.value = word(lay.step, {"threshold": limit, "keep": 1, "truncate": int(mode == "truncate")})
    dut.delta__refresh.value = refresh
    dut.delta__o__ready.value = 1
    await bench.cycle()

    def see() -> None:
        if int(dut.delta__o__valid.value):
            f = fields(lay.delta_word, int(dut.delta__o__payload.value))
            words.append((*(int(f[k][0]) for k in ("y", "x", "group", "mask")), f["deltas"][0].tolist()))
        if int(dut.delta__write.value):
            data = fields(lay.codes, int(dut.delta__write_data.value))[0].tolist()
            writes[int(dut.delta__write_address.value)] = data
        for name in counts:
            counts[name] += int(getattr(dut, f"delta__{name}").value)

    targets = [word(lay.target_word, dict(zip(("y", "x", "group"), positions[at], strict=True)) | {"address": 9 + at})
               for at in order]
    steps = [{"delta__i": word(lay.codes, x[i:i + 1]), "delta__reference__payload": word(lay.codes, ref[i:i + 1]),
              "delta__target__payload": targets[i], "delta__reference__valid": 1, "delta__target__valid": 1}
             for i in range(n)]
    beats = Beats(dut, steps, "delta__i_valid", stall, see)
    bench.agents = [beats]
    await bench.until(lambda: beats.at == n, 500)
    lost = value - before - sent
    assert words == [(*positions[order[i]], int(((sent[i] != 0) << np.arange(4)).sum()), sent[i].tolist())
                     for i in range(n) if sent[i].any()]
    assert writes == {9 + order[i]: value[i].tolist() for i in range(n)}
    assert counts == {"deltas": int((sent != 0).sum()), "dropped": int((lost * lost).sum())}


@cocotb.test()
@cocotb.parametrize(stall=STALLS)
async def max_pool(dut, stall):
    bench, rng, lay = await fresh(dut), np.random.default_rng(5), Pe(BLOCK_CONFIG, 0).lay
    windows = [rng.integers(-256, 256, (int(rng.integers(1, 6)), 4)) for _ in range(COUNT)]
    inside = [np.arange(len(w)) == rng.integers(len(w)) for w in windows]
    inside = [mask | (rng.random(len(mask)) < 0.6) for mask in inside]
    steps = [{"maxpool__i": word(lay.codes, w[k:k + 1]),
              "maxpool__i_flags": word(FLAGS, {"window_first": int(k == 0), "window_last": int(k == len(w) - 1),
                                               "outside": int(not mask[k])})}
             for w, mask in zip(windows, inside, strict=True) for k in range(len(w))]
    got = []

    def see() -> None:
        if int(dut.maxpool__o_valid.value):
            got.append(fields(lay.codes, int(dut.maxpool__o.value))[0].tolist())

    beats = Beats(dut, steps, "maxpool__i_valid", stall, see)
    bench.agents = [beats]
    await bench.until(lambda: beats.at == len(steps), 3000)
    assert got == [w[m].max(axis=0).tolist() for w, m in zip(windows, inside, strict=True)]


@cocotb.test()
@cocotb.parametrize(seed=[0, 1])
async def requantise(dut, seed):
    """One operand: bias, multiplier of the sign, rounding half to even, clamp; halves and extremes among them."""
    bench, rng, lay = await fresh(dut), np.random.default_rng(seed), Pe(BLOCK_CONFIG, 0).lay
    rows, top = 32, 1 << 26
    bias, shift = rng.integers(-top, top, (rows, 4)), rng.integers(0, 40, (rows, 4))
    positive, negative = (rng.integers(-(1 << 23), 1 << 23, (rows, 4)) for _ in range(2))
    positive[::4], shift[::4] = 1 << 8, 12                                    # exact halves are frequent
    bias[::4] = 0
    a = rng.integers(-top, top, (rows, 4))
    a = np.where(rng.random((rows, 4)) < 0.2, rng.choice([-top, top - 1, 0], (rows, 4)), a)
    a[::4] = 8 * rng.integers(-400, 400, (rows // 4, 4))
    v = a + bias
    expected = rhe(np.where(v * positive >= 0, v * positive, v * negative), shift).clip(-120, 119)
    dut.requant__load__strobe.value, dut.requant__load__space.value = 1, int(Space.NODES)
    for r in range(rows):
        row = {"bias": bias[r:r + 1], "multiplier": positive[r:r + 1], "negative": negative[r:r + 1],
               "shift": shift[r:r + 1]}
        dut.requant__load__address.value, dut.requant__load__data.value = r, word(lay.node, row)
        await bench.cycle()
    dut.requant__load__strobe.value = 0
    dut.requant__step.value = word(lay.step, {"operands": [{}, {}], "lo": -120, "hi": 119})
    late, got = Requantise.TABLE_LATENCY, []
    for n in range(rows + 30):
        dut.requant__node.value = min(n, rows - 1)
        k = n - late                                                          # the operand follows its row
        dut.requant__i_valid.value = int(0 <= k < rows)
        if 0 <= k < rows:
            dut.requant__i_flags.value = word(FLAGS, {"first": 1, "last": 1})
            dut.requant__i.value = word(SOURCES, a[k:k + 1])
        await bench.cycle()
        if int(dut.requant__o_valid.value):
            got.append(fields(lay.codes, int(dut.requant__o.value))[0].tolist())
    assert got == expected.tolist()


class Shown:
    """Takes what the receiver shows: the payload of an OK packet through a stalling sink, then says done."""

    def __init__(self, dut, sink: Sink) -> None:
        self.dut, self.sink, self.packets = dut, sink, []
        self.showing = self.finish = False

    def drive(self) -> None:
        self.dut.receiver__done.value = int(self.finish)
        self.sink.drive()
        if not self.showing:
            self.sink.open = False
            self.dut.receiver__o__ready.value = 0

    def see(self) -> None:
        self.sink.see()
        valid, status = int(self.dut.receiver__valid.value), int(self.dut.receiver__status.value)
        if self.finish or not valid:
            self.showing = self.finish = False
            return
        self.showing = status == Status.OK
        header = int(self.dut.receiver__header.value) if self.showing else None
        if not self.showing or len(self.sink.got) >= header >> 32:
            self.packets.append((status, header, bytes(self.sink.got)))
            self.sink.got.clear()
            self.finish, self.showing = True, False


@cocotb.test()
@cocotb.parametrize(i_stall=STALLS, o_stall=SHY, damage=[False, True])
async def receiver(dut, i_stall, o_stall, damage):
    """Noise between packets, and some damaged ones: what is shown, in order."""
    bench, rng = await fresh(dut), np.random.default_rng(7)
    shown = Shown(dut, Sink(dut, "receiver__o", o_stall))
    for i in range(16):
        payload = rng.bytes(int(rng.integers(0, 20)))
        head = pack_fields(HEADER, code=i, sequence=i, session=0x77, length=len(payload))
        data = packet(REQUEST, payload, code=i, sequence=i, session=0x77)
        expected = (int(Status.OK), int.from_bytes(head, "little"), payload)
        if damage and i % 3 == 1:                                             # one bit wrong
            at = int(rng.integers(2, len(data)))
            data = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1:]
            expected = (int(Status.DAMAGED), None, b"")
        bench.agents = [Source(dut, "receiver__i", (b"\x00\xff" if i % 4 == 0 else b"") + data, i_stall, i), shown]
        await bench.until(lambda i=i: len(shown.packets) > i, 4000, idle=5)
        assert shown.packets[i:] == [expected]
    well_behaved(bench)


@cocotb.test()
@cocotb.parametrize(i_stall=STALLS, o_stall=SHY)
async def transmitter(dut, i_stall, o_stall):
    bench, rng = await fresh(dut), np.random.default_rng(8)
    for i in range(8):
        payload = rng.bytes(int(rng.integers(0, 24)))
        data = packet(ANSWER, payload, code=i, sequence=255 - i, session=0xABCD)
        source, sink = Source(dut, "transmitter__i", payload, i_stall, i), Sink(dut, "transmitter__o", o_stall, i)
        bench.agents = [source, sink]
        dut.transmitter__header.value = int.from_bytes(data[2:8], "little")
        dut.transmitter__start.value = 1
        await bench.cycle()
        dut.transmitter__start.value = 0
        await bench.until(lambda s=sink, d=data: len(s.got) >= len(d) and not int(dut.transmitter__busy.value), 2000)
        assert bytes(sink.got) == data
        assert source.done
    well_behaved(bench)


@cocotb.test()
@cocotb.parametrize(rudeness=["change", "retract"])
async def the_monitors_see_a_broken_stream(dut, rudeness):
    bench = await fresh(dut)
    await bench.cycles(3)
    assert bench.broken == []
    getattr(dut, f"rude__{rudeness}").value = 1
    await bench.cycles(3)
    getattr(dut, f"rude__{rudeness}").value = 0
    await bench.cycles(3)
    assert bench.broken == ["Rude.o"]
