"""Clocks and resets: a phase-locked loop per FPGA family behind one portable component."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth.hdl import ClockDomain, ClockSignal, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out

TOLERANCE = 0.005
"""Largest relative difference between the clock asked for and the clock made."""


class ClockError(ValueError):
    """No setting of the loop makes the clock asked for."""


@dataclass(frozen=True)
class Setting:
    """``oscillator_hz = input_hz * multiplier / divider``; ``output_hz = oscillator_hz / output_divider``."""

    divider: int
    multiplier: int
    output_divider: int
    oscillator_hz: float
    output_hz: float


@dataclass(frozen=True)
class Limits:
    """What a family's loop can do: its dividers, inclusive ranges of phase detector and oscillator in Hz."""

    detector_hz: tuple[float, float]
    oscillator_hz: tuple[float, float]
    divider: range
    multiplier: range
    output_divider: range

    def settings(self, input_hz: float, output_hz: float) -> Iterator[Setting]:
        """For each pair of dividers the setting whose output is nearest to ``output_hz``."""
        for divider in self.divider:
            detector = input_hz / divider
            if not self.detector_hz[0] <= detector <= self.detector_hz[1]:
                continue
            for output_divider in self.output_divider:
                multiplier = round(output_hz * output_divider / detector)
                oscillator = detector * multiplier
                in_range = self.oscillator_hz[0] <= oscillator <= self.oscillator_hz[1]
                if multiplier in self.multiplier and in_range:
                    yield Setting(divider, multiplier, output_divider, oscillator,
                                  oscillator / output_divider)

    def best(self, input_hz: float, output_hz: float) -> Setting:
        """The nearest output; of equals, the fastest phase detector, then the oscillator nearest to mid
        range. Raises ClockError."""
        middle = sum(self.oscillator_hz) / 2
        found = min(self.settings(input_hz, output_hz), default=None, key=lambda s: (
            abs(s.output_hz - output_hz), s.divider, abs(s.oscillator_hz - middle)))
        if found is None or abs(found.output_hz - output_hz) > TOLERANCE * output_hz:
            nearest = f"; the nearest is {found.output_hz / 1e6:.3f} MHz" if found else ""
            raise ClockError(f"no clock of {output_hz / 1e6:g} MHz can be made from {input_hz / 1e6:g} MHz"
                             f"{nearest}")
        return found


LIMITS = {
    # ECP5 data sheet, sysCLOCK PLL timing. The loop is closed through output CLKOP: its divider multiplies.
    "ecp5": Limits(detector_hz=(10e6, 400e6), oscillator_hz=(400e6, 800e6), divider=range(1, 129),
                   multiplier=range(1, 129), output_divider=range(1, 129)),
    # Artix-7 data sheet DS181, PLL switching characteristics, slowest speed grade.
    "xc7": Limits(detector_hz=(19e6, 450e6), oscillator_hz=(800e6, 1600e6), divider=range(1, 57),
                  multiplier=range(2, 65), output_divider=range(1, 129)),
}
"""Limits of each FPGA family."""


class Pll(wiring.Component):
    """A phase-locked loop.

    Parameters
    ----------
    family
        one of ``LIMITS``.
    input_hz, output_hz
        clock given and clock wanted; ``setting`` has what is made. Raises ClockError.

    Members
    -------
    clk_i, clk_o : clocks
    reset : In
    locked : Out
        ``clk_o`` runs at its frequency.
    """

    def __init__(self, *, family: str, input_hz: float, output_hz: float) -> None:
        self.family, self.input_hz = family, input_hz
        self.setting = LIMITS[family].best(input_hz, output_hz)
        super().__init__({"clk_i": In(1), "clk_o": Out(1), "reset": In(1), "locked": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.loop = {"ecp5": self._ecp5, "xc7": self._xc7}[self.family](m)
        return m

    def _ecp5(self, m: Module) -> Instance:
        s, feedback = self.setting, Signal()
        return Instance(
            "EHXPLLL", a_FREQUENCY_PIN_CLKI=f"{self.input_hz / 1e6:.6f}",
            a_FREQUENCY_PIN_CLKOP=f"{self.input_hz / s.divider / 1e6:.6f}",
            a_FREQUENCY_PIN_CLKOS=f"{s.output_hz / 1e6:.6f}",
            p_CLKI_DIV=s.divider, p_CLKFB_DIV=1, p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=s.multiplier, p_CLKOP_CPHASE=s.multiplier - 1,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED", p_CLKOS_DIV=s.output_divider, p_CLKOS_CPHASE=s.output_divider - 1,
            p_CLKOS_FPHASE=0, p_PLLRST_ENA="ENABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED", p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB",
            p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD",
            i_CLKI=self.clk_i, i_CLKFB=feedback, i_RST=self.reset, i_STDBY=0, i_PHASESEL0=0, i_PHASESEL1=0,
            i_PHASEDIR=1, i_PHASESTEP=1, i_PHASELOADREG=1, i_PLLWAKESYNC=0, i_ENCLKOP=0, i_ENCLKOS=0,
            o_CLKOP=feedback, o_CLKOS=self.clk_o, o_LOCK=self.locked)

    def _xc7(self, m: Module) -> Instance:
        s, feedback, output = self.setting, Signal(), Signal()
        m.submodules.buffer = Instance("BUFG", i_I=output, o_O=self.clk_o)
        return Instance(
            "PLLE2_BASE", p_CLKIN1_PERIOD=1e9 / self.input_hz, p_DIVCLK_DIVIDE=s.divider,
            p_CLKFBOUT_MULT=s.multiplier, p_CLKOUT0_DIVIDE=s.output_divider,
            i_CLKIN1=self.clk_i, i_CLKFBIN=feedback, i_RST=self.reset, i_PWRDWN=0,
            o_CLKFBOUT=feedback, o_CLKOUT0=output, o_LOCKED=self.locked)


def drive_sync(m: Module, pll: Pll, clock, reset) -> None:
    """Make domain ``sync`` from a pin's clock; in reset while ``reset`` (asynchronous) or not yet locked."""
    m.domains.sync = ClockDomain("sync")
    m.submodules.pll = pll
    m.d.comb += [pll.clk_i.eq(clock), pll.reset.eq(reset), ClockSignal("sync").eq(pll.clk_o)]
    m.submodules.reset = ResetSynchronizer(~pll.locked | reset, domain="sync")
