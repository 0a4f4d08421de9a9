"""What lies around the accelerator on a board: serial port, lights, clock, reset."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In, Out, connect

from boards.board import Board
from boards.clocking import Pll, drive_sync
from hw.queue import Queue
from hw.uart import Uart

AFTERGLOW_HZ = 10
"""A light shows an event for this part of a second."""


class Lamp(wiring.Component):
    """Makes short events visible.

    Parameters
    ----------
    cycles
        for which the light stays on after an event.

    Members
    -------
    event : In
    lit : Out
    """

    def __init__(self, *, cycles: int) -> None:
        self.cycles = cycles
        super().__init__({"event": In(1), "lit": Out(1)})

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(self.cycles + 1))
        m.d.sync += self.lit.eq(left != 0)
        with m.If(self.event):
            m.d.sync += left.eq(self.cycles)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return m


class SerialDesign(wiring.Component):
    """A design with two byte streams behind a serial port, and its lights: all of a board but clock and pins.

    Parameters
    ----------
    design
        a component with streams of bytes ``i`` and ``o`` and the outputs ``busy`` and ``error``.
    clock_hz, baud
        see ``hw.uart.Uart``.

    Members
    -------
    rx, tx : the serial lines
    idle, busy, error : Out
        the lights. ``error``: the serial port could not receive something, or the design says so.
    """

    def __init__(self, design: wiring.Component, *, clock_hz: int, baud: int) -> None:
        self.design, self.clock_hz, self.baud = design, clock_hz, baud
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "idle": Out(1), "busy": Out(1),
                          "error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.uart = uart = Uart(clock_hz=self.clock_hz, baud=self.baud)
        m.submodules.design = design = self.design
        m.submodules.busy = busy = Lamp(cycles=self.clock_hz // AFTERGLOW_HZ)
        m.submodules.error = error = Lamp(cycles=self.clock_hz // AFTERGLOW_HZ)
        m.submodules.leaving = leaving = Queue(8, depth=2)          # cuts the way from the bit clock to the design
        connect(m, uart.o, design.i)
        connect(m, design.o, leaving.i)
        connect(m, leaving.o, uart.i)
        m.d.comb += [uart.rx.eq(self.rx), self.tx.eq(uart.tx), busy.event.eq(design.busy),
                     error.event.eq(uart.framing_error | uart.overrun | design.error),
                     self.busy.eq(busy.lit), self.idle.eq(~busy.lit), self.error.eq(error.lit)]
        return m


class BoardTop(wiring.Component):
    """A design on a board's pins, in a clock domain made by its phase-locked loop.

    Parameters
    ----------
    board
    design
        see ``SerialDesign``.
    """

    def __init__(self, board: Board, design: wiring.Component) -> None:
        self.board, self.design = board, design
        super().__init__({})

    def elaborate(self, platform):
        m, board = Module(), self.board
        pll = Pll(family=board.family_name, input_hz=board.clock_pin_hz, output_hz=board.clock_hz)
        drive_sync(m, pll, self._input(m, platform, "clock", board.clock, 0),
                   self._input(m, platform, "reset_button", *board.reset))
        m.submodules.serial = serial = SerialDesign(self.design, clock_hz=round(pll.setting.output_hz),
                                                    baud=board.baud)
        port = platform.request("uart", 0, dir="-")
        m.submodules.rx = rx = io.Buffer("i", port.rx)
        m.submodules.tx = tx = io.Buffer("o", port.tx)
        m.d.comb += [serial.rx.eq(rx.i), tx.o.eq(serial.tx)]
        for (resource, number), name in zip(board.leds, ("idle", "busy", "error"), strict=True):
            pin = platform.request(resource, number, dir="-")
            m.submodules[f"{name}_led"] = led = io.Buffer("o", pin)
            m.d.comb += led.o.eq(getattr(serial, name))
        return m

    def _input(self, m: Module, platform, name: str, resource: str, number: int):
        m.submodules[name] = buffer = io.Buffer("i", platform.request(resource, number, dir="-"))
        return buffer.i
