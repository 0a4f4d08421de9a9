"""Read an ONNX file into a plain list of nodes and constants, with the errors a user can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from host.errors import UserError

DEFAULT_DOMAINS = ("", "ai.onnx")
"""The two spellings of ONNX's own operator domain."""
OLDEST_OPSET = 7
"""The first operator set in which Add, Mul and the like broadcast as NumPy does."""
INPUT_TYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT8: "int8",
               onnx.TensorProto.UINT8: "uint8"}
"""Element types that the image input may have."""
_SMALL_CONSTANT = 1024  # bytes; constants up to this size count as equal when their contents are


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """One node of the file: ``proto`` with its attributes as Python values."""

    proto: onnx.NodeProto

    @property
    def op(self) -> str:
        """Operator, with its domain when that is not ONNX's own."""
        own = self.proto.domain in DEFAULT_DOMAINS
        return self.proto.op_type if own else f"{self.proto.domain}.{self.proto.op_type}"

    @property
    def label(self) -> str:
        """The node's name, or its first output's when it has none."""
        return self.proto.name or self.outputs[0]

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs; an absent optional one is ''."""
        return tuple(self.proto.input)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs."""
        return tuple(self.proto.output)

    @cached_property
    def attributes(self) -> Mapping[str, object]:
        """Attribute values; strings as str."""
        values = {a.name: onnx.helper.get_attribute_value(a) for a in self.proto.attribute}
        return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}

    def attribute(self, name: str, default):
        """An attribute's value, or ``default`` where the node does not set it."""
        return self.attributes.get(name, default)

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Every value the node needs: its inputs and what its subgraphs take from outside."""
        return tuple(dict.fromkeys([*filter(None, self.inputs), *_captured(self.proto)]))


@dataclass(frozen=True, eq=False)
class Source:
    """An ONNX file, read: the needed nodes in their order, constants, the image input(s) and outputs."""

    path: str
    model: onnx.ModelProto
    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, np.ndarray]
    inputs: tuple[onnx.ValueInfoProto, ...]
    outputs: tuple[str, ...]

    @cached_property
    def opsets(self) -> dict[str, int]:
        """Operator set version by domain."""
        return _opsets(self.model)

    def evaluate(self, node: OnnxNode, values: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
        """The node's outputs for these input arrays, by the ONNX reference implementation."""
        named = {n: v for n, v in zip(node.inputs, values, strict=True) if n and v is not None}
        outputs = [o for o in node.outputs if o]
        graph = onnx.GraphProto(name="node", node=[node.proto],
                                input=[onnx.ValueInfoProto(name=n) for n in named],
                                output=[onnx.ValueInfoProto(name=o) for o in outputs])
        results = ReferenceEvaluator(graph, opsets=self.opsets).run(None, named)
        return tuple(np.asarray(r) for r in results)

    def constant(self, node: OnnxNode, values: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
        """``evaluate``, or onnxruntime where the reference lacks this version of the operator.

        Raises RuntimeError when neither can.
        """
        try:
            return self.evaluate(node, values)
        except Exception:  # whatever it is, onnxruntime's word is final
            try:
                return self._by_onnxruntime(node, values)
            except Exception as error:  # its errors share no other base class
                raise RuntimeError(f"it cannot be computed: {error}") from error

    def _by_onnxruntime(self, node: OnnxNode, values: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
        import onnxruntime

        constants = {n: numpy_helper.from_array(v, n)
                     for n, v in zip(node.inputs, values, strict=True) if n and v is not None}
        graph = onnx.GraphProto(name="node", node=[node.proto], initializer=constants.values(),
                                output=[onnx.ValueInfoProto(name=o) for o in node.outputs if o])
        model = onnx.helper.make_model(graph, opset_imports=list(self.model.opset_import),
                                       ir_version=self.model.ir_version)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                               providers=["CPUExecutionProvider"])
        return tuple(session.run(None, {}))


def load(path: str | Path) -> Source:
    """Read an ONNX file and its external data.

    Raises UserError with one line that names the file when it is missing, is no ONNX model or lacks a part.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable ONNX file (truncated, or another format)") from error
    if not model.graph.node or not model.opset_import:
        raise UserError(f"{path}: not an ONNX network (it holds no operators)")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        missing = sorted({entry.value for tensor in model.graph.initializer for entry in tensor.external_data
                          if entry.key == "location"})
        raise UserError(f"{path}: its weights are stored beside it in {', '.join(missing)}, "
                        "which cannot be read; keep the files together") from error
    version = _opsets(model).get("", OLDEST_OPSET)
    if version < OLDEST_OPSET:
        raise UserError(f"{path}: written for ONNX operator set {version}; {OLDEST_OPSET} or newer is read: "
                        "convert it with onnx.version_converter")
    return _source(str(path), onnx.inliner.inline_local_functions(model) if model.functions else model)


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    return {("" if o.domain in DEFAULT_DOMAINS else o.domain): o.version for o in model.opset_import}


def _source(path: str, model: onnx.ModelProto) -> Source:
    graph = model.graph
    if graph.sparse_initializer:
        raise UserError(f"{path}: sparse initialisers are not read; store the weights as plain tensors")
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    outputs = tuple(o.name for o in graph.output)
    inputs = tuple(i for i in graph.input if i.name not in constants)
    known = {*constants, *(i.name for i in inputs)}
    for proto in graph.node:
        for name in OnnxNode(proto).reads:
            if name not in known:
                raise UserError(f"{path}: node {OnnxNode(proto).label!r} reads {name!r}, which nothing "
                                "before it makes; the file is damaged")
        known.update(proto.output)
    if missing := [o for o in outputs if o not in known]:
        raise UserError(f"{path}: nothing makes its output {missing[0]!r}; the file is damaged")
    nodes = _merge_duplicates([OnnxNode(n) for n in graph.node], constants, outputs)
    return Source(path, model, _needed(nodes, outputs), constants, inputs, outputs)


def _needed(nodes: Sequence[OnnxNode], outputs: Sequence[str]) -> tuple[OnnxNode, ...]:
    """The nodes that some network output depends on."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.reads)
    return tuple(reversed(kept))


def _merge_duplicates(nodes: Sequence[OnnxNode], constants: Mapping[str, np.ndarray],
                      outputs: Sequence[str]) -> list[OnnxNode]:
    """Drop nodes that compute what an earlier node did, so that a repeated step is one tensor."""
    alias: dict[str, str] = {}
    seen: dict[tuple, OnnxNode] = {}
    contents: dict[tuple, str] = {}
    for name, array in constants.items():
        if array.nbytes <= _SMALL_CONSTANT:
            alias[name] = contents.setdefault((array.dtype.str, array.shape, array.tobytes()), name)
    fixed = {*outputs, *(name for node in nodes for name in _captured(node.proto))}
    kept = []
    for node in nodes:
        node = _renamed(node, alias)
        key = (node.op, node.inputs, len(node.outputs),
               tuple(sorted(a.SerializeToString() for a in node.proto.attribute)))
        first = seen.setdefault(key, node)
        if first is node or node.op.startswith("Random") or fixed.intersection(node.outputs):
            kept.append(node)
        else:
            alias.update(zip(node.outputs, first.outputs, strict=True))
    return kept


def _renamed(node: OnnxNode, alias: Mapping[str, str]) -> OnnxNode:
    if not any(i in alias for i in node.inputs):
        return node
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    proto.input[:] = [alias.get(i, i) for i in proto.input]
    return OnnxNode(proto)


def _captured(proto: onnx.NodeProto) -> list[str]:
    """Outer values that the node's subgraphs (If, Loop, Scan) read."""
    names = []
    for attribute in proto.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
            for node in graph.node:
                names += [i for i in [*node.input, *_captured(node)] if i and i not in own]
                own.update(node.output)
            names += [o.name for o in graph.output if o.name not in own]
    return names
