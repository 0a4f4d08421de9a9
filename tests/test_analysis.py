"""The analysis: its counts against a plain count, its baseline against real refreshes, its cycles against the RTL."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from host.analysis import COUNTED, PARTS, Analyser, Rule, Way, analyse, is_layer, relative_error
from host.cli import main
from host.configs import named, program_for
from host.cycles import CycleModel, observed_frame
from host.devices import open_device
from host.errors import UserError
from host.events import Events
from host.session import open_model, quantised
from sim.golden import GoldenModel
from sim.graph import Edge, Geometry
from tests.random_graphs import Limits, random_clip, random_graph
from tests.test_cycles import SLACK

LIMITS = Limits(layers=3, channels=6, size=7)
SIM8 = named("sim8")


@pytest.fixture(scope="module")
def model(tiny_onnx, tiny_frames):
    return quantised(open_model(tiny_onnx), tiny_frames[:8])


# ------------------------------------------------------------------------------------------------ counts

def plain_macs(graph, edge: Edge, mask: np.ndarray) -> int:
    """In-image MACs of the elements in a mask, counted one by one."""
    g, (_, height, width) = edge.geometry, graph.shape_of(edge.target)
    y0, y1, x0, x1 = g.window or (0, mask.shape[1], 0, mask.shape[2])
    count = 0
    for channel in edge.channels:
        for y, x in np.argwhere(mask[channel]):
            if not (y0 <= y < y1 and x0 <= x < x1):
                continue
            taps = [[(at * up + pad - k * d) for k in range(n)]
                    for at, up, pad, d, n in zip((y, x), g.upsample, g.pad, g.dilation, edge.kernel, strict=True)]
            hits = [sum(o % s == 0 and 0 <= o // s < size for o in axis)
                    for axis, s, size in zip(taps, g.stride, (height, width), strict=True)]
            count += hits[0] * hits[1] * edge.rows.shape[1]
    return count


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0, 3])
def test_counts_of_random_graphs(seed, threshold):
    graph = random_graph(seed, LIMITS)
    program = SIM8.compile(graph)
    analyser = Analyser(program, {"rule": Rule(threshold)})
    golden, scratch = GoldenModel(graph, threshold), GoldenModel(graph)
    clip = list(random_clip(graph, seed, 3))
    for codes in clip:
        analyser.frame(codes)
    found = analyser.analysis("rule")
    for number, codes in enumerate(clip):
        result, changes = observed_frame(golden, codes)
        again, fresh = observed_frame(scratch, codes, refresh=True)
        for way, masks in ((found.rrm, changes), (found.scratch, fresh)):
            for layer in found.layers[1:]:
                step = program.steps[layer.step]
                mask = (masks.nonzero if step.direct else masks.sent)[layer.tensor]
                macs = [plain_macs(graph, graph.edges[e], mask) for e in step.edges]
                kinds = [is_layer(graph.edges[e]) for e in step.edges]
                assert way.sent[number, layer.step] == mask.sum()
                assert way.macs_all[number, layer.step] == sum(macs)
                assert way.macs[number, layer.step] == sum(m for m, k in zip(macs, kinds, strict=True) if k)
        assert found.errors[number] == relative_error(result.outputs, again.outputs)
        cycles = CycleModel(program).frames([changes, fresh])
        assert found.rrm.cycles[number].tolist() == cycles[0].steps.tolist()
        assert found.scratch.cycles[number].tolist() == cycles[1].steps.tolist()
    dense = [sum(plain_macs(graph, graph.edges[e], np.ones(graph.shape_of(s.tensor), bool)) for e in s.edges)
             if s.tensor else 0 for s in program.steps]
    assert found.macs_dense_all.tolist() == dense


def test_exact_has_no_error_and_parts_sum_up_to_cycles():
    graph = random_graph(1, LIMITS)
    rules = {"exact": Rule(), "hold": Rule(3), "truncate": Rule(3, "truncate", refresh=3)}
    analyser = Analyser(SIM8.compile(graph), rules)
    for codes in random_clip(graph, 1, 7):
        analyser.frame(codes)
    exact, hold, truncate = (analyser.analysis(name) for name in ("exact", "hold", "truncate"))
    assert exact.errors.tolist() == [0] * 7
    assert 0 < hold.errors[1:].max() <= hold.bound
    assert (exact.bound, truncate.bound) == (0, None)
    assert truncate.refreshes.tolist() == [True, False, False, True, False, False, True]
    assert truncate.errors[[0, 3, 6]].tolist() == [0, 0, 0]
    for way in (exact.rrm, exact.scratch, truncate.rrm):
        assert list(way.parts) == list(PARTS)
        np.testing.assert_allclose(sum(way.parts.values()), way.cycles)
        assert min(way.parts[p].min() for p in PARTS[:-1]) >= 0


def test_where_the_cycles_went():
    values = {"work": 640, "cycles": 100, "walk": 14, "broadcasts": 30, "reads": 25}
    names = ("sent", "macs", "macs_all", "work", "cycles", "words", "walk", "broadcasts", "reads", "link")
    way = Way(**{n: np.array([[values.get(n, 0)]]) for n in names}, rows=64, pes=16)
    assert {n: float(v[0, 0]) for n, v in way.parts.items()} == {
        "work": 10, "imbalance": 4, "broadcast": 16, "sweep": 0, "barrier": 70}
    swept = replace(way, reads=np.array([[40]])).parts
    assert (swept["broadcast"], swept["sweep"], swept["barrier"]) == (16, 10, 60)


def test_figures_of_the_whole_network(model, tiny_frames):
    found = analyse(model, tiny_frames[:6], Rule(), SIM8.compile(model.network.graph))
    s = found.summary(1e8, 6e6)
    rrm, scratch = found.rrm.macs[1:].sum(), found.scratch.macs[1:].sum()
    assert s["frames"] == 5
    assert s["speedup_eq10"] == scratch / rrm > 1
    assert s["sparsity_deltas"] == pytest.approx(1 - rrm / 5 / found.macs_dense.sum())
    assert s["speedup_cycles"] == found.scratch.cycles[1:].sum() / found.rrm.cycles[1:].sum()
    assert s["time_over_theory"] == pytest.approx(found.rrm.cycles[1:].sum() * 8 / found.rrm.work[1:].sum())
    line = [(w.cycles[1:].sum() / 1e8 + w.link[1:].sum() * 10 / 6e6) / 5 for w in (found.scratch, found.rrm)]
    assert s["speedup_link"] == pytest.approx(line[0] / line[1])
    host = found.host_seconds
    assert host > 0
    assert s["speedup_host"] == pytest.approx((line[0] + host) / (line[1] + host))
    assert s["macs_dense"] == 8 * 3 * (3 * 8 - 1) * (3 * 12 - 1) + 2 * 8 * 8 * 12  # 3x3 of stride 2 pads one side


def test_no_frames_is_an_error(model):
    with pytest.raises(UserError, match="no frames"):
        analyse(model, [], Rule(), SIM8.compile(model.network.graph))


# ------------------------------------------------------------------------------------------------ layers

def depthwise(kernels: np.ndarray) -> Edge:
    return Edge.conv("a", "b", kernels[:, None], Geometry(), groups=len(kernels))


def test_what_counts_as_a_layer():
    rng = np.random.default_rng(0)
    assert is_layer(Edge.conv("a", "b", rng.normal(size=(4, 3, 3, 3))))
    assert is_layer(Edge.conv("a", "b", np.ones((4, 3, 1, 1))))
    assert is_layer(depthwise(rng.normal(size=(4, 3, 3))))
    assert not is_layer(depthwise(np.full((4, 2, 2), 0.25)))                          # average
    assert not is_layer(depthwise(np.full((4, 1, 1), 1.0)))                           # copy
    assert not is_layer(depthwise(rng.normal(size=(4, 1, 1))))                        # BatchNorm
    bilinear = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])
    assert not is_layer(depthwise(bilinear * rng.uniform(1, 2, (4, 1, 1))))           # up-sampling, with gains


# ------------------------------------------------------------------------------------------------ events

def clip_with(cut: int | None, jump: int | None) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    scenes = [np.kron(rng.integers(30, 180, (9, 16, 3)), np.ones((8, 8, 1))) for _ in range(2)]
    frames = []
    for i in range(20):
        scene = np.roll(scenes[cut is not None and i >= cut], 2 * i, axis=1)
        scene = scene + (25 if jump is not None and i >= jump else 0) + rng.normal(0, 2, scene.shape)
        frames.append(np.clip(scene, 0, 255).astype(np.uint8))
    return frames


@pytest.mark.parametrize("cut,jump", [(None, None), (7, None), (None, 12), (5, 15)])
def test_cuts_and_jumps_are_found(cut, jump):
    events = Events()
    for frame in clip_with(cut, jump):
        events.add(frame)
    expected = [(at, kind) for at, kind in ((cut, "cut"), (jump, "brightness")) if at is not None]
    assert [(e.frame, e.kind) for e in events.found()] == expected
    assert all(abs(e.size - 25) < 2 for e in events.found() if e.kind == "brightness")


# ------------------------------------------------------------------------------------------------ RTL, command line

@pytest.mark.parametrize("threshold", [0, 3])
def test_counted_by_the_rtl(model, tiny_frames, threshold):
    program = program_for(model, SIM8)
    predicted = analyse(model, tiny_frames[:5], Rule(threshold), program)
    device = open_device("rtl:sim8")
    device.load(model, threshold)
    counted = analyse(model, tiny_frames[:5], Rule(threshold), program, device)
    device.close()
    assert counted.source == COUNTED != predicted.source
    for ours, theirs in ((predicted.rrm, counted.rrm), (predicted.scratch, counted.scratch)):
        # The step of the input is left out: over the link its elements come with gaps, which are not predicted. Steps
        # overlap, and what one is longer the next may be shorter, so a frame may be off as much as a step.
        off = np.abs(ours.cycles[:, 2:].sum(axis=1) - theirs.cycles[:, 2:].sum(axis=1))
        assert (off <= np.maximum(0.03 * theirs.cycles[:, 2:].sum(axis=1), SLACK)).all()
        assert (theirs.cycles[:, 1] >= 0.97 * ours.cycles[:, 1]).all()
        np.testing.assert_array_equal(ours.link[1:], theirs.link[1:])


def test_a_device_that_does_something_else_is_found_out(model, tiny_frames):
    device = open_device("rtl:sim8")
    device.load(model, 3)
    with pytest.raises(RuntimeError, match="frame 1, step 1: the device counted"):
        analyse(model, tiny_frames[:3], Rule(0), program_for(model, SIM8), device)
    device.close()


def test_command(tmp_path, capsys, tiny_onnx, tiny_clip):
    json_file, charts = tmp_path / "a.json", tmp_path / "new" / "charts"
    assert main(["analyze", str(tiny_onnx), str(tiny_clip), "--config", "sim8", "--frames", "5", "--threshold", "2",
                 "--json", str(json_file), "--charts", str(charts)]) == 0
    printed = capsys.readouterr().out
    for words in ("sparsity (eq. 9)", "eq. 10", "predicted by the cycle model", "features", "time over theoretical"):
        assert words in printed
    found = json.loads(json_file.read_text())
    assert [f["frame"] for f in found["frames"]] == [0, 1, 2, 3, 4]
    assert found["threshold"] == 2
    assert sum(row["cycles_rrm"] for row in found["layers"]) == pytest.approx(found["summary"]["cycles_rrm"])
    assert sorted(p.name for p in charts.iterdir()) == ["error.png", "layers.png", "threshold.png", "time.png",
                                                        "tradeoff.png"]


@pytest.mark.parametrize("options,words", [(("--backend", "nothing"), "model or rtl"),
                                           (("--config", "nothing"), "no accelerator"),
                                           (("--charts", "FILE"), "cannot make this folder")])
def test_wrong_options(tmp_path, capsys, tiny_onnx, tiny_clip, options, words):
    (tmp_path / "FILE").write_text("")
    options = [o if o != "FILE" else str(tmp_path / o) for o in options]
    assert main(["analyze", str(tiny_onnx), str(tiny_clip), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_summary_with_an_idle_network(model, tiny_frames):
    still = [tiny_frames[0]] * 3
    s = analyse(model, still, Rule(), SIM8.compile(model.network.graph)).summary(1e8, 6e6)
    assert s["sparsity_deltas"] == 1
    assert s["speedup_eq10"] == float("inf")
    assert s["cycles_rrm"] > 0
