"""Who is on a serial port, before anything else: one clear error for everything that is not the right device."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import serial

from host import ports
from host.cli import main
from host.compiler import Program
from host.configs import named
from host.errors import UserError
from host.link.rehearsal import HEAD, Rehearsal
from host.link.transport import SerialTransport
from host.session import open_model, quantised
from host.video import sample_frames
from hw.link.packets import CRC_BYTES, HEADER, LinkConfig, unpack
from tests.boards.board_line import terminal
from tests.link.test_accelerator import small_program


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """The path of a port on which each request is answered by a function."""
    with terminal() as (ours, path):
        def serve() -> None:
            data = b""
            while True:
                try:
                    data += os.read(ours, 4096)
                except OSError:
                    return
                while len(data) >= HEAD:
                    length = unpack(HEADER, data[2:HEAD - CRC_BYTES])["length"]
                    end = HEAD + (length + CRC_BYTES if length else 0)
                    if len(data) < end:
                        break
                    os.write(ours, answer(data[:end]))
                    data = data[end:]

        threading.Thread(target=serve, daemon=True).start()
        yield path


@contextmanager
def device(program: Program, link: LinkConfig) -> Iterator[str]:
    """The path of a port with a device that is built for a program, and computes nothing."""
    rehearsal = Rehearsal(program, link)

    def answer(request: bytes) -> bytes:
        rehearsal.write(request)
        return rehearsal.read(1 << 16, 0)

    with answering(answer) as path:
        yield path


@pytest.fixture(scope="module")
def program(tiny_onnx, tiny_clip) -> Program:
    """The tiny network for the ULX3S."""
    return named("ulx3s").compile(quantised(open_model(tiny_onnx), sample_frames(tiny_clip, 4)).network.graph)


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    monkeypatch.setattr(ports, "TIMEOUT", 0.1)


def one_error(capsys, arguments: list[str]) -> str:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_a_network_is_compiled_for_the_board_that_answers(capsys, program, tiny_onnx, tiny_clip) -> None:
    with device(program, named("ulx3s").link) as port:
        assert main(["devices", port]) == 0
        printed = capsys.readouterr().out
        assert main(["infer", str(tiny_clip), "--model", str(tiny_onnx), "--frames", "2", "--backend",
                     f"serial:{port}"]) == 0
    assert "ulx3s" in printed
    assert program.config.hash in printed
    assert "mirror of 16,384" in printed
    assert f"backend serial:{port}" in capsys.readouterr().out


def test_a_device_for_something_else_is_refused(capsys, tmp_path, program, tiny_onnx, tiny_clip) -> None:
    run = ["infer", str(tiny_clip), "--frames", "1", "--model"]
    arty = str(tmp_path / "arty.rrm")
    assert main(["compile", str(tiny_onnx), "--calibrate", str(tiny_clip), "--board", "arty_a7", "-o", arty]) == 0
    capsys.readouterr()
    with device(program, named("ulx3s").link) as port:
        told = one_error(capsys, [*run, arty, "--backend", f"serial:{port}"])
    assert f"the device is ulx3s (config {program.config.hash})" in told
    assert f"compiled for config {named('arty_a7').config.hash}" in told
    assert "rrm-fpga compile --config ulx3s" in told
    unknown = small_program(0)
    with device(unknown, LinkConfig()) as port:
        told = one_error(capsys, [*run, str(tiny_onnx), "--backend", f"serial:{port}"])
    assert f"config {unknown.config.hash}, which no board" in told


def test_what_is_no_accelerator_is_named(capsys) -> None:
    with terminal() as (_, silent):
        with pytest.raises(UserError, match="answers at 6000000 or 3000000 baud, nothing came; is the board on"):
            ports.find(silent)
    with answering(lambda request: request) as echo, pytest.raises(UserError, match="make no sense"):
        ports.find(echo, (9600,))
    assert "there is no such serial port" in one_error(capsys, ["infer", "--backend", "serial:/dev/nothing"])
    assert "'@9600' is no serial port" in one_error(capsys, ["infer", "--backend", "serial:@9600"])
    assert "'/dev/x@fast' is no serial port" in one_error(capsys, ["infer", "--backend", "serial:/dev/x@fast"])


def test_why_a_port_does_not_open(monkeypatch) -> None:
    with terminal() as (_, path):
        first = SerialTransport(path, 9600)
        with pytest.raises(UserError, match=f"{path}: another program has this serial port open"):
            ports.find(path)
        first.close()
        for number, message in ((errno.EACCES, "no permission .* become a member of the group "),
                                (errno.EIO, "cannot open this serial port at 9600 baud")):
            def refuse(*_, number=number, **__):
                raise serial.SerialException(number, os.strerror(number))

            monkeypatch.setattr(serial, "Serial", refuse)
            with pytest.raises(UserError, match=message):
                ports.find(path, (9600,))
