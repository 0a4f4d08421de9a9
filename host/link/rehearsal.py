"""What a frame takes on the link, without a device: the driver's own packets, answered from a program's memories."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from host.compiler import Program
from host.configs import frame_reads, handed_out, link_for
from host.link.driver import Driver
from host.link.packing import pack_changes
from host.link.program import device_program
from hw.layouts import Space, pack
from hw.link.packets import (
    ANSWER,
    CRC_BYTES,
    HEADER,
    MEMORY,
    REQUEST,
    SYNC,
    Command,
    LinkConfig,
    Status,
    identity,
    packet,
    unpack,
)
from hw.link.words import read_bytes
from hw.readout import answer_layout

HEAD = SYNC.size // 8 + HEADER.size // 8 + CRC_BYTES
"""Bytes of a packet before its payload."""


class Rehearsal:
    """A device with memories and no accelerator; a ``host.link.transport.Transport``.

    It answers every request as a device does whose memories hold what ``keep`` put there.
    """

    name = "rehearsal"

    def __init__(self, program: Program, link: LinkConfig) -> None:
        self.program, self.link = program, link
        config = program.config
        self._elements = {
            Space.PROJECTIONS: np.zeros((config.groups, config.projection_words, config.sweep), np.int64),
            Space.SNAPSHOTS: np.zeros((1, config.snapshot_words, config.sweep), np.int64)}
        self._mirror = np.zeros(link.mirror_bytes, np.uint8)
        self._session, self._answers = 0, b""

    def keep(self, name: str, value: np.ndarray) -> None:
        """Put a tensor or projection int[C, H, W] where the program has it (``host.link.program.values`` undone)."""
        place, sweep = self.program.places[name], self.program.config.sweep
        word, unit = place.addresses(sweep)
        c, h, w = value.shape
        lanes = np.zeros((h, w, word.shape[2] * sweep), np.int64)
        lanes[:, :, :c] = value.transpose(1, 2, 0)
        elements = self._elements[Space.PROJECTIONS if place.projection else Space.SNAPSHOTS]
        elements[unit if place.projection else 0, word] = lanes.reshape(*word.shape, sweep)

    def write(self, data: bytes) -> None:
        """A whole request."""
        if data[:2] != REQUEST.to_bytes(2, "little"):
            return
        header, payload = unpack(HEADER, data[2:HEAD - CRC_BYTES]), b""
        if header["code"] == Command.RESET:
            self._session = header["session"]
        if header["code"] == Command.IDENTIFY:
            payload = identity(self.program.config, self.link)
        elif header["code"] in (Command.READ, Command.COPY, Command.CHANGES):
            payload = self._read(header["code"], unpack(MEMORY, data[HEAD:]))
        self._answers += packet(ANSWER, payload, code=Status.OK, sequence=header["sequence"], session=self._session)

    def read(self, limit: int, timeout: float) -> bytes:
        """What was answered."""
        data, self._answers = self._answers[:limit], self._answers[limit:]
        return data

    def close(self) -> None:
        """Nothing to give back."""

    def _read(self, code: int, fields: dict[str, int]) -> bytes:
        space = Space(fields["space"])
        if space == Space.COUNTERS:
            return bytes(fields["words"] * read_bytes(self.program.layouts, space))
        units, words = (slice(fields[first], fields[first] + fields[count])
                        for first, count in (("unit", "units"), ("address", "words")))
        elements = self._elements[space][units, words].reshape(-1, self.program.config.sweep)
        if space == Space.SNAPSHOTS and code != Command.READ:
            data = elements.astype(np.uint8).reshape(-1)
        else:
            layout = answer_layout(self.program.layouts, space)
            packed = np.ascontiguousarray(pack(layout, elements, len(elements)), "<u4").view(np.uint8)
            data = packed[:, :read_bytes(self.program.layouts, space)].reshape(-1)
        if code == Command.READ:
            return data.tobytes()
        mirror = self._mirror[fields["mirror"]:fields["mirror"] + len(data)]
        answer = data.tobytes() if code == Command.COPY else pack_changes(data, mirror)
        mirror[:] = data
        return answer


class LinkEstimate:
    """Counts the bytes of a clip, frame by frame; nothing is lost or repeated on its line.

    Parameters
        program: what runs.
        link: the device's; None is one with room for the input and the outputs.

    Polls while a frame takes longer than the device's timeout are left out.
    """

    def __init__(self, program: Program, link: LinkConfig | None = None) -> None:
        self._program = program
        self._device = Rehearsal(program, link or link_for(program))
        self._driver = Driver(self._device, program.config)
        self._driver.connect()
        self._driver.load(device_program(program))

    def frame(self, kept: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """(bytes sent, bytes received) for the frame that left these codes and accumulators [C, H, W] by name
        (tensors and projections, at least the input and the outputs)."""
        for name in handed_out(self._program.graph):
            self._device.keep(name, kept[name])
        codes = kept[self._program.graph.input]
        traffic = self._driver.frame(codes, reads=frame_reads(self._program)).traffic
        return traffic.sent, traffic.received
