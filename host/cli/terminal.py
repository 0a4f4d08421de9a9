"""What the user sees besides the results: tables on stdout, progress bars and notes on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def show(table: RenderableType) -> None:
    """Print a table; into a file or pipe wide enough not to fold most lines."""
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def note(message: str) -> None:
    """One line for the user that is no error."""
    print(f"rrm-fpga: {message}", file=sys.stderr)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar; the value is a function to call with the number of frames done. Silent where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def waiting() -> Iterator[Callable[[str], None]]:
    """Something that may take minutes; the value is a function to call with what is waited for.

    A spinner with the seconds so far, or a line each where nobody watches; nothing as long as nothing is said.
    """
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = None

        def say(what: str) -> None:
            nonlocal task
            if not console.is_terminal:
                note(what)
            elif task is None:
                task = bar.add_task(what, total=None)
            else:
                bar.update(task, description=what)

        yield say
