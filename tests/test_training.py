"""Training the corner networks: one that was stopped and taken up again is the one that was not stopped."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import models
from models.plans import PLANS

OPTIONS = Namespace(threads=1, seed=0, steps=1000, batch=4, pairs=2, pool=8, textures=0.5, rate=4e-3, still=0.5,
                    sparse=0.01, settle=0.4)


@pytest.mark.parametrize("first", [2, 748])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, first: int) -> None:
    """Also where the quantisation-aware part begins, at step 750."""
    torch = pytest.importorskip("torch", reason="training needs torch (the train extra)")
    from models.train import Run, layers_of

    def started() -> Run:
        run = Run(PLANS["35t"], OPTIONS)
        run.step = first - 2
        return run

    whole, part, later = started(), started(), started()
    for run, steps in ((whole, 6), (part, 2)):
        for _ in range(steps):
            run.one_step()
    part.save(tmp_path / "c.ckpt")
    torch.manual_seed(7)
    later.resume(tmp_path / "c.ckpt")
    for _ in range(4):
        later.one_step()
    assert (later.step, later.net.quantise) == (whole.step, whole.net.quantise)
    for ours, theirs in zip(layers_of(later.net), layers_of(whole.net), strict=True):
        assert np.array_equal(ours.weight, theirs.weight)
        assert np.array_equal(ours.bias, theirs.bias)
    assert not np.array_equal(layers_of(part.net)[0].weight, layers_of(whole.net)[0].weight)


@pytest.mark.parametrize("name", models.BOARDS)
def test_the_recorded_command_is_one_and_whole(name: str) -> None:
    """Every option that changes the weights is said, and nothing stops the training before its end."""
    path = models.network(name).parent / "metrics.json"
    training = json.loads(path.read_text(encoding="utf-8"))[name]["training"]
    words = shlex.split(training["command"])
    assert words[:4] == ["python", "-m", "models.train", name.removeprefix("corners_")]
    said = dict(zip(words[4::2], words[5::2], strict=True))
    settle = set() if "code" in training else {"--settle"}  # code: a commit before there was that option
    assert set(said) == {"--steps", "--batch", "--pairs", "--pool", "--textures", "--rate", "--still", "--sparse",
                         "--seed", "--threads"} | settle
    assert training["batch"] == int(said["--batch"]) + int(said["--pairs"])
    assert training["cpu_seconds"] < 2 * 2 * 3600
