"""The driver over a socket and over a serial port (a pseudo-terminal), in real time, on a line that loses bytes."""

from __future__ import annotations

import os
import random
import select
import socket
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from host.errors import UserError
from host.link.driver import Driver
from host.link.transport import SerialTransport, SocketTransport
from tests.link.bench import CONFIG
from tests.link.device_model import DeviceModel
from tests.link.fake_device import AddingRing
from tests.link.test_driver import LINK, SHAPE, Expected, clip, program, regions

SILENCE = 0.04
"""Seconds after which the device gives up an unfinished packet, as on a board."""
TIMEOUT = 0.3
"""Seconds after which the driver repeats a request."""


def serve(descriptor: int, power_cuts: list[int]) -> None:
    """The device's model at the other end of a line, until the line is closed. Every 13th time that bytes come, one of
    them is lost; it forgets everything after as many of these times as ``power_cuts`` says."""
    ring, rng, times = AddingRing(CONFIG, SHAPE), random.Random(0), 0

    def power_up() -> DeviceModel:
        ring.power_up()
        return DeviceModel(CONFIG, LINK, ring, lambda data: os.write(descriptor, data))

    device = power_up()
    while True:
        if not select.select([descriptor], [], [], SILENCE)[0]:
            device.silence()
            continue
        try:
            data = os.read(descriptor, 4096)
        except OSError:
            return
        if not data:
            return
        times += 1
        if times in power_cuts:
            device = power_up()
        if times % 13 == 0:
            at = rng.randrange(len(data))
            data = data[:at] + data[at + 1:]
        device.feed(data)


@contextmanager
def line(kind: str, power_cuts: list[int]) -> Iterator[SocketTransport | SerialTransport]:
    """A transport with a device behind it."""
    if kind == "socket":
        ours, theirs = socket.socketpair()
        transport, far = SocketTransport(ours), theirs.detach()
    else:
        far, near = os.openpty()
        tty.setraw(near)
        transport = SerialTransport(os.ttyname(near), 3_000_000)
        os.close(near)
    thread = threading.Thread(target=serve, args=(far, power_cuts))
    thread.start()
    try:
        yield transport
    finally:
        transport.close()
        thread.join(5)
        os.close(far)
    assert not thread.is_alive()


@pytest.mark.parametrize("kind", ["socket", "serial"])
def test_frames_in_real_time(kind):
    """Every frame right; the one that met a power cut was a refresh."""
    made = program()
    with line(kind, power_cuts=[30]) as transport:
        driver = Driver(transport, CONFIG, timeout=TIMEOUT)
        driver.connect()
        driver.load(made)
        expected, refreshes, repeats = Expected(made.input), [], 0
        for codes in clip(14):
            report = driver.frame(codes, reads=regions(low=made.input.low))
            expected.frame(codes, report.refresh)
            expected.check(report.data)
            refreshes.append(report.refresh)
            repeats += report.traffic.repeats
    assert refreshes[0]
    assert sum(refreshes) == 2
    assert repeats >= 1


@pytest.mark.parametrize("kind", ["socket", "serial"])
def test_a_line_that_is_closed_is_one_error(kind):
    if kind == "socket":
        ours, theirs = socket.socketpair()
        transport = SocketTransport(ours, "the socket")
        theirs.close()
        message = "the socket: the (device closed the connection|connection is gone)"
    else:
        far, near = os.openpty()
        transport = SerialTransport(os.ttyname(near), 3_000_000)
        os.close(near)
        os.close(far)
        message = "/dev/pts/.*: the serial port is gone"
    with pytest.raises(UserError, match=message):
        Driver(transport, CONFIG, timeout=TIMEOUT).connect()
    transport.close()
