"""The driver: a program on a device, frame by frame, whatever the line and the device do.

::

    driver = Driver(SerialTransport("/dev/ttyUSB1", 3_000_000), config)
    driver.connect()                                     # the right device?
    driver.load(program)                                 # a DeviceProgram
    for codes in frames:                                 # int[C, H, W]
        report = driver.frame(codes, reads=outputs)      # report.data[i] belongs to outputs[i]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from host.errors import UserError
from host.link.connection import Connection, DeviceReset, Identity, Traffic
from host.link.packing import parts, unpack_changes
from host.link.transport import Transport
from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space, chunks, pack, size_of, unpack
from hw.link.packets import MEMORY, RUN, Command
from hw.link.words import read_bytes, written_bytes
from hw.load import Images, images_hash
from hw.readout import answer_layout

MOST_BYTES = 0xFFFF
"""Most bytes of an answer."""
RESETS = 5
"""How often a frame is begun anew before the device counts as broken."""


@dataclass(frozen=True, eq=False)
class MemoryImage:
    """Words for a memory: uint32[words, chunks] as ``hw.layouts.pack`` makes them."""

    space: Space
    data: np.ndarray
    unit: int = 0
    address: int = 0


@dataclass(frozen=True)
class Region:
    """Words to read: ``words`` addresses of each of ``units`` units (of PROJECTIONS: sweep groups).

    ``low`` is the smallest of at most 256 codes that snapshots hold; without it they are never read as changes.
    ``changes``: a frame reads them as changes since the last one, where the mirror has room.
    """

    space: Space
    address: int
    words: int
    unit: int = 0
    units: int = 1
    low: int | None = None
    changes: bool = True


@dataclass(frozen=True)
class InputRule:
    """The input tensor and its threshold rule, which the host applies (``sim.graph``).

    shape
        (C, H, W).
    low, high
        smallest and largest code; within a channel codes span at most 256 values.
    """

    shape: tuple[int, int, int]
    low: int
    high: int
    threshold: int = 0
    mode: Literal["hold", "truncate"] = "hold"


@dataclass(frozen=True, eq=False)
class DeviceProgram:
    """Everything that a device needs to run a network.

    images
        contents of its memories, step table included.
    steps
        number of steps.
    frame_steps
        number -> ``direct`` of the steps that take the input: deltas, or values when direct.
    snapshot
        makes the words of the input's snapshot from its codes when a step reads it from memory; else None.
    """

    images: Sequence[MemoryImage]
    steps: int
    frame_steps: dict[int, bool]
    input: InputRule
    snapshot: Callable[[np.ndarray], MemoryImage] | None = None

    @cached_property
    def contents(self) -> Images:
        """``images`` as a device is built with them: without the step table, which has the thresholds of a session."""
        return {(image.space, image.unit): [int.from_bytes(word.tobytes(), "little")
                                            for word in np.ascontiguousarray(image.data, "<u4")]
                for image in self.images if image.space != Space.STEPS}

    @cached_property
    def hash(self) -> int:
        """Tells whether a device is built with ``contents``."""
        return images_hash(self.contents)


@dataclass(frozen=True, eq=False)
class FrameReport:
    """One frame: whether it was a refresh (asked for or not), what was read, and what went over the link."""

    refresh: bool
    data: tuple[np.ndarray, ...]
    traffic: Traffic


class Driver:
    """A device that runs a program.

    Parameters are those of ``Connection``. When the device loses its state (a reset, a power cut, another
    host), the program is loaded again and the frame is repeated as a refresh; its report says so.
    """

    def __init__(self, transport: Transport, config: AcceleratorConfig, **options) -> None:
        self.config, self.layouts = config, Layouts(config)
        self.link = Connection(transport, config, **options)
        self._program: DeviceProgram | None = None
        self._forget()

    def connect(self) -> Identity:
        """Ask who is there; the next frame will be a refresh.

        Raises UserError when it is not a device with this config.
        """
        self._forget()
        return self.link.identify()

    def load(self, program: DeviceProgram) -> None:
        """Load a program; the next frame will be a refresh."""
        self._program = program
        self._forget()
        self._recovering(self._prepare)

    def reset(self) -> None:
        """Make the next frame a refresh."""
        self._stale = True

    def close(self) -> None:
        """Give the device back."""
        self.link.close()

    def frame(self, codes: np.ndarray, refresh: bool = False, *, reads: Sequence[Region] = (),
              steps: tuple[int, int] | None = None) -> FrameReport:
        """Run one frame and read its outputs.

        codes
            int[C, H, W] of the input tensor.
        refresh
            compute it from scratch; the first frame always is, and one that met a reset.
        steps
            (first, count) to run instead of all; ``run`` then runs the others.

        Raises UserError when the codes do not fit the input or the device is gone.
        """
        before = replace(self.link.traffic)
        codes = self._checked(codes)

        def attempt() -> FrameReport:
            self._prepare()
            now = refresh or self._stale
            self._stale = True                                # until all of it is done
            self._run_frame(codes, now, steps or (0, self._program.steps))
            data = tuple(self._read(region) for region in reads)
            self._stale = False
            return FrameReport(now, data, self.link.traffic.since(before))

        return self._recovering(attempt)

    def run(self, first: int, count: int, refresh: bool = False) -> None:
        """Run steps that take no frame, on what is there. Raises UserError when the device was reset."""
        self._once(lambda: self.link.request(Command.RUN, first=first, count=count, refresh=refresh,
                                             frame={"wait": 1}))

    def read(self, region: Region) -> np.ndarray:
        """Words uint32[units * words, chunks] as they are now. Raises UserError when the device was reset."""
        return self._once(lambda: self._read(region, mirrored=False))

    def counters(self, first: int, count: int) -> dict[str, np.ndarray]:
        """What the last run of each of these steps counted, int64[count] by name; errors as ``read``."""
        words = self.read(Region(Space.COUNTERS, first, count))
        return unpack(self.layouts.counters, words)

    # ------------------------------------------------------------------------------------------- recovery

    def _forget(self) -> None:
        """Nothing of the device's state is known."""
        self._ready, self._stale = False, True
        self._zero: np.ndarray | None = None                  # int[C]: byte of code 0
        self._low = self._high = None                         # int[C]: codes seen
        self._mirror: np.ndarray | None = None                # uint8[H * W * C]: the last frame sent
        self._outputs: dict[Region, tuple[int, bytes | None]] = {}

    def _recovering(self, attempt):
        """Try until it succeeds without the device losing its state."""
        for _ in range(RESETS):
            try:
                return attempt()
            except DeviceReset:
                self._forget()
            except BaseException:
                self._forget()
                raise
        raise UserError(f"{self.link.transport.name}: the device was reset {RESETS} times during one frame; "
                        "check its power and its connection")

    def _once(self, action):
        try:
            return action()
        except DeviceReset:
            self._forget()
            raise UserError(f"{self.link.transport.name}: the device was reset, so what it held of the last "
                            "frame is lost; go on with the next frame, which will be a refresh") from None

    def _prepare(self) -> None:
        """A session with the program loaded."""
        if self._program is None:
            raise UserError("no program is loaded into the device")
        if not self._ready:
            self.link.begin()
            built_in = self.link.identity.program == self._program.hash != 0
            for image in self._program.images:
                if image.space == Space.STEPS or not built_in:
                    self._write(image)
            self._ready = True

    # ------------------------------------------------------------------------------------------- memories

    def _write(self, image: MemoryImage) -> None:
        size = written_bytes(self.layouts, image.space)
        data = np.ascontiguousarray(image.data, "<u4").view(np.uint8)[:, :size]
        most = (self.link.identity.buffer_bytes - MEMORY.size // 8) // size
        if most == 0:
            raise UserError(f"{self.link.transport.name}: a word of {image.space.name} has {size} bytes, too "
                            f"many for the device's buffer_bytes={self.link.identity.buffer_bytes}")
        for at in range(0, len(data), most):
            part = data[at:at + most]
            self.link.request(Command.LOAD, part.tobytes(), space=image.space, unit=image.unit, units=1,
                              words=len(part), address=image.address + at)

    def _read(self, region: Region, mirrored: bool = True) -> np.ndarray:
        place = self._output_mirror(region) if mirrored else None
        size = self._word_bytes(region, place is not None)
        if place is not None:
            data = self._read_changes(region, place)
        else:
            most = max(1, MOST_BYTES // (size * region.units))
            pieces = [self._request_words(Command.READ, replace(
                region, address=region.address + at, words=min(most, region.words - at)))
                for at in range(0, region.words, most)]
            data = b"".join(piece[unit * len(piece) // region.units:(unit + 1) * len(piece) // region.units]
                            for unit in range(region.units) for piece in pieces)
        if len(data) != region.units * region.words * size:
            raise UserError(f"{self.link.transport.name}: {len(data)} bytes came for {region}; device and program do "
                            "not fit together")
        rows = np.frombuffer(data, np.uint8).reshape(-1, size)
        if place is not None and region.space == Space.SNAPSHOTS:
            return pack(self.layouts.codes, region.low + (rows.astype(np.int64) - region.low) % 256, len(rows))
        words = np.zeros((len(rows), 4 * chunks(size_of(answer_layout(self.layouts, region.space)))), np.uint8)
        words[:, :size] = rows
        return words.view("<u4").astype(np.uint32)

    def _word_bytes(self, region: Region, mirrored: bool) -> int:
        return read_bytes(self.layouts, region.space, low=mirrored)

    def _request_words(self, command: Command, region: Region, mirror: int = 0) -> bytes:
        return self.link.request(command, space=region.space, unit=region.unit, units=region.units,
                                 words=region.words, address=region.address, mirror=mirror)

    def _output_mirror(self, region: Region) -> int | None:
        """Where the mirror keeps an output: behind the frame, as they come, while there is room."""
        total = region.units * region.words * self._word_bytes(region, True)
        if not region.changes or total > MOST_BYTES or (region.space == Space.SNAPSHOTS and region.low is None):
            return None
        if region not in self._outputs:
            start = int(np.prod(self._program.input.shape)) + sum(
                r.units * r.words * self._word_bytes(r, True) for r in self._outputs)
            if start + total > self.link.identity.mirror_bytes:
                return None
            self._outputs[region] = (start, None)
        return self._outputs[region][0]

    def _read_changes(self, region: Region, place: int) -> bytes:
        known = self._outputs[region][1]
        if known is None:
            data = self._request_words(Command.COPY, region, place)
        else:
            self._outputs[region] = (place, None)
            data = unpack_changes(self._request_words(Command.CHANGES, region, place), known)
        self._outputs[region] = (place, data)
        return data

    # ------------------------------------------------------------------------------------------- the frame

    def _checked(self, codes: np.ndarray) -> np.ndarray:
        if self._program is None:
            raise UserError("no program is loaded into the device")
        rule = self._program.input
        codes = np.asarray(codes)
        if codes.shape != rule.shape or codes.dtype.kind not in "iu":
            raise UserError(f"a frame must be integers {list(rule.shape)}, not "
                            f"{codes.dtype}{list(codes.shape)}")
        codes = codes.astype(np.int64)
        if codes.min() < rule.low or codes.max() > rule.high:
            raise UserError(f"a frame holds codes {codes.min()}..{codes.max()}; the input takes "
                            f"{rule.low}..{rule.high}")
        return codes

    def _run_frame(self, codes: np.ndarray, refresh: bool, steps: tuple[int, int]) -> None:
        rule, program = self._program.input, self._program
        self._set_zero(codes)
        pixels = (codes + self._zero[:, None, None]).transpose(1, 2, 0).reshape(-1).astype(np.uint8)
        limit = max(rule.threshold, 1)
        if not refresh and rule.mode == "hold":
            changed = np.abs(pixels.astype(np.int16) - self._mirror) >= limit
            pixels = np.where(changed, pixels, self._mirror)
        if program.snapshot is not None:
            kept = pixels.reshape(rule.shape[1], rule.shape[2], -1).transpose(2, 0, 1).astype(np.int64)
            self._write(program.snapshot(kept - self._zero[:, None, None]))
        first, count = steps
        passes = [direct for step, direct in sorted(program.frame_steps.items())
                  if first <= step < first + count]
        packets: list[tuple[dict, bytes]] = []
        for direct in passes:
            begin = len(packets)
            truncate = rule.mode == "truncate" and not refresh and not direct
            fields = {"values": refresh or direct, "threshold": limit if truncate else 0}
            packets += self._packets(pixels, fields)
            packets[begin][0]["begin"] = packets[-1][0]["end"] = 1
            self._mirror = pixels
        packets = packets or [({"elements": 0}, b"")]
        packets[-1][0]["wait"] = 1
        for i, (fields, data) in enumerate(packets):
            if i == 0:
                self.link.request(Command.RUN, data, first=first, count=count, refresh=refresh, frame=fields)
            else:
                self.link.request(Command.FRAME, data, **fields)

    def _packets(self, pixels: np.ndarray, fields: dict) -> Iterator[tuple[dict, bytes]]:
        """One pass over the frame; packets carry the changes since the last pass, or all of it."""
        for part in parts(pixels, self._mirror, self.link.identity.buffer_bytes - RUN.size // 8):
            yield {**fields, "changes": part.changes, "elements": part.elements}, part.data

    def _set_zero(self, codes: np.ndarray) -> None:
        """Choose for each channel the byte of code 0, such that every code seen so far is a byte.

        One range of 256 codes for all channels settles it. Else ranges are learned: when a channel leaves
        the bytes it has, the device gets a new zero point and the mirror written in its terms.
        """
        rule = self._program.input
        low, high = codes.min(axis=(1, 2)), codes.max(axis=(1, 2))
        if rule.high - rule.low < 256:
            zero = np.full(rule.shape[0], -rule.low)
        else:
            low = np.minimum(low, 0 if self._low is None else self._low)
            high = np.maximum(high, 0 if self._high is None else self._high)
            if (wide := np.flatnonzero(high - low > 255)).size:
                channel = wide[0]
                raise UserError(f"channel {channel} of the input has codes {low[channel]}..{high[channel]}; "
                                "a channel may span 256 values")
            fits = self._zero is not None and ((low + self._zero >= 0) & (high + self._zero <= 255)).all()
            zero = self._zero if fits else -low
        self._low, self._high = low, high
        if self._zero is not None and (zero == self._zero).all():
            return
        self._check_room(rule)
        old, self._zero = self._zero, zero
        self.link.request(Command.INPUT, zero.astype(np.uint8).tobytes(), width=rule.shape[2],
                          channels=rule.shape[0])
        if self._mirror is not None:
            moved = self._mirror.reshape(-1, len(zero)) + (zero - old)
            self._mirror, frame = None, moved.reshape(-1).astype(np.uint8)
            for i, (fields, data) in enumerate(self._packets(frame, {"quiet": 1})):
                self.link.request(Command.FRAME, data, **fields, begin=i == 0)
            self._mirror = frame

    def _check_room(self, rule: InputRule) -> None:
        known, name = self.link.identity, self.link.transport.name
        if rule.shape[0] > known.input_channels:
            raise UserError(f"{name}: the input has {rule.shape[0]} channels, the device's link takes "
                            f"{known.input_channels}; build it with input_channels={rule.shape[0]}")
        if (size := int(np.prod(rule.shape))) > known.mirror_bytes:
            raise UserError(f"{name}: the input has {size} elements, the device's link keeps "
                            f"{known.mirror_bytes}; build it with mirror_bytes={size} or more")
