"""Calibration: what the activations of a real-number network look like on sample frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from host.errors import UserError
from host.network import Network
from sim.float_model import FloatModel

SAMPLES_PER_FRAME = 4096
"""Values of each tensor kept per frame for the choice of its range."""


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """One tensor over all calibration frames, in real units.

    low, high
        float64[C]: extremes of all values of a channel, 0 included.
    sample
        float32[C, n]: evenly spaced elements of every frame, their offset changing from frame to frame.
    mean
        float64[C, H, W]: mean over frames (for bias correction).
    energy
        float64[C]: mean square per channel (how much a weight error in that column costs).
    """

    low: np.ndarray
    high: np.ndarray
    sample: np.ndarray
    mean: np.ndarray
    energy: np.ndarray


@dataclass(frozen=True, eq=False)
class Calibration:
    """Statistics of every tensor of a network, and of how many frames they were taken."""

    frames: int
    tensors: dict[str, TensorStatistics]


def calibrate(network: Network, arrays: Iterable[np.ndarray],
              progress: Callable[[int], None] | None = None) -> Calibration:
    """Run the real-number network on ONNX input arrays and collect statistics of every tensor.

    ``progress`` is called with the number of finished frames. Raises UserError without a single frame, or
    when a frame gives values that are not finite.
    """
    model = FloatModel(network.graph)
    low, high, sample, total, square = {}, {}, {}, {}, {}
    frames = 0
    for frames, array in enumerate(arrays, start=1):
        values = model.run(network.input.to_real(array))
        for name in network.graph.tensors:
            x = values[name]
            flat = x.reshape(len(x), -1)
            lowest, highest = flat.min(axis=1).astype(np.float64), flat.max(axis=1).astype(np.float64)
            if not np.isfinite([lowest, highest]).all():
                raise UserError(f"{network.name}: tensor {name} is not finite on calibration frame "
                                f"{frames - 1}; check the preprocessing (mean, scale) and the weights")
            low[name] = np.minimum(low.get(name, 0.0), lowest)
            high[name] = np.maximum(high.get(name, 0.0), highest)
            stride = max(1, x.size // SAMPLES_PER_FRAME)
            sample.setdefault(name, []).append(flat[:, frames % stride::stride].astype(np.float32))
            total[name] = total.get(name, 0.0) + x.astype(np.float64)
            square[name] = square.get(name, 0.0) + np.square(x, dtype=np.float64).mean(axis=(1, 2))
        if progress:
            progress(frames)
    if not frames:
        raise UserError(f"{network.name}: no calibration frames")
    return Calibration(frames, {
        n: TensorStatistics(low[n], high[n], np.concatenate(sample[n], axis=1), total[n] / frames, square[n] / frames)
        for n in network.graph.tensors})
