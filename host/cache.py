"""Where the tool keeps what is costly to make again (compiled simulators)."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$RRM_FPGA_CACHE``, else ``rrm-fpga`` in the user's cache folder. It may not exist yet."""
    if chosen := os.environ.get("RRM_FPGA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rrm-fpga"
