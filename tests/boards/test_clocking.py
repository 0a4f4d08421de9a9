"""Settings of the phase-locked loops against their limits and against ecppll's arithmetic."""

from __future__ import annotations

import pytest

from boards.board import MODULES, variants
from boards.clocking import LIMITS, ClockError

CASES = [("ecp5", 25e6, 80e6), ("ecp5", 25e6, 100e6), ("ecp5", 12e6, 50e6), ("xc7", 100e6, 100e6),
         ("xc7", 100e6, 87.5e6), ("xc7", 12e6, 100e6)]


@pytest.mark.parametrize("family, given, wanted", [c for c in CASES if c[:2] != ("xc7", 12e6)])
def test_a_setting_keeps_every_limit(family, given, wanted) -> None:
    limits = LIMITS[family]
    s = limits.best(given, wanted)
    assert s.output_hz == pytest.approx(wanted, rel=0.005)
    assert limits.detector_hz[0] <= given / s.divider <= limits.detector_hz[1]
    assert limits.oscillator_hz[0] <= s.oscillator_hz <= limits.oscillator_hz[1]
    assert s.divider in limits.divider
    assert s.multiplier in limits.multiplier
    assert s.output_divider in limits.output_divider
    assert given / s.divider * s.multiplier == pytest.approx(s.oscillator_hz)
    assert s.oscillator_hz / s.output_divider == pytest.approx(s.output_hz)


@pytest.mark.parametrize("family, given, wanted", [
    ("xc7", 12e6, 100e6), ("ecp5", 25e6, 1e6), ("ecp5", 25e6, 900e6), ("xc7", 100e6, 2e6)])
def test_impossible_clocks_are_refused(family, given, wanted) -> None:
    with pytest.raises(ClockError, match=f"no clock of {wanted / 1e6:g} MHz can be made from {given / 1e6:g} MHz"):
        LIMITS[family].best(given, wanted)


@pytest.mark.parametrize("board", [b for name in MODULES for b in variants(name)], ids=lambda b: b.label)
def test_boards_get_the_clock_that_they_ask_for(board) -> None:
    assert LIMITS[board.family_name].best(board.clock_pin_hz, board.clock_hz).output_hz == board.clock_hz
