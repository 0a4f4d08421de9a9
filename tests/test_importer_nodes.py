"""Elementwise operators, sums and views: what is fused into which node, and that nothing changes in value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from host.onnx_import import import_onnx
from tests.onnx_nets import Net, agree, compare, save

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def channels(net: Net, count: int, spread: float = 1.0) -> np.ndarray:
    """Random constants per channel."""
    return net.rng.normal(0, spread, (count, 1, 1))


def batch_norm(net: Net, value: str, count: int) -> str:
    """A BatchNormalization with random statistics."""
    return net.add("BatchNormalization", value, *(net.normal(count) for _ in range(3)),
                   net.rng.uniform(0.5, 2, count))


ACTIVATIONS = {
    "Relu": lambda net, v, n: net.add("Relu", v),
    "LeakyRelu": lambda net, v, n: net.add("LeakyRelu", v, alpha=0.2),
    "PRelu": lambda net, v, n: net.add("PRelu", v, channels(net, n)),
    "Clip": lambda net, v, n: net.add("Clip", v, np.float32(-0.3), np.float32(0.8)),
    "Relu6": lambda net, v, n: net.add("Clip", v, np.float32(0), np.float32(6)),
    "ClipHigh": lambda net, v, n: net.add("Clip", v, None, np.float32(0.5)),
    "Max": lambda net, v, n: net.add("Max", v, np.float32(-0.25)),
    "Min": lambda net, v, n: net.add("Min", np.float32(0.4), v),
    "Abs": lambda net, v, n: net.add("Abs", v),
    "Sign": lambda net, v, n: net.add("Sign", v),
    "MaxPool": lambda net, v, n: net.add("MaxPool", v, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "BatchNorm": batch_norm,
    "Mul": lambda net, v, n: net.add("Mul", v, channels(net, n)),
    "Div": lambda net, v, n: net.add("Div", v, np.float32(1.7)),
    "Neg": lambda net, v, n: net.add("Neg", v),
    "AddConst": lambda net, v, n: net.add("Add", channels(net, n), v),
    "SubConst": lambda net, v, n: net.add("Sub", v, channels(net, n)),
    "FromConst": lambda net, v, n: net.add("Sub", channels(net, n), v),
    "Identity": lambda net, v, n: net.add("Identity", v),
    "Dropout": lambda net, v, n: net.add("Dropout", v),
    "Conv": lambda net, v, n: net.conv(v, n, n),
}


@QUICK
@given(steps=st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=1, max_size=5), residual=st.booleans(),
       seed=st.integers(0, 999))
def test_chain(tmp_path, steps, residual, seed):
    """Any sequence of operators on one map, with or without a shortcut round it."""
    net = Net(1, 3, 5, 4, seed=seed)
    value = start = net.conv(net.x, 4, 3)
    for step in steps:
        value = ACTIVATIONS[step](net, value, 4)
    value = net.add("Add", value, start) if residual else value
    agree(net, tmp_path, net.conv(value, 2, 4))


@pytest.mark.parametrize("first", sorted(ACTIVATIONS))
def test_every_pair(tmp_path, first):
    """Each operator directly after each other one."""
    net = Net(1, 3, 5, 4)
    made = [ACTIVATIONS[second](net, ACTIVATIONS[first](net, net.conv(net.x, 4, 3), 4), 4)
            for second in sorted(ACTIVATIONS)]
    agree(net, tmp_path, *(net.conv(value, 2, 4, 1) for value in made))


@QUICK
@given(st.data())
def test_random_graph(tmp_path, data):
    """Operators, sums, concats, splits and shuffles on values drawn at random, several outputs."""
    net = Net(1, 3, 6, 6, seed=data.draw(st.integers(0, 999)))
    values = [net.conv(net.x, 4, 3)]
    for _ in range(data.draw(st.integers(2, 9))):
        kind = data.draw(st.sampled_from(["step", "add", "sub", "mix", "shuffle", "join", "pixels"]))
        pick = [data.draw(st.sampled_from(values[-4:])) for _ in range(2)]
        if kind == "step":
            values.append(ACTIVATIONS[data.draw(st.sampled_from(sorted(ACTIVATIONS)))](net, pick[0], 4))
        elif kind in ("add", "sub"):
            values.append(net.add(kind.title(), *pick))
        elif kind == "mix":
            halves = [net.add("Split", p, np.array([2, 2]), axis=1, outputs=2) for p in pick]
            values.append(net.add("Concat", halves[0][1], halves[1][0], axis=1))
        elif kind == "pixels":
            small = net.add("SpaceToDepth", pick[0], blocksize=2)
            small = net.conv(small, 16, 16, 1) if data.draw(st.booleans()) else net.add("Relu", small)
            values.append(net.add("DepthToSpace", small, blocksize=2))
        elif kind == "shuffle":
            values.append(shuffle(net, pick[0], 4, 6, 6, 2))
        else:
            values.append(net.conv(net.add("Concat", *pick, axis=1), 4, 8, data.draw(st.sampled_from([1, 3])),
                                   groups=data.draw(st.sampled_from([1, 2]))))
    outputs = [net.conv(values[-1], 2, 4), net.add("GlobalAveragePool", values[-2]), values[0]]
    agree(net, tmp_path, *outputs)


def shuffle(net: Net, value: str, count: int, height: int, width: int, groups: int) -> str:
    """ShuffleNet's channel shuffle."""
    value = net.add("Reshape", value, np.array([1, groups, count // groups, height, width]))
    value = net.add("Transpose", value, perm=[0, 2, 1, 3, 4])
    return net.add("Reshape", value, np.array([1, count, height, width]))


# ---- what is fused

def sizes(network) -> tuple[int, int, int]:
    """(tensors, projections, edges)."""
    graph = network.graph
    return len(graph.tensors), len(graph.projections), len(graph.edges)


def test_batch_norm_is_folded_backwards(tmp_path):
    net = Net(1, 3, 5, 5)
    y = net.add("Relu", batch_norm(net, net.conv(net.x, 4, 3), 4))
    assert sizes(agree(net, tmp_path, net.conv(y, 2, 4))) == (2, 2, 2)


def test_asking_for_the_shape_is_no_use(tmp_path):
    net = Net(1, 3, 5, 5)
    y = net.conv(net.x, 4, 3)
    z = net.add("Reshape", net.add("Relu", batch_norm(net, y, 4)), net.add("Shape", y))
    assert sizes(agree(net, tmp_path, net.conv(z, 2, 4))) == (2, 2, 2)


def test_batch_norm_of_a_shared_layer_is_a_depthwise_edge(tmp_path):
    net = Net(1, 3, 5, 5)
    y = net.conv(net.x, 4, 3)
    a, b = net.add("Relu", batch_norm(net, y, 4)), net.add("Relu", y)
    network = agree(net, tmp_path, net.conv(net.add("Concat", a, b, axis=1), 2, 8))
    assert sum(e.vector and e.kernel == (1, 1) for e in network.graph.edges) == 1


def test_dense_net_batch_norm_after_concat(tmp_path):
    net = Net(1, 3, 5, 5)
    a = net.conv(net.x, 4, 3)
    for width in (4, 6):
        b = net.conv(net.add("Relu", batch_norm(net, a, width)), 2, width)
        a = net.add("Concat", a, b, axis=1)
    agree(net, tmp_path, net.conv(a, 2, 8))


def test_residual_shapes(tmp_path):
    """Two layers into one projection; a layer and a snapshot as two operands; no needless tensor."""
    net = Net(1, 3, 6, 6)
    a = net.add("Relu", net.conv(net.x, 4, 3))
    b = net.add("Relu", net.add("Add", net.conv(a, 4, 4), net.conv(a, 4, 4, 1)))
    c = net.add("Relu", net.add("Add", net.conv(b, 4, 4), b))
    network = agree(net, tmp_path, net.conv(c, 2, 4))
    nodes = {n.target: n for n in network.graph.nodes}
    assert len(nodes) == 3
    assert len(nodes[b].operands) == 1
    assert len(network.graph.edges_into(nodes[b].operands[0].source)) == 2
    assert {op.source in network.graph.tensors for op in nodes[c].operands} == {True, False}


def test_sum_with_leaky_relu_is_made_first(tmp_path):
    net = Net(1, 3, 6, 6)
    a = net.add("Relu", net.conv(net.x, 4, 3))
    total = net.add("Add", net.conv(a, 4, 4), a)
    network = agree(net, tmp_path, net.conv(net.add("LeakyRelu", total, alpha=0.1), 2, 4))
    assert total in network.graph.tensors


def test_double_and_sum_of_three(tmp_path):
    net = Net(1, 3, 6, 6)
    a = net.add("Relu", net.conv(net.x, 4, 3))
    b = net.add("Add", a, a)
    c = net.add("Sum", net.conv(b, 4, 4), a, b)
    agree(net, tmp_path, net.conv(net.add("Sub", c, a), 2, 4))


def test_sum_of_pieces_that_do_not_align(tmp_path):
    net = Net(1, 3, 6, 6)
    a = net.add("Relu", net.conv(net.x, 4, 3))
    left, right = net.add("Split", net.add("Relu", net.conv(a, 4, 4)), np.array([1, 3]), axis=1, outputs=2)
    b = net.add("Add", a, net.add("Concat", right, left, axis=1))
    agree(net, tmp_path, net.conv(net.add("Relu", b), 2, 4))


def test_repeated_channels_get_their_own_constants(tmp_path):
    net = Net(1, 3, 6, 6)
    a = net.conv(net.x, 4, 3)
    b = net.add("Gather", net.add("Relu", a), np.array([1, 3, 1, 1, 0, 2]), axis=1)
    c = net.add("Add", net.add("Mul", b, channels(net, 6)), channels(net, 6))
    d = net.add("PRelu", net.add("Gather", a, np.array([2, 3, 2]), axis=1), channels(net, 3))
    agree(net, tmp_path, net.conv(net.add("Concat", c, d, axis=1), 2, 9))


def test_sum_broadcast_over_the_image(tmp_path):
    net = Net(1, 3, 6, 5)
    a = net.add("Relu", net.conv(net.x, 4, 3))
    b = net.add("Add", a, net.conv(net.add("GlobalAveragePool", a), 4, 4, 1))
    agree(net, tmp_path, net.conv(net.add("Relu", b), 2, 4))


def test_spatial_pyramid_reads_one_projection(tmp_path):
    net = Net(1, 3, 9, 9)
    a = net.add("Relu", net.conv(net.x, 4, 3))
    pools = [net.add("MaxPool", a, kernel_shape=[k, k], pads=[k // 2] * 4) for k in (3, 5, 9)]
    network = agree(net, tmp_path, net.conv(net.add("Concat", *pools, a, axis=1), 2, 16, 1))
    assert sizes(network) == (5, 2, 5)


def test_pools_of_a_sum_read_its_tensor(tmp_path):
    """A sum that several read is made once, not added up again by each of them."""
    net = Net(1, 3, 9, 9)
    a = net.add("Relu", net.conv(net.x, 4, 3))
    total = net.add("Add", net.conv(a, 4, 4), a)
    pools = [net.add("MaxPool", total, kernel_shape=[k, k], pads=[k // 2] * 4) for k in (3, 5)]
    graph = agree(net, tmp_path, net.conv(net.add("Concat", *pools, total, axis=1), 2, 12, 1)).graph
    assert [len(n.operands) for n in graph.nodes] == [1, 2, 1, 1]


def test_repeated_operators_are_one_tensor(tmp_path):
    net = Net(1, 3, 5, 5)
    y = net.conv(net.x, 4, 3)
    a, b = net.add("Relu", y), net.add("Relu", y)
    network = agree(net, tmp_path, net.add("Concat", net.conv(a, 2, 4), net.conv(b, 2, 4), axis=1))
    assert sizes(network) == (2, 3, 3)


def test_pool_in_the_graph_s_order(tmp_path):
    """A negative slope does not commute with max-pooling; a positive one does, with no tensor of its own."""
    for slope, tensors in ((0.3, 2), (-0.3, 3)):
        net = Net(1, 3, 7, 7)
        y = net.add("MaxPool", net.conv(net.x, 4, 3), kernel_shape=[2, 2], strides=[2, 2])
        network = agree(net, tmp_path, net.conv(net.add("LeakyRelu", y, alpha=slope), 2, 4))
        assert len(network.graph.tensors) == tensors


# ---- views

def test_channels_last_input_and_preprocessing(tmp_path):
    net = Net(1, 6, 7, 3, dtype=np.uint8)
    y = net.add("Cast", net.x, to=1)
    y = net.add("Div", net.add("Sub", y, np.array([120.0, 110, 100])), np.array([60.0, 61, 62]))
    y = net.add("Relu", net.conv(net.add("Transpose", y, perm=[0, 3, 1, 2]), 4, 3))
    network = agree(net, tmp_path, net.conv(y, 2, 4))
    assert network.graph.tensors[network.graph.input].shape == (3, 6, 7)
    assert network.input.stored is not None


def test_input_by_space_to_depth(tmp_path):
    """A Focus layer (YOLOv5) becomes the layout of the input tensor."""
    net = Net(1, 3, 8, 8)
    parts = [net.add("Slice", net.x, np.array([y, x]), np.array([9, 9]), np.array([2, 3]), np.array([2, 2]))
             for x in (0, 1) for y in (0, 1)]
    network = agree(net, tmp_path, net.conv(net.add("Concat", *parts, axis=1), 4, 12))
    assert sizes(network) == (1, 1, 1)
    assert network.graph.tensors[network.graph.input].shape == (12, 4, 4)


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("op", ["SpaceToDepth", "DepthToSpace"])
def test_depth_and_space(tmp_path, op, inner):
    net = Net(1, 4, 4, 6)
    y = net.add("Relu", net.conv(net.x, 8, 4)) if inner else net.x
    y = net.add(op, y, blocksize=2)
    rows = (4 if op == "SpaceToDepth" else 1) * (8 if inner else 4) // (1 if op == "SpaceToDepth" else 4)
    y = net.add("PRelu", y, channels(net, rows))
    pooled = net.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    up = net.add("ConvTranspose", y, net.normal(rows, 2, 3, 3), strides=[2, 1])
    agree(net, tmp_path, net.conv(y, 2, rows, strides=[2, 1]), net.conv(pooled, 2, rows), up,
          net.add("AveragePool", y, kernel_shape=[2, 2]))


@pytest.mark.parametrize("axis", [2, 3])
def test_concat_along_the_image(tmp_path, axis):
    net = Net(1, 3, 4, 5)
    a, b = (net.add("Relu", net.conv(net.x, 4, 3)) for _ in range(2))
    y = net.add("Concat", a, b, a, axis=axis)
    agree(net, tmp_path, net.conv(y, 2, 4), net.conv(net.add("MaxPool", y, kernel_shape=[3, 3]), 2, 4))


@QUICK
@given(before=st.tuples(*[st.integers(0, 3)] * 2), after=st.tuples(*[st.integers(0, 3)] * 2),
       crop=st.tuples(*[st.integers(0, 2)] * 4), step=st.tuples(*[st.integers(1, 3)] * 2),
       mode=st.sampled_from(["constant", "constant", "reflect", "edge"]), stride=st.integers(1, 2),
       inner=st.booleans(), transposed=st.booleans())
def test_pad_crop_and_stride(tmp_path, before, after, crop, step, mode, stride, inner, transposed):
    """Padding and slicing the image are merged into the geometry of the next layer."""
    net = Net(1, 4, 9, 8)
    y = net.add("Relu", net.conv(net.x, 4, 4)) if inner else net.x
    top, left, bottom, right = crop
    y = net.add("Slice", y, np.array([top, left]), np.array([9 - bottom, 8 - right]), np.array([2, 3]),
                np.array(step))
    if mode == "reflect":
        limit = [-(-(9 - top - bottom) // step[0]) - 1, -(-(8 - left - right) // step[1]) - 1]
        before, after = (tuple(np.minimum(p, limit)) for p in (before, after))
    y = net.add("Pad", y, np.array([0, 0, *before, 0, 0, *after]), mode=mode)
    weight = net.normal(4, 3, 2, 2)
    y = (net.add("ConvTranspose", y, weight, strides=[2, stride]) if transposed
         else net.conv(y, 3, 4, 2, strides=[stride, 1], pads=[1, 1, 1, 1]))
    agree(net, tmp_path, net.add("Relu", y), y)


def test_gather_expand_tile_and_flatten_orders(tmp_path):
    net = Net(1, 3, 4, 5)
    y = net.add("Relu", net.conv(net.x, 6, 3))
    picked = net.add("Gather", y, np.array([4, 0, 4, 2]), axis=1)
    tiled = net.add("Tile", net.add("GlobalMaxPool", y), np.array([1, 1, 4, 5]))
    grown = net.add("Expand", net.add("GlobalAveragePool", y), np.array([1, 6, 4, 5]))
    z = net.add("Relu", net.conv(net.add("Concat", picked, tiled, grown, axis=1), 3, 16))
    channels_last = net.add("Reshape", net.add("Transpose", z, perm=[0, 2, 3, 1]), np.array([1, 60]))
    odd = net.add("Reshape", net.add("Transpose", z, perm=[0, 3, 1, 2]), np.array([1, -1]))
    both = net.add("Concat", channels_last, odd, net.add("Flatten", y), axis=1)
    agree(net, tmp_path, net.add("Gemm", both, net.normal(240, 4)))


def test_pool_of_empty_channels(tmp_path):
    net = Net(1, 3, 5, 5)
    y = net.add("Pad", net.conv(net.x, 2, 3), np.array([0, 1, 0, 0, 0, 2, 0, 0]))
    agree(net, tmp_path, net.conv(net.add("MaxPool", y, kernel_shape=[2, 2]), 2, 5))


def test_shape_arithmetic_is_folded(tmp_path):
    net = Net(1, 3, 4, 5)
    y = net.add("Relu", net.conv(net.x, 6, 3))
    batch = net.add("Unsqueeze", net.add("Gather", net.add("Shape", y), np.array(0)), np.array([0]))
    shape = net.add("Concat", batch, np.array([-1]), axis=0)
    y = net.add("Gemm", net.add("Reshape", y, shape), net.normal(120, 4))
    agree(net, tmp_path, net.add("Add", y, net.add("ConstantOfShape", np.array([1, 4]))))


def test_padded_input_of_an_elementwise_operator(tmp_path):
    net = Net(1, 3, 5, 5)
    y = net.add("Relu", net.conv(net.x, 4, 3))
    y = net.add("Pad", y, np.array([0, 1, 1, 0, 0, 0, 0, 2]))
    a = net.add("Add", y, channels(net, 5))
    b = net.add("Clip", y, np.float32(0.2), np.float32(0.5))
    c = net.add("MaxPool", y, kernel_shape=[2, 2], pads=[0, 0, 1, 1])
    agree(net, tmp_path, net.conv(net.add("Concat", a, b, c, axis=1), 2, 15))


def test_local_functions_are_inlined(tmp_path):
    net = Net(1, 3, 5, 5)
    y = net.add("ConvRelu", net.x, net.normal(4, 3, 3, 3), domain="here")
    model = net.model(net.conv(y, 2, 4))
    body = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("here", "ConvRelu", ["x", "w"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("here", 1))
    network = import_onnx(save(model, tmp_path))
    compare(model, network, net.image())
    assert sizes(network) == (2, 2, 2)


# ---- outputs and the tail

def test_outputs_are_views_of_projections(tmp_path):
    net = Net(1, 3, 4, 5)
    y = net.conv(net.x, 4, 3)
    a = net.add("Reshape", net.add("Transpose", y, perm=[0, 2, 3, 1]), np.array([1, 20, 4]))
    network = agree(net, tmp_path, a, net.add("Concat", a, a, axis=2))
    assert network.tail is None
    assert sizes(network) == (1, 1, 1)


def test_tail_is_cut_off(tmp_path):
    """Detection heads: everything behind the last layers runs on the host, with its constants."""
    net = Net(1, 3, 4, 5)
    y = net.add("Relu", net.conv(net.x, 4, 3))
    score, box = net.conv(y, 2, 4), net.conv(y, 4, 4)
    score = net.add("Softmax", net.add("Reshape", score, np.array([1, 20, 2])), axis=-1)
    box = net.add("Exp", net.add("Mul", net.add("Reshape", box, np.array([1, -1, 4])), net.normal(20, 4)))
    top = net.add("TopK", net.add("Reshape", score, np.array([40])), np.array([5]), outputs=2)
    network = agree(net, tmp_path, score, net.add("Concat", box, score, axis=2), top[1], top[0], y, net.x,
                    kinds={top[1]: 7})
    assert sizes(network)[1] == 3


def test_equal_outputs_keep_their_names(tmp_path):
    net = Net(1, 3, 4, 5)
    y = net.conv(net.x, 4, 3)
    agree(net, tmp_path, *(net.add("Transpose", y, perm=[0, 2, 3, 1]) for _ in range(2)))


def test_padding_behind_the_last_layer_is_left_to_the_host(tmp_path):
    net = Net(1, 3, 4, 5)
    network = agree(net, tmp_path, net.add("Pad", net.conv(net.x, 4, 3), np.array([0, 0, 1, 1, 0, 0, 0, 0])))
    assert sizes(network) == (1, 1, 1)
    assert network.tail is not None


def test_product_of_maps_in_the_tail(tmp_path):
    """Attention at the end is no layer: what is before it runs on the host too."""
    net = Net(1, 3, 4, 5)
    y = net.add("Reshape", net.conv(net.x, 4, 3), np.array([1, 4, 20]))
    soft = net.add("Softmax", y, axis=2)
    network = agree(net, tmp_path, net.add("MatMul", soft, net.add("Transpose", y, perm=[0, 2, 1])))
    assert sizes(network) == (1, 1, 1)


def test_activation_behind_the_last_layer_is_left_to_the_host(tmp_path):
    net = Net(1, 3, 4, 5)
    y = net.conv(net.x, 4, 3)
    network = agree(net, tmp_path, net.add("Relu", y), net.add("MaxPool", y, kernel_shape=[2, 2]))
    assert sizes(network) == (1, 1, 1)


def test_constant_output(tmp_path):
    net = Net(1, 3, 4, 5)
    anchors = net.add("Mul", net.normal(2, 3), np.float32(2))
    agree(net, tmp_path, net.conv(net.x, 4, 3), anchors)
