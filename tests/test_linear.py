"""Linear edges: matrix products against the geometry equation element by element, and against ONNX."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from sim import linear
from sim.graph import Edge, Geometry
from sim.linear import Axis, Scatter, edge_axes
from tests import plain_reference

small = st.integers(1, 3)
pairs = st.tuples(small, small)


@st.composite
def geometries(draw, height: int, width: int) -> Geometry:
    """Any geometry on a source of this size, negative pads and windows included."""
    window = None
    if draw(st.booleans()):
        y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        window = (y0, draw(st.integers(y0 + 1, height)), x0, draw(st.integers(x0 + 1, width)))
    pad = st.tuples(st.integers(-3, 4), st.integers(-3, 4))
    return Geometry(draw(pairs), draw(pairs), draw(pairs), draw(pad), window)


@st.composite
def edges(draw):
    """(edge with integer weights, values [C, H, W], target shape)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns, spare = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    kind = draw(st.sampled_from(["dense", "depthwise", "grouped", "any"]))
    if kind == "depthwise":
        total = columns + spare
        rows = rng.permutation(total)[:columns, None]
    elif kind == "grouped":
        groups, each = draw(st.integers(1, columns)), draw(small)
        total = groups * each
        rows = rng.integers(0, groups, columns)[:, None] * each + np.arange(each)
    else:
        total = draw(st.integers(1, 5))
        each = total if kind == "dense" else draw(st.integers(1, total))
        rows = np.stack([np.sort(rng.permutation(total)[:each]) for _ in range(columns)])
    channels = np.sort(rng.permutation(columns + spare)[:columns])
    weight = rng.integers(-128, 128, (*rows.shape, draw(small), draw(small)))
    edge = Edge("a", "p", channels, rows, weight.astype(float), draw(geometries(height, width)), weight)
    values = rng.integers(-255, 256, (columns + spare, height, width))
    values[rng.random(values.shape) > draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))] = 0
    return edge, values, (total, draw(st.integers(1, 8)), draw(st.integers(1, 8)))


@settings(max_examples=1000, deadline=None)
@given(edges(), st.sampled_from([np.int64, np.float64, np.float32]), st.sampled_from([1, 40, 1 << 18]))
def test_scatter_is_the_geometry_equation(case, dtype, block):
    """Any rows, stride, dilation, up-sampling, pad and window; whatever the block size."""
    edge, values, target = case
    expected = np.zeros(target, object)
    plain_reference.scatter(edge, values, edge.weight_code, expected)
    with patch.object(linear, "BLOCK_ELEMENTS", block):
        found = linear.scatter(edge, values, edge.weight_code, target, dtype)
    assert found.dtype == dtype
    assert (found == expected).all()


@settings(max_examples=500, deadline=None)
@given(edges())
def test_hits_are_the_positions_that_land(case):
    edge, values, target = case
    y, x = edge_axes(edge, values.shape, target)
    expected = np.zeros((*edge.kernel, *values.shape[1:]))
    for sy, sx, ky, kx, _, _ in plain_reference.landings(edge, values.shape, target):
        expected[ky, kx, sy, sx] = 1
    found = np.einsum("ay,bx->abyx", y.hits(edge.kernel[0]), x.hits(edge.kernel[1]))
    assert (found == expected).all()


@settings(max_examples=100, deadline=None)
@given(edges())
def test_parts_do_not_overlap_and_leave_out_what_sees_only_zeros(case):
    edge, values, target = case
    plan = Scatter(edge, values.shape, target, edge.weight_code, np.int64)
    seen = np.zeros(target, int)
    with patch.object(linear, "BLOCK_ELEMENTS", 1):
        for where, part in plan.parts(values):
            assert part.shape == seen[where].shape
            seen[where] += 1
        assert seen.max() <= 1
        assert not list(plan.parts(np.zeros_like(values)))


def test_untouched_rows_are_skipped():
    edge = Edge.conv("a", "p", np.ones((1, 1, 3, 3)), Geometry(pad=(1, 1)))
    values = np.zeros((1, 16, 4))
    values[0, 7, 2] = 1
    with patch.object(linear, "BLOCK_ELEMENTS", 1):
        rows = [where[1] for where, _ in Scatter(edge, values.shape, (1, 16, 4), edge.weight).parts(values)]
    assert rows == [slice(6, 7, 1), slice(7, 8, 1), slice(8, 9, 1)]


def test_wrong_shape_is_an_error():
    edge = Edge.conv("a", "p", np.ones((1, 2, 1, 1)))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\)"):
        list(Scatter(edge, (2, 3, 3), (1, 3, 3), edge.weight).parts(np.zeros((2, 3, 4))))


def test_tap_that_never_lands_is_left_out():
    axis = Axis.solve(source=4, target=4, kernel=3, stride=1, pad=-5)
    assert axis.taps == ()
    assert not axis.hits(3).any()


def run_onnx(op: str, x: np.ndarray, weight: np.ndarray, **attributes) -> np.ndarray:
    """One ONNX operator on integers in float32 (exact)."""
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("stride, dilation, pads", [((1, 1), (1, 1), (1, 1, 1, 1)),
                                                    ((2, 1), (1, 2), (0, 1, 1, 2)),
                                                    ((3, 2), (2, 1), (2, 0, 0, 1))])
def test_conv_agrees_with_onnx(groups, stride, dilation, pads):
    rng = np.random.default_rng(5)
    x = rng.integers(-9, 10, (1, 6, 11, 9)).astype(np.float32)
    weight = rng.integers(-9, 10, (12, 6 // groups, 3, 3)).astype(np.float32)
    expected = run_onnx("Conv", x, weight, strides=stride, dilations=dilation, pads=pads, group=groups)[0]
    edge = Edge.conv("a", "p", weight, Geometry(stride, dilation, (1, 1), pads[:2]), groups)
    assert (linear.scatter(edge, x[0], edge.weight, expected.shape) == expected).all()


def test_conv_from_shuffled_channels_agrees_with_onnx():
    rng = np.random.default_rng(6)
    x, order = rng.integers(-9, 10, (1, 6, 5, 5)).astype(np.float32), rng.permutation(6)
    weight = rng.integers(-9, 10, (4, 3, 3, 3)).astype(np.float32)
    expected = run_onnx("Conv", x[:, order], weight, pads=(1, 1, 1, 1), group=2)[0]
    edge = Edge.conv("a", "p", weight, Geometry(pad=(1, 1)), 2, channels=order)
    assert (linear.scatter(edge, x[0], edge.weight, expected.shape) == expected).all()


@pytest.mark.parametrize("stride, pads, extra", [((1, 1), (0, 0, 0, 0), (0, 0)),
                                                 ((2, 3), (1, 0, 1, 1), (1, 0))])
def test_transposed_conv_agrees_with_onnx(stride, pads, extra):
    """``oy = y * stride + k - pad``: up-sampling by the stride, taps in reverse."""
    rng = np.random.default_rng(7)
    x = rng.integers(-9, 10, (1, 3, 4, 5)).astype(np.float32)
    weight = rng.integers(-9, 10, (3, 2, 3, 4)).astype(np.float32)
    expected = run_onnx("ConvTranspose", x, weight, strides=stride, pads=pads, output_padding=extra)[0]
    edge = Edge("a", "p", np.arange(3), np.tile(np.arange(2), (3, 1)), weight[:, :, ::-1, ::-1],
                Geometry(upsample=stride, pad=(2 - pads[0], 3 - pads[1])))
    assert (linear.scatter(edge, x[0], edge.weight, expected.shape) == expected).all()
