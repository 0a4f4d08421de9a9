"""Real networks on real clips: the delta path equals every frame from scratch, everywhere and always."""

from __future__ import annotations

import numpy as np
import pytest

from sim.golden import GoldenModel
from tests.networks import FLOAT, LARGE, QDQ, onnx_arrays, quantised


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("stem", [*FLOAT, *QDQ])
def test_rrm_equals_dense_in_every_projection_and_tensor(stem, noise):
    network, _ = quantised(stem)
    graph = network.graph
    model, code = GoldenModel(graph), graph.tensors[graph.input].code
    deltas = []
    for t, array in enumerate(onnx_arrays(stem, 5 if stem in LARGE else 20, noise)):
        codes = network.input.to_codes(array, code)
        frame, dense = model.frame(codes), model.dense(codes)
        for name, value in dense.snapshots.items():
            np.testing.assert_array_equal(model.snapshots[name], value, f"tensor {name}, frame {t}")
        for name, value in dense.projections.items():
            np.testing.assert_array_equal(model.projections[name], value, f"projection {name}, frame {t}")
        deltas.append(frame.total("deltas"))
    assert 0 < min(deltas[1:])
    assert max(deltas[1:]) < deltas[0]
