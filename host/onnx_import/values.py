"""What an ONNX value is while a network is imported.

A value with data is a *view*: an int64 array of the value's ONNX shape that says, element by element, which
element of which *unit* stands there. Reshape, Transpose, Concat, Split, Pad, channel shuffle and the like
only move elements about, so they are evaluated on the index array itself and cost nothing later.

A *unit* is a [C, H, W] map not yet made: a sum of at most two terms (a pending projection or a finished
tensor, each with a bias), an activation, a clip and a max-pool. It becomes a tensor when a linear layer, a
QuantizeLinear or an output needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sim.graph import Code, Edge, Pool, Shape, Tensor

Clip = tuple[float | None, float | None]


@dataclass(frozen=True, eq=False)
class Linear:
    """A projection not yet in the graph.

    name
        of the projection to be.
    edges
        what feeds it; their sources are finished tensors.
    step
        float64[C]: where given, every weight of an output channel is a whole multiple of it (networks that
        carry their own scales).
    """

    name: str
    shape: Shape
    edges: tuple[Edge, ...]
    step: np.ndarray | None = None

    def scaled(self, factor: np.ndarray) -> Linear:
        """The same layer with output channel c multiplied by ``factor[c]``."""
        edges = tuple(replace(e, weight=e.weight * factor[e.rows][:, :, None, None]) for e in self.edges)
        step = self.step if self.step is None else self.step * np.where(factor == 0, 1, abs(factor))
        return replace(self, edges=edges, step=step)


@dataclass(frozen=True, eq=False)
class Term:
    """One operand of a node to be: ``source + bias``, requantised to ``branch`` on its own when given."""

    source: Linear | Tensor
    bias: np.ndarray
    branch: Code | None = None


@dataclass(frozen=True, eq=False)
class Unit:
    """A map not yet made, ``pool(clip(act(sum of terms)))``, or a finished tensor.

    name
        ONNX value it stands for: the tensor's name once made.
    slope
        float64[C], factor of negative values; None is the identity.
    code
        set by QuantizeLinear: the tensor will hold these codes.
    sole
        nothing else uses it or its terms, so they may be changed.
    tensor
        the finished tensor, then also the only term.
    """

    name: str
    shape: Shape
    terms: tuple[Term, ...]
    slope: np.ndarray | None = None
    clip: Clip = (None, None)
    sign: bool = False
    pool: Pool | None = None
    code: Code | None = None
    sole: bool = False
    tensor: Tensor | None = None

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> Unit:
        """The unit of a finished tensor."""
        return cls(tensor.name, tensor.shape, (Term(tensor, np.zeros(tensor.shape[0])),), code=tensor.code,
                   tensor=tensor)

    @property
    def plain(self) -> bool:
        """Nothing but the sum of its terms."""
        return (self.slope is None and self.clip == (None, None) and not self.sign and self.pool is None
                and (self.code is None or self.tensor is not None))

    @property
    def projection(self) -> bool:
        """Nothing but one pending projection and its bias, to be had before it is quantised."""
        return (len(self.terms) == 1 and isinstance(self.terms[0].source, Linear)
                and replace(self, code=None).plain)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.shape[0] * self.shape[1] * self.shape[2]


@dataclass(frozen=True, eq=False)
class Const:
    """A value known at import.

    array
        as ONNX has it.
    exact, step
        for dequantised constants: the values in float64, and the size of one integer step of each element.
    """

    array: np.ndarray
    exact: np.ndarray | None = None
    step: np.ndarray | None = None

    @property
    def real(self) -> np.ndarray:
        """float64 values."""
        return np.asarray(self.array, np.float64) if self.exact is None else self.exact


@dataclass(frozen=True, eq=False)
class View:
    """A value with data: elements of units, or zeros.

    index
        int64 of the ONNX shape: 0 is the constant zero, 1 + i is element i of all units, flattened, joined.
    code
        None for a real value; for an integer value q, the code with which it is read: ``scale * (q - zero)``.
    """

    units: tuple[Unit, ...]
    index: np.ndarray
    code: Code | None = None

    @classmethod
    def whole(cls, unit: Unit, shape: Sequence[int] | None = None) -> View:
        """All of one unit in its own order, as an array of this shape (default [1, C, H, W])."""
        return cls((unit,), np.arange(1, unit.size + 1).reshape(shape or (1, *unit.shape)))

    @property
    def shape(self) -> tuple[int, ...]:
        """The ONNX shape."""
        return self.index.shape

    @property
    def padded(self) -> bool:
        """Holds constant zeros."""
        return bool((self.index == 0).any())

    @cached_property
    def layout(self) -> UnitLayout:
        """Where each unit's elements and channels stand in the joined numbering."""
        return UnitLayout(self.units)

    def arranged(self, index: np.ndarray) -> View:
        """Elements of this view's units in another arrangement; units without a part in it are dropped."""
        index = np.ascontiguousarray(index, np.int64)
        if len(self.units) == 1:
            return replace(self, index=index)
        owner = self.layout.owner(index)
        kept = [u for u in range(len(self.units)) if (owner == u).any()] or [0]
        if len(kept) == len(self.units):
            return replace(self, index=index)
        starts = UnitLayout([self.units[u] for u in kept]).starts
        shift = np.zeros(len(self.units) + 1, np.int64)
        shift[kept] = starts[:-1] - self.layout.starts[kept]
        return replace(self, units=tuple(self.units[u] for u in kept),
                       index=np.where(index == 0, 0, index + shift[owner]))

    def with_units(self, units: Sequence[Unit]) -> View:
        """The same arrangement of other units of the same shapes."""
        return replace(self, units=tuple(units))


@dataclass(frozen=True, eq=False)
class UnitLayout:
    """The joined numbering of the elements of some units, from 1."""

    units: Sequence[Unit]
    starts: np.ndarray = field(init=False)
    first_channel: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        sizes, channels = [u.size for u in self.units], [u.shape[0] for u in self.units]
        object.__setattr__(self, "starts", np.cumsum([1, *sizes]))
        object.__setattr__(self, "first_channel", np.cumsum([0, *channels]))

    def owner(self, index: np.ndarray) -> np.ndarray:
        """Number of the unit that holds each element (any number for the constant zero)."""
        if len(self.units) == 1:
            return np.zeros(index.shape, np.int64)
        return np.maximum(np.searchsorted(self.starts, index, side="right") - 1, 0)

    def channel(self, index: np.ndarray) -> np.ndarray:
        """Joined channel number of each element; -1 for the constant zero."""
        owner = self.owner(index)
        plane = np.array([u.shape[1] * u.shape[2] for u in self.units])
        channel = self.first_channel[owner] + (index - self.starts[owner]) // plane[owner]
        return np.where(index == 0, -1, channel)


def join(views: Sequence[View]) -> tuple[tuple[Unit, ...], list[np.ndarray]]:
    """Bring views to one list of units: the list, and each view's index in it."""
    units = tuple({id(u): u for v in views for u in v.units}.values())
    starts = dict(zip(map(id, units), UnitLayout(units).starts, strict=False))
    indices = []
    for v in views:
        if v.units == units:
            indices.append(v.index)
            continue
        shift = np.array([starts[id(u)] - s for u, s in zip(v.units, v.layout.starts, strict=False)])
        indices.append(np.where(v.index == 0, 0, v.index + shift[v.layout.owner(v.index)]))
    return units, indices


class Host:
    """A value that the tail on the host makes."""


class Unknown:
    """A value that could not be made because of a problem already listed."""


HOST, UNKNOWN = Host(), Unknown()
Value = Const | View | Host | Unknown


@dataclass(frozen=True, eq=False)
class Planes:
    """Part of a [C, H, W] view that comes from one unit, separable by axis.

    Element (positions[k], y, x) of the view is element (channels[k], rows[y], columns[x]) of the unit, or
    zero where ``rows[y]`` or ``columns[x]`` is -1.
    """

    unit: Unit
    positions: np.ndarray
    channels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def as_planes(view: View, index: np.ndarray) -> list[Planes] | None:
    """Take a [C, H, W] arrangement apart into planes of units; None when it is not separable."""
    positions, index = _by_channel(view, index)
    if not len(positions):
        return []
    width, layout, every = index.shape[2], view.layout, np.arange(len(positions))
    flat = index.reshape(len(index), -1)
    first = (flat > 0).argmax(axis=1)
    y0, x0 = np.divmod(first, width)
    head = flat[every, first]
    owner, channel = layout.owner(head), layout.channel(head)
    base = layout.starts[owner] + (channel - layout.first_channel[owner]) * _plane_sizes(view)[owner]
    unit_width = np.array([u.shape[2] for u in view.units])[owner]
    row_elements, column_elements = index[every, :, x0], index[every, y0, :]
    rows = np.where(row_elements > 0, (row_elements - base[:, None]) // unit_width[:, None], -1)
    columns = np.where(column_elements > 0, (column_elements - base[:, None]) % unit_width[:, None], -1)
    expected = ((base[:, None] + rows * unit_width[:, None])[:, :, None] + columns[:, None, :])
    expected[(rows < 0)[:, :, None] | (columns < 0)[:, None, :]] = 0
    heights = np.array([u.shape[1] for u in view.units])[owner]
    if (rows >= heights[:, None]).any() or not np.array_equal(expected, index):
        return None
    keys = np.concatenate([owner[:, None], rows, columns], axis=1)
    groups: dict[bytes, list[int]] = {}
    for k, key in enumerate(keys):
        groups.setdefault(key.tobytes(), []).append(k)
    return [Planes(view.units[owner[g[0]]], positions[g], (channel - layout.first_channel[owner])[g], rows[g[0]],
                   columns[g[0]]) for g in map(np.array, groups.values())]


def _by_channel(view: View, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the channels of a [C, H, W] arrangement so that each part [H, W] comes from one unit channel.

    Returns the channel number of each part and the parts [K, H, W], zero elsewhere. (Pixel shuffle mixes
    several unit channels in one; so does a concat along the height.)
    """
    flat = index.reshape(len(index), -1)
    used = np.flatnonzero(flat.any(axis=1))
    first = np.where(flat[used] > 0, flat[used], view.layout.starts[-1]).min(axis=1, initial=view.layout.starts[-1])
    mixed = view.layout.channel(first) != view.layout.channel(flat[used].max(axis=1, initial=0))
    if not mixed.any():
        return used, index if len(used) == len(index) else index[used]
    positions, parts = [used[~mixed]], [index[used[~mixed]]]
    for c in used[mixed]:
        channel = view.layout.channel(index[c])
        sources = np.unique(channel[channel >= 0])
        positions.append(np.full(len(sources), c))
        parts.append(np.where(channel == sources[:, None, None], index[c], 0))
    return np.concatenate(positions), np.concatenate(parts)


def _plane_sizes(view: View) -> np.ndarray:
    return np.array([u.shape[1] * u.shape[2] for u in view.units])
