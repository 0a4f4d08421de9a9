"""The quantiser: exact where it says exact, proven where it says proven, close elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from host.calibration import calibrate
from host.errors import UserError
from host.network import Network, NetworkInput
from host.quantiser import (
    _projection_bounds,
    accumulator_width,
    pixel_code,
    quantise,
    range_code,
    refresh_interval,
)
from sim.float_model import FloatModel
from sim.golden import GoldenModel
from sim.graph import Code, Edge, Geometry, Graph, Node, Operand, Output, Pool, Projection, Read, Tensor
from sim.linear import scatter


def small_network(rng: np.random.Generator, weight_a: np.ndarray | None = None) -> Network:
    """conv 3x3 s2 + leaky + pool -> (conv 1x1 + shortcut, ReLU) -> global average -> output."""
    a = rng.normal(0, 0.4, (8, 3, 3, 3)) if weight_a is None else weight_a
    b = rng.normal(0, 0.5, (8, 8, 1, 1))
    zeros, ones = np.zeros(8), np.ones(8)
    tensors = [Tensor("x", (3, 16, 20)), Tensor("t", (8, 4, 5)), Tensor("s", (8, 4, 5))]
    projections = [Projection("t#P", (8, 8, 10)), Projection("s#P", (8, 4, 5)), Projection("y#P", (8, 1, 1))]
    average = Edge.conv("s", "y#P", np.full((8, 1, 4, 5), 1 / 20), groups=8)
    edges = (Edge.conv("x", "t#P", a, Geometry(stride=(2, 2), pad=(0, 1))), Edge.conv("t", "s#P", b), average)
    nodes = (Node("t", (Operand("t#P", rng.normal(0, 1, 8)),), np.full(8, 0.1), pool=Pool((2, 2), (2, 2))),
             Node("s", (Operand("s#P", rng.normal(0, 1, 8)), Operand("t", zeros)), zeros))
    output = Output("y", (1, 8), (Read("y#P", ones),), np.arange(8)[None])
    graph = Graph("small", "x", {t.name: t for t in tensors}, {p.name: p for p in projections}, edges, nodes, (output,))
    graph.validate()
    index = np.arange(3 * 16 * 20).reshape(3, 16, 20)
    return Network("small", graph, NetworkInput("x", (1, 3, 16, 20), "float32", index), (("y", (1, 8)),))


def images(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.integers(0, 256, (1, 3, 16, 20)).astype(np.float32) / 255 for _ in range(count)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(("mean", "scale"), [
    ([0], [1 / 255]), ([104, 117, 123], [1.0]), ([127, 127, 127], [1 / 128]), ([0, 0, 0], [1.0])])
def test_whole_pixel_means_keep_every_pixel_value_apart(mean, scale):
    code = pixel_code(np.array(mean), np.array(scale))
    for m in mean:
        codes = code.encode((np.arange(256) - m) * scale[0])
        assert (codes == np.arange(256) - m).all()


@pytest.mark.parametrize(("mean", "scale"), [
    ([127.5], [1 / 127.5]), ([123.675, 116.28, 103.53], [1 / 58.4, 1 / 57.1, 1 / 57.4])])
def test_other_preprocessing_loses_at_most_a_step(mean, scale):
    code = pixel_code(np.array(mean), np.array(scale))
    for m, s in zip(mean, scale, strict=True):
        real = (np.arange(256) - m) * s
        assert np.abs(code.decode(code.encode(real)) - real).max() <= code.scale / 2 * 1.001


@pytest.mark.parametrize(("low", "high"), [(0, 6), (-1, 1), (-3, 0), (-0.01, 9), (0, 0), (2, 5)])
def test_range_code_holds_its_range(low, high):
    code = range_code(low, high)
    assert code.hi - code.lo == 255
    for end in (low, high):
        assert abs(float(code.decode(code.encode(end))) - end) <= code.scale / 2 + 1e-12


def test_int8_is_close_to_the_real_network(rng):
    network = small_network(rng)
    code = pixel_code(np.zeros(1), np.array([1 / 255]))
    quantised = quantise(network, calibrate(network, images(rng, 16)), input_code=code)
    model, exact = GoldenModel(quantised.graph), FloatModel(network.graph, np.float64)
    signal = noise = 0.0
    for image in images(rng, 8):
        codes = network.input.to_codes(image, quantised.graph.tensors["x"].code)
        ours, real = model.frame(codes).outputs["y"], exact.outputs(network.input.to_real(image))["y"]
        signal, noise = signal + np.square(real).sum(), noise + np.square(real - ours).sum()
    assert 10 * np.log10(signal / noise) > 38
    assert quantised.graph.quantised
    assert not network.graph.quantised


def test_average_pooling_weights_are_exact(rng):
    network = small_network(rng)
    graph = quantise(network, calibrate(network, images(rng, 4))).graph
    edge = graph.edges_into("y#P")[0]
    assert (edge.weight_code == 1).all()
    assert graph.projections["y#P"].scale == pytest.approx(graph.tensors["s"].code.scales(8) / 20, rel=1e-12)


@pytest.mark.parametrize(("kind", "entries", "bits"), [("codebook16", 16, 4), ("codebook256", 256, 8)])
def test_codebook_sizes_and_zeros(rng, kind, entries, bits):
    network = small_network(rng)
    network.graph.edges[0].weight[np.abs(network.graph.edges[0].weight) < 0.3] = 0
    graph = quantise(network, calibrate(network, images(rng, 4)), weights=kind).graph
    for e in graph.edges:
        assert e.codebook_bits == bits
        assert len(np.unique(e.weight_code)) <= entries
        assert np.abs(e.weight_code).max() < 1 << 15
        assert (e.weight_code[e.weight == 0] == 0).all()


def test_weights_that_are_shared_already_keep_their_ratios(rng):
    values = np.concatenate([[0] * 8, rng.normal(0, 0.4, 40)])
    weight = rng.choice(values, (32, 3, 3, 3))
    weight[rng.random(weight.shape) < 0.4] = 0
    network = small_network(rng)
    projections = dict(network.graph.projections) | {"w#P": Projection("w#P", (32, 8, 10))}
    wide = replace(network.graph, projections=projections,
                   edges=(*network.graph.edges, Edge.conv("x", "w#P", weight, Geometry(stride=(2, 2)))))
    graph = quantise(replace(network, graph=wide), calibrate(network, images(rng, 4))).graph
    edge, real = graph.edges_into("w#P")[0], graph.edges[-1].weight
    assert edge.codebook_bits == 8
    assert len(np.unique(edge.weight_code)) == len(np.unique(real))
    scale = graph.projections["w#P"].scale[0] / graph.tensors["x"].code.scale
    assert np.abs(edge.weight_code * scale - real).max() <= scale / 2
    assert graph.edges_into("t#P")[0].codebook_bits is None


def worst_input(graph: Graph, edge: Edge, row: int, sign: int) -> np.ndarray:
    """Codes that drive the middle of one projection row as far as it goes."""
    code, shape = graph.tensors[edge.source].code, graph.shape_of(edge.source)
    grow = edge.weight_code * sign
    pulled = np.zeros(shape)
    one = np.zeros(graph.shape_of(edge.target))
    one[row, one.shape[1] // 2, one.shape[2] // 2] = 1
    for position in np.ndindex(*shape):  # adjoint by brute force
        unit = np.zeros(shape)
        unit[position] = 1
        pulled[position] = (scatter(edge, unit, grow, one.shape, np.float64) * one).sum()
    return np.where(pulled > 0, code.hi, np.where(pulled < 0, code.lo, 0))


def test_accumulator_width_is_reached_and_never_passed(rng):
    network = small_network(rng)
    graph = quantise(network, calibrate(network, images(rng, 4))).graph
    edge, width = graph.edges[0], accumulator_width(graph)["t#P"]
    extremes = [scatter(edge, worst_input(graph, edge, row, sign), edge.weight_code, graph.shape_of("t#P"), np.int64)
                for row in range(8) for sign in (1, -1)]
    reached = max(int(np.abs(e).max()) for e in extremes)
    assert reached.bit_length() + 1 == width


def test_accumulators_that_cannot_hold_a_fixed_scale_are_refused(rng):
    network = small_network(rng)
    p = network.graph.projections["t#P"]
    fixed = {**network.graph.projections, "t#P": replace(p, scale=np.full(8, 1e-9))}
    with pytest.raises(UserError, match=r"t#P needs \d+-bit"):
        quantise(replace(network, graph=replace(network.graph, projections=fixed)), calibrate(network, images(rng, 2)))


def test_float_networks_are_scaled_into_narrow_accumulators(rng):
    network = small_network(rng)
    narrow = replace(network, graph=replace(network.graph, accumulator_bits=16))
    graph = quantise(narrow, calibrate(network, images(rng, 4))).graph
    assert max(accumulator_width(graph).values()) <= 16


@pytest.mark.parametrize("bits", range(12, 20))
def test_scaling_goes_on_until_the_codes_fit(bits):
    """Codes that were clipped are not when the scale grows, so one step is not always enough; rows that fit stay."""
    for seed in range(5):
        network = small_network(np.random.default_rng(seed))
        calibration = calibrate(network, images(np.random.default_rng(seed), 4))
        wide = quantise(network, calibration).graph
        graph = quantise(replace(network, graph=replace(network.graph, accumulator_bits=bits)), calibration).graph
        assert max(accumulator_width(graph).values()) <= bits
        for name, p in graph.projections.items():
            grown = p.scale / wide.projections[name].scale
            bounds = _projection_bounds(wide, wide.projections[name])[1]
            assert ((grown > 1) == (bounds >= 1 << bits - 1)).all()


def test_refresh_interval_bounds_the_truncation_drift(rng):
    network = small_network(rng)
    graph = quantise(network, calibrate(network, images(rng, 4))).graph
    assert refresh_interval(graph, {}) is None
    four, eight = (refresh_interval(graph, dict.fromkeys(graph.tensors, t)) for t in (4, 8))
    assert 1 <= eight < four
    narrow = graph.with_parts(accumulator_bits=max(accumulator_width(graph).values()))
    assert refresh_interval(narrow, dict.fromkeys(graph.tensors, 200)) == 0


def test_channels_of_very_different_size_get_gains(rng):
    size = np.array([1, 1, 1e-3, 1, 1e-3, 1e-3, 1e-3, 1e-3])
    network = small_network(rng, rng.normal(0, 0.4, (8, 3, 3, 3)) * size[:, None, None, None])
    for node in network.graph.nodes:
        node.operands[0].bias[:] *= size
    network.graph.edges[1].weight[2, :] *= 1e3                       # a small channel that matters
    statistics = calibrate(network, images(rng, 16))
    with_gain = quantise(network, statistics).graph
    code = with_gain.tensors["t"].code
    assert code.gain is not None
    assert np.ptp(np.log10(code.gain)) > 2
    real = FloatModel(network.graph, np.float64).run(network.input.to_real(images(rng, 1)[0]))["t"]
    error = np.abs(code.decode(code.encode(real)) - real).max(axis=(1, 2))
    assert (error < 0.02 * np.abs(real).max(axis=(1, 2))).all()


def test_bias_correction_takes_off_the_mean_error(rng):
    network = small_network(rng, np.abs(rng.normal(0, 0.4, (8, 3, 3, 3))))
    frames = images(rng, 16)
    statistics = calibrate(network, frames)
    quantised = quantise(network, statistics, weights="codebook16", input_code=Code(1 / 255, 0, 255)).graph
    edge, p = quantised.edges[0], quantised.projections["t#P"]
    real = edge.weight_code * p.scale[edge.rows][:, :, None, None] * 255
    drift = scatter(edge, statistics.tensors["x"].mean, real - edge.weight, p.shape, np.float64).mean(axis=(1, 2))
    assert np.abs(drift).max() > 1e-3
    assert quantised.nodes[0].operands[0].bias == pytest.approx(network.graph.nodes[0].operands[0].bias - drift)


def test_a_code_that_the_network_brings_is_kept(rng):
    network = small_network(rng)
    code = Code(0.037, -100, 155, zero_point=-28)
    tensors = dict(network.graph.tensors) | {"t": Tensor("t", (8, 4, 5), code)}
    network = replace(network, graph=replace(network.graph, tensors=tensors))
    quantised = quantise(network, calibrate(network, images(rng, 2)))
    assert quantised.graph.tensors["t"].code == code


def test_calibration_is_needed_and_must_be_finite(rng):
    network = small_network(rng)
    with pytest.raises(UserError, match="calibration is needed"):
        quantise(network)
    with pytest.raises(UserError, match="no calibration frames"):
        calibrate(network, [])
    bad = images(rng, 1)[0]
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="not finite on calibration frame 0"):
        calibrate(network, [bad])
