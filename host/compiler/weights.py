"""Weight words of an edge for every PE: dense, or CSC with relative row index and codebook codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from host.compiler.axes import Axis
from hw.config import INDEX_BITS
from sim.graph import Edge

SKIP = 1 << INDEX_BITS
"""Rows that a padding word moves on."""


@dataclass(frozen=True)
class Table:
    """Weights of an edge as the PEs of one phase see them: ``codes`` int32[pe, column, tap, block, lane].

    A *column* is a source channel, of a vector edge a block of channels. ``blocks`` (first, count) are the P words
    of a pixel that this edge touches.
    """

    codes: np.ndarray
    blocks: tuple[int, int]

    @property
    def columns(self) -> int:
        return self.codes.shape[1]

    @classmethod
    def scalar(cls, edge: Edge, rows: int, lanes: int) -> Table:
        """One column per source channel; ``rows`` accumulators of a phase."""
        block, row = np.divmod(edge.rows, rows)
        first, count = int(block.min()), int(block.max() - block.min()) + 1
        taps = edge.kernel[0] * edge.kernel[1]
        codes = np.zeros((rows // lanes, len(edge.channels), taps, count, lanes), np.int32)
        k = np.broadcast_to(np.arange(len(edge.channels))[:, None], edge.rows.shape)
        codes[row // lanes, k, :, block - first, row % lanes] = edge.weight_code.reshape(*edge.rows.shape, taps)
        return cls(codes, (first, count))

    @classmethod
    def vector(cls, edge: Edge, rows: int, lanes: int) -> Table:
        """One column per block of channels, every lane with its own channel's weights."""
        target = edge.rows[:, 0]
        block, row = np.divmod(target, rows)
        taps = edge.kernel[0] * edge.kernel[1]
        codes = np.zeros((rows // lanes, int(block.max()) + 1, taps, 1, lanes), np.int32)
        codes[row // lanes, block, :, 0, row % lanes] = edge.weight_code.reshape(len(target), taps)
        return cls(codes, (0, 1))


def dense(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(words int32[pe, column * tap * block, lane], offset int[tap]); taps with equal weights are stored once."""
    codes = table.codes
    _, first, kind = np.unique(np.moveaxis(codes, 2, 0).reshape(codes.shape[2], -1), axis=0, return_index=True,
                               return_inverse=True)
    kept = np.sort(first)
    words = codes[:, :, kept].reshape(len(codes), -1, codes.shape[4])
    return words, np.searchsorted(kept, first[kind.reshape(-1)]) * codes.shape[3]


@dataclass(frozen=True)
class Csc:
    """CSC words of all PEs of one phase.

    index, codes
        int[words], int[words, lane]: PE after PE. ``start`` int[pe + 1]: where each one's begin.
    first, count, row
        int[pe, y class, x class, column]: the column's entry (``first`` from the PE's own start).
    """

    index: np.ndarray
    codes: np.ndarray
    start: np.ndarray
    first: np.ndarray
    count: np.ndarray
    row: np.ndarray


def csc(table: Table, y: Axis, x: Axis, phase: int, block_bits: int, to_code: np.ndarray, lowest: int) -> Csc:
    """Encode a phase. Columns whose taps are a run of another's share its words.

    ``to_code[w - lowest]`` is the codebook code of weight w.
    """
    pes, columns, _, blocks, lanes = table.codes.shape
    kernel_x = x.offset.shape[1]
    lists, entries = [], {}
    y_sets = sorted({c[0] for c in y.classes}, key=len, reverse=True)
    x_sets = {c[phase] for c in x.classes}
    for xs in sorted(x_sets, key=len, reverse=True):
        encoded: list[tuple[tuple[int, ...], _Words]] = []
        for ys in y_sets:
            found = next(((w, at) for longer, w in encoded if (at := _run(ys, longer)) is not None), None)
            if found is None:
                taps = np.array([ky * kernel_x + kx for ky in ys for kx in xs], np.int64)
                found = _Words(table.codes[:, :, taps], taps, block_bits, to_code, lowest), 0
                encoded.append((ys, found[0]))
                lists.append(found[0])
            words, at = found
            step = len(xs) * blocks
            entries[ys, xs] = (words, *words.run(at * step, (at + len(ys)) * step))
    # Per PE, list after list.
    sizes = np.array([w.sizes for w in lists]).reshape(len(lists), pes)
    start = np.concatenate([[0], np.cumsum(sizes.sum(axis=0))])
    before = np.cumsum(sizes, axis=0) - sizes
    index, codes = np.zeros(start[-1], np.int64), np.zeros((start[-1], lanes), np.int64)
    for words, offset in zip(lists, before, strict=True):
        where = np.arange(len(words.index)) + np.repeat(start[:-1] + offset - words.starts, words.sizes)
        index[where], codes[where] = words.index, words.codes
    shape = (pes, len(y.classes), len(x.classes), columns)
    first, count, row = (np.zeros(shape, np.int64) for _ in range(3))
    position = {id(w): i for i, w in enumerate(lists)}
    for cy, c_y in enumerate(y.classes):
        for cx, c_x in enumerate(x.classes):
            words, f, n, r = entries[c_y[0], c_x[phase]]
            first[:, cy, cx] = np.where(n > 0, f + before[position[id(words)]][:, None], 0)
            count[:, cy, cx], row[:, cy, cx] = n, r
    return Csc(index, codes, start, first, count, row)


def _run(short: tuple[int, ...], long: tuple[int, ...]) -> int | None:
    """Where ``short`` begins as a run of ``long``."""
    for at in range(len(long) - len(short) + 1):
        if long[at:at + len(short)] == short:
            return at
    return None


class _Words:
    """The encoded entries of all PEs and columns for one list of taps."""

    def __init__(self, codes: np.ndarray, taps: np.ndarray, block_bits: int, to_code: np.ndarray,
                 lowest: int) -> None:
        self.pes, self.columns, count, blocks, lanes = codes.shape
        self.positions = count * blocks
        rows = ((taps[:, None] << block_bits) + np.arange(blocks)).reshape(-1)
        flat = codes.reshape(self.pes * self.columns, self.positions, lanes)
        column, position = np.nonzero(flat.any(axis=2))
        self.keys = column * self.positions + position
        row = rows[position] if len(position) else np.zeros(0, np.int64)
        fresh = np.ones(len(row), bool)
        fresh[1:] = column[1:] != column[:-1]
        gap = np.where(fresh, 0, row - np.roll(row, 1) - 1)
        pads = gap // SKIP
        self.address = np.cumsum(pads + 1) - 1
        total = int(self.address[-1]) + 1 if len(row) else 0
        self.index, self.codes = np.full(total, SKIP - 1), np.zeros((total, lanes), np.int64)
        self.index[self.address] = gap - pads * SKIP
        self.codes[self.address] = to_code[flat[column, position] - lowest]
        self.row = row - self.index[self.address]
        bounds = np.searchsorted(self.keys, np.arange(self.pes + 1) * self.columns * self.positions)
        ends = np.concatenate([self.address - pads, [total]])
        starts = ends[bounds]
        self.starts, self.sizes = starts[:-1], np.diff(starts)

    def run(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(first, count, row) int[pe, column] of the entries at positions begin..end - 1 of every column."""
        base = np.arange(self.pes * self.columns) * self.positions
        low, high = np.searchsorted(self.keys, base + begin), np.searchsorted(self.keys, base + end)
        some = high > low
        padded = lambda a: np.concatenate([a, [0]])                                        # noqa: E731
        first = padded(self.address)[low]
        count = np.where(some, padded(self.address)[np.maximum(high - 1, 0)] - first + 1, 0)
        row = np.where(some, padded(self.row)[low], 0)
        shape = (self.pes, self.columns)
        return (first.reshape(shape) - self.starts[:, None]), count.reshape(shape), row.reshape(shape)
