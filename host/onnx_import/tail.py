"""The end of a network: values handed over by the graph, and the ONNX operators after them on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from host.errors import UserError
from host.onnx_import.builder import Builder
from host.onnx_import.loader import OnnxNode, Source
from host.onnx_import.values import Const, Value, View
from sim.graph import Output


@dataclass
class Tail:
    """What is cut off behind the graph.

    handed
        ONNX value name -> graph output, real values.
    model
        serialised ONNX model from those to the remaining network outputs, or None.
    outputs
        (name, shape) of every network output.
    """

    source: Source
    builder: Builder
    values: Mapping[str, Value]
    handed: dict[str, Output] = field(default_factory=dict)
    model: bytes | None = None
    outputs: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @classmethod
    def cut(cls, source: Source, builder: Builder, values: Mapping[str, Value],
            host_nodes: Sequence[OnnxNode]) -> Tail:
        """Hand over what the outputs and the host's nodes need, and make the model of those nodes."""
        tail = cls(source, builder, values)
        made, nodes, constants = [], [], {}
        for name in source.outputs:
            value = values[name]
            if isinstance(value, View) and value.code is None:
                tail._hand(name, value)
            else:
                made.append(name)
        for name in dict.fromkeys([*(r for n in host_nodes for r in n.reads), *made]):
            value = values[name]
            if isinstance(value, Const):
                constants[name] = value.array
            elif isinstance(value, View):
                nodes += tail._fed(name, value, constants)
        if made:
            tail.model = tail._model(made, [*nodes, *(n.proto for n in host_nodes)], constants)
        tail.outputs = tail._shapes(made)
        return tail

    def _hand(self, name: str, view: View) -> None:
        if name not in self.handed:
            if view.padded:
                view = self.builder.gathered(f"{name}/copy", view)
            reads = tuple(self.builder.read(u) for u in view.units)
            self.handed[name] = Output(name, view.shape, reads, view.index - 1)

    def _fed(self, name: str, view: View, constants: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
        """Feed a value to the host part; integers are made from their real values there."""
        if view.code is None:
            self._hand(name, view)
            return []
        real, code = f"{name}#real", view.code
        self._hand(real, View(view.units, view.index))
        dtype = np.int8 if code.lo + code.zero_point < 0 else np.uint8
        constants[f"{name}#scale"] = np.float32(code.scale)
        constants[f"{name}#zero_point"] = dtype(code.zero_point)
        return [helper.make_node("QuantizeLinear", [real, f"{name}#scale", f"{name}#zero_point"], [name])]

    def _model(self, made: Sequence[str], nodes: list[onnx.NodeProto],
               constants: dict[str, np.ndarray]) -> bytes:
        original = self.source.model
        declared = {o.name: o for o in original.graph.output}
        for name in made:
            if isinstance(self.values[name], Const):
                constants[f"{name}#constant"] = constants.pop(name)
                nodes.append(helper.make_node("Identity", [f"{name}#constant"], [name]))
        reads = {r for n in nodes for r in OnnxNode(n).reads}
        graph = helper.make_graph(
            nodes, f"{original.graph.name or 'network'}_tail",
            [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, o.shape)
             for n, o in self.handed.items() if n in reads],
            [declared[n] for n in made],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()])
        model = helper.make_model(graph, opset_imports=list(original.opset_import),
                                  ir_version=original.ir_version, producer_name="rrm-fpga")
        return model.SerializeToString()

    def _shapes(self, made: Sequence[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Shapes of the network outputs; the host part is run once on zeros for its own."""
        shapes = {n: o.shape for n, o in self.handed.items()}
        if self.model is not None:
            shapes |= _run_on_zeros(self.source.path, self.model)
        return tuple((n, tuple(shapes[n])) for n in self.source.outputs)


def _run_on_zeros(path: str, model: bytes) -> dict[str, tuple[int, ...]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feeds = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()}
        results = session.run(None, feeds)
    except Exception as error:  # onnxruntime's errors share no other base class
        raise UserError(f"{path}: onnxruntime cannot run the part behind the last layer: "
                        f"{str(error).splitlines()[0]}") from error
    return {o.name: r.shape for o, r in zip(session.get_outputs(), results, strict=True)}
