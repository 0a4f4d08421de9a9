"""The walk over an ONNX file that turns it into a ``Network`` in real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from host.errors import UnsupportedNetwork
from host.network import Network, NetworkInput
from host.onnx_import import ops_layer, ops_spatial, ops_view  # noqa: F401 (they fill the operator table)
from host.onnx_import.builder import Builder
from host.onnx_import.errors import Unsupported
from host.onnx_import.inputs import check_input, image_input
from host.onnx_import.loader import OnnxNode, load
from host.onnx_import.ops_codes import dequantised_constant
from host.onnx_import.plan import SHAPE_OPERATORS, Plan
from host.onnx_import.registry import OPERATORS, Context, Kind, call
from host.onnx_import.tail import Tail
from host.onnx_import.values import HOST, UNKNOWN, Const, Value, View
from sim.graph import Graph

_GATES = ("Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus",
          "Softsign", "Tanh", "Erf", "Exp", "Softmax", "LogSoftmax")
_NORMALISERS = ("LRN", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "LpNormalization",
                "MeanVarianceNormalization", "RMSNormalization")
_INTEGER_FORM = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")


def import_onnx(path: str | Path) -> Network:
    """Read an ONNX file into a network whose graph is in real numbers.

    Networks with QuantizeLinear/DequantizeLinear keep their own scales: ``Tensor.code``, ``Projection.scale``
    and ``Operand.branch`` are then set. A tensor's name is the ONNX value it holds, after the last operator
    fused into it (in QDQ networks the output of the QuantizeLinear), with ``[i]`` behind it where it is only
    a part of that value; a projection's is the layer's output with ``#P`` behind it.

    Raises UserError when the file cannot be read, and UnsupportedNetwork with every part that cannot run.
    """
    return _Walk(path).network()


class _Walk:
    def __init__(self, path: str | Path) -> None:
        self.source = load(path)
        self.plan = Plan.of(self.source)
        self.builder = Builder(self.plan.uses)
        self.context = Context(self.source, self.builder)
        self.values: dict[str, Value] = {n: Const(a) for n, a in self.source.constants.items()}
        self.problems: list[tuple[str, str, str]] = []
        self.host_nodes: list[OnnxNode] = []

    def network(self) -> Network:
        """Fold constants, make the input, walk the nodes, cut the tail."""
        for node in self.source.nodes:
            if all(n in self.values for n in node.reads):
                self._step(node)
        image = self._input()
        for node in self.source.nodes:
            if node.outputs[0] not in self.values:
                self._step(node)
        if self.problems:
            raise UnsupportedNetwork(self.source.path, self.problems)
        tail = Tail.cut(self.source, self.builder, self.values, self.host_nodes)
        name, b = Path(self.source.path).stem, self.builder
        if not b.edges:
            raise UnsupportedNetwork(self.source.path, [
                (name, "network", "it has no convolution or other layer that the accelerator could run")])
        graph = Graph(name, next(iter(b.tensors)), b.tensors, b.projections, tuple(b.edges), tuple(b.nodes),
                      tuple(tail.handed.values()))
        graph.validate()
        return Network(name, graph, image, tail.outputs, tail.model)

    def _input(self) -> NetworkInput | None:
        """Make the one image input; other inputs and unusable ones become problems."""
        used = {r for n in self.source.nodes for r in n.reads} | set(self.source.outputs)
        inputs = [i for i in self.source.inputs if i.name in used]
        if not inputs:
            name = self.source.model.graph.name or "graph"
            self.problems.append((name, "Input", "the network reads no image"))
            return None
        for extra in inputs[1:]:
            self.problems.append((extra.name, "Input", f"a second input beside {inputs[0].name!r}; one image "
                                  "input is possible: make the others constants"))
            self.values[extra.name] = UNKNOWN
        found = check_input(inputs[0])
        if found:
            self.problems += [(inputs[0].name, "Input", text) for text in found]
            self.values[inputs[0].name] = UNKNOWN
            return None
        image, view = image_input(self.source, self.plan, self.builder, inputs[0], self.values)
        self.values[inputs[0].name] = view
        return image

    # ---- one node

    def _step(self, node: OnnxNode) -> None:
        """Make the node's outputs; what cannot run is noted, or left to the host if no layer follows."""
        try:
            results = self._results(node)
        except Unsupported as problem:
            results = self._refused(node, str(problem))
        results = [results] if isinstance(results, Value) else list(results)
        names = [o for o in node.outputs if o]
        self.values |= dict(zip(names, results[:len(names)], strict=True))

    def _results(self, node: OnnxNode) -> Value | Sequence[Value]:
        reads = [self.values[r] for r in node.reads]
        args = [self.values[i] if i else None for i in node.inputs]
        op = OPERATORS.get(node.op)
        if all(isinstance(r, Const) for r in reads):
            return self._folded(node, args)
        if UNKNOWN in reads:
            self._check_blind(node, args)
            return [UNKNOWN] * len(node.outputs)
        if node.op in SHAPE_OPERATORS and isinstance(args[0], View):
            return [Const(a) for a in self.source.evaluate(node, [args[0].index])]
        on_board = node in self.plan.device or (op is not None and op.kind in (Kind.VIEW, Kind.CODES))
        if HOST in reads or not on_board:
            return self._on_host(node)
        if op is None:
            raise Unsupported(self._why(node))
        results = call(op.run, self.context, node, args)
        results = [results] if isinstance(results, Value) else results
        padded = any(isinstance(r, View) and r.padded for r in results)
        return self._on_host(node) if padded and node not in self.plan.device else results

    def _folded(self, node: OnnxNode, args: Sequence[Const | None]) -> Sequence[Const]:
        """A node of constants, evaluated; dequantised weights keep their integer steps through views."""
        with np.errstate(all="ignore"):
            if node.op == "DequantizeLinear" and not node.attribute("block_size", 0):
                return [dequantised_constant(node, args)]
            arrays = call(self.source.constant, node, [None if a is None else a.array for a in args])
            op = OPERATORS.get(node.op)
            moves = op is not None and op.kind is Kind.VIEW and node.op != "Concat"
            if not moves or args[0].step is None:
                return [Const(a) for a in arrays]
            rest = [None if a is None else a.array for a in args[1:]]
            exact, step = (self.source.evaluate(node, [a, *rest]) for a in (args[0].exact, args[0].step))
        return [Const(*parts) for parts in zip(arrays, exact, step, strict=True)]

    def _on_host(self, node: OnnxNode) -> list[Value]:
        self.host_nodes.append(node)
        return [HOST] * len(node.outputs)

    def _refused(self, node: OnnxNode, reason: str) -> list[Value]:
        if self.plan.next_layer[node] is None:
            return self._on_host(node)
        self.problems.append((node.label, node.op, reason))
        return [UNKNOWN] * len(node.outputs)

    def _check_blind(self, node: OnnxNode, args: Sequence[Value | None]) -> None:
        """Note what is wrong with a node whose input could not be made."""
        if self.plan.next_layer[node] is None:
            return
        if node.op not in OPERATORS and node.op not in SHAPE_OPERATORS:
            raise Unsupported(self._why(node))
        if node.op in OPERATORS and OPERATORS[node.op].kind is Kind.LAYER and any(
                isinstance(a, Const) and not np.isfinite(a.real).all() for a in args):
            raise Unsupported("its weights hold NaN or infinity")

    def _why(self, node: OnnxNode) -> str:
        """Why an operator without a handler cannot run, and what to do."""
        behind = self.plan.next_layer[node]
        cut = f"or cut the file before it (onnx.utils.extract_model): layer {behind!r} comes after it"
        if node.op in _GATES:
            return f"it is not piecewise linear; train with Relu, LeakyRelu, PRelu or Clip instead, {cut}"
        if node.op in _NORMALISERS:
            return f"it normalises by the frame's own values; train with BatchNormalization instead, {cut}"
        if node.op in _INTEGER_FORM:
            return "integer operators are not read; export in QuantizeLinear/DequantizeLinear (QDQ) form"
        if node.proto.domain and node.op not in OPERATORS and "." in node.op:
            return f"an operator of another domain; export with standard ONNX operators, {cut}"
        return f"this operator is not supported in front of a layer; replace it, {cut}"
