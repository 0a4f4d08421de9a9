"""Requests and answers: framing, sequence numbers, repetition, and noticing that the device was reset."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from host.errors import UserError
from host.link.transport import Transport
from hw.config import AcceleratorConfig
from hw.link.packets import (
    ANSWER,
    CRC_BYTES,
    FIELDS,
    HEADER,
    IDENTITY,
    MAGIC,
    PROTOCOL,
    REQUEST,
    Command,
    Status,
    crc_bytes,
    pack,
    packet,
    unpack,
)

HEAD_BYTES = HEADER.size // 8
NOT_RECEIVED = (Status.DAMAGED, Status.TRUNCATED, Status.TOO_LONG)
LOST = (Status.SESSION, Status.SEQUENCE, Status.STALLED, Status.RUNNING)


class NoAnswer(UserError):
    """Nobody answers."""


class DeviceReset(Exception):
    """The device does not know the session any more, or is not where the host thinks it is: begin anew."""


@dataclass
class Traffic:
    """What went over the link: bytes, requests that had to be repeated, sessions begun after the first."""

    sent: int = 0
    received: int = 0
    repeats: int = 0
    resets: int = 0

    def since(self, earlier: Traffic) -> Traffic:
        """The difference."""
        return Traffic(*(getattr(self, n) - getattr(earlier, n) for n in self.__dataclass_fields__))


@dataclass(frozen=True)
class Identity:
    """What a device says of itself; ``config_hash`` is 16 hex digits, ``program`` as of ``hw.load.images_hash``."""

    config_hash: str
    buffer_bytes: int
    mirror_bytes: int
    input_channels: int
    program: int


@dataclass(frozen=True)
class _Packet:
    header: Mapping[str, int]
    payload: bytes


class Connection:
    """One host's session with a device.

    Parameters
        transport: bytes to and from the device.
        config: what the device has to be built for; None will do for ``identify``.
        timeout: seconds without a byte after which a request is repeated. Longer than the device's own
            timeout, after which it gives up an unfinished packet.
        attempts: how often a request is sent before the device counts as gone.
        run_timeout: seconds that a run may take.

    Members
        traffic: counts of everything so far.
        identity: after ``identify``.
    """

    def __init__(self, transport: Transport, config: AcceleratorConfig | None, *, timeout: float = 1.0,
                 attempts: int = 8, run_timeout: float = 600.0) -> None:
        self.transport, self.config, self.timeout, self.attempts = transport, config, timeout, attempts
        self.run_timeout = run_timeout
        self.traffic = Traffic()
        self.identity: Identity | None = None
        self._session, self._known_session, self._sequence = 0, 0, 0
        self._received = bytearray()

    def identify(self) -> Identity:
        """Ask who is there; ``begin`` has to follow before the next request.

        Raises UserError when nobody is there, or another device or build than is needed.
        """
        name = self.transport.name
        self._sequence = (self._sequence + 1) % 256       # an answer to the last request is none to this
        answer = self._exchange(Command.IDENTIFY, b"")
        if len(answer.payload) != IDENTITY.size // 8 or unpack(IDENTITY, answer.payload)["magic"] != MAGIC:
            raise UserError(f"{name}: this is no rrm-fpga device")
        known = unpack(IDENTITY, answer.payload)
        if known["protocol"] != PROTOCOL:
            raise UserError(f"{name}: the device speaks link protocol {known['protocol']}, this program "
                            f"{PROTOCOL}; build the device anew, or use the program that it was built with")
        found = f"{known['config_hash']:016x}"
        if self.config is not None and found != self.config.hash:
            raise UserError(f"{name}: the device is built with config {found}, the network is compiled for "
                            f"config {self.config.hash}; compile it for this device, or build another")
        self.identity = Identity(found, known["buffer_bytes"], known["mirror_bytes"], known["input_channels"],
                                 known["program"])
        self._known_session = answer.header["session"]
        return self.identity

    def begin(self) -> None:
        """Begin a session: the device forgets everything. Raises UserError like ``identify``."""
        self.identify()
        self.traffic.resets += self._session != 0
        session = self._known_session
        while session in (0, self._known_session):
            session = secrets.randbelow(0xFFFF) + 1
        self._session = session
        self.request(Command.RESET)

    def request(self, command: Command, data: bytes = b"", **fields: int | Mapping[str, int]) -> bytes:
        """Have a command executed, once, and return the answer's payload.

        Raises DeviceReset when it cannot be because the session is lost, UserError when the device is gone.
        """
        layout = FIELDS[command]
        payload = (pack(layout, **fields) if layout is not None else b"") + data
        self._sequence = (self._sequence + 1) % 256
        deadline = time.monotonic() + self.run_timeout
        answer = self._exchange(command, payload)
        while answer.header["code"] == Status.BUSY:
            if time.monotonic() > deadline:
                raise UserError(f"{self.transport.name}: a run did not end within {self.run_timeout:g} s")
            answer = self._exchange(command, b"")             # its number says which packet is waited for
        status = answer.header["code"]
        if status in LOST or answer.header["session"] != self._session:
            raise DeviceReset(status)
        if status != Status.OK:
            name = Status(status).name if status in list(Status) else status
            raise UserError(f"{self.transport.name}: the device refused {command.name} with status {name}; "
                            "device and program do not fit together")
        return answer.payload

    def close(self) -> None:
        """Give the device back."""
        self.transport.close()

    def _exchange(self, command: Command, payload: bytes) -> _Packet:
        """Send a request until an answer to it comes back intact."""
        data = packet(REQUEST, payload, code=command, sequence=self._sequence, session=self._session)
        for attempt in range(self.attempts):
            self.traffic.repeats += attempt > 0
            self.transport.write(data)
            self.traffic.sent += len(data)
            answer = self._answer()
            if answer is not None:
                return answer
        raise NoAnswer(f"{self.transport.name}: no answer to {command.name} in {self.attempts} attempts; is "
                       "the device on, connected and programmed, and is this its port?")

    def _answer(self) -> _Packet | None:
        """The answer to the present request; None when it is to be repeated."""
        while (answer := self._packet()) is not None:
            if answer.header["code"] in NOT_RECEIVED:
                return None
            if answer.header["sequence"] == self._sequence:
                return answer
        return None

    def _packet(self) -> _Packet | None:
        """The next intact packet; None when the line falls silent before one is complete."""
        data, sync = self._received, ANSWER.to_bytes(2, "little")
        while True:
            start = data.find(sync)
            del data[:start if start >= 0 else max(0, len(data) - 1)]
            missing = 2 + HEAD_BYTES + CRC_BYTES - len(data)
            if start >= 0 and missing <= 0:
                head = bytes(data[2:2 + HEAD_BYTES])
                header = unpack(HEADER, head)
                body = 2 + HEAD_BYTES + CRC_BYTES
                end = body + (header["length"] + CRC_BYTES if header["length"] else 0)
                if bytes(data[2 + HEAD_BYTES:body]) != crc_bytes(head):
                    del data[:2]
                    continue
                missing = end - len(data)
                if missing <= 0:
                    payload = bytes(data[body:max(body, end - CRC_BYTES)])
                    if payload and bytes(data[end - CRC_BYTES:end]) != crc_bytes(payload):
                        header["code"] = Status.DAMAGED
                    del data[:end]
                    return _Packet(header, payload)
            more = self.transport.read(max(1, missing), self.timeout)
            if not more:
                data.clear()
                return None
            self.traffic.received += len(more)
            data += more
