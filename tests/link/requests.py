"""Requests for the tests, valid and otherwise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

from hw.layouts import Layouts, Space
from hw.link.packets import FIELDS, REQUEST, Command, pack, packet
from hw.link.words import READABLE, read_bytes, written_bytes
from tests.link.bench import CONFIG, LINK, SILENCE

SESSION = 0x1234
WIDTH, HEIGHT, CHANNELS = 3, 2, 6


def request(code: int, sequence: int, data: bytes = b"", session: int = SESSION, **fields) -> bytes:
    """A request with these fields and data behind them."""
    payload = pack(FIELDS[Command(code)], **fields) if fields else b""
    return packet(REQUEST, payload + data, code=code, sequence=sequence % 256, session=session)


def elements(rng: random.Random, count: int, changes: bool) -> bytes:
    """Random elements of a frame, as every one or as changes."""
    if not changes:
        return rng.randbytes(count)
    data = bytearray()
    for block in range(0, count, 64):
        groups = range(block, min(block + 64, count), 8)
        present = rng.getrandbits(8) & (1 << len(groups)) - 1
        data.append(present)
        for i, group in enumerate(groups):
            if present >> i & 1:
                mask = rng.getrandbits(8) & rng.getrandbits(8) & (1 << min(8, count - group)) - 1
                data.append(mask)
                data += rng.randbytes(mask.bit_count())
    return bytes(data)


def load(rng: random.Random, sequence: int) -> bytes:
    """A LOAD of one or two units of a random space."""
    layouts = Layouts(CONFIG)
    space = rng.choice([s for s in Space if 0 < written_bytes(layouts, s) < 60])
    size, units = written_bytes(layouts, space), rng.choice((1, 1, 2))
    words = rng.randint(1, max(1, 100 // (size * units)))
    if size * units * words > 110:
        units = words = 1
    return request(Command.LOAD, sequence, rng.randbytes(size * units * words), space=space,
                   unit=rng.randrange(4), units=units, words=words, address=rng.randrange(16))


def read(rng: random.Random, sequence: int, command: Command) -> bytes:
    """A READ, COPY or CHANGES, always of the same few words so that changes are few."""
    space = rng.choice(READABLE)
    words = {Space.COUNTERS: 1, Space.PROJECTIONS: 2, Space.SNAPSHOTS: 5}[space]
    assert words * read_bytes(Layouts(CONFIG), space) <= LINK.mirror_bytes
    return request(command, sequence, space=space, units=1, words=words, address=3, mirror=16)


def frame(rng: random.Random, sequence: int) -> Iterator[bytes]:
    """A RUN with a frame in one to three packets."""
    total, refresh = WIDTH * HEIGHT * CHANNELS, rng.random() < .3
    cuts = sorted(rng.sample(range(total + 1), rng.randrange(3)))
    bounds = [0, *cuts, total]
    for i, (a, b) in enumerate(pairwise(bounds)):
        changes = rng.random() < .6
        last = i == len(bounds) - 2
        part = {"elements": b - a, "end": last, "wait": last, "changes": changes, "values": refresh,
                "threshold": rng.choice((0, 0, 3, 40))}
        data = elements(rng, b - a, changes)
        if i == 0:
            yield request(Command.RUN, sequence, data, first=0, count=2, refresh=refresh, frame=part)
        else:
            yield request(Command.FRAME, sequence + i, data, **part)


def start() -> list[bytes]:
    """RESET and INPUT, which take sequence numbers 0 and 1."""
    zeros = bytes(range(100, 100 + CHANNELS))
    return [request(Command.RESET, 0), request(Command.INPUT, 1, zeros, width=WIDTH, channels=CHANNELS)]


def valid(rng: random.Random, count: int) -> list[bytes]:
    """About ``count`` valid requests in sequence; packet i has sequence number i."""
    script, kinds = start(), ("load", "run", "read", "copy", "changes", "changes", "frame", "frame")
    script.append(load(rng, len(script)))
    while len(script) < count:
        kind, sequence = rng.choice(kinds), len(script)
        if kind == "load":
            script.append(load(rng, sequence))
        elif kind == "run":
            script.append(request(Command.RUN, sequence, first=1 + rng.randrange(3), count=rng.randrange(4),
                                  frame={"wait": rng.randrange(2)}))
        elif kind == "frame":
            script += frame(rng, sequence)
        else:
            script.append(read(rng, sequence, Command[kind.upper()]))
    return script


def mutate(rng: random.Random, p: bytes) -> list:
    """A packet, or what a bad line or a bad host makes of it."""
    kind = rng.randrange(8)
    if kind == 0:
        bits = bytearray(p)
        for _ in range(rng.randint(1, 4)):
            bits[rng.randrange(len(p))] ^= 1 << rng.randrange(8)
        return [bytes(bits), SILENCE, p]
    if kind == 1:
        at = rng.randrange(len(p))
        return [p[:at] + p[at + 1:], SILENCE, p]
    if kind == 2:
        return [p[:rng.randrange(len(p))], SILENCE, p]
    if kind == 3:
        return [p, p]
    if kind == 4:
        at = rng.randrange(len(p))
        return [p[:at] + rng.randbytes(1) + p[at:], SILENCE, p]
    if kind == 5:
        return [rng.randbytes(20), SILENCE, p]
    if kind == 6:
        return [request(Command.IDENTIFY, rng.randrange(256), session=rng.randrange(1 << 16)), p]
    return [p]
