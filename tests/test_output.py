"""Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest

from host.errors import UserError
from host.output import AtomicFile, FrameArrays, JsonLines, check_writable


def test_a_file_appears_at_commit_only(tmp_path):
    path = tmp_path / "f"
    with AtomicFile(path) as out:
        out.file.write(b"new")
        assert not path.exists()
        out.commit()
        assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_without_commit_the_old_file_stays(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with AtomicFile(path) as out:
        out.file.write(b"half of the n")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("name", ["none/f", ".", "/dev/null"])
def test_paths_that_cannot_be_written(tmp_path, name):
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_json_lines_take_numpy_values_and_no_others(tmp_path):
    with JsonLines(tmp_path / "f") as out:
        out.write({"a": np.int64(3), "b": np.arange(2), "c": np.float32(0.5)})
        with pytest.raises(TypeError):
            out.write({"a": object()})
        with pytest.raises(ValueError, match="not JSON compliant"):
            out.write({"a": float("nan")})
        out.commit()
    assert json.loads((tmp_path / "f").read_text()) == {"a": 3, "b": [0, 1], "c": 0.5}


def test_arrays_grow_frame_by_frame(tmp_path):
    rng = np.random.default_rng(0)
    frames = [{"a/b:0": rng.normal(size=(2, 3)).astype(np.float32), "n": np.array(i)} for i in range(5)]
    frames[1]["a/b:0"] = np.asfortranarray(frames[1]["a/b:0"])
    with FrameArrays(tmp_path / "f.npz") as out:
        for frame in frames:
            out.append(frame)
        with pytest.raises(ValueError, match="differs from the first"):
            out.append({"a/b:0": np.zeros((2, 2), np.float32), "n": np.array(0)})
        assert not (tmp_path / "f.npz").exists()
        out.commit()
    with np.load(tmp_path / "f.npz") as arrays:
        assert sorted(arrays) == ["a/b:0", "n"]
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], np.stack([f[name] for f in frames]))
            assert arrays[name].dtype == frames[0][name].dtype
    assert os.listdir(tmp_path) == ["f.npz"]


def test_arrays_are_not_held_in_memory(tmp_path):
    import tracemalloc

    with FrameArrays(tmp_path / "f.npz") as out:
        tracemalloc.start()
        for i in range(64):
            out.append({"x": np.full((256, 1024), i, np.float32)})  # 1 MiB each
        out.commit()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 << 20
