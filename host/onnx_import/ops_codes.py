"""Networks that bring their own integers: QuantizeLinear fixes codes, DequantizeLinear reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from host.onnx_import.errors import Unsupported
from host.onnx_import.loader import OnnxNode
from host.onnx_import.ops_elementwise import affine, each_unit
from host.onnx_import.registry import Context, Kind, operator, real
from host.onnx_import.values import Const, Value, View
from sim.graph import Code

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


def integer_code(scale: float, zero_point: int, dtype: str) -> Code:
    """The code with which 8-bit integers of this type, scale and zero point are read."""
    low, high = _RANGES[dtype]
    return Code(scale, low - zero_point, high - zero_point, zero_point)


def code_of(node: OnnxNode, args: Sequence[Value | None], dtype: str | None = None) -> Code:
    """The code that a QuantizeLinear or DequantizeLinear stands for; ``dtype`` where it has no zero point."""
    scale, zero = args[1], args[2] if len(args) > 2 else None
    if not isinstance(scale, Const) or not isinstance(zero, Const | None):
        raise Unsupported("its scale or zero point depends on the image; use static quantisation")
    if scale.array.size != 1:
        raise Unsupported("it has one scale per channel; activations have one scale per tensor")
    if zero is not None:
        dtype = zero.array.dtype.name
    elif dtype is None:
        asked = node.attribute("output_dtype", 0) or onnx.TensorProto.UINT8
        dtype = onnx.TensorProto.DataType.Name(asked).lower()
    if dtype not in _RANGES:
        raise Unsupported(f"it uses {dtype}; activations are int8 or uint8")
    value = float(scale.array.item())
    if not (np.isfinite(value) and value > 0):
        raise Unsupported(f"its scale is {value}; it must be positive")
    return integer_code(value, 0 if zero is None else int(zero.array.item()), dtype)


@operator("QuantizeLinear", kind=Kind.CODES, becomes="a tensor with this scale and zero point, named as its "
          "output; of a layer that only an Add reads: an operand's own code, no tensor", anchors=True,
          limits="one scale per tensor, int8 or uint8")
def quantize(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Fix the codes of a tensor."""
    code, b = code_of(node, args), context.builder
    view = each_unit(b, node.outputs[0], real(args[0]), lambda _, name, unit: b.quantised(name, unit, code))
    return replace(view, code=code)


@operator("DequantizeLinear", kind=Kind.CODES, anchors=False,
          becomes="the tensor's real value; of constants: exact integer weights",
          limits="one scale per tensor for activations; per tensor or per channel for weights")
def dequantize(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Read integers with a scale and zero point, normally those they were made with."""
    view = args[0]
    if not isinstance(view, View) or view.code is None:
        raise Unsupported("its input is not an 8-bit activation")
    dtype = "int8" if view.code.lo + view.code.zero_point < 0 else "uint8"
    return _read(context, node.outputs[0], view, code_of(node, args, dtype))


@operator("Cast", kind=Kind.CODES, becomes="a view; of an integer input: its values as they are",
          limits="to float32", anchors=False)
def cast(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Float to float, or the integers of an image as real numbers."""
    if node.attributes["to"] != onnx.TensorProto.FLOAT:
        raise Unsupported(f"it converts to {onnx.TensorProto.DataType.Name(node.attributes['to']).lower()}; "
                          "activations stay float32 or are quantised by QuantizeLinear")
    view = args[0]
    if view.code is None:
        return view
    return _read(context, node.outputs[0], view, replace(view.code, scale=1.0, zero_point=0))


def _read(context: Context, name: str, view: View, code: Code) -> View:
    """An integer view as real numbers ``code.scale * (q - code.zero_point)``."""
    own, plain = view.code, replace(view, code=None)
    if (own.scale, own.zero_point) == (code.scale, code.zero_point):
        return plain
    shift = (own.zero_point - code.zero_point) * code.scale
    return affine(context.builder, name, plain, np.array(code.scale / own.scale), np.array(shift))


def dequantised_constant(node: OnnxNode, args: Sequence[Const | None]) -> Const:
    """A dequantised weight or bias with its exact values and integer steps."""
    q, scale = args[0].array, args[1].array.astype(np.float64)
    zero = np.zeros(()) if len(args) < 3 or args[2] is None else args[2].array.astype(np.float64)
    if scale.ndim == 1 and q.ndim:
        axis = node.attribute("axis", 1) % q.ndim
        along = [-1 if a == axis else 1 for a in range(q.ndim)]
        scale = scale.reshape(along if scale.size > 1 else [1] * q.ndim)
        zero = zero.reshape(along) if zero.size > 1 else zero.reshape([1] * q.ndim)
    step = np.broadcast_to(scale, q.shape) if q.dtype.itemsize == 1 and (scale > 0).all() else None
    exact = (q.astype(np.float64) - zero) * scale
    return Const(exact.astype(args[1].array.dtype), exact, step)
