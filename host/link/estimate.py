"""Bytes on the link that a frame takes, from what changed in it: what ``Driver`` would send and receive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from host.compiler import Program
from host.configs import link_for, output_regions
from host.link.driver import MOST_BYTES, Region
from host.link.packing import GROUP, parts
from hw.layouts import Space, pack
from hw.link.packets import CRC_BYTES, FRAME, MEMORY, PACKET_BYTES, RUN, LinkConfig
from hw.link.words import read_bytes
from hw.readout import answer_layout


class LinkEstimate:
    """Counts the bytes of a clip, frame by frame; nothing is lost or repeated on its line.

    Parameters
        program: what runs.
        link: the device's; None is one with room for the input and the outputs.

    It leaves out what is rare: new zero points of an input whose channels have several ranges, and polls while a frame
    takes longer than the device's timeout.
    """

    def __init__(self, program: Program, link: LinkConfig | None = None) -> None:
        self._program, self._link = program, link or link_for(program)
        self._regions = output_regions(program)
        self._mirrored = set(self._with_mirror())
        self._sent: np.ndarray | None = None
        self._known: dict[str, np.ndarray] = {}

    def frame(self, kept: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """(bytes sent, bytes received) for the frame that left these codes and accumulators [C, H, W] by name
        (tensors and projections, at least the input and the outputs)."""
        code = self._program.graph.tensors[self._program.graph.input].code
        pixels = (kept[self._program.graph.input] - code.lo).transpose(1, 2, 0).reshape(-1).astype(np.uint8)
        capacity = self._link.buffer_bytes - RUN.size // 8
        fields, sent, received = RUN, 0, 0
        for part in parts(pixels, self._sent, capacity):
            sent += PACKET_BYTES + CRC_BYTES + fields.size // 8 + len(part.data)
            received += PACKET_BYTES
            fields = FRAME
        self._sent = pixels
        for name, region in self._regions.items():
            sent += PACKET_BYTES + CRC_BYTES + MEMORY.size // 8
            received += PACKET_BYTES + CRC_BYTES + self._answer(name, region, kept[name])
        return sent, received

    def _answer(self, name: str, region: Region, values: np.ndarray) -> int:
        """Bytes of an output: those that changed and a mask, or all of them."""
        new, old = self._bytes(name, region, values), self._known.get(name)
        if name in self._mirrored:
            self._known[name] = new
        if old is None:
            return len(new)
        return min(len(new), int(np.count_nonzero(new != old)) + -(-len(new) // GROUP))

    def _bytes(self, name: str, region: Region, values: np.ndarray) -> np.ndarray:
        """The words of an output as they travel, uint8[bytes]."""
        program, place = self._program, self._program.places[name]
        sweep = program.config.sweep
        word, unit = place.addresses(sweep)                                    # [y, x, group]
        padded = np.zeros((*values.shape[1:], word.shape[2] * sweep), np.int64)
        padded[..., :values.shape[0]] = values.transpose(1, 2, 0)
        elements = np.zeros((region.units, region.words, sweep), np.int64)
        elements[unit if place.projection else np.zeros_like(unit), word - place.base] = (
            padded.reshape(*word.shape, sweep))
        elements = elements.reshape(-1, sweep)
        if name in self._mirrored and region.space == Space.SNAPSHOTS:
            return elements.astype(np.uint8).reshape(-1)
        layout = answer_layout(program.layouts, region.space)
        size = read_bytes(program.layouts, region.space)
        return pack(layout, elements, len(elements)).astype("<u4").view(np.uint8)[:, :size].reshape(-1)

    def _with_mirror(self) -> Iterator[str]:
        """The outputs that the device's mirror has room for, in the order in which the driver asks for them."""
        start = int(np.prod(self._program.graph.tensors[self._program.graph.input].shape))
        for name, region in self._regions.items():
            low = region.space == Space.SNAPSHOTS
            total = region.units * region.words * read_bytes(self._program.layouts, region.space, low=low)
            if total <= MOST_BYTES and not (low and region.low is None) and start + total <= self._link.mirror_bytes:
                start += total
                yield name
