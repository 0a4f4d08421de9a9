"""Quantised networks against onnxruntime: QDQ node by node, float networks by what they detect."""

from __future__ import annotations

from itertools import islice

import numpy as np
import onnx
import onnxruntime
import pytest

from host.heads.boxes import iou
from host.onnx_import import import_onnx
from host.video import open_source
from sim.arithmetic import node_result
from sim.golden import GoldenModel
from sim.graph import Graph, Node
from sim.linear import scatter
from tests.networks import QDQ, clip_for, model_path, onnx_arrays, quantised


def onnx_values(stem: str, arrays: list[np.ndarray], extra: list[str]) -> list[dict[str, np.ndarray]]:
    """onnxruntime's outputs and the named inner values, optimisations off, frame by frame."""
    model = onnx.load(model_path(stem))
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in extra
                              if n not in {o.name for o in model.graph.output})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names, feed = [o.name for o in session.get_outputs()], session.get_inputs()[0].name
    return [dict(zip(names, session.run(names, {feed: a}), strict=True)) for a in arrays]


def run_node(graph: Graph, node: Node, codes: dict[str, np.ndarray]) -> np.ndarray:
    """One node with its edges, fed with the given tensors."""
    sources = []
    for op in node.operands:
        if op.source in graph.tensors:
            sources.append(codes[op.source].astype(np.int64))
        else:
            shape = graph.projections[op.source].shape
            sources.append(sum(scatter(e, codes[e.source], e.weight_code, shape, np.int64)
                               for e in graph.edges_into(op.source)))
    return node_result(node, sources, graph.shape_of(node.target))


@pytest.mark.parametrize("stem", QDQ)
def test_every_qdq_node_fed_with_onnxruntimes_inputs_is_within_one_code(stem):
    network, _ = quantised(stem)
    graph, arrays = network.graph, onnx_arrays(stem, 8)
    near, elements = dict.fromkeys((n.target for n in graph.nodes), 0), dict.fromkeys(graph.tensors, 0)
    for array, values in zip(arrays, onnx_values(stem, arrays, [n.target for n in graph.nodes]), strict=True):
        codes = {n: (values[n].astype(np.int64) - t.code.zero_point).reshape(t.shape)
                 for n, t in graph.tensors.items() if n != graph.input}
        codes[graph.input] = network.input.to_codes(array, graph.tensors[graph.input].code)
        for node in graph.nodes:
            difference = np.abs(run_node(graph, node, codes) - codes[node.target])
            near[node.target] += int((difference <= 1).sum())
            elements[node.target] += difference.size
    assert {n: near[n] / elements[n] for n in near if near[n] < 0.999 * elements[n]} == {}


@pytest.mark.parametrize("stem", QDQ)
def test_qdq_networks_agree_with_onnxruntime_end_to_end(stem):
    network, _ = quantised(stem)
    arrays = onnx_arrays(stem, 24)
    model, code = GoldenModel(network.graph), network.graph.tensors[network.graph.input].code
    name = network.outputs[0][0]
    ours = [network.finish(model.frame(network.input.to_codes(a, code)).outputs)[name] for a in arrays]
    theirs = [v[name] for v in onnx_values(stem, arrays, [])]
    assert all(o.dtype == t.dtype and o.shape == t.shape for o, t in zip(ours, theirs, strict=True))
    assert sum(o.argmax() == t.argmax() for o, t in zip(ours, theirs, strict=True)) >= 23
    assert max(np.abs(o.astype(int) - t.astype(int)).max() for o, t in zip(ours, theirs, strict=True)) <= 12


@pytest.mark.parametrize("stem", ["ultraface_slim_320_rawheads", "yolo_fastest_1.1_body_320"])
def test_confident_detections_are_found_by_float_and_int8_alike(stem):
    network, sidecar = quantised(stem)
    frames = list(islice(open_source(clip_for(stem)), 0, 77, 4))
    arrays = [sidecar.input.apply(f, network.input) for f in frames]
    model, code = GoldenModel(network.graph), network.graph.tensors[network.graph.input].code
    place = sidecar.input.placement((frames[0].shape[1], frames[0].shape[0]), network.input)
    good = detections = 0
    for array, exact in zip(arrays, onnx_values(stem, arrays, []), strict=True):
        real = sidecar.head.decode(exact, place)
        codes = network.input.to_codes(array, code)
        int8 = sidecar.head.decode(network.finish(model.frame(codes).outputs), place)
        sure = sidecar.head.threshold + 0.1
        good += all(matched(box, others) for found, others in ((real, int8), (int8, real))
                    for box in found if box.score >= sure)
        detections += sum(box.score >= sure for box in real)
    assert detections >= len(frames) // 4
    assert good >= 0.95 * len(frames)


def matched(box, others) -> bool:
    return any(iou(np.array(box.corners), np.array(o.corners))[0, 0] >= 0.8 for o in others)


def test_qdq_weights_are_the_files_own_integers():
    path = model_path(QDQ[0])
    network, _ = quantised(QDQ[0])
    stored = {tuple(onnx.numpy_helper.to_array(i).shape): onnx.numpy_helper.to_array(i)
              for i in onnx.load(path).graph.initializer if i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 4}
    convolutions = {e.weight_code.shape: e.weight_code for e in network.graph.edges if e.kernel == (3, 3)}
    for shape in [(16, 3, 3, 3), (32, 32, 3, 3), (64, 64, 3, 3)]:
        ours = convolutions[(shape[1], shape[0], 3, 3)].transpose(1, 0, 2, 3)
        assert any(np.array_equal(ours, w) for s, w in stored.items() if s == shape)
    assert import_onnx(path).graph.tensors[network.graph.input].code is not None
