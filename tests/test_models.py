"""What the project ships of its own: clip and training shapes are right, the network fits and works."""

from __future__ import annotations

import json
import tomllib
from itertools import islice

import av
import numpy as np
import onnx
import onnxruntime
import pytest

import models
from host.configs import named
from host.session import open_model, quantised
from models import default_clip
from models.evaluate import average_precision, network_detector, repeatability, samples, synthetic
from models.export import Layer, needs_of, save_network
from models.plans import PLANS
from models.raster import blur, contains, coverage, ellipse, fill, project, rotation, value_noise, warp
from models.scene import MOTIONS, frames
from models.shapes import Camera, Canvas, merge, peaks, picture, repeats, smaller_eigenvalue, texture

BOX = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])


def test_coverage_is_the_area_of_a_rectangle():
    rows, columns, alpha = coverage(BOX * [5.25, 3] + [2.125, 3.5], 12, 16)
    whole = np.zeros((12, 16))
    whole[rows, columns] = alpha
    assert (whole[5, 5], whole[5, 0]) == (1, 0)
    # Pixel 2 covers 1.5..2.5 and the rectangle starts at 2.125; rows 4, 5, 6 are wholly inside.
    assert (whole[5, 2], whole[5, 7]) == pytest.approx((0.375, 0.875))
    assert whole.sum() == pytest.approx(5.25 * 3, rel=0.02)


def test_coverage_of_a_concave_outline_agrees_with_contains():
    turn = np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2, 8, 20)
    star = np.stack([np.cos(turn) * reach + 30.3, np.sin(turn) * reach + 24.1], 1)
    rows, columns, alpha = coverage(star, 50, 60)
    whole = np.zeros((50, 60))
    whole[rows, columns] = alpha
    grid = np.stack(np.meshgrid(np.arange(60), np.arange(50)), -1).reshape(-1, 2)
    assert np.array_equal(whole.ravel() > 0.5, contains(star, grid.astype(float)))


def test_coverage_outside_the_picture():
    assert coverage(BOX * 5 + [100, 0], 20, 20) is None


def test_warp_follows_its_homography():
    image = np.zeros((40, 60), np.float32)
    image[20, 30] = 1
    view = np.eye(3)
    view[:2, :2] = rotation(0.3) * 1.2
    view[:2, 2] = [4, -3]
    image = blur(image, 1.5)
    y, x = np.unravel_index(warp(image, view).argmax(), image.shape)
    assert np.abs(project(view, np.array([30.0, 20.0])) - [x, y]).max() <= 0.75


@pytest.mark.parametrize("motion", MOTIONS)
def test_scene_is_the_same_every_time(motion):
    one, two = (list(frames(6, (160, 120), 1.5, 3, motion)) for _ in range(2))
    assert all(np.array_equal(a, b) and np.array_equal(p, q) for (a, p), (b, q) in zip(one, two, strict=True))
    other = next(frames(1, (160, 120), 1.5, 4, motion))[0]
    assert not np.array_equal(one[0][0], other)


def test_scene_motions():
    def change(motion: str, at: int, noise: float = 0.0) -> float:
        clip = [f.astype(int) for f, _ in frames(8, (160, 120), noise, 0, motion)]
        return np.abs(clip[at] - clip[at - 1]).mean()

    assert change("static", 4) == 0
    assert 0 < change("moving", 4) < 5 < change("cut", 4)
    assert change("static", 4, noise=3) == pytest.approx(3 * 2 / np.sqrt(np.pi), rel=0.05)
    assert min(len(corners) for _, corners in frames(66, (160, 120))) > 30


def test_scene_corners_lie_where_the_picture_turns():
    """Near nearly every label the structure tensor peaks (inside the corner, so not quite at it); near the
    same labels moved away it seldom does."""
    near, near_moved = [], []
    for index, (frame, corners) in enumerate(frames(90, (320, 240))):
        if index % 30:
            continue
        response = smaller_eigenvalue(frame.astype(np.float32) @ np.float32([0.299, 0.587, 0.114]))
        tops = peaks(response, 2)
        x, y = np.rint(tops).astype(int).T
        tops = tops[response[y, x] > 6]
        corners = corners[((corners > 4) & (corners < [315, 235])).all(axis=1)]
        for places, found in ((corners, near), (corners + [5, -4], near_moved)):
            found += list(np.linalg.norm(places[:, None] - tops[None], axis=2).min(axis=1) < 3.2)
    assert len(near) > 200
    assert np.mean(near) > 0.85
    assert np.mean(near_moved) < 0.5


@pytest.mark.parametrize("wrong", [{"motion": "fast"}, {"count": 0}, {"size": (16, 240)}, {"noise": -1}])
def test_scene_refuses(wrong):
    with pytest.raises(ValueError, match=r"motion is|at least"):
        next(frames(**{"count": 1} | wrong))


def test_bundled_clip_is_the_scene():
    """120 frames at 30 frames/s that are those of the script, but for the loss of H.264."""
    assert default_clip().stat().st_size < 600_000
    with av.open(str(default_clip())) as container:
        assert container.streams.video[0].average_rate == 30
        clip = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert (len(clip), clip[0].shape) == (120, (240, 320, 3))
    for index, (frame, _) in enumerate(frames()):
        if index % 20 == 0:
            assert np.abs(clip[index].astype(int) - frame).mean() < 4
    assert np.abs(clip[0].astype(int) - next(frames(seed=1))[0]).mean() > 8


@pytest.mark.parametrize("draw", [picture, texture])
def test_training_pictures_are_the_same_every_time(draw):
    one, two = ([draw(np.random.default_rng(s), (128, 96)) for s in range(20)] for _ in range(2))
    assert all(np.array_equal(a, b) and np.array_equal(p, q) for (a, p), (b, q) in zip(one, two, strict=True))


def test_corners_of_a_square_and_of_what_hides_it():
    canvas = Canvas(np.full((96, 128), 50, np.float32))
    canvas.paint([(BOX * 40 + [20.25, 30.5], 200.0)])
    first = canvas.visible_corners()
    assert sorted(map(tuple, first)) == [(20.25, 30.5), (20.25, 70.5), (60.25, 30.5), (60.25, 70.5)]
    canvas.paint([(BOX * 30 + [45.25, 55.5], 120.0)])
    found = {tuple(np.round(p, 2)) for p in canvas.visible_corners()}
    assert found == {(20.25, 30.5), (20.25, 70.5), (60.25, 30.5),  # the square's without the hidden one
                     (45.25, 55.5), (75.25, 55.5), (45.25, 85.5), (75.25, 85.5),  # the new one's
                     (60.25, 55.5), (45.25, 70.5)}  # where their outlines meet


def test_what_is_hidden_is_forgotten_even_under_texture():
    """The first square's covered corner, and the crossing of the first and third under the second."""
    canvas = Canvas(np.full((96, 128), 50, np.float32))
    for place, side in (([20, 20], 40), ([50, 40], 30), ([55, 10], 40)):
        canvas.paint([(BOX * side + place, 200.0)])
    known = set(map(tuple, canvas.corners.round(6)))
    assert {(20.0, 20.0), (50.0, 60.0), (55.0, 20.0), (55.0, 40.0), (80.0, 50.0)} <= known
    assert not {(60.0, 60.0), (60.0, 20.0), (60.0, 40.0), (60.0, 50.0)} & known


def test_a_round_outline_has_no_corner_and_an_invisible_one_neither():
    canvas = Canvas(np.full((96, 128), 50, np.float32))
    canvas.paint([(ellipse(np.array([60.0, 50.0]), (30, 20), 0.4, 40), 220.0)])
    canvas.paint([(BOX * 10 + [3, 3], 51.0)])
    assert len(canvas.visible_corners()) == 0


def test_merge_joins_only_near_points():
    points = np.array([[10.0, 10], [11, 10], [30, 10]])
    assert merge(points).tolist() == [[10.5, 10], [30, 10]]


def test_camera_noise_differs_between_shots_and_nothing_else():
    rng = np.random.default_rng(0)
    image, _ = picture(rng, (128, 96))
    camera = Camera.draw(rng, (128, 96), noise=(4, 4))
    one, two = camera.shoot(rng, image), camera.shoot(rng, image)
    middle = (one > 20) & (one < 235)
    assert (one - two)[middle].std() == pytest.approx(4 * np.sqrt(2), rel=0.1)
    assert np.array_equal(one, np.rint(one))
    assert (one.min() >= 0) & (one.max() <= 255)


def test_textures_count_corners_by_how_well_they_repeat():
    """A dark square on a light ground repeats in every view; weak texture far from it does not always."""
    image = np.full((96, 128), 200, np.float32)
    fill(image, BOX * 30 + [40, 30], 40.0)
    image += 4 * value_noise(np.random.default_rng(2), 96, 128, 5)
    corners = np.array([[41.0, 31], [69, 31], [41, 59], [69, 59], [20, 80], [100, 20], [105, 75], [15, 15]])
    share = repeats(np.random.default_rng(0), image, corners)
    assert (share[:4] == 1).all()
    assert share[4:].mean() < 0.8


def test_a_texture_is_labelled_with_shares():
    shares = np.concatenate([texture(np.random.default_rng(s), (128, 96))[1][:, 2] for s in range(12)])
    assert ((shares >= 0) & (shares <= 1)).all()
    assert (shares == 1).any()
    assert (shares < 0.7).any()


@pytest.mark.parametrize("cell", [8, 4])
def test_export_computes_the_convolutions(tmp_path, cell):
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=s).astype(np.float32) for s in ((2, 1, cell, cell), (cell**2, 2, 1, 1)))
    bias = np.array([0.5, -0.5], np.float32)
    layers = [Layer(first, bias, cell, 0, True), Layer(second, np.zeros(cell**2, np.float32), 1, 0, False)]
    path = tmp_path / "net.onnx"
    save_network(path, layers, (2 * cell, cell))
    assert tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))["head"]["cell"] == cell
    image = rng.normal(size=(1, 1, cell, 2 * cell)).astype(np.float32)
    result = onnxruntime.InferenceSession(str(path)).run(None, {"image": image})[0]
    for k in range(2):
        hidden = np.maximum((first[:, 0] * image[0, 0, :, cell * k:cell * (k + 1)]).sum((1, 2)) + bias, 0)
        np.testing.assert_allclose(result[0, :, 0, k], second[:, :, 0, 0] @ hidden, rtol=1e-4, atol=1e-4)
    needs, pixels = needs_of(path), cell**2
    assert (needs.accumulators, needs.codes, needs.weights, needs.macs) == (
        4 + 2 * pixels, 2 * pixels + 4, 2 * pixels + 2 * pixels, 2 * pixels * 2 + 2 * pixels * 2)


@pytest.fixture(scope="module", params=models.BOARDS)
def network(request):
    return network_detector(models.network(request.param))


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_fits_its_board(name):
    assert PLANS[name].needs.fit(PLANS[name].board)


@pytest.mark.parametrize("name", models.BOARDS)
def test_network_fits_its_board(name):
    """By the counts of its plan, and by the compiler."""
    path = models.network(name)
    needs, plan = needs_of(path), PLANS[name.removeprefix("corners_")]
    assert needs == plan.needs
    assert needs.fit(plan.board)
    assert path.stat().st_size < 1_000_000
    model = quantised(open_model(path), islice(samples(path), 2))
    program = named(models.BOARDS[name]).compile(model.network.graph)
    assert program.used["projection_words"] * program.config.rows >= needs.accumulators


def test_a_network_too_large_for_a_board_is_refused():
    """The 35T's board cannot hold the plan of the 100T."""
    assert not PLANS["100t"].needs.fit(PLANS["35t"].board)


@pytest.mark.parametrize("name", models.BOARDS)
def test_network_has_fixed_shapes_and_says_where_it_comes_from(name):
    path = models.network(name)
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    side = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [1, 1, *side["input"]["size"][::-1]]
    assert {node.op_type for node in model.graph.node} == {"Conv", "Relu"}
    metrics = json.loads((path.parent / "metrics.json").read_text(encoding="utf-8"))[name]
    assert metrics["training"]["command"].startswith("python -m models.train")
    float_, int8 = metrics["evaluation"]["float"], metrics["evaluation"]["int8"]
    assert abs(float_["ap_clean"] - int8["ap_clean"]) < 0.01
    assert abs(float_["ap_noisy"] - int8["ap_noisy"]) < 0.01


def board(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A checkerboard of 14-pixel squares, uint8[96, 128], and its inner corners."""
    image = np.full((96, 128), 128, np.float32)
    for j, i in np.ndindex(4, 6):
        fill(image, (BOX + [i, j]) * 14 + [21.3 + shift, 20.6], 215.0 if (i + j) % 2 else 45.0)
    inner = np.stack(np.meshgrid(np.arange(1, 6), np.arange(1, 4)), -1).reshape(-1, 2) * 14.0
    image = blur(image, 0.5) + np.random.default_rng(5).normal(0, 2, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), inner + [21.3 + shift, 20.6]


def test_network_finds_a_checkerboard(network):
    image, corners = board()
    found = network(image)
    found = found[found[:, 2] >= 0.15]
    distance = np.linalg.norm(corners[:, None] - found[None, :, :2], axis=2).min(axis=1)
    assert (distance < 1.5).sum() >= 13  # of 15
    assert np.median(distance) < 0.75


def test_network_is_silent_on_a_plain_wall(network):
    wall = np.clip(np.random.default_rng(0).normal(120, 3, (96, 128)), 0, 255).astype(np.uint8)
    assert (network(wall)[:, 2] >= 0.15).sum() <= 1


def test_network_follows_a_known_shift(network):
    """Corners move with the board, within a third of a pixel in the mean, for whole and fractional shifts."""
    start = network(board()[0])
    start = start[start[:, 2] >= 0.15]
    for shift in (1.5, 4.0, 6.7):
        found = network(board(shift)[0])
        distance = np.linalg.norm(start[:, None, :2] + [shift, 0] - found[None, :, :2], axis=2)
        pairs = distance.argmin(axis=1)[distance.min(axis=1) < 2]
        moved = found[pairs, :2] - start[distance.min(axis=1) < 2, :2]
        assert len(pairs) >= 0.8 * len(start)
        np.testing.assert_allclose(moved.mean(axis=0), [shift, 0], atol=0.34)


def test_network_keeps_its_precision(network):
    """A guard against shipping a worse network by mistake; the figures themselves are in metrics.json."""
    detect, size = network, (128, 96)
    ap, error = average_precision(detect, synthetic(80, size, (0, 6), seed=2))
    assert ap > 0.75
    assert error < 0.85
    pictures = [np.asarray(image) for image, _ in synthetic(12, size, (0, 0), seed=3)]
    assert repeatability(detect, pictures, 0, 48, 2.0) > 0.6


def test_average_precision_of_known_detectors():
    """All right is 1; the right ones behind as many wrong ones is worth less; none found is 0."""
    corners = np.array([[20.0, 20], [40, 30], [60, 50]])
    pictures = [(np.zeros((96, 128), np.uint8), corners)]
    perfect = np.column_stack([corners, [0.9, 0.8, 0.7]])
    wrong = np.array([[100.0, 80, 0.99], [90, 20, 0.98], [30, 80, 0.97]])
    assert average_precision(lambda _: perfect, pictures) == (1.0, 0.0)
    assert average_precision(lambda _: perfect + [0.6, 0.8, 0], pictures) == (1.0, pytest.approx(1.0))
    assert average_precision(lambda _: np.concatenate([wrong, perfect]), pictures)[0] == pytest.approx(0.5)
    assert average_precision(lambda _: perfect[:1], pictures)[0] == pytest.approx(1 / 3)
    twice = np.repeat(perfect[:1], 2, axis=0)
    assert average_precision(lambda _: np.concatenate([twice, perfect[1:]]), pictures)[0] == pytest.approx(
        (1 + 3 / 4 + 3 / 4) / 3)


def test_repeated_counts_both_ways():
    """Two of three are found again, and both of two: 4 of 5."""
    from benchmarks.keypoints import repeated

    one, two = np.array([[10.0, 10], [30, 30], [60, 60]]), np.array([[12.0, 12], [30, 33]])
    assert repeated(one, two) == pytest.approx(4 / 5)
    assert repeated(one, one) == 1
    assert repeated(one, two + 50) == pytest.approx(2 / 5)
    assert repeated(one, np.zeros((0, 2))) == 0
    assert repeated(np.zeros((0, 2)), np.zeros((0, 2))) == 1
