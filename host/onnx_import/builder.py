"""Makes the parts of the RRM graph: pending units become tensors and nodes, layers become edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from host.onnx_import.errors import Unsupported
from host.onnx_import.resample import AxisMap, plane_geometry, separable_edges
from host.onnx_import.values import Linear, Planes, Term, Unit, View, as_planes
from sim.graph import Code, Edge, Geometry, Node, Operand, Projection, Read, Shape, Tensor

NHWC_TO_NCHW, NCHW_TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass
class Builder:
    """The graph so far, in topological order.

    reads
        ONNX value name -> how often something other than a view reads it.
    """

    reads: Mapping[str, int]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    projections: dict[str, Projection] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    _made: dict[Unit, Unit] = field(default_factory=dict)
    _emitted: dict[Linear, str] = field(default_factory=dict)
    _quantised: dict[tuple[Unit, Code], Unit] = field(default_factory=dict)
    _part_of: dict[str, str] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def uses(self, name: str) -> int:
        """How often a value is used; a name of our own, made on the way to a value, stands for one use."""
        return self.reads.get(self._part_of.get(name, name), 1)

    def part(self, name: str, number: int) -> str:
        """Name of a unit that is only part of an ONNX value, or holds it in another order."""
        part = f"{name}[{number}]"
        self._part_of[part] = name
        return part

    def unique(self, name: str) -> str:
        """The name itself, or with a number behind it when it is taken."""
        candidate, count = name, 2
        while candidate in self._names:
            candidate, count = f"{name}~{count}", count + 1
        self._names.add(candidate)
        return candidate

    def add_tensor(self, tensor: Tensor) -> Unit:
        """Enter a tensor under its (unique) name."""
        self.tensors[tensor.name] = tensor
        return Unit.of_tensor(tensor)

    # ---- units -> tensors and nodes

    def made(self, unit: Unit) -> Unit:
        """The unit as a finished tensor if it is one already, else itself."""
        return self._made.get(unit, unit)

    def settled(self, unit: Unit) -> Unit:
        """The unit, made into a tensor if a QuantizeLinear asked for it."""
        return self.tensor(unit) if unit.code is not None else self.made(unit)

    def tensor(self, unit: Unit) -> Unit:
        """The unit made into a tensor (once): a node of at most two operands."""
        if unit.tensor is not None:
            return unit
        if unit not in self._made:
            self._made[unit] = self._make(unit)
        return self._made[unit]

    def _make(self, unit: Unit) -> Unit:
        slope = np.ones(unit.shape[0]) if unit.slope is None else unit.slope
        operands = tuple(Operand(self.source(t), t.bias, t.branch) for t in unit.terms)
        made = self.add_tensor(Tensor(self.unique(unit.name), unit.shape, unit.code))
        self.nodes.append(Node(made.name, operands, slope, unit.clip, unit.sign, unit.pool))
        return made

    def source(self, term: Term) -> str:
        """Name of the term's tensor or projection; a pending projection enters the graph."""
        if isinstance(term.source, Tensor):
            return term.source.name
        linear = term.source
        if linear not in self._emitted:
            name = self._emitted[linear] = self.unique(linear.name)
            self.projections[name] = Projection(name, linear.shape, self.scale(linear))
            self.edges += [replace(e, target=name) for e in linear.edges]
        return self._emitted[linear]

    def scale(self, linear: Linear) -> np.ndarray | None:
        """Real value of one unit of the projection per channel where the network fixes it, else None."""
        codes = [self.tensors[e.source].code for e in linear.edges]
        if linear.step is None or any(c is None or c.scale != codes[0].scale for c in codes):
            return None
        return linear.step * codes[0].scale

    def scaled(self, unit: Unit) -> bool:
        """The network itself fixes the scale of everything that the unit is made of."""
        return all(t.source.code is not None if isinstance(t.source, Tensor) else
                   self.scale(t.source) is not None for t in unit.terms)

    def read(self, unit: Unit) -> Read:
        """How the host reads the unit: its projection where that is all it is, else its tensor."""
        unit = self.made(unit)
        if not unit.plain or len(unit.terms) > 1:
            unit = self.tensor(unit)
        return Read(self.source(unit.terms[0]), unit.terms[0].bias)

    # ---- views -> edges

    def layer(self, name: str, shape: Shape, parts: Sequence[Edge], bias: np.ndarray | None = None,
              step: np.ndarray | None = None) -> Unit:
        """The pending unit of ONNX value ``name`` made by these edges and a bias per output channel."""
        if not parts:
            raise Unsupported("its input is constant zero")
        linear = Linear(f"{name}#P", shape, tuple(parts), step)
        bias = np.zeros(shape[0]) if bias is None else np.asarray(bias, np.float64)
        return Unit(name, shape, (Term(linear, bias),), sole=self.uses(name) == 1)

    def convolution(self, name: str, view: View, index: np.ndarray, weight: np.ndarray, geometry: Geometry,
                    size: tuple[int, int], groups: int = 1, bias: np.ndarray | None = None,
                    step: np.ndarray | None = None) -> Unit:
        """A layer in the form of an ONNX Conv.

        ``index`` [C, H, W] arranges the view's elements; ``weight`` is [Co, C / groups, kh, kw]; ``size``
        (OH, OW).
        """
        kernel = weight.shape[2:]
        planes = as_planes(view, index)
        geometries = [plane_geometry(p, kernel, geometry) for p in planes or ()]
        if planes is None or None in geometries:
            view = View.whole(self.resampled(f"{name}/in", view, index, None, None))
            planes = as_planes(view, view.index[0])
            geometries = [plane_geometry(p, kernel, geometry) for p in planes]
        units = self._one_scale(name, [p.unit for p in planes], step)
        template = Edge.conv("", "", weight, geometry, groups)
        parts = [part for p, u, g in zip(planes, units, geometries, strict=True)
                 for part in self._columns(u, p, replace(template, geometry=g))]
        return self.layer(name, (weight.shape[0], *size), parts, bias, step)

    def _columns(self, unit: Unit, planes: Planes, template: Edge) -> list[Edge]:
        """The edges from one tensor: the template's columns in channel order, repeats in another edge."""
        order = np.argsort(planes.channels, kind="stable")
        channels, positions = planes.channels[order], planes.positions[order]
        repeat = np.arange(len(order)) - np.searchsorted(channels, channels)
        return [replace(template, source=unit.name, channels=channels[take],
                        rows=template.rows[positions[take]], weight=template.weight[positions[take]])
                for take in (repeat == r for r in range(int(repeat.max()) + 1))]

    def dense(self, name: str, view: View, index: np.ndarray, weight: np.ndarray,
              bias: np.ndarray | None = None, step: np.ndarray | None = None) -> Unit:
        """A fully connected layer: ``index`` [N] arranges the view's elements, ``weight`` is [N, M]."""
        view = view.arranged(index)
        units = self._one_scale(name, view.units, step)
        outputs, parts = weight.shape[1], []
        owner = view.layout.owner(view.index)
        for number, unit in enumerate(units):
            take = np.flatnonzero((owner == number) & (view.index > 0))
            element = view.index[take] - view.layout.starts[number]
            full = np.zeros((unit.size, outputs))
            if len(np.unique(element)) == len(element):
                full[element] = weight[take]
            else:
                np.add.at(full, element, weight[take])
            channels, height, width = unit.shape
            used = np.unique(element // (height * width))
            columns = full.reshape(channels, height * width, outputs)[used].transpose(0, 2, 1)
            rows = np.broadcast_to(np.arange(outputs), (len(used), outputs))
            if len(used):
                parts.append(Edge(unit.name, "", used, rows,
                                  columns.reshape(len(used), outputs, height, width)))
        return self.layer(name, (outputs, 1, 1), parts, bias, step)

    def resampled(self, name: str, view: View, index: np.ndarray, y: AxisMap | None, x: AxisMap | None,
                  step: float | None = 1.0) -> Unit:
        """One map per axis applied to every channel of ``index`` [C, H, W] (None: as it is)."""
        planes = as_planes(view, index)
        if planes is None:
            raise Unsupported("its elements are not whole rows and columns of an earlier map; "
                              "only Reshape and Transpose that keep image planes together can run")
        channels, parts = index.shape[0], []
        size = tuple(n if m is None else len(m.matrix) for n, m in zip(index.shape[1:], (y, x), strict=True))
        steps = None if step is None else np.full(channels, step)
        for p, unit in zip(planes, self._one_scale(name, [p.unit for p in planes], steps), strict=True):
            height, width = p.unit.shape[1:]
            maps = AxisMap.gather(p.rows, height), AxisMap.gather(p.columns, width)
            maps = [m if outer is None else outer.after(m) for outer, m in zip((y, x), maps, strict=True)]
            for geometry, taps in separable_edges(*maps):
                weight = np.broadcast_to(taps, (channels, 1, *taps.shape))
                parts += self._columns(unit, p, Edge.conv("", "", weight, geometry, channels))
        return self.layer(name, (channels, *size), parts, step=steps)

    def gathered(self, name: str, view: View) -> View:
        """The view as one pending unit of its own, copied exactly, channel by channel."""
        index = four_dimensional(view.index)
        first = as_planes(view, index[0]) is not None
        order, back = ((0, 1, 2, 3), (0, 1, 2, 3)) if first else (NHWC_TO_NCHW, NCHW_TO_NHWC)
        whole = View.whole(self.resampled(name, view, index.transpose(order)[0], None, None))
        return whole.arranged(whole.index.transpose(back).reshape(view.shape))

    def _one_scale(self, name: str, units: Sequence[Unit], step: np.ndarray | None) -> list[Unit]:
        """The units as tensors, requantised to one scale where the network fixes several for a projection."""
        units = [self.tensor(u) for u in units]
        codes = [u.code for u in units]
        if step is None or None in codes or len({c.scale for c in codes}) < 2:
            return units
        low, high = min(c.lo * c.scale for c in codes), max(c.hi * c.scale for c in codes)
        scale = (high - low) / 255
        low = int(np.rint(low / scale))
        common = Code(scale, low, low + 255, -128 - low)
        return [self.tensor(self.quantised(f"{u.name}->{name}", u, common)) for u in units]

    def quantised(self, name: str, unit: Unit, code: Code) -> Unit:
        """The unit to be held in these codes (not yet made); itself where its own codes are among them."""
        unit = self.settled(unit)
        own = unit.code
        if own is not None and own.scale == code.scale and code.lo <= own.lo and own.hi <= code.hi:
            return unit
        key = unit, code
        if key not in self._quantised:
            self._quantised[key] = replace(unit, name=name, code=code, tensor=None, sole=self.uses(name) == 1)
        return self._quantised[key]


def four_dimensional(index: np.ndarray) -> np.ndarray:
    """An ONNX shape as [1, C, H, W]: 1-D signals and vectors get axes of length 1."""
    if index.ndim == 4 and index.shape[0] == 1:
        return index
    if index.ndim == 3 and index.shape[0] == 1:
        return index[:, :, None, :]
    if index.ndim == 2 and index.shape[0] == 1:
        return index[:, :, None, None]
    raise Unsupported(f"its input has shape {list(index.shape)}; batch 1, up to two image axes are possible")


def aligned(a: View, b: View) -> bool:
    """Both views hold the same arrangement of units of the same shapes."""
    return (a.shape == b.shape and [u.shape for u in a.units] == [u.shape for u in b.units]
            and np.array_equal(a.index, b.index))

