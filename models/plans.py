"""The corner networks that there are or may be: their layers, and what the board they are for can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What a network of convolutions needs on the accelerator, or what a board has.

    Accumulators (sum of C*H*W over the projections), activation codes (the same over the tensors, input
    included), weights (without copies), and MACs of one frame with nothing skipped (padding counted).
    """

    accumulators: int
    codes: int
    weights: int
    macs: int = 0

    def fit(self, board: Needs) -> bool:
        """Everything but the MACs, which only cost time, is within the board's."""
        return (self.accumulators <= board.accumulators and self.codes <= board.codes
                and self.weights <= board.weights)


@dataclass(frozen=True)
class Plan:
    """A network: input ``size`` (width, height); (channels out, kernel, stride) of each layer, head last, which has a
    channel for every pixel of a cell.

    ``board`` is what the preset it is made for holds on chip (docs/architecture.md).
    """

    size: tuple[int, int]
    layers: tuple[tuple[int, int, int], ...]
    board: Needs

    @staticmethod
    def pad(kernel: int, stride: int) -> int:
        """Padding on each side: the picture shrinks by exactly the stride, and cells stay centred."""
        return (kernel - stride + 1) // 2

    @property
    def cell(self) -> int:
        """Side of a cell in pixels."""
        return math.isqrt(self.layers[-1][0])

    @property
    def needs(self) -> Needs:
        """Counted from the layers."""
        (width, height), channels = self.size, 1
        accumulators, codes, weights, macs = 0, width * height, 0, 0
        for out, kernel, stride in self.layers:
            width, height = width // stride, height // stride
            accumulators += out * width * height
            weights += out * channels * kernel**2
            macs += out * width * height * channels * kernel**2
            codes += out * width * height
            channels = out
        return Needs(accumulators, codes - channels * width * height, weights, macs)


PLANS = {
    "35t": Plan((128, 96), ((16, 8, 4), (32, 6, 2), (64, 3, 1)), Needs(32768, 32768, 49152)),
    "100t": Plan((128, 96), ((32, 8, 4), (32, 3, 1), (32, 3, 1), (16, 3, 1)), Needs(86144, 86096, 110336)),
}
"""By the name that ``models.train`` takes; a trained one is ``corners/corners_NAME.onnx``."""
