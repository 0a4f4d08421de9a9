"""Packing: exact, and never more bytes than promised; the decoders in RTL and Python agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.link.packing import parts, unpack_changes
from hw.link.packets import Command
from tests.link.bench import CONFIG, LINK, Bench
from tests.link.device_model import DeviceModel, RingModel
from tests.link.requests import request, start

SIZES = (1, 2, 3, 7, 8, 9, 16, 35, 64, 100, 300)
DENSITIES = (0, 0.05, 0.3, 0.6, 0.87, 1)


def frames(n: int, density: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(old, new) of which about this share differs."""
    rng = np.random.default_rng(seed)
    old = rng.integers(0, 256, n, dtype=np.uint8)
    return old, np.where(rng.random(n) < density, old + rng.integers(1, 256, n, dtype=np.uint8), old)


def unpack_part(part, old: np.ndarray) -> np.ndarray:
    """The elements of a part, decoded bit by bit."""
    if not part.changes:
        return np.frombuffer(part.data, np.uint8)
    new, data = old.copy(), iter(part.data)
    for i in range(part.elements):
        if i % 64 == 0:
            groups = next(data)
        if i % 8 == 0:
            mask = next(data) if groups >> i // 8 % 8 & 1 else 0
        if mask >> i % 8 & 1:
            new[i] = next(data)
    assert not list(data)
    return new


@given(n=st.integers(1, 400), density=st.sampled_from(DENSITIES), seed=st.integers(0, 99),
       capacity=st.sampled_from((10, 11, 50, 4096)), known=st.booleans())
def test_frames_round_trip_within_the_bound(n, density, seed, capacity, known):
    old, new = frames(n, density, seed)
    done, size = [], 0
    for part in parts(new, old if known else None, capacity):
        assert 0 < len(part.data) <= capacity
        at = sum(map(len, done))
        assert at % 8 == 0 or not part.changes
        done.append(unpack_part(part, old[at:at + part.elements]))
        size += len(part.data)
    assert (np.concatenate(done) == new).all()
    changed = int((old != new).sum())
    assert size <= n
    if known and capacity == 4096:
        groups = sum((old[i:i + 8] != new[i:i + 8]).any() for i in range(0, n, 8))
        assert size <= -(-n // 64) + groups + changed
        assert size <= n / 8 + 1.25 * changed or n < 64                      # what was promised


@given(n=st.integers(1, 400), density=st.sampled_from(DENSITIES), seed=st.integers(0, 99))
def test_outputs_round_trip(n, density, seed):
    """The device's packing, decoded."""
    old, new = frames(n, density, seed)
    packed = bytearray()
    for i in range(0, n, 8):
        changed = new[i:i + 8] != old[i:i + 8]
        packed += new[i:i + 8][changed].tobytes()
        packed.append(sum(int(c) << j for j, c in enumerate(changed)))
    data = new.tobytes() if len(packed) >= n else bytes(packed)
    assert unpack_changes(data, old.tobytes()) == new.tobytes()


@pytest.mark.parametrize("data", [b"", b"\1", b"\0", b"\0\0\0", b"\xff\0", b"\7\1", b"\1\2\3\0\x40"])
def test_inconsistent_changes_are_noticed(data):
    with pytest.raises(ValueError, match="do not fit"):
        unpack_changes(data, bytes(14))


@pytest.mark.parametrize("seed", range(8))
def test_rtl_decodes_what_the_host_packs(seed):
    """Frames of changing density through packing, RTL and model: the same words, and the sum of the deltas is
    the frame."""
    rng = np.random.default_rng(seed)
    channels, width, height = (int(rng.integers(1, most + 1)) for most in (8, 7, 5))
    n = channels * width * height
    script = [start()[0], request(Command.INPUT, 1, rng.bytes(channels), width=width, channels=channels)]
    old, state, refreshes = None, [], []
    for _ in range(5):
        if old is None:
            new = rng.integers(0, 256, n, dtype=np.uint8)
        else:
            random = rng.integers(0, 256, n, dtype=np.uint8)
            new = np.where(rng.random(n) < rng.choice(DENSITIES), random, old)
        refresh = old is None or rng.random() < 0.3
        if refresh:
            refreshes.append(len(state))
        packets = list(parts(new, old, int(rng.choice((20, 60, 110)))))
        for i, part in enumerate(packets):
            fields = {"changes": part.changes, "elements": part.elements, "values": refresh,
                      "end": part is packets[-1], "wait": part is packets[-1]}
            if i == 0:
                script.append(request(Command.RUN, len(script), part.data, count=1, frame=fields))
            else:
                script.append(request(Command.FRAME, len(script), part.data, **fields))
        old = new
        state.append(new)
    answers, ring = bytearray(), RingModel(CONFIG)
    device = DeviceModel(CONFIG, LINK, ring, answers.extend)
    for item in script:
        device.feed(item)
    bench = Bench(script, stalls="random", seed=seed).simulate()
    assert bytes(bench.answers) == answers
    assert bench.ring.effects == ring.effects
    total, frame, first = np.zeros((height, width, channels), int), 0, True
    zeros = np.frombuffer(bytes(device.zeros[:channels]), np.uint8)
    for effect in ring.effects:
        if effect[0] == "frame":
            _, deltas, y, x, group, last = effect
            if first and frame in refreshes:
                total[:] = 0
            first = bool(last)
            lanes = total[y, x, group * CONFIG.sweep:(group + 1) * CONFIG.sweep]
            lanes += deltas[:len(lanes)]
            assert not any(deltas[len(lanes):])
            if last:
                assert (total + zeros == state[frame].reshape(total.shape)).all()
                frame += 1
    assert frame == 5


def test_quiet_elements_only_move_the_mirror():
    frame = {"elements": 6, "begin": 1}
    script = [*start(), request(Command.FRAME, 2, b"abcdef", **frame, quiet=1),
              request(Command.RUN, 3, b"abcdeg", count=1, frame=frame | {"end": 1, "wait": 1})]
    answers, ring = bytearray(), RingModel(CONFIG)
    device = DeviceModel(CONFIG, LINK, ring, answers.extend)
    for item in script:
        device.feed(item)
    bench = Bench(script).simulate()
    assert bytes(bench.answers) == answers
    assert bench.ring.effects == ring.effects
    assert [e[1] for e in ring.effects if e[0] == "frame"] == [(0, 1, 0, 0)]


def test_deltas_below_the_threshold_become_zero():
    """At 2, 3 and 4 either side of a threshold of 3; the mirror moves all the same."""
    part = {"elements": 6, "begin": 1, "end": 1, "wait": 1}
    frames = [bytes([9] * 6), bytes([7, 6, 5, 11, 12, 13]), bytes([9] * 6)]
    script = [*start(), request(Command.FRAME, 2, frames[0], **part | {"quiet": 1, "wait": 0})]
    script += [request(Command.RUN, 3 + i, f, count=1, frame=part | {"threshold": 3}) for i, f in enumerate(frames[1:])]
    words = [e[1] for e in Bench(script).simulate().ring.effects if e[0] == "frame"]
    assert words == [(0, -3, -4, 0), (3, 4, 0, 0), (0, 3, 4, 0), (-3, -4, 0, 0)]
