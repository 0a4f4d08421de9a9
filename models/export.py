"""Write a corner network as ONNX with its sidecar, and count what it needs on the accelerator."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.plans import Needs


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution: weight [Co, Ci, k, k], bias [Co], stride, padding on all four sides, ReLU or not."""

    weight: np.ndarray
    bias: np.ndarray
    stride: int
    pad: int
    relu: bool


SIDECAR = """\
# How a picture becomes this network's input, and what its output means.
[input]
size = [{width}, {height}]  # width, height
colour = "grey"
mean = 128.0
scale = 0.0078125  # 1/128: one step is one grey code
layout = "nchw"
resize = "stretch"
filter = "area"

[head]
kind = "keypoints"
output = "logits"  # [1, cell*cell, H/cell, W/cell]: the pixels of each cell, row by row; "none" has the logit 0
cell = {cell}
threshold = {threshold}  # least score: probability of a corner in 3x3 pixels times its share of that within the radius
radius = 3  # pixels: the best score within it survives
top = 300  # at most so many
"""


def save_network(path: Path, layers: list[Layer], size: tuple[int, int], threshold: float = 0.15) -> None:
    """Write ``path`` (.onnx, opset 13, fixed shapes, batch 1) and the ``.toml`` beside it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    width, height = size
    nodes, weights, value = [], [], "image"
    for k, layer in enumerate(layers, start=1):
        last = k == len(layers)
        weights += [numpy_helper.from_array(np.ascontiguousarray(layer.weight), f"conv{k}.weight"),
                    numpy_helper.from_array(np.ascontiguousarray(layer.bias), f"conv{k}.bias")]
        made = "logits" if last else f"conv{k}"
        nodes.append(helper.make_node("Conv", [value, f"conv{k}.weight", f"conv{k}.bias"], [made], f"conv{k}",
                                      kernel_shape=list(layer.weight.shape[2:]), strides=[layer.stride] * 2,
                                      pads=[layer.pad] * 4))
        value = made
        if layer.relu:
            value = f"relu{k}"
            nodes.append(helper.make_node("Relu", [made], [value], value))
    channels = layers[-1].weight.shape[0]
    cell = math.isqrt(channels)
    cells = [1, channels, height // cell, width // cell]
    graph = helper.make_graph(
        nodes, "corners", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, cells)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8,
                              producer_name="models.train")
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    path.with_suffix(".toml").write_text(SIDECAR.format(width=width, height=height, cell=cell, threshold=threshold))


def record(folder: Path, name: str, **parts: dict) -> None:
    """Put ``parts`` under ``name`` in the folder's ``metrics.json``, leaving the rest of it alone."""
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    metrics[name] = metrics.get(name, {}) | parts
    path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def needs_of(path: Path) -> Needs:
    """Count from the ONNX file itself, which must be a chain of Conv and Relu."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in [*model.graph.input, *model.graph.value_info, *model.graph.output]}
    kernels = {w.name: list(w.dims) for w in model.graph.initializer}
    codes = int(np.prod(shapes[model.graph.input[0].name]))
    accumulators = weights = macs = 0
    for node in model.graph.node:
        made = int(np.prod(shapes[node.output[0]]))
        if node.op_type == "Relu":
            codes += made
            continue
        if node.op_type != "Conv":
            raise ValueError(f"{path}: node {node.name} is a {node.op_type}; only Conv and Relu are counted")
        kernel = kernels[node.input[1]]
        accumulators += made
        weights += int(np.prod(kernel))
        macs += made * int(np.prod(kernel[1:]))
    return Needs(accumulators, codes, weights, macs)
