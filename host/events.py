"""Scene cuts and brightness jumps of a clip: where a method that sends changes has to pay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

SIZE = 64, 36
"""Frames are compared at this size (width, height), in luma."""
CUT, JUMP = 18.0, 4.0
"""Codes (of 256): mean change without the change of brightness that makes a cut; change of brightness that makes a
jump."""
SUDDEN = 3.0
"""It must also be this many times what the frames around it change."""
AROUND = 5
"""Frames on each side that count as around."""


@dataclass(frozen=True)
class Event:
    """What happens between frame ``frame - 1`` and ``frame``; ``size`` in codes (a jump's has a sign)."""

    frame: int
    kind: Literal["cut", "brightness"]
    size: float


class Events:
    """Finds them; ``add`` every frame uint8[H, W, 3], then ``found``."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._brightness: list[float] = []
        self._rest: list[float] = []

    def add(self, frame: np.ndarray) -> None:
        """The next frame."""
        luma = np.asarray(Image.fromarray(frame).convert("L").resize(SIZE, Image.Resampling.BOX), float)
        if self._before is not None:
            change = luma - self._before
            shift = float(np.median(change))
            self._brightness.append(shift)
            self._rest.append(float(np.abs(change - shift).mean()))
        self._before = luma

    def found(self) -> tuple[Event, ...]:
        """Events in the order of their frames; a cut hides a jump."""
        events = []
        for i, (shift, rest) in enumerate(zip(self._brightness, self._rest, strict=True)):
            if rest >= max(CUT, SUDDEN * _around(self._rest, i)):
                events.append(Event(i + 1, "cut", round(rest, 2)))
            elif abs(shift) >= max(JUMP, SUDDEN * _around(self._brightness, i)):
                events.append(Event(i + 1, "brightness", round(shift, 2)))
        return tuple(events)


def _around(values: list[float], at: int) -> float:
    """Median magnitude of the neighbours."""
    near = values[max(0, at - AROUND):at] + values[at + 1:at + 1 + AROUND]
    return float(np.median(np.abs(near))) if near else 0.0
