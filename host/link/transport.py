"""Byte streams that a link can run over."""

from __future__ import annotations

import errno
import select
import socket
import time
from pathlib import Path
from typing import Protocol

from host.errors import UserError


class Transport(Protocol):
    """Bytes to and from a device."""

    name: str
    """What it is, for messages."""

    def write(self, data: bytes) -> None:
        """Send all of these bytes. Raises UserError when the device is gone."""

    def read(self, limit: int, timeout: float) -> bytes:
        """At least one byte and at most ``limit``, or none when there are none within ``timeout`` seconds.

        Raises UserError when the device is gone.
        """

    def close(self) -> None:
        """Give the device back."""


class SerialTransport:
    """A serial port (or a pseudo-terminal) by its path, through pyserial. Raises UserError when it cannot be opened."""

    def __init__(self, port: str, baud: int) -> None:
        import serial

        self.name = port
        try:
            self._port = serial.Serial(port, baud, exclusive=True)
        except (OSError, ValueError) as error:  # a SerialException is an OSError
            raise UserError(f"{port}: {_why_closed(port, baud, error)}") from error
        self._port.reset_input_buffer()

    def write(self, data: bytes) -> None:
        self._guard(self._port.write, data)

    def read(self, limit: int, timeout: float) -> bytes:
        self._port.timeout = timeout
        first = self._guard(self._port.read, 1)
        waiting = self._guard(lambda: self._port.in_waiting) if first and limit > 1 else 0
        return first + (self._guard(self._port.read, min(waiting, limit - 1)) if waiting else b"")

    def close(self) -> None:
        self._port.close()

    def _guard(self, call, *args):
        import serial

        try:
            return call(*args)
        except (serial.SerialException, OSError) as error:
            raise UserError(f"{self.name}: the serial port is gone: {error}") from error


def _why_closed(port: str, baud: int, error: Exception) -> str:
    """Why a serial port could not be opened, and what to do."""
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return "there is no such serial port; rrm-fpga devices lists those that are there"
    if number in (errno.EACCES, errno.EPERM):
        return f"no permission to open this serial port; become a member of the group {_group(port)} and log in again"
    if number in (errno.EBUSY, errno.EAGAIN):
        return "another program has this serial port open"
    return f"cannot open this serial port at {baud} baud: {error}"


def _group(port: str) -> str:
    """The group that may open a port (Linux: mostly dialout)."""
    try:
        return Path(port).group()
    except (OSError, KeyError, NotImplementedError):
        return "dialout"


class SocketTransport:
    """A connected socket."""

    def __init__(self, connected: socket.socket, name: str = "socket") -> None:
        self.name, self._socket = name, connected

    def write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise UserError(f"{self.name}: the connection is gone: {error}") from error

    def read(self, limit: int, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        readable, _, _ = select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return b""
        try:
            data = self._socket.recv(limit)
        except OSError as error:
            raise UserError(f"{self.name}: the connection is gone: {error}") from error
        if not data:
            raise UserError(f"{self.name}: the device closed the connection")
        return data

    def close(self) -> None:
        self._socket.close()
