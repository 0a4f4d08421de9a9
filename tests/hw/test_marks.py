"""Marks, the scan that looks through them, and the marker that sets them, against NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from hw.config import MARK_COLUMNS
from hw.layouts import Space
from hw.marker import Marker
from hw.marks import Marks
from hw.scan import Scan
from tests.hw.bench import STALLS, MarksModel, fields, load, raw, simulate, stalls, word
from tests.hw.test_nonlinear import config_of

WIDE = {"max_size": 127, "mark_words": 300, "reach_words": 16, "span_words": 1500}
CONFIG = config_of(2).with_(**WIDE)


def segments(width: int) -> int:
    """Words of marks in a row."""
    return -(-width // MARK_COLUMNS)


def as_words(marks: np.ndarray) -> np.ndarray:
    """bool[H, W] -> int64[H * segments]: the words of marks of a tensor."""
    height, width = marks.shape
    padded = np.zeros((height, segments(width) * MARK_COLUMNS), np.int64)
    padded[:, :width] = marks
    return (padded.reshape(-1, MARK_COLUMNS) << np.arange(MARK_COLUMNS)).sum(axis=1)


def random_marks(rng: np.random.Generator, shape: tuple[int, int], density: float | str) -> np.ndarray:
    """bool of a shape with a density, or one mark."""
    marks = rng.random(shape) < (0 if density == "one" else density)
    if density == "one":
        marks.flat[rng.integers(marks.size)] = True
    return marks


# Marks ----------------------------------------------------------------------------------------------
class Takes:
    """Random takes, none of a word that is just being cleared; ``memory`` is what the marks must hold.

    ``cycle`` comes before each tick; ``share`` of the cycles take.
    """

    def __init__(self, dut, rng: np.random.Generator, share: float) -> None:
        self.dut, self.rng, self.share = dut, rng, share
        self.memory, self.allowed = np.zeros(dut.config.mark_words, np.int64), np.arange(0)
        self._late: list[int | None] = [None] * Marks.TAKE_LATENCY
        self._before: list[int] = [-1] * Marks.TAKE_LATENCY

    def cycle(self, ctx, pause: bool = False) -> None:
        expected = self._late.pop(0)
        assert expected is None or ctx.get(self.dut.taken) == expected
        at, clear = int(self.rng.choice(self.allowed)), 0
        take = self.rng.random() < self.share and not pause and at not in self._before
        self._before = [*self._before[1:], at if take else -1]
        if take:
            self._late.append(int(self.memory[at]))
            clear = int(self.rng.random() < 0.5)
            self.memory[at] *= not clear
        else:
            self._late.append(None)
        for port, value in ((self.dut.take, take), (self.dut.take_address, at), (self.dut.take_clear, clear)):
            ctx.set(port, value)

    async def read_all(self, ctx) -> None:
        """Take all words one after the other: each as it must be, in each cycle one."""
        words, late = len(self.memory), Marks.TAKE_LATENCY
        for address in range(words + late):
            ctx.set(self.dut.take, address < words)
            ctx.set(self.dut.take_address, min(address, words - 1))
            ctx.set(self.dut.take_clear, 0)
            assert address < late or ctx.get(self.dut.taken) == self.memory[address - late]
            await ctx.tick()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("few", [1, 3, 40])
def test_marks_are_taken_and_set(share, few):
    """Takes in random cycles while ``few`` other words are set; a set per cycle, or every third into one word."""
    dut, rng = Marks(CONFIG), np.random.default_rng(few)
    takes, halves = Takes(dut, rng, share), np.split(rng.permutation(80), 2)

    async def body(ctx):
        for phase in range(10):                # in each, the words of one half may be taken, those of the other set
            takes.allowed, others = halves[phase % 2], halves[1 - phase % 2][:few]
            cycle, done = 0, []
            for n in range(30):
                at, mask = int(others[n % few]), int(rng.integers(1, 1 << MARK_COLUMNS, 2).prod() % (1 << 32))
                ctx.set(raw(dut.set.p), word(dut.layouts.mark_word, {"address": at, "mask": mask}))
                ctx.set(dut.set.valid, 1)
                taken = False
                while not taken:
                    takes.cycle(ctx)
                    taken, cycle = ctx.get(dut.set.ready), cycle + 1
                    await ctx.tick()
                takes.memory[at] |= mask
                done.append(cycle)
                ctx.set(dut.set.valid, 0)
            assert share or (np.diff(done) == (1 if few > 2 else 3)).all()
            for _ in range(3):
                takes.cycle(ctx, pause=True)
                await ctx.tick()
        await takes.read_all(ctx)

    simulate(dut, body)
    assert takes.memory.any()


@pytest.mark.parametrize("clear", [0, 1])
def test_takes_in_every_cycle_go_before_what_is_set(clear):
    """A word a cycle, as it was, wherever a set has come to when the takes begin; what is set then is not lost."""
    dut, rng = Marks(CONFIG), np.random.default_rng(3)
    masks, got = rng.integers(1, 1 << MARK_COLUMNS, 60).tolist(), []

    async def put(ctx, address, mask):
        ctx.set(raw(dut.set.p), word(dut.layouts.mark_word, {"address": address, "mask": mask}))
        ctx.set(dut.set.valid, 1)
        await ctx.tick().until(dut.set.ready)
        ctx.set(dut.set.valid, 0)

    async def body(ctx):
        for lead in range(4):                  # cycles between a set and the takes
            for address, mask in enumerate(masks):
                await put(ctx, address, mask)
            await ctx.tick().repeat(3)
            await put(ctx, 100, 1 << lead)
            for _ in range(lead):
                await ctx.tick()
            ctx.set(raw(dut.set.p), word(dut.layouts.mark_word, {"address": 101, "mask": 1 << lead}))
            ctx.set(dut.set.valid, 1)
            for cycle in range(62):
                ctx.set(dut.take, cycle < 60)
                ctx.set(dut.take_address, min(cycle, 59))
                ctx.set(dut.take_clear, clear)
                if cycle >= Marks.TAKE_LATENCY:
                    got.append(ctx.get(dut.taken))
                assert ctx.get(dut.set.valid & dut.set.ready) == (cycle == 60)
                await ctx.tick()
                ctx.set(dut.set.valid, cycle < 60)
        for address in (100, 101, 0):
            ctx.set(dut.take, 1)
            ctx.set(dut.take_address, address)
            await ctx.tick().repeat(2)
            got.append(ctx.get(dut.taken))

    simulate(dut, body)
    assert got == 4 * masks + [15, 15, 0 if clear else masks[0]]


# Scan -----------------------------------------------------------------------------------------------
def blocks_of(swept: np.ndarray, size: int, lines: int) -> list[tuple[int, ...]]:
    """(y, x, row, mask, left, above) of the blocks of a bool[H, W] that are not empty."""
    (height, width), rows = swept.shape, np.pad(swept, ((1, 0), (0, 0)))

    def bits(row: np.ndarray) -> int:
        return int((row << np.arange(len(row))).sum())

    found = [(y, x, y * width, bits(swept[y, x:x + size]), int(x > 0 and swept[y, x - 1]),
              bits(rows[y, x:x + size]) * (lines > 0)) for y in range(height) for x in range(0, width, size)]
    return [b for b in found if b[3]]


@dataclass
class ScanRun:
    """One sweep of a ``Scan``: (block, cycle) of each, and the first cycle without ``busy``; counted from ``start``."""

    got: list[tuple[int, int]]
    idle: int


async def scan(ctx, dut, memory: MarksModel, step: dict, refresh: bool, stall) -> ScanRun:
    """Run a sweep until ``busy`` falls, then watch that nothing more comes. The step is there at the start only."""
    ctx.set(raw(dut.step), word(dut.layouts.step, step))
    ctx.set(dut.refresh, refresh)
    ctx.set(dut.start, 1)
    memory.cycle(ctx)
    await ctx.tick()
    ctx.set(dut.start, 0)
    ctx.set(raw(dut.step), word(dut.layouts.step, {"height": 9, "width": 9, "skip": 1 - step["skip"]}))
    ctx.set(dut.refresh, not refresh)
    got, held, idle = [], None, 0
    for cycle in range(1, 20000):
        ready = not stall()
        ctx.set(dut.o.ready, ready)
        memory.cycle(ctx)
        valid, payload = ctx.get(dut.o.valid), ctx.get(raw(dut.o.p))
        assert held is None or (valid and payload == held), "a block changed before it was taken"
        held = payload if valid and not ready else None
        if valid and ready:
            assert not idle, "a block after the end"
            got.append((payload, cycle))
        if not ctx.get(dut.busy):
            assert not valid
            idle = idle or cycle
        if idle and cycle > idle + 20:
            return ScanRun(got, idle)
        await ctx.tick()
    raise AssertionError("the scan does not end")


@pytest.mark.parametrize("width", [1, 2, 3, 31, 32, 33, 63, 100])
@pytest.mark.parametrize("block,lines", [(1, 0), (1, 8), (4, 8), (16, 0), (16, 8)])
def test_scan_gives_every_pixel_once(width, block, lines):
    """Of marks at every density: all and only those (without ``skip`` and in a refresh: all), row by row."""
    dut, rng = Scan(config_of(block).with_(**WIDE, line_words=lines)), np.random.default_rng(width)
    memory = MarksModel(dut, rng, 300)

    async def body(ctx):
        for run, density in enumerate([0, "one", 0.02, 0.1, 0.5, 1, "one", 0.3]):
            for kind in ("skip", "refresh", "all"):
                height, base = int(rng.choice([1, 2, 3, 4, 7])), int(rng.integers(0, 200))
                marks, skip, stall = random_marks(rng, (height, width), density), kind != "all", STALLS[run % 3]
                count = height * segments(width)
                own = slice(base, base + count)
                memory.words[own] = as_words(marks)
                before, first = memory.words.copy(), len(memory.taken)
                step = {"height": height, "width": width, "skip": int(skip), "marks": base, "groups": 3}
                done = await scan(ctx, dut, memory, step, kind == "refresh", stalls(stall, rng))
                swept = marks if kind == "skip" else np.ones_like(marks)
                expected = blocks_of(swept, block, lines)
                found = [fields(dut.layouts.block, b) for b, _ in done.got]
                names = "y", "x", "row", "mask", "left", "above"
                assert [tuple(int(f[k][0]) for k in names) for f in found] == expected
                assert memory.taken[first:] == list(range(base, base + count))
                before[own] = 0 if skip else before[own]
                assert (memory.words == before).all()
                cycles = [cycle for _, cycle in done.got]
                if stall == "none" and kind != "skip":
                    assert cycles == list(range(Scan.LATENCY, Scan.LATENCY + len(expected))), "a gap between blocks"
                if stall == "none" and len(expected) == 1:                     # every other word cost a cycle
                    y, x = expected[0][:2]
                    assert cycles[0] == Scan.LATENCY + y * segments(width) + x // MARK_COLUMNS
                if stall == "none":
                    assert done.idle <= max(Scan.LATENCY + count, *cycles[-1:], 0) + 1

    simulate(dut, body)


def test_empty_words_cost_a_cycle_and_full_ones_one_per_block():
    """Words of marks, of which every third is full: the scan waits for whatever takes longer."""
    dut, rng = Scan(config_of(16).with_(**WIDE)), np.random.default_rng(1)
    memory, marks = MarksModel(dut, rng, 300), np.zeros((60, 96), bool)
    marks[:, 64:] = True
    memory.words[:180] = as_words(marks)

    async def body(ctx):
        step = {"height": 60, "width": 96, "skip": 1, "marks": 0}
        done = await scan(ctx, dut, memory, step, False, lambda: False)
        assert [c for _, c in done.got] == [Scan.LATENCY + 3 * y + 2 + i for y in range(60) for i in range(2)]
        assert not memory.words[:180].any()

    simulate(dut, body)


# Marker ---------------------------------------------------------------------------------------------
@dataclass
class Reaches:
    """Random tables of reaches from a source of a size. ``entries``: [(marks, segments, span_y, span_x)]; ``spans``
    int64[n, 2]; ``shapes`` of the targets."""

    entries: list[tuple[int, int, int, int]]
    spans: np.ndarray
    shapes: list[tuple[int, int]]

    @classmethod
    def random(cls, rng: np.random.Generator, source: tuple[int, int], count: int) -> Reaches:
        entries, spans, shapes, base, at = [], [], [], int(rng.integers(0, 5)), 0
        for _ in range(count):
            shape = int(rng.integers(1, 9)), int(rng.choice([1, 3, 31, 32, 33, 64, 65, 100]))
            y, x = (cls.axis(rng, n, size) for n, size in zip(source, shape, strict=True))
            entries.append((base, segments(shape[1]), at, at + len(y)))
            spans += [y, x]
            shapes.append(shape)
            at += len(y) + len(x)
            base += shape[0] * segments(shape[1])
        return cls(entries, np.concatenate(spans), shapes)

    @staticmethod
    def axis(rng: np.random.Generator, source: int, target: int) -> np.ndarray:
        """int64[source, 2]: spans about where a layer would have them, or anywhere; some of them empty."""
        first = np.arange(source) * target // source if rng.random() < 0.7 else rng.integers(0, target, source)
        last = np.minimum(first + rng.choice([0, 2, 5, 40, 90], source, p=[0.3, 0.3, 0.2, 0.1, 0.1]), target - 1)
        empty = rng.random(source) < 0.15
        return np.stack([np.where(empty, last + 1, first), np.where(empty, first, last)], axis=1)

    async def load(self, ctx, dut) -> None:
        lay = dut.layouts
        images = [(Space.REACHES, [word(lay.reach, dict(zip(("marks", "segments", "span_y", "span_x"), e, strict=True)))
                                   for e in self.entries]),
                  (Space.SPANS, [word(lay.span, {"first": int(a), "last": int(b)}) for a, b in self.spans])]
        await load(ctx, dut, images)

    def marks(self, pixels, number: int, count: int) -> np.ndarray:
        """int64[mark words]: what pixels must leave behind through these entries."""
        image = np.zeros(CONFIG.mark_words, np.int64)
        own = slice(number, number + count)
        for (base, _, span_y, span_x), shape in zip(self.entries[own], self.shapes[own], strict=True):
            marks = np.zeros(shape, bool)
            for y, x in pixels:
                (y0, y1), (x0, x1) = self.spans[span_y + y], self.spans[span_x + x]
                marks[y0:max(y0, y1 + 1), x0:max(x0, x1 + 1)] = True
            words = as_words(marks)
            image[base:base + len(words)] |= words
        return image


def pixels_of(rng: np.random.Generator, source: tuple[int, int], density: float | str, order: str):
    """(y, x) of the pixels with deltas: row by row; as the sweep has them (twice each, in blocks); in any order."""
    at = [(int(y), int(x)) for y, x in np.argwhere(random_marks(rng, source, density))]
    if order == "blocks":
        return sorted((p for p in at for _ in range(2)), key=lambda p: (p[0], p[1] // 4))
    return [at[i] for i in rng.permutation(len(at))] if order == "any" else at


async def mark(ctx, dut, step: tuple[int, int], pixels, stall) -> int:
    """A step with (reach, reaches) and these pixels with deltas, through a marker; the cycles from the first one until
    it is no longer busy."""
    ctx.set(raw(dut.step), word(dut.layouts.step, dict(zip(("reach", "reaches"), step, strict=True))))
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    ctx.set(dut.more, 1)
    await ctx.tick().repeat(5)
    cycles = 0
    for y, x in pixels:
        while stall() or not ctx.get(dut.ready):
            ctx.set(dut.strobe, 0)
            await ctx.tick()
            cycles += 1
        ctx.set(dut.strobe, 1)
        ctx.set(dut.y, y)
        ctx.set(dut.x, x)
        await ctx.tick()
        cycles += 1
    ctx.set(dut.strobe, 0)
    ctx.set(dut.more, 0)
    while ctx.get(dut.busy):
        await ctx.tick()
        cycles += 1
        assert cycles < 50000, "the marker stays busy"
    await ctx.tick()                           # the other processes have seen the last cycle
    return cycles


class Image:
    """Takes what a marker sets and keeps the image of the marks. Background process."""

    def __init__(self, dut, stall) -> None:
        self.dut, self.stall, self.words, self.sets = dut, stall, np.zeros(CONFIG.mark_words, np.int64), 0

    async def run(self, ctx) -> None:
        held = None
        while True:
            ready = not self.stall()
            ctx.set(self.dut.set.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(self.dut.set.valid, raw(self.dut.set.p))
            assert held is None or (valid and payload == held), "a mark word changed before it was taken"
            held = payload if valid and not ready else None
            if valid and ready:
                f = fields(self.dut.layouts.mark_word, payload)
                self.words[int(f["address"][0])] |= int(f["mask"][0])
                self.sets += 1


@pytest.mark.parametrize("source", [(1, 1), (4, 7), (3, 33), (2, 100)])
@pytest.mark.parametrize("i_stall", STALLS)
@pytest.mark.parametrize("o_stall", STALLS)
def test_marker_sets_what_is_reached(source, i_stall, o_stall):
    """Each pixel through every reach of its step and no other; spans over several words of marks, and empty ones."""
    dut, rng = Marker(CONFIG), np.random.default_rng(source[1])
    tables = Reaches.random(rng, source, 5)
    image = Image(dut, stalls(o_stall, rng))

    async def body(ctx):
        await tables.load(ctx, dut)
        for number, count, density, order in ((0, 5, 0.3, "rows"), (1, 3, "one", "rows"), (4, 1, 1, "blocks"),
                                              (2, 2, 0.5, "any"), (3, 1, 0, "rows"), (0, 1, 0.1, "blocks")):
            pixels = pixels_of(rng, source, density, order)
            image.words[:] = 0
            await mark(ctx, dut, (number, count), pixels, stalls(i_stall, rng))
            expected, sets = tables.marks(pixels, number, count), image.sets
            assert (image.words == expected).all()
            await ctx.tick().repeat(30)
            assert image.sets == sets, "a mark after the end"

    simulate(dut, body, background=[image.run])
    assert image.sets


@pytest.mark.parametrize("reaches,pixels,rows", [(1, 1, 1), (1, 32, 3), (2, 5, 1), (3, 8, 2), (2, 2, 6)])
def test_marker_takes_two_cycles_and_one_per_pixel(reaches, pixels, rows):
    """For every reach of a segment, and one for the segment; or one per row, where those are more."""
    dut, segment_rows = Marker(CONFIG), 40
    spans = np.array([[0, rows - 1]] * segment_rows + [[x, x] for x in range(32)])
    tables = Reaches([(10 * i, 1, 0, segment_rows) for i in range(reaches)], spans, [(rows, 32)] * reaches)
    image, at = Image(dut, lambda: False), [(y, x) for y in range(segment_rows) for x in range(pixels)]

    async def body(ctx):
        await tables.load(ctx, dut)
        cycles = await mark(ctx, dut, (0, reaches), at, lambda: False)
        work = segment_rows * max(reaches * (2 + pixels) + 1, reaches * (rows + 1))
        assert work <= cycles <= work + pixels + 12
        assert (image.words == tables.marks(at, 0, reaches)).all()

    simulate(dut, body, background=[image.run])


@pytest.mark.parametrize("refresh", [0, 1])
def test_marker_is_silent_in_a_refresh_and_without_reaches(refresh):
    dut, rng = Marker(CONFIG), np.random.default_rng(7)
    tables, image = Reaches.random(rng, (4, 40), 3), Image(dut, lambda: False)

    async def body(ctx):
        await tables.load(ctx, dut)
        ctx.set(dut.refresh, refresh)
        pixels = pixels_of(rng, (4, 40), 1, "rows")
        assert await mark(ctx, dut, (0, 3 if refresh else 0), pixels, lambda: False) == len(pixels)
        await ctx.tick().repeat(30)
        assert not ctx.get(dut.busy)

    simulate(dut, body, background=[image.run])
    assert not image.sets


class MarkerAndMarks(wiring.Component):
    """A marker that sets the marks, which are taken from outside."""

    def __init__(self) -> None:
        self.marker, self.marks = Marker(CONFIG), Marks(CONFIG)
        self.layouts = self.marker.layouts
        ours, theirs = self.marker.signature.members, self.marks.signature.members
        super().__init__({k: v for k, v in [*ours.items(), *theirs.items()] if k != "set"})

    def elaborate(self, platform):
        m = Module()
        m.submodules.marker, m.submodules.marks = self.marker, self.marks
        wiring.connect(m, self.marker.set, self.marks.set)
        wiring.connect(m, wiring.flipped(self.load), self.marker.load)
        for name in ("step", "refresh", "start", "strobe", "y", "x", "more"):
            m.d.comb += getattr(self.marker, name).eq(getattr(self, name))
        for name in ("take", "take_address", "take_clear"):
            m.d.comb += getattr(self.marks, name).eq(getattr(self, name))
        m.d.comb += [self.ready.eq(self.marker.ready), self.busy.eq(self.marker.busy), self.taken.eq(self.marks.taken)]
        return m


def test_marks_gather_what_the_marker_sets_until_they_are_taken():
    """Steps one after the other, while words of another tensor are taken; a take clears."""
    dut, rng = MarkerAndMarks(), np.random.default_rng(5)
    tables, expected = Reaches.random(rng, (4, 45), 4), np.zeros(CONFIG.mark_words, np.int64)
    free, got, finished = tables.entries[-1][0], [], []       # nothing reaches the tensor of the last entry

    async def takes(ctx):
        while not finished:
            ctx.set(dut.take, rng.random() < 0.3)
            ctx.set(dut.take_address, int(rng.integers(free, CONFIG.mark_words)))
            await ctx.tick()

    async def body(ctx):
        await tables.load(ctx, dut)
        for number, count in ((0, 2), (1, 2), (0, 3)):
            pixels = pixels_of(rng, (4, 45), 0.15, "blocks")
            await mark(ctx, dut, (number, count), pixels, stalls("random", rng))
            expected[:] |= tables.marks(pixels, number, count)
        finished.append(True)
        await ctx.tick().repeat(3)
        for clear in (1, 0):
            for address in range(CONFIG.mark_words + Marks.TAKE_LATENCY):
                ctx.set(dut.take, address < CONFIG.mark_words)
                ctx.set(dut.take_address, min(address, CONFIG.mark_words - 1))
                ctx.set(dut.take_clear, clear)
                if address >= Marks.TAKE_LATENCY:
                    got.append(ctx.get(dut.taken))
                await ctx.tick()

    simulate(dut, body, takes)
    assert expected.any()
    assert got == [*expected.tolist(), *(0 for _ in expected)]
