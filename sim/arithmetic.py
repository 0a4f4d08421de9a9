"""The rules of the nonlinear step, one function each (see ``sim.graph``, *Integer semantics*)."""

from __future__ import annotations

import numpy as np

from sim.graph import GraphError, Pool, Shape
from sim.linear import Axis


def max_pool(x: np.ndarray, pool: Pool, target: Shape) -> np.ndarray:
    """Maximum over each window of x[C, H, W], taps outside the image left out; returns ``target`` shape."""
    for axis in (2, 1):
        a = axis - 1
        line = Axis.solve(x.shape[axis], target[axis], pool.kernel[a], pool.stride[a], pool.dilation[a],
                          pad=pool.pad[a])
        covered = np.zeros(target[axis], bool)
        shape = (*x.shape[:axis], target[axis], *x.shape[axis + 1:])
        out = np.full(shape, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
        for tap in line.taps:
            to = (slice(None),) * axis + (line.target_slice(tap.phase, tap.start, tap.stop),)
            from_ = (slice(None),) * axis + (line.source_slice(tap, tap.start, tap.stop),)
            np.maximum(out[to], x[from_], out=out[to])
            covered[to[-1]] = True
        if not covered.all():
            raise GraphError(f"max-pool {pool}: a window of output {target} lies outside the image {x.shape}")
        x = out
    return x
