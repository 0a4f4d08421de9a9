"""Sweep, requantisation, max-pool and delta unit against NumPy and the rules of ``sim.arithmetic``."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from host.compiler.places import Place
from hw.config import AcceleratorConfig
from hw.delta import DeltaUnit
from hw.layouts import Space
from hw.maxpool import MaxPool
from hw.order import SweepOrder
from hw.requant import Requantise
from hw.sweep import FLAGS, Sweep, SweepSlot
from sim.arithmetic import threshold
from tests.hw.bench import MarksModel, fields, raw, receive, send, simulate, stalls, word

SMALL = dict(projection_words=512, snapshot_words=512, node_words=64, max_size=31, max_channels=32, step_words=4,
             weight_words=64, column_words=16, tap_words=16, codebook_words=32, max_blocks=8, axis_words=16,
             channel_words=4, edge_words=4, clear_words=4)

def config_of(groups: int) -> AcceleratorConfig:
    """S = 4 and so many sweep groups, which is the size of a block as well."""
    return AcceleratorConfig(pes=2 * groups, lanes=2, sweep=4, **SMALL)


CONFIG = config_of(2)


def place(projection: bool, shape, base: int, phase_bits: int, groups: int = 2) -> Place:
    c, _, w = shape
    if not projection:
        return Place(False, shape, base, w, -(-c // 4), 0, 0)
    return Place(True, shape, base, -(-w // (1 << phase_bits)), -(-c // (4 * groups >> phase_bits)), phase_bits,
                 groups.bit_length() - 1 - phase_bits)


def in_order(height: int, width: int, groups: int, block: int) -> list[tuple[int, int, int]]:
    """(y, x, group) of every word of a tensor: y, x div block, group, x mod block."""
    return sorted(np.ndindex(height, width, groups), key=lambda w: (w[0], w[1] // block, w[2], w[1] % block))


@pytest.mark.parametrize("groups", [1, 2, 3, 8])
@pytest.mark.parametrize("block", [1, 2, 4, 16])
@pytest.mark.parametrize("lines", [0, 64])
def test_sweep_order(groups, block, lines):
    """Every word of every block once, in order, whatever its pixels; without a gap when nothing stalls."""
    rng = np.random.default_rng(groups)
    blocks = np.stack([
        rng.integers(0, 32, 40), block * rng.integers(0, 31 // block + 1, 40), rng.integers(0, 1 << 10, 40),
        np.where(rng.random(40) < 0.3, (1 << block) - 1, rng.integers(1, 1 << block, 40)), rng.integers(0, 2, 40),
        rng.integers(0, 1 << block, 40) * (lines > 0)], axis=1).tolist()
    expected = [(y, x + i, g, row, (left | mask << 1) >> i & 1, above >> i & 1)
                for y, x, row, mask, left, above in blocks
                for g in range(groups) for i in range(block) if mask >> i & 1]
    for i_stall, o_stall in (("none", "none"), ("random", "none"), ("none", "bursty"), ("bursty", "random")):
        dut, got = SweepOrder(config_of(block).with_(line_words=lines)), []
        lay = dut.layouts
        names = "y", "x", "row", "mask", "left", "above"
        values = [word(lay.block, dict(zip(names, b, strict=True))) for b in blocks]

        async def source(ctx, dut=dut, values=values, i_stall=i_stall):
            ctx.set(dut.groups, groups)
            await send(ctx, dut.i, values, stalls(i_stall, rng))

        async def sink(ctx, dut=dut, got=got, o_stall=o_stall):
            await receive(ctx, dut.o, len(expected), stalls(o_stall, rng), got)

        simulate(dut, source, sink)
        found = [fields(lay.sweep_word, value) for value, _ in got]
        assert [tuple(int(f[k][0]) for k in ("y", "x", "group", "row", "left", "above")) for f in found] == expected
        if i_stall == o_stall == "none":
            assert (np.diff([cycle for _, cycle in got]) == 1).all(), "a gap between words"
            assert got[0][1] == SweepOrder.LATENCY


POOLS = {"none": ((1, 1), (1, 1), (0, 0), (1, 1), (0, 0)), "apart": ((3, 2), (2, 1), (1, 1), (1, 2), (0, 0)),
         "columns": ((2, 3), (1, 2), (1, 1), (2, 1), (0, 1)), "rows": ((2, 2), (1, 2), (0, 1), (1, 1), (1, 0)),
         "both": ((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))}
"""Kernel, stride, pad, dilation, and rows and columns of a window that are the next one's as well."""


@pytest.mark.parametrize("sources", ["p", "s", "pp", "ps", "ss"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("groups,phase_bits,marks", [(1, 0, "random"), (4, 0, "none"), (2, 1, "random"),
                                                     (2, 1, "refresh")])
def test_sweep_reads_every_operand_word_once_in_order(sources, pool, groups, phase_bits, marks):
    """Addresses by ``Place.addresses``; windows clipped to the image, without the columns that the window to the left
    had and the rows that the one above had; the reference once per word; one slot a cycle. With marks only the pixels
    that have one, except in a refresh; the marks are gone afterwards. They may be looked through early, but nothing is
    read before the start."""
    shape, rng = (6, 5, 7), np.random.default_rng(phase_bits)
    kernel, stride, pad, dilation, (shared_y, shared_x) = POOLS[pool]
    out = {"none": (5, 7), "apart": (3, 6), "columns": (5, 4), "rows": (4, 4), "both": (3, 4)}[pool]
    places = [place(s == "p", shape, 40 * i + 3, phase_bits, groups) for i, s in enumerate(sources)]
    dut = Sweep(config_of(groups).with_(line_words=8 if shared_y else 0))
    skip, base, marked = marks != "none", 5, rng.random(out) < (0.4, 0.7)[shared_y or shared_x]
    memory, base_words = MarksModel(dut, rng, 16), (marked << np.arange(out[1])).sum(axis=1)
    step = {"height": out[0], "width": out[1], "groups": 2, "node": 5, "keep": 1, "snapshot": 11,
            "two": len(sources) - 1, "skip": int(skip), "marks": base, "shared_y": shared_y,
            "shared_x": shared_x,
            "operands": [{"place": p.fields(), "height": 5, "width": 7} for p in places] + [{}] * (2 - len(places)),
            **{f"window_{n}": {"kernel": kernel[a], "stride": stride[a], "dilation": dilation[a], "pad": pad[a]}
               for a, n in enumerate("yx")}}
    swept = marked if marks == "random" else np.ones_like(marked)
    words = [w for w in in_order(*out, 2, groups) if swept[w[:2]]]
    expected, ends, own = [], [], sources[0] == "s"
    for y, x, g in words:
        reference = 11 + (y * out[1] + x) * 2 + g
        if own:
            expected.append(("reference", reference))
        left, above = int(shared_x and x and swept[y, x - 1]), int(shared_y and y and swept[y - 1, x])
        begin = shared_y * above, shared_x * left
        for ky, kx in np.ndindex(kernel):
            if ky < begin[0] or kx < begin[1]:
                continue
            sy, sx = y * stride[0] - pad[0] + ky * dilation[0], x * stride[1] - pad[1] + kx * dilation[1]
            inside = 0 <= sy < 5 and 0 <= sx < 7
            for i, p in enumerate(places):
                address, group = p.addresses(4)
                at = (int(address[sy, sx, g]), int(group[sy, sx, g]) if p.projection else 0) if inside else None
                window = (ky, kx) == begin, (ky, kx) == (kernel[0] - 1, kernel[1] - 1)
                expected.append((p.projection, at, i == 0, i == len(places) - 1, *window, left, above,
                                 kx >= kernel[1] - shared_x, ky >= kernel[0] - shared_y, 5 + g * len(places) + i,
                                 reference if (ky, kx, i) == (*begin, 0) and not own else None))
        ends.append((len(expected), y, x, g, reference, (x * 2 + g) * (dut.config.line_words > 0)))

    descriptor, other = (word(dut.layouts.step, f) for f in (step, {"height": 1, "groups": 1, "skip": 1, "node": 3}))

    async def body(ctx):
        ctx.set(dut.refresh, marks == "refresh")
        ctx.set(dut.enable, 1)
        for ahead in (1, 30):
            got, gaps, targets = [], [], []
            memory.words[base:base + out[0]] = base_words
            after = memory.words.copy()
            after[base:base + out[0] if skip else base] = 0
            for cycle in range(-ahead, len(expected) + 30):
                ctx.set(dut.scan, cycle == -ahead)
                ctx.set(raw(dut.ahead), descriptor if cycle == -ahead else other)
                ctx.set(raw(dut.step), descriptor if cycle >= 0 else other)
                ctx.set(dut.start, cycle == 0)
                memory.cycle(ctx)
                assert cycle > 0 or not ctx.get(dut.busy)
                if ctx.get(dut.valid):
                    gaps.append(cycle)
                    got.append(ctx.get(raw(dut.slot)))
                    if ctx.get(dut.ends):
                        target = fields(dut.layouts.target_word, ctx.get(raw(dut.target)))
                        targets.append((len(got), *(int(target[k][0]) for k in ("y", "x", "group", "address", "line"))))
                await ctx.tick()
            assert not ctx.get(dut.busy)
            check_slots([fields(SweepSlot(dut.layouts).layout, slot) for slot in got], expected)
            assert targets == ends
            assert (memory.words == after).all()
            if marks != "random":
                assert gaps == list(range(gaps[0], gaps[0] + len(expected)))
                assert gaps[0] == max(Sweep.FIRST_READ - ahead + Sweep.LATENCY, Sweep.TO_SLOT)

    simulate(dut, body)


def check_slots(got: list[dict], expected: list[tuple]) -> None:
    """The slots of a sweep; what a reference of its own or a tap outside leaves open may be anything."""
    assert len(got) == len(expected)
    for slot, want in zip(got, expected, strict=True):
        s = {k: int(v[0]) for k, v in slot.items() if k != "flags"}
        f = {k: int(v[0]) for k, v in slot["flags"].items()}
        if want[0] == "reference":
            assert (s["reference"], s["projection"], s["snapshot"], s["reference_address"]) == (1, 0, 0, want[1])
            assert f["last"] == 0
            continue
        projection, at, *flags, node, ref = want
        assert [f[k] for k in ("first", "last", "window_first", "window_last", "left", "above", "shared_x", "shared_y")
                ] == flags
        assert s["node"] == node
        assert f["outside"] == (at is None)
        assert (s["projection"], s["snapshot"]) == (projection and at is not None, not projection and at is not None)
        if at is not None:
            assert (s["address"], s["group"] if projection else 0) == at
        assert s["reference"] == (ref is not None)
        if ref is not None:
            assert s["reference_address"] == ref


def test_sweep_waits_for_room():
    """Without ``enable`` no word begins, but a begun one is finished."""
    dut, log = Sweep(CONFIG), []
    p = place(True, (4, 1, 6), 0, 0)
    step = {"height": 1, "width": 6, "groups": 1, "two": 1, "keep": 0, "window_y": {"kernel": 1, "stride": 1},
            "window_x": {"kernel": 1, "stride": 1}, "operands": [{"place": p.fields(), "height": 1, "width": 6}] * 2}

    async def body(ctx):
        rng = np.random.default_rng(3)
        for port in (dut.ahead, dut.step):
            ctx.set(raw(port), word(dut.layouts.step, step))
        for port in (dut.scan, dut.start):
            ctx.set(port, 1)
            await ctx.tick()
            ctx.set(port, 0)
        for _ in range(80):
            enable = rng.random() < 0.3
            ctx.set(dut.enable, enable)
            begun = ctx.get(dut.begun)
            assert enable or not begun
            log.append((begun, ctx.get(dut.valid)))
            await ctx.tick()

    simulate(dut, body)
    assert sum(b for b, _ in log) == 6
    assert sum(v for _, v in log) == 12


@pytest.mark.parametrize("early", [0, 1, 2, 3])
def test_sweep_waits_with_rows_that_are_not_early(early):
    """While deltas of the step before wait, rows from ``early`` on do not begin; then they do, without a gap."""
    dut, log, wait = Sweep(CONFIG), [], 40
    p = place(True, (4, 3, 2), 0, 0)
    step = {"height": 3, "width": 2, "groups": 1, "early": early, "window_y": {"kernel": 1, "stride": 1},
            "window_x": {"kernel": 1, "stride": 1}, "operands": [{"place": p.fields(), "height": 3, "width": 2}, {}]}

    async def body(ctx):
        for port in (dut.ahead, dut.step):
            ctx.set(raw(port), word(dut.layouts.step, step))
        ctx.set(dut.enable, 1)
        for cycle in range(-10, 70):
            ctx.set(dut.scan, cycle == -10)
            ctx.set(dut.start, cycle == 0)
            ctx.set(dut.pending, cycle < wait)
            if ctx.get(dut.valid):
                log.append((ctx.get(dut.target.y), cycle))
            assert not ctx.get(dut.stalled)
            await ctx.tick()
        assert not ctx.get(dut.busy)

    simulate(dut, body)
    assert [y for y, _ in log] == [0, 0, 1, 1, 2, 2]
    begin = [*range(Sweep.TO_SLOT, Sweep.TO_SLOT + 2 * early), *range(wait - 1 + Sweep.TO_SLOT, wait + 12)][:6]
    assert [cycle for _, cycle in log] == begin


def rhe(t: int, shift: int) -> int:
    return round(Fraction(t, 1 << shift))          # Python rounds exact halves to even


@pytest.mark.parametrize("two", [0, 1])
@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("accumulator_bits", [27, 12])
def test_requantise_is_the_integer_semantics(two, sign, accumulator_bits):
    """Written out with Python's big integers; extremes, exact halves and every shift among them."""
    config = AcceleratorConfig(pes=4, lanes=1, sweep=4, accumulator_bits=accumulator_bits, **SMALL)
    dut, rng = Requantise(config), np.random.default_rng(two + 2 * sign)
    rows, branch, top = 32, (1, 0) if two else (sign, 0), 1 << accumulator_bits - 1
    lo, hi, codes = -100, 90, [(-128, 127), (-5, 9)]

    def table(bits, shift_top):
        multiplier = rng.integers(-(1 << bits), 1 << bits, (rows, 4))
        kind = rng.integers(0, 3, (rows, 4))
        any_slope = rng.integers(-(1 << bits), 1 << bits, (rows, 4))
        negative = np.choose(kind, [np.zeros_like(multiplier), multiplier, any_slope])
        if two:
            negative = np.where(kind == 2, multiplier, negative)
        return {"bias": rng.integers(-top, top, (rows, 4)), "multiplier": multiplier, "negative": negative,
                "branch": rng.integers(-(1 << 23), 1 << 23, (rows, 4)), "branch_shift": rng.integers(0, 64, (rows, 4)),
                "shift": rng.integers(0, shift_top, (rows, 4)), "kind": kind}

    tables = [table(23, 64), table(23, 64)]
    for k in ("kind", "shift"):
        tables[1][k] = tables[0][k]
    for i in (0, 1):
        if two:
            t = tables[i]
            t["negative"] = np.where(tables[0]["kind"] == 0, 0, t["multiplier"])
    a = rng.choice([-top, top - 1, 0, 1, -1, 7], (2, rows, 4))
    a = np.where(rng.random(a.shape) < 0.7, rng.integers(-top, top, a.shape), a)

    def expected(r, lane):
        positive = negative = 0
        for i in range(two + 1):
            t = {k: int(v[r, lane]) for k, v in tables[i].items()}
            v = int(a[i, r, lane]) + t["bias"]
            if branch[i]:
                v = min(max(rhe(v * t["branch"], t["branch_shift"]), codes[i][0]), codes[i][1])
            positive += v * t["multiplier"]
            negative += v * t["negative"]
        if sign:
            return (positive > 0) - (positive < 0)
        return min(max(rhe(positive if positive >= 0 else negative, int(tables[0]["shift"][r, lane])), lo), hi)

    slots = [(r, i) for r in range(rows) for i in range(two + 1)]
    got = []

    async def body(ctx):
        for n, (r, i) in enumerate(slots):
            entry = {k: v[r:r + 1] for k, v in tables[i].items() if k != "kind"}
            if sign:
                entry["negative"] = entry["multiplier"]
            entry["rectify"] = (np.all([t["negative"][r:r + 1] == 0 for t in tables[:two + 1]], axis=0)
                                & (not sign)).astype(int)
            ctx.set(dut.load.strobe, 1)
            ctx.set(dut.load.space, int(Space.NODES))
            ctx.set(dut.load.address, n)
            ctx.set(dut.load.data, word(dut.layouts.node, entry))
            await ctx.tick()
        ctx.set(dut.load.strobe, 0)
        operands = [{"branch": branch[i], "lo": codes[i][0], "hi": codes[i][1]} for i in (0, 1)]
        ctx.set(raw(dut.step), word(dut.layouts.step, {"operands": operands, "two": two, "sign": sign, "lo": lo,
                                                       "hi": hi}))
        for n in range(len(slots) + 20):
            ctx.set(dut.node, min(n, 63))
            k = n - dut.TABLE_LATENCY
            ctx.set(dut.i_valid, 0 <= k < len(slots))
            if 0 <= k < len(slots):
                r, i = slots[k]
                ctx.set(raw(dut.i_flags), word(FLAGS, {"first": int(i == 0), "last": int(i == two), "second": i}))
                for lane in range(4):
                    ctx.set(dut.i[lane], int(a[i, r, lane]))
            if ctx.get(dut.o_valid):
                got.append([ctx.get(dut.o[lane]) for lane in range(4)])
            await ctx.tick()

    simulate(dut, body)
    assert got == [[expected(r, lane) for lane in range(4)] for r in range(rows)]


@pytest.mark.parametrize("lines", [0, 3])
def test_max_pool_takes_the_window_and_leaves_out_the_outside(lines):
    """And takes in, where it is told so, what the last window of the same channel group has shared, and that of the
    same line word; what it has from one of them it shares with the other side in turn."""
    dut, rng = MaxPool(CONFIG.with_(line_words=lines)), np.random.default_rng(5)
    windows = [rng.integers(-256, 256, (int(rng.integers(1, 6)), 4)) for _ in range(80)]
    inside, shared_x, shared_y = ([rng.random(len(w)) < p for w in windows] for p in (0.7, 0.4, 0.4))
    group, line = (rng.integers(0, n, len(windows)).tolist() for n in (3, max(1, lines)))
    left, above = ((rng.random(len(windows)) < 0.5).tolist() for _ in range(2))
    nothing, lefts, rows, expected, got = np.full(4, -256), {}, {}, [], []
    for n, (w, mask) in enumerate(zip(windows, inside, strict=True)):
        mask[int(rng.integers(len(mask)))] = True
        left[n] &= group[n] in lefts
        above[n] &= lines > 0 and line[n] in rows and len(w) > 1
        beats, x, y = np.where(mask[:, None], w, -256), shared_x[n], shared_y[n]
        columns, corner = lefts[group[n]] if left[n] else (nothing, nothing)
        row, above_corner = rows[line[n]] if above[n] else (nothing, nothing)
        expected.append(np.vstack([beats, columns, row]).max(axis=0).tolist())
        corner_now = np.vstack([beats[x & y], nothing]).max(axis=0)
        lefts[group[n]] = np.vstack([beats[x], above_corner, nothing]).max(axis=0), corner_now
        rows[line[n]] = np.vstack([beats[y], corner, nothing]).max(axis=0), corner_now

    async def body(ctx):
        for n, w in enumerate(windows):
            for k in range(len(w)):
                ctx.set(dut.i_valid, 1)
                ctx.set(dut.i_group, group[n])
                if lines:
                    ctx.set(dut.i_line, line[n])
                ctx.set(raw(dut.i_flags), word(FLAGS, {
                    "window_first": int(k == 0), "window_last": int(k == len(w) - 1), "left": int(left[n]),
                    "above": int(above[n]), "outside": int(not inside[n][k]), "shared_x": int(shared_x[n][k]),
                    "shared_y": int(shared_y[n][k])}))
                for lane in range(4):
                    ctx.set(dut.i[lane], int(w[k, lane]))
                await ctx.tick()
                if ctx.get(dut.o_valid):
                    got.append([ctx.get(dut.o[lane]) for lane in range(4)])
                if rng.random() < 0.3:
                    ctx.set(dut.i_valid, 0)
                    await ctx.tick()
                    assert not ctx.get(dut.o_valid)

    simulate(dut, body)
    assert got == expected


@pytest.mark.parametrize("limit", [0, 1, 3, 300])
@pytest.mark.parametrize("mode", ["hold", "truncate"])
@pytest.mark.parametrize("direct", [0, 1])
@pytest.mark.parametrize("refresh", [0, 1])
@pytest.mark.parametrize("stall", ["none", "random"])
def test_delta_unit_is_the_threshold_rule(limit, mode, direct, refresh, stall):
    """Words of any pixels in any order; hold loses nothing, so only ``truncate`` counts what it dropped."""
    rng, shape = np.random.default_rng(limit), (2, 3, 2)                       # height, width, groups
    positions = [tuple(map(int, p)) for p in rng.permutation(list(np.ndindex(shape)))]
    ref = rng.integers(-100, 156, (12, 4))
    x = np.where(rng.random((12, 4)) < 0.5, ref, rng.integers(-100, 156, (12, 4)))
    x[4] = ref[4] if not refresh else 0
    before = np.zeros_like(ref) if refresh else ref
    sent, value = threshold(x, before, 1 if refresh else limit, mode)
    out = value if direct else sent
    dut, words, writes, counts = DeltaUnit(CONFIG), [], {}, {"deltas": 0, "dropped": 0, "done": 0}
    addresses = [7 + int(np.ravel_multi_index(p, shape)) for p in positions]
    targets = [word(dut.layouts.target_word, dict(zip(("y", "x", "group"), p, strict=True)) | {"address": a})
               for p, a in zip(positions, addresses, strict=True)]

    async def body(ctx):
        step = {"threshold": limit, "truncate": int(mode == "truncate"), "direct": direct, "keep": 1}
        ctx.set(raw(dut.step), word(dut.layouts.step, step))
        ctx.set(dut.refresh, refresh)
        await ctx.tick()
        stall_now, n, taken = stalls(stall, rng), 0, 0
        for _ in range(40):
            busy = n < 12 and not stall_now()
            ctx.set(dut.i_valid, busy)
            ctx.set(dut.target.valid, n < 12)
            ctx.set(dut.reference.valid, n < 12)
            if n < 12:
                ctx.set(raw(dut.target.p), targets[n])
                for lane in range(4):
                    ctx.set(dut.i[lane], int(x[n, lane]))
                    ctx.set(dut.reference.p[lane], int(ref[n, lane]))
            taken += ctx.get(dut.target.ready)
            if ctx.get(dut.o.valid):
                f = fields(dut.layouts.delta_word, ctx.get(raw(dut.o.p)))
                words.append((int(f["y"][0]), int(f["x"][0]), int(f["group"][0]), int(f["mask"][0]),
                              f["deltas"][0].tolist()))
            if ctx.get(dut.write):
                writes[ctx.get(dut.write_address)] = [ctx.get(dut.write_data[lane]) for lane in range(4)]
            for name in counts:
                counts[name] += ctx.get(getattr(dut, name))
            n += busy
            await ctx.tick()
        assert taken == 12

    simulate(dut, body)
    assert words == [(*positions[n], int(((out[n] != 0) << np.arange(4)).sum()), out[n].tolist())
                     for n in range(12) if out[n].any()]
    assert writes == {addresses[n]: value[n].tolist() for n in range(12)}
    lost = value - before - sent
    assert counts == {"deltas": int((sent != 0).sum()), "dropped": int((lost * lost).sum()), "done": 12}
