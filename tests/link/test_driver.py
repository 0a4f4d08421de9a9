"""The driver against a device with faults: no frame lost, none wrong, and refreshes reported."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.errors import UserError
from host.link.driver import DeviceProgram, Driver, InputRule, MemoryImage, Region
from hw.layouts import Layouts, Space, pack, unpack
from hw.link.packets import LinkConfig
from hw.readout import answer_layout
from sim.arithmetic import threshold
from tests.link.bench import CONFIG
from tests.link.fake_device import AddingRing, FakeDevice

LINK = LinkConfig(buffer_bytes=100, mirror_bytes=1024, input_channels=8, timeout=40)
SHAPE = (6, 3, 5)
BIAS = 12345


def program(shape=SHAPE, **rule) -> DeviceProgram:
    """Step 0 takes the frame; the codebook holds BIAS."""
    images = [MemoryImage(Space.CODEBOOK, pack(Layouts(CONFIG).codebook, np.full(90, BIAS), 90)),
              MemoryImage(Space.STEPS, pack(Layouts(CONFIG).step, {}, 2))]
    return DeviceProgram(images, 2, {0: False}, InputRule(shape, **({"low": -20, "high": 235} | rule)))


def regions(shape=SHAPE, low: int | None = None) -> list[Region]:
    words = shape[1] * shape[2] * -(-shape[0] // CONFIG.sweep)
    return [Region(Space.SNAPSHOTS, 0, words, low=low), Region(Space.PROJECTIONS, 0, words)]


def device(shape=SHAPE, link=LINK, **faults) -> FakeDevice:
    return FakeDevice(CONFIG, link, AddingRing(CONFIG, shape), **faults)


def driver(transport: FakeDevice, **options) -> Driver:
    made = Driver(transport, CONFIG, timeout=0, **({"attempts": 60} | options))
    made.connect()
    return made


def clip(n: int, shape=SHAPE, low=-20, high=235, seed=0) -> list[np.ndarray]:
    """Frames that change now little, now altogether."""
    rng = np.random.default_rng(seed)
    frames = [rng.integers(low, high + 1, shape)]
    for i in range(n - 1):
        step = rng.integers(-5, 6, shape) if i % 4 else rng.integers(low, high + 1, shape) - frames[-1]
        moving = rng.random(shape) < rng.choice((0, 0.1, 0.5, 1))
        frames.append(np.clip(frames[-1] + step * moving, low, high))
    return frames


class Expected:
    """What ``AddingRing`` shows after the same frames with the same refreshes."""

    def __init__(self, rule: InputRule) -> None:
        self.rule = rule
        self.sums = self.reference = np.zeros(rule.shape, np.int64)

    def frame(self, codes: np.ndarray, refresh: bool) -> None:
        if refresh:
            self.sums = self.reference = np.zeros(self.rule.shape, np.int64)
        deltas, self.reference = threshold(codes.astype(np.int16), self.reference.astype(np.int16),
                                           1 if refresh else self.rule.threshold, self.rule.mode)
        self.sums = self.sums + deltas

    def check(self, data: tuple[np.ndarray, ...]) -> None:
        c, h, w = self.rule.shape
        for space, words, bias in zip((Space.SNAPSHOTS, Space.PROJECTIONS), data, (0, BIAS), strict=True):
            values = unpack(answer_layout(Layouts(CONFIG), space), words)
            values = values.reshape(h, w, -1).transpose(2, 0, 1)[:c]
            bits = 9 if space == Space.SNAPSHOTS else CONFIG.accumulator_bits
            want = (self.sums + bias + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
            assert (values == want).all()


def play(transport: FakeDevice, rule: dict, frames: list[np.ndarray], refreshes: set[int] = frozenset()):
    """Run the frames, check every one; returns the reports."""
    made = program(frames[0].shape, **rule)
    low = made.input.low if made.input.mode == "hold" and made.input.high - made.input.low < 256 else None
    expected, reports = Expected(made.input), []
    runner = driver(transport)
    runner.load(made)
    for i, codes in enumerate(frames):
        report = runner.frame(codes, i in refreshes, reads=regions(frames[0].shape, low))
        expected.frame(codes, report.refresh)
        expected.check(report.data)
        reports.append(report)
    return reports


RULES = [{}, {"threshold": 1}, {"threshold": 4}, {"threshold": 3, "mode": "truncate"}]


@pytest.mark.parametrize("rule", RULES)
def test_a_good_line(rule):
    transport = device()
    reports = play(transport, rule, clip(12), {5})
    assert [r.refresh for r in reports] == [i in (0, 5) for i in range(12)]
    assert transport.ring.frames == 12
    assert sum(r.traffic.repeats + r.traffic.resets for r in reports) == 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(8))
def test_a_bad_line(rule, seed):
    """Every frame right, once, and nothing refreshed that was not asked for."""
    transport = device(faults=0.3, seed=seed)
    reports = play(transport, rule, clip(10, seed=seed))
    assert len(transport.happened) > 5
    assert [r.refresh for r in reports] == [True] + [False] * 9
    assert transport.ring.frames == 10


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("faults", [0, 0.1])
def test_a_reset_during_every_packet(rule, faults):
    """The frame that met a reset is repeated as a refresh and says so; the others are not touched."""
    quiet = device()
    play(quiet, rule, clip(4))
    met = 0
    for at in range(2, quiet.packets):
        transport = device(reset_at={at}, faults=faults, seed=at)
        reports = play(transport, rule, clip(4))
        assert "reset" in transport.happened
        for report in reports[1:]:
            assert report.refresh == (report.traffic.resets > 0)
            met += report.refresh
    assert met > 3


def test_another_host_takes_the_device():
    """Its session replaces ours; we notice, and take the device back."""
    transport = device()
    first, other = driver(transport), driver(transport)
    first.load(program())
    expected, frames = Expected(program().input), clip(4)
    for i, codes in enumerate(frames):
        if i == 2:
            other.load(program())
            other.frame(frames[0])
        report = first.frame(codes, reads=regions())
        assert report.refresh == (i in (0, 2))
        expected.frame(codes, report.refresh)
        expected.check(report.data)


def test_channels_with_ranges_of_their_own():
    """Codes of all channels together span more than 256 values; zero points follow what the channels hold."""
    offsets = np.array([-100, -60, -20, 20, 60, -3])[:, None, None]
    frames = [f // (4 if i < 4 else 1) + offsets for i, f in enumerate(clip(12, low=0, high=195, seed=3))]
    reports = play(device(), {"low": -200, "high": 255, "threshold": 3}, frames)
    assert [r.refresh for r in reports] == [True] + [False] * 11
    too_wide = frames[-1].copy()
    too_wide[2, 0, :2] = -20, 250
    runner = driver(device())
    runner.load(program(low=-200, high=255))
    with pytest.raises(UserError, match=r"channel 2 of the input has codes -20..250"):
        runner.frame(too_wide)


def test_large_outputs_and_small_mirrors():
    """What does not fit the mirror is read in full, what does not fit a packet in pieces."""
    link = LinkConfig(buffer_bytes=100, mirror_bytes=6 * 15, input_channels=8, timeout=40)
    reports = play(device(link=link), {}, clip(3))
    size = 2 * 15 * (5 + 14)
    assert all(r.traffic.received > size for r in reports)
    assert play(device(), {}, clip(3)[:1] * 3)[2].traffic.received < size // 4


def test_a_still_frame_costs_a_byte_per_64_elements():
    transport = device(shape=(3, 32, 32), link=LinkConfig(buffer_bytes=4096, mirror_bytes=4096))
    runner = driver(transport)
    runner.load(program((3, 32, 32)))
    still, moved = (clip(2, (3, 32, 32))[0] for _ in range(2))
    moved = moved.copy()
    moved[:, 4, 4] = moved[:, 4, 4] // 2 + 1
    sizes = [runner.frame(f).traffic.sent for f in (still, still, moved)]
    overhead = 12 + 4 + 9
    assert sizes[0] - 12 - 4 - 4 - 3 <= 3072 * 1.01
    assert sizes[1:] == [3072 // 64 + overhead, 3072 // 64 + 1 + 3 + overhead]


@settings(max_examples=20, deadline=None)
@given(shape=st.tuples(st.integers(1, 8), st.integers(1, 5), st.integers(1, 7)), rule=st.sampled_from(RULES),
       seed=st.integers(0, 1000), faults=st.sampled_from((0, 0.1, 0.3)),
       reset_at=st.sets(st.integers(0, 60), max_size=3))
def test_any_shape_and_luck(shape, rule, seed, faults, reset_at):
    play(device(shape, faults=faults, reset_at=reset_at, seed=seed), rule, clip(5, shape, seed=seed))


def test_partial_runs_and_counters():
    """Steps one by one: the frame's first, then the others."""
    transport = device()
    runner = driver(transport)
    runner.load(program())
    codes = clip(1)[0]
    runner.frame(codes, steps=(0, 1))
    runner.run(1, 1)
    assert [e for e in transport.ring.effects if e[0] == "run"] == [("run", 0, 1, 1), ("run", 1, 1, 0)]
    counters = runner.counters(0, 2)
    assert counters["cycles"].tolist() == [100, 101]
    assert counters["macs"].tolist() == [1 << 40] * 2
    transport.power_up()
    with pytest.raises(UserError, match="was reset, so what it held"):
        runner.read(regions()[0])
    assert runner.frame(codes).refresh


def test_a_snapshot_of_the_input_is_written_with_the_frame():
    transport = device()
    written = []

    def snapshot(codes):
        written.append(codes)
        return MemoryImage(Space.CODEBOOK, pack(Layouts(CONFIG).codebook, BIAS + codes[0, 0, :1]))

    made = program(threshold=3)
    runner = driver(transport)
    runner.load(DeviceProgram(made.images, 2, {0: False}, made.input, snapshot))
    expected = Expected(made.input)
    for codes in clip(5):
        report = runner.frame(codes)
        expected.frame(codes, report.refresh)
        assert (written[-1] == expected.reference).all()
        assert transport.ring.bias == BIAS + codes[0, 0, 0] - (codes - expected.reference)[0, 0, 0]


@pytest.mark.parametrize("config, message", [
    (CONFIG.with_(queue_depth=5), f"fake: the device is built with config {CONFIG.hash}, the network is "
                                  f"compiled for config {CONFIG.with_(queue_depth=5).hash}"),
])
def test_the_wrong_device_is_named(config, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Driver(device(), config).connect()


class Canned:
    """A transport that answers everything with the same bytes."""

    name = "/dev/ttyS9"

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def write(self, data: bytes) -> None:
        self.left = self.answer

    def read(self, limit: int, timeout: float) -> bytes:
        data, self.left = self.left[:limit], self.left[limit:]
        return data


def test_no_device_and_other_devices():
    from hw.link.packets import ANSWER, IDENTITY, MAGIC, PROTOCOL, packet
    from hw.link.packets import pack as fields

    with pytest.raises(UserError, match="/dev/ttyS9: no answer to IDENTIFY in 3 attempts; is the device on"):
        Driver(Canned(b"login: "), CONFIG, timeout=0, attempts=3).connect()
    identity = fields(IDENTITY, magic=MAGIC, protocol=PROTOCOL + 1, config_hash=int(CONFIG.hash, 16))
    with pytest.raises(UserError, match=f"speaks link protocol {PROTOCOL + 1}, this program {PROTOCOL}"):
        Driver(Canned(packet(ANSWER, identity, sequence=1)), CONFIG).connect()
    with pytest.raises(UserError, match="this is no rrm-fpga device"):
        Driver(Canned(packet(ANSWER, bytes(len(identity)), sequence=1)), CONFIG).connect()


def test_a_device_that_keeps_resetting_is_given_up():
    runner = driver(device(reset_at=range(6, 1000, 3)))
    with pytest.raises(UserError, match="was reset 5 times"):
        runner.load(program())


def test_waiting_for_a_long_run_costs_an_empty_packet_each_time():
    """BUSY is answered with a header alone; the frame is there once."""
    transport, sizes = device(), []
    write = transport.write

    def slow(data: bytes) -> None:
        sizes.append(len(data))
        transport.ring.idle |= transport.ring.never_done and len(sizes) == 4
        write(data)

    runner = driver(transport)
    runner.load(program())
    runner.frame(clip(1)[0])
    transport.write, transport.ring.never_done = slow, True
    report = runner.frame(clip(1)[0])
    assert sizes == [12 + 4 + 9 + 2, 12, 12, 12]
    assert (report.traffic.sent, report.traffic.received, report.traffic.repeats) == (sum(sizes), 4 * 12, 0)
    assert transport.ring.frames == 2


def test_a_reset_while_the_counters_are_read_repeats_the_frame():
    runner = driver(transport := device())
    runner.load(program())
    runner.frame(clip(1)[0])
    transport.reset_at = {transport.packets + 1}
    report = runner.frame(clip(1)[0], reads=[Region(Space.COUNTERS, 0, 2)])
    assert report.refresh
    assert report.traffic.resets == 1
    assert unpack(Layouts(CONFIG).counters, report.data[0])["cycles"].tolist() == [100, 101]


def test_a_run_that_never_ends_is_given_up():
    transport = device()
    runner = driver(transport, run_timeout=0.0)
    runner.load(program())
    transport.ring.never_done = True
    with pytest.raises(UserError, match="fake: a run did not end within 0 s"):
        runner.frame(clip(1)[0])


@pytest.mark.parametrize("codes, message", [
    (np.zeros((6, 3, 4), int), r"a frame must be integers \[6, 3, 5\], not int64\[6, 3, 4\]"),
    (np.zeros(SHAPE), r"a frame must be integers \[6, 3, 5\], not float64"),
    (np.full(SHAPE, 236), r"a frame holds codes 236..236; the input takes -20..235"),
])
def test_bad_frames(codes, message):
    runner = driver(device())
    with pytest.raises(UserError, match="no program is loaded"):
        runner.frame(codes)
    runner.load(program())
    with pytest.raises(UserError, match=message):
        runner.frame(codes)


@pytest.mark.parametrize("link, message", [
    ({"input_channels": 5}, "the input has 6 channels, the device's link takes 5"),
    ({"mirror_bytes": 89}, "the input has 90 elements, the device's link keeps 89"),
])
def test_inputs_that_do_not_fit_the_link(link, message):
    sizes = {"buffer_bytes": 100, "mirror_bytes": 1024, "input_channels": 8} | link
    runner = driver(device(link=LinkConfig(**sizes)))
    runner.load(program())
    with pytest.raises(UserError, match=message):
        runner.frame(clip(1)[0])
