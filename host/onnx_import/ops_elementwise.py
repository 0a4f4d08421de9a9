"""Operators on single elements: activations, clips, and sums and products with constants per channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from host.onnx_import.builder import NCHW_TO_NHWC, NHWC_TO_NCHW, Builder, aligned, four_dimensional
from host.onnx_import.errors import Unsupported
from host.onnx_import.loader import OnnxNode
from host.onnx_import.ops_view import broadcast
from host.onnx_import.registry import Context, Kind, operator, real, weights
from host.onnx_import.values import Clip, Const, Linear, Term, Unit, Value, View
from sim.graph import Geometry

_HUGE = float(np.finfo(np.float32).max)
_FOLDED = "folded into the layer before it; after anything else a depthwise 1x1 edge"


# ---- activations

@operator("Relu", "LeakyRelu", "PRelu", "Abs", kind=Kind.ELEMENTWISE,
          becomes="the slope of negative values in the node", limits="PRelu: one slope per channel")
def activation(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """A factor on negative values: 0, alpha, per channel, or -1."""
    view = real(args[0])
    slope = {"Relu": lambda: 0.0, "Abs": lambda: -1.0, "LeakyRelu": lambda: node.attribute("alpha", 0.01),
             "PRelu": lambda: weights(args[1], "slope")}[node.op]()
    slope = np.asarray(slope, np.float64)
    slopes = per_channel(view, slope, 1.0)
    if slopes is None:  # a channel that stands in the view twice has two slopes
        view = context.builder.gathered(f"{node.outputs[0]}/in", view)
        slopes = per_channel(view, slope, 1.0)
    if slopes is None:
        raise Unsupported("its slope varies over the image; one slope per channel is possible")
    return each_unit(context.builder, node.outputs[0], view,
                     lambda i, name, unit: activated(context.builder, name, unit, slopes[i]))


@operator("Clip", "Max", "Min", kind=Kind.ELEMENTWISE, becomes="the clip in the node (ReLU6 is 0..6)",
          limits="constant bounds, the same for all elements")
def clip(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Lower and upper bound; Max and Min with a constant are one-sided clips."""
    if node.op == "Clip":
        data, *given = args
        bounds = [*given, None, None] if given else [node.attribute(n, None) for n in ("min", "max")]
    else:
        data, *given = sorted(args, key=lambda a: isinstance(a, Const))
        if len(given) != 1 or not isinstance(given[0], Const):
            raise Unsupported("it compares two maps; only a map with one constant is possible")
        bounds = [given[0], None] if node.op == "Max" else [None, given[0]]
    low, high = (_bound(b) for b in bounds[:2])
    if low is not None and high is not None and low > high:
        raise Unsupported(f"its lower bound {low} is above its upper bound {high}")
    view = real(data)
    if view.padded and ((low or 0) > 0 or (high or 0) < 0):
        view = context.builder.gathered(f"{node.outputs[0]}/in", view)
    return each_unit(context.builder, node.outputs[0], view,
                     lambda i, name, unit: clipped(context.builder, name, unit, (low, high)))


def _bound(value: Value | float | None) -> float | None:
    """A clip's bound; None when it is absent or beyond every float32."""
    if value is None:
        return None
    if isinstance(value, Const) and value.array.size != 1:
        raise Unsupported("its bounds differ between elements; one bound for all is possible")
    if isinstance(value, Const) and np.isinf(value.array).all():
        return None
    number = float(weights(value, "bound").item() if isinstance(value, Const) else value)
    return None if abs(number) >= _HUGE else number


@operator("Sign", kind=Kind.ELEMENTWISE, becomes="a sign node (-1, 0, 1)")
def sign(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Sign of the sum in the node; it commutes with max-pooling."""
    b = context.builder

    def signed(_: int, name: str, unit: Unit) -> Unit:
        unit = own_sum(b, b.settled(unit))
        if unit.slope is not None or unit.clip != (None, None) or unit.sign:
            unit = b.tensor(unit)
        return derived(b, name, unit, sign=True)

    return each_unit(context.builder, node.outputs[0], real(args[0]), signed)


def activated(b: Builder, name: str, unit: Unit, slope: np.ndarray) -> Unit:
    """The unit with its negative values multiplied by ``slope[C]``."""
    unit = own_sum(b, b.settled(unit))
    if (slope == 1).all() or nowhere_negative(unit):
        return unit
    ordered = unit.slope is None or (unit.slope >= 0).all()
    if unit.sign or unit.clip != (None, None) or not ordered or (unit.pool is not None and (slope < 0).any()):
        unit = b.tensor(unit)
    total = slope if unit.slope is None else slope * unit.slope
    if len(unit.terms) == 2 and not np.isin(total, (0, 1)).all():
        unit, total = b.tensor(unit), slope
    return derived(b, name, unit, slope=total)


def clipped(b: Builder, name: str, unit: Unit, bounds: Clip) -> Unit:
    """The unit limited to the bounds; a clip commutes with max-pooling."""
    unit = own_sum(b, b.settled(unit))
    (low, high), code = bounds, unit.code
    if code is not None and ((low is None or low <= code.lo * code.scale)
                             and (high is None or code.hi * code.scale <= high)):
        return unit
    if unit.sign:
        unit = b.tensor(unit)
    return derived(b, name, unit, clip=tuple(new if old is None else _within(old, bounds)
                                             for old, new in zip(unit.clip, bounds, strict=True)))


def _within(value: float, bounds: Clip) -> float:
    """An earlier bound after a second clip."""
    low, high = bounds
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def nowhere_negative(unit: Unit) -> bool:
    """Every value is known to be 0 or more."""
    return ((unit.code is not None and unit.code.lo >= 0)
            or (not unit.sign and ((unit.clip[0] is not None and unit.clip[0] >= 0)
                                   or (unit.slope is not None and (unit.slope == 0).all()
                                       and (unit.clip[1] is None or unit.clip[1] >= 0)))))


def own_sum(b: Builder, unit: Unit) -> Unit:
    """The unit; a sum of two operands that others use as well is made a tensor first, not added twice.

    In a network with its own scales it is added twice: a tensor in between would need a scale of ours.
    """
    return b.tensor(unit) if len(unit.terms) == 2 and not unit.sole and not b.scaled(unit) else unit


def derived(b: Builder, name: str, unit: Unit, **changes) -> Unit:
    """A further step on a unit."""
    return replace(unit, name=name, sole=unit.sole and b.uses(name) == 1, tensor=None, code=None, **changes)


def each_unit(b: Builder, name: str, view: View, step: Callable[[int, str, Unit], Unit]) -> View:
    """Apply ``step(number, name, unit)`` to every unit of a view.

    A unit that is all of the view has the value's name; others are called name[0], name[1], ...
    """
    names = [name] if is_whole(view) else [b.part(name, i) for i in range(len(view.units))]
    return view.with_units([step(i, n, u) for i, (n, u) in enumerate(zip(names, view.units, strict=True))])


def is_whole(view: View) -> bool:
    """One unit, all of it in its own order, with its channels first or last."""
    if len(view.units) > 1 or view.index.size != view.units[0].size:
        return False
    whole = View.whole(view.units[0]).index
    return (np.array_equal(view.index.ravel(), whole.ravel())
            or np.array_equal(view.index, whole.transpose(NCHW_TO_NHWC)))


def per_channel(view: View, values: np.ndarray, fill: float) -> list[np.ndarray] | None:
    """Values broadcast over a view, as one array [C] per unit (``fill`` where unused).

    None when they differ within a channel.
    """
    channels = view.layout.first_channel
    if values.size == 1:
        return [np.full(u.shape[0], values.item(), np.float64) for u in view.units]
    index, flat = view.index, np.broadcast_to(values, view.shape)
    axes = (1,) * (index.ndim - values.ndim) + values.shape
    if index.ndim > 1 and axes[1] == values.size == index[0].shape[0] and len(index) == 1:
        rows = index.reshape(values.size, -1)
        ends = np.stack([rows.min(axis=1), rows.max(axis=1)])
        if ends.all() and np.equal(*view.layout.channel(ends)).all():  # each entry's elements in one channel
            index, flat = ends[0], values
    channel = view.layout.channel(index).ravel()
    flat, channel = flat.ravel()[channel >= 0], channel[channel >= 0]
    found = np.full(channels[-1], fill, np.float64)
    found[channel] = flat
    return None if (found[channel] != flat).any() else np.split(found, channels[1:-1])


# ---- constants per channel

@operator("BatchNormalization", kind=Kind.ELEMENTWISE, becomes=_FOLDED, limits="inference form")
def batch_normalisation(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """``(x - mean) / sqrt(var + epsilon) * scale + bias`` per channel."""
    if node.attribute("training_mode", 0) or len([o for o in node.outputs if o]) > 1:
        raise Unsupported("it is in training mode; export the network for inference")
    view = real(args[0])
    scale, bias, mean, variance = (weights(a, what).reshape(-1, *[1] * (len(view.shape) - 2)) for a, what in
                                   zip(args[1:5], ("scale", "bias", "mean", "variance"), strict=True))
    factor = scale / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    return affine(context.builder, node.outputs[0], view, factor, bias - mean * factor)


@operator("Mul", "Div", "Neg", kind=Kind.ELEMENTWISE, becomes=_FOLDED, limits="by a constant per channel")
def scale(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """A factor per channel."""
    if node.op == "Neg":
        return affine(context.builder, node.outputs[0], real(args[0]), np.array(-1.0), np.array(0.0))
    data, constant = args
    if node.op == "Mul" and isinstance(data, Const):
        data, constant = constant, data
    if not isinstance(data, View) or not isinstance(constant, Const):
        raise Unsupported("it multiplies or divides two maps, which is not linear; one may be a constant"
                          if isinstance(data, View) else "it divides by a map, which is not linear")
    factor = weights(constant, "factor")
    if node.op == "Div" and not factor.all():
        raise Unsupported("it divides by zero")
    return affine(context.builder, node.outputs[0], real(data), factor if node.op == "Mul" else 1 / factor,
                  np.array(0.0))


def affine(b: Builder, name: str, view: View, factor: np.ndarray, shift: np.ndarray) -> View:
    """``factor * view + shift``, both broadcast over the view."""
    view = broadcast(view, np.broadcast_shapes(factor.shape, shift.shape))
    factors, shifts = per_channel(view, factor, 1.0), per_channel(view, shift, 0.0)
    if factors is not None and shifts is not None and not (view.padded and shift.any()):
        units = [_folded(b, u, f, s) for u, f, s in zip(view.units, factors, shifts, strict=True)]
        if None not in units:
            return each_unit(b, name, view, lambda i, name, old: units[i] if units[i] is b.made(old) else
                             replace(units[i], name=name, sole=units[i].sole and b.uses(name) == 1))
    for order, back in (((0, 1, 2, 3), (0, 1, 2, 3)), (NHWC_TO_NCHW, NCHW_TO_NHWC)):
        index, f, s = (four_dimensional(np.broadcast_to(a, view.shape)).transpose(order)[0]
                       for a in (view.index, factor, shift))
        if (f == f[:, :1, :1]).all() and (s == s[:, :1, :1]).all():
            f, s = f[:, 0, 0], s[:, 0, 0]
            unit = b.convolution(name, view, index, f[:, None, None, None], Geometry(), index.shape[1:],
                                 len(f), s, np.where(f == 0, 1, abs(f)))
            whole = View.whole(unit)
            return whole.arranged(whole.index.transpose(back).reshape(view.shape))
    raise Unsupported("its constant varies over the image; one value per channel is possible")


def _folded(b: Builder, unit: Unit, factor: np.ndarray, shift: np.ndarray) -> Unit | None:
    """``factor * unit + shift`` by changing the unit's own layer or bias; None if there is none to change."""
    unit = b.made(unit)
    if (factor == 1).all() and not shift.any():
        return unit
    layers = [t for t in unit.terms if isinstance(t.source, Linear) and t.branch is None]
    if not unit.plain or unit.code is not None or not layers:
        return None
    if (factor != 1).any():
        if not unit.sole or len(layers) < len(unit.terms):
            return None
        layers = [replace(t, source=t.source.scaled(factor), bias=t.bias * factor) for t in layers]
    biased = replace(layers[0], bias=layers[0].bias + shift)
    return replace(unit, terms=(biased, *(t for t in (layers if (factor != 1).any() else unit.terms)
                                          if t is not layers[0])))


# ---- sums

@operator("Add", "Sub", "Sum", kind=Kind.ELEMENTWISE, limits="constants: one value per channel",
          becomes="the node's second operand (residual sum), or one projection fed by both layers; with a "
                  "constant: the bias")
def add(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Sum of maps and constants, or a difference."""
    b, name = context.builder, node.outputs[0]
    one, zero = np.array(1.0), np.array(0.0)
    if node.op == "Sub":
        first, second = args
        if isinstance(second, Const):
            return affine(b, name, real(first), one, -weights(second, "constant"))
        if isinstance(first, Const):
            return affine(b, name, real(second), -one, weights(first, "constant"))
        return summed(b, name, real(first), affine(b, f"{name}/minus", real(second), -one, zero))
    views = [real(a) for a in args if not isinstance(a, Const)]
    constants = sum((weights(a, "constant") for a in args if isinstance(a, Const)), start=zero)
    extra = len(views) < len(args)
    total = views[0]
    for i, view in enumerate(views[1:], 2):
        total = summed(b, f"{name}/{i}" if extra or i < len(views) else name, total, view)
    return affine(b, name, total, one, constants) if extra else total


def summed(b: Builder, name: str, x: View, y: View) -> View:
    """Sum of two views: unit by unit where they are arranged alike, else gathered into one unit each."""
    x, y = broadcast(x, y.shape), broadcast(y, x.shape)
    if not aligned(x, y):
        x, y = (v if is_whole(v) and len(v.shape) == 4 else b.gathered(f"{name}/{side}", v)
                for v, side in ((x, "a"), (y, "b")))
    if not aligned(x, y):
        raise Unsupported("its inputs are arranged differently (one of them transposed)")
    return each_unit(b, name, x, lambda i, name, unit: _sum(b, name, unit, y.units[i]))


def _sum(b: Builder, name: str, u: Unit, v: Unit) -> Unit:
    """Unit of u + v: at most two operands, pending float layers merged into one projection."""
    addends = [_addends(b, u), _addends(b, v)]
    terms = _merged(b, name, [*addends[0], *addends[1]])
    for i, unit in enumerate((u, v)):
        if len(terms) > 2 and len(addends[i]) == 2:
            addends[i] = b.tensor(unit).terms
            terms = _merged(b, name, [*addends[0], *addends[1]])
    return Unit(name, u.shape, tuple(terms), sole=b.uses(name) == 1)


def _addends(b: Builder, unit: Unit) -> tuple[Term, ...]:
    """The unit as operands of a sum: its own terms where nothing else needs it, else its tensor."""
    unit = b.made(unit)
    if unit.sole and unit.code is not None and unit.projection:
        return (replace(unit.terms[0], branch=unit.code),)
    if unit.code is None and unit.plain and (unit.sole or b.scaled(unit)):
        return unit.terms
    return b.tensor(unit).terms


def _merged(b: Builder, name: str, terms: Sequence[Term]) -> list[Term]:
    """Terms with the layers whose scales are still free merged into one."""
    free = [t for t in terms
            if isinstance(t.source, Linear) and t.branch is None and b.scale(t.source) is None]
    if len(free) < 2:
        return list(terms)
    layer = Linear(f"{name}#P", free[0].source.shape, tuple(e for t in free for e in t.source.edges))
    return [Term(layer, sum(t.bias for t in free)), *(t for t in terms if not any(t is f for f in free))]
