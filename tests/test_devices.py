"""The compiled RTL and the golden model are the same device: outputs, taps, deltas and MACs of every frame."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

import models
from host.configs import Named
from host.errors import UserError
from host.link_device import RtlDevice
from host.session import Session, open_model, quantised
from host.video import open_source, sample_frames
from hw.config import PRESETS
from hw.link.packets import LinkConfig
from tests.random_graphs import Limits, random_graph
from tests.test_session import arrays, model_of

SMALL = Named("sim8", PRESETS["sim8"], LinkConfig())
"""One accelerator for all these tests, so that one simulator is built."""


def rtl() -> RtlDevice:
    return RtlDevice(SMALL)


def tap(session: Session, name: str) -> np.ndarray | None:
    """None where the device needs the projection's memory for something else."""
    if name in session.network.graph.tensors or session.network.graph.projections[name].mode == "delta":
        return session.tap(name)
    try:
        return session.tap(name)
    except UserError:
        return None


@pytest.mark.parametrize("threshold,mode", [(0, "hold"), (3, "hold"), (4, "truncate")])
@pytest.mark.parametrize("seed", range(8))
def test_rtl_is_the_model(seed, threshold, mode):
    graph = random_graph(100 + seed, Limits(layers=3))
    model, last = model_of(graph), graph.nodes[-1].target
    thresholds = {t: threshold for t in graph.tensors} | {last: 1}
    read = 0
    with (Session(model, rtl(), threshold=thresholds, mode=mode) as ours,
          Session(model, threshold=thresholds, mode=mode) as golden):
        for i, array in enumerate(arrays(graph, seed, 6)):
            if i == 4:
                ours.reset()
                golden.reset()
            outputs, stats = ours.infer_array(array, refresh=i == 2)
            expected, work = golden.infer_array(array, refresh=i == 2)
            assert list(outputs) == list(expected)
            for name, value in expected.items():
                np.testing.assert_array_equal(outputs[name], value)
            for name in (*graph.tensors, *graph.projections):
                if (value := tap(ours, name)) is not None:
                    np.testing.assert_array_equal(value, golden.tap(name))
                    read += 1
            assert (stats.refresh, stats.elements, stats.deltas, stats.macs, stats.macs_dense) == (
                work.refresh, work.elements, work.deltas, work.macs, work.macs_dense)
            assert stats.detail.deltas == {n: t.deltas for n, t in work.detail.tensors.items()}
            assert stats.detail.dropped == {n: t.dropped for n, t in work.detail.tensors.items()}
            assert stats.cycles == sum(s.cycles for s in stats.detail.steps) > 0
    assert read >= 6 * len(graph.tensors)


@pytest.mark.parametrize("threshold", [0, 2])
def test_the_bundled_network_on_its_clip(threshold):
    clip = str(models.default_clip())
    model = quantised(open_model(models.default_network()), sample_frames(clip, 4))
    with (Session(model, RtlDevice("sim8"), threshold=threshold) as ours,
          Session(model, threshold=threshold) as golden, open_source(clip) as frames):
        for frame in islice(frames, 3):
            outputs, stats = ours.infer(frame)
            expected, work = golden.infer(frame)
            for name, value in expected.items():
                np.testing.assert_array_equal(outputs[name], value)
            for name in (*model.network.graph.tensors, *model.network.graph.projections):
                np.testing.assert_array_equal(ours.tap(name), golden.tap(name))
            assert (stats.deltas, stats.macs) == (work.deltas, work.macs)
