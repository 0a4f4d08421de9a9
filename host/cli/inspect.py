"""``rrm-fpga inspect``: the RRM graph of a network as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
        network: Annotated[Path, typer.Argument(metavar="MODEL", help="The network, .onnx or .rrm.")],
        json: Annotated[Path | None, typer.Option(
            metavar="FILE", help="Also write the table as JSON.")] = None) -> None:
    """Show a network as the accelerator sees it.

    Tensors, projections, edges and nodes with their sizes; MACs, weights, zeros, state in bytes, and what
    runs on the host. A network that cannot run is listed part by part, each with the reason.

    Examples:

        rrm-fpga inspect net.onnx
        rrm-fpga inspect net.onnx --json net.json
    """
    from host.cli.terminal import show
    from host.inspect import summarise
    from host.output import JsonLines, check_writable
    from host.session import open_network

    if json is not None:
        check_writable(json)
    summary = summarise(open_network(network))
    show(summary.render())
    if json is not None:
        with JsonLines(json) as out:
            out.write(summary.as_dict())
            out.commit()
