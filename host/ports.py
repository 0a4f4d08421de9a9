"""Serial ports: which there are, and which of them an accelerator answers on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from host.configs import Named, board_of, boards
from host.errors import UserError
from host.link.connection import Connection, Identity, NoAnswer
from host.link.transport import SerialTransport

TIMEOUT = 0.4
"""Seconds to wait for the answer of a device that is asked who it is."""
ATTEMPTS = 3
"""How often it is asked at each baud rate."""


@dataclass(frozen=True)
class Port:
    """A serial port of this machine, and what the system says of it."""

    path: str
    description: str


@dataclass(frozen=True)
class Found:
    """An accelerator on an open serial port."""

    transport: SerialTransport
    baud: int
    identity: Identity

    @property
    def board(self) -> Named | None:
        """The board that is built with the device's config, None where no board of this version is."""
        return board_of(self.identity.config_hash)


def serial_ports() -> list[Port]:
    """The serial ports of this machine that have something behind them."""
    from serial.tools import list_ports

    return [Port(p.device, p.description) for p in sorted(list_ports.comports())
            if p.hwid != "n/a"]  # n/a: named by the system, but nothing is there


def baud_rates() -> tuple[int, ...]:
    """Those of the boards, fastest first."""
    return tuple(sorted({b.board.baud for b in boards()}, reverse=True))


def port_and_rates(text: str) -> tuple[str, tuple[int, ...]]:
    """PORT or PORT@BAUD -> path, and the baud rates to try (none: those of the boards). Raises UserError."""
    port, at, baud = text.partition("@")
    if not port or (at and not (baud.isdecimal() and int(baud))):
        raise UserError(f"'{text}' is no serial port: give its path, and perhaps its baud rate, such as /dev/ttyUSB1 "
                        "or /dev/ttyUSB1@3000000; rrm-fpga devices lists the ports")
    return port, (int(baud),) if at else ()


def find(port: str, rates: Sequence[int] = ()) -> Found:
    """Open a port and ask who is there, at each of these baud rates (default: those of the boards).

    Raises UserError when the port cannot be opened, is silent, or has something else behind it.
    """
    rates, heard = tuple(rates) or baud_rates(), 0
    for baud in rates:
        transport = SerialTransport(port, baud)
        link = Connection(transport, None, timeout=TIMEOUT, attempts=ATTEMPTS)
        try:
            return Found(transport, baud, link.identify())
        except NoAnswer:
            transport.close()
            heard += link.traffic.received
        except BaseException:
            transport.close()
            raise
    told = "only bytes that make no sense came" if heard else "nothing came"
    raise UserError(f"{port}: no accelerator answers at {' or '.join(map(str, rates))} baud, {told}; is the board on "
                    "and programmed, is this its port (rrm-fpga devices), is the baud rate right (serial:PORT@BAUD)?")
