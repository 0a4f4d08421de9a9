"""Preprocessing against its definition, its geometry, and the sidecars with every error they report."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from host.errors import UserError
from host.heads import HEADS, Raw
from host.preprocess import Preprocess, default_preprocess
from host.sidecar import Sidecar, preset, preset_for, preset_names, sidecar_for

MODELS = Path(__file__).resolve().parents[2] / "shared/models"
PRESETS = [
    "fsrcnn_x2_176x144",
    "mlperftiny_resnet8_cifar10",
    "mlperftiny_resnet8_cifar10_int8qdq",
    "mlperftiny_vww_96",
    "mlperftiny_vww_96_int8qdq",
    "mlperftiny_vww_96_sparse83",
    "squeezenet10_deepcompression",
    "tfpose_mnv2small_320x240_frozenbn_asl",
    "ultraface_slim_320_rawheads",
    "yolo_fastest_1.1_body_320",
]


@dataclass(frozen=True)
class Input:
    """A network's input as far as preprocessing looks at it."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str = "image"


def _input_of(model: Path) -> Input:
    value = onnx.load(model).graph.input[0]
    dtype = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT8: "int8"}[
        value.type.tensor_type.elem_type
    ]
    return Input(tuple(d.dim_value for d in value.type.tensor_type.shape.dim), dtype, value.name)


def _frame(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# What the networks are fed with, written from DATA.md, for a frame that needs no resizing.
EXPECTED = {
    "fsrcnn_x2_176x144": lambda rgb: np.rint(rgb @ [0.299, 0.587, 0.114])[None, None] / 255,
    "mlperftiny_resnet8_cifar10": lambda rgb: rgb.transpose(2, 0, 1)[None],
    "mlperftiny_resnet8_cifar10_int8qdq": lambda rgb: rgb[None] - 128,
    "mlperftiny_vww_96": lambda rgb: rgb.transpose(2, 0, 1)[None] / 255,
    "mlperftiny_vww_96_sparse83": lambda rgb: rgb.transpose(2, 0, 1)[None] / 255,
    "mlperftiny_vww_96_int8qdq": lambda rgb: rgb[None] - 128,
    "squeezenet10_deepcompression": lambda rgb: (rgb[:, :, ::-1] - [104, 117, 123]).transpose(2, 0, 1)[None],
    "tfpose_mnv2small_320x240_frozenbn_asl": lambda rgb: rgb[:, :, ::-1].transpose(2, 0, 1)[None] / 127.5 - 1,
    "ultraface_slim_320_rawheads": lambda rgb: (rgb.transpose(2, 0, 1)[None] - 127) / 128,
    "yolo_fastest_1.1_body_320": lambda rgb: rgb.transpose(2, 0, 1)[None] / 255,
}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_feeds_what_the_network_expects(name: str) -> None:
    model = MODELS / f"{name}.onnx"
    if not model.exists():
        pytest.skip(f"needs the network {model.name}, which is not in the project")
    network_input = _input_of(model)
    sidecar = sidecar_for(model)
    assert sidecar.source == f"preset {name}"
    frame = _frame(*sidecar.input.picture_size(network_input))
    array = sidecar.input.apply(frame, network_input)
    expected = EXPECTED[name](frame.astype(np.float64))
    assert (array.shape, array.dtype) == (network_input.shape, np.dtype(network_input.dtype))
    if name.startswith("fsrcnn"):  # luma is rounded to a code once, perhaps the other way at a half
        assert np.abs(array * 255 - expected * 255).max() < 1.001
    else:
        np.testing.assert_allclose(array, expected.astype(network_input.dtype), rtol=1e-6, atol=1e-7)
    assert array.flags.c_contiguous


def test_presets_are_those_of_the_known_networks() -> None:
    assert set(PRESETS) <= set(preset_names())
    assert preset_for("some/where/mlperftiny_vww_96.onnx") == preset("mlperftiny_vww_96")
    assert preset_for("some/where/mlperftiny_vww_96.rrm") == preset("mlperftiny_vww_96")
    assert preset_for("unknown.onnx") is None
    assert sidecar_for("unknown.onnx") is None
    with pytest.raises(UserError, match=r"there is no preset 'vww'; the presets are .*mlperftiny_vww_96"):
        preset("vww")


@pytest.mark.parametrize("name", PRESETS)
def test_sidecar_survives_json(name: str) -> None:
    sidecar = preset(name)
    assert Sidecar.from_dict(json.loads(json.dumps(sidecar.to_dict()))) == sidecar


def test_integer_inputs_are_rounded_and_clamped() -> None:
    pre = Preprocess(colour="grey", mean=(100.0,), scale=(1.3,))
    frame = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    array = pre.apply(frame, Input((1, 1, 16, 16), "int8"))
    expected = np.clip(np.rint((np.arange(256) - 100) * 1.3), -128, 127).astype(np.int8)
    np.testing.assert_array_equal(array.ravel(), expected)
    assert (expected == 127).sum() > 1
    assert (expected == -128).sum() > 1


def test_means_and_scales_are_per_network_channel() -> None:
    pre = Preprocess(colour="bgr", mean=(1.0, 2.0, 3.0), scale=(1.0, 10.0, 100.0), layout="nhwc")
    frame = np.array([[[50, 60, 70]]], np.uint8)
    np.testing.assert_array_equal(pre.apply(frame, Input((1, 1, 1, 3))), [[[[69, 580, 4700]]]])


def test_layout_auto_and_flat_inputs() -> None:
    frame = _frame(5, 4)
    planes = Preprocess().apply(frame, Input((1, 3, 4, 5)))
    np.testing.assert_array_equal(planes, frame.transpose(2, 0, 1)[None])
    np.testing.assert_array_equal(Preprocess().apply(frame, Input((1, 4, 5, 3))), frame[None])
    flat = Preprocess(size=(5, 4)).apply(frame, Input((1, 60)))
    np.testing.assert_array_equal(flat, planes.reshape(1, 60))
    ambiguous = Input((1, 3, 3, 3))
    np.testing.assert_array_equal(Preprocess().apply(frame[:3, :3], ambiguous)[0, 0], frame[:3, :3, 0])


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("frame_size", [(640, 480), (480, 640), (333, 77), (31, 200), (20, 20)])
def test_geometry_has_an_inverse(resize: str, frame_size: tuple[int, int]) -> None:
    pre, network_input = Preprocess(resize=resize), Input((1, 3, 60, 90))
    place = pre.placement(frame_size, network_input)
    points = np.random.default_rng(1).uniform(-50, 700, (20, 2))
    np.testing.assert_allclose(place.to_frame(place.to_picture(points)), points)
    np.testing.assert_allclose(pre.to_frame(place.to_picture(points), frame_size, network_input), points)
    centre = place.to_picture(np.array(frame_size) / 2)
    np.testing.assert_allclose(centre, [45, 30], atol=0.5 if resize == "letterbox" else 1e-9)
    if resize == "letterbox":  # one side fills the picture, zoom is the same but for whole pixels
        inner = np.array(frame_size) * place.zoom
        assert np.isclose(inner, [90, 60]).any()
        assert (inner <= [90 + 1e-9, 60 + 1e-9]).all()
        assert abs(inner[0] - frame_size[0] * min(np.array([90, 60]) / frame_size)) <= 0.5
    if resize == "crop":
        assert place.zoom[0] == place.zoom[1] == max(90 / frame_size[0], 60 / frame_size[1])


@pytest.mark.parametrize("filter_name", ["bilinear", "area"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("frame_size", [(640, 480), (300, 500), (100, 80)])
def test_pixels_are_where_the_geometry_says(
    resize: str, frame_size: tuple[int, int], filter_name: str
) -> None:
    """A bright blob in the frame has its centroid, in the network's picture, where ``to_picture`` puts it."""
    width, height = frame_size
    y, x = np.mgrid[:height, :width] + 0.5
    at = np.array([0.6 * width, 0.45 * height])
    blob = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * (0.06 * min(frame_size)) ** 2))
    frame = np.repeat(np.rint(blob).astype(np.uint8)[:, :, None], 3, axis=2)
    pre, network_input = Preprocess(resize=resize, filter=filter_name), Input((1, 3, 120, 160))
    picture = pre.apply(frame, network_input)[0, 0].astype(float)
    py, px = np.mgrid[:120, :160] + 0.5
    centroid = np.array([(picture * px).sum(), (picture * py).sum()]) / picture.sum()
    place = pre.placement(frame_size, network_input)
    np.testing.assert_allclose(centroid, place.to_picture(at), atol=0.15)
    np.testing.assert_allclose(place.to_frame(centroid), at, atol=0.15 / min(place.zoom))


def test_letterbox_border_has_the_fill_value() -> None:
    frame = np.full((100, 300, 3), 255, np.uint8)
    pre = Preprocess(resize="letterbox", fill=77)
    picture = pre.apply(frame, Input((1, 3, 60, 60)))[0]
    assert (picture[:, :20] == 77).all()
    assert (picture[:, 20:40] == 255).all()
    assert (picture[:, 40:] == 77).all()
    grey = Preprocess(resize="letterbox", fill=77, colour="grey").apply(frame, Input((1, 1, 60, 60)))[0, 0]
    np.testing.assert_array_equal(grey, picture[0])


def test_boxes_to_frame_are_clipped() -> None:
    place = Preprocess(resize="letterbox").placement((100, 50), Input((1, 3, 100, 100)))
    np.testing.assert_allclose(place.boxes_to_frame([[10, 30, 40, 60], [-5, 0, 120, 90]]),
                               [[10, 5, 40, 35], [0, 0, 100, 50]])  # fmt: skip


@pytest.mark.parametrize(
    "network_input, expected",
    [
        (Input((1, 3, 8, 9)), ("rgb", 0.0, 1 / 255)),
        (Input((1, 8, 9, 3)), ("rgb", 0.0, 1 / 255)),
        (Input((1, 1, 8, 9)), ("grey", 0.0, 1 / 255)),
        (Input((1, 8, 9, 1), "uint8"), ("grey", 0.0, 1.0)),
        (Input((1, 8, 9, 3), "int8"), ("rgb", 128.0, 1.0)),
    ],
)
def test_default_for_an_unknown_network(network_input: Input, expected: tuple) -> None:
    guess = Sidecar.default(network_input)
    assert (guess.input.colour, guess.input.mean[0], guess.input.scale[0]) == expected
    assert isinstance(guess.head, Raw)
    assert guess.input.apply(_frame(30, 20), network_input).shape == network_input.shape


@pytest.mark.parametrize("shape", [(1, 100), (1, 7, 8, 9), (1, 3, 8)])
def test_no_default_for_what_is_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"input 'image' has shape .*: no picture .*sidecar"):
        default_preprocess(Input(shape))


@pytest.mark.parametrize(
    "fields, shape, message",
    [
        (
            {"size": (10, 10)},
            (1, 3, 8, 9),
            r"\[input\] size is 10x10, but input 'image' .* 1x3x8x9, which is 9x8",
        ),
        ({"colour": "grey"}, (1, 3, 8, 9), r"\[input\] colour grey is 1 channel.*input 'image'"),
        ({"layout": "nhwc"}, (1, 3, 8, 9), r"\[input\] colour rgb is 3 channel.*layout nhwc"),
        ({}, (1, 60), r"\[input\] size must give"),
        ({"size": (5, 5)}, (1, 60), r"\[input\] size 5x5 with colour rgb does not fit"),
    ],
)
def test_fields_that_do_not_fit_the_network(fields: dict, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocess(**fields).apply(_frame(9, 8), Input(shape))


def test_sidecar_beside_the_network_comes_first(tmp_path: Path) -> None:
    model = tmp_path / "mlperftiny_vww_96.onnx"
    model.with_suffix(".toml").write_text('[input]\nmean = 7\nscale = "1/4"\n')
    sidecar = sidecar_for(model)
    assert sidecar.input == Preprocess(mean=(7.0,), scale=(0.25,))
    assert sidecar.head == Raw()
    assert sidecar.source == str(model.with_suffix(".toml"))
    assert sidecar_for(model, "squeezenet10_deepcompression").input.colour == "bgr"


def test_options_replace_fields() -> None:
    sidecar = Sidecar(Preprocess(mean=(1.0, 2.0, 3.0)), Raw(), "a guess")
    changed = sidecar.with_input(
        {"size": "320x240", "mean": "104, 117,123", "scale": "1/255", "resize": "crop"}
    )
    expected = Preprocess(size=(320, 240), mean=(104.0, 117.0, 123.0), scale=(1 / 255,), resize="crop")
    assert changed.input == expected
    assert changed.source == "a guess with options"
    with pytest.raises(UserError, match=r"--mean: mean = 'a,b': it must be|mean = 'a'"):
        sidecar.with_input({"mean": "a,b"})


def test_names_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n\n")
    (tmp_path / "m.toml").write_text('[head]\nkind = "classes"\nnames_file = "names.txt"\n')
    assert Sidecar.load(tmp_path / "m.toml").head.names == ("cat", "dog")
    (tmp_path / "names.txt").unlink()
    with pytest.raises(UserError, match=r"m\.toml: \[head\]: names_file = 'names\.txt' cannot be read"):
        Sidecar.load(tmp_path / "m.toml")


@pytest.mark.parametrize(
    "text, message",
    [
        ("[input", r"the sidecar is not TOML"),
        ("[inputs]\n", r"there is no section 'inputs'; the sections are \[input\] and \[head\]"),
        ("input = 3\n", r"\[input\] is not a table"),
        (
            "[input]\ncolor = 'rgb'\n",
            r"\[input\]: there is no field 'color'; the fields are size, colour, mean",
        ),
        (
            "[input]\ncolour = 'yuv'\n",
            r"\[input\]: colour = 'yuv': it must be one of \"rgb\", \"bgr\", \"grey\"",
        ),
        ("[input]\ncolour = 3\n", r"\[input\]: colour = 3: it must be one of"),
        ("[input]\nsize = [320]\n", r"\[input\]: size = \[320\]: it must be a list of 2 values"),
        ("[input]\nsize = [320, 'x']\n", r"\[input\]: size = 'x': it must be a whole number"),
        ("[input]\nsize = [320, 2.5]\n", r"\[input\]: size = 2\.5: it must be a whole number"),
        ("[input]\nsize = [0, 240]\n", r"\[input\]: size is 0x240; it must be at least 1x1"),
        ("[input]\nmean = [1, 2]\n", r"\[input\]: mean has 2 values; rgb takes 1 or 3"),
        (
            "[input]\ncolour = 'grey'\nscale = [1, 2, 3]\n",
            r"\[input\]: scale has 3 values; grey takes 1 or 1",
        ),
        ("[input]\nmean = 'red'\n", r"\[input\]: mean = 'red': it must be a number"),
        ("[input]\nscale = '1/0'\n", r"\[input\]: scale = '1/0': it must be a number"),
        ("[input]\nscale = nan\n", r"\[input\]: scale = nan: it must be a number"),
        ("[input]\nscale = true\n", r"\[input\]: scale = True: it must be a"),
        (
            "[input]\nlayout = 'hwc'\n",
            r"\[input\]: layout = 'hwc': it must be one of \"auto\", \"nchw\", \"nhwc\"",
        ),
        ("[input]\nresize = 'pad'\n", r"\[input\]: resize = 'pad': it must be one of \"stretch\""),
        (
            "[input]\nfilter = 'cubic'\n",
            r"\[input\]: filter = 'cubic': it must be one of \"bilinear\", \"area\"",
        ),
        ("[input]\nfill = 300\n", r"\[input\]: fill is 300; it must be 0\.\.255"),
        ("[head]\n", r"\[head\]: kind = None: it must be one of classes, ssd_faces, yolo"),
        ("[head]\nkind = 'faces'\n", r"\[head\]: kind = 'faces': it must be one of"),
        ("head = 'yolo'\n", r"\[head\]: kind = 'yolo'"),
        (
            "[head]\nkind = 'classes'\nnames = 'cat'\n",
            r"\[head\]: names = 'cat': it must be a list of a text",
        ),
        ("[head]\nkind = 'classes'\nnames = [1]\n", r"\[head\]: names = 1: it must be a text"),
        ("[head]\nkind = 'classes'\ntop = 0\n", r"\[head\]: top is 0; it must be at least 1"),
        ("[head]\nkind = 'classes'\nlogits = 1\n", r"\[head\]: logits = 1: it must be true or false"),
        ("[head]\nkind = 'classes'\nscale = 0\n", r"\[head\]: scale is 0\.0; it must be above 0"),
        ("[head]\nkind = 'classes'\nnames_file = 3\n", r"\[head\]: names_file must be a text"),
        ("[head]\nkind = 'yolo'\nnames = ['a']\n", r"\[head\]: field 'outputs' is missing"),
        (
            "[head]\nkind = 'yolo'\noutputs = ['a']\nanchors = []\nnames = ['b']\n",
            r"\[head\]: anchors has 0 entries",
        ),
        (
            "[head]\nkind = 'yolo'\noutputs = ['a']\nanchors = [[[1]]]\nnames = ['b']\n",
            r"\[head\]: anchors = \[1\]: it must be a list of 2 values",
        ),
        (
            "[head]\nkind = 'yolo'\noutputs = ['a']\nanchors = [[[1, 2]]]\nnames = ['b']\nthreshold = 2\n",
            r"\[head\]: threshold is 2\.0; it must be 0\.\.1",
        ),
        (
            "[head]\nkind = 'ssd_faces'\nscores = ['a']\noffsets = ['b']\n"
            "strides = [8, 16]\nmin_boxes = [[1]]\n",
            r"\[head\]: strides has 2 entries, but scores has 1",
        ),
        ("[head]\nkind = 'openpose'\nparts = 0\n", r"\[head\]: parts is 0"),
        ("[head]\nkind = 'superres'\nscale = -1\n", r"\[head\]: scale is -1\.0"),
    ],
)
def test_sidecar_errors_name_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"model\.toml: " + message) as error:
        Sidecar.load(path)
    assert "\n" not in str(error.value)


def test_sidecar_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml: the sidecar cannot be read: No such file"):
        Sidecar.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"bytes\.toml: the sidecar cannot be read: it is not UTF-8"):
        Sidecar.load(tmp_path / "bytes.toml")


def test_the_page_on_sidecars_is_complete(tmp_path: Path) -> None:
    """Its examples load, and every field of every section with its default is in its table."""
    page = (Path(__file__).resolve().parents[1] / "docs/sidecar.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert examples
    for text in examples:
        (tmp_path / "m.toml").write_text(text)
        Sidecar.load(tmp_path / "m.toml")
    parts = {"input": page.split("## `[input]`")[1].split("\n## ")[0]}
    parts |= {kind: page.split(f"### `{kind}`\n")[1].split("\n##")[0] for kind in HEADS}
    for name, cls in {"input": Preprocess, **HEADS}.items():
        named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", parts[name], re.MULTILINE))))
        assert named - {"names_file"} == {f.name for f in dataclasses.fields(cls) if f.init}, name
    assert all(f"`{name}`" in page.split("## Presets")[1] for name in PRESETS)
