"""Memory layouts of the ring, once: the RTL reads them, ``pack`` writes images of them.

``Layouts(config)`` has one ``StructLayout`` per memory. Words are little-endian; an image is
uint32[words, chunks], chunk 0 lowest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib.data import ArrayLayout, Layout, StructLayout
from amaranth.utils import bits_for

from hw.config import CODE_BITS, INDEX_BITS, MARK_COLUMNS, MULTIPLIER_BITS, SHIFT_BITS, AcceleratorConfig


class Space(IntEnum):
    """Memory spaces of the host port. The first five exist once per PE (``unit`` is the PE)."""

    WEIGHTS = 0
    COLUMNS = 1
    TAPS = 2
    CODEBOOK = 3
    PROJECTIONS = 4
    SNAPSHOTS = 5
    NODES = 6
    AXIS_Y = 7
    AXIS_X = 8
    CHANNELS = 9
    STEPS = 10
    EDGES = 11
    CLEARS = 12
    COUNTERS = 13
    REACHES = 14
    SPANS = 15


class Kind(IntEnum):
    """Weight word kind of an edge."""

    DENSE8 = 0
    CSC4 = 1
    CSC8 = 2


class StepKind(IntEnum):
    """Where a step's deltas come from."""

    NONE = 0
    FRAME = 1
    SWEEP = 2


def address_bits(words: int) -> int:
    """Bits of an address 0..words - 1 (at least one)."""
    return max(1, bits_for(words - 1))


@dataclass(frozen=True)
class Layouts:
    """The layouts of one config (see docs/architecture.md for what the fields mean)."""

    config: AcceleratorConfig

    # Widths -----------------------------------------------------------------------------------------
    @property
    def projection_address(self) -> int:
        return address_bits(self.config.projection_words)

    @property
    def weight_address(self) -> int:
        return address_bits(self.config.weight_words)

    @property
    def column_address(self) -> int:
        return address_bits(self.config.column_words)

    @property
    def tap_address(self) -> int:
        return address_bits(self.config.tap_words)

    @property
    def codebook_address(self) -> int:
        return address_bits(self.config.codebook_words)

    @property
    def snapshot_address(self) -> int:
        return address_bits(self.config.snapshot_words)

    @property
    def node_address(self) -> int:
        return address_bits(self.config.node_words)

    @property
    def mark_address(self) -> int:
        return address_bits(self.config.mark_words)

    @property
    def span_address(self) -> int:
        return address_bits(self.config.span_words)

    @property
    def segment(self) -> int:
        """Bits of a number of words of marks in a row, or of one of them."""
        return bits_for(-(-self.config.max_size // MARK_COLUMNS))

    @property
    def position(self) -> int:
        """Bits of y, x, a height or a width."""
        return bits_for(self.config.max_size)

    @property
    def pixel(self) -> int:
        """Bits of a number of pixels of a map."""
        return 2 * self.position

    @property
    def group(self) -> int:
        """Bits of a channel group (S channels) or of a number of them."""
        return bits_for(-(-self.config.max_channels // self.config.sweep))

    @property
    def channel(self) -> int:
        """Bits of a channel or column number."""
        return bits_for(self.config.max_channels)

    @property
    def line(self) -> Shape:
        """An address in the line memory."""
        return self._of_line(address_bits(max(1, self.config.line_words)))

    def _of_line(self, bits: int) -> Shape:
        """So many bits, or none without a line memory."""
        return unsigned(bits if self.config.line_words else 0)

    @property
    def log_groups(self) -> int:
        """log2 of the number of sweep groups."""
        return self.config.groups.bit_length() - 1

    @property
    def log_blocks(self) -> int:
        return self.config.max_blocks.bit_length() - 1

    @property
    def row(self) -> int:
        """Bits of a virtual row ``tap << block_bits | block``."""
        return self.tap_address + self.log_blocks + 1

    @property
    def small(self) -> int:
        """Bits of a shift by up to log2(groups) or log2(max_blocks)."""
        return bits_for(max(1, self.log_groups, self.log_blocks))

    # Per PE -----------------------------------------------------------------------------------------
    @cached_property
    def accumulators(self) -> ArrayLayout:
        return ArrayLayout(signed(self.config.accumulator_bits), self.config.lanes)

    @cached_property
    def dense8(self) -> StructLayout:
        return StructLayout({"weights": ArrayLayout(signed(8), self.config.lanes)})

    @cached_property
    def csc4(self) -> StructLayout:
        return StructLayout({"index": unsigned(INDEX_BITS), "codes": ArrayLayout(unsigned(4), self.config.lanes)})

    @cached_property
    def csc8(self) -> StructLayout:
        return StructLayout({"index": unsigned(INDEX_BITS), "codes": ArrayLayout(unsigned(8), self.config.lanes)})

    @property
    def weight_word(self) -> int:
        """Bits of a weight memory word: the widest kind's."""
        return max(getattr(self, kind).size for kind in self.config.kinds)

    @cached_property
    def codebook(self) -> Shape:
        return signed(16)

    @cached_property
    def column(self) -> StructLayout:
        """What a PE does for a column: walk ``count`` words; ``first`` is the first one of a CSC column.

        ``row`` is the first tap (dense) or the virtual row from which the first relative index counts (CSC).
        """
        return StructLayout({"count": unsigned(bits_for(self.config.projection_words)),
                             "row": unsigned(self.row), "first": unsigned(self.weight_address)})

    @cached_property
    def tap(self) -> StructLayout:
        """Where a tap's first block lies, from the column's first weight and from the delta's origin in P."""
        return StructLayout({"weight": unsigned(self.weight_address), "offset": unsigned(self.projection_address)})

    @cached_property
    def walk(self) -> StructLayout:
        """Per-edge constants of a walk, broadcast with every delta."""
        return StructLayout({"kind": unsigned(2), "last_block": unsigned(max(1, self.log_blocks)),
                             "block_bits": unsigned(self.small), "codebook": unsigned(self.codebook_address)})

    @cached_property
    def work(self) -> StructLayout:
        """A queue entry of a PE. ``late``: its delta is of a late row; ``turn`` tells its step from the next."""
        return StructLayout({"count": self.column.members["count"], "row": unsigned(self.row),
                             "start": unsigned(self.weight_address), "origin": unsigned(self.projection_address),
                             "deltas": ArrayLayout(signed(CODE_BITS), self.config.lanes), "walk": self.walk,
                             "late": unsigned(1), "turn": unsigned(1)})

    # Shared -----------------------------------------------------------------------------------------
    @cached_property
    def codes(self) -> ArrayLayout:
        """A snapshot word: S codes."""
        return ArrayLayout(signed(CODE_BITS), self.config.sweep)

    @cached_property
    def place(self) -> StructLayout:
        """Where a projection or snapshot lies: element (y, x, channel group c) is in word
        ``base + (y * pitch + (x >> phase_bits)) * blocks + (c >> group_bits)``, and for a projection in sweep
        group ``(x mod 2**phase_bits) << group_bits | c mod 2**group_bits``."""
        base = max(self.projection_address, self.snapshot_address)
        return StructLayout({"projection": unsigned(1), "base": unsigned(base), "pitch": unsigned(self.position),
                             "blocks": unsigned(bits_for(max(self.config.max_blocks, 1 << self.group))),
                             "phase_bits": unsigned(self.small), "group_bits": unsigned(self.small)})

    @cached_property
    def operand(self) -> StructLayout:
        return StructLayout({"place": self.place, "height": unsigned(self.position), "width": unsigned(self.position),
                             "branch": unsigned(1), "lo": signed(CODE_BITS), "hi": signed(CODE_BITS)})

    @cached_property
    def window(self) -> StructLayout:
        """Max-pool along one axis (kernel 1, stride 1, dilation 1, pad 0 without one)."""
        return StructLayout({"kernel": unsigned(self.position), "stride": unsigned(self.position),
                             "dilation": unsigned(self.position), "pad": unsigned(self.position)})

    @cached_property
    def step(self) -> StructLayout:
        """A step descriptor. ``skip``: only pixels with a mark are swept, except in a refresh; the marks begin at
        ``marks``. ``shared_x``, ``shared_y``: columns of a max-pool window that the next one of its row has too,
        rows that the one below has too. Rows from ``late`` on are its late ones; the rows before ``early`` are not
        reached by any late row of the step before. ``reach`` and ``reaches``: which tensors its deltas reach.
        ``repeat`` and ``channel_mask`` are room for later, and 0."""
        return StructLayout({
            "kind": unsigned(2), "height": unsigned(self.position), "width": unsigned(self.position),
            "groups": unsigned(self.group), "skip": unsigned(1), "marks": unsigned(self.mark_address),
            "reach": unsigned(address_bits(self.config.reach_words)),
            "reaches": unsigned(bits_for(self.config.reach_words)),
            "operands": ArrayLayout(self.operand, 2), "two": unsigned(1),
            "window_y": self.window, "window_x": self.window, "shared_x": unsigned(self.position),
            "shared_y": self._of_line(self.position),
            "late": unsigned(self.position), "early": unsigned(self.position), "node": unsigned(self.node_address),
            "sign": unsigned(1), "lo": signed(CODE_BITS), "hi": signed(CODE_BITS),
            "keep": unsigned(1), "snapshot": unsigned(self.snapshot_address),
            "direct": unsigned(1), "truncate": unsigned(1), "threshold": unsigned(CODE_BITS),
            "edge": unsigned(address_bits(self.config.edge_words)),
            "edges": unsigned(bits_for(self.config.edge_words)),
            "clear": unsigned(address_bits(self.config.clear_words)),
            "clears": unsigned(bits_for(self.config.clear_words)),
            "repeat": unsigned(4), "channel_mask": unsigned(1)})

    @cached_property
    def edge(self) -> StructLayout:
        """An edge descriptor; ``axis_y``, ``axis_x`` and ``channels`` are the first words of its tables."""
        return StructLayout({
            "walk": self.walk, "vector": unsigned(1), "group_bits": unsigned(self.small),
            "axis_y": unsigned(address_bits(self.config.axis_words)),
            "axis_x": unsigned(address_bits(self.config.axis_words)),
            "channels": unsigned(address_bits(self.config.channel_words)),
            "column": unsigned(self.column_address), "weight": unsigned(self.weight_address),
            "stride": unsigned(self.weight_address), "origin": unsigned(self.projection_address),
            "rows": unsigned(self.channel)})

    @cached_property
    def axis(self) -> StructLayout:
        """A coordinate's class (as an offset in the column table), origin in P and number of taps in the image."""
        return StructLayout({"column": unsigned(self.column_address), "origin": unsigned(self.projection_address),
                             "taps": unsigned(self.position + 1)})

    @cached_property
    def channels(self) -> StructLayout:
        """Which of S channels feed an edge; ``first`` is the column number of the first of them (scalar edge)
        or the channel group of the target (vector edge)."""
        return StructLayout({"mask": unsigned(self.config.sweep), "first": unsigned(self.channel)})

    @cached_property
    def node_lane(self) -> StructLayout:
        """One channel of one operand. ``negative`` is the multiplier of negative values of a single operand;
        ``rectify`` makes a negative sum 0."""
        return StructLayout({"bias": signed(self.config.bias_bits), "multiplier": signed(MULTIPLIER_BITS),
                             "negative": signed(MULTIPLIER_BITS), "branch": signed(MULTIPLIER_BITS),
                             "shift": unsigned(SHIFT_BITS),
                             "branch_shift": unsigned(SHIFT_BITS), "rectify": unsigned(1)})

    @cached_property
    def node(self) -> ArrayLayout:
        return ArrayLayout(self.node_lane, self.config.sweep)

    @cached_property
    def clear(self) -> StructLayout:
        """P words to clear in every PE: in every frame or only in a refresh."""
        return StructLayout({"base": unsigned(self.projection_address),
                             "count": unsigned(bits_for(self.config.projection_words)), "always": unsigned(1)})

    @cached_property
    def reach(self) -> StructLayout:
        """Which pixels of one tensor (its marks begin at ``marks``, ``segments`` words a row) a changed pixel reaches:
        the spans of its row and of its column, from ``span_y`` and ``span_x`` on."""
        return StructLayout({"marks": unsigned(self.mark_address), "segments": unsigned(self.segment),
                             "span_y": unsigned(self.span_address), "span_x": unsigned(self.span_address)})

    @cached_property
    def span(self) -> StructLayout:
        """Rows or columns ``first`` to ``last`` of the target; none if ``last`` comes before ``first``."""
        return StructLayout({"first": unsigned(self.position), "last": unsigned(self.position)})

    @cached_property
    def mark_word(self) -> StructLayout:
        """Marks to add to a word of them."""
        return StructLayout({"address": unsigned(self.mark_address), "mask": unsigned(MARK_COLUMNS)})

    @cached_property
    def block(self) -> StructLayout:
        """Pixels of a row to sweep: bit i of ``mask`` is column ``x + i``, ``left`` is column ``x - 1``; ``above`` is
        ``mask`` of the row above, ``row`` the number of pixels above."""
        return StructLayout({"y": unsigned(self.position), "x": unsigned(self.position), "row": unsigned(self.pixel),
                             "mask": unsigned(self.config.block), "above": self._of_line(self.config.block),
                             "left": unsigned(1)})

    @cached_property
    def sweep_word(self) -> StructLayout:
        """A word of S channels to sweep: channel ``group`` of a pixel; ``row`` as in ``block``. ``left``,
        ``above``: the pixel to the left is swept, too, that above."""
        return StructLayout({"y": unsigned(self.position), "x": unsigned(self.position), "group": unsigned(self.group),
                             "row": unsigned(self.pixel), "left": unsigned(1), "above": self._of_line(1)})

    @cached_property
    def target_word(self) -> StructLayout:
        """A word of S channels that was swept, its snapshot word, and its place in the line memory."""
        return StructLayout({"y": unsigned(self.position), "x": unsigned(self.position), "group": unsigned(self.group),
                             "address": unsigned(self.snapshot_address), "line": self.line})

    @cached_property
    def delta_word(self) -> StructLayout:
        """S deltas (or values) of one pixel; ``mask`` marks those that are not zero."""
        return StructLayout({"deltas": self.codes, "mask": unsigned(self.config.sweep), "y": unsigned(self.position),
                             "x": unsigned(self.position), "group": unsigned(self.group)})

    @cached_property
    def counters(self) -> StructLayout:
        """What one step counted. Cycles of the step, deltas sent, deltas broadcast (or vectors), MACs; cycles in
        which a full queue held the broadcast, in which a full FIFO held the sweep, and, summed over PEs, in which
        the sweep held a walk; squares of the changes that ``truncate`` lost."""
        return StructLayout({name: unsigned(48 if name in ("macs", "dropped") else 32) for name in (
            "cycles", "deltas", "broadcasts", "macs", "broadcast_stalls", "sweep_stalls", "pe_stalls", "dropped")})

    def memories(self) -> dict[Space, tuple[Layout | Shape, int]]:
        """Layout and depth of every memory that the host loads or reads."""
        c = self.config
        return {Space.WEIGHTS: (unsigned(self.weight_word), c.weight_words),
                Space.COLUMNS: (self.column, c.column_words),
                Space.TAPS: (self.tap, c.tap_words), Space.CODEBOOK: (self.codebook, c.codebook_words),
                Space.PROJECTIONS: (self.accumulators, c.projection_words),
                Space.SNAPSHOTS: (self.codes, c.snapshot_words), Space.NODES: (self.node, c.node_words),
                Space.AXIS_Y: (self.axis, c.axis_words), Space.AXIS_X: (self.axis, c.axis_words),
                Space.CHANNELS: (self.channels, c.channel_words), Space.STEPS: (self.step, c.step_words),
                Space.EDGES: (self.edge, c.edge_words), Space.CLEARS: (self.clear, c.clear_words),
                Space.REACHES: (self.reach, c.reach_words), Space.SPANS: (self.span, c.span_words),
                Space.COUNTERS: (self.counters, c.step_words)}


class FieldError(ValueError):
    """A value does not fit its field. ``field`` is the dotted path, ``value`` the value, ``bits`` the width."""

    def __init__(self, field: str, value: int, bits: int) -> None:
        self.field, self.value, self.bits = field, value, bits
        super().__init__(f"{field} is {value}, which does not fit {bits} bits")


def chunks(bits: int) -> int:
    """32-bit chunks of a word."""
    return -(-bits // 32)


def size_of(layout: Layout | Shape) -> int:
    """Bits of a layout."""
    return Shape.cast(layout).width


def pack(layout: Layout | Shape, values, count: int = 1) -> np.ndarray:
    """Values -> uint32[count, chunks]. A struct takes a mapping, an array a sequence (or an array with the lanes
    last), a leaf an int or int[count]; what a mapping leaves out is 0. Raises FieldError."""
    image = np.zeros((count, chunks(size_of(layout)) + 2), np.uint64)
    for path, offset, shape, value in _leaves(layout, values, "", 0):
        value = np.broadcast_to(np.asarray(value, np.int64), (count,))
        low = -(1 << shape.width - 1) if shape.signed else 0
        high = low + (1 << shape.width) - 1
        if count and not (low <= value.min() and value.max() <= high):
            raise FieldError(path, int(value.max() if value.max() > high else value.min()), shape.width)
        bits = value.astype(np.uint64) & np.uint64((1 << shape.width) - 1)
        chunk, within = divmod(offset, 32)
        shifted = bits << np.uint64(within)
        image[:, chunk] |= shifted & np.uint64(0xFFFFFFFF)
        image[:, chunk + 1] |= shifted >> np.uint64(32)
        if within + shape.width > 64:
            image[:, chunk + 2] |= bits >> np.uint64(64 - within)
    return image[:, :chunks(size_of(layout))].astype(np.uint32)


def unpack(layout: Layout | Shape, image: np.ndarray) -> np.ndarray | dict:
    """uint32[count, chunks] -> int64[count] of a leaf, int64[count, n] of an array of leaves, dict of a struct."""
    return _slice_of(layout, image, 0)


def _slice_of(layout, image: np.ndarray, offset: int):
    if isinstance(layout, StructLayout):
        return {name: _slice_of(f.shape, image, offset + f.offset) for name, f in layout}
    if isinstance(layout, ArrayLayout):
        return np.stack([_slice_of(f.shape, image, offset + f.offset) for _, f in layout], axis=-1)
    shape = Shape.cast(layout)
    wide = np.concatenate([image, np.zeros((len(image), 2), np.uint32)], axis=1).astype(np.uint64)
    chunk, within = divmod(offset, 32)
    value = (wide[:, chunk] | wide[:, chunk + 1] << np.uint64(32)) >> np.uint64(within)
    if within + shape.width > 64:
        value |= wide[:, chunk + 2] << np.uint64(64 - within)
    unused = np.uint64(64 - shape.width)
    value = value << unused
    return value.astype(np.int64) >> np.int64(unused) if shape.signed else (value >> unused).astype(np.int64)


def _leaves(layout, value, path: str, offset: int) -> Iterator[tuple[str, int, Shape, object]]:
    if isinstance(layout, StructLayout):
        if unknown := set(value) - {name for name, _ in layout}:
            raise KeyError(f"{path or 'struct'}: no field {sorted(unknown)[0]!r}")
        for name, f in layout:
            if name in value:
                yield from _leaves(f.shape, value[name], f"{path}.{name}" if path else name, offset + f.offset)
    elif isinstance(layout, ArrayLayout):
        for i, f in layout:
            part = value[i] if isinstance(value, (list, tuple)) else (
                {k: v[..., i] for k, v in value.items()} if isinstance(value, Mapping) else value[..., i])
            yield from _leaves(f.shape, part, f"{path}[{i}]", offset + f.offset)
    else:
        yield path, offset, Shape.cast(layout), value
