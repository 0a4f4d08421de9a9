"""What truncation does to the outputs, measured beside the exact run: pairs (e_t, error) for ``ErrorModel.fit``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from host.aecs import relative_error
from host.rrm_file import Model
from host.session import Session


class Drift:
    """A clip run exactly, and in mode ``truncate`` at several thresholds, frame by frame.

    A run begins anew with a precise frame when its error exceeds ``up_to``, so that many runs up to there are
    seen, as accumulated-error control makes them.

    Parameters
        model: a quantised model.
        thresholds: in codes, for all tensors.
        up_to: relative error.

    Members
        pairs: (e_t, error) of every frame so far, by threshold.
    """

    def __init__(self, model: Model, thresholds: Sequence[int], up_to: float) -> None:
        self._exact = Session(model, threshold=0, refresh="never")
        self._runs = {t: Session(model, threshold=t, mode="truncate", refresh="never") for t in thresholds}
        self._up_to = up_to
        self.pairs: dict[int, list[tuple[float, float]]] = {t: [] for t in thresholds}

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8[H, W, 3] RGB."""
        exact, _ = self._exact.infer(frame)
        for t, run in self._runs.items():
            outputs, stats = run.infer(frame)
            error = relative_error(outputs, exact)
            self.pairs[t].append((stats.truncated, error))
            if error > self._up_to:
                run.reset()
