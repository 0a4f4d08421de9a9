"""What several tests use: a tiny network, a tiny clip, and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: more make it slow on a busy machine

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]


def tiny_model(batch: int | str = 1, op: str = "Relu", nan: bool = False) -> onnx.ModelProto:
    """image[1, 3, 16, 24] -> Conv 3x3 -> ``op`` ("features") -> Conv 1x1 ("map") -> Sigmoid ("heat")."""
    rng = np.random.default_rng(7)
    first = rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    if nan:
        first[0, 0, 0, 0] = np.nan
    second = rng.normal(0, 0.3, (2, 8, 1, 1))
    weights = {"w1": first, "b1": rng.normal(0, 0.1, 8), "w2": second, "b2": np.zeros(2)}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1], strides=[2, 2]),
         helper.make_node(op, ["c1"], ["features"], name="activation"),
         helper.make_node("Conv", ["features", "w2", "b2"], ["map"], name="second"),
         helper.make_node("Sigmoid", ["map"], ["heat"], name="squash")],
        "tiny", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 16, 24])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [batch, 2, 8, 12]),
         helper.make_tensor_value_info("heat", TensorProto.FLOAT, [batch, 2, 8, 12])],
        [numpy_helper.from_array(np.asarray(w, np.float32), n) for n, w in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def write_clip(path: Path, frames: int, size: tuple[int, int] = (96, 64), fps: int = 25) -> Path:
    """A textured background and a square that moves."""
    width, height = size
    rng = np.random.default_rng(3)
    scene = np.kron(rng.integers(40, 200, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            picture = scene.copy()
            x = 2 * i % (width - 16)
            picture[20:36, x : x + 16] = (250, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(tiny_model(), path)
    return path


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """40 frames of 96x64 at 25 frames/s."""
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny.mp4", 40)


def command(*arguments: object) -> list[str]:
    """The command line as a process would be given it."""
    program = "import sys; from host.cli import main; sys.exit(main())"
    return [sys.executable, "-c", program, *map(str, arguments)]


def run(*arguments: object, cwd: Path = ROOT, timeout: float = 120) -> subprocess.CompletedProcess:
    """Run ``rrm-fpga ARGUMENTS`` in a process of its own."""
    return subprocess.run(command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True,
                          timeout=timeout, check=False)


def environment() -> dict[str, str]:
    """This process's environment with the checkout importable, one thread per process, and shells taken as named
    (not from the parent processes, which differ from place to place)."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120",
            "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}


@pytest.fixture(scope="session")
def tiny_frames(tiny_clip) -> list[np.ndarray]:
    """The frames of ``tiny_clip``, uint8[64, 96, 3]."""
    with av.open(str(tiny_clip)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
