"""ONNX's own test cases of the supported operators: the standard's expected outputs are the truth here."""

from __future__ import annotations

from collections import defaultdict
from warnings import catch_warnings, simplefilter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from host.errors import UnsupportedNetwork
from host.onnx_import import import_onnx
from host.onnx_import.registry import OPERATORS
from sim.float_model import FloatModel
from tests.onnx_nets import save

LEAST = {"Conv": 6, "ConvTranspose": 9, "AveragePool": 13, "MaxPool": 12, "Resize": 12, "DepthToSpace": 2,
         "SpaceToDepth": 3, "GlobalAveragePool": 2, "GlobalMaxPool": 2, "Upsample": 1}
"""Fewest cases of an operator that must run (many of the others have a batch, 3 axes or integers)."""


def wrapped(case) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray] | None:
    """The case's node between two 1x1 convolutions that change nothing, its image and its expected output."""
    arrays, expected = case.data_sets[0] if case.data_sets else ([], [])
    if not arrays or len(case.model.graph.node) != 1 or len(expected) != 1:
        return None
    image, result, graph = arrays[0], expected[0], case.model.graph
    for a in (image, result):
        if not isinstance(a, np.ndarray) or a.dtype != np.float32 or a.ndim not in (3, 4) or a.shape[0] != 1:
            return None
    weights = [np.eye(a.shape[1], dtype=np.float32).reshape(*a.shape[1:2] * 2, *[1] * (a.ndim - 2))
               for a in (image, result)]
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[0])
    inside, outside = graph.input[0].name, node.output[0]
    nodes = [helper.make_node("Conv", ["image", "w0"], [inside]), node,
             helper.make_node("Conv", [outside, "w1"], ["result"])]
    constants = {"w0": weights[0], "w1": weights[1]}
    constants |= {i.name: a for i, a in zip(graph.input, arrays, strict=False)} if len(arrays) > 1 else {}
    constants.pop(inside, None)
    model = helper.make_model(helper.make_graph(
        nodes, "case", [helper.make_tensor_value_info("image", TensorProto.FLOAT, image.shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, result.shape)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]),
        opset_imports=list(case.model.opset_import))
    return model, image, result


@pytest.fixture(scope="module")
def cases() -> dict[str, list]:
    """The cases that can be wrapped, by operator."""
    found = defaultdict(list)
    with catch_warnings():
        simplefilter("ignore")  # onnx makes its cases noisily
        for case in collect_testcases(None):
            parts = wrapped(case) if case.model is not None else None
            if parts is not None:
                found[case.model.graph.node[0].op_type].append((case, *parts))
    return found


@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_cases_of_the_standard(tmp_path, cases, op):
    ran, refused = [], []
    for case, model, image, expected in cases[op]:
        try:
            network = import_onnx(save(model, tmp_path))
        except UnsupportedNetwork as error:
            refused += [(case.name, reason) for _, _, reason in error.problems]
            continue
        outputs = FloatModel(network.graph, np.float64).outputs(network.input.to_real(image))
        np.testing.assert_allclose(network.finish(outputs)["result"], expected, case.rtol, case.atol, err_msg=case.name)
        ran.append(case.name)
    print(op, ran, refused)
    assert len(ran) >= LEAST.get(op, 0), refused
