"""Chunks side by side: the same outputs as one device, whatever happens to the workers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
from PIL import Image

import host.chunks
from host.chunks import ATTEMPTS, ChunkedSession, ClipSource, backends, bounds
from host.cli import main
from host.errors import UserError
from host.rrm_file import Model, save
from host.session import Session, open_model, quantised

FRAMES, CHUNKS = 11, 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> ClipSource:
    """A folder of random pictures, neighbours alike; large, so that a frame takes its time."""
    folder, rng = tmp_path_factory.mktemp("clip"), np.random.default_rng(0)
    picture = rng.integers(0, 256, (600, 600, 3))
    for i in range(FRAMES):
        picture[50:200, 30 * i:30 * i + 90] = rng.integers(0, 256, (150, 90, 3))
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i}.png")
    return ClipSource(str(folder), noise=1.0, seed=3)


@pytest.fixture(scope="module")
def model(tiny_onnx, clip) -> Model:
    with clip.open() as frames:
        return quantised(open_model(tiny_onnx), list(frames))


def everything(session: Session, clip: ClipSource, taps=()) -> list:
    with clip.open() as frames:
        return [(*session.infer(f), {name: session.tap(name) for name in taps}) for f in frames]


def the_same(got: list, expected: list) -> None:
    assert len(got) == len(expected)
    for (outputs, stats, taps), (wanted, one, values) in zip(got, expected, strict=True):
        assert stats.frame == one.frame
        for a, b in ((outputs, wanted), (taps, values)):
            assert a.keys() == b.keys()
            assert all((a[name] == b[name]).all() for name in b)


@pytest.fixture(scope="module")
def one_device(model, clip) -> list:
    tap = list(model.network.graph.tensors)[1]
    with Session(model, "model") as session:
        return everything(session, clip, (tap,))


def chunked(model: Model, clip: ClipSource, devices=("model",) * CHUNKS, frames=FRAMES, **options) -> ChunkedSession:
    return ChunkedSession(model, clip, devices, frames, (list(model.network.graph.tensors)[1],), **options)


def test_outputs_taps_and_order_are_those_of_one_device(model, clip, one_device):
    seen = []
    with chunked(model, clip) as session:
        assert session.compute(seen.append)[0] == FRAMES
        got = everything(session, clip, one_device[0][2])
    the_same(got, one_device)
    assert seen == list(range(1, FRAMES + 1))
    assert [s.refresh for _, s, _ in got] == [i in (0, 3, 7) for i in range(FRAMES)]


def test_a_dead_workers_chunk_is_redone(model, clip, one_device):
    killed, said = [], []

    def show(done: int) -> None:
        if done >= 2 and not killed:
            killed.append(multiprocessing.active_children()[-1])
            os.kill(killed[0].pid, signal.SIGKILL)

    with chunked(model, clip, progress=said.append) as session:
        assert session.compute(show)[0] == FRAMES
        the_same(everything(session, clip, one_device[0][2]), one_device)
    assert killed[0].exitcode == -signal.SIGKILL
    assert any(f"of {killed[0].name} died (exit code -9)" in line for line in said)


def test_a_chunk_that_keeps_dying_is_an_error(model, clip, monkeypatch):
    start = host.chunks._Pool._start

    def stillborn(pool, chunk) -> None:
        start(pool, chunk)
        if chunk.number == 1:
            list(pool._running.values())[-1][0].kill()

    monkeypatch.setattr(host.chunks._Pool, "_start", stillborn)
    with chunked(model, clip) as session, pytest.raises(
            UserError, match=rf"chunk 1 \(frames 3 to 6, model\): its worker died {ATTEMPTS} times"):
        session.compute()
    assert not [c for c in multiprocessing.active_children() if c.name.startswith("chunk")]


def test_a_workers_error_is_the_users(model, clip):
    with chunked(model, clip, ("model:nonsense",) * 2) as session, pytest.raises(UserError, match="not by ':nonsense'"):
        session.compute()


def test_stopping_keeps_what_is_whole_from_the_beginning(model, clip, one_device):
    seen = []
    with chunked(model, clip) as session:
        whole, _ = session.compute(seen.append, lambda: len(seen) >= 2)
        assert 0 < whole <= FRAMES
        got = [session.infer(None) for _ in range(whole)]
        with pytest.raises(StopIteration):
            [session.infer(None) for _ in range(FRAMES + 1 - whole)]
    for (outputs, stats), (wanted, one, _) in zip(got, one_device, strict=False):
        assert stats.frame == one.frame
        assert all((outputs[name] == wanted[name]).all() for name in wanted)


def test_a_clip_that_is_longer_or_shorter_than_known(model, clip, one_device):
    for frames in (FRAMES - 2, FRAMES + 9):
        with chunked(model, clip, frames=frames) as session:
            assert session.compute()[0] == FRAMES
            the_same(everything(session, clip, one_device[0][2]), one_device)


def test_bounds_are_even_and_whole():
    for frames in range(1, 20):
        for chunks in range(1, 9):
            parts = bounds(frames, chunks)
            assert [i for a, b in parts for i in range(a, b)] == list(range(frames))
            assert len(parts) == min(frames, chunks)
            assert max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1


def test_every_board_has_its_own_port():
    assert backends("serial:/dev/a,/dev/b", 2) == ["serial:/dev/a", "serial:/dev/b"]
    assert backends("rtl:sim8", 2) == ["rtl:sim8"] * 2
    with pytest.raises(UserError, match="2 chunks need as many boards"):
        backends("serial:/dev/a", 2)


def test_infer_in_chunks_writes_what_infer_writes(model, clip, tmp_path, capsys):
    network = tmp_path / "net.rrm"
    save(network, model)

    def infer(name: str, *more: str) -> tuple[list[dict], dict]:
        arrays, lines = tmp_path / f"{name}.npz", tmp_path / f"{name}.jsonl"
        assert main(["infer", clip.source, "--model", str(network), "--backend", "model", "--noise", "1", "--tap",
                     "features", "--save-outputs", str(arrays), "--json", str(lines), *more]) == 0
        with np.load(arrays) as stored:
            return [json.loads(line) for line in lines.read_text().splitlines()], dict(stored)

    (lines, arrays), (chunk_lines, chunk_arrays) = infer("one"), infer("two", "--chunks", "2", "--frames", "8")
    assert arrays.keys() == chunk_arrays.keys()
    assert all((arrays[name][:8] == chunk_arrays[name]).all() and len(chunk_arrays[name]) == 8 for name in arrays)
    assert [d["detections"] for d in lines[:8]] == [d["detections"] for d in chunk_lines]
    assert [d["frame"] for d in chunk_lines if d["refresh"]] == [0, 4]
    assert main(["infer", clip.source, "--model", str(network), "--chunks", "2", "--trace", "x.vcd"]) != 0
    assert "without --trace" in capsys.readouterr().err
