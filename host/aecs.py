"""Accumulated-error control (AECS; paper, section 3.4): how far ``truncate`` has drifted, and when that is too far.

What truncation drops is lost for good, so its error grows from frame to frame. The accelerator counts the sum of
squared dropped codes per tensor and frame; eq. 7 makes one number of them::

    e_t = sum over frames since the last precise one, and over tensors j, of scale_j * sqrt(count_tj)

over the tensors that truncate and feed a projection which is kept (the paper's linear layers). Eq. 8 predicts from it
the error of the outputs, ``||y - y0|| / ||y0||`` over all that the accelerator hands over (dequantised, before what
runs on the host, such as softmax), y0 those of the exact run: H, a polynomial of fourth order fitted to pairs of both.
When H(e_t) is larger than the limit, the next frame is a precise one.

H is fitted in two ways more strictly than by least squares, because it guards a limit: it does not fall (more
truncation never counts as less error), and it is the regression of a quantile, by default the error that 95% of the
pairs with such an e_t keep below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from host.errors import UserError
from sim.arithmetic import Mode
from sim.graph import Graph

SECTION = "error_model"
"""Name of the section of an ``.rrm`` file."""
DEGREE = 4
"""Of H (eq. 8)."""
QUANTILE = 0.95
"""Share of the pairs that H is to be above."""
FEWEST_PAIRS = 20
"""Pairs below which nothing is fitted."""


def relative_error(outputs: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> float:
    """``||y - y0|| / ||y0||`` over all outputs by name (infinite when only y0 is all zero)."""
    difference = sum(float(np.square(np.float64(outputs[name]) - y0).sum()) for name, y0 in exact.items())
    size = sum(float(np.square(y0, dtype=np.float64).sum()) for y0 in exact.values())
    return float(np.sqrt(difference / size)) if size else float("inf") if difference else 0.0


@dataclass(frozen=True)
class ErrorModel:
    """The polynomial H of eq. 8.

    coefficients
        mu: H = sum of mu[k] * x**k with x = (e - low) / (high - low).
    low, high
        range of e over which it was fitted; outside, H is what it is at that end, but nothing truncated is no error.
    quantile, pairs
        what it was fitted to, see the module, and to how many.
    """

    coefficients: tuple[float, ...]
    low: float
    high: float
    quantile: float = QUANTILE
    pairs: int = 0

    def __call__(self, e: float) -> float:
        """The predicted error at an accumulated truncated value e."""
        return float(self._at(np.array([e]))[0]) if e > 0 else 0.0

    def _at(self, e: np.ndarray) -> np.ndarray:
        x = np.clip((e - self.low) / (self.high - self.low), 0.0, 1.0)
        return np.polynomial.polynomial.polyval(x, self.coefficients)

    @property
    def largest(self) -> float:
        """The largest error that it predicts."""
        return self(self.high)

    def to_section(self) -> dict[str, Any]:
        """Plain values for a section of an ``.rrm`` file."""
        return asdict(self)

    @classmethod
    def from_section(cls, values: Mapping[str, Any]) -> ErrorModel:
        """The inverse of ``to_section``."""
        return cls(**values)

    @classmethod
    def fit(cls, pairs: Iterable[tuple[float, float]], quantile: float = QUANTILE) -> ErrorModel:
        """Fit H to pairs (e_t, error). Those with nothing truncated say nothing.

        Raises UserError when too few are left, or all at the same e.
        """
        e, error = np.array([p for p in pairs if p[0] > 0 and np.isfinite(p[1])], np.float64).reshape(-1, 2).T
        if len(e) < FEWEST_PAIRS or e.min() == e.max():
            raise UserError(f"only {len(e)} frames lost anything by truncation; {FEWEST_PAIRS} are needed: give more "
                            "or longer clips, or larger thresholds")
        x = (e - e.min()) / (e.max() - e.min())
        coefficients = _monotone_quantile(x, error, quantile)
        return cls(tuple(coefficients.tolist()), float(e.min()), float(e.max()), quantile, len(e))


def _monotone_quantile(x: np.ndarray, y: np.ndarray, quantile: float) -> np.ndarray:
    """Coefficients of the polynomial on 0..1 that never falls and has ``quantile`` of the y below it, by iteratively
    reweighted least squares. A polynomial whose Bernstein coefficients never fall does not fall either."""
    bernstein = np.array([[comb(DEGREE, k) * comb(DEGREE - k, p - k) * (-1.0) ** (p - k) if p >= k else 0.0
                           for p in range(DEGREE + 1)] for k in range(DEGREE + 1)])
    steps = bernstein[::-1].cumsum(axis=0)[::-1]        # step k: what a rise of the coefficients from k on adds
    basis = x[:, None] ** np.arange(DEGREE + 1) @ steps.T
    weight, smallest = np.ones_like(y), 1e-4 * max(float(y.max()), 1e-30)
    for _ in range(100):
        rises = _non_negative(basis, y, weight)
        rest = y - basis @ rises
        weight = np.where(rest > 0, quantile, 1 - quantile) / np.maximum(np.abs(rest), smallest)
    return rises @ steps


def _non_negative(basis: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The non-negative least squares solution, by trying every choice of the (five) coefficients that are not 0."""
    gram, moment = basis.T @ (basis * weight[:, None]), basis.T @ (y * weight)
    best, least = np.zeros(len(gram)), 0.0
    for size in range(1, len(gram) + 1):
        for chosen in combinations(range(len(gram)), size):
            own = np.linalg.lstsq(gram[np.ix_(chosen, chosen)], moment[list(chosen)])[0]
            if (own >= 0).all() and (cost := -float(own @ moment[list(chosen)])) < least:
                best, least = np.zeros(len(gram)), cost
                best[list(chosen)] = own
    return best


class ErrorControl:
    """e_t of a session (eq. 7), frame by frame, and whether the next frame has to be precise.

    Parameters
        graph: a quantised graph.
        modes: threshold rule by tensor; those that ``hold`` do not drift.
        model: H, or None.
        limit: error above which a refresh is due, or None.

    Members
        accumulated: e_t, in real units; None when no tensor truncates.

    Raises UserError for a limit that cannot be kept.
    """

    def __init__(self, graph: Graph, modes: Mapping[str, Mode], model: ErrorModel | None = None,
                 limit: float | None = None) -> None:
        fed = {e.source for e in graph.edges if graph.projections[e.target].mode == "delta"}
        self._scales = {name: t.code.scale for name, t in graph.tensors.items()
                        if name in fed and modes[name] == "truncate"}
        self.accumulated = 0.0 if self._scales else None
        self._model, self._limit = model, limit
        if limit is not None:
            self._check(graph.name)

    def _check(self, name: str) -> None:
        model, limit = self._model, self._limit
        if not limit > 0:
            raise UserError(f"the largest error is {limit}; it must be above 0 (0.05: 5% of the outputs' norm)")
        if not self._scales:
            raise UserError("a largest error needs mode truncate: what hold leaves out stays bounded without refreshes")
        if model is None:
            raise UserError(f"network {name} has no error model yet, so its error cannot be predicted; compile it and "
                            "fit one with: rrm-fpga fit-error MODEL.rrm CLIP...")
        if limit >= model.largest:
            raise UserError(f"the largest error is {limit:g}, but the error model of network {name} knows errors up to "
                            f"{model.largest:.3g} only; fit it again on longer clips or with larger thresholds: "
                            "rrm-fpga fit-error --threshold T")

    @property
    def predicted(self) -> float | None:
        """H(e_t); None without a model or without truncation."""
        return None if self._model is None or self.accumulated is None else self._model(self.accumulated)

    @property
    def due(self) -> bool:
        """The predicted error is above the limit: the next frame should be a refresh."""
        return self._limit is not None and self.predicted > self._limit

    def add(self, dropped: Mapping[str, int], refresh: bool) -> None:
        """A frame dropped so much: sums of squared codes by tensor."""
        if self.accumulated is None:
            return
        lost = sum(scale * float(np.sqrt(dropped[name])) for name, scale in self._scales.items())
        self.accumulated = lost if refresh else self.accumulated + lost


def shares_below(model: ErrorModel, pairs: Sequence[tuple[float, float]]) -> float:
    """Share of the pairs (e_t, error) that keep below H."""
    return float(np.mean([error <= model(e) for e, error in pairs if e > 0]))
