"""``AcceleratorConfig``: every size of the ring. All other widths are properties of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property

KINDS = ("dense8", "csc4", "csc8")
"""Weight word kinds: int8 with implicit row, CSC with a codebook of 16 entries, of 256 entries."""
INDEX_BITS = 4
"""Bits of a CSC word's relative row index."""
CODE_BITS = 9
"""Bits of an activation code and of a delta, signed."""
MARK_COLUMNS = 32
"""Pixels of a word of marks; a power of two."""
MAX_SWEEP = 32
"""Largest S: the host packs a field, such as a mask of S channels, from a signed 64-bit number."""
MULTIPLIER_BITS = 24
"""Bits of a requantisation multiplier, signed."""
SHIFT_BITS = 6
"""Bits of a requantisation shift."""
MOST_WORDS = (1 << 24) - 1
"""Of a memory, and the most that any other size may be."""
VERSION = 3
"""Raised whenever a memory image of an older compiler would mean something else."""


class ConfigError(ValueError):
    """A field of an ``AcceleratorConfig`` is out of range; the message names field, value and limit."""


@dataclass(frozen=True)
class AcceleratorConfig:
    """Sizes of one accelerator.

    pes, lanes
        processing elements and adjacent output rows per weight word; ``rows = pes * lanes``.
    sweep
        S: elements of P that one cycle sweeps, and codes per snapshot word; ``lanes <= sweep <= rows``, at most
        ``MAX_SWEEP``.
    queue_depth, fifo_depth
        deltas that wait in front of each PE; delta words (S deltas) that wait in front of the LNZD. Both in
        LUT RAM.
    kinds
        the weight kinds that the PEs can decode.
    max_size, max_channels, max_blocks
        largest height or width of a map, most channels of a map, most P words per pixel and PE.
    *_words
        depths: per PE ``projection_words`` (lanes accumulators each), ``weight_words``, ``column_words``
        (column table), ``tap_words``, ``codebook_words``; shared ``snapshot_words`` (S codes each),
        ``node_words`` (S channels of one operand each), ``axis_words`` (class tables, y and x alike),
        ``channel_words``, ``step_words``, ``edge_words``, ``clear_words``, ``mark_words`` (marks of ``MARK_COLUMNS``
        pixels each), ``reach_words``, ``span_words`` (which pixels of which tensors a change reaches), ``line_words``
        (2 S codes each: what max-pool windows share with those below; 0: those read it again).
    accumulator_bits
        width of an accumulator; it wraps.
    """

    pes: int
    lanes: int
    sweep: int
    queue_depth: int = 16
    fifo_depth: int = 64
    kinds: tuple[str, ...] = KINDS
    max_size: int = 63
    max_channels: int = 256
    max_blocks: int = 16
    projection_words: int = 2048
    weight_words: int = 2048
    column_words: int = 512
    tap_words: int = 256
    codebook_words: int = 512
    snapshot_words: int = 8192
    node_words: int = 64
    axis_words: int = 256
    channel_words: int = 64
    step_words: int = 32
    edge_words: int = 32
    clear_words: int = 32
    mark_words: int = 512
    reach_words: int = 64
    span_words: int = 512
    line_words: int = 0
    accumulator_bits: int = 27

    def __post_init__(self) -> None:
        for name in ("pes", "lanes", "sweep", "max_blocks"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ConfigError(f"config: {name} is {value}; it must be a power of two")
        if not self.lanes <= self.sweep <= self.rows:
            raise ConfigError(f"config: sweep is {self.sweep}; it must lie between lanes ({self.lanes}) and "
                              f"pes * lanes ({self.rows})")
        if self.sweep > MAX_SWEEP:
            raise ConfigError(f"config: sweep is {self.sweep}; at most {MAX_SWEEP} fit the compiler's tables")
        for f in fields(self):
            value = getattr(self, f.name)
            least = int(f.name != "line_words")
            if f.type == "int" and not least <= value <= MOST_WORDS:
                raise ConfigError(f"config: {f.name} is {value}; it must lie in {least}..{MOST_WORDS}")
        if not 2 <= self.accumulator_bits <= 32:
            raise ConfigError(f"config: accumulator_bits is {self.accumulator_bits}; it must lie in 2..32")
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise ConfigError(f"config: kinds is {self.kinds}; choose at least one of {KINDS}")

    @property
    def rows(self) -> int:
        """Accumulators that one cycle can update."""
        return self.pes * self.lanes

    @property
    def groups(self) -> int:
        """Sweep groups: sets of ``sweep // lanes`` adjacent PEs that one sweep word comes from."""
        return self.rows // self.sweep

    @property
    def block(self) -> int:
        """Columns of a block of the ``SweepOrder``: as many as a projection can have phases (at most 16)."""
        return min(self.groups, 16)

    @property
    def group_pes(self) -> int:
        """PEs in a sweep group."""
        return self.sweep // self.lanes

    @property
    def csc(self) -> bool:
        """Some CSC kind is decoded."""
        return "csc4" in self.kinds or "csc8" in self.kinds

    @property
    def bias_bits(self) -> int:
        """Bits of a node's bias; it does not wrap with narrow accumulators."""
        return max(27, self.accumulator_bits)

    @property
    def weight_bits(self) -> int:
        """Bits of a weight as it is multiplied."""
        return 16 if self.csc else 8

    def with_(self, **changes) -> AcceleratorConfig:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    @cached_property
    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(asdict(self) | {"version": VERSION}, sort_keys=True, separators=(",", ":"))

    @cached_property
    def hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of ``canonical``."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:16]

    @classmethod
    def from_json(cls, text: str) -> AcceleratorConfig:
        """The config of a ``canonical`` text."""
        data = json.loads(text)
        if data.pop("version", None) != VERSION:
            raise ConfigError(f"config: made for another version; this is version {VERSION}")
        return cls(**data | {"kinds": tuple(data["kinds"])})


PRESETS = {
    "sim64": AcceleratorConfig(pes=16, lanes=4, sweep=16),
    "sim64s32": AcceleratorConfig(pes=16, lanes=4, sweep=32),
    "sim64x1": AcceleratorConfig(pes=64, lanes=1, sweep=16),
    "sim8": AcceleratorConfig(pes=4, lanes=2, sweep=4),
    "sim1": AcceleratorConfig(pes=1, lanes=1, sweep=1),
}
"""Named configs. The memories of ``sim*`` are starting values; the compiler sizes them to the network."""
