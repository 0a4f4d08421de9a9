"""Session: what it returns is what the golden model says, for every option, and misuse is one clear error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from host.devices import BACKENDS, ModelDevice, open_device
from host.errors import UserError
from host.link_device import RtlDevice
from host.network import Network, NetworkInput
from host.quantiser import accumulator_width, refresh_interval
from host.rrm_file import Model, load, save
from host.session import Session, needs_calibration, open_model, quantised
from host.sidecar import Sidecar
from sim.golden import GoldenModel
from sim.graph import Graph
from tests.conftest import ROOT
from tests.random_graphs import Limits, random_clip, random_graph

SEEDS = range(6)


def model_of(graph: Graph) -> Model:
    """The graph as a network whose ONNX input array holds the codes themselves (no sidecar applies)."""
    tensor = graph.tensors[graph.input]
    index = np.arange(np.prod(tensor.shape)).reshape(tensor.shape)
    outputs = tuple((o.name, o.shape) for o in graph.outputs)
    network_input = NetworkInput("codes", (1, *tensor.shape), "int8", index, tensor.code)
    return Model(Network(graph.name, graph, network_input, outputs), Sidecar())


def arrays(graph: Graph, seed: int, count: int) -> list[np.ndarray]:
    """A random clip as ONNX input arrays: stored values, q = code + zero point."""
    zero = graph.tensors[graph.input].code.zero_point
    return [codes[None].astype(np.int32) + zero for codes in random_clip(graph, seed, count)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threshold", [0, 1])
def test_exact_mode_equals_every_frame_from_scratch(seed, threshold):
    graph = random_graph(seed)
    reference = GoldenModel(graph)
    session = Session(model_of(graph), threshold=threshold)
    for i, (codes, array) in enumerate(zip(random_clip(graph, seed, 6), arrays(graph, seed, 6), strict=True)):
        outputs, stats = session.infer_array(array)
        state = reference.dense(codes)
        for name, value in reference.outputs(state).items():
            np.testing.assert_array_equal(outputs[name], value.astype(np.float32))
        for name in graph.tensors:
            np.testing.assert_array_equal(session.device.read_tensor(name), state.snapshots[name])
        assert (stats.frame, stats.refresh) == (i, i == 0)


@pytest.mark.parametrize("mode", ["hold", "truncate"])
def test_thresholds_reach_the_device(mode):
    graph = random_graph(3)
    threshold = {graph.input: 20, graph.nodes[0].target: 3}
    session = Session(model_of(graph), threshold=threshold, mode=mode)
    reference = GoldenModel(graph, threshold, mode)
    for codes, array in zip(random_clip(graph, 5, 5), arrays(graph, 5, 5), strict=True):
        _, stats = session.infer_array(array)
        assert stats.detail.tensors == reference.frame(codes).tensors


def test_stats_are_sums_over_the_network():
    graph = random_graph(2)
    session, plain = Session(model_of(graph), "model:cycles"), Session(model_of(graph))
    for array in arrays(graph, 2, 3):
        _, stats = session.infer_array(array)
        assert stats.cycles > 0
        assert plain.infer_array(array)[1].as_dict() == {
            name: value for name, value in stats.as_dict().items() if name != "cycles"}
        tensors, edges = stats.detail.tensors.values(), stats.detail.edges
        assert stats.as_dict() == {
            "frame": stats.frame, "refresh": stats.refresh, **({"reason": "first"} if stats.refresh else {}),
            "elements": sum(t.elements for t in tensors), "nonzero": sum(t.nonzero for t in tensors),
            "deltas": sum(t.deltas for t in tensors), "macs": sum(e.macs for e in edges),
            "macs_nonzero_weights": sum(e.macs_nonzero_weights for e in edges),
            "macs_activations": sum(e.macs_activations for e in edges),
            "macs_dense": sum(e.macs_dense for e in edges),
            "cycles": stats.detail.cycles,
            "density": round(sum(e.macs for e in edges) / sum(e.macs_dense for e in edges), 6)}


def test_refresh_and_reset_start_from_scratch():
    graph = random_graph(4)
    session = Session(model_of(graph), threshold=30)
    frames = arrays(graph, 4, 4)
    for array in frames[:3]:
        session.infer_array(array)
    for begin_anew in (lambda: session.infer_array(frames[3], refresh=True),
                       lambda: (session.reset(), session.infer_array(frames[3]))[1]):
        outputs, stats = begin_anew()
        assert stats.refresh
        alone, _ = Session(model_of(graph)).infer_array(frames[3])
        for name, value in alone.items():
            np.testing.assert_array_equal(outputs[name], value)


def test_truncate_refreshes_before_an_accumulator_could_wrap():
    graph = random_graph(1, Limits(p_direct=0))
    graph = graph.with_parts(accumulator_bits=max(accumulator_width(graph).values()) + 1)
    interval = refresh_interval(graph, dict.fromkeys(graph.tensors, 60))
    assert interval is not None
    assert interval < 20, "a shorter test needs a graph whose proof lasts less long"
    session = Session(model_of(graph), threshold=60, mode="truncate")
    reasons = [session.infer_array(a)[1].reason for a in arrays(graph, 1, 3 * (interval + 1))]
    assert reasons == ["first" if i == 0 else None if i % (interval + 1) else "range"
                       for i in range(3 * (interval + 1))]
    held = Session(model_of(graph), threshold=60)
    assert held.refresh_every is None


@pytest.mark.parametrize("seed", SEEDS)
def test_tap_reads_any_tensor_and_projection(seed):
    graph = random_graph(seed)
    session, reference = Session(model_of(graph)), GoldenModel(graph)
    for codes, array in zip(random_clip(graph, seed, 2), arrays(graph, seed, 2), strict=True):
        session.infer_array(array)
        reference.frame(codes)
    for name, tensor in graph.tensors.items():
        np.testing.assert_array_equal(session.tap(name),
                                      (reference.snapshots[name] * tensor.code.scale).astype(np.float32))
    for name, p in graph.projections.items():
        np.testing.assert_array_equal(
            session.tap(name), (reference.projections[name] * p.scale[:, None, None]).astype(np.float32))


def test_an_unknown_tensor_lists_similar_names(tiny_onnx, tiny_frames):
    session = Session(tiny_onnx, calibration=tiny_frames)
    with pytest.raises(UserError, match="no tensor 'feature'; similar names: features"):
        session.tap("feature")


@pytest.mark.parametrize(("options", "message"), [
    ({"threshold": 256}, "threshold of tensor t0 is 256; it must be 0..255"),
    ({"threshold": {"t1": -1}}, "threshold of tensor t1 is -1"),
    ({"threshold": {"t11": 2}}, "no tensor 't11'; similar names: t1"),
    ({"mode": "keep"}, "mode of tensor t0 is 'keep'"),
    ({"device": "board"}, "there is no backend 'board'; the backends are rtl, model"),
    ({"device": "model:1"}, "backend 'model' is followed by nothing or by :cycles"),
])
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        Session(model_of(random_graph(1)), **options)


def test_thresholds_of_projections_are_refused():
    graph = random_graph(1)
    with pytest.raises(UserError, match="is a projection"):
        Session(model_of(graph), threshold={next(iter(graph.projections)): 2})


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)),
                                   np.zeros((0, 4, 3), np.uint8)])
def test_wrong_frames(tiny_onnx, tiny_frames, frame):
    with pytest.raises(UserError, match="a frame must be uint8"):
        Session(tiny_onnx, calibration=tiny_frames).infer(frame)


def test_a_device_of_ones_own():
    class Counting(ModelDevice):
        frames = closed = 0

        def frame(self, codes, refresh=False):
            self.frames += 1
            return super().frame(codes, refresh)

        def close(self):
            self.closed += 1

    graph, device = random_graph(0), Counting()
    with Session(model_of(graph), device) as session:
        for array in arrays(graph, 0, 3):
            session.infer_array(array)
    assert (device.frames, device.closed) == (3, 1)


def test_every_backend_opens():
    assert list(BACKENDS) == ["rtl", "model", "serial"]
    assert isinstance(open_device("model"), ModelDevice)
    assert isinstance(open_device("rtl:sim8"), RtlDevice)


# ------------------------------------------------------------------------------------- from files to outputs

def test_an_onnx_file_needs_calibration(tiny_onnx):
    model = open_model(tiny_onnx)
    assert needs_calibration(model)
    with pytest.raises(UserError, match="calibration"):
        Session(tiny_onnx)


def test_outputs_follow_the_float_network(tiny_onnx, tiny_frames):
    """Every ONNX output is there under its name and shape, the one that the host tail makes included."""
    session = Session(tiny_onnx, calibration=tiny_frames)
    pre, network = session.model.sidecar.input, session.network
    reference = onnxruntime.InferenceSession(tiny_onnx, providers=["CPUExecutionProvider"])
    for frame in tiny_frames[::8]:
        outputs, _ = session.infer(frame)
        expected = reference.run(None, {"image": pre.apply(frame, network.input)})
        assert list(outputs) == ["map", "heat"]
        for value, right in zip(outputs.values(), expected, strict=True):
            assert value.shape == right.shape
            assert value.dtype == right.dtype
            signal, noise = np.square(right).mean(), np.square(value - right).mean()
            assert 10 * np.log10(signal / noise) > 25


def test_a_compiled_file_gives_the_same_integers(tmp_path, tiny_onnx, tiny_frames):
    model = quantised(open_model(tiny_onnx), tiny_frames)
    save(tmp_path / "n.rrm", model)
    direct, compiled = Session(model, threshold=2), Session(tmp_path / "n.rrm", threshold=2)
    for frame in tiny_frames[:6]:
        (a, s), (b, t) = direct.infer(frame), compiled.infer(frame)
        assert s.as_dict() == t.as_dict()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert not needs_calibration(load(tmp_path / "n.rrm"))


def test_the_example_of_the_usage_page_runs(tmp_path, monkeypatch, capsys, tiny_onnx, tiny_frames):
    (tmp_path / "net.onnx").write_bytes(tiny_onnx.read_bytes())
    monkeypatch.chdir(tmp_path)
    example = (ROOT / "docs" / "usage.md").read_text().partition("```python\n")[2].partition("```")[0]
    exec(compile(example, "usage.md", "exec"), {"frames": tiny_frames})
    density = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert len(density) == len(tiny_frames)
    assert max(density[1:]) < density[0] <= 1


def test_a_sidecar_beside_the_network_counts(tmp_path, tiny_onnx, tiny_frames):
    path = tmp_path / "net.onnx"
    path.write_bytes(tiny_onnx.read_bytes())
    (tmp_path / "net.toml").write_text('[input]\ncolour = "bgr"\nscale = "1/255"\n')
    session = Session(path, calibration=tiny_frames)
    frame = tiny_frames[0]
    swapped = Session(replace(session.model, sidecar=session.model.sidecar.with_input({"colour": "rgb"})))
    np.testing.assert_array_equal(session.infer(frame)[0]["map"], swapped.infer(frame[:, :, ::-1])[0]["map"])
