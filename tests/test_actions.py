"""The parts of ``benchmarks.actions``: clips, features and their work, and the MLP."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.actions import ACTIONS, EPSILONS, FRAMES, NETWORK, SIZE, Extractor, Mlp, labelled, network
from host.aecs import ErrorModel
from sim.float_model import FloatModel
from sim.golden import GoldenModel
from tests.networks import quantised


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    if not NETWORK.exists():
        pytest.skip(f"{NETWORK.name} is not there: ../shared/models is absent")
    return Extractor(*network())


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return next(frames for action, frames in labelled(8, 3) if ACTIONS[action] == "circle")


def test_clips_are_seeded_labelled_and_move():
    first, again, other = (list(labelled(8, seed)) for seed in (1, 1, 2))
    assert [a for a, _ in first] == list(range(8))
    for (_, x), (_, y), (_, z) in zip(first, again, other, strict=True):
        assert x.shape == (FRAMES, 3, SIZE, SIZE)
        assert x.min() >= 0
        assert x.max() <= 1
        np.testing.assert_array_equal(x, y)
        assert (x != z).any()
    moved = {ACTIONS[a]: np.abs(np.diff(x, axis=0)).mean() for a, x in first}
    assert moved["stand"] < 0.8 * min(moved[name] for name in ACTIONS[1:])


def test_features_are_the_networks(extractor, clip):
    graph, _ = network()
    right = FloatModel(graph).run(clip[2])[extractor.name].ravel()
    np.testing.assert_allclose(extractor.exact(clip)[2], right, rtol=1e-3, atol=1e-3 * np.abs(right).max())


def test_epsilon_takes_work_away_and_adds_error(extractor, clip):
    exact = extractor.exact(clip)
    runs = [extractor.run(clip, exact, epsilon) for epsilon in (0.0, 3e-2, EPSILONS[-1])]
    assert runs[0].pairs[-1] == (0, 0)
    assert runs[0].density > runs[1].density > runs[2].density > 0
    assert 0 < np.mean([e for _, e in runs[1].pairs]) < np.mean([e for _, e in runs[2].pairs])
    always = ErrorModel((1.0, 0.0, 0.0, 0.0, 0.0), 0.0, 1.0)
    kept = extractor.run(clip, exact, 3e-2, always)
    assert kept.refreshes == (len(clip) - 1) // 2
    assert np.mean([e for _, e in kept.pairs]) < np.mean([e for _, e in runs[1].pairs])


def test_macs_are_the_golden_models(extractor):
    net, _ = quantised("mlperftiny_resnet8_cifar10")
    model = GoldenModel(net.graph)
    dense = model.frame(np.zeros(net.graph.shape_of(net.graph.input), np.int16)).total("macs_dense")
    assert sum(extractor._macs.values()) == dense


def test_the_mlp_learns_what_is_there():
    rng = np.random.default_rng(0)
    labels = np.arange(240) % len(ACTIONS)
    centres = rng.normal(size=(len(ACTIONS), 20))
    features = centres[labels] + rng.normal(0, 0.3, (240, 20))
    assert Mlp(features[:160], labels[:160]).top1(features[160:], labels[160:]) > 0.95
    shuffled = rng.permutation(labels)
    assert Mlp(features[:160], shuffled[:160]).top1(features[160:], shuffled[160:]) < 0.4
