"""The device's end of the link in Python: the reference for the RTL, and a fake device for the driver.

Written from docs/link.md; it uses the packet layouts but no code of the RTL.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space
from hw.link.packets import (
    ANSWER,
    FIELDS,
    FRAME,
    HEADER,
    INPUT,
    MEMORY,
    REQUEST,
    RUN,
    Command,
    LinkConfig,
    Status,
    identity,
    packet,
    unpack,
)
from hw.link.words import read_bytes, written_bytes


class RingModel:
    """What the link does to a ring, in order; reads give bytes that change a little from run to run.

    A run from step 0 takes a frame; any other run takes none. ``never_done`` runs for ever.
    """

    def __init__(self, config: AcceleratorConfig, seed: int = 0, never_done: bool = False) -> None:
        self.config, self.layouts, self.never_done = config, Layouts(config), never_done
        self.effects: list[tuple] = []
        self.runs = 0
        self.taking = False
        self.idle = True
        self._data: dict[tuple, bytes] = {}
        self._seed = seed

    def load(self, space: int, unit: int, address: int, word: bytes) -> None:
        chunks = [int.from_bytes(word[i:i + 4], "little") for i in range(0, len(word), 4)]
        for i, data in enumerate(chunks):
            self.effects.append(("load", space, unit, address, data, int(i == len(chunks) - 1)))

    def run(self, first: int, count: int, refresh: int) -> None:
        self.effects.append(("run", first, count, refresh))
        self.runs += 1
        self.taking = first == 0 and count > 0
        self.idle = count == 0 or (not self.taking and not self.never_done)

    def frame(self, deltas: tuple[int, ...], y: int, x: int, group: int, last: int) -> None:
        place = (y, x, group) if any(deltas) else (0, 0, 0)               # of nothing: means nothing
        self.effects.append(("frame", deltas, *place, last))
        if last:
            self.taking, self.idle = False, not self.never_done

    def reset(self) -> None:
        self.effects.append(("reset",))
        self.taking, self.idle = False, True

    def read(self, space: int, unit: int, address: int) -> bytes:
        size = read_bytes(self.layouts, Space(space))
        word = np.zeros(size, np.uint8)
        for run in range(self.runs + 1):
            rng = np.random.default_rng([self._seed, space, unit, address, run])
            changed = rng.random(size) < (0.3 if run else 1)
            word = np.where(changed, rng.integers(0, 256, size), word).astype(np.uint8)
        return word.tobytes()


class Stall(Exception):
    """Elements that no step takes, or that do not come."""


class DeviceModel:
    """Bytes in, bytes out. ``send`` is called with each answer."""

    def __init__(self, config: AcceleratorConfig, link: LinkConfig, ring: RingModel,
                 send: Callable[[bytes], None]) -> None:
        self.config, self.link, self.ring, self.send = config, link, ring, send
        self.layouts = Layouts(config)
        self.session = self.sequence = 0
        self.outcome = Status.OK
        self.mirror = bytearray(link.mirror_bytes)
        self.zeros = bytearray(link.input_channels)
        self.width = self.channels = 0
        self._begin_frame()
        self._bytes = bytearray()
        self._deaf = False

    def feed(self, data: bytes) -> None:
        """Bytes without a pause between them."""
        if not self._deaf:
            self._bytes += data
            while not self._deaf and self._packet():
                pass

    def silence(self) -> None:
        """A pause longer than the timeout."""
        if self._deaf:
            self._deaf = False
            self._answer(self._damage)
        elif len(self._bytes) >= 2:
            self._answer(Status.TRUNCATED)
            self._bytes.clear()

    def _packet(self) -> bool:
        data, size = self._bytes, HEADER.size // 8
        start = data.find(REQUEST.to_bytes(2, "little"))
        keep = data[-1:] == bytes([REQUEST & 0xFF])
        del data[:start if start >= 0 else len(data) - keep]
        if len(data) < 2 + size + 4:
            return False
        head = bytes(data[2:2 + size])
        fields = unpack(HEADER, head)
        if data[2 + size:6 + size] != zlib.crc32(head).to_bytes(4, "little"):
            return self._damaged(Status.DAMAGED)
        if fields["length"] > self.link.buffer_bytes:
            return self._damaged(Status.TOO_LONG)
        end = 6 + size
        payload = b""
        if fields["length"]:
            end += fields["length"] + 4
            if len(data) < end:
                return False
            payload = bytes(data[6 + size:end - 4])
            if data[end - 4:end] != zlib.crc32(payload).to_bytes(4, "little"):
                return self._damaged(Status.DAMAGED)
        del data[:end]
        self._admit(fields, payload)
        return bool(data)

    def _damaged(self, status: Status) -> bool:
        self._damage, self._deaf = status, True
        self._bytes.clear()
        return False

    def _answer(self, code: Status, payload: bytes = b"", sequence: int | None = None) -> None:
        self.send(packet(ANSWER, payload, code=code, session=self.session,
                         sequence=self.sequence if sequence is None else sequence))

    def _admit(self, header: dict[str, int], payload: bytes) -> None:
        code, sequence = header["code"], header["sequence"]
        repeated = sequence == self.sequence
        if code == Command.IDENTIFY:
            return self._answer(Status.OK, identity(self.config, self.link), sequence)
        if code == Command.RESET:
            if not repeated or header["session"] != self.session:
                self._reset()
            self.session, self.sequence = header["session"], sequence
            return self._answer(Status.OK, sequence=sequence)
        if self.session == 0 or header["session"] != self.session:
            return self._answer(Status.SESSION, sequence=sequence)
        if repeated and code not in (Command.READ, Command.COPY, Command.CHANGES):
            if self.outcome == Status.BUSY:
                self.outcome = Status.OK if self.ring.idle else Status.BUSY
            return self._answer(self.outcome, sequence=sequence)
        if not repeated and sequence != (self.sequence + 1) % 256:
            return self._answer(Status.SEQUENCE, sequence=sequence)
        answer = b""
        self.outcome, answer = self._execute(code, payload, repeated)
        self.sequence = sequence
        status = self.outcome
        if status == Status.STALLED:
            self._reset()
            self.session = 0
        return self._answer(status, answer, sequence)

    def _reset(self) -> None:
        self.ring.reset()
        self.outcome = Status.OK
        self.width = self.channels = 0
        self._begin_frame()

    def _execute(self, code: int, payload: bytes, repeated: bool) -> tuple[Status, bytes]:
        layout = FIELDS.get(code)
        if layout is None:
            return Status.UNKNOWN, b""
        size = layout.size // 8
        if len(payload) < size:
            return Status.MALFORMED, b""
        fields, rest = unpack(layout, payload[:size]), payload[size:]
        if code in (Command.RUN, Command.FRAME):
            part = unpack(FRAME, payload[size - FRAME.size // 8:size])
            if not part["changes"] and part["elements"] != len(rest):
                return Status.MALFORMED, b""
            if part["elements"] and not self.channels:
                return Status.MALFORMED, b""
        if code == Command.FRAME:
            if part["begin"]:
                self._begin_frame()
            return self._frame(part, rest), b""
        if not self.ring.idle:
            return Status.RUNNING, b""
        if code == Command.RUN:
            fields = unpack(RUN, payload[:size])
            self.ring.run(fields["first"], fields["count"], fields["refresh"] & 1)
            self._begin_frame()
            return self._frame(part, rest), b""
        if code == Command.INPUT:
            return self._input(unpack(INPUT, payload[:size]), rest), b""
        return self._words(Command(code), unpack(MEMORY, payload[:size]), rest, repeated)

    def _input(self, fields: dict[str, int], rest: bytes) -> Status:
        channels = fields["channels"]
        if not 0 < channels <= self.link.input_channels or len(rest) != channels:
            return Status.MALFORMED
        self.width, self.channels = fields["width"], channels
        self.zeros[:channels] = rest
        return Status.OK

    def _frame(self, part: dict[str, int], rest: bytes) -> Status:
        """The elements of a packet, in words of S channels of a pixel."""
        rest = iter(rest)
        try:
            for offset, new in self._elements(part, rest):
                self._element(part, self.at + offset, new)
        except Stall:
            return Status.STALLED
        self.at += part["elements"]
        if part["end"] and not part["quiet"] and not self._send(1):
            return Status.STALLED
        if next(rest, None) is not None:
            return Status.STALLED
        return Status.BUSY if part["wait"] and not self.ring.idle else Status.OK

    def _elements(self, part: dict[str, int], rest: Iterator[int]) -> Iterator[tuple[int, int | None]]:
        """(number, new byte or None) of the elements that a packet tells. With ``values`` mask bits beyond the last
        element mean nothing; else they name elements (which a sane host does not do)."""
        def take() -> int:
            if (byte := next(rest, None)) is None:
                raise Stall
            return byte

        count, dense = part["elements"], part["values"] or not part["changes"]
        for block in range(0, count, 64):
            groups = take() if part["changes"] else 0
            for group in range(block, min(block + 64, count) if dense else block + 64, 8):
                mask = 0xFF
                if part["changes"]:
                    mask = take() if groups >> (group - block) // 8 & 1 else 0
                for i in range(group, min(group + 8, count) if dense else group + 8):
                    if mask >> i - group & 1:
                        yield i, take()
                    elif part["values"]:
                        yield i, None

    def _element(self, part: dict[str, int], position: int, new: int | None) -> None:
        channel, pixel = position % self.channels, position // self.channels
        old = self.mirror[position % len(self.mirror)]
        new = old if new is None else new
        self.mirror[position % len(self.mirror)] = new
        if part["quiet"]:
            return
        delta = new - (self.zeros[channel] if part["values"] else old)
        s = self.config.sweep
        place = pixel // self.width, pixel % self.width, channel // s
        if self.place not in (None, place) and any(self.word) and not self._send(0):
            raise Stall
        if self.place != place:
            self.place, self.word = place, [0] * s
        self.word[channel % s] = delta if abs(delta) >= part["threshold"] else 0

    def _send(self, last: int) -> bool:
        """The word to the ring; false when no step takes it."""
        if not self.ring.taking:
            return False
        self.ring.frame(tuple(self.word), *(self.place or (0, 0, 0)), last)
        if last:
            self._begin_frame(self.at)
        return True

    def _begin_frame(self, at: int = 0) -> None:
        self.at, self.place, self.word = at, None, [0] * self.config.sweep

    def _low_bytes(self, word: bytes) -> bytes:
        codes = int.from_bytes(word, "little")
        return bytes(codes >> 9 * i & 0xFF for i in range(self.config.sweep))

    def _words(self, code: Command, fields: dict[str, int], rest: bytes,
               repeated: bool) -> tuple[Status, bytes]:
        space = fields["space"]
        low = code in (Command.COPY, Command.CHANGES)
        size = 0
        if space in list(Space):
            size = (written_bytes(self.layouts, Space(space)) if code == Command.LOAD
                    else read_bytes(self.layouts, Space(space), low))
        total = size * fields["units"] * fields["words"]
        if not 0 < total < 1 << 16 or (code == Command.LOAD and total != len(rest)):
            return Status.MALFORMED, b""
        words = [((fields["unit"] + u) % 256, (fields["address"] + a) % (1 << 24))
                 for u in range(fields["units"]) for a in range(fields["words"])]
        if code == Command.LOAD:
            for i, (unit, address) in enumerate(words):
                self.ring.load(space, unit, address, rest[i * size:(i + 1) * size])
            return Status.OK, b""
        data = b"".join(self.ring.read(space, unit, address) for unit, address in words)
        if code == Command.READ:
            return Status.OK, data
        if space == Space.SNAPSHOTS:
            data = b"".join(self._low_bytes(self.ring.read(space, *word)) for word in words)
        where = [(fields["mirror"] + i) % len(self.mirror) for i in range(total)]
        packed = bytearray()
        for i in range(0, total, 8):
            changed = [data[j] != self.mirror[where[j]] for j in range(i, min(i + 8, total))]
            packed += bytes(data[i + j] for j, c in enumerate(changed) if c)
            packed.append(sum(c << j for j, c in enumerate(changed)))
        for i, byte in zip(where, data, strict=True):
            self.mirror[i] = byte
        return Status.OK, data if repeated or code == Command.COPY or len(packed) >= total else bytes(packed)
