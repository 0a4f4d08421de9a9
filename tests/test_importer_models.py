"""The networks of ../shared as imported: outputs and tensors against onnxruntime, structure, speed, docs."""

from __future__ import annotations

import re
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import pytest

from host.onnx_import import import_onnx
from host.onnx_import.document import page
from sim.float_model import FloatModel
from tests.networks import FLOAT, QDQ, model_path
from tests.onnx_nets import TOLERANCE, compare, reference

SIZES = {  # tensors, projections, edges, operators of the host part
    "mlperftiny_resnet8_cifar10": (9, 9, 11, ["Softmax"]),
    "mlperftiny_resnet8_cifar10_int8qdq": (10, 11, 11, ["Softmax", "QuantizeLinear"]),
    "mlperftiny_vww_96": (29, 29, 29, ["Softmax"]),
    "mlperftiny_vww_96_sparse83": (29, 29, 29, ["Softmax"]),
    "mlperftiny_vww_96_int8qdq": (30, 29, 29, ["Softmax", "QuantizeLinear"]),
    "ultraface_slim_320_rawheads": (35, 42, 42, []),
    "yolo_fastest_1.1_body_320": (87, 85, 89, []),
    "fsrcnn_x2_176x144": (8, 8, 8, []),
    "squeezenet10_deepcompression": (27, 27, 35, []),
    "tfpose_mnv2small_320x240_frozenbn_asl": (159, 160, 195, []),
}


def image_for(network, seed: int = 1) -> np.ndarray:
    """A smooth random picture in the input's range (white noise would saturate nothing and everything)."""
    rng, (_, _, height, width) = np.random.default_rng(seed), network.input.shape
    coarse = rng.uniform(-1, 1, (1, network.input.shape[1], -(-height // 8), -(-width // 8)))
    return coarse.repeat(8, 2).repeat(8, 3)[:, :, :height, :width].astype(np.float32)


@pytest.mark.parametrize("stem", FLOAT)
def test_float_network(stem):
    """Outputs, and every tensor that is a whole ONNX value, against onnxruntime.

    Where values of 200 cancel to values of 1 (pose network) float32 itself is off by more than the tolerance,
    so a tensor may also differ by four times what our own float32 differs from our float64.
    """
    path = model_path(stem)
    network, model = import_onnx(path), onnx.load(path)
    image = image_for(network)
    compare(model, network, image, everything=False)
    theirs, frame = reference(model, image, everything=True), network.input.to_real(image)
    values, rounded = (FloatModel(network.graph, dtype).run(frame) for dtype in (np.float64, np.float32))
    checked = 0
    for name in network.graph.tensors:
        if name in theirs and theirs[name].shape == (1, *values[name].shape):
            largest, noise = np.abs(values[name]).max(), np.abs(values[name] - rounded[name]).max()
            difference = np.abs(values[name] - theirs[name][0]).max()
            assert difference <= max(TOLERANCE * largest, 4 * noise), name
            checked += 1
    assert checked >= len(network.graph.tensors) - 5  # the rest are parts of a concat or the input


@pytest.mark.parametrize("stem", FLOAT + QDQ)
def test_structure(stem):
    """The size of each graph is known, so a change of the importer that costs tensors is seen."""
    path = model_path(stem)
    began = perf_counter()
    network = import_onnx(path)
    took = perf_counter() - began
    graph, tail = network.graph, network.tail
    operators = [] if tail is None else [n.op_type for n in onnx.load_model_from_string(tail).graph.node]
    assert (len(graph.tensors), len(graph.projections), len(graph.edges), operators) == SIZES[stem]
    assert took < 3, f"import took {took:.1f} s"


@pytest.mark.parametrize("stem", FLOAT)
def test_tensors_have_names_of_onnx_values(stem):
    path = model_path(stem)
    graph, model = import_onnx(path).graph, onnx.load(path)
    made = {o for n in model.graph.node for o in n.output} | {i.name for i in model.graph.input}
    assert {re.sub(r"\[\d+\]$", "", name) for name in graph.tensors} <= made
    assert {p.removesuffix("#P") for p in graph.projections} <= made


def test_page_is_up_to_date():
    written = (Path(__file__).resolve().parents[1] / "docs" / "onnx.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m host.onnx_import.document > docs/onnx.md"
