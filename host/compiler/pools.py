"""Memories that are filled piece by piece, equal pieces once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


class Pool:
    """Rows of integers; ``add`` gives the address of a run of rows, and equal runs share one address."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = tuple(fields)
        self.size = 0
        self._runs: dict[Hashable, int] = {}
        self._rows: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> int:
        """Address of int64[n, fields]."""
        rows = np.ascontiguousarray(rows, np.int64).reshape(-1, len(self.fields))
        key = rows.tobytes()
        if key not in self._runs:
            self._runs[key] = self.size
            self._rows.append(rows)
            self.size += len(rows)
        return self._runs[key]

    def columns(self) -> dict[str, np.ndarray]:
        """int64[size] by field."""
        rows = np.concatenate([np.zeros((0, len(self.fields)), np.int64), *self._rows])
        return {name: rows[:, i] for i, name in enumerate(self.fields)}


class Intervals:
    """Addresses for pieces that live during an interval of steps; pieces that never meet may share them."""

    def __init__(self) -> None:
        self.size = 0
        self._taken: list[tuple[int, int, int, int]] = []      # base, words, first step, last step

    def add(self, words: int, first: int, last: int) -> int:
        """Lowest address where ``words`` are free from step ``first`` to step ``last``, both included."""
        busy = sorted((b, n) for b, n, f, t in self._taken if f <= last and first <= t)
        base = 0
        for b, n in busy:
            if base + words <= b:
                break
            base = max(base, b + n)
        self._taken.append((base, words, first, last))
        self.size = max(self.size, base + words)
        return base
