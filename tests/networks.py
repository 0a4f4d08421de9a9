"""The networks and clips of ../shared for tests: imported, quantised and cached once per run."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from host import session
from host.network import Network
from host.session import open_model
from host.sidecar import Sidecar
from host.video import open_source, sample_frames

SHARED = Path(__file__).resolve().parents[2] / "shared"
FLOAT = ("mlperftiny_resnet8_cifar10", "mlperftiny_vww_96", "mlperftiny_vww_96_sparse83",
         "ultraface_slim_320_rawheads", "yolo_fastest_1.1_body_320", "fsrcnn_x2_176x144",
         "squeezenet10_deepcompression", "tfpose_mnv2small_320x240_frozenbn_asl")
QDQ = ("mlperftiny_resnet8_cifar10_int8qdq", "mlperftiny_vww_96_int8qdq")
LARGE = ("squeezenet10_deepcompression", "tfpose_mnv2small_320x240_frozenbn_asl")
CALIBRATION_FRAMES = 6


def model_path(stem: str) -> Path:
    """The ONNX file, or a skip with its reason."""
    return _present(SHARED / "models" / f"{stem}.onnx")


def clip_path(prefix: str) -> Path:
    """The clip whose name begins so, or a skip with its reason."""
    found = sorted((SHARED / "clips").glob(f"{prefix}*.mp4"))
    return _present(found[0] if found else SHARED / "clips" / f"{prefix}*.mp4")


def _present(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not there: ../shared/{path.parent.name} is absent")
    return path


def clip_for(stem: str) -> Path:
    """A clip that suits the network."""
    persons = stem.startswith(("mlperftiny_vww", "yolo"))
    return clip_path("person_walk" if persons else "cars" if "resnet8" in stem else "asl_again")


@cache
def quantised(stem: str) -> tuple[Network, Sidecar]:
    """The network in integers, calibrated on a few frames of its clip, and its preset."""
    model = open_model(model_path(stem), preset=stem)
    frames = sample_frames(clip_for(stem), CALIBRATION_FRAMES) if session.needs_calibration(model) else ()
    model = session.quantised(model, frames)
    return model.network, model.sidecar


def onnx_arrays(stem: str, count: int, noise: float = 0.0, skip: int = 30) -> list[np.ndarray]:
    """Consecutive frames of the network's clip as ONNX input arrays."""
    network, sidecar = quantised(stem)
    source = open_source(clip_for(stem), noise=noise, seed=1)
    return [sidecar.input.apply(f, network.input) for f in islice(source, skip, skip + count)]
