"""Operators that only move elements about: evaluated on the index arrays, they cost nothing later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from host.onnx_import.errors import Unsupported
from host.onnx_import.loader import OnnxNode
from host.onnx_import.registry import Context, Kind, operator
from host.onnx_import.values import Const, Value, View, join

_INDEX = "a view: no work, no memory"


@operator("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice", "Gather", "Expand",
          "Tile", "DepthToSpace", "SpaceToDepth", kind=Kind.VIEW, becomes=_INDEX,
          limits="constant shapes, axes and indices; a convolution after it must find whole image planes "
                 "(cropped, padded, strided, repeated, interleaved), a fully connected layer any order")
@operator("Concat", kind=Kind.VIEW, becomes="a view: one edge per producer in every layer that reads it",
          limits="constants only if all zero")
def rearrange(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> Sequence[View]:
    """Evaluate the operator on its index arrays."""
    data = range(len(args)) if node.op == "Concat" else (0,)
    for i, arg in enumerate(args):
        if isinstance(arg, View) and i not in data:
            raise Unsupported("its shape or indices depend on the image; only constants are possible")
        if isinstance(arg, Const) and i in data and arg.array.any():
            raise Unsupported("it joins a constant to the image data; only zeros are possible")
    views = [a for a in args if isinstance(a, View)]
    codes = {v.code for v in views}
    if len(codes) > 1 or (None not in codes and len(views) < len(data)):
        raise Unsupported("it joins integers of different scales; join them after DequantizeLinear")
    units, indices = join(views)
    found = iter(indices)
    arrays = [next(found) if isinstance(a, View) else a if a is None else
              np.zeros(a.array.shape, np.int64) if i in data else a.array for i, a in enumerate(args)]
    joined = View(units, indices[0], codes.pop())
    return [joined.arranged(out) for out in context.source.evaluate(node, arrays)]


@operator("Identity", "Dropout", kind=Kind.VIEW, becomes=_INDEX, limits="inference only")
def same(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> Sequence[Value]:
    """The value itself (and Dropout's mask, all true)."""
    if len(args) > 2 and (not isinstance(args[2], Const) or args[2].array.any()):
        raise Unsupported("it is in training mode; export the network for inference")
    return args[0], Const(np.ones(args[0].shape, bool))


@operator("Pad", kind=Kind.VIEW, becomes="a view: merged into the geometry of the next layer",
          limits="constant 0 (integers: the zero point), `reflect`, `edge`, `wrap`; no negative pads")
def pad(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> Sequence[View]:
    """Pad the index array with zeros, or repeat border elements."""
    view, *rest = args
    if node.attribute("mode", "constant") == "constant":
        value = rest[1] if len(rest) > 1 else None
        value = value.array if isinstance(value, Const) else node.attribute("value", 0.0)
        zero = 0 if view.code is None else view.code.zero_point
        if np.any(np.asarray(value) != zero):
            raise Unsupported(f"it pads with {np.asarray(value).item()}; only {zero} is possible here")
        nothing = Const(np.zeros((), np.int64))
        rest = [nothing if i == 1 and a is not None else a for i, a in enumerate(rest)]
    return rearrange(context, node, [view, *rest])


def broadcast(view: View, shape: Sequence[int]) -> View:
    """The view repeated to a larger shape, as NumPy and ONNX broadcast."""
    shape = np.broadcast_shapes(view.shape, tuple(shape))
    return view if shape == view.shape else replace(view, index=np.broadcast_to(view.index, shape))
