"""The contact sheet shows frames from the whole clip, and every frame's share of the MACs."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from host import contact_sheet, draw
from host.contact_sheet import COLUMNS, ROWS, STRIP_HEIGHT, ContactSheet


def sheet_of(path, count: int, density) -> np.ndarray:
    """The sheet of ``count`` grey frames, frame i of grey i."""
    with ContactSheet(path) as sheet:
        for i in range(count):
            stats = SimpleNamespace(density=density(i), cycles=None)
            sheet.add(Image.new("RGB", (80, 60), (i, i, i)), stats, 3)
        sheet.commit()
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def greys(picture: np.ndarray, columns: int, rows: int) -> list[int]:
    """The grey in the middle of every tile."""
    height = (picture.shape[0] - STRIP_HEIGHT) // rows
    width = picture.shape[1] // columns
    middles = picture[height // 2:height * rows:height, width // 2::width, 0]
    return middles.ravel().tolist()


@pytest.mark.parametrize("count", [12, 40, 49, 200])
def test_a_dozen_frames_from_the_whole_clip(tmp_path, count):
    shown = greys(sheet_of(tmp_path / "s.png", count, lambda i: 0.5), COLUMNS, ROWS)
    assert shown == sorted(shown)
    assert len(set(shown)) == COLUMNS * ROWS
    assert shown[0] == 0
    step = count / (COLUMNS * ROWS)
    assert shown[-1] >= count - 1 - step
    assert np.diff(shown).max() <= 2 * step


def test_a_short_clip_shows_every_frame(tmp_path):
    assert greys(sheet_of(tmp_path / "s.png", 3, lambda i: 0.5), 3, 1) == [0, 1, 2]


def test_bars_are_the_share_of_the_macs(tmp_path):
    """Frames 0-9 took half of the network, 10-19 a quarter: so high are the bars in the strip's left and right."""
    picture = sheet_of(tmp_path / "s.png", 20, lambda i: 0.5 if i < 10 else 0.25)
    strip = picture[-STRIP_HEIGHT:]
    bars = (strip == draw.BLUE).all(axis=2) | (strip == draw.WHITE).all(axis=2)
    high = bars.sum(axis=0)
    middle = picture.shape[1] // 2
    assert np.median(high[:middle]) == pytest.approx(STRIP_HEIGHT / 2, abs=2)
    assert np.median(high[middle + 4:]) == pytest.approx(STRIP_HEIGHT / 4, abs=2)


def test_few_tiles_are_held_and_nothing_is_left_without_frames(tmp_path, monkeypatch):
    with ContactSheet(tmp_path / "s.png") as sheet:
        for _ in range(1000):
            sheet.add(Image.new("RGB", (8, 6)), SimpleNamespace(density=0.1, cycles=7), 0)
            assert len(sheet._tiles) <= contact_sheet.KEPT
    with ContactSheet(tmp_path / "s.png") as sheet:
        sheet.commit()
    assert os.listdir(tmp_path) == []
