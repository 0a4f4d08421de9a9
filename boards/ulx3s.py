"""ULX3S with the ECP5 LFE5U-85F."""

from __future__ import annotations

from boards.board import Board
from hw.config import AcceleratorConfig
from hw.link.packets import LinkConfig

BOARDS = (Board(
    name="ulx3s", variant="", part="LFE5U-85F", family_name="ecp5",
    platform_path="amaranth_boards.ulx3s:ULX3S_85F_Platform",
    available={"LUT": 83640, "FF": 83640, "BRAM": 208, "DSP": 156},
    clock="clk25", clock_pin_hz=25_000_000, reset=("button_fire", 0),
    leds=(("led", 0), ("led", 1), ("led", 2)),
    clock_hz=80_000_000, baud=3_000_000, bridge="FT231X, 3 Mbaud at most",
    programmer="ulx3s", part_options=("--85k", "--package", "CABGA381", "--speed", "6"),
    config=AcceleratorConfig(pes=8, lanes=4, sweep=4, fifo_depth=64, kinds=("dense8",), max_size=128,
                             projection_words=1024, snapshot_words=8192, weight_words=2048, column_words=192,
                             tap_words=512, axis_words=256, node_words=64, channel_words=64),
    link=LinkConfig(buffer_bytes=4096, mirror_bytes=16384, timeout=3_200_000),
),)
"""The variants, default first."""
