"""Config validation and hash; the packer against Amaranth's own layouts."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.lib import data

from hw.config import PRESETS, AcceleratorConfig, ConfigError
from hw.layouts import FieldError, Layouts, Space, chunks, pack, size_of, unpack


def test_config_names_field_and_limit():
    with pytest.raises(ConfigError, match="pes is 3"):
        AcceleratorConfig(pes=3, lanes=1, sweep=1)
    with pytest.raises(ConfigError, match=r"sweep is 8.*\(4\)"):
        AcceleratorConfig(pes=2, lanes=2, sweep=8)
    with pytest.raises(ConfigError, match="sweep is 64; at most 32"):
        AcceleratorConfig(pes=16, lanes=4, sweep=64)
    with pytest.raises(ConfigError, match="weight_words is 0"):
        AcceleratorConfig(pes=1, lanes=1, sweep=1, weight_words=0)
    with pytest.raises(ConfigError, match="kinds"):
        AcceleratorConfig(pes=1, lanes=1, sweep=1, kinds=("dense9",))


def test_hash_is_of_the_canonical_text_alone():
    a = PRESETS["sim64"]
    assert AcceleratorConfig.from_json(a.canonical) == a
    assert a.hash == AcceleratorConfig.from_json(a.canonical).hash
    assert a.hash != a.with_(queue_depth=15).hash


def _random(layout, rng, n):
    if isinstance(layout, data.StructLayout):
        return {name: _random(f.shape, rng, n) for name, f in layout}
    if isinstance(layout, data.ArrayLayout):
        return [_random(f.shape, rng, n) for _, f in layout]
    from amaranth.hdl import Shape

    shape = Shape.cast(layout)
    low, high = (-(1 << shape.width - 1), 1 << shape.width - 1) if shape.signed else (0, 1 << shape.width)
    return rng.integers(low, high, n)


def _one(value, i):
    if isinstance(value, dict):
        return {k: _one(v, i) for k, v in value.items()}
    if isinstance(value, list):
        return [_one(v, i) for v in value]
    return int(value[i])


@pytest.mark.parametrize("preset", ["sim1", "sim8", "sim64"])
def test_pack_is_amaranths_layout(preset):
    layouts, rng = Layouts(PRESETS[preset]), np.random.default_rng(1)
    for space in Space:
        layout = layouts.memories()[space][0]
        if not isinstance(layout, data.Layout):
            continue
        values = _random(layout, rng, 3)
        image = pack(layout, values, 3)
        assert image.shape == (3, chunks(size_of(layout)))
        for i in range(3):
            expected = layout.const(_one(values, i)).as_value().value & ((1 << layout.size) - 1)
            assert sum(int(c) << 32 * k for k, c in enumerate(image[i])) == expected
            _same(unpack(layout, image), values, i)


def _same(unpacked, values, i):
    if isinstance(values, dict):
        for k in values:
            _same(unpacked[k], values[k], i)
    elif isinstance(values, list):
        if isinstance(values[0], np.ndarray):
            assert unpacked[i].tolist() == [int(v[i]) for v in values]
    else:
        assert unpacked[i] == values[i]


def test_pack_names_the_field_that_does_not_fit():
    layouts = Layouts(PRESETS["sim8"])
    with pytest.raises(FieldError, match=r"walk\.kind is 4"):
        pack(layouts.edge, {"walk": {"kind": 4}})
