"""Tuning: within the limit, as cheap as an exhaustive search, nothing changed by the modes, and in the file."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from benchmarks.density import layer, values
from host import rrm_file, thresholds, tuning
from host.cli import main
from host.configs import named
from host.cycles import observed_frame
from host.errors import UserError
from host.session import Session, open_model, quantised
from host.tuning import Bench, Limit, Point, best_modes, search
from host.video import add_noise
from sim.golden import GoldenModel
from tests.onnx_nets import Net, save

SIM8 = named("sim8")


@pytest.fixture(scope="module")
def model(tiny_onnx, tiny_frames):
    return quantised(open_model(tiny_onnx), tiny_frames[:8])


@pytest.fixture(scope="module")
def bench(model, tiny_frames):
    frames = [add_noise(f, 1.5, 1, i) for i, f in enumerate(tiny_frames[:7])]
    return Bench(model, SIM8.compile(model.network.graph), frames)


@pytest.fixture(scope="module")
def wide(tmp_path_factory, tiny_frames):
    """Three tensors that all have work to save."""
    net = Net(1, 3, 16, 24)
    x = net.x
    for rows, channels in ((24, 3), (24, 24)):
        x = net.add("Relu", net.conv(x, rows, channels))
    path = save(net.model(net.conv(x, 8, 24)), tmp_path_factory.mktemp("wide"))
    model = quantised(open_model(path), tiny_frames[:8])
    frames = [add_noise(f, 1.5, 1, i) for i, f in enumerate(tiny_frames[:5])]
    return Bench(model, SIM8.compile(model.network.graph), frames)


def test_measuring_is_what_the_golden_model_does(bench):
    exact, coarse = bench.measure({}), bench.measure({"image": 8, "features": 8})
    assert exact.error == 0
    assert coarse.error > 0
    assert coarse.cycles < exact.cycles
    golden, dense = GoldenModel(bench.graph, {"image": 8, "features": 8}), GoldenModel(bench.graph)
    errors = [tuning.relative_error(golden.frame(c).outputs, dense.frame(c).outputs) for c in bench.codes]
    assert coarse.error == np.mean(errors[1:])


LEVELS = (0, 2, 4, 8, 16)


@pytest.fixture(scope="module")
def every(wide) -> list[Point]:
    """All configurations of these levels."""
    return [wide.measure(dict(zip(wide.graph.tensors, levels, strict=True))) for levels in product(LEVELS, repeat=3)]


@pytest.mark.parametrize("max_error", [0.01, 0.02, 0.04])
def test_nearly_as_cheap_as_an_exhaustive_search(monkeypatch, wide, every, max_error):
    monkeypatch.setattr(tuning, "LEVELS", LEVELS)
    limit = Limit(max_error)
    best, points = search(wide, limit)
    assert limit.kept(best)
    assert best == wide.measure(best.thresholds, "tuned")
    assert all(best.cycles <= p.cycles for p in points if limit.kept(p))
    cheapest = min(p.cycles for p in every if limit.kept(p))
    uniform = min(p.cycles for p in every if limit.kept(p) and len(set(p.thresholds.values())) == 1)
    assert cheapest <= best.cycles <= 1.05 * cheapest < uniform


def test_agreement_as_the_limit(bench):
    points = {t: bench.measure(dict.fromkeys(bench.graph.tensors, t)) for t in (0, 32)}
    best, _ = search(bench, Limit(min_agreement=points[0].agreement))
    assert best.agreement >= points[0].agreement
    with pytest.raises(UserError, match="without thresholds"):
        search(bench, Limit(min_agreement=1.01))


def test_a_limit_is_kept_or_not():
    point = Point("", {}, 1.0, 0.05, 0.9)
    assert Limit(0.05, 0.9).kept(point)
    assert not Limit(0.049).kept(point)
    assert not Limit(None, 0.91).kept(point)


def test_modes_pay_off_and_change_nothing():
    """On frames without anything in common, values are fewer than changes."""
    graph = layer()
    clip = [values("random", 0.1, seed) for seed in range(3)]
    golden, changes = GoldenModel(graph), []
    for codes in clip:
        changes.append(observed_frame(golden, codes)[1])
    found = best_modes(graph, SIM8.compile, changes[1:])
    assert found.projections["result"].mode == "direct"
    before, after = (tuning._cycles(SIM8.compile(g), changes[1:]) for g in (graph, found))
    assert sum(after.values()) < 0.7 * sum(before.values())
    ours, theirs = GoldenModel(found), GoldenModel(graph)
    for codes in clip:
        np.testing.assert_array_equal(ours.frame(codes).outputs["result"], theirs.frame(codes).outputs["result"])


def test_modes_stay_where_changes_are_fewer(bench):
    assert best_modes(bench.graph, SIM8.compile, bench.changes({})) is bench.graph


def test_too_few_frames(model, tiny_frames):
    with pytest.raises(UserError, match="too few"):
        Bench(model, SIM8.compile(model.network.graph), tiny_frames[:1])


def test_command(tmp_path, capsys, tiny_onnx, tiny_clip):
    out, report, chart = tmp_path / "tuned.rrm", tmp_path / "t.json", tmp_path / "t.png"
    assert main(["tune", str(tiny_onnx), str(tiny_clip), "--max-error", "0.1", "--config", "sim8", "--frames", "9",
                 "-o", str(out), "--json", str(report), "--chart", str(chart)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["searched"] == 6
    assert found["best"]["error"] <= 0.1
    assert [row["label"] for row in found["held_out"]] == [
        "exact", "hold 2", "hold 4", "tuned thresholds", "tuned thresholds and modes"]
    assert "2 frames that the search has not seen" in printed
    assert dict(rrm_file.load(out).sections[thresholds.SECTION]) == found["best"]["thresholds"]
    assert chart.stat().st_size > 1000
    with Session(out) as tuned, Session(out, threshold=0) as exact:
        assert {k: t for k, t in tuned.thresholds.items() if t} == found["best"]["thresholds"] != {}
        assert not any(exact.thresholds.values())


@pytest.mark.parametrize("options,words", [((), "needs a limit"),
                                           (("--max-error", "0.1", "-o", "none/x.rrm"), "folder"),
                                           (("--max-error", "0.1", "--config", "x"), "no accelerator")])
def test_wrong_options(capsys, tiny_onnx, tiny_clip, options, words):
    assert main(["tune", str(tiny_onnx), str(tiny_clip), *options]) == 2
    assert words in capsys.readouterr().err
