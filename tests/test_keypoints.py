"""The keypoints head: known heat maps give the known corners, in the frame's pixels, with trails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from host import draw
from host.cli import main
from host.errors import UserError
from host.heads import head_for
from host.heads.keypoints import Keypoint, Keypoints, Trails, find_corners, heat_map
from host.preprocess import Placement
from models.raster import blur, fill

SAME = Placement((128, 96), (128, 96), (1.0, 1.0), (0.0, 0.0))


def heat_of(points, size=(96, 128)) -> np.ndarray:
    """Each (x, y, mass) shared bilinearly among the four pixels around it."""
    heat = np.zeros(size)
    for x, y, mass in points:
        ix, iy = int(x), int(y)
        for dx, dy in np.ndindex(2, 2):
            heat[iy + dy, ix + dx] += mass * abs(1 - dx - (x - ix)) * abs(1 - dy - (y - iy))
    return heat


def logits_of(heat: np.ndarray, cell: int = 8) -> np.ndarray:
    """The inverse of ``heat_map`` where each cell's heat sums to less than 1: float32[1, cell*cell, h, w]."""
    h, w = heat.shape[0] // cell, heat.shape[1] // cell
    cells = heat.reshape(h, cell, w, cell).transpose(1, 3, 0, 2).reshape(cell * cell, h, w)
    none = 1 - cells.sum(axis=0)
    return np.log(np.maximum(cells, 1e-12) / none)[None].astype(np.float32)


KNOWN = [(20.3, 30.8, 0.9), (55.5, 10.25, 0.8), (63.6, 47.5, 0.7), (100.0, 80.0, 0.6)]


def test_heat_map_inverts_the_softmax():
    heat = np.random.default_rng(0).uniform(0, 0.01, (96, 128))
    np.testing.assert_allclose(heat_map(logits_of(heat)[0], 8), heat, atol=1e-6)


def test_heat_map_does_not_overflow():
    logits = np.zeros((64, 2, 3))
    logits[5, 1, 2], logits[:, 0, 0] = 900, -900
    heat = heat_map(logits, 8)
    assert (heat[8, 21], heat[:8, :8].sum()) == (1, 0)
    assert np.isfinite(heat).all()


def test_known_corners_with_their_sub_pixel_places():
    """One of them lies across a cell border in x (63.6), where two cells share it."""
    found = find_corners(heat_map(logits_of(heat_of(KNOWN))[0], 8), 0.25, 3, 100)
    np.testing.assert_allclose(found, KNOWN, atol=1e-4)


def test_non_maximum_suppression_threshold_and_top():
    heat = heat_of([(20, 20, 0.9), (23, 21, 0.5), (40, 40, 0.4), (60, 60, 0.1)])
    assert find_corners(heat, 0.25, 3, 100)[:, :2].round().tolist() == [[20, 20], [40, 40]]
    assert len(find_corners(heat, 0.05, 3, 100)) == 3
    assert find_corners(heat, 0.05, 3, 1)[:, :2].round().tolist() == [[20, 20]]
    assert find_corners(heat, 0.95, 3, 100).shape == (0, 3)


def test_heat_along_an_edge_scores_less_than_a_corner_of_less_heat():
    """Pixels of .2 in a row: a 3x3 window has .6 of the 1.4 within 3 pixels, and scores .6 * .6 / 1.4 = .257; a pixel
    of .3 with nothing near it scores .3."""
    heat = np.zeros((32, 48))
    heat[10] = 0.2
    heat[20, 35] = 0.3
    inner = [tuple(f) for f in find_corners(heat, 0.2, 3, 100) if 4 < f[0] < 43]
    np.testing.assert_allclose(inner[0], [35, 20, 0.3])
    assert len(inner) > 1
    np.testing.assert_allclose([score for *_, score in inner[1:]], 0.36 / 1.4)


def test_equal_neighbours_give_one_corner():
    heat = np.zeros((32, 32))
    heat[10, 10] = heat[10, 11] = 0.4
    found = find_corners(heat, 0.2, 3, 10)
    assert len(found) == 1
    np.testing.assert_allclose(found[0, :2], [10.5, 10], atol=0.01)


def test_corners_at_the_very_edge():
    heat = np.zeros((16, 16))
    heat[0, 0] = heat[15, 15] = 0.9
    np.testing.assert_allclose(find_corners(heat, 0.2, 3, 10)[:, :2], [[0, 0], [15, 15]])


def test_decode_maps_pixel_centres_to_the_frame():
    """A pixel's centre is at its number + 0.5 in the picture; the frame is 2.5 times as large and cropped."""
    placement = Placement((320, 280), (128, 96), (0.4, 0.4), (0.0, -8.0))
    found = Keypoints(output="logits").decode({"logits": logits_of(heat_of(KNOWN))}, placement)
    assert [k.score for k in found] == pytest.approx([0.9, 0.8, 0.7, 0.6], abs=1e-4)
    expected = [((x + 0.5) / 0.4, (y + 0.5 + 8) / 0.4) for x, y, _ in KNOWN]
    np.testing.assert_allclose([(k.x, k.y) for k in found], expected, atol=1e-3)


def test_points_outside_the_frame_are_dropped():
    letterbox = Placement((100, 50), (128, 96), (1.28, 1.28), (0.0, 16.0))
    found = Keypoints().decode({"any": logits_of(heat_of([(50.0, 4.0, 0.9), (50.0, 40.0, 0.9)]))}, letterbox)
    assert [k.as_dict() for k in found] == [{"x": 39.45, "y": 19.14, "score": 0.9}]


@pytest.mark.parametrize("shape", [(1, 65, 12, 16), (64, 12, 16), (2, 64, 12, 16)])
def test_wrong_output_is_one_clear_error(shape):
    with pytest.raises(UserError, match=r"keypoints: the output has shape .* must be \[1, 64, height"):
        Keypoints().decode({"logits": np.zeros(shape)}, SAME)


@pytest.mark.parametrize("field, value", [("threshold", 1.5), ("radius", 0), ("cell", 0), ("trail", -1)])
def test_wrong_fields_are_named(field, value):
    with pytest.raises(UserError, match=rf"\[head\].*{field} is {value}"):
        head_for({"kind": "keypoints", field: value}, "x.toml: [head]")


def test_trails_follow_the_nearest_point():
    trails = Trails(reach=5, length=3)
    trails.follow(np.array([[10.0, 10], [30, 30]]))
    assert trails.follow(np.array([[32.0, 30], [12, 11]])) == [[(30, 30), (32, 30)], [(10, 10), (12, 11)]]
    assert trails.follow(np.array([[14.0, 12], [60, 60]])) == [[(10, 10), (12, 11), (14, 12)], [(60, 60)]]
    assert trails.follow(np.array([[16.0, 13]])) == [[(12, 11), (14, 12), (16, 13)]]
    assert trails.follow(np.zeros((0, 2))) == []
    assert trails.follow(np.array([[16.0, 13]])) == [[(16, 13)]]


def test_two_points_never_share_a_trail():
    trails = Trails(reach=5, length=9)
    trails.follow(np.array([[10.0, 10]]))
    assert trails.follow(np.array([[12.0, 10], [11.0, 10]])) == [[(12, 10)], [(10, 10), (11, 10)]]


def test_the_same_points_again_change_nothing():
    """A frame is drawn once for the annotated clip and once for the comparison."""
    trails = Trails(reach=5, length=9)
    trails.follow(np.array([[10.0, 10]]))
    once = trails.follow(np.array([[11.0, 10]]))
    assert trails.follow(np.array([[11.0, 10]])) == once == [[(10, 10), (11, 10)]]


def test_drawing_shows_points_and_trails_of_each_colour_apart():
    head = Keypoints()
    blank = np.zeros((96, 128, 3), np.uint8)
    for x in (40, 43, 46):
        blue = draw.to_array(head.draw(draw.to_image(blank), [Keypoint(x, 50, 0.9)], draw.BLUE))
    green = draw.to_array(head.draw(draw.to_image(blank), [Keypoint(46, 50, 0.9)], draw.GREEN))
    assert (tuple(blue[50, 46]), tuple(green[50, 46])) == (draw.BLUE, draw.GREEN)
    assert (blue[50, 41].any(), green[50, 41].any()) == (True, False)
    assert not blue[50, 60:].any()
    assert not blue[80].any()
    assert head == Keypoints()  # trails are no part of what the head is


def test_no_trails_and_no_points():
    head = Keypoints(trail=0)
    blank = np.zeros((96, 128, 3), np.uint8)
    for x in (40, 46):
        image = draw.to_array(head.draw(draw.to_image(blank), [Keypoint(x, 50, 0.9)]))
    assert not image[50, 42].any()
    assert not draw.to_array(head.draw(draw.to_image(blank), [])).any()


SHIFT = (4, 3)
"""Pixels of the frame by which the board below moves from frame to frame: 1.6 and 1.2 of the network's picture."""


@pytest.fixture(scope="module")
def moving_board(tmp_path_factory) -> Path:
    """An image folder of 4 frames, 320x240: a checkerboard that moves by SHIFT, seen with a little noise."""
    folder, rng = tmp_path_factory.mktemp("board"), np.random.default_rng(1)
    for i in range(4):
        image = np.full((240, 320), 128, np.float32)
        for row, column in np.ndindex(4, 6):
            corner = np.array([column, row]) * 36 + np.array([40, 35]) + i * np.array(SHIFT)
            square = np.array([[0.0, 0], [36, 0], [36, 36], [0, 36]]) + corner
            fill(image, square, 215.0 if (row + column) % 2 else 45.0)
        image = blur(image, 0.7) + rng.normal(0, 1, image.shape)
        Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def detected(clip: Path, backend: str, out: Path, *options: str) -> list[list[dict]]:
    """The detections that ``--json`` lists, frame by frame."""
    assert main(["infer", str(clip), "--backend", backend, "--json", str(out), *options]) == 0
    return [json.loads(line)["detections"] for line in out.read_text().splitlines()]


def test_keypoints_follow_a_known_shift(tmp_path, moving_board):
    """Every frame's corners lie where those of the first one were, moved: within a pixel of the network's picture,
    and half of one in the mean."""
    first, *later = ([(k["x"], k["y"]) for k in frame] for frame in detected(moving_board, "model", tmp_path / "f"))
    assert len(first) >= 20
    for i, frame in enumerate(later, start=1):
        moved = np.array(first) + i * np.array(SHIFT)
        distance = np.linalg.norm(moved[:, None] - np.array(frame)[None], axis=2)
        near = distance.min(axis=1) < 2.5
        assert near.mean() > 0.85
        way = (np.array(frame)[distance.argmin(axis=1)] - np.array(first))[near]
        np.testing.assert_allclose(way.mean(axis=0), i * np.array(SHIFT), atol=1.25)


@pytest.mark.parametrize("options", [(), ("--threshold", "3")])
def test_the_rtl_lists_the_keypoints_of_the_model(tmp_path, moving_board, options):
    """Place and score of every corner in every frame, to the last digit."""
    ours = detected(moving_board, "rtl:sim8", tmp_path / "rtl", *options)
    assert ours == detected(moving_board, "model", tmp_path / "model", *options)
    assert len(ours) == 4
    assert min(map(len, ours)) >= 20
    assert ours[0] != ours[1]
