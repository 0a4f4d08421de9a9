"""Digilent Arty A7 with the Artix-7 XC7A35T or XC7A100T."""

from __future__ import annotations

from boards.board import Board
from hw.config import AcceleratorConfig
from hw.link.packets import LinkConfig

_COMMON = {
    "name": "arty_a7", "family_name": "xc7", "clock": "clk100", "clock_pin_hz": 100_000_000, "reset": ("rst", 0),
    "leds": (("led", 0), ("led", 1), ("led", 2)), "clock_hz": 100_000_000, "baud": 6_000_000,
    "bridge": "FT2232H, 6 Mbaud (its timing is unstable between there and 12 Mbaud)",
}

BOARDS = (
    # The bundled network: 960 P words, 4608 snapshot words, 1216 weight words, 141 columns, 341 taps, 128x96 input.
    # A sweep of 4 rather than 8 halves the requantisation, which is what does not fit its LUTs.
    Board(
        variant="35", part="XC7A35T", platform_path="amaranth_boards.arty_a7:ArtyA7_35Platform",
        available={"LUT": 20800, "FF": 41600, "BRAM": 100, "DSP": 90}, programmer="arty_a7_35t",
        part_options=("xc7a35tcsg324-1",), lut_rams=("columns", "reaches", "spans"),
        config=AcceleratorConfig(pes=8, lanes=4, sweep=4, fifo_depth=64, kinds=("dense8",), max_size=128,
                                 projection_words=1024, snapshot_words=4608, weight_words=1536, column_words=192,
                                 tap_words=512, axis_words=256, node_words=64, channel_words=64, mark_words=128,
                                 reach_words=16, span_words=320),
        link=LinkConfig(buffer_bytes=4096, mirror_bytes=12288, timeout=4_000_000), **_COMMON),
    # All of ResNet-8, float (1154 P words) and QDQ (1346 P words, 4613 snapshot words), and the bundled network (217
    # columns, 257 taps, 128x96 input).
    Board(
        variant="100", part="XC7A100T", platform_path="amaranth_boards.arty_a7:ArtyA7_100Platform",
        available={"LUT": 63400, "FF": 126800, "BRAM": 270, "DSP": 240}, programmer="arty_a7_100t",
        part_options=("xc7a100tcsg324-1",), lut_rams=("columns", "taps"),
        config=AcceleratorConfig(pes=16, lanes=4, sweep=16, fifo_depth=64, kinds=("dense8",), max_size=128,
                                 projection_words=1346, snapshot_words=4613, weight_words=1724, column_words=256,
                                 tap_words=320, axis_words=192, node_words=64, channel_words=64, mark_words=256,
                                 reach_words=32, span_words=320),
        link=LinkConfig(buffer_bytes=4096, mirror_bytes=16384, timeout=4_000_000), **_COMMON),
)
"""The variants, default first."""
