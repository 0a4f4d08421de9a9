"""The calibration pass of ``infer`` and ``compile``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from host.cli.options import Weights
from host.cli.terminal import note, progress
from host.rrm_file import Model
from host.session import CALIBRATION_FRAMES, needs_calibration, quantised


def calibrated(model: Model, samples: Callable[[], Iterable[np.ndarray]], weights: Weights,
               wanted: bool = False) -> Model:
    """The model quantised. ``samples`` gives calibration frames and is only called where some are needed;
    ``wanted``: the user asked for calibration, so say when it is not needed.
    """
    if not needs_calibration(model):
        if wanted:
            note(f"{model.network.name} brings its scales along; --calibrate is not used")
        return quantised(model, weights=weights)
    with progress("calibrating", CALIBRATION_FRAMES) as done:
        return quantised(model, samples(), weights, done)
