"""Tuning: thresholds per tensor and modes per projection that cost fewest cycles within a limit.

The rule is ``hold``, whose error stays bounded. The search works on some frames of a clip, each configuration
measured on the golden model (error, agreement) and the cycle model (``CycleModel.estimate``):

1. *Sensitivity*: each tensor alone at each level, until it breaks the limit by itself.
2. *Path*: errors of different tensors are nearly independent, so their squares add up, and so do the cycles saved. From
   exact on, the step that saves most cycles per squared error is next: a path of configurations of rising error.
3. *Measuring*: the last configuration of the path within the limit is found by bisection, each one measured as a whole,
   and so are others spread over the path (the Pareto curve) and the uniform thresholds. The cheapest one is chosen.
4. *Refinement*: each tensor once more one level up, kept when it is within the limit and cheaper.
5. *Modes*: with the thresholds chosen, projections that cost less when they are fed with values than with changes
   become ``direct``. That changes no value.

What is reported is measured anew on other frames of the clip, with the full cycle model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from host.aecs import relative_error
from host.analysis import Analyser, Rule
from host.compiler import Program
from host.cycles import Changes, CycleModel, observed_frame
from host.errors import UserError
from host.heads.agreement import agreement
from host.rrm_file import Model
from sim.float_model import FloatModel
from sim.golden import GoldenModel
from sim.graph import Graph

LEVELS = (0, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Thresholds that are tried."""
CURVE = 8
"""Configurations of the path that are measured for the Pareto curve, besides those that the search needs."""
Thresholds = dict[str, int]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Limit:
    """What a configuration must keep: mean error of the outputs at most, or mean agreement with the network in real
    numbers
    at least; None is no limit."""

    max_error: float | None = None
    min_agreement: float | None = None

    def kept(self, point: Point | Outcome) -> bool:
        """The limit holds."""
        return ((self.max_error is None or point.error <= self.max_error)
                and (self.min_agreement is None or point.agreement >= self.min_agreement))


@dataclass(frozen=True)
class Point:
    """A configuration, and its means over the frames that follow the first.

    label
        what it is, for people.
    cycles
        predicted; ``error`` of the outputs against the exact run; ``agreement`` of the head's decisions with the
        network in real numbers.
    """

    label: str
    thresholds: Thresholds
    cycles: float
    error: float
    agreement: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values; thresholds that are not exact."""
        return {"label": self.label, "cycles": self.cycles, "error": self.error, "agreement": self.agreement,
                "thresholds": {k: t for k, t in self.thresholds.items() if t}}


class Bench:
    """Frames of a clip on which configurations are measured, uint8[H, W, 3] RGB each; at least two."""

    def __init__(self, model: Model, program: Program, frames: Sequence[np.ndarray]) -> None:
        if len(frames) < 2:
            raise UserError(f"{len(frames)} frames are too few for tuning; give a longer clip or more --frames")
        network, self._pre = model.network, model.sidecar.input
        self._network, self._head, self.graph = network, model.sidecar.head, program.graph
        self._cycles = CycleModel(program)
        arrays = [self._pre.apply(f, network.input) for f in frames]
        self._sizes = [(f.shape[1], f.shape[0]) for f in frames]
        code = self.graph.tensors[self.graph.input].code
        self.codes = [network.input.to_codes(a, code) for a in arrays]
        floats = FloatModel(self.graph)
        self._decided = [self._decode(floats.outputs(network.input.to_real(a)), s)
                         for a, s in zip(arrays, self._sizes, strict=True)]
        dense = GoldenModel(self.graph)
        self._exact = [dense.frame(c).outputs for c in self.codes]

    def measure(self, thresholds: Thresholds, label: str = "") -> Point:
        """Run the frames."""
        golden, cycles, errors, agreements = GoldenModel(self.graph, thresholds), [], [], []
        for codes, exact, decided, size in zip(self.codes, self._exact, self._decided, self._sizes, strict=True):
            result, changes = observed_frame(golden, codes)
            cycles.append(self._cycles.estimate(changes))
            errors.append(relative_error(result.outputs, exact))
            agreements.append(agreement(decided, self._decode(result.outputs, size), size))
        return Point(label, thresholds, *(float(np.mean(v[1:])) for v in (cycles, errors, agreements)))

    def changes(self, thresholds: Thresholds) -> list[Changes]:
        """What changes in the frames after the first."""
        golden = GoldenModel(self.graph, thresholds)
        return [observed_frame(golden, codes)[1] for codes in self.codes][1:]

    def _decode(self, outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> list:
        return self._head.decode(self._network.finish(dict(outputs)), self._pre.placement(size, self._network.input))


def search(bench: Bench, limit: Limit, progress: Progress = lambda what: None) -> tuple[Point, list[Point]]:
    """(the best configuration found, every one that was measured as a whole).

    Raises UserError when not even exact keeps the limit.
    """
    exact = bench.measure({}, "exact")
    if not limit.kept(exact):
        raise UserError(f"without thresholds the agreement is {exact.agreement:.3f} already; --min-agreement must be "
                        "below that")
    path = _path(_sensitivities(bench, limit, exact, progress), exact)
    measured = {0: exact}

    def at(i: int) -> Point:
        if i not in measured:
            progress(f"measuring {i} of {len(path) - 1} steps")
            measured[i] = bench.measure(path[i], f"step {i}")
        return measured[i]

    good, bad = 0, len(path)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if limit.kept(at(middle)) else (good, middle)
    for i in np.unique(np.linspace(0, min(len(path) - 1, 2 * good + 4), CURVE).astype(int)):
        at(int(i))
    points = [*measured.values(),
              *(bench.measure(dict.fromkeys(bench.graph.tensors, t), f"hold {t}") for t in (2, 3, 4, 8))]
    best = min((p for p in points if limit.kept(p)), key=lambda p: p.cycles)
    best = _refined(bench, limit, best, progress)
    return best, [*points, best]


def _sensitivities(bench: Bench, limit: Limit, exact: Point, progress: Progress) -> dict[str, list[Point]]:
    """Each tensor alone at rising levels, the first exact."""
    found = {}
    for number, name in enumerate(bench.graph.tensors, start=1):
        progress(f"tensor {number} of {len(bench.graph.tensors)}")
        found[name] = [exact]
        for level in LEVELS[1:]:
            point = bench.measure({name: level})
            if not limit.kept(point):
                break
            found[name].append(point)
    return found


def _path(sensitivities: Mapping[str, list[Point]], exact: Point) -> list[Thresholds]:
    """Configurations from exact on; each raises one tensor by one or more levels."""
    level, path = dict.fromkeys(sensitivities, 0), [{}]
    while True:
        moves = []
        for name, points in sensitivities.items():
            now = points[level[name]]
            for up in range(level[name] + 1, len(points)):
                saved, cost = now.cycles - points[up].cycles, points[up].error**2 - now.error**2
                if saved > 0:
                    moves.append((saved / max(cost, 1e-12 * exact.cycles), name, up))
        if not moves:
            return path
        _, name, up = max(moves)
        level[name] = up
        path.append({n: LEVELS[i] for n, i in level.items() if i})


def _refined(bench: Bench, limit: Limit, best: Point, progress: Progress) -> Point:
    """Each tensor one level up, one after the other."""
    for name in bench.graph.tensors:
        higher = [t for t in LEVELS if t > best.thresholds.get(name, 0)]
        if not higher:
            continue
        progress(f"refining {name}")
        point = bench.measure(best.thresholds | {name: higher[0]}, "refined")
        if limit.kept(point) and point.cycles < best.cycles:
            best = point
    return replace(best, label="tuned")


def best_modes(graph: Graph, compiled: Callable[[Graph], Program], changes: Sequence[Changes]) -> Graph:
    """The graph with those projections ``direct`` that cost fewer cycles so, by the cycle model.

    Candidates are projections with fewer values than changes to feed; all at once, then those that did not pay off
    are taken back. Projections that are direct already stay so.
    """
    delta = [p.name for p in graph.projections.values() if p.mode == "delta"]
    candidates = [name for name in delta if sum(
        e.weight.shape[1] * (int(c.nonzero[e.source][e.channels].sum()) - int(c.sent[e.source][e.channels].sum()))
        for c in changes for e in graph.edges_into(name)) < 0]
    best, least = graph, _cycles(compiled(graph), changes)
    while candidates:
        tried = _with_direct(graph, candidates)
        try:
            program = compiled(tried)
        except UserError:                                   # values need steps of their own, which may not fit
            return best
        found = _cycles(program, changes)
        if sum(found.values()) < sum(least.values()):
            best, least = tried, found
        worse = {e.target for e in graph.edges if e.target in candidates
                 and found[e.source] > least.get(e.source, np.inf)}
        if not worse:
            return best
        candidates = [c for c in candidates if c not in worse]
    return best


def _with_direct(graph: Graph, names: Iterable[str]) -> Graph:
    return graph.with_parts(projections={
        k: replace(p, mode="direct") if k in names else p for k, p in graph.projections.items()})


def _cycles(program: Program, changes: Sequence[Changes]) -> dict[str, int]:
    """Predicted cycles by tensor whose elements are sent (both its steps where it has two)."""
    steps = sum(f.steps for f in CycleModel(program).frames(changes))
    found: dict[str, int] = {}
    for step, cycles in zip(program.steps, steps.tolist(), strict=True):
        found[step.tensor or ""] = found.get(step.tensor or "", 0) + cycles
    return found


@dataclass(frozen=True)
class Outcome:
    """A rule on frames that the search has not seen: predicted cycles, error, agreement, speed-up against frame by
    frame; means over the frames after the first."""

    label: str
    cycles: float
    error: float
    agreement: float
    speedup: float


def held_out(model: Model, program: Program, frames: Sequence[np.ndarray],
             rules: Mapping[str, Thresholds]) -> list[Outcome]:
    """Measure rules by name on frames uint8[H, W, 3], with the full cycle model; all on one program."""
    bench = Bench(model, program, frames)
    analyser = Analyser(program, {name: Rule(t) for name, t in rules.items()})
    for codes in bench.codes:
        analyser.frame(codes)
    found = []
    for name, thresholds in rules.items():
        summary = analyser.analysis(name).summary(1e8, 6e6)
        found.append(Outcome(name, summary["cycles_rrm"], summary["error_mean"],
                             bench.measure(thresholds).agreement, summary["speedup_cycles"]))
    return found
