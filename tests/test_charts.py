"""Charts: what is drawn is what was given, and the files are pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from host import charts
from host.errors import UserError

LAYERS = ["image", "features", "an/extremely/long/name/of/a/layer/that/does/not/fit"]
DENSITY, CYCLES, SCRATCH = [0.5, 0.25, 0.0], [400, 100, 60], [800, 900, 60]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been written."""
    figures = []
    monkeypatch.setattr(charts, "_save", lambda figure, path, title: figures.append(figure))
    return figures


def widths(axes) -> list[float]:
    return [float(bar.get_width()) for bar in axes.patches]


def test_layer_chart_shows_the_numbers(drawn):
    charts.layer_chart("x.png", LAYERS, DENSITY, CYCLES, SCRATCH, activations=[1.0, 0.5, 0.0])
    density, cycles, gain = drawn[0].axes
    assert widths(density) == [50, 25, 0]
    assert widths(cycles) == [*SCRATCH, *CYCLES]
    assert widths(gain) == [2, 9, 1]
    assert density.lines[0].get_xdata().tolist() == [100, 50, 0]
    assert gain.lines[1].get_xdata()[0] == sum(SCRATCH) / sum(CYCLES)


def test_layer_chart_of_an_idle_layer(drawn):
    charts.layer_chart("x.png", ["a"], [np.nan], [0], [0])
    assert widths(drawn[0].axes[0]) == [0]
    assert widths(drawn[0].axes[2]) == [1]


def test_files_are_pictures_or_do_not_appear(tmp_path):
    charts.layer_chart(tmp_path / "layers.png", LAYERS, DENSITY, CYCLES, SCRATCH, title="test")
    with Image.open(tmp_path / "layers.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
    with pytest.raises(UserError, match="folder"):
        charts.layer_chart(tmp_path / "none" / "layers.png", LAYERS, DENSITY, CYCLES, SCRATCH)
    assert [p.name for p in tmp_path.iterdir()] == ["layers.png"]
