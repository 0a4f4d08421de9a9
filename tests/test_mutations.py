"""The mutation check: some of the seeded faults, and that none has lost its place (all: make verify-mutations)."""

from __future__ import annotations

import pytest

from tests.mutations import FAST, FAULTS, ROOT, Copy, Fault, check, planted


def test_every_fault_still_has_its_place():
    for fault in FAULTS:
        assert planted(fault, (ROOT / fault.file).read_text())


def test_faults_are_caught():
    rows = []
    assert check([f for f in FAULTS if f.name in FAST], rows.append) == []
    assert len(rows) == 1 + len(FAST)


@pytest.mark.parametrize("new, test", [
    ("class Queue(wiring.Component):\n    pass", "test_config_layouts.py::test_hash_is_of_the_canonical_text_alone"),
    ("class Queue(nothing):", "test_streams.py::test_queue_holds_its_depth")], ids=["no fault", "crash"])
def test_what_no_comparison_catches_is_reported(new, test, tmp_path):
    fault = Fault("none", "hw/queue.py", "class Queue(wiring.Component):", new, f"tests/hw/{test}")
    with pytest.raises(RuntimeError, match="does not catch it"):
        Copy(tmp_path).catches(fault)
