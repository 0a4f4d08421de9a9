"""The table of a network: counts against sums worked out by hand and against the golden model's."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from host.inspect import summarise
from host.onnx_import import import_onnx
from sim.golden import GoldenModel
from tests.networks import quantised
from tests.onnx_nets import Net, save


def small(tmp_path):
    """x[1, 3, 6, 5] -> 3x3 depthwise stride 2 + Relu -> 1x1 -> Clip, max-pool -> Gemm -> Softmax."""
    net = Net(1, 3, 6, 5)
    weight = net.normal(3, 1, 3, 3)
    weight[0] = 0
    y = net.add("Relu", net.add("Conv", net.x, weight, pads=[1, 1, 1, 1], strides=[2, 2], group=3))
    y = net.add("Clip", net.conv(y, 4, 3, 1), np.float32(0), np.float32(6))
    y = net.add("MaxPool", y, kernel_shape=[2, 2])
    y = net.add("Gemm", net.add("Flatten", y), net.normal(16, 2))
    return import_onnx(save(net.model(net.add("Softmax", y)), tmp_path))


def test_counts(tmp_path):
    summary = summarise(small(tmp_path))
    depthwise, point, full = summary.edges
    assert (depthwise.kind, point.kind, full.kind) == ("depthwise", "dense", "dense")
    # 3x3 taps, stride 2, pad 1: rows 0..5 -> 3 outputs with 2, 3, 3 taps; columns 0..4 -> 3 with 2, 3, 2.
    assert depthwise.macs_dense == 3 * 8 * 7
    assert depthwise.macs == 2 * 8 * 7
    assert (depthwise.weights, depthwise.zeros) == (27, 9)
    assert (point.macs, full.macs) == (12 * 9, 32)
    totals = summary.totals
    assert (totals["tensors"], totals["nodes"], totals["projections"]) == (3, 2, 3)
    assert totals["weights"] == 27 + 12 + 32
    assert totals["snapshot_bytes"] == -(-90 * 9 // 8) - (-27 * 9 // 8) - (-16 * 9 // 8)
    assert totals["projection_bytes"] == -(-27 * 27 // 8) - (-36 * 27 // 8) - (-2 * 27 // 8)
    assert summary.host_operators == ("Softmax",)
    assert [t.step for t in summary.tensors] == ["input", "relu", "clip 0..6, max 2x2 /1x1"]


def test_direct_projections_keep_nothing(tmp_path):
    network = small(tmp_path)
    direct = {n: replace(p, mode="direct") for n, p in network.graph.projections.items()}
    totals = summarise(replace(network, graph=network.graph.with_parts(projections=direct))).totals
    assert totals["projection_bytes"] == totals["snapshot_bytes"] == 0


def test_table_and_json(tmp_path):
    summary = summarise(small(tmp_path))
    console = Console(width=140, record=True, file=StringIO())
    console.print(summary.render())
    text = console.export_text()
    for words in ("3x3 depthwise /2x2", "max 2x2", "T0", "P2", "on the host: Softmax", "in real numbers"):
        assert words in text
    read = json.loads(json.dumps(summary.as_dict()))
    assert read["totals"]["macs"] == summary.totals["macs"]
    assert len(read["edges"]) == 3


@pytest.mark.parametrize("stem", ["mlperftiny_resnet8_cifar10_int8qdq", "mlperftiny_vww_96_sparse83"])
def test_agrees_with_the_golden_model(stem):
    """Dense MACs per edge are those that the golden model counts, with and without zero weights."""
    network, _ = quantised(stem)
    summary, graph = summarise(network), network.graph
    assert summary.quantised
    result = GoldenModel(graph).frame(np.zeros(graph.shape_of(graph.input), np.int16))
    for row, stats in zip(summary.edges, result.edges, strict=True):
        assert (row.source, row.target) == (stats.source, stats.target)
        assert (row.macs_dense, row.macs) == (stats.macs_dense, stats.macs_dense_nonzero_weights)
