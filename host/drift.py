"""What truncation does to the outputs, measured beside the exact run: pairs (e_t, error) for ``ErrorModel.fit``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from host.aecs import relative_error
from host.rrm_file import Model
from host.session import Session


class Drift:
    """A clip run exactly, and in mode ``truncate`` at several thresholds, frame by frame.

    No frame but the first is precise (or those that keep accumulators from wrapping): runs that began anew at some
    error would show large e_t with small errors only.

    Parameters
        model: a quantised model.
        thresholds: in codes, for all tensors.

    Members
        pairs: (e_t, error) of every frame so far, by threshold.
    """

    def __init__(self, model: Model, thresholds: Sequence[int]) -> None:
        self._exact = Session(model, threshold=0, refresh="never")
        self._runs = {t: Session(model, threshold=t, mode="truncate", refresh="never") for t in thresholds}
        self.pairs: dict[int, list[tuple[float, float]]] = {t: [] for t in thresholds}

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8[H, W, 3] RGB."""
        exact = self._exact.infer(frame)[1].detail.outputs
        for t, run in self._runs.items():
            _, stats = run.infer(frame)
            self.pairs[t].append((stats.truncated, relative_error(stats.detail.outputs, exact)))
