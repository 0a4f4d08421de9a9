"""The paper's networks in shape only: ``python -m benchmarks.shapes [--network NAME]...``.

AlexNet (Krizhevsky et al. 2012, two groups, without its response normalisation), VGG-16 (Simonyan & Zisserman 2015) and
ResNet-18 (He et al. 2016, BatchNorm folded) with the shapes of their papers and *random weights*: they are not
trained, so nothing is said of decisions. What holds for them is what shapes decide: MACs, weights, state. The
complexity of eq. 6 is measured on a few frames of a clip and is that of random features, which ReLU makes about half
zero.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.fidelity import SHARED
from host.analysis import is_layer
from host.inspect import summarise
from host.rrm_file import Model
from host.session import open_model, quantised
from host.sidecar import Sidecar
from host.video import open_source, sample_frames
from sim.golden import GoldenModel

CLIP, FIRST, FRAMES, CALIBRATION = "asl_again_640x480_77f", 20, 2, 2


class Net:
    """An ONNX network written layer by layer; every method takes and gives the name of a value."""

    def __init__(self, size: int) -> None:
        self.rng, self.size = np.random.default_rng(0), size
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes) -> str:
        """A node; the value is named after it."""
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, *shape: int) -> str:
        """Random weights with which ReLU keeps the size of the activations (He et al. 2015)."""
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        name = f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(scale * self.rng.standard_normal(shape, np.float32), name))
        return name

    def conv(self, x: str, rows: int, channels: int, kernel: int, stride: int = 1, pad: int | None = None,
             groups: int = 1, relu: bool = True) -> str:
        """Convolution and ReLU."""
        y = self.add("Conv", x, self.weight(rows, channels // groups, kernel, kernel), strides=[stride] * 2,
                     group=groups, pads=[kernel // 2 if pad is None else pad] * 4)
        return self.add("Relu", y) if relu else y

    def dense(self, x: str, rows: int, columns: int, relu: bool = True) -> str:
        """Fully connected layer and ReLU."""
        y = self.add("Gemm", x, self.weight(rows, columns), transB=1)
        return self.add("Relu", y) if relu else y

    def pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        """Max-pool."""
        return self.add("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def save(self, output: str, classes: int, path: Path) -> None:
        """Write the file."""
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, self.size, self.size])
        graph = helper.make_graph(
            self.nodes, path.stem, [image],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, classes])], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.save(model, path)


def alexnet(net: Net) -> str:
    x = net.pool(net.conv("x", 96, 3, 11, 4, 0), 3, 2)
    x = net.pool(net.conv(x, 256, 96, 5, groups=2), 3, 2)
    x = net.conv(net.conv(x, 384, 256, 3), 384, 384, 3, groups=2)
    x = net.add("Flatten", net.pool(net.conv(x, 256, 384, 3, groups=2), 3, 2))
    return net.dense(net.dense(net.dense(x, 4096, 9216), 4096, 4096), 1000, 4096, relu=False)


def vgg16(net: Net) -> str:
    x, channels = "x", 3
    for rows, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x, channels = net.conv(x, rows, channels, 3), rows
        x = net.pool(x, 2, 2)
    x = net.add("Flatten", x)
    return net.dense(net.dense(net.dense(x, 4096, 25088), 4096, 4096), 1000, 4096, relu=False)


def resnet18(net: Net) -> str:
    x, channels = net.pool(net.conv("x", 64, 3, 7, 2), 3, 2, 1), 64
    for rows in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and rows > 64 else 1
            y = net.conv(net.conv(x, rows, channels, 3, stride), rows, rows, 3, relu=False)
            shortcut = x if channels == rows else net.conv(x, rows, channels, 1, stride, relu=False)
            x, channels = net.add("Relu", net.add("Add", y, shortcut)), rows
    return net.dense(net.add("Flatten", net.add("GlobalAveragePool", x)), 1000, 512, relu=False)


NETWORKS: dict[str, tuple[Callable[[Net], str], int]] = {"AlexNet": (alexnet, 227), "VGG-16": (vgg16, 224),
                                                         "ResNet-18": (resnet18, 224)}


def build(name: str, folder: Path) -> Path:
    """The ONNX file of a network."""
    make, size = NETWORKS[name]
    net = Net(size)
    net.save(make(net), 1000, folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def complexity(model: Model, thresholds: Iterable[int]) -> tuple[float, dict[int, float]]:
    """MACs of convolutions and fully connected layers per frame (eq. 6): of non-zero activations, and of deltas by
    threshold (hold); means over ``FRAMES`` frames."""
    network, pre = model.network, model.sidecar.input
    code, clip = network.graph.tensors[network.graph.input].code, SHARED / "clips" / f"{CLIP}.mp4"
    codes = [network.input.to_codes(pre.apply(f, network.input), code)
             for f in islice(open_source(clip), FIRST, FIRST + FRAMES + 1)]
    layers, sent, activations = [is_layer(e) for e in network.graph.edges], {}, 0.0
    for t in thresholds:
        golden = GoldenModel(network.graph, t)
        results = [golden.frame(c) for c in codes][1:]
        own = [[e for e, layer in zip(r.edges, layers, strict=True) if layer] for r in results]
        sent[t] = sum(e.macs for edges in own for e in edges) / FRAMES
        if t <= 1:
            activations = sum(e.macs_activations for edges in own for e in edges) / FRAMES
    return activations, sent


def row(name: str) -> str:
    """A network's line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        model = open_model(build(name, Path(folder)))
    size = NETWORKS[name][1]
    model = Model(model.network, Sidecar.default(model.network.input).with_input(
        {"size": f"{size}x{size}", "mean": "128", "scale": "1/64"}), model.meta)
    model = quantised(model, sample_frames(SHARED / "clips" / f"{CLIP}.mp4", CALIBRATION), "int8")
    summary = summarise(model.network)
    total, layers = summary.totals, [is_layer(e) for e in model.network.graph.edges]
    dense = sum(e.macs_dense for e, layer in zip(summary.edges, layers, strict=True) if layer)
    activations, sent = complexity(model, (0, 2))
    return (f"| {name}, **untrained** | {dense / 1e6:,.0f} | {total['weights'] / 1e6:,.1f} | "
            f"{total['snapshot_bytes'] / 1e6:.2f} | {total['projection_bytes'] / 1e6:.2f} | "
            f"{activations / 1e6:,.0f} ({activations / dense:.2f}) | {sent[0] / 1e6:,.0f} ({sent[0] / dense:.2f}) | "
            f"{sent[2] / 1e6:,.0f} ({sent[2] / dense:.2f}) |")


def table(rows: Iterable[str]) -> str:
    """The table in Markdown."""
    return "\n".join([
        "| network | MACs, M | weights, M | snapshots, MB | projections, MB | eq. 6, frame by frame: M (density) "
        "| exact | hold 2 |", "|---|---:|---:|---:|---:|---:|---:|---:|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only this one; may be repeated")
    options = parser.parse_args()
    print(table(row(name) for name in options.network or NETWORKS))


if __name__ == "__main__":
    main()
