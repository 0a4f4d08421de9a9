"""The image input: which array it is, and how its elements lie in the graph's input tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from host.network import NetworkInput
from host.onnx_import.builder import Builder, four_dimensional
from host.onnx_import.errors import Unsupported
from host.onnx_import.loader import INPUT_TYPES, OnnxNode, Source
from host.onnx_import.ops_codes import code_of, integer_code
from host.onnx_import.plan import Plan
from host.onnx_import.registry import OPERATORS, Context, Kind, call
from host.onnx_import.values import Unit, Value, View
from sim.graph import Code, Tensor

_FIXED = ("give it a fixed one, for example with `python -m onnxruntime.tools.make_dynamic_shape_fixed "
          "--input_name NAME --input_shape 1,3,224,224`")


@dataclass(frozen=True)
class Arrangement:
    """How the input is used first: its elements there (``index`` from 1), its codes, the tensor's name."""

    index: np.ndarray
    code: Code | None
    name: str


def check_input(info: onnx.ValueInfoProto) -> list[str]:
    """What is wrong with a declared input, in plain words."""
    kind = info.type.tensor_type
    found = []
    if kind.elem_type not in INPUT_TYPES:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        found.append(f"its type is {name}; an image is float, int8 or uint8 (convert float16 to float32)")
    named = [d.dim_param or "?" for d in kind.shape.dim if not d.dim_value]
    if named or not kind.shape.dim:
        found.append(f"its shape is dynamic ({', '.join(named) or 'not given'}); {_FIXED}")
    elif kind.shape.dim[0].dim_value != 1 and len(kind.shape.dim) in (2, 4):
        found.append(f"its batch is {kind.shape.dim[0].dim_value}; one frame at a time is possible: "
                     "export with batch 1")
    return found


def image_input(source: Source, plan: Plan, builder: Builder, info: onnx.ValueInfoProto,
                constants: Mapping[str, Value]) -> tuple[NetworkInput, View]:
    """Make the input tensor, laid out as its first layer reads it, and the ONNX input as a view of it."""
    shape = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    dtype = INPUT_TYPES[info.type.tensor_type.elem_type]
    first = _first_use(source, plan, builder, info.name, shape, dtype, constants)
    positions = _layout(first.index, shape)
    tensor = Tensor(builder.unique(first.name), positions.shape, first.code)
    unit = builder.add_tensor(tensor)
    back = np.empty(positions.size, np.int64)
    back[positions.ravel()] = np.arange(1, positions.size + 1)
    stored = None if dtype == "float32" else first.code or integer_code(1.0, 0, dtype)
    view = View((unit,), back.reshape(shape), stored)
    return NetworkInput(info.name, shape, dtype, positions, stored), view


def _first_use(source: Source, plan: Plan, builder: Builder, name: str, shape: tuple[int, ...], dtype: str,
               constants: Mapping[str, Value]) -> Arrangement:
    """Follow the input through views and elementwise operators to the first layer or pool."""
    size = int(np.prod(shape))
    plain = View((Unit("", (size, 1, 1), ()),), np.arange(1, size + 1).reshape(shape))
    known, found, untouched = {name: plain}, Arrangement(plain.index, None, name), {name}
    for node in source.nodes:
        op, data = OPERATORS.get(node.op), [i for i in node.inputs if i in known]
        if not data or op is None:
            continue
        if op.kind in (Kind.LAYER, Kind.SPATIAL):
            return replace(found, index=known[data[0]].index)
        args = [known.get(i, constants.get(i)) if i else None for i in node.inputs]
        if any(i and a is None for i, a in zip(node.inputs, args, strict=True)):
            continue
        results = [known[data[0]]]
        try:
            if op.kind is Kind.VIEW:
                results = call(op.run, Context(source, builder), node, args)
            elif op.kind is Kind.CODES and data[0] in untouched:
                found = call(_coded, found, plan, node, args, dtype, name)
        except Unsupported:
            continue
        known |= {o: r for o, r in zip(node.outputs, results, strict=False) if isinstance(r, View)}
        if data[0] in untouched and op.transparent:
            untouched.update(node.outputs)
    return found


def _coded(found: Arrangement, plan: Plan, node: OnnxNode, args: list[Value | None], dtype: str,
           name: str) -> Arrangement:
    """The input's codes: of its first DequantizeLinear or Cast, or of a float input's only QuantizeLinear."""
    if found.code is not None:
        return found
    if dtype == "float32":
        whole = node.op == "QuantizeLinear" and plan.uses[name] == 1
        return replace(found, code=code_of(node, args), name=node.outputs[0]) if whole else found
    code = integer_code(1.0, 0, dtype) if node.op == "Cast" else code_of(node, args, dtype)
    return replace(found, code=code)


def _layout(index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """int64[C, H, W]: flat position in the ONNX array of each element of the input tensor."""
    plain = np.arange(np.prod(shape)).reshape(shape)
    for candidate in (index, plain + 1):
        try:
            planes = four_dimensional(candidate)[0]
        except Unsupported:
            continue
        for axis in range(3):  # zero padding is not part of the image
            other = tuple(a for a in range(3) if a != axis)
            planes = np.compress((planes > 0).any(axis=other), planes, axis)
        if planes.size == plain.size and np.array_equal(np.sort(planes.ravel()), plain.ravel() + 1):
            return planes - 1
    return plain if plain.ndim == 3 else plain.reshape(-1, 1, 1)


