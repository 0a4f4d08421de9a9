"""Layers of ONNX networks against onnxruntime: every geometry that an edge can take."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.onnx_nets import Net, agree

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@pytest.fixture(scope="module")
def folder():
    with TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=80, deadline=None)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
       kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
       stride=PAIR, dilation=PAIR, pads=st.lists(st.integers(0, 3), min_size=4, max_size=4),
       groups=st.sampled_from([1, 2, 4]), rows=st.integers(1, 2), bias=st.booleans(), seed=st.integers(0, 99),
       auto=st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
def test_conv(folder, size, kernel, stride, dilation, pads, groups, rows, auto, bias, seed):
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if auto.startswith("SAME"):
        dilation = (1, 1)  # onnxruntime refuses dilation there
    pads = {"pads": pads} if auto == "NOTSET" else {}
    room = [n + p for n, p in zip(size, np.reshape(pads.get("pads", [0] * 4), (2, 2)).sum(0), strict=True)]
    if not auto.startswith("SAME") and any(r > n for r, n in zip(reach, room, strict=True)):
        return
    net = Net(1, 4, *size, seed=seed)
    weight = net.normal(rows * groups, 4 // groups, *kernel)
    y = net.add("Conv", net.x, weight, *([net.normal(rows * groups)] if bias else []), strides=stride,
                dilations=dilation, group=groups, auto_pad=auto, **pads)
    agree(net, folder, y)


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
       kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
       stride=PAIR, dilation=PAIR, pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
       extra=st.tuples(st.integers(0, 2), st.integers(0, 2)), groups=st.sampled_from([1, 2]),
       form=st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "output_shape"]),
       rows=st.integers(1, 3), seed=st.integers(0, 99))
def test_conv_transpose(folder, size, kernel, stride, dilation, pads, extra, groups, rows, form, seed):
    extra = [min(e, s - 1) for e, s in zip(extra, stride, strict=True)]
    full = [(n - 1) * s + (k - 1) * d + 1 + e
            for n, s, k, d, e in zip(size, stride, kernel, dilation, extra, strict=True)]
    attributes = {"pads": {"pads": pads}, "output_shape": {"output_shape": [max(f - 1, 1) for f in full]}}
    attributes = attributes.get(form, {"auto_pad": form})
    if form == "pads" and any(f - p < 1 for f, p in zip(full, np.reshape(pads, (2, 2)).sum(0), strict=True)):
        return
    if form.startswith("SAME") and any(f < n * s for f, n, s in zip(full, size, stride, strict=True)):
        return
    net = Net(1, 4, *size, seed=seed)
    y = net.add("ConvTranspose", net.x, net.normal(4, rows, *kernel), net.normal(rows * groups),
                strides=stride, dilations=dilation, output_padding=extra, group=groups, **attributes)
    agree(net, folder, y)


def test_conv_of_one_axis(folder):
    net = Net(1, 3, 11)
    y = net.add("Relu", net.add("Conv", net.x, net.normal(4, 3, 3), net.normal(4), pads=[1, 2], strides=[2]))
    z = net.add("ConvTranspose", y, net.normal(4, 2, 3), strides=[2])
    agree(net, folder, z)


@pytest.mark.parametrize("pool,padding_counts", [("MaxPool", 0), ("AveragePool", 0), ("AveragePool", 1)])
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("kernel,stride,pads", [
    ((3, 3), (2, 2), (0, 0, 0, 0)), ((3, 2), (1, 3), (1, 0, 1, 1)), ((2, 2), (2, 2), (0, 0, 0, 0)),
    ((5, 5), (1, 1), (2, 2, 2, 2)), ((3, 3), (3, 2), (1, 1, 0, 1))])
@pytest.mark.parametrize("size", [(7, 8), (8, 9), (6, 6)])
def test_pool(folder, pool, padding_counts, ceil, kernel, stride, pads, size):
    net = Net(1, 3, *size)
    more = {"count_include_pad": padding_counts} if pool == "AveragePool" else {}
    y = net.add(pool, net.conv(net.x, 4, 3), kernel_shape=kernel, strides=stride, pads=pads, ceil_mode=ceil,
                **more)
    agree(net, folder, net.conv(y, 2, 4))


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_pool_auto_pad(folder, auto):
    net = Net(1, 3, 7, 9)
    y = net.add("MaxPool", net.conv(net.x, 4, 3), kernel_shape=[3, 2], strides=[2, 2], auto_pad=auto)
    agree(net, folder, net.conv(y, 2, 4))


def test_pool_dilated_and_global(folder):
    net = Net(1, 3, 9, 9)
    y = net.add("MaxPool", net.conv(net.x, 4, 3), kernel_shape=[3, 3], dilations=[2, 1], strides=[1, 2])
    a, b = (net.add(op, net.conv(y, 4, 4)) for op in ("GlobalMaxPool", "GlobalAveragePool"))
    agree(net, folder, net.conv(net.add("Concat", a, b, axis=1), 3, 8, 1))


@pytest.mark.parametrize("axes,keep", list(product([[2, 3], [3], [1], [1, 2, 3], [-1, -2]], [0, 1])))
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum"])
def test_reduce(folder, op, axes, keep):
    net = Net(1, 3, 4, 5)
    y = net.conv(net.x, 4, 3)
    y = (net.add(op, y, axes=axes, keepdims=keep) if op == "ReduceMean"
         else net.add(op, y, np.array(axes), keepdims=keep))
    flat = net.add("Reshape", y, np.array([1, -1]))
    count = int(np.prod([n for a, n in enumerate((1, 4, 4, 5)) if a not in [x % 4 for x in axes]]))
    agree(net, folder, net.add("Gemm", flat, net.normal(count, 3)))


def test_reduce_mean_of_channels_last(folder):
    net = Net(1, 5, 4, 3)
    y = net.add("Relu", net.conv(net.add("Transpose", net.x, perm=[0, 3, 1, 2]), 6, 3))
    y = net.add("ReduceMean", net.add("Transpose", y, perm=[0, 2, 3, 1]), axes=[1, 2], keepdims=0)
    agree(net, folder, net.add("MatMul", y, net.normal(6, 2)))


@pytest.mark.parametrize("a,b", list(product([0, 1], [0, 1])))
def test_gemm(folder, a, b):
    net = Net(1, 2, 3, 4)
    y = net.add("Flatten", net.add("Relu", net.conv(net.x, 3, 2)))
    weight = net.normal(36, 5)
    y = net.add("Transpose", y, perm=[1, 0]) if a else y
    y = net.add("Gemm", y, weight.T if b else weight, net.normal(5), transA=a, transB=b, alpha=0.5, beta=2.0)
    agree(net, folder, net.add("Gemm", net.add("Relu", y), net.normal(5, 3), net.normal(1, 3)))


def test_gemm_adds_a_map(folder):
    net = Net(1, 2, 3, 4)
    flat = net.add("Flatten", net.x)
    y = net.add("Relu", net.add("Gemm", flat, net.normal(24, 5)))
    z = net.add("Gemm", flat, net.normal(24, 5), y)
    agree(net, folder, net.add("Gemm", net.add("Relu", z), net.normal(5, 3)))


@pytest.mark.parametrize("order", ["NHWC", "rows", "left"])
def test_matmul(folder, order):
    net = Net(1, 2, 3, 4)
    y = net.add("Relu", net.conv(net.x, 5, 2))
    if order == "left":
        y = net.add("Conv", net.x, net.normal(5, 2, 3, 1), strides=[1, 1])
        y = net.add("Squeeze", y, np.array([2]))
        y = net.add("MatMul", net.normal(7, 5), net.add("Relu", y))
    elif order == "rows":
        y = net.add("Conv", net.x, net.normal(5, 2, 3, 1))
        y = net.add("MatMul", net.add("Transpose", net.add("Squeeze", y, np.array([2])), perm=[0, 2, 1]),
                    net.normal(5, 7))
    else:
        y = net.add("MatMul", net.add("Transpose", y, perm=[0, 2, 3, 1]), net.normal(5, 7))
        y = net.add("Transpose", net.add("Relu", y), perm=[0, 3, 1, 2])
        y = net.conv(y, 3, 7)
    agree(net, folder, net.add("Gemm", net.add("Flatten", y), net.normal(36 if order == "NHWC" else 28, 4)))


COORDINATES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"]
ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
RESIZES = [*product(["nearest"], COORDINATES, ROUNDINGS), *product(["linear"], COORDINATES, [None])]


@pytest.mark.parametrize("mode,coordinates,rounding", RESIZES)
@pytest.mark.parametrize("target", [(8, 10), (12, 5), (4, 15), (6, 10), (2, 5)])
def test_resize(folder, mode, coordinates, rounding, target):
    net = Net(1, 3, 4, 5, opset=19)
    y = net.add("Relu", net.conv(net.x, 4, 3))
    more = {} if rounding is None else {"nearest_mode": rounding}
    y = net.add("Resize", y, None, None, np.array([1, 4, *target]), mode=mode,
                coordinate_transformation_mode=coordinates, **more)
    agree(net, folder, net.conv(y, 2, 4))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 18])
def test_resize_by_scale(folder, mode, opset):
    net = Net(1, 3, 4, 5, opset=opset)
    y = net.conv(net.x, 4, 3)
    scales = np.array([1, 1, 2, 3], np.float32)
    if opset == 7:
        y = net.add("Upsample", y, scales=scales.tolist(), mode=mode)
    elif opset == 9:
        y = net.add("Upsample", y, scales, mode=mode)
    elif opset == 10:
        y = net.add("Resize", y, scales, mode=mode)
    elif opset == 18:
        y = net.add("Resize", y, None, scales[2:], mode=mode, axes=[2, 3])
    else:
        rounding = {"nearest_mode": "floor"} if mode == "nearest" else {}
        y = net.add("Resize", y, np.zeros(0, np.float32), scales, mode=mode,
                    coordinate_transformation_mode="asymmetric", **rounding)
    agree(net, folder, net.conv(y, 2, 4))


def test_resize_one_axis_and_channels_last(folder):
    net = Net(1, 3, 4, 5, opset=13)
    y = net.add("Transpose", net.conv(net.x, 4, 3), perm=[0, 2, 3, 1])
    y = net.add("Resize", y, None, np.array([1, 2, 2, 1], np.float32), mode="nearest",
                coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    y = net.conv(net.add("Transpose", y, perm=[0, 3, 1, 2]), 2, 4)
    y = net.add("Resize", y, None, np.array([1, 1, 1, 3], np.float32), mode="linear")
    agree(net, folder, net.conv(y, 3, 2))
