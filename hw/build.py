"""``python -m hw.build``: a board's accelerator to a report, to Verilog, to a bitstream, into the board."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from boards import report
from boards.board import MODULES, Board, get_board
from boards.flow import Build, program
from host.errors import UserError
from hw.accelerator import Accelerator
from hw.load import NO_IMAGES, Images, images_hash

FOLDER = Path("build")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m hw.build", description=(
        "Build the accelerator for a board. Without --verilog or --bitstream it is synthesised and counted."))
    p.add_argument("--board", required=True, metavar="NAME", help=f"one of {', '.join(MODULES)}")
    p.add_argument("--variant", metavar="NAME", help="variant of the board (default: its first one)")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--estimate", action="store_true", help="synthesise and count (the default)")
    what.add_argument("--verilog", action="store_true", help="also write Verilog for the vendor's tools")
    what.add_argument("--bitstream", action="store_true", help="also place, route and pack")
    p.add_argument("--model", type=Path, metavar="FILE.rrm",
                   help="build this network in (from rrm-fpga compile): it is there at power-up")
    p.add_argument("--seed", type=int, nargs="+", default=[1], metavar="N",
                   help="seeds of place and route; the fastest result is packed (default: 1)")
    p.add_argument("--program", action="store_true", help="build the bitstream and load it into the board")
    p.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER",
                   help="where to write (default: build/)")
    return p


def build(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for. Raises UserError."""
    board = get_board(arguments.board, arguments.variant)
    images = NO_IMAGES if arguments.model is None else contents(arguments.model, board)
    design = Accelerator(board.config, board.link, images)
    work = Build(board, design, arguments.out / board.label, say, f"{images_hash(images):016x}" if images else "")
    facts = work.estimate()
    print(report.table(facts))
    if arguments.verilog:
        print(f"Verilog: {work.verilog()}")
    if arguments.bitstream or arguments.program:
        bitstream = work.bitstream(arguments.seed)
        timing = facts["timing"]
        print(f"{timing['fmax_mhz']} MHz of {timing['target_mhz']:g} MHz, {timing['kind']}")
        print(f"bitstream: {bitstream}")
        if arguments.program:
            program(board, bitstream, say)
    print(f"report: {work.folder / 'report.json'}")


def contents(path: Path, board: Board) -> Images:
    """What the memories of a board's accelerator hold when a network is built in. Raises UserError."""
    from host import rrm_file
    from host.configs import Named, program_for
    from host.link.program import device_program

    return device_program(program_for(rrm_file.load(path), Named.of(board))).contents


def say(what: str) -> None:
    """Tell what is being done."""
    print(f"{what} ...", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code is 2 when the input, the environment or the timing is wrong."""
    try:
        build(parser().parse_args(arguments))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
