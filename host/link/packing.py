"""Packing of what changed: frames on their way to the device, outputs on their way back.

Both ends know the same mirror, so only bytes that differ from it travel, with masks for their positions; or all
bytes, when that is less. Of n bytes of which k in m groups of 8 changed, a frame takes min(n, ceil(n / 64) + m + k)
and an output, which the device packs, min(n, k + ceil(n / 8)).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw.link.packets import BLOCK, GROUP

GROUPS = BLOCK // GROUP
"""Groups that a block's mask tells of."""


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
        most bytes of a part, at least 10.

    Changes are packed as blocks of 64 elements: a mask of its groups of 8, then for each group whose bit is set a
    mask of its elements and those whose bit is set.
    """
    limit, n = min(capacity, 0xFFFF), len(new)
    if old is not None:
        packed = list(_changes(new, new != old, limit))
        if sum(len(part.data) for part in packed) < n:
            yield from packed
            return
    for at in range(0, n, limit):
        data = new[at:at + limit].tobytes()
        yield Part(False, len(data), data)


def _changes(new: np.ndarray, changed: np.ndarray, limit: int) -> Iterator[Part]:
    """Parts of as many whole groups as they hold."""
    first, count = 0, -(-len(new) // GROUP)
    grid = np.zeros((count, GROUP), bool)
    grid.reshape(-1)[:len(new)] = changed
    sizes = grid.sum(axis=1) + grid.any(axis=1)
    while first < count:
        ends = np.cumsum(sizes[first:first + 0xFFFF // GROUP])
        ends += -(-np.arange(1, len(ends) + 1) // GROUPS)
        last = first + int(np.searchsorted(ends, limit, "right"))
        begin, end = first * GROUP, min(last * GROUP, len(new))
        yield Part(True, end - begin, _pack(new[begin:end], grid[first:last]))
        first = last


def _pack(new: np.ndarray, grid: np.ndarray) -> bytes:
    """The bytes in a grid [block, group, mask of the block | mask of the group | element], and those that are sent."""
    blocks = -(-len(grid) // GROUPS)
    data, sent = np.zeros((blocks, GROUPS, 2 + GROUP), np.uint8), np.zeros((blocks, GROUPS, 2 + GROUP), bool)
    changed = np.zeros((blocks, GROUPS, GROUP), bool)
    changed.reshape(-1, GROUP)[:len(grid)] = grid
    elements = np.zeros(changed.size, np.uint8)
    elements[:len(new)] = new
    present = changed.any(axis=2)
    data[:, 0, 0], sent[:, 0, 0] = np.packbits(present, axis=1, bitorder="little")[:, 0], True
    data[:, :, 1], sent[:, :, 1] = np.packbits(changed, axis=2, bitorder="little")[:, :, 0], present
    data[:, :, 2:], sent[:, :, 2:] = elements.reshape(changed.shape), changed
    return data[sent].tobytes()


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
