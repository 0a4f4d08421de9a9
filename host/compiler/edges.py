"""Weight kind and tables of every edge, and what each PE's memories hold for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from host.compiler.axes import Axis
from host.compiler.places import Place
from host.compiler.pools import Pool
from host.compiler.weights import Table, csc, dense
from host.errors import UserError
from hw.config import AcceleratorConfig
from hw.layouts import Kind
from sim.graph import Edge, Shape

SPARSE = 0.7
"""Share of the fullest PE's weight words that are not all 0 below which int8 weights are stored as CSC."""


@dataclass(frozen=True)
class Lowered:
    """An edge as the ring walks it."""

    edge: Edge
    kind: Kind
    vector: bool
    place: Place
    words: int
    """Weight words in the fullest PE."""
    descriptor: dict


@dataclass
class Weights:
    """The memories of the edges while they fill up. Those of PEs are lists with one entry per PE."""

    config: AcceleratorConfig
    columns: int = 0
    dense_words: int = 0
    column_parts: list[list[tuple[int, dict]]] = field(default_factory=list)
    weight_parts: list[list[tuple[int, Kind, dict]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        pes = self.config.pes
        self.taps = [Pool(("weight", "offset")) for _ in range(pes)]
        self.column_parts = [[] for _ in range(pes)]
        self.weight_parts = [[] for _ in range(pes)]
        self.weight_words = [0] * pes
        self.codebook = Pool(("value",))
        self.axis_y, self.axis_x = (Pool(("column", "origin", "taps")) for _ in range(2))
        self.channels = Pool(("mask", "first"))

    def add(self, edge: Edge, source: Shape, place: Place) -> Lowered:
        """Store an edge into the projection at ``place``. Dense edges must come before all CSC ones."""
        config, g = self.config, edge.geometry
        vector = vector_offset(edge, config) is not None
        rows = config.rows >> place.phase_bits
        table = (Table.vector if vector else Table.scalar)(edge, rows, config.lanes)
        kind = choose_kind(edge, table, config)
        window = g.window or (0, source[1], 0, source[2])
        y, x = (Axis.solve(source[1 + a], place.shape[1 + a], edge.kernel[a], g.stride[a], g.dilation[a],
                           g.upsample[a], g.pad[a], window[2 * a:2 * a + 2], (1, place.phases)[a]) for a in (0, 1))
        first_block, blocks = table.blocks
        walk = {"kind": int(kind), "last_block": blocks - 1, "block_bits": (blocks - 1).bit_length()}
        descriptor = {"vector": int(vector), "group_bits": place.group_bits, "column": self.columns,
                      "origin": place.base + first_block, "rows": edge.rows.shape[1]}
        store = self._dense if kind == Kind.DENSE8 else self._csc
        words = store(edge, table, kind, y, x, place, walk, descriptor)
        per_class = 1 if kind == Kind.DENSE8 else table.columns
        self.columns += len(y.classes) * len(x.classes) * per_class
        pixel, line = place.blocks, place.pitch * place.blocks
        descriptor["axis_y"] = self.axis_y.add(np.stack(
            [y.column * len(x.classes) * per_class, y.origin * line, y.taps], axis=1))
        descriptor["axis_x"] = self.axis_x.add(np.stack([x.column * per_class, x.origin * pixel, x.taps], axis=1))
        descriptor["channels"] = self._channels(edge, source, vector)
        return Lowered(edge, kind, vector, place, words, descriptor | {"walk": walk})

    def _dense(self, edge: Edge, table: Table, kind: Kind, y: Axis, x: Axis, place: Place, walk: dict,
               descriptor: dict) -> int:
        words, weight_offset = dense(table)
        base, used = self.dense_words, table.codes.reshape(len(table.codes), -1).any(axis=1)
        descriptor |= {"weight": base, "stride": words.shape[1] // table.columns}
        self.dense_words += words.shape[1]
        kernel_x, blocks = edge.kernel[1], table.blocks[1]
        for phase in range(place.phases):
            offset = _tap_offsets(y, x, phase, place)
            lists = [np.array([ky * kernel_x + kx for ky in ys[0] for kx in xs[phase]], np.int64)
                     for ys in y.classes for xs in x.classes]
            rows = [np.stack([weight_offset[t], offset.reshape(-1)[t]], axis=1) for t in lists]
            counts = np.array([len(t) * blocks for t in lists])
            for j, pe in enumerate(self._pes(phase, place)):
                starts = [self.taps[pe].add(r) for r in rows]
                self.column_parts[pe].append((self.columns, {
                    "count": counts * used[j], "row": np.array(starts), "first": np.zeros(len(lists), np.int64)}))
                self.weight_parts[pe].append((base, kind, {"weights": words[j]}))
                self.weight_words[pe] = self.dense_words
        return words.shape[1]

    def _csc(self, edge: Edge, table: Table, kind: Kind, y: Axis, x: Axis, place: Place, walk: dict,
             descriptor: dict) -> int:
        values = codebook(edge)
        lowest = int(values.min())
        to_code = np.zeros(int(values.max()) - lowest + 1, np.int64)
        to_code[values - lowest] = np.arange(len(values))
        walk["codebook"] = self.codebook.add(values)
        descriptor |= {"weight": 0, "stride": 0}
        most = 0
        for phase in range(place.phases):
            offset = _tap_offsets(y, x, phase, place).reshape(-1)
            encoded = csc(table, y, x, phase, walk["block_bits"], to_code, lowest)
            for j, pe in enumerate(self._pes(phase, place)):
                tap = self.taps[pe].add(np.stack([np.zeros_like(offset), offset], axis=1))
                own = slice(*encoded.start[j:j + 2].tolist())
                base, size = self.weight_words[pe], own.stop - own.start
                self.column_parts[pe].append((self.columns, {
                    "count": encoded.count[j].reshape(-1), "first": encoded.first[j].reshape(-1) + base,
                    "row": encoded.row[j].reshape(-1) + (tap << walk["block_bits"])}))
                self.weight_parts[pe].append((base, kind, {"index": encoded.index[own], "codes": encoded.codes[own]}))
                self.weight_words[pe] += int(size)
                most = max(most, int(size))
        return most

    def _pes(self, phase: int, place: Place) -> range:
        count = self.config.pes >> place.phase_bits
        return range(phase * count, (phase + 1) * count)

    def _channels(self, edge: Edge, source: Shape, vector: bool) -> int:
        sweep = self.config.sweep
        groups = -(-source[0] // sweep)
        group, lane = np.divmod(edge.channels, sweep)
        mask = np.zeros(groups, np.int64)
        np.add.at(mask, group, 1 << lane)
        first = (np.arange(groups) + vector_offset(edge, self.config) if vector
                 else np.searchsorted(edge.channels, np.arange(groups) * sweep))
        return self.channels.add(np.stack([mask, np.where(mask == 0, 0, first)], axis=1))


def _tap_offsets(y: Axis, x: Axis, phase: int, place: Place) -> np.ndarray:
    """P words from a delta's origin to a tap, int[kernel y, kernel x]."""
    return y.offset[0][:, None] * (place.pitch * place.blocks) + x.offset[phase] * place.blocks


def vector_offset(edge: Edge, config: AcceleratorConfig) -> int | None:
    """Target channel group minus source channel group of a depthwise edge that the vector mode can run."""
    if not edge.vector:
        return None
    offset = edge.rows[:, 0] - edge.channels
    if (offset != offset[0]).any() or offset[0] % config.sweep:
        return None
    return int(offset[0]) // config.sweep


def codebook(edge: Edge) -> np.ndarray:
    """The weights of an edge that occur, 0 always and first."""
    values = np.unique(edge.weight_code)
    return np.concatenate([[0], values[values != 0]]).astype(np.int64)


def choose_kind(edge: Edge, table: Table, config: AcceleratorConfig) -> Kind:
    """Dense for int8 weights that are mostly there, else the narrowest CSC that has room for every value."""
    where = f"edge {edge.source} -> {edge.target}"
    low, high, values = int(edge.weight_code.min()), int(edge.weight_code.max()), len(codebook(edge))
    fits = {"dense8": -128 <= low and high <= 127, "csc4": values <= 16 and -32768 <= low and high <= 32767,
            "csc8": values <= 256 and -32768 <= low and high <= 32767}
    possible = [k for k in config.kinds if fits[k]]
    if not possible:
        raise UserError(f"{where}: {values} different weights in {low}..{high} fit none of the weight kinds "
                        f"{', '.join(config.kinds)} of this accelerator; quantise the layer to int8 or to a codebook "
                        "of at most 255 values and 0")
    sparse = edge.codebook_bits is not None or (not edge.dense and not edge.vector)
    if "dense8" in possible and not sparse:
        if edge.vector and vector_offset(edge, config) is not None:
            return Kind.DENSE8
        words = table.codes.any(axis=-1)
        sparse = words.reshape(len(words), -1).mean(axis=1).max() < SPARSE
    order = ("csc4", "csc8", "dense8") if sparse else ("dense8", "csc4", "csc8")
    return Kind[next(k for k in order if k in possible).upper()]
