"""Where projections and snapshots lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from host.compiler.pools import Intervals
from hw.config import AcceleratorConfig
from sim.graph import Graph, Shape

FOREVER = 1 << 30
"""Step number after every step."""


@dataclass(frozen=True)
class Place:
    """A projection or snapshot in memory (``hw.layouts.Layouts.place`` gives the address formula).

    ``order`` is the position of each channel; None: they lie in their own order.
    """

    projection: bool
    shape: Shape
    base: int
    pitch: int
    blocks: int
    phase_bits: int
    group_bits: int
    order: tuple[int, ...] | None = None

    @property
    def phases(self) -> int:
        """G: phases of output columns."""
        return 1 << self.phase_bits

    @property
    def words(self) -> int:
        """Words (of a projection: in every PE)."""
        return self.shape[1] * self.pitch * self.blocks

    def fields(self) -> dict[str, int]:
        """For ``Layouts.place``."""
        return {k: int(getattr(self, k)) for k in ("projection", "base", "pitch", "blocks", "phase_bits", "group_bits")}

    def by_channel(self, positions: np.ndarray) -> np.ndarray:
        """[positions, H, W] as they lie -> [C, H, W]; positions beyond C are left out."""
        return positions[:self.shape[0]] if self.order is None else positions[np.array(self.order)]

    def by_position(self, channels: np.ndarray) -> np.ndarray:
        """[C, H, W] -> the same as they lie."""
        return channels if self.order is None else channels[np.argsort(self.order)]

    def addresses(self, sweep: int) -> tuple[np.ndarray, np.ndarray]:
        """(word, sweep group) int[H, W, channel groups] of every word of S channels."""
        c, h, w = self.shape
        y, x, g = np.meshgrid(np.arange(h), np.arange(w), np.arange(-(-c // sweep)), indexing="ij")
        word = self.base + (y * self.pitch + (x >> self.phase_bits)) * self.blocks + (g >> self.group_bits)
        return word, ((x % self.phases) << self.group_bits) | (g % (1 << self.group_bits))


def phase_options(shape: Shape, config: AcceleratorConfig) -> list[int]:
    """log2 of the numbers of phases that waste fewest accumulators (within 5%), ascending."""
    channels, _, width = shape
    words = [-(-channels // (config.rows >> bits)) * -(-width // (1 << bits))
             for bits in range(config.groups.bit_length())]
    return [bits for bits, n in enumerate(words) if n <= 1.05 * min(words)]


def projection_place(shape: Shape, config: AcceleratorConfig, bits: int | None = None) -> Place:
    """With 2**bits phases; without, the smallest of the ``phase_options``, because each phase needs a copy of the
    weights."""
    bits = phase_options(shape, config)[0] if bits is None else bits
    return Place(True, shape, 0, -(-shape[2] // (1 << bits)), -(-shape[0] // (config.rows >> bits)), bits,
                 (config.groups >> bits).bit_length() - 1)


def snapshot_place(shape: Shape, base: int, config: AcceleratorConfig) -> Place:
    """Words of S channels, pixel after pixel."""
    return Place(False, shape, base, shape[2], -(-shape[0] // config.sweep), 0, 0)


def place_all(graph: Graph, config: AcceleratorConfig, fed: Mapping[str, int], swept: Mapping[str, int],
              phase_bits: Mapping[str, int]) -> tuple[dict[str, Place], int, int]:
    """Places by name, and the P words and snapshot words they need.

    ``phase_bits`` are those of projections for which they are chosen already. ``fed`` is the step that first feeds a
    projection, ``swept`` the last one that sweeps it. A delta projection keeps its words for ever; a direct one from
    the step before ``fed``, in which it is cleared.
    """
    places, intervals, snapshots = {}, Intervals(), 0
    handed = {r.source for o in graph.outputs for r in o.reads}
    order = sorted(graph.projections.values(), key=lambda p: (p.mode == "direct", fed[p.name]))
    for p in order:
        place = projection_place(p.shape, config, phase_bits.get(p.name))
        kept = p.mode == "delta"
        last = FOREVER if kept or p.name in handed or p.name not in swept else swept[p.name]
        places[p.name] = replace(place, base=intervals.add(place.words, 0 if kept else fed[p.name] - 1, last))
    operands = {op.source for node in graph.nodes for op in node.operands}
    for tensor, node in graph.steps():
        if node is not None or tensor.name in operands:
            places[tensor.name] = snapshot_place(tensor.shape, snapshots, config)
            snapshots += places[tensor.name].words
    return places, intervals.size, snapshots
