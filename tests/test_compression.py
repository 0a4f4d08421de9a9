"""Pruning, shared weights and their sizes, against plain loops."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from benchmarks.fidelity import run_onnx
from host.cli import main
from host.compression import SMALLEST, csc_entries, is_prunable, layers, outputs_sqnr, pruned
from host.errors import UserError
from host.rrm_file import load
from host.session import open_model, quantised
from sim.float_model import FloatModel
from sim.golden import GoldenModel
from sim.graph import Edge
from tests.networks import model_path
from tests.networks import quantised as shared
from tests.random_graphs import Limits, random_graph


@pytest.fixture(scope="module")
def wide_onnx(tmp_path_factory):
    """Three layers on 3 channels: 3x3 to 24, depthwise 3x3, 1x1 to 32 channels, and their mean."""
    rng = np.random.default_rng(5)
    shapes = {"a": (24, 3, 3, 3), "b": (24, 1, 3, 3), "c": (32, 24, 1, 1)}
    weights = [onnx.numpy_helper.from_array(rng.normal(0, 0.3, s).astype(np.float32), k) for k, s in shapes.items()]
    nodes = [helper.make_node("Conv", ["x", "a"], ["p"], pads=[1] * 4), helper.make_node("Relu", ["p"], ["q"]),
             helper.make_node("Conv", ["q", "b"], ["r"], pads=[1] * 4, group=24),
             helper.make_node("Relu", ["r"], ["s"]), helper.make_node("Conv", ["s", "c"], ["t"]),
             helper.make_node("Relu", ["t"], ["u"]),
             helper.make_node("GlobalAveragePool", ["u"], ["y"])]
    graph = helper.make_graph(nodes, "wide", [helper.make_tensor_value_info("x", 1, [1, 3, 16, 16])],
                              [helper.make_tensor_value_info("y", 1, [1, 32, 1, 1])], weights)
    path = tmp_path_factory.mktemp("wide") / "wide.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def imported(wide_onnx):
    return open_model(wide_onnx)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.83])
def test_the_smallest_weights_of_every_layer_go(imported, share):
    before, after = imported.network.graph.edges, pruned(imported.network, share).graph.edges
    assert any(is_prunable(e) for e in before)
    for a, b in zip(before, after, strict=True):
        if not is_prunable(a):
            assert (a.weight == b.weight).all()
            continue
        gone = (b.weight == 0) & (a.weight != 0)
        assert (b.weight[~gone] == a.weight[~gone]).all()
        assert gone.sum() == round(share * a.weight.size)
        assert not gone.any() or np.abs(a.weight[gone]).max() < np.abs(b.weight[b.weight != 0]).min()


def test_what_is_left_alone():
    weight = np.random.default_rng(0).normal(size=(32, 32, 1, 1))
    dense = Edge.conv("a", "b", weight)
    assert is_prunable(dense)
    assert not is_prunable(Edge.conv("a", "b", weight[:, :SMALLEST // 32 - 1]))
    assert not is_prunable(Edge.conv("a", "b", np.ones((32, 32, 1, 1))))
    assert not is_prunable(Edge.conv("a", "b", np.random.default_rng(0).normal(size=(64, 1, 3, 3)), groups=64))
    shared = np.where(np.abs(weight) < 0.5, 0, np.round(weight, 1))
    assert not is_prunable(Edge.conv("a", "b", shared))


def entries(edge: Edge) -> int:
    """CSC entries of one processing element, counted one by one."""
    count, taps = 0, np.prod(edge.kernel)
    for column in edge.weight_code.reshape(*edge.rows.shape, taps):
        gap = 0
        for tap in range(taps):
            for row in range(edge.rows.shape[1]):
                if column[row, tap] == 0:
                    gap += 1
                    continue
                while gap > 15:
                    count, gap = count + 1, gap - 16
                count, gap = count + 1, 0
    return count


@pytest.mark.parametrize("density", [0.01, 0.05, 0.3, 1.0])
def test_entries_are_counted_with_their_padding(density):
    rng = np.random.default_rng(int(100 * density))
    for seed in range(4):
        for edge in random_graph(seed, Limits(channels=6)).edges:
            code = np.where(rng.random(edge.weight_code.shape) < density, edge.weight_code | 1, 0)
            edge = replace(edge, weight_code=code)
            assert csc_entries(edge) == entries(edge)


@pytest.mark.parametrize("codebook", ["16", "256"])
def test_compile_makes_the_deep_compression_form(codebook, imported, wide_onnx, tiny_clip, tmp_path, capsys):
    out = tmp_path / "small.rrm"
    assert main(["compile", str(wide_onnx), "--calibrate", str(tiny_clip), "--prune", "0.6", "--codebook", codebook,
                 "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "weights as compressed" in printed
    assert re.search(r"outputs: SQNR [0-9.]+ dB against .* \([0-9.]+ dB by pruning alone\), on ", printed)
    graph = load(out).network.graph
    for before, edge in zip(imported.network.graph.edges, graph.edges, strict=True):
        assert edge.codebook_bits == {"16": 4, "256": 8}[codebook]
        assert len(np.unique(edge.weight_code[edge.weight_code != 0])) <= int(codebook) - 1
        if is_prunable(before):
            assert 0.6 <= (edge.weight_code == 0).mean() < 0.65


def test_errors_are_sums_of_squares_and_sizes_add_up(imported, tiny_clip):
    from host.video import sample_frames

    model = quantised(replace(imported, network=pruned(imported.network, 0.5)), sample_frames(tiny_clip, 4),
                      "codebook16")
    edges = list(zip(imported.network.graph.edges, model.network.graph.edges, strict=True))
    found_layers = layers(imported.network, model.network)
    assert len(found_layers) == len(edges) - 1                                      # pooling has no learned weights
    for found, (before, after) in zip(found_layers, edges, strict=False):
        scale = model.network.graph.projections[after.target].scale
        step = model.network.graph.tensors[after.source].code.scales(imported.network.graph.shape_of(after.source)[0])
        coded = sum((after.weight_code[k, r] * scale[row] / step[after.channels[k]] - after.weight[k, r]) ** 2
                    for k in range(len(after.rows)) for r, row in enumerate(after.rows[k])).sum()
        assert found.coding_error == pytest.approx(coded, rel=1e-9)
        assert found.pruning_error == pytest.approx(((before.weight - after.weight) ** 2).sum(), rel=1e-9)
        assert found.bits == entries(after) * 8 + 16 * found.values
        assert found.zeros == (after.weight_code == 0).sum()


def test_what_is_left_of_the_outputs_is_against_the_network_as_imported(imported, wide_onnx, tiny_clip):
    """The float network is onnxruntime's, from the file."""
    from host.video import sample_frames

    frames = sample_frames(tiny_clip, 4)
    network = quantised(replace(imported, network=pruned(imported.network, 0.6)), frames, "codebook16").network
    arrays = [imported.sidecar.input.apply(f, network.input) for f in frames]
    wanted = np.stack([run_onnx(wide_onnx, [a])[0]["y"] for a in arrays]).astype(np.float64)
    golden, code = GoldenModel(network.graph), network.graph.tensors[network.graph.input].code
    integers = [golden.frame(network.input.to_codes(a, code)).outputs["y"] for a in arrays]
    floats = [FloatModel(network.graph).outputs(network.input.to_real(a))["y"] for a in arrays]
    shown = [float(x) for x in outputs_sqnr(imported.network, network, arrays)]
    for value, found in zip(shown, (floats, integers), strict=True):
        assert 0 < value == pytest.approx(10 * np.log10((wanted ** 2).sum() / ((found - wanted) ** 2).sum()), abs=0.051)
    assert shown[1] < shown[0]


@pytest.mark.parametrize("options, message", [
    (["--prune", "1"], "at least 0 and below 1"),
    (["--codebook", "16", "--weights", "int8"], "contradict")])
def test_misuse_is_one_clear_error(options, message, tiny_onnx, tiny_clip, tmp_path, capsys):
    out = tmp_path / "x.rrm"
    assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), "-o", str(out), *options]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_quantised_network_is_not_pruned(imported, tiny_clip):
    from host.video import sample_frames

    with pytest.raises(UserError, match="prune the ONNX network"):
        pruned(quantised(imported, sample_frames(tiny_clip, 4)).network, 0.5)


def test_a_network_that_comes_pruned_is_taken_as_it_is():
    stem = "squeezenet10_deepcompression"
    original, (network, _) = open_model(model_path(stem), preset=stem).network, shared(stem)
    again = pruned(original, 0.5)
    kept = [(a, b) for a, b in zip(original.graph.edges, again.graph.edges, strict=True)
            if (a.weight == 0).mean() > 0.3]
    assert len(kept) >= 8
    assert all(a is b for a, b in kept)
    found = {(x.source, x.target): x for x in layers(original, network)}
    for edge, _ in kept:
        layer = found[edge.source, edge.target]
        assert layer.codebook_bits == 8
        assert layer.zeros >= layer.zeros_before
        assert layer.values <= len(np.unique(edge.weight[edge.weight != 0]))
        assert layer.bits < 8 * layer.weights
