"""What a board is, and the list of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from boards.family import FAMILIES, Family
from host.errors import UserError
from hw.config import AcceleratorConfig
from hw.link.packets import LinkConfig

MODULES = ("arty_a7", "ulx3s")
"""The board files; each has ``BOARDS``, its variants with the default one first."""


@dataclass(frozen=True)
class Board:
    """A board and the accelerator that suits it.

    name, variant
        as on the command line; ``variant`` is "" where there is only one.
    part
        the FPGA, for people.
    family_name
        of its FPGA (``boards.family``).
    platform_path
        "module:Class" of its Amaranth platform.
    available
        resources of the part (``boards.family.RESOURCES``).
    clock, clock_pin_hz
        resource of the oscillator and its frequency.
    reset, leds
        resource and number of the reset button, and of the lights idle, busy and error.
    clock_hz
        what the accelerator is clocked with.
    baud
        of the serial port; ``bridge`` says what it goes through.
    programmer
        openFPGALoader's name of the board.
    config, link
        the accelerator.
    lut_rams
        names of memories that go into LUTs although they would fill part of a block RAM.
    part_options
        what names the part to the open place and route tool: options of nextpnr-ecp5, or for xc7 the part
        with package and speed grade.
    """

    name: str
    variant: str
    part: str
    family_name: str
    platform_path: str
    available: Mapping[str, int]
    clock: str
    clock_pin_hz: int
    reset: tuple[str, int]
    leds: tuple[tuple[str, int], tuple[str, int], tuple[str, int]]
    clock_hz: int
    baud: int
    bridge: str
    programmer: str
    config: AcceleratorConfig
    link: LinkConfig
    part_options: tuple[str, ...]
    lut_rams: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name and variant in one word, for file names."""
        return f"{self.name}_{self.variant}" if self.variant else self.name

    @property
    def family(self) -> Family:
        return FAMILIES[self.family_name]

    def platform_class(self) -> type:
        """Its Amaranth platform. Raises UserError when amaranth-boards is not installed."""
        module, name = self.platform_path.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as e:
            raise UserError(f"board '{self.name}' needs the Python package {str(e.name).replace('_', '-')}: "
                            "pip install 'rrm-fpga[boards]'") from e


def variants(name: str) -> tuple[Board, ...]:
    """The variants of a board, the default first. Raises UserError listing the boards there are."""
    if name not in MODULES:
        raise UserError(f"there is no board '{name}'; the boards are {', '.join(MODULES)}")
    return importlib.import_module(f"boards.{name}").BOARDS


def get_board(name: str, variant: str | None = None) -> Board:
    """A board by name and variant (default: its first one). Raises UserError."""
    known = variants(name)
    if variant is None:
        return known[0]
    for board in known:
        if board.variant == variant:
            return board
    choices = [f"'{b.variant}'" for b in known if b.variant]
    raise UserError(f"board '{name}' has no variant '{variant}'; "
                    + (f"it has {', '.join(choices)}" if choices else "leave the variant out"))
