"""``rrm-fpga devices``: what a network can run on here, the boards on serial ports first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from host.ports import Port


def devices(
        ports: Annotated[list[str] | None, typer.Argument(
            metavar="[PORT]...", show_default=False,
            help="Serial ports to ask, PORT or PORT@BAUD; all of this machine if not given.")] = None) -> int:
    """List the serial ports, which of them an accelerator answers on, and the backends of `infer`.

    Every port is opened and asked at the baud rates of the boards; a device that is something else gets a few bytes
    that it may not know. With ports named, the exit code is 1 when an accelerator answers on none of them.

    Examples:

        rrm-fpga devices
        rrm-fpga devices /dev/ttyUSB1
    """
    from rich.table import Table

    from host.cli.terminal import show, waiting
    from host.devices import BACKENDS
    from host.ports import Port, serial_ports

    known = {p.path: p for p in serial_ports()}
    wanted = [known.get(p, Port(p, "")) for p in ports] if ports else list(known.values())
    if wanted:
        with waiting() as say, ThreadPoolExecutor(len(wanted)) as pool:
            say(f"asking {len(wanted)} serial port{'s' if len(wanted) > 1 else ''}")
            answers = list(pool.map(_ask, wanted))
        table = Table("port", "description", "accelerator", "config", "link")
        for port, (cells, _) in zip(wanted, answers, strict=True):
            table.add_row(port.path, port.description, *cells)
        show(table)
    else:
        answers = []
        print("no serial ports: plug a board in, or name a port")
    table = Table("--backend", "what it is")
    for name, function in BACKENDS.items():
        table.add_row(name, function.__doc__)
    show(table)
    return 0 if not ports or any(there for _, there in answers) else 1


def _ask(port: Port) -> tuple[tuple[str, str, str], bool]:
    """(what answers, its config, its link or why nothing does), and whether it is an accelerator."""
    from host.errors import UserError
    from host.ports import find, port_and_rates

    try:
        found = find(*port_and_rates(port.path))
    except UserError as error:
        return ("[yellow]none[/]", "", str(error).partition(": ")[2]), False
    found.transport.close()
    who, name = found.identity, found.board.name if found.board else "config of no board"
    link = (f"{found.baud:,} baud, packets of {who.buffer_bytes:,} bytes, mirror of {who.mirror_bytes:,}, "
            f"{who.input_channels} input channels")
    return (f"[green]{name}[/]", who.config_hash, link), True
