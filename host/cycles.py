"""The cycle model: how many cycles the ring needs for each step of a frame, from what changed in it.

It follows the ring's recurrences (docs/architecture.md) rather than its gates. Per step, with every time counted from
the first cycle in which the sweep may read::

    sweep      begin[w]  = max(begin[w-1] + reads, its marks are read, room in the FIFO)   of word w in sweep order
    broadcast  t[b]      = max(t[b-1] + 1, word's arrival, room in every queue that takes b)
    PE p       start[b]  = max(t[b] + 2, end[b-1]);  end[b] = start[b] + words of b in p + stolen slots
    room       t[b]     >  start of the entry that came ``queue_depth + 1`` entries before b into the same queue

and the step is over when the last of sweep, marks, walks and clears is, plus the barrier; of the walks as much does not
count as the next step's way to its first walk takes, where that begins with rows which they do not reach. The deltas of
a frame are taken to come without a gap. All of it is exact but for averages: the slots that the sweep takes from a PE
are spread evenly over the sweep, and gaps in the stream of broadcasts stay as they are while a full queue holds it.
Steps whose later rows have to wait for the walks of the step before are solved once more, with the times found first.

The recurrences are solved for ``queue_depth`` broadcasts at a time (their room depends on earlier ones alone), for all
PEs that differ and all steps at once, so a frame costs milliseconds per million MACs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from host.compiler import Program
from hw.accumulators import Accumulators
from hw.config import MARK_COLUMNS
from hw.delta import DeltaUnit
from hw.expand import Expand
from hw.layouts import Kind, Space, StepKind, unpack
from hw.pe import COLUMN_LATENCY, ProcessingElement
from hw.queue import Queue
from hw.requant import Requantise
from hw.sweep import Sweep
from hw.walker import Walker
from sim.arithmetic import lossy
from sim.golden import FrameResult, GoldenModel

TO_DELTA = Sweep.LATENCY + ProcessingElement.SWEEP_LATENCY + 2 + Requantise.LATENCY + 1 + DeltaUnit.LATENCY
"""Cycles from a sweep word's last read to the delta unit's answer (2: P to the nonlinear unit; 1: max-pool)."""
EXPAND, LNZD, SCATTER = Expand.LATENCY, 1, 3 + COLUMN_LATENCY
"""Latencies of the blocks between FIFO and queues."""
TO_QUEUE = EXPAND + LNZD + SCATTER
"""Cycles from the FIFO's output to a queue's input."""
TO_WALK = 2
"""Cycles from a queue's input to the first weight word, when both are empty."""
AFTER_WALK = Walker.LATENCY + Accumulators.LATENCY
"""Cycles after the last weight word in which a PE still counts as busy; only the last step waits for them."""
BARRIER = 3
"""Cycles of the sequencer per step: start, and two behind the last thing that the next step waits for."""
ENDING = ProcessingElement.ENDING
"""Weight words of a PE for which the next step does not wait."""
HEAD = TO_DELTA + Queue.LATENCY + TO_QUEUE + TO_WALK + BARRIER
"""Cycles from the start of a sweep step to its first weight word. The walks of the step before may last so long where
the late ones of its rows do not reach the first ones that are swept."""
GATE = 1
"""Cycles from the last of these walks to the first read of later rows, less those from one step to the next."""
SHORTEST = 3
"""Cycles, beside those, that a step takes at least."""
SCAN = Sweep.FIRST_READ - 2
"""Cycles in which a sweep reads marks before its first word, where the step before left no time for that, because it
broadcast nothing."""
LATENCY = TO_DELTA + Queue.LATENCY + TO_QUEUE + TO_WALK + BARRIER
"""Cycles that a step takes beyond its work: the way through all blocks, and the barrier."""
REACH, AFTER_MARKS = 2, 8
"""Cycles of the marker per reach beyond one for each pixel, and behind the last one."""
CLEAR = 2
"""Cycles in which the sequencer looks at a clear."""
SEGMENT = 32
"""Most broadcasts that are solved at a time."""
NEVER = -1e18


@dataclass(frozen=True)
class Changes:
    """What one frame made of every tensor, as masks bool[C, H, W] by name.

    sent
        elements whose change was sent (what delta edges are fed with).
    nonzero
        elements that are not zero afterwards (what direct edges are fed with).
    lossy
        tensors whose snapshots may change without being sent (truncate).
    """

    refresh: bool
    sent: Mapping[str, np.ndarray]
    nonzero: Mapping[str, np.ndarray]
    lossy: frozenset[str] = frozenset()


def observed_frame(model: GoldenModel, codes: np.ndarray, refresh: bool = False) -> tuple[FrameResult, Changes]:
    """``model.frame(codes, refresh)``, and what changed in it."""
    before = {name: value.copy() for name, value in model.snapshots.items()}
    result = model.frame(codes, refresh)
    sent, nonzero = {}, {}
    for name, value in model.snapshots.items():
        nonzero[name] = value != 0
        limit = 1 if result.refresh else max(model.thresholds[name], 1)
        sent[name] = nonzero[name] if result.refresh else np.abs(value - before[name]) >= limit
    return result, Changes(result.refresh, sent, nonzero, lossy(model.thresholds, model.modes))


@dataclass(frozen=True)
class FrameCycles:
    """What a frame is predicted to cost, int64[steps] each, in the order of ``program.steps``.

    steps
        cycles.
    broadcast_stalls
        cycles in which a full queue held the broadcast.
    broadcasts
        deltas, or vectors of them, that are broadcast.
    words
        weight words walked, all PEs together. ``words / (pes * steps)`` is the load balance.
    walk
        weight words of the PE that walks most; ``words / (pes * walk)`` is how well the weights are shared out.
    sweep
        cycles in which the sweep reads.
    """

    steps: np.ndarray
    broadcast_stalls: np.ndarray
    broadcasts: np.ndarray
    words: np.ndarray
    walk: np.ndarray
    sweep: np.ndarray

    @property
    def total(self) -> int:
        return int(self.steps.sum())


class CycleModel:
    """Predicts the cycles of a compiled program. What does not depend on a frame is worked out once.

    ``frame`` takes about 3 us per broadcast of the longest step (a large network takes tenths of a second).
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        tables = _Tables(program)
        self._plans = [_Plan(program, number, tables) for number in range(len(program.steps))]

    def frame(self, changes: Changes) -> FrameCycles:
        """Cycles of every step of one frame."""
        return self.frames([changes])[0]

    def frames(self, changes: Iterable[Changes]) -> list[FrameCycles]:
        """Cycles of several frames, solved together (which is faster than one by one)."""
        work = [self._work(c) for c in changes]
        _solve([w for frame in work for w in frame])
        again = [own for frame in work for before, own in pairwise(frame) if own.wait(before)]
        _solve(again)
        return [FrameCycles(*(np.array([getattr(w, name) for w in frame], np.int64)
                              for name in ("cycles", "stalls", "count", "words", "walk", "sweep"))) for frame in work]

    def estimate(self, changes: Changes) -> int:
        """Cycles of a frame when nothing but the busiest part of a step counted: walk, broadcast or sweep, and
        ``LATENCY``. Several times as fast as ``frame``, and good enough to compare two frames."""
        work = self._work(changes)
        return sum(max(w.walk, w.count, w.sweep) + LATENCY for w in work)

    def limits(self, changes: Changes) -> dict[str, np.ndarray]:
        """The load balance of every step, float[steps], were one thing alone in the way:

        weights
            the PE with most words (endless queues);
        broadcast
            one delta a cycle;
        sweep
            the reads of the sweep.
        """
        work = self._work(changes)
        words = np.array([float(w.words) for w in work]) / self.program.config.pes
        cycles = {"weights": [(w.columns @ w.plan.table).max() for w in work], "broadcast": [w.count for w in work],
                  "sweep": [w.sweep for w in work]}
        return {name: np.minimum(1.0, words / np.maximum(1, c)) for name, c in cycles.items()}

    def _work(self, changes: Changes) -> list[_Work]:
        """The steps of a frame."""
        swept = swept_pixels(self.program, changes)
        work = [plan.work(changes, pixels) for plan, pixels in zip(self._plans, swept, strict=True)]
        for before, own in pairwise(work):
            before.early = own.plan.step.fields.get("early", 0) > 0
            own.begun = SCAN if own.from_sweep and not before.count else 0
        work[-1].last = True
        return work


def swept_pixels(program: Program, changes: Changes) -> list[np.ndarray | None]:
    """Of every step, bool[H, W]: the pixels that it sweeps; None for all of them."""
    found: list[np.ndarray | None] = [
        np.zeros(program.graph.shape_of(s.tensor)[1:], bool)
        if s.skips(changes.lossy) and not changes.refresh else None
        for s in program.steps]
    for step in program.steps:
        for reach in step.reaches:
            marks = found[reach.step]
            if marks is not None:
                marks |= reach.of(changes.sent[step.tensor].any(axis=0), marks.shape)
    return found


class _Tables:
    """The program's images as the ring reads them."""

    def __init__(self, program: Program) -> None:
        lay, images = program.layouts, program.images
        self.count = np.stack([unpack(lay.column, image)["count"] for image in images[Space.COLUMNS]], axis=1)
        self.axis_y, self.axis_x = (unpack(lay.axis, images[s][0]) for s in (Space.AXIS_Y, Space.AXIS_X))
        self.channels = unpack(lay.channels, images[Space.CHANNELS][0])


class _Feed:
    """One edge of a step: which elements of its source become broadcasts, and of which columns.

    ``table`` int[columns, pes] are the weight words of each column in each PE.
    """

    def __init__(self, program: Program, number: int, tables: _Tables) -> None:
        lowered, config = program.lowered[number], program.config
        edge, own = lowered.edge, lowered.descriptor
        shape = program.graph.tensors[edge.source].shape
        y, x = ({k: t[k][own[a]:own[a] + n] for k in ("column", "taps")}
                for t, a, n in ((tables.axis_y, "axis_y", shape[1]), (tables.axis_x, "axis_x", shape[2])))
        self.vector, self.channels, sweep = lowered.vector, np.asarray(edge.channels), config.sweep
        self.inside = ((y["taps"] != 0)[:, None] & (x["taps"] != 0)).reshape(-1)
        column = (y["column"][:, None] + x["column"]).reshape(-1)
        groups = -(-shape[0] // sweep)
        per_class = np.arange(groups if self.vector else len(edge.channels))
        if self.vector:
            first = tables.channels["first"][own["channels"]:own["channels"] + groups]
            per_class, in_phase = first >> own["group_bits"], (1 << own["group_bits"]) - 1
            of_pe = np.arange(config.pes) // config.group_pes
            reached = ((first[:, None] ^ of_pe) & in_phase) == 0                       # [group, pe]
        if lowered.kind == Kind.DENSE8:
            per_class = np.zeros_like(per_class)
        # Only columns that some pixel uses; number them from 0 as (pixel class, channel or group).
        classes, self.of_pixel = np.unique(column[self.inside], return_inverse=True) if self.inside.any() else (
            np.zeros(1, np.int64), np.zeros(0, np.int64))
        of_pixel = np.zeros(column.shape, np.int64)
        of_pixel[self.inside] = self.of_pixel
        distinct, rank = np.unique(per_class, return_inverse=True)
        if self.vector:
            distinct, rank = per_class, np.arange(groups)
        self.of_pixel, self.of_channel = of_pixel * len(distinct), rank
        self.table = tables.count[own["column"] + classes[:, None] + distinct]         # [class, distinct, pe]
        if self.vector:
            self.table = np.where(reached, self.table, 0)
        self.table = self.table.reshape(-1, config.pes)
        self.group = np.arange(groups) if self.vector else self.channels // sweep
        self.groups, self.sweep = groups, sweep

    def broadcasts(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(column, sweep word) int64[n] of a mask's broadcasts, in the order of the sweep."""
        fed = mask[self.channels].reshape(len(self.channels), -1).T & self.inside[:, None]
        if self.vector:
            grouped = np.zeros((len(fed), self.groups), bool)
            for k, group in enumerate(self.channels // self.sweep):
                grouped[:, group] |= fed[:, k]
            fed = grouped
        pixel, k = np.divmod(np.flatnonzero(fed), fed.shape[1])
        return self.of_pixel[pixel] + self.of_channel[k], pixel * self.groups + self.group[k]


class _Plan:
    """What a step costs apart from its broadcasts."""

    def __init__(self, program: Program, number: int, tables: _Tables) -> None:
        step, config, fields = program.steps[number], program.config, program.steps[number].fields
        self.step, self.config, self.sweep = step, config, config.sweep
        self.feeds = [_Feed(program, e, tables) for e in step.edges]
        clears = unpack(program.layouts.clear, program.images[Space.CLEARS][0])
        own = slice(fields["clear"], fields["clear"] + fields["clears"])
        self.clears = clears["count"][own], clears["always"][own]
        self.words, self.reads, self.stolen = 0, 1, np.zeros(config.pes)
        self.place = program.places.get(step.tensor)
        if step.tensor is not None:
            self._order(*program.graph.tensors[step.tensor].shape)
        if step.kind == StepKind.SWEEP:
            self._sweep(program)
        tables_of = [f.table for f in self.feeds] or [np.zeros((1, config.pes), np.int64)]
        self.first_column = np.cumsum([0, *map(len, tables_of)])
        table = np.concatenate(tables_of)
        self.all_words = table.sum(axis=1)
        # PEs that walk the same words in every column are one.
        kept = np.unique(np.concatenate([table, self.stolen[None] * 4096]).round().astype(np.int64), axis=1,
                         return_index=True)[1]
        self.table, self.stolen = table[:, kept], self.stolen[kept]

    def _order(self, channels: int, height: int, width: int) -> None:
        """``order`` int[words]: the words (numbered y, x, group) as the ring goes over them; ``rank`` its inverse."""
        block, groups = self.config.block, -(-channels // self.sweep)
        y, x, group = np.indices((height, width, groups)).reshape(3, -1)
        # The host sends its frame in plain order.
        block = block if self.step.kind == StepKind.SWEEP else 1
        self.order = np.lexsort((x % block, group, x // block, y))
        self.rank = np.argsort(self.order)
        # Of every word in that order: its pixel, and the number of its word of marks.
        self.pixel = self.order // groups
        self.segments, self.shape = -(-width // MARK_COLUMNS), (height, width)
        self.segment = y[self.order] * self.segments + x[self.order] // MARK_COLUMNS

    def _sweep(self, program: Program) -> None:
        """Words, reads of a word if none beside it is swept (of a ``window``: operands, rows and columns, and how many
        of them the next window shares), and per PE the share of the words of which a read takes its slot."""
        fields, config = self.step.fields, program.config
        window = fields["window_y"], fields["window_x"]
        shape = fields["height"], fields["width"]
        operands = fields["operands"][:1 + fields["two"]]
        self.words = shape[0] * shape[1] * fields["groups"]
        self.reads = len(operands) * window[0]["kernel"] * window[1]["kernel"]
        self.reads += not operands[0]["place"]["projection"]
        self.window = len(operands), *((w["kernel"], fields[f"shared_{k}"]) for w, k in zip(window, "yx", strict=True))
        for operand in operands:
            if not operand["place"]["projection"]:
                continue
            inside = []
            for axis, source in ((0, operand["height"]), (1, operand["width"])):
                w = window[axis]
                at = (np.arange(shape[axis])[:, None] * w["stride"] - w.get("pad", 0)
                      + np.arange(w["kernel"]) * w.get("dilation", 1))
                inside.append(np.bincount(at[(at >= 0) & (at < source)], minlength=source))
            place = operand["place"]
            per_x = np.bincount(np.arange(len(inside[1])) % (1 << place["phase_bits"]), inside[1],
                                minlength=1 << place["phase_bits"])
            per_c = np.bincount(np.arange(fields["groups"]) % (1 << place["group_bits"]),
                                minlength=1 << place["group_bits"])
            per_group = inside[0].sum() * np.outer(per_x, per_c).reshape(-1)
            self.stolen += per_group[np.arange(config.pes) // config.group_pes] / self.words

    def work(self, changes: Changes, pixels: np.ndarray | None) -> _Work:
        """The step in one frame, in which it sweeps these pixels."""
        mask = None
        if self.step.tensor is not None:
            mask = (changes.nonzero if self.step.direct else changes.sent)[self.step.tensor]
            mask = mask if self.place is None else self.place.by_position(mask)
        work = _Work(self, pixels, changes.refresh, mask)
        clear_words, always = self.clears
        cleared = clear_words[always.astype(bool) | changes.refresh]
        if self.step.tensor is not None:
            work.words = work.columns @ self.all_words
            work.walk = (work.columns @ self.table).max()
        if len(always):
            # A clear uses the slots that sweep and walks leave over, so it lasts at least as long as all three.
            busy = self.stolen * work.sweep / self.reads + work.columns @ self.table
            work.clear_end = CLEAR * len(always) + cleared.sum() + (busy.max() if len(cleared) else 0)
            if self.step.tensor is None:
                work.clear_end += SHORTEST
        return work


class _Work:
    """A step in one frame: its broadcasts in order, and after ``_solve`` its cycles.

    count, columns
        number of broadcasts; of each row of the plan's table. Then for every broadcast:
    column
        row of the plan's table.
    word
        number of its word among those that are broadcast.
    begin
        earliest begin of its sweep word; ``gap_begin`` the earliest begin of the word after the one before it.
    arrive
        cycles from the begin of its word to its broadcast, when nothing is in the way.
    order
        cycles after the first broadcast, when nothing but the LNZD and the expansion is in the way.
    swept
        most sweep words that are read by then, because the FIFO has no room for more.
    """

    def __init__(self, plan: _Plan, pixels: np.ndarray | None, refresh: bool, mask: np.ndarray | None) -> None:
        self.refresh, self.begun, self.last, self.early = refresh, 0, False, False
        self.plan, self.count, self.clear_end = plan, 0, 0
        self.cycles = self.stalls = self.words = self.walk = 0
        self.from_sweep = plan.step.kind == StepKind.SWEEP
        self.scanned = self.swept_words = self.sweep = 0
        if plan.step.tensor is not None:
            self.kept = np.ones(len(plan.order), bool) if pixels is None else pixels.reshape(-1)[plan.pixel]
        if self.from_sweep:
            # The words that are swept, and when each begins: a word of marks is read in every cycle.
            self.swept_words = np.count_nonzero(self.kept)
            beside = np.pad(np.ones(plan.shape, bool) if pixels is None else pixels, ((1, 0), (1, 0)))
            above, left = (b.reshape(-1)[plan.pixel[self.kept]] for b in (beside[:-1, 1:], beside[1:, :-1]))
            operands, (rows, shared_y), (columns, shared_x) = plan.window
            self.word_reads = plan.reads - operands * (
                rows * columns - (rows - shared_y * above) * (columns - shared_x * left))
            self.scanned, self.sweep = plan.step.fields["height"] * plan.segments, int(self.word_reads.sum())
        self.reads = self.sweep / max(1, self.swept_words)
        # From the begin of a word to the output of the FIFO.
        self.way = plan.reads - 1 + TO_DELTA if self.from_sweep else 0
        self.way += Queue.LATENCY
        self.columns, self.mask, self.drained = np.zeros(len(plan.table), np.int64), mask, NEVER
        self._fill(NEVER)

    def wait(self, before: _Work) -> bool:
        """Whether later rows have to wait for walks of the step before; then they do."""
        early = self.plan.step.fields.get("early", 0)
        if not self.from_sweep or not early:
            return False
        held = before.drained + before.begun - before.cycles + GATE - self.begun
        later = np.flatnonzero(self.plan.pixel[self.kept] // self.plan.shape[1] >= early)
        if not len(later) or held <= 0:
            return False
        # The early words take slots from those walks.
        held += self.plan.stolen.max() / self.plan.reads * min(self.word_reads[:later[0]].sum(), held)
        if self.begins[later[0]] >= held:
            return False
        self._fill(held)
        return True

    def _fill(self, held: float) -> None:
        """When each word begins, the later rows' not before ``held``, and what becomes of it."""
        plan = self.plan
        self.expanded = self.marked = self.last_marked = NEVER
        if self.from_sweep:
            ready = plan.segment[self.kept] * 1.0
            later = plan.pixel[self.kept] // plan.shape[1] >= plan.step.fields.get("early", 0)
            ready[later] = np.maximum(ready[later], held)
            read = np.cumsum(self.word_reads) - self.word_reads
            # As if it had all reads, so that a word ends ``plan.reads`` cycles after it begins.
            self.begins = read + self.word_reads - plan.reads + np.maximum.accumulate(ready - read)
        if self.mask is not None:
            self._feed(self.mask)

    def _feed(self, mask: np.ndarray) -> None:
        """``mask`` bool[C, H, W] of what is fed."""
        plan, feeds, sweep = self.plan, self.plan.feeds, self.plan.sweep
        # Words that are not all 0 enter the FIFO, whether or not an edge wants them.
        some = np.stack([mask[c:c + sweep].reshape(-1, mask[0].size).any(axis=0) for c in range(0, len(mask), sweep)])
        some = some.T.reshape(-1)[plan.order][self.kept]
        begin = self.begins[some] if self.from_sweep else np.arange(some.sum(), dtype=float)
        self.beats = max(1, len(begin))
        # The expansion takes a cycle per word and edge, wanted or not.
        ready = np.arange(len(begin)) * float(len(feeds))
        ready += np.maximum.accumulate(begin - ready)
        if len(begin):
            self.expanded = ready[-1] + len(feeds) + EXPAND - 1 if feeds else begin[-1] + 1
        if plan.step.reaches and not self.refresh and len(begin):
            self._mark(plan.pixel[self.kept][some], plan.segment[self.kept][some], begin, ready)
        if feeds:
            column, word, edge = self._broadcasts(mask)
            self.count, self.column = len(column), column
            self.columns = np.bincount(column, minlength=len(plan.table))
            if self.count:
                self._arrange(word, edge, np.cumsum(some) - 1, begin, ready)

    def _mark(self, pixel: np.ndarray, segment: np.ndarray, begin: np.ndarray, ready: np.ndarray) -> None:
        """``marked``: the end of the marking, ``last_marked`` were the last segment alone; for words of these pixels
        and segments (words of marks), in order. A segment is marked when its last word has come (which the next one's
        first tells) and the segment before is done."""
        new = np.diff(segment, prepend=-1) != 0
        first, number = np.flatnonzero(new), np.cumsum(new) - 1
        pixels = np.bincount(number[np.unique(pixel, return_index=True)[1]])
        complete = np.append(ready[first[1:]], ready[-1] + 1)
        spent = np.cumsum(1 + len(self.plan.step.reaches) * (REACH + pixels))
        behind = spent[-1] - np.append(0, spent[:-1]) + self.way + AFTER_MARKS
        self.marked, self.last_marked = (complete + behind).max(), begin[-1] + behind[-1]

    def _broadcasts(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row of the table, sweep word, edge) of every broadcast in order: word, edge, channel."""
        feeds = self.plan.feeds
        parts = [f.broadcasts(mask) for f in feeds]
        column = np.concatenate([c + first for (c, _), first in zip(parts, self.plan.first_column[:-1], strict=True)])
        rank = (np.cumsum(self.kept) - 1)[self.plan.rank]
        word = rank[np.concatenate([w for _, w in parts])]
        edge = np.repeat(np.arange(len(feeds)), [len(w) for _, w in parts])
        order = np.argsort(word * len(feeds) + edge, kind="stable")
        return column[order], word[order], edge[order]

    def _arrange(self, word: np.ndarray, edge: np.ndarray, number: np.ndarray, begin: np.ndarray,
                 ready: np.ndarray) -> None:
        """``number``: of each sweep word among those in the FIFO; for these ``begin`` and ``ready``: when they begin,
        and when the expansion has come to them."""
        plan, edges = self.plan, len(self.plan.feeds)
        slot = number[word] * edges + edge
        new_item, new_word = (np.concatenate([[True], a[1:] != a[:-1]]) for a in (slot, word))
        self.word = np.cumsum(new_word) - 1
        starts = np.flatnonzero(new_item)
        beats = np.diff(np.append(starts, self.count))
        step = np.ones(self.count)
        step[starts[1:]] = np.maximum(1, np.diff(slot[starts]) - beats[:-1] + 1)
        self.order = np.cumsum(step) - 1
        self.begin = begin[number[word]]
        self.arrive = edge + float(self.way + TO_QUEUE)
        self.arrive[0] += ready[number[word[0]]] - self.begin[0]
        self.expanded = begin[-1] + edges + EXPAND - 1
        self.tail = self.beats * edges - 1 - slot[-1] - (self.count - 1 - starts[-1])
        last = self.begin[np.flatnonzero(new_word)]
        self.gap_begin = np.concatenate([[0.0], last[:-1] + plan.reads])[self.word]
        depth = plan.config.fifo_depth
        self.swept = np.append(word[new_word], np.full(depth, self.swept_words))[depth:][self.word].astype(float)

    def finish(self, broadcast: float = NEVER, walked: float = NEVER, late: float = 0) -> None:
        """``broadcast``: time of the last one; ``walked``: end of the last walk; ``late``: the sweep at its end."""
        plan, shift = self.plan, self.begun
        ends = [self.clear_end - shift, self.marked, self.last_marked + late, walked, broadcast + 1, SHORTEST,
                self.expanded + late + self.way]
        if self.count:
            ends.append(broadcast + self.tail - LNZD - SCATTER)
        if self.from_sweep:
            ends.append(self.scanned - shift)
            if self.swept_words:
                ends.append(self.begins[-1] + late + plan.reads + TO_DELTA)
        elif plan.step.kind == StepKind.FRAME:
            ends.append(self.beats + 1)
        self.cycles = round(max(ends)) + shift + BARRIER


def _solve(work: list[_Work]) -> None:
    """Solve the recurrences of all steps side by side, longest first, a segment of broadcasts at a time."""
    for w in work:
        if not w.count:
            w.finish()
    rows = sorted((w for w in work if w.count), key=lambda w: -w.count)
    if rows:
        _Recurrence(rows).run()


class _Recurrence:
    """Steps as rows of arrays; ``segment`` broadcasts of each are solved at a time."""

    def __init__(self, rows: list[_Work]) -> None:
        config = rows[0].plan.config
        self.rows, self.depth = rows, config.queue_depth + 1               # one to spare, see hw.pe
        self.segment = min(self.depth, config.fifo_depth, SEGMENT)
        pes = max(r.plan.table.shape[1] for r in rows)
        self.segments = np.array([-(-r.count // self.segment) for r in rows])
        self.at = np.concatenate([[0], np.cumsum(self.segments)[:-1]]) * self.segment
        plans = {id(r.plan): r.plan for r in rows}
        first, tables, at = {}, [np.zeros((1, pes))], 1                # row 0: nothing to walk
        for key, plan in plans.items():
            first[key] = at
            tables.append(np.pad(plan.table, ((0, 0), (0, pes - plan.table.shape[1]))))
            at += len(plan.table)
        self.table = np.concatenate(tables).astype(float)
        self.share = np.stack([np.pad(r.plan.stolen * (r.reads or 1) / r.plan.reads, (0, pes - len(r.plan.stolen)))
                               for r in rows])[:, None]
        self.reads = np.array([float(r.reads or 1) for r in rows])[:, None, None]
        self.column = self._flat([r.column + first[id(r.plan)] for r in rows], 0)
        for name in ("order", "begin", "gap_begin", "arrive", "swept"):
            setattr(self, name, self._flat([getattr(r, name) for r in rows], None))
        # Where a word's time is kept, and where the time of the word is that must have left the FIFO before it.
        words = np.array([int(r.word[-1]) + 1 for r in rows])
        ahead = np.array([r.plan.config.fifo_depth + 1 + EXPAND // len(r.plan.feeds) for r in rows])
        base = np.concatenate([[0], np.cumsum(words + ahead)[:-1]])
        self.left = np.full(int((words + ahead).sum()), NEVER)
        self.leaves = self._flat([r.word + b + a for r, b, a in zip(rows, base, ahead, strict=True)], None)
        self.needs = self._flat([r.word + b for r, b in zip(rows, base, strict=True)], None)
        self.last_need = base + words
        self.swept_last = np.array([r.swept[-1] for r in rows])
        self.free = np.array([[r.from_sweep] for r in rows])

    def _flat(self, parts: list[np.ndarray], fill: float | None) -> np.ndarray:
        """All rows' values behind each other, each row padded to whole segments (None: with its last value)."""
        padded = []
        for part in parts:
            rest = -len(part) % self.segment
            padded += [part, np.full(rest, part[-1] if fill is None else fill, part.dtype)]
        return np.concatenate(padded)

    def run(self) -> None:
        n, pes = len(self.rows), self.table.shape[1]
        starts = np.full((n, self.depth + 1, pes), NEVER)              # of the last entries; one row for no entry
        rank, end = np.zeros((n, 1, pes), np.int64), np.full((n, 1, pes), NEVER)
        ending = np.zeros((n, pes))                                    # words of the last entry
        late, room, stalls = np.full((n, 1), NEVER), np.zeros((n, 1)), np.zeros(n)
        columns = np.arange(self.segment)
        fifo_way = TO_QUEUE - 1
        for number in range(int(self.segments[0])):
            active = int(np.searchsorted(-self.segments, -number, side="left"))
            rows = slice(0, active)
            i = self.at[rows, None] + number * self.segment + columns
            words = self.table[self.column[i]]
            wanted = words > 0
            ranks = rank[rows] + np.cumsum(wanted, axis=1)
            place = np.where(wanted, (ranks - 1) % self.depth, self.depth)
            full = np.take_along_axis(starts[rows], place, axis=1).max(axis=2) + 1
            # The sweep's lateness for lack of room, then the broadcast's.
            shut = np.where(self.free[rows], self.left[self.needs[i]] - fifo_way - self.gap_begin[i], NEVER)
            shut = np.maximum(np.maximum.accumulate(shut, axis=1), room[rows])
            arrival = self.begin[i] + shut + self.arrive[i]
            order = self.order[i]
            delayed = np.maximum.accumulate(np.maximum(arrival, full) - order, axis=1)
            delayed = np.maximum(delayed, late[rows])
            time = order + delayed
            before = np.concatenate([late[rows], delayed[:, :-1]], axis=1)
            stalls[rows] += (delayed - np.maximum(before, arrival - order)).sum(axis=1)
            # Walks, counted in the slots that the sweep leaves to a PE.
            loaded = time[..., None] + TO_WALK
            share, swept = self.share[rows], self.swept[i][..., None]
            slots = loaded - share * np.minimum(loaded / self.reads[rows], swept)
            spent = np.cumsum(words, axis=1)
            ready = np.where(wanted, slots - (spent - words), NEVER)
            ends = spent + np.maximum(np.maximum.accumulate(ready, axis=1), end[rows])
            start = np.maximum(self._time(ends - words, rows, swept), loaded)
            np.put_along_axis(starts[rows], place, np.where(wanted, start, NEVER), axis=1)
            newest = np.where(wanted, np.arange(self.segment)[:, None], -1).max(axis=1)
            ending[rows] = np.where(newest < 0, ending[rows], np.take_along_axis(
                words, np.maximum(newest, 0)[:, None], axis=1)[:, 0])
            self.left[self.leaves[i]] = time
            rank[rows], end[rows] = ranks[:, -1:], ends[:, -1:]
            late[rows], room[rows] = delayed[:, -1:], shut[:, -1:]
        # The last step waits for its last word to be written, others not even for it to begin.
        last = np.array([[r.last] for r in self.rows])
        over = np.where(last, AFTER_WALK, -np.minimum(ending, ENDING))
        drained = (self._time(end, slice(0, n), self.swept_last[:, None, None])[:, 0] + over).max(axis=1)
        final = self.left[self.last_need] - fifo_way
        for r, work in enumerate(self.rows):
            after = final[r] - (work.begin[-1] + work.plan.reads) if work.from_sweep else NEVER
            work.stalls, work.drained = round(stalls[r]), float(drained[r])
            walked = work.drained - HEAD * work.early
            work.finish(float(late[r, 0] + work.order[-1]), walked, max(float(room[r, 0]), after))

    def _time(self, slots: np.ndarray, rows: slice, swept: np.ndarray) -> np.ndarray:
        """The time by which the sweep has left a PE so many slots: the inverse of
        ``slots = time - share * min(time / reads, swept)``."""
        share = self.share[rows]
        return np.minimum(slots / np.maximum(1 - share / self.reads[rows], 1e-9), slots + share * swept)
