"""The blocks and the accelerator in cocotb on Verilator, an independent simulator, with a monitor on every stream."""

from __future__ import annotations

import pytest

from tests.cocotb.runner import missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

from hw.accelerator import Accelerator
from hw.link.link import Link
from tests.cocotb.designs import ACCELERATOR, LINK, Blocks
from tests.cocotb.monitors import Monitored
from tests.cocotb.runner import build, results
from tests.link import bench


def check(top: Monitored, module: str, folder) -> None:
    """Every cocotb test of the module passes."""
    failed = {name: why for name, why in results(build(top, folder), module, folder).items() if why}
    assert not failed, "\n".join(f"{name}: {why}" for name, why in failed.items())


def session_end(components: list):
    """The signal with which a link ends a session."""
    return next(c.reset for c in components if isinstance(c, Link))


def test_blocks(tmp_path):
    check(Monitored(Blocks), "tests.cocotb.blocks", tmp_path)


def test_accelerator(tmp_path):
    """With the driver that a board has. A session's end resets the ring, which may then forget its offers."""
    check(Monitored(lambda: Accelerator(ACCELERATOR, LINK), session_end), "tests.cocotb.accelerator", tmp_path)


def test_link(tmp_path):
    """The link alone, with packets that nobody should send."""
    check(Monitored(lambda: Link(bench.CONFIG, bench.LINK), session_end), "tests.cocotb.link", tmp_path)
