"""The rules of the nonlinear step against frozen vectors and against Python integers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.arithmetic import MAX_SHIFT, max_pool, node_peak, node_result, rhe, threshold, wrap
from sim.graph import Code, GraphError, Node, Operand, Pool
from tests import plain_reference

VECTORS = json.loads((Path(__file__).parent / "vectors" / "requantise.json").read_text())
BOTH = pytest.mark.parametrize("dtype", [np.int64, np.float64])


@BOTH
def test_frozen_rhe(dtype):
    t, shift, expected = np.array(VECTORS["rhe"], np.int64).T
    assert rhe(t.astype(dtype), shift).astype(np.int64).tolist() == expected.tolist()


def test_frozen_wrap():
    for value, bits, expected in VECTORS["wrap"]:
        assert wrap(np.array([value]), bits).tolist() == [expected]


def test_frozen_threshold():
    for x, ref, t, mode, sent, new_ref in VECTORS["threshold"]:
        found = threshold(np.array([x], np.int16), np.array([ref], np.int16), t, mode)
        assert [f.tolist() for f in found] == [[sent], [new_ref]], (x, ref, t, mode)


def vector_node(vector: dict) -> Node:
    """A node of one channel from a frozen vector."""
    def one(value: int) -> np.ndarray:
        return np.array([value], np.int64)

    operands = []
    for op in vector["operands"]:
        branch = op["branch"]
        operands.append(Operand(
            "source", np.zeros(1), branch and Code(1.0, branch["lo"], branch["hi"]), one(op["bias"]),
            one(op["multiplier"]), one(op["negative_multiplier"]), branch and one(branch["multiplier"]),
            branch and one(branch["shift"])))
    return Node("x", tuple(operands), np.ones(1), sign=vector["sign"], shift=one(vector["shift"]),
                lo=vector["lo"], hi=vector["hi"])


@BOTH
@pytest.mark.parametrize("vector", VECTORS["node"])
def test_frozen_node(vector, dtype):
    node, a = vector_node(vector), [op["a"] for op in vector["operands"]]
    assert node_peak(node, [abs(v) for v in a]) < 1 << 53
    assert node_result(node, [np.full((1, 1, 1), v, dtype) for v in a], (1, 1, 1)).item() == vector["x"]
    assert plain_reference.node_element(node, a, 0) == vector["x"]


def test_the_vectors_tell_rounding_rules_apart():
    """Half up, half away from zero, half down and truncation each get some vector wrong."""
    t, shift, expected = np.array(VECTORS["rhe"], object).T
    half = [1 << s >> 1 for s in shift]
    away = [((abs(a) + h) >> s) * (1 if a > 0 else -1) for a, h, s in zip(t, half, shift, strict=True)]
    up = [(a + h) >> s for a, h, s in zip(t, half, shift, strict=True)]
    down = [-((-a + h) >> s) for a, h, s in zip(t, half, shift, strict=True)]
    for wrong in (away, up, down, [a >> s for a, s in zip(t, shift, strict=True)]):
        assert wrong != expected.tolist()


@given(st.integers(-(2**61), 2**61), st.integers(0, MAX_SHIFT))
def test_rhe_is_python_rounding(t, shift):
    for value in (t, (t >> shift << shift) + (1 << shift >> 1)):
        assert rhe(np.array([value]), shift).item() == plain_reference.rounded(value, shift)


@given(st.integers(-(2**53) + 1, 2**53 - 1), st.integers(0, MAX_SHIFT))
def test_rhe_in_float64_is_exact(t, shift):
    for value in (t, np.clip((t >> shift << shift) + (1 << shift >> 1), 1 - 2**53, 2**53 - 1)):
        assert rhe(np.array([value], np.float64), shift).item() == plain_reference.rounded(int(value), shift)


@given(st.integers(-(2**62), 2**62), st.integers(2, 64))
def test_wrap_is_twos_complement(value, bits):
    assert wrap(np.array([value]), bits).item() == plain_reference.wrapped(value, bits)


@given(st.integers(-(2**62), 2**62), st.integers(-(2**61), 2**61), st.integers(2, 60))
def test_wrapping_late_is_wrapping_early(a, b, bits):
    early = wrap(wrap(np.array([a]), bits) + wrap(np.array([b]), bits), bits)
    assert early.item() == plain_reference.wrapped(a + b, bits)


def test_node_peak_bounds_every_intermediate():
    """The bound grows with each part of a node that can make its integers larger."""
    vector = {"operands": [{"bias": -3, "multiplier": -5, "negative_multiplier": 7, "branch": None}],
              "shift": 0, "lo": -1, "hi": 1, "sign": False}
    assert node_peak(vector_node(vector), [10]) == 13 * 7
    vector["operands"][0]["branch"] = {"multiplier": 1000, "shift": 3, "lo": -128, "hi": 127}
    assert node_peak(vector_node(vector), [10]) == 13 * 1000
    vector["operands"].append({"bias": 0, "multiplier": 1 << 40, "negative_multiplier": 0, "branch": None})
    assert node_peak(vector_node(vector), [10, 2]) == 128 * 5 + (2 << 40)


pool_axis = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))


@settings(max_examples=200, deadline=None)
@given(pool_axis, pool_axis, st.integers(1, 7), st.integers(1, 7), st.integers(1, 5), st.integers(1, 5),
       st.sampled_from([np.int16, np.float32]), st.integers(0, 2**32))
def test_max_pool_is_its_definition(y, x, height, width, out_height, out_width, dtype, seed):
    pool = Pool(*zip(y, x, strict=True))
    values = np.random.default_rng(seed).integers(-255, 256, (2, height, width)).astype(dtype)
    target = (2, out_height, out_width)
    try:
        expected = plain_reference.pooled(values, pool, target)
    except ValueError:                            # a window without any element
        with pytest.raises(GraphError, match="outside the image"):
            max_pool(values, pool, target)
        return
    found = max_pool(values, pool, target)
    assert found.dtype == dtype
    assert (found == expected).all()
