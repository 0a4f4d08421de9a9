"""A device in Python behind a bad line: a transport for the driver."""

from __future__ import annotations

import random
from collections.abc import Container

import numpy as np

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space, pack, size_of
from hw.link.packets import LinkConfig
from tests.link.device_model import DeviceModel, RingModel


class AddingRing(RingModel):
    """A ring that adds up the deltas of its frames, step 0, and shows the sums.

    Snapshot word p * groups + g holds the sums of pixel p, channel group g; projection words hold them plus
    the codebook word 0 of PE 0, so that a program that was not loaded shows.
    """

    def __init__(self, config: AcceleratorConfig, shape: tuple[int, int, int], seed: int = 0) -> None:
        super().__init__(config)
        self.shape, self.rng = shape, np.random.default_rng(seed)
        self.frames = 0
        self.power_up()

    def power_up(self) -> None:
        """Everything is lost."""
        c, h, w = self.shape
        self.sums = self.rng.integers(-200, 200, (h, w, -(-c // self.config.sweep) * self.config.sweep))
        self.bias = int(self.rng.integers(1000))
        self.taking, self.idle = False, True

    def load(self, space: int, unit: int, address: int, word: bytes) -> None:
        if (space, unit, address) == (Space.CODEBOOK, 0, 0):
            self.bias = int.from_bytes(word, "little")

    def run(self, first: int, count: int, refresh: int) -> None:
        if refresh:
            self.sums[:] = 0
        super().run(first, count, refresh)

    def frame(self, deltas: tuple[int, ...], y: int, x: int, group: int, last: int) -> None:
        s = self.config.sweep
        self.sums[y, x, group * s:(group + 1) * s] += deltas
        self.frames += last
        super().frame(deltas, y, x, group, last)

    def reset(self) -> None:
        super().reset()
        self.sums[:] = 77

    def read(self, space: int, unit: int, address: int) -> bytes:
        lay = Layouts(self.config)
        words = self.sums.reshape(-1, self.config.sweep)
        word = words[address % len(words)]
        if space == Space.SNAPSHOTS:
            return _bytes(lay.codes, word)
        if space == Space.COUNTERS:
            return _bytes(lay.counters, {"cycles": 100 + address, "macs": 1 << 40})
        accumulators = type(lay.accumulators)(lay.accumulators.elem_shape, self.config.sweep)
        return _bytes(accumulators, word + self.bias)


def _bytes(layout, values) -> bytes:
    return pack(layout, values).tobytes()[:-(-size_of(layout) // 8)]


class FakeDevice:
    """A transport: the device's model with faults on the line and in its power supply.

    Parameters
        faults: probability that something happens to a packet, either way.
        reset_at: numbers of the packets in the midst of which the device is reset.
    """

    name = "fake"

    def __init__(self, config: AcceleratorConfig, link: LinkConfig, ring: AddingRing, *, faults: float = 0,
                 reset_at: Container[int] = (), seed: int = 0) -> None:
        self.config, self.link, self.ring, self.faults, self.reset_at = config, link, ring, faults, reset_at
        self.rng = random.Random(seed)
        self.happened: list[str] = []
        self.to_host = bytearray()
        self.packets = 0
        self.power_up()

    def power_up(self) -> None:
        """Reset the device."""
        self.ring.power_up()
        self.device = DeviceModel(self.config, self.link, self.ring, self._answer)
        self.device.mirror[:] = self.rng.randbytes(len(self.device.mirror))

    def write(self, data: bytes) -> None:
        data = self._line(data)
        self.packets += 1
        if self.packets - 1 in self.reset_at:
            at = self.rng.randrange(len(data) + 1)
            self.device.feed(data[:at])
            self.power_up()
            self.happened.append("reset")
            data = data[at:]
        self.device.feed(data)

    def read(self, limit: int, timeout: float) -> bytes:
        if not self.to_host:
            self.device.silence()
        data = bytes(self.to_host[:limit])
        del self.to_host[:limit]
        return data

    def _answer(self, data: bytes) -> None:
        self.to_host += self._line(data)

    def _line(self, data: bytes) -> bytes:
        """What a bad line makes of a packet."""
        if self.rng.random() >= self.faults:
            return data
        kind = self.rng.choice(("flip", "drop", "cut", "twice", "noise", "nothing"))
        self.happened.append(kind)
        at = self.rng.randrange(len(data))
        if kind == "flip":
            return data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1:]
        return {"drop": data[:at] + data[at + 1:], "cut": data[:at], "twice": data + data, "nothing": b"",
                "noise": self.rng.randbytes(at) + data}[kind]
