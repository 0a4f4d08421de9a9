"""The packets of the link, once: RTL, driver and docs/link.md read these definitions.

Everything is little-endian. A packet is a sync word, a ``HEADER`` and its CRC and, when ``length`` is not 0,
that many bytes of payload and their CRC. The CRC is the CRC-32 of Ethernet, without the sync word.
A CRC-32 on the header as well costs two bytes more than a CRC-16 but no second CRC circuit; over 10 bytes it
detects every error of up to 7 bits, over 4 KiB every error of up to 3 bits and every burst of up to 32.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import IntEnum

from amaranth.hdl import unsigned
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.data import StructLayout

from hw.config import AcceleratorConfig

PROTOCOL = 3
"""Version of the protocol: raised whenever an older driver would misunderstand."""
MAGIC = 0x4D5252A6
"""First word of the answer to IDENTIFY."""
REQUEST, ANSWER = 0x5AA5, 0xC33C
"""``sync`` of what the host sends and of what the device sends."""
CRC = CRC32_ISO_HDLC(data_width=8)
CRC_BYTES = 4
GROUP, BLOCK = 8, 64
"""Elements of a frame that a mask byte tells of, one by one or by groups."""


class Command(IntEnum):
    """``code`` of a request."""

    IDENTIFY = 0
    RESET = 1
    LOAD = 2
    INPUT = 3
    RUN = 4
    FRAME = 5
    READ = 6
    COPY = 7
    CHANGES = 8


class Status(IntEnum):
    """``code`` of an answer."""

    OK = 0
    BUSY = 1
    DAMAGED = 2
    TRUNCATED = 3
    TOO_LONG = 4
    UNKNOWN = 5
    MALFORMED = 6
    SESSION = 7
    SEQUENCE = 8
    RUNNING = 9
    STALLED = 10


SYNC = StructLayout({"sync": unsigned(16)})
HEADER = StructLayout({"code": unsigned(8), "sequence": unsigned(8), "session": unsigned(16),
                       "length": unsigned(16)})
IDENTITY = StructLayout({"magic": unsigned(32), "protocol": unsigned(16), "input_channels": unsigned(16),
                         "config_hash": unsigned(64), "buffer_bytes": unsigned(32),
                         "mirror_bytes": unsigned(32), "program": unsigned(64)})
INPUT = StructLayout({"width": unsigned(16), "channels": unsigned(16)})
MEMORY = StructLayout({"space": unsigned(8), "unit": unsigned(8), "units": unsigned(8), "words": unsigned(16),
                       "address": unsigned(24), "mirror": unsigned(24)})
FRAME = StructLayout({"begin": unsigned(1), "end": unsigned(1), "wait": unsigned(1), "values": unsigned(1),
                      "changes": unsigned(1), "quiet": unsigned(1), "reserved": unsigned(2),
                      "threshold": unsigned(8), "elements": unsigned(16)})
RUN = StructLayout({"first": unsigned(16), "count": unsigned(16), "refresh": unsigned(8), "frame": FRAME})

FIELDS: Mapping[Command, StructLayout | None] = {
    Command.IDENTIFY: None, Command.RESET: None, Command.INPUT: INPUT, Command.LOAD: MEMORY, Command.RUN: RUN,
    Command.FRAME: FRAME, Command.READ: MEMORY, Command.COPY: MEMORY, Command.CHANGES: MEMORY}
"""The fields with which a request's payload begins. What follows them: LOAD words, INPUT zero points, RUN and
FRAME elements of the frame."""
PACKET_BYTES = 2 + HEADER.size // 8 + CRC_BYTES
"""Bytes of a packet without payload."""


@dataclass(frozen=True)
class LinkConfig:
    """Sizes of the link.

    buffer_bytes
        longest payload of a request.
    mirror_bytes
        bytes of the mirror: the last frame sent and the last outputs read.
    input_channels
        most channels of the input tensor.
    timeout
        cycles of silence after which an unfinished packet is given up, and cycles that a command waits for
        the ring before it answers BUSY or STALLED.
    """

    buffer_bytes: int = 4096
    mirror_bytes: int = 4096
    input_channels: int = 16
    timeout: int = 1 << 16

    def __post_init__(self) -> None:
        limits = {"buffer_bytes": (64, (1 << 16) - 1), "mirror_bytes": (1, 1 << 24),
                  "input_channels": (1, 1 << 12), "timeout": (16, 1 << 31)}
        for f in fields(self):
            value, (low, high) = getattr(self, f.name), limits[f.name]
            if not low <= value <= high:
                raise ValueError(f"link: {f.name} is {value}; it must lie in {low}..{high}")

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def identity(config: AcceleratorConfig, link: LinkConfig, program: int = 0) -> bytes:
    """The payload of the answer to IDENTIFY."""
    return pack(IDENTITY, magic=MAGIC, protocol=PROTOCOL, config_hash=int(config.hash, 16),
                buffer_bytes=link.buffer_bytes, mirror_bytes=link.mirror_bytes,
                input_channels=link.input_channels, program=program)


def crc_bytes(data: bytes) -> bytes:
    """The CRC of some bytes, as it is sent (``zlib`` has the same one as ``CRC``)."""
    return zlib.crc32(data).to_bytes(CRC_BYTES, "little")


def pack(layout: StructLayout, **values: int | Mapping[str, int]) -> bytes:
    """Fields to bytes; those left out are 0, and a field with fields of its own takes a mapping of them.
    Raises ValueError naming a field that does not fit."""
    if unknown := set(values) - set(layout.members):
        raise KeyError(f"no field {sorted(unknown)[0]!r}")
    word = 0
    for name, field in layout:
        value = values.get(name, 0)
        if isinstance(value, Mapping):
            value = int.from_bytes(pack(field.shape, **value), "little")
        if int(value) >> field.width:
            raise ValueError(f"{name} is {value}; it must lie in 0..{(1 << field.width) - 1}")
        word |= int(value) << field.offset
    return word.to_bytes(layout.size // 8, "little")


def unpack(layout: StructLayout, data: bytes) -> dict[str, int]:
    """Bytes to fields."""
    word = int.from_bytes(data[:layout.size // 8], "little")
    return {name: word >> field.offset & (1 << field.width) - 1 for name, field in layout}


def packet(sync: int, payload: bytes = b"", **header: int) -> bytes:
    """A whole packet; ``header`` gives code, sequence and session."""
    head = pack(HEADER, length=len(payload), **header)
    tail = payload + crc_bytes(payload) if payload else b""
    return pack(SYNC, sync=sync) + head + crc_bytes(head) + tail
