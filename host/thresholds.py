"""Which thresholds a run uses: given ones, real units (the paper's epsilon) as codes, or those of the file."""

from __future__ import annotations

import math
from collections.abc import Mapping

from host.errors import UserError
from host.rrm_file import Model
from sim.graph import Graph

SECTION = "thresholds"
"""Name of the section of an ``.rrm`` file that holds tuned thresholds, in codes by tensor (``rrm-fpga tune``)."""
LARGEST = 255
"""Largest threshold in codes: that of the whole range of a tensor."""


def chosen(model: Model, threshold: int | Mapping[str, int] | None = None,
           epsilon: float | None = None) -> int | Mapping[str, int]:
    """Thresholds in codes, for all tensors or by name: ``threshold``, those of ``epsilon``, the model's own, or 0.

    Raises UserError when both are given.
    """
    if epsilon is None:
        return model.sections.get(SECTION, 0) if threshold is None else threshold
    if threshold is not None:
        raise UserError("epsilon and threshold both say which changes are sent; give one of them")
    return from_epsilon(model.network.graph, epsilon)


def from_epsilon(graph: Graph, epsilon: float) -> dict[str, int]:
    """Threshold in codes by tensor, so that changes smaller than ``epsilon`` in real units are not sent.

    One code of channel c is ``scale * gain[c]``. A tensor has one threshold, so with gains no change of ``epsilon`` or
    more is held back in any channel, and in those of a small gain some smaller ones are sent as well. Infinity, and
    what is beyond a tensor's range, is ``LARGEST``. Raises UserError for a negative epsilon.
    """
    if not epsilon >= 0:
        raise UserError(f"epsilon is {epsilon:g}; it must be 0 (exact) or more, in the unit of the activations")
    return {name: _codes(epsilon / t.code.scales(t.shape[0]).max()) for name, t in graph.tensors.items()}


def _codes(change: float) -> int:
    """The least whole number of codes that is at least ``change`` (but for rounding of the scale)."""
    return LARGEST if change >= LARGEST else math.ceil(round(change, 9))
