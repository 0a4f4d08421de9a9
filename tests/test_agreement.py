"""Agreement of detections, every kind: the same is 1, shifted within reach is 1, beyond it is less."""

from __future__ import annotations

import numpy as np
import pytest

from host.heads.agreement import agreement
from host.heads.base import Box, Label
from host.heads.keypoints import Keypoint
from host.heads.openpose import Pose
from host.heads.raw import Summary
from host.heads.superres import Picture

SIZE = (640, 480)


def box(x: float, name: str = "face") -> Box:
    return Box(x, 10, x + 40, 50, 0.9, name)


def pose(dx: float, parts: int = 6) -> Pose:
    points = [(100 + dx, 20.0 * i, 0.8) if i < parts else None for i in range(18)]
    return Pose(tuple(points), 0.8)


@pytest.mark.parametrize("a,b,expected", [
    ([], [], 1),
    ([Label("cat", 0.9, 3)], [Label("cat", 0.2, 3), Label("dog", 0.1, 5)], 1),
    ([Label("cat", 0.9, 3)], [Label("dog", 0.9, 5)], 0),
    ([box(0)], [box(5)], 1),
    ([box(0)], [box(30)], 0),
    ([box(0)], [box(0, "person")], 0),
    ([box(0)], [], 0),
    ([box(0), box(100)], [box(1)], 2 / 3),
    ([box(0), box(8)], [box(4)], 2 / 3),                                  # one box stands for one only
    ([Keypoint(5, 5, 1), Keypoint(50, 50, 1)], [Keypoint(7, 6, 1), Keypoint(90, 50, 1)], 0.5),
    ([pose(0)], [pose(10)], 1),
    ([pose(0)], [pose(40)], 0),
    ([pose(0, 6)], [pose(0, 3)], 2 * 3 / 9),
])
def test_agreement(a, b, expected):
    assert agreement(a, b, SIZE) == pytest.approx(expected)
    assert agreement(b, a, SIZE) == pytest.approx(expected)


def test_pictures_and_raw_outputs():
    luma = np.full((4, 4), 100, np.uint8)
    other = luma.copy()
    other[0] += 2
    other[1] += 1
    region = (0.0, 0.0, 4.0, 4.0)
    assert agreement([Picture(luma, region)], [Picture(other, region)], SIZE) == 0.75
    first = [Summary("a", (4,), 0, 1, (2,)), Summary("b", (4,), 0, 1, (0,))]
    second = [Summary("a", (4,), 0, 1, (2,)), Summary("b", (4,), 0, 1, (1,))]
    assert agreement(first, second, SIZE) == 0.5


def test_what_cannot_be_compared():
    with pytest.raises(TypeError, match="str"):
        agreement(["x"], ["y"], SIZE)
