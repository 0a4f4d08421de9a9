"""Packing of what changed: frames on their way to the device, outputs on their way back.

Both ends know the same mirror, so only bytes that differ from it travel, with one bit per byte for their
positions; or all bytes, when that is less. So n bytes of which k changed take min(n, k + ceil(n / 8)).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

GROUP = 8
"""Elements per mask byte."""


@dataclass(frozen=True)
class Part:
    """Elements that fit one packet: all of them, or only the ``changes``."""

    changes: bool
    elements: int
    data: bytes


def parts(new: np.ndarray, old: np.ndarray | None, capacity: int) -> Iterator[Part]:
    """Split and pack the elements of a frame.

    new, old
        uint8[n]: elements to send, and the device's mirror of them (None: not known).
    capacity
        most bytes of a part, at least 9.

    Changes are packed as groups of 8 elements: a mask, then the elements whose bit is set.
    """
    limit = min(capacity, 0xFFFF)
    if old is None or (size := -(-len(new) // GROUP) + np.count_nonzero(new != old)) >= len(new):
        for at in range(0, len(new), limit):
            data = new[at:at + limit].tobytes()
            yield Part(False, len(data), data)
        return
    packed, ends = _pack(new, new != old)
    assert len(packed) == size
    group, at = 0, 0
    while group < len(ends):
        last = int(np.searchsorted(ends, at + capacity, "right"))
        last = min(last, group + 0xFFFF // GROUP)
        yield Part(True, min(last * GROUP, len(new)) - group * GROUP, packed[at:ends[last - 1]].tobytes())
        group, at = last, int(ends[last - 1])


def _pack(new: np.ndarray, changed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(packed bytes, end of each group in them)."""
    groups = -(-len(new) // GROUP)
    grid = np.zeros(groups * GROUP, bool)
    grid[:len(new)] = changed
    grid = grid.reshape(groups, GROUP)
    ends = np.cumsum(1 + grid.sum(axis=1))
    packed = np.empty(ends[-1], np.uint8)
    masks = ends - 1 - grid.sum(axis=1)
    packed[masks] = np.packbits(grid, axis=1, bitorder="little")[:, 0]
    rest = np.ones(len(packed), bool)
    rest[masks] = False
    packed[rest] = new[changed]
    return packed, ends


def pack_changes(new: np.ndarray, old: np.ndarray) -> bytes:
    """The answer to CHANGES as a device packs it: ``unpack_changes(pack_changes(new, old), old) == new``, uint8[n]."""
    count = -(-len(new) // GROUP)
    data, sent = np.zeros((count, GROUP + 1), np.uint8), np.zeros((count, GROUP + 1), bool)
    changed = np.zeros((count, GROUP), bool)
    changed.reshape(-1)[:len(new)] = new != old
    padded = np.zeros(count * GROUP, np.uint8)
    padded[:len(new)] = new
    data[:, :GROUP], sent[:, :GROUP] = padded.reshape(-1, GROUP), changed
    data[:, GROUP], sent[:, GROUP] = np.packbits(changed, axis=1, bitorder="little")[:, 0], True
    return data[sent].tobytes() if sent.sum() < len(new) else new.tobytes()


def unpack_changes(data: bytes, old: bytes) -> bytes:
    """The answer to CHANGES, given the mirror: per 8 bytes those that changed, then their mask.

    An answer as long as the mirror holds every byte instead. Raises ValueError when it is inconsistent.
    """
    if len(data) == len(old):
        return data
    new, at = bytearray(old), len(data)
    for begin in reversed(range(0, len(old), GROUP)):
        at -= 1
        mask = data[at] if at >= 0 else 0
        for i in reversed(range(GROUP)):
            if mask >> i & 1:
                at -= 1
                if at < 0 or begin + i >= len(old):
                    raise ValueError("changes do not fit the bytes that they change")
                new[begin + i] = data[at]
    if at != 0:
        raise ValueError("changes do not fit the bytes that they change")
    return bytes(new)
