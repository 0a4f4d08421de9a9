"""Accumulated-error control: e_t is eq. 7, H is eq. 8, and a frame follows H's word, on the model and on the RTL."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from host import rrm_file
from host.aecs import DEGREE, SECTION, ErrorControl, ErrorModel, relative_error, shares_below
from host.cli import main
from host.drift import Drift
from host.errors import UserError
from host.link_device import RtlDevice
from host.rrm_file import Model
from host.session import Session, open_model, quantised
from sim.golden import GoldenModel
from tests.random_graphs import Limits, random_clip, random_graph
from tests.test_devices import SMALL
from tests.test_session import arrays, model_of

STRAIGHT = ErrorModel((0.0, 1.0, 0.0, 0.0, 0.0), 0.0, 1000.0)
"""H(e) = e / 1000 up to 1."""


def with_error_model(model: Model, fitted: ErrorModel = STRAIGHT) -> Model:
    return replace(model, sections={**model.sections, SECTION: fitted.to_section()})


# ------------------------------------------------------------------------------------------------ e_t (eq. 7)

@pytest.mark.parametrize("seed", range(4))
def test_accumulated_value_is_equation_7(seed):
    """Worked out from what the golden model's snapshots and results say, element by element."""
    graph = random_graph(seed, Limits(layers=3))
    thresholds = dict.fromkeys(graph.tensors, 9)
    last = graph.nodes[-1].target
    modes = dict.fromkeys(graph.tensors, "truncate") | {last: "hold"}
    fed = {e.source for e in graph.edges if graph.projections[e.target].mode == "delta"}
    model, session = GoldenModel(graph, thresholds, modes), Session(model_of(graph), threshold=thresholds, mode=modes)
    expected = 0.0
    for i, (codes, array) in enumerate(zip(random_clip(graph, seed, 6), arrays(graph, seed, 6), strict=True)):
        before = {name: value.astype(int) for name, value in model.snapshots.items()}
        model.frame(codes, refresh=i == 3)
        if i in (0, 3):
            expected = 0.0
        else:
            for name in sorted(fed - {last}):
                change = model.snapshots[name] - before[name]
                dropped = change[np.abs(change) < 9]
                expected += graph.tensors[name].code.scale * np.sqrt((dropped ** 2).sum())
        stats = session.infer_array(array, refresh=i == 3)[1]
        assert stats.truncated == pytest.approx(expected, abs=1e-9)
    assert expected > 0, "nothing was truncated, so nothing is shown"


def test_hold_accumulates_nothing():
    graph = random_graph(1)
    stats = [Session(model_of(graph), threshold=9).infer_array(a)[1] for a in arrays(graph, 1, 3)]
    assert all(s.truncated is None and "truncated" not in s.as_dict() for s in stats)


# ------------------------------------------------------------------------------------------------- H (eq. 8)

def test_a_polynomial_is_found_again():
    rng = np.random.default_rng(0)
    right = ErrorModel((0.02, 0.1, 0.05, 0.2, 0.1), 10.0, 500.0)
    e = rng.uniform(10, 500, 400)
    e[:2] = 10, 500
    found = ErrorModel.fit([(x, right(x)) for x in e])
    for x in np.linspace(10, 500, 50):
        assert found(x) == pytest.approx(right(x), rel=0.01)
    assert (found.low, found.high, found.pairs) == (10, 500, 400)
    assert len(found.coefficients) == DEGREE + 1


@pytest.mark.parametrize("quantile", [0.5, 0.8, 0.95])
def test_the_quantile_is_met_and_h_never_falls(quantile):
    rng = np.random.default_rng(1)
    e = rng.uniform(1, 1000, 3000)
    error = np.sqrt(e) / 100 * rng.uniform(0.2, 1.8, 3000)
    error[e > 700] = 0.1
    pairs = list(zip(e, error, strict=True))
    found = ErrorModel.fit(pairs, quantile)
    assert shares_below(found, pairs) == pytest.approx(quantile, abs=0.02)
    values = [found(x) for x in np.linspace(1, 1000, 400)]
    assert (np.diff(values) >= -1e-12).all()
    assert values[0] >= 0


def test_outside_its_range_h_is_what_it_is_at_the_end():
    model = ErrorModel((0.1, 0.3, 0.0, 0.0, 0.0), 100.0, 200.0)
    assert [round(model(e), 9) for e in (0, 50, 100, 150, 200, 9000)] == [0, 0.1, 0.1, 0.25, 0.4, 0.4]
    assert model.largest == pytest.approx(0.4)
    assert ErrorModel.from_section(model.to_section()) == model


@pytest.mark.parametrize("pairs", [[], [(0.0, 0.0)] * 100, [(3.0, 0.1)] * 100, [(1.0, 0.1), (2.0, float("inf"))] * 19])
def test_too_little_to_fit(pairs):
    with pytest.raises(UserError, match="lost anything by truncation"):
        ErrorModel.fit(pairs)


def test_relative_error_is_over_all_outputs():
    exact = {"a": np.array([3.0]), "b": np.array([[0.0, 4.0]])}
    assert relative_error({"a": np.array([3.0]), "b": np.array([[1.0, 4.0]])}, exact) == pytest.approx(0.2)
    assert relative_error({"a": np.zeros(2)}, {"a": np.zeros(2)}) == 0
    assert relative_error({"a": np.ones(2)}, {"a": np.zeros(2)}) == float("inf")


# ------------------------------------------------------------------------------------------------- the control

def errors(model: Model, clip: list[np.ndarray], **options) -> tuple[list[float], list]:
    """(error, stats) of every frame beside the exact run."""
    ours, exact, found, stats = Session(model, **options), Session(model, refresh="never"), [], []
    for array in clip:
        frame = ours.infer_array(array)[1]
        found.append(relative_error(frame.detail.outputs, exact.infer_array(array)[1].detail.outputs))
        stats.append(frame)
    return found, stats


@pytest.mark.parametrize("device", ["model", "rtl"])
def test_a_frame_after_too_large_an_error_is_precise(device):
    graph = random_graph(104, Limits(layers=3, p_direct=0))
    clip = arrays(graph, 3, 10)
    options = {"threshold": 6, "mode": "truncate", "refresh": "never"}
    drift = [s.truncated for s in errors(model_of(graph), clip, **options)[1]]
    limit = float(np.mean(drift[2:4]))
    model = with_error_model(model_of(graph), replace(STRAIGHT, high=4 * limit))
    with Session(model, RtlDevice(SMALL) if device == "rtl" else "model", max_error=0.25, **options) as session:
        stats = [session.infer_array(a)[1] for a in clip]
    assert [s.truncated for s in stats[:4]] == pytest.approx(drift[:4])
    assert sum(s.reason == "error" for s in stats) >= 1
    for before, after in pairwise(stats):
        assert before.predicted_error == pytest.approx(min(before.truncated / (4 * limit), 1.0))
        assert after.reason == ("error" if before.truncated > limit else None)
        assert after.refresh == (before.truncated > limit)
    assert all(s.truncated == 0 == s.predicted_error for s in stats if s.refresh)


@pytest.mark.parametrize(("options", "fitted", "message"), [
    ({"mode": "truncate"}, None, "has no error model yet.*rrm-fpga fit-error"),
    ({"mode": "hold"}, STRAIGHT, "needs mode truncate"),
    ({"mode": "truncate", "max_error": 1.5}, STRAIGHT, "knows errors up to 1 only; fit it again"),
    ({"mode": "truncate", "max_error": 0}, STRAIGHT, "is 0; it must be above 0"),
    ({"mode": "truncate", "max_error": float("nan")}, STRAIGHT, "is nan; it must be above 0")])
def test_limits_that_cannot_be_kept(options, fitted, message):
    model = model_of(random_graph(0, Limits(p_direct=0)))
    model = model if fitted is None else with_error_model(model, fitted)
    with pytest.raises(UserError, match=message):
        Session(model, threshold=4, **{"max_error": 0.1} | options)


def test_a_tensor_with_direct_consumers_alone_does_not_drift():
    graph = random_graph(0)
    graph = graph.with_parts(projections={k: replace(p, mode="direct") for k, p in graph.projections.items()})
    assert ErrorControl(graph, dict.fromkeys(graph.tensors, "truncate")).accumulated is None


# ------------------------------------------------------------------------------------------- from clips to frames

@pytest.fixture(scope="module")
def compiled(tmp_path_factory, tiny_onnx, tiny_clip) -> Path:
    """The tiny network with an error model fitted on its clip."""
    path = tmp_path_factory.mktemp("aecs") / "tiny.rrm"
    assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), "-o", str(path)]) == 0
    assert main(["fit-error", str(path), str(tiny_clip), "--threshold", "6", "--threshold", "12"]) == 0
    return path


def test_drift_is_measured_beside_the_exact_run(tiny_onnx, tiny_frames):
    model = quantised(open_model(tiny_onnx), tiny_frames)
    drift = Drift(model, [5, 12])
    for frame in tiny_frames[:8]:
        drift.add(frame)
    for t, pairs in drift.pairs.items():
        ours, exact = GoldenModel(model.network.graph, t, "truncate"), GoldenModel(model.network.graph)
        session = Session(model, threshold=t, mode="truncate", refresh="never")
        for (e, error), frame in zip(pairs, tiny_frames, strict=False):
            codes = session.codes(model.sidecar.input.apply(frame, model.network.input))
            assert error == relative_error(ours.frame(codes).outputs, exact.frame(codes).outputs)
            assert e == session.infer(frame)[1].truncated
        assert pairs[0] == (0, 0)
        assert pairs[-1][0] > pairs[1][0] > 0
        assert pairs[-1][1] > 0


def test_truncation_with_control_stays_below_what_it_does_without(compiled, tiny_frames, capsys):
    model = rrm_file.load(compiled)
    fitted = ErrorModel.from_section(model.sections[SECTION])
    limit = 0.6 * fitted.largest
    clip = [model.sidecar.input.apply(f, model.network.input) for f in tiny_frames]
    free, _ = errors(model, clip, threshold=12, mode="truncate", refresh="never")
    kept, stats = errors(model, clip, threshold=12, mode="truncate", refresh="never", max_error=limit)
    refreshes = [s.frame for s in stats if s.reason == "error"]
    assert 1 <= len(refreshes) < len(clip) / 2
    assert max(kept) <= limit < max(free)


def test_infer_lists_the_refreshes(compiled, tiny_clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    limit = 0.5 * ErrorModel.from_section(rrm_file.load(compiled).sections[SECTION]).largest
    assert main(["infer", str(tiny_clip), "--model", str(compiled), "--backend", "model", "--threshold", "12", "--mode",
                 "truncate", "--max-error", str(limit), "--json", "f.jsonl"]) == 0
    lines = [json.loads(line) for line in Path("f.jsonl").read_text().splitlines()]
    for before, after in pairwise(lines):
        assert (after.get("reason") == "error") == (before["predicted_error"] > limit)
    count = sum(line.get("reason") == "error" for line in lines)
    assert count > 0
    assert f"{count} for --max-error" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["fit-error", "{onnx}", "{clip}"], "this is not an .rrm file; make one with: rrm-fpga compile"),
    (["fit-error", "{rrm}", "none.mp4"], "none.mp4: there is no such file"),
    (["fit-error", "{rrm}", "{clip}", "--frames", "3"], "frames lost anything by truncation; 20 are needed"),
    (["fit-error", "{rrm}", "{clip}", "-o", "none/a.rrm"], "none/a.rrm: cannot write"),
    (["infer", "{clip}", "--model", "{rrm}", "--backend", "model", "--max-error", "0.1"], "needs mode truncate"),
    (["infer", "{clip}", "--model", "{onnx}", "--backend", "model", "--mode", "truncate", "--max-error", "0.1"],
     "has no error model yet"),
    (["infer", "{clip}", "--model", "{rrm}", "--backend", "model", "--refresh", "often"], "refresh is 'often'"),
    (["infer", "{clip}", "--model", "{rrm}", "--backend", "model", "--refresh", "0"], "refresh is '0'"),
    (["infer", "{clip}", "--model", "{rrm}", "--backend", "model", "--epsilon", "1", "--threshold", "2"],
     "give one of them")])
def test_one_clear_error(compiled, tiny_onnx, tiny_clip, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = compiled.read_bytes()
    assert main([a.format(onnx=tiny_onnx, clip=tiny_clip, rrm=compiled) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert compiled.read_bytes() == before
