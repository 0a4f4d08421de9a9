"""What cannot run is listed for the whole network at once; a file that cannot be read is one line."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from host.errors import UnsupportedNetwork, UserError
from host.onnx_import import import_onnx
from tests.onnx_nets import Net, save


def problems(net: Net, folder, *outputs: str, **changes) -> list[tuple[str, str, str]]:
    """The problems that the import of a network lists."""
    model = net.model(*outputs)
    for name, change in changes.items():
        change(getattr(model, name))
    with pytest.raises(UnsupportedNetwork) as caught:
        import_onnx(save(model, folder))
    assert str(caught.value).startswith(str(folder / "net.onnx"))
    assert all(f"{name} ({op}): {reason}" in str(caught.value) for name, op, reason in caught.value.problems)
    return list(caught.value.problems)


def test_every_problem_at_once(tmp_path):
    """Root causes only, also behind other problems, in branches, and NaN weights; the tail is no problem."""
    net = Net(1, 3, 8, 8)
    y = net.add("LRN", net.conv(net.x, 4, 3), size=3, name="norm")
    y = net.conv(net.add("Relu", y), 4, 4)
    a = net.add("Mul", y, net.add("Sigmoid", y, name="gate"), name="silu")
    bad = net.normal(4, 4, 3, 3)
    bad[0, 0, 0, 0] = np.nan
    a = net.add("Conv", a, bad, name="poisoned")
    b = net.add("FancyNorm", net.conv(net.x, 4, 3), domain="my.domain", name="fancy")
    b = net.add("Conv", b, net.add("Mul", net.normal(4, 4, 1, 1), np.float32(np.inf)), name="infinite")
    c = net.add("Add", net.conv(net.x, 4, 3), net.normal(4, 8, 8), name="spatial")
    last = net.add("Softmax", net.conv(net.add("Concat", a, b, c, axis=1), 2, 12), axis=1)
    found = {name: (op, reason) for name, op, reason in problems(net, tmp_path, last)}
    assert set(found) == {"norm", "gate", "poisoned", "fancy", "infinite", "spatial"}
    assert found["norm"][0] == "LRN"
    assert "BatchNormalization" in found["norm"][1]
    assert "Relu" in found["gate"][1]
    assert "poisoned" in found["gate"][1]
    assert found["fancy"][0] == "my.domain.FancyNorm"
    assert "another domain" in found["fancy"][1]
    assert "NaN" in found["poisoned"][1]
    assert "NaN" in found["infinite"][1]
    assert "varies over the image" in found["spatial"][1]


def set_shape(*shape):
    """Change the declared input shape."""

    def change(graph):
        dims = graph.input[0].type.tensor_type.shape.dim
        for dim, value in zip(dims, shape, strict=True):
            dim.Clear()
            if isinstance(value, str):
                dim.dim_param = value
            else:
                dim.dim_value = value
    return change


@pytest.mark.parametrize("shape,words", [
    (("N", 3, 8, 8), r"dynamic \(N\).*make_dynamic_shape_fixed"), ((1, 3, "h", "w"), r"dynamic \(h, w\)"),
    ((4, 3, 8, 8), "batch is 4")])
def test_input_shape(tmp_path, shape, words):
    net = Net(1, 3, 8, 8)
    y = net.add("LRN", net.conv(net.x, 4, 3), size=3, name="norm")
    found = problems(net, tmp_path, net.conv(y, 2, 4), graph=set_shape(*shape))
    assert found[0][:2] == ("x", "Input")
    assert re.search(words, found[0][2])
    assert [f[0] for f in found[1:]] == ["norm"]


def test_two_images(tmp_path):
    net = Net(1, 3, 8, 8)
    y = net.add("Concat", net.conv(net.x, 4, 3), "second", axis=1)

    def second(graph):
        graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1, 4, 8, 8]))

    found = problems(net, tmp_path, net.conv(y, 2, 8), graph=second)
    assert [(n, o) for n, o, _ in found] == [("second", "Input")]
    assert "one image" in found[0][2]


def test_input_type(tmp_path):
    net = Net(1, 3, 8, 8)
    y = net.conv(net.x, 4, 3)

    def half(graph):
        graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    assert "float16" in problems(net, tmp_path, y, graph=half)[0][2]


def cut(n: Net, y: str) -> str:
    """The first four channels."""
    return n.add("Slice", y, np.array([0]), np.array([4]), np.array([1]))


def resized(n: Net, y: str, *target: float, **attributes) -> str:
    """Resized by scales (float) or to sizes (int)."""
    given = [None, None, np.array(target)] if isinstance(target[2], int) else [None, np.float32(target)]
    return n.add("Resize", y, *given, **attributes)


CASES = {
    "weights from the image": (lambda n, y: n.add("Conv", y, n.add("Reshape", n.add("GlobalAveragePool", y),
                               np.array([1, 4, 1, 1]))), "only constants"),
    "product of maps": (lambda n, y: n.add("Mul", y, n.conv(y, 4, 4)), "not linear"),
    "constant divided": (lambda n, y: n.add("Div", np.float32(1), y), "by a map"),
    "division by zero": (lambda n, y: n.add("Div", y, np.float32(0)), "zero"),
    "maximum of maps": (lambda n, y: n.add("Max", y, n.conv(y, 4, 4)), "two maps"),
    "spatial slope": (lambda n, y: n.add("PRelu", y, n.normal(4, 8, 8)), "slope"),
    "bounds crossed": (lambda n, y: n.add("Clip", y, np.float32(2), np.float32(1)), "above"),
    "cubic": (lambda n, y: resized(n, y, 1.0, 1.0, 2.0, 2.0, mode="cubic"), "cubic"),
    "odd factor": (lambda n, y: resized(n, y, 1, 4, 48, 50, mode="linear",
                                        coordinate_transformation_mode="align_corners"), "small fraction"),
    "channels resized": (lambda n, y: cut(n, resized(n, y, 1.0, 2.0, 1.0, 1.0)), "channel axis"),
    "pad value": (lambda n, y: n.add("Pad", y, np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(3)), "only 0"),
    "pool indices": (lambda n, y: n.add("MaxPool", n.add("Unsqueeze", y, np.array([0])), outputs=2,
                                        kernel_shape=[2, 2, 2])[0], "Indices"),
    "transposed image": (lambda n, y: n.add("Transpose", y, perm=[0, 1, 3, 2]), "rows and columns"),
    "training": (lambda n, y: n.add("BatchNormalization", y, *(n.normal(4) for _ in range(3)), np.ones(4),
                                    training_mode=1, outputs=3)[0], "training"),
    "joined constant": (lambda n, y: cut(n, n.add("Concat", n.normal(1, 1, 8, 8), y, axis=1)), "constant"),
    "product of layers": (lambda n, y: n.add("MatMul", y, n.conv(y, 4, 4)), "image"),
    "per-channel activation": (lambda n, y: n.add("QuantizeLinear", y, np.ones(4, np.float32),
                                                  np.zeros(4, np.int8), axis=1), "per channel"),
    "16 bits": (lambda n, y: n.add("Cast", y, to=TensorProto.FLOAT16), "float16"),
    "curved activation": (lambda n, y: n.add("Gelu", y), "piecewise"),
    "wrong attribute": (lambda n, y: n.add("Transpose", y, perm=[0, 1, 9, 2]), "do not fit"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_reason_each(tmp_path, case):
    make, words = CASES[case]
    net = Net(1, 3, 8, 8, opset=20)
    found = problems(net, tmp_path, net.conv(make(net, net.conv(net.x, 4, 3)), 2, 4))
    assert len(found) == 1
    assert re.search(words, found[0][2]), found


def test_network_without_a_layer(tmp_path):
    net = Net(1, 3, 8, 8)
    assert "no convolution" in problems(net, tmp_path, net.add("Softmax", net.x))[0][2]


# ---- files

def one_line(path, words: str) -> None:
    with pytest.raises(UserError) as caught:
        import_onnx(path)
    assert not isinstance(caught.value, UnsupportedNetwork)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert re.search(words, str(caught.value)), str(caught.value)


def test_missing_truncated_and_foreign_files(tmp_path):
    one_line(tmp_path / "none.onnx", "no such file")
    net = Net(1, 3, 8, 8)
    path = save(net.model(net.conv(net.x, 4, 3)), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    one_line(path, "not a readable ONNX file")
    for content in (b"", b"GIF89a and so on, an image rather than a network", bytes(range(256)) * 20):
        path.write_bytes(content)
        one_line(path, "not a")
    one_line(tmp_path, "no such file")


def test_external_data(tmp_path):
    net = Net(1, 3, 8, 8)
    model = net.model(net.conv(net.x, 64, 3))
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.weights", size_threshold=0)
    assert import_onnx(path).graph.edges
    (tmp_path / "net.weights").unlink()
    one_line(path, "net.weights")


def test_damaged_graphs(tmp_path):
    net = Net(1, 3, 8, 8)
    y = net.conv(net.x, 4, 3)
    one_line(save(net.model(net.add("Relu", "nowhere"), y), tmp_path), "'nowhere'")
    one_line(save(Net(1, 3, 8, 8).model("y"), tmp_path), "not an ONNX network")
    net = Net(1, 3, 8, 8)
    y = net.conv(net.x, 4, 3)
    net.add("Relu", y)
    one_line(save(net.model("missing"), tmp_path), "'missing'")


def test_old_operator_sets(tmp_path):
    net = Net(1, 3, 8, 8, opset=6)
    one_line(save(net.model(net.conv(net.x, 4, 3)), tmp_path), "operator set 6")


def test_tail_that_onnxruntime_refuses(tmp_path):
    net = Net(1, 3, 8, 8)
    y = net.add("NoSuchOperator", net.conv(net.x, 4, 3))
    one_line(save(net.model(y), tmp_path), "behind the last layer")
