"""Digilent Arty A7 with the Artix-7 XC7A35T or XC7A100T."""

from __future__ import annotations

from boards.board import Board
from hw.config import AcceleratorConfig
from hw.link.packets import LinkConfig

_COMMON = {
    "name": "arty_a7", "family_name": "xc7", "clock": "clk100", "clock_pin_hz": 100_000_000,
    "reset": ("rst", 0), "leds": (("led", 0), ("led", 1), ("led", 2)), "clock_hz": 100_000_000,
    "baud": 6_000_000,
    "bridge": "FT2232H, 6 Mbaud (its timing is unstable between there and 12 Mbaud)",
}

BOARDS = (
    Board(
        variant="35", part="XC7A35T", platform_path="amaranth_boards.arty_a7:ArtyA7_35Platform",
        available={"LUT": 20800, "FF": 41600, "BRAM": 100, "DSP": 90}, programmer="arty_a7_35t",
        part_options=("xc7a35tcsg324-1",),
        config=AcceleratorConfig(pes=8, lanes=4, sweep=8, kinds=("dense8",), projection_words=1024,
                                 snapshot_words=4096, weight_words=1536, column_words=64, tap_words=64,
                                 axis_words=256),
        link=LinkConfig(), **_COMMON),
    Board(
        variant="100", part="XC7A100T", platform_path="amaranth_boards.arty_a7:ArtyA7_100Platform",
        available={"LUT": 63400, "FF": 126800, "BRAM": 270, "DSP": 240}, programmer="arty_a7_100t",
        part_options=("xc7a100tcsg324-1",),
        config=AcceleratorConfig(pes=16, lanes=4, sweep=16, kinds=("dense8",), projection_words=1346,
                                 snapshot_words=4608, weight_words=1723, column_words=64, tap_words=64,
                                 axis_words=256),
        link=LinkConfig(), **_COMMON),
)
"""The variants, default first."""
