"""Networks in QuantizeLinear/DequantizeLinear form: own scales, exact integer weights, the same codes out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from host.network import Network
from host.onnx_import import import_onnx
from sim.arithmetic import max_pool
from sim.float_model import read_outputs
from sim.graph import Code, Graph, Tensor
from sim.linear import Scatter
from tests.networks import QDQ, model_path
from tests.onnx_nets import Net, compare, reference, save


def odd(scale: float) -> np.float32:
    """Nearly this scale, but in no simple ratio to others: float32 noise would decide exact rounding ties."""
    return np.float32(scale * (1 + 0.01 * np.sin(1e4 * scale)))


class QdqNet(Net):
    """``Net`` with quantising shorthands; activations are int8 unless told otherwise."""

    def q(self, value: str, scale: float, zero: int = 0, dtype: type = np.int8) -> str:
        """QuantizeLinear."""
        return self.add("QuantizeLinear", value, odd(scale), dtype(zero))

    def dq(self, value: str, scale: float, zero: int = 0, dtype: type = np.int8) -> str:
        """DequantizeLinear."""
        return self.add("DequantizeLinear", value, odd(scale), dtype(zero))

    def qdq(self, value: str, scale: float, zero: int = 0, dtype: type = np.int8) -> str:
        """Both, with the same parameters."""
        return self.dq(self.q(value, scale, zero, dtype), scale, zero, dtype)

    def weight(self, *shape: int, axis: int | None = 0, zero: int = 0) -> str:
        """A dequantised int8 weight, with a scale per entry of ``axis``."""
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        if axis is None:
            return self.add("DequantizeLinear", codes, odd(0.01), np.int8(zero))
        scales = self.rng.uniform(0.004, 0.02, shape[axis]).astype(np.float32)
        return self.add("DequantizeLinear", codes, scales, np.full(shape[axis], zero, np.int8), axis=axis)

    def qconv(self, value: str, rows: int, channels: int, kernel: int = 3, axis: int | None = 0,
              **attributes) -> str:
        """A convolution with dequantised weights."""
        weight = self.weight(rows, channels, kernel, kernel, axis=axis)
        return self.add("Conv", value, weight, self.normal(rows), pads=[kernel // 2] * 4, **attributes)


def run_coded(graph: Graph, image: np.ndarray,
              seen: Callable[[Tensor, np.ndarray], np.ndarray] = lambda tensor, value: value,
              ) -> dict[str, np.ndarray]:
    """A graph in real numbers, rounded to the codes of tensors and branches that have one.

    ``seen`` is shown the value of each tensor and returns what those behind it are fed with.
    """

    def rounded(values: np.ndarray, code: Code | None) -> np.ndarray:
        return values if code is None else code.decode(code.encode(values))

    values = {name: np.zeros(p.shape) for name, p in graph.projections.items()}
    for tensor, node in graph.steps():
        if node is None:
            value = image
        else:
            total = sum(rounded(values[op.source] + op.bias[:, None, None], op.branch)
                        for op in node.operands)
            total = np.where(total < 0, total * node.slope[:, None, None], total)
            value = total if node.clip == (None, None) else np.clip(total, *node.clip)
            value = value if node.pool is None else max_pool(value, node.pool, tensor.shape)
        values[tensor.name] = value = seen(tensor, rounded(value, tensor.code))
        for edge in graph.edges_from(tensor.name):
            Scatter(edge, tensor.shape, graph.shape_of(edge.target), edge.weight, np.float64).add(
                value, values[edge.target])
    return values


def check(net: Net, folder, *outputs: str, kinds: dict[str, int] | None = None,
          steps: float = 0.0) -> Network:
    """Import and hold every tensor with codes, and the outputs, against onnxruntime, to ``steps`` codes."""
    model = net.model(*outputs, kinds=kinds)
    network = import_onnx(save(model, folder))
    image = net.image()
    check_codes(model, network, image, steps)
    exact_weights(network)
    return network


def check_codes(model: onnx.ModelProto, network: Network, image: np.ndarray, steps: float = 0.0) -> None:
    """Every node, fed with onnxruntime's codes, gives onnxruntime's codes.

    float32 decides near-ties otherwise in about one of 100,000 elements, so one element per tensor may differ.
    """
    theirs = reference(model, image, everything=True)

    def seen(tensor: Tensor, value: np.ndarray) -> np.ndarray:
        q = theirs.get(tensor.name)
        if tensor.code is None or q is None or q.size != value.size:
            return value
        q = q.transpose(0, 3, 1, 2) if q.ndim == 4 and q.shape[1:] != tensor.shape else q
        codes = q.reshape(tensor.shape).astype(int) - tensor.code.zero_point
        differ = np.abs(tensor.code.encode(value) - codes)
        assert (differ > steps).sum() <= 1, tensor.name
        return tensor.code.decode(codes)

    values = run_coded(network.graph, network.input.to_real(image), seen)
    ours = network.finish(read_outputs(network.graph, values))
    for name, shape in network.outputs:
        assert ours[name].dtype == theirs[name].dtype
        assert ours[name].shape == shape
        if theirs[name].dtype == np.float32:
            limit = 1e-4 if steps == 0 else 0.05
            assert np.abs(ours[name] - theirs[name]).max() <= limit * np.abs(theirs[name]).max()
        else:
            assert np.abs(ours[name].astype(int) - theirs[name].astype(int)).max() <= 1 + steps


def exact_weights(network: Network) -> None:
    """Every projection's scale is the network's own, and every weight a whole number of its steps."""
    graph = network.graph
    for edge in graph.edges:
        scale, code = graph.projections[edge.target].scale, graph.tensors[edge.source].code
        assert scale is not None, edge.target
        assert code is not None, edge.source
        whole = edge.weight * code.scale / scale[edge.rows][:, :, None, None]
        assert np.abs(whole - np.rint(whole)).max() < 1e-6
        assert np.abs(whole).max() < 2**15


@pytest.mark.parametrize("dtype,zero", [(np.int8, -128), (np.int8, 3), (np.uint8, 0), (np.uint8, 130)])
@pytest.mark.parametrize("axis", [0, None])
def test_layers(tmp_path, dtype, zero, axis):
    net = QdqNet(1, 3, 8, 8)
    y = net.qdq(net.x, 0.02, zero, dtype)
    y = net.qdq(net.add("Relu", net.qconv(y, 4, 3, axis=axis, strides=[2, 2])), 0.05, zero, dtype)
    y = net.add("Clip", net.qconv(y, 6, 4, axis=axis), np.float32(0), np.float32(6))
    y = net.qdq(y, 0.04, zero, dtype)
    y = net.qdq(net.add("GlobalAveragePool", y), 0.02, zero, dtype)
    y = net.add("MatMul", net.add("Flatten", y), net.weight(6, 5, axis=None if axis is None else 1))
    y = net.qdq(net.add("Add", y, net.normal(5)), 0.03, 0, np.int8)
    network = check(net, tmp_path, net.add("Softmax", y))
    graph = network.graph
    assert len(graph.tensors) == 5
    assert all(t.code is not None for t in graph.tensors.values())
    assert graph.tensors[graph.input].code.zero_point == zero


def test_gemm_and_transposed_layers(tmp_path):
    net = QdqNet(1, 3, 5, 5)
    y = net.qdq(net.x, 0.02, 5)
    y = net.qdq(net.add("ConvTranspose", y, net.weight(3, 4, 3, 3, axis=1), strides=[2, 2]), 0.03, -7)
    for mode, scale in (("nearest", 0.03), ("linear", 0.025)):
        y = net.qdq(net.add("Resize", y, None, np.array([1, 1, 2, 2], np.float32), mode=mode), scale, -7)
    y = net.qdq(net.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]), 0.02, 0)
    weight = net.weight(4, 4 * 22 * 22, axis=0)
    y = net.add("Gemm", net.add("Flatten", y), weight, net.normal(4), transB=1, alpha=0.5)
    check(net, tmp_path, net.qdq(y, 0.1, 1))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integer_input_channels_last(tmp_path, dtype):
    net = QdqNet(1, 6, 7, 3, dtype=dtype)
    y = net.dq(net.add("Transpose", net.x, perm=[0, 3, 1, 2]), 0.02, 7, dtype)
    network = check(net, tmp_path, net.qdq(net.add("Relu", net.qconv(y, 4, 3)), 0.04))
    info = np.iinfo(dtype)
    assert network.input.stored == Code(float(odd(0.02)), info.min - 7, info.max - 7, 7)
    assert network.graph.tensors[network.graph.input].code == network.input.stored


def test_float_input(tmp_path):
    """The input tensor has the codes of its only QuantizeLinear, or stays real when a layer reads it as it is."""
    net = QdqNet(1, 3, 6, 6)
    first = net.q(net.x, 0.02, 9)
    y = net.qdq(net.qconv(net.dq(first, 0.02, 9), 4, 3), 0.05)
    graph = check(net, tmp_path, y).graph
    assert graph.input == first
    assert graph.tensors[first].code.zero_point == 9
    z = net.qdq(net.qconv(net.x, 4, 3), 0.05)
    graph = import_onnx(save(net.model(y, z), tmp_path)).graph
    assert graph.input == net.x
    assert graph.tensors[net.x].code is None
    assert graph.tensors[first].code.zero_point == 9


def test_constants_folded_into_integer_weights(tmp_path):
    """A BatchNormalization behind integer weights changes their scale, and for negative factors their sign."""
    net = QdqNet(1, 3, 6, 6)
    y = net.qconv(net.qdq(net.x, 0.02, 9), 4, 3)
    y = net.add("Mul", y, np.array([0.5, -0.7, 0.0, 1.3]).reshape(4, 1, 1))
    y = net.add("BatchNormalization", y, *(net.normal(4) for _ in range(3)), net.rng.uniform(0.5, 2, 4))
    graph = check(net, tmp_path, net.qdq(y, 0.03)).graph
    assert len(graph.projections) == 1
    assert all((p.scale > 0).all() for p in graph.projections.values())
    assert all(np.abs(e.weight / graph.projections[e.target].scale[e.rows][:, :, None, None]
                      * graph.tensors[e.source].code.scale).max() > 100 for e in graph.edges)


def residual(net: QdqNet, left: tuple, right: tuple, shared: bool) -> list[str]:
    """Two quantised layers of one tensor, added; ``shared``: another layer reads the second one too."""
    y = net.qdq(net.add("Relu", net.qconv(net.qdq(net.x, 0.02), 4, 3)), 0.04, -128)
    a, b = net.qdq(net.qconv(y, 4, 4), *left), net.qdq(net.qconv(y, 4, 4, 1), *right)
    total = net.qdq(net.add("Relu", net.add("Add", a, b)), 0.08, -100)
    return [net.qdq(net.qconv(total, 2, 4), 0.1)] + ([net.qdq(net.qconv(b, 2, 4), 0.1)] if shared else [])


def test_sum_of_two_branches(tmp_path):
    net = QdqNet(1, 3, 6, 6)
    graph = check(net, tmp_path, *residual(net, (0.05, 3), (0.07, -9), False)).graph
    node = next(n for n in graph.nodes if len(n.operands) == 2)
    assert [op.branch.zero_point for op in node.operands] == [3, -9]
    assert all(op.source in graph.projections for op in node.operands)


def test_a_branch_that_is_also_read_elsewhere_is_a_tensor(tmp_path):
    net = QdqNet(1, 3, 6, 6)
    graph = check(net, tmp_path, *residual(net, (0.05, 3), (0.07, -9), True)).graph
    node = next(n for n in graph.nodes if len(n.operands) == 2)
    assert sorted(op.source in graph.tensors for op in node.operands) == [False, True]


def test_sum_with_a_snapshot_and_twice(tmp_path):
    net = QdqNet(1, 3, 6, 6)
    y = net.qdq(net.add("Relu", net.qconv(net.qdq(net.x, 0.02), 3, 3)), 0.04, -128)
    y = net.qdq(net.add("Add", net.qdq(net.qconv(y, 3, 3), 0.05), y), 0.06, 10)
    y = net.qdq(net.add("Add", y, y), 0.12, 10)
    check(net, tmp_path, net.qdq(net.qconv(y, 2, 3), 0.1))


def test_a_sum_that_two_read_needs_no_scale_of_ours(tmp_path):
    net = QdqNet(1, 3, 6, 6)
    x = net.qdq(net.x, 0.02)
    a, b = (net.qdq(net.qconv(x, 3, 3), 0.05, 10) for _ in range(2))
    total = net.add("Add", a, b)
    y, z = net.qdq(net.add("Relu", total), 0.06, -128), net.qdq(total, 0.07, 10)
    graph = check(net, tmp_path, net.qdq(net.qconv(y, 2, 3), 0.1), net.qdq(net.qconv(z, 2, 3), 0.1)).graph
    assert all(t.code is not None for t in graph.tensors.values())


def test_pairs_round_operators_that_keep_the_codes_need_no_node(tmp_path):
    """MaxPool, Concat, Relu, Reshape between Q/DQ pairs of equal parameters."""
    net = QdqNet(1, 3, 8, 8)
    scale, zero = 0.04, -128
    x = net.qdq(net.x, 0.02)
    a, b = (net.qdq(net.add("Relu", net.qconv(x, 4, 3)), scale, zero) for _ in range(2))
    y = net.qdq(net.add("Concat", a, b, axis=1), scale, zero)
    y = net.qdq(net.add("Relu", y), scale, zero)
    y = net.qdq(net.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), scale, zero)
    y = net.qdq(net.add("Reshape", y, np.array([1, 8, 16])), scale, zero)
    y = net.add("MatMul", net.add("Flatten", y), net.weight(128, 3, axis=None))
    graph = check(net, tmp_path, net.qdq(y, 0.1)).graph
    assert len(graph.tensors) == 1 + 2 + 2 + 1  # input, two layers, their pools, the last one


def test_concat_of_different_scales(tmp_path):
    net = QdqNet(1, 3, 8, 8)
    x = net.qdq(net.x, 0.02)
    a = net.qdq(net.add("Relu", net.qconv(x, 4, 3)), 0.04, -128)
    b = net.qdq(net.add("Relu", net.qconv(x, 4, 3)), 0.03, -128)
    y = net.qdq(net.add("Concat", a, b, axis=1), 0.04, -128)
    graph = check(net, tmp_path, net.qdq(net.qconv(y, 2, 8), 0.1)).graph
    assert len(graph.tensors) == 5  # only the second one is requantised


def test_concat_of_different_scales_without_its_own(tmp_path):
    """No Q behind the concat: the importer has to choose a common scale, the one place where it rounds."""
    net = QdqNet(1, 3, 8, 8)
    x = net.qdq(net.x, 0.02)
    a = net.qdq(net.add("Relu", net.qconv(x, 4, 3)), 0.04, -128)
    b = net.qdq(net.add("Relu", net.qconv(x, 4, 3)), 0.03, -128)
    y = net.qconv(net.add("Concat", a, b, axis=1), 2, 8)
    check(net, tmp_path, net.qdq(y, 0.1), steps=2)


def test_integer_max_pool_pad_and_views(tmp_path):
    net = QdqNet(1, 3, 8, 8)
    y = net.q(net.add("Relu", net.qconv(net.qdq(net.x, 0.02), 4, 3)), 0.04, -128)
    y = net.add("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2])
    y = net.add("Pad", y, np.array([0, 0, 1, 0, 0, 0, 0, 1]), np.int8(-128))
    y = net.dq(net.add("Transpose", y, perm=[0, 1, 2, 3]), 0.04, -128)
    check(net, tmp_path, net.qdq(net.qconv(y, 2, 4), 0.1))


def test_repeated_and_trained_quantisers(tmp_path):
    """The same Q twice is one tensor; weights may be float constants behind Q and DQ."""
    net = QdqNet(1, 3, 8, 8)
    y = net.add("Relu", net.qconv(net.qdq(net.x, 0.02), 4, 3))
    a, b = net.qdq(y, 0.04), net.qdq(y, 0.04)
    scales = net.rng.uniform(0.01, 0.02, 2).astype(np.float32)
    weight = net.add("QuantizeLinear", net.normal(2, 4, 3, 3), scales, np.zeros(2, np.int8), axis=0)
    weight = net.add("DequantizeLinear", weight, scales, np.zeros(2, np.int8), axis=0)
    c = net.add("Conv", a, weight)
    network = check(net, tmp_path, net.qdq(c, 0.1), net.qdq(net.qconv(b, 2, 4), 0.1))
    assert len(network.graph.tensors) == 4


def test_read_with_other_parameters(tmp_path):
    net = QdqNet(1, 3, 8, 8)
    y = net.q(net.add("Relu", net.qconv(net.qdq(net.x, 0.02), 4, 3)), 0.04, -128)
    y = net.add("Relu", net.dq(y, 0.05, -100))
    check(net, tmp_path, net.qdq(net.qconv(net.qdq(y, 0.05, -100), 2, 4), 0.1))


def test_integer_outputs(tmp_path):
    """An int8 value that is an output and feeds a layer as well."""
    net = QdqNet(1, 3, 8, 8)
    y = net.q(net.add("Relu", net.qconv(net.qdq(net.x, 0.02), 4, 3)), 0.04, -128)
    z = net.q(net.qconv(net.dq(y, 0.04, -128), 2, 4), 0.1, 4)
    last = net.q(net.add("Softmax", net.dq(z, 0.1, 4), axis=1), 1 / 256, -128)
    check(net, tmp_path, y, z, last, kinds={y: TensorProto.INT8, z: TensorProto.INT8, last: TensorProto.INT8})


class _Images(CalibrationDataReader):
    def __init__(self, images):
        self.images = iter(images)

    def get_next(self):
        return next(self.images, None)


@pytest.mark.parametrize("activations", [QuantType.QInt8, QuantType.QUInt8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_network_quantised_by_onnxruntime(tmp_path, activations, per_channel):
    """What onnxruntime's own tool makes of a float network with residual, concat and pools."""
    net = Net(1, 3, 12, 12)
    y = net.add("Relu", net.conv(net.x, 8, 3, strides=[2, 2]))
    y = net.add("MaxPool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    y = net.add("Relu", net.add("Add", net.conv(y, 8, 8), y))
    y = net.add("Concat", net.conv(y, 4, 8, 1), net.add("Relu", net.conv(y, 4, 8)), axis=1)
    y = net.add("Relu", net.conv(y, 8, 8, groups=8))
    y = net.add("Gemm", net.add("Flatten", net.add("GlobalAveragePool", y)), net.normal(8, 4), net.normal(4))
    path, quantised = save(net.model(net.add("Softmax", y)), tmp_path), tmp_path / "qdq.onnx"
    quantize_static(path, quantised, _Images([{"x": net.image()} for _ in range(8)]), QuantFormat.QDQ,
                    per_channel=per_channel, activation_type=activations, weight_type=QuantType.QInt8)
    network = import_onnx(quantised)
    exact_weights(network)
    check_codes(onnx.load(quantised), network, net.image(), steps=1)


def test_weights_in_every_form(tmp_path):
    """uint8 with a zero point per channel; stored in another order than the layer wants; biases in int32."""
    net = QdqNet(1, 3, 8, 8)
    y, rng = net.qdq(net.x, 0.02, 5), net.rng
    scales, zeros = rng.uniform(0.004, 0.02, 4).astype(np.float32), rng.integers(90, 160, 4).astype(np.uint8)
    weight = net.add("DequantizeLinear", rng.integers(0, 256, (3, 3, 3, 4)).astype(np.uint8), scales, zeros, axis=3)
    weight = net.add("Transpose", weight, perm=[3, 2, 0, 1])
    steps = (odd(0.02) * scales).astype(np.float32)
    bias = net.add("DequantizeLinear", rng.integers(-9999, 9999, 4).astype(np.int32), steps, axis=0)
    y = net.qdq(net.add("Relu", net.add("Conv", y, weight, bias)), 0.05)
    graph = check(net, tmp_path, net.qdq(net.qconv(y, 2, 4), 0.1)).graph
    whole_biases(graph, 1)
    assert len({float(s) for s in next(iter(graph.projections.values())).scale}) == 4


def whole_biases(graph: Graph, least: int) -> None:
    """Biases stored as int32 are whole numbers of their projection's unit (up to float32 scales)."""
    biases = [op.bias / graph.projections[op.source].scale for n in graph.nodes for op in n.operands
              if op.source in graph.projections]
    whole = [b.any() and (np.abs(b - np.rint(b)) < 0.01 + 2e-7 * np.abs(b)).all() for b in biases]
    assert sum(map(bool, whole)) >= least


@pytest.mark.parametrize("stem", QDQ)
def test_shared_networks(stem):
    """Every weight an exact integer; with its own codes the network gives onnxruntime's classes."""
    path = model_path(stem)
    network = import_onnx(path)
    exact_weights(network)
    assert all(t.code is not None for t in network.graph.tensors.values())
    whole_biases(network.graph, len(network.graph.nodes) - 1)  # all but the average pool
    image = np.random.default_rng(1).integers(-128, 128, network.input.shape).astype(np.int8)
    session = onnxruntime.InferenceSession(path)
    theirs = session.run(None, {network.input.name: image})[0]
    values = run_coded(network.graph, network.input.to_real(image))
    ours = network.finish(read_outputs(network.graph, values))[network.outputs[0][0]]
    assert ours.dtype == theirs.dtype
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 4


def test_float_model_of_a_quantised_network(tmp_path):
    """Without rounding the imported network is the float network of the dequantised weights."""
    net = QdqNet(1, 3, 6, 6)
    y = net.add("Relu", net.add("Conv", net.x, net.weight(4, 3, 3, 3), net.normal(4)))
    model = net.model(net.add("Conv", y, net.weight(2, 4, 3, 3)))
    compare(model, import_onnx(save(model, tmp_path)), net.image())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_graph(tmp_path, data):
    """Layers, sums, concats, pools and views between Q/DQ pairs of random parameters."""
    net = QdqNet(1, 3, 6, 6, seed=data.draw(st.integers(0, 999)))

    def pair(value: str) -> str:
        scale = data.draw(st.sampled_from([0.023, 0.041, 0.0537]))
        dtype = data.draw(st.sampled_from([np.int8, np.uint8]))
        zero = data.draw(st.sampled_from([-128, 0, 5] if dtype is np.int8 else [0, 128]))
        return net.qdq(value, scale, zero, dtype)

    values = [pair(net.qconv(pair(net.x), 4, 3))]
    for _ in range(data.draw(st.integers(2, 8))):
        kind = data.draw(st.sampled_from(["conv", "relu", "pool", "add", "concat", "shuffle", "average"]))
        a, b = (data.draw(st.sampled_from(values[-3:])) for _ in range(2))
        if kind == "conv":
            kernel, axis = data.draw(st.sampled_from([(1, 0), (1, None), (3, 0)]))
            value = net.qconv(a, 4, 4, kernel, axis)
        elif kind == "concat":
            value = pair(net.add("Concat", a, b, axis=1))
            value = net.qconv(value, 4, 8, 1)
        elif kind == "shuffle":
            value = net.add("Gather", a, np.array([2, 0, 3, 1]), axis=1)
        elif kind == "average":
            value = net.add("AveragePool", a, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
        else:
            op, inputs = {"relu": ("Relu", [a]), "pool": ("MaxPool", [a]), "add": ("Add", [a, b])}[kind]
            more = {"kernel_shape": [3, 3], "pads": [1] * 4} if kind == "pool" else {}
            value = net.add(op, *inputs, **more)
        value = net.add("Relu", value) if data.draw(st.booleans()) else value
        values.append(pair(value))
    check(net, tmp_path, pair(net.qconv(values[-1], 2, 4)), values[-2])
