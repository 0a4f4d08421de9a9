"""The ``rrm-fpga`` command. Each sub-command is a module; everything heavy is imported when it runs.

Errors that a user can mend (``UserError``, wrong options) are one line on stderr and exit code 2, Ctrl-C is
exit code 130. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from host.cli.analyze import analyze
from host.cli.compile import compile_network
from host.cli.devices import devices
from host.cli.doctor import doctor
from host.cli.fit_error import fit_error
from host.cli.infer import infer
from host.cli.inspect import inspect
from host.cli.tune import tune
from host.cli.verify import verify
from host.errors import UserError

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: more make it slow on a busy machine

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown",
                  context_settings={"help_option_names": ["-h", "--help"]})


def version() -> str:
    """Version of the installed package ("unknown" in a checkout that is not installed)."""
    try:
        return importlib.metadata.version("rrm-fpga")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"rrm-fpga {version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(context: typer.Context,
          version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True,
                                                help="Show the version and exit.")] = False) -> None:
    """CNN inference on video that computes only what changed (Recurrent Residual Module).

    Start with:

        rrm-fpga infer my.mp4 --out annotated.mp4
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command()(infer)
app.command()(inspect)
app.command("compile")(compile_network)
app.command()(analyze)
app.command("fit-error")(fit_error)
app.command()(tune)
app.command()(verify)
app.command()(devices)
app.command()(doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        code = app(arguments, prog_name="rrm-fpga", standalone_mode=False)
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:  # wrong options
        message = error.format_message()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        message = f"{error.filename or 'the results'}: {error.strerror}"
    else:
        return code or 0
    print(f"rrm-fpga: {message}", file=sys.stderr)
    return 2
