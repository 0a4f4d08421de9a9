"""docs/link.md is what the definitions say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hw.link.packets import FIELDS, HEADER, IDENTITY, Command, Status
from hw.link.reference import COMMANDS, FIELD_NOTES, STATUSES, page

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_not_stale():
    assert (ROOT / "docs" / "link.md").read_text() == page(), "run: python -m hw.link.reference > docs/link.md"


def test_everything_is_explained():
    assert set(COMMANDS) == set(Command)
    assert set(STATUSES) == set(Status)
    names = {n for layout in (*FIELDS.values(), HEADER, IDENTITY) if layout is not None for n in layout.members}
    assert names - {"frame"} <= set(FIELD_NOTES)
    assert set(FIELD_NOTES) - {"frame"} <= names | set(FIELDS[Command.FRAME].members)


def test_the_module_prints_the_page():
    command = [sys.executable, "-m", "hw.link.reference"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == page()
