"""Small ONNX networks for the importer's tests, written node by node, and compared with onnxruntime."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from host.network import Network
from host.onnx_import import import_onnx
from sim.float_model import FloatModel, read_outputs

TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest value of the output."""


class Net:
    """An ONNX network under construction; ``x`` is its image input.

    ``add`` appends a node and returns the name of its output (or a list of ``outputs`` names); an array among
    the inputs becomes an initialiser, None an absent input.
    """

    def __init__(self, *shape: int, opset: int = 17, dtype: type = np.float32, seed: int = 0) -> None:
        self.shape, self.opset, self.dtype = shape, opset, np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._numbers = count()
        self.x = "x"

    def const(self, array: np.ndarray) -> str:
        """Name of a new initialiser; float64 is stored as float32."""
        array = np.asarray(array)
        name = f"k{next(self._numbers)}"
        kind = np.float32 if array.dtype == np.float64 else array.dtype
        self.constants.append(numpy_helper.from_array(array.astype(kind), name))
        return name

    def add(self, op: str, *inputs: str | np.ndarray | None, outputs: int = 1, name: str = "",
            domain: str = "", **attributes) -> str | list[str]:
        """Append a node."""
        names = ["" if i is None else i if isinstance(i, str) else self.const(i) for i in inputs]
        made = [f"{op.lower()}{next(self._numbers)}" for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, name or None, domain=domain, **attributes))
        return made[0] if outputs == 1 else made

    def normal(self, *shape: int) -> np.ndarray:
        """Random weights."""
        return self.rng.normal(0, 0.5, shape)

    def conv(self, value: str, rows: int, channels: int, kernel: int = 3, bias: bool = True, groups: int = 1,
             **attributes) -> str:
        """A convolution with random weights, padded to keep the image size unless told otherwise."""
        pads = {} if {"pads", "auto_pad"} & attributes.keys() else {"pads": [kernel // 2] * 4}
        inputs = [value, self.normal(rows, channels // groups, kernel, kernel)]
        inputs += [self.normal(rows)] if bias else []
        return self.add("Conv", *inputs, group=groups, **pads, **attributes)

    def model(self, *outputs: str, kinds: dict[str, int] | None = None) -> onnx.ModelProto:
        """The finished model; output types are float unless ``kinds`` says otherwise."""
        image = helper.make_tensor_value_info(self.x, helper.np_dtype_to_tensor_dtype(self.dtype), self.shape)
        kinds = kinds or {}
        made = [helper.make_tensor_value_info(o, kinds.get(o, TensorProto.FLOAT), None) for o in outputs]
        graph = helper.make_graph(self.nodes, "net", [image], made, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        return model

    def image(self) -> np.ndarray:
        """A random input array."""
        if self.dtype == np.float32:
            return self.rng.normal(0, 1, self.shape).astype(np.float32)
        info = np.iinfo(self.dtype)
        return self.rng.integers(info.min, info.max + 1, self.shape).astype(self.dtype)


def save(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    """Write a model and return its path."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def reference(model: onnx.ModelProto, image: np.ndarray, everything: bool = False) -> dict[str, np.ndarray]:
    """What onnxruntime makes of an image: the outputs, or every value with a name."""
    if everything:
        model = onnx.ModelProto.FromString(model.SerializeToString())
        known = {o.name for o in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=o) for n in model.graph.node for o in n.output
                                  if o and o not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: image}), strict=True))


def close(ours: np.ndarray, theirs: np.ndarray, what: str, tolerance: float = TOLERANCE) -> None:
    """Assert equality up to a fraction of the largest value."""
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} instead of {theirs.shape}"
    difference = np.abs(ours.astype(np.float64) - theirs).max(initial=0)
    limit = tolerance * max(np.abs(theirs.astype(np.float64)).max(initial=0), 1e-2)
    assert difference <= limit, f"{what}: differs by {difference}, largest value {limit / tolerance}"


def compare(model: onnx.ModelProto, network: Network, image: np.ndarray, tolerance: float = TOLERANCE,
            everything: bool = True) -> dict[str, np.ndarray]:
    """Hold the imported network in float64 against onnxruntime: outputs, and tensors that are ONNX values."""
    theirs = reference(model, image, everything)
    values = FloatModel(network.graph, np.float64).run(network.input.to_real(image))
    ours = network.finish(read_outputs(network.graph, values))
    assert [n for n, _ in network.outputs] == [o.name for o in model.graph.output]
    for name, shape in network.outputs:
        assert shape == theirs[name].shape
        assert ours[name].dtype == theirs[name].dtype
        close(ours[name], theirs[name], name, tolerance)
    for tensor in network.graph.tensors.values():
        if tensor.code is None and tensor.name in theirs and theirs[tensor.name].shape == (1, *tensor.shape):
            close(values[tensor.name][None], theirs[tensor.name], f"tensor {tensor.name}", tolerance)
    return ours


def agree(net: Net, folder: Path, *outputs: str, kinds: dict[str, int] | None = None) -> Network:
    """Import a network, compare it with onnxruntime on a random image, and return it."""
    model = net.model(*outputs, kinds=kinds)
    network = import_onnx(save(model, folder))
    compare(model, network, net.image())
    return network
