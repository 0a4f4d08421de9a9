"""From a design on a board to the files that the tools read."""

from __future__ import annotations

import warnings

from amaranth.lib import wiring

from boards.board import Board
from boards.top import BoardTop

TOP = "top"
"""Name of the top module and of the files."""


def prepare(board: Board, design: wiring.Component, **overrides: str) -> dict[str, str]:
    """Name -> text of the files of a build: ``top.il`` (RTLIL), the constraints of pins and clocks
    (``top.lpf`` or ``top.xdc``) and for Vivado its script ``top.tcl``.
    ``overrides`` are those of the Amaranth platform.

    Raises UserError when amaranth-boards is not installed.
    """
    base = board.platform_class()

    class Platform(base):
        """The board's platform, which hands over RTLIL and leaves Verilog to this project's own Yosys."""

        @property
        def file_templates(self):
            kept = {name: text for name, text in super().file_templates.items() if not name.endswith(".v")}
            return kept | {"{{name}}.il": "{{emit_rtlil()}}"}

    with warnings.catch_warnings():
        # The platform of amaranth-boards defines resources in forms that Amaranth is about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        plan = Platform().prepare(BoardTop(board, design), TOP, **overrides)
    wanted = (".il", ".lpf", ".xdc", ".tcl")
    return {name: text if isinstance(text, str) else text.decode() for name, text in plan.files.items()
            if name.endswith(wanted)}
