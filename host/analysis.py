"""What a clip costs a network, layer by layer: computing what changed against computing every frame.

A *layer* here is a step of the ring: a tensor, and the linear layers that its elements feed. Both ways run on the same
engine: *rrm* sends what changed since the frame before (paper, Algorithm 1); *scratch* computes every frame
from nothing and sends what is not zero, as an EIE-like engine does. That is the baseline of the paper's eq. 10.

Rules of counting
-----------------
MACs land inside the image, strides included. The density of a layer is the share of its MACs whose input was sent, so
an element weighs as much as it feeds. With M the dense MACs of a layer and rho, rho' its densities in scratch and rrm::

    sparsity   = 1 - sum rho M / sum M                    (eq. 9)
    complexity =     sum rho M                            (eq. 6)
    speed-up   =     sum rho M / sum rho' M               (eq. 10)

The paper counts convolutions and fully connected layers; averages, up-samplings, copies and scalings are edges of the
graph too and count under "all edges" (``is_layer``). A frame that starts a clip is computed from scratch in both
ways; means leave it out.

*Work* is the MACs that the engine cannot skip: where an edge is stored in CSC form those of non-zero weights, else all.
``work / (rows * cycles)`` is the efficiency of the array; its inverse is the time over the theoretical one, for which
the paper expects 1.10. ``Way.parts`` says where the other cycles went.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from host.aecs import ErrorControl, ErrorModel, relative_error
from host.compiler import Program
from host.cycles import Changes, CycleModel, FrameCycles, observed_frame
from host.devices import Device
from host.errors import UserError
from host.events import Event, Events
from host.link.rehearsal import LinkEstimate
from host.quantiser import refresh_interval
from host.refresh import Policy, RefreshRule, Schedule
from host.rrm_file import Model
from hw.layouts import Kind
from hw.uart import FRAME_BITS
from sim.arithmetic import Mode
from sim.error_bound import error_bound
from sim.golden import FrameResult, GoldenModel
from sim.graph import Edge

PARTS = ("work", "imbalance", "broadcast", "sweep", "barrier")
"""Where a step's cycles go, see ``Way.parts``."""
PREDICTED, COUNTED = "predicted by the cycle model", "counted by the device"
"""Where cycles and bytes come from."""


def is_layer(edge: Edge) -> bool:
    """The edge is a convolution or a fully connected layer.

    Not one is what has one row per column and the same kernel, up to a factor, in every column: averages, up-sampling,
    copies, scalings (BatchNorm), whatever operator they came from.
    """
    if edge.rows.shape[1] > 1:
        return True
    kernels = edge.weight[:, 0].reshape(len(edge.weight), -1)
    first = kernels[np.abs(kernels).max(axis=1).argmax()]
    across = kernels - np.outer(kernels @ first / max(first @ first, 1e-300), first)
    return bool(np.abs(across).max() > 1e-6 * np.abs(kernels).max())


@dataclass(frozen=True)
class Layer:
    """A step: the tensor whose elements it sends, and the projections that they feed.

    elements
        of the tensor.
    macs_dense, macs_dense_all
        of its convolutions and fully connected layers; of all its edges.
    """

    step: int
    tensor: str
    feeds: tuple[str, ...]
    elements: int
    macs_dense: int
    macs_dense_all: int


@dataclass(frozen=True)
class Way:
    """One way of running a clip: int64[frames, layers] each, but for the last two.

    sent
        elements of the tensor that were sent.
    macs, macs_all
        of its convolutions and fully connected layers; of all its edges.
    work
        MACs that the engine cannot skip.
    cycles
        taken, or predicted.
    words, walk, broadcasts, reads
        by the cycle model: weight words that all PEs walk, and the PE that walks most; broadcasts; cycles in which
        the sweep reads.
    link
        int64[frames, 2]: bytes to the device and back.
    rows, pes
        of the engine.
    """

    sent: np.ndarray
    macs: np.ndarray
    macs_all: np.ndarray
    work: np.ndarray
    cycles: np.ndarray
    words: np.ndarray
    walk: np.ndarray
    broadcasts: np.ndarray
    reads: np.ndarray
    link: np.ndarray
    rows: int
    pes: int

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """Where the cycles went, float[frames, layers] by name of ``PARTS``; they sum up to ``cycles``.

        *work*: MACs / rows. *imbalance*: what the PE that walks most walks beyond that (rows without an output
        channel, unequal
        columns, padding). *broadcast*, *sweep*: how much longer than the walk it took to broadcast or to sweep, one
        element or word per cycle. *barrier*: the rest: latency from the first read to the last accumulator, full
        queues, slots
        lost to the sweep.
        """
        work = self.work / self.rows
        levels = [work, np.maximum(work, self.walk)]
        levels.append(np.maximum(levels[-1], self.broadcasts))
        levels.append(np.maximum(levels[-1], self.reads))
        levels.append(self.cycles)
        return dict(zip(PARTS, [work, *np.diff(levels, axis=0)], strict=True))

    def of(self, frames: slice) -> Way:
        """The same of some frames."""
        arrays = {k: v[frames] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return Way(**arrays, rows=self.rows, pes=self.pes)


@dataclass(frozen=True)
class Analysis:
    """A clip on a network, see the module.

    source
        ``PREDICTED`` or ``COUNTED``.
    layers, rrm, scratch
        every frame, the first included.
    refreshes
        bool[frames]: rrm computed the frame from scratch.
    errors
        float[frames]: ``relative_error`` of rrm against scratch.
    host_seconds
        median time of this machine per frame for what the host does in both ways: preprocessing, head.
    events
        scene cuts and brightness jumps.
    bound
        that no error of ``hold`` can exceed on this clip (``sim.error_bound``, relative as ``errors``); None for
        truncate.
    """

    network: str
    config: str
    source: str
    layers: tuple[Layer, ...]
    rrm: Way
    scratch: Way
    refreshes: np.ndarray
    errors: np.ndarray
    host_seconds: float
    events: tuple[Event, ...] = ()
    bound: float | None = None

    @property
    def frames(self) -> slice:
        """Those of which means are taken: all but the first, which both ways compute from scratch (or it alone)."""
        return slice(1 if len(self.errors) > 1 else 0, None)

    @cached_property
    def macs_dense(self) -> np.ndarray:
        """int64[layers]: of convolutions and fully connected layers."""
        return np.array([layer.macs_dense for layer in self.layers])

    @cached_property
    def macs_dense_all(self) -> np.ndarray:
        """int64[layers]: of all edges."""
        return np.array([layer.macs_dense_all for layer in self.layers])

    def summary(self, clock_hz: float, baud: float) -> dict[str, float]:
        """The figures of the whole network, means per frame.

        ``speedup_*`` from the narrowest view to the widest: MACs of the paper's layers (eq. 10), MACs of all edges,
        cycles (with sweep, broadcasts and barriers), + the link at ``baud``, + the host's own work, one after the
        other.
        """
        rrm, scratch = self.rrm.of(self.frames), self.scratch.of(self.frames)
        dense, n = self.macs_dense.sum(), len(rrm.macs)
        seconds = {k: [w.cycles.sum() / n / clock_hz, w.link.sum() / n * FRAME_BITS / baud, self.host_seconds]
                   for k, w in (("rrm", rrm), ("scratch", scratch))}
        values = {
            "frames": n,
            "sparsity_activations": 1 - scratch.macs.sum() / n / dense,
            "sparsity_deltas": 1 - rrm.macs.sum() / n / dense,
            "sparsity_activations_all": 1 - scratch.macs_all.sum() / n / self.macs_dense_all.sum(),
            "sparsity_deltas_all": 1 - rrm.macs_all.sum() / n / self.macs_dense_all.sum(),
            "macs_dense": int(dense), "macs_dense_all": int(self.macs_dense_all.sum()),
            "macs_scratch": scratch.macs.sum() / n, "macs_rrm": rrm.macs.sum() / n,
            "cycles_dense_peak": self.macs_dense_all.sum() / rrm.rows,
            "cycles_scratch": scratch.cycles.sum() / n, "cycles_rrm": rrm.cycles.sum() / n,
            "bytes_scratch": scratch.link.sum() / n, "bytes_rrm": rrm.link.sum() / n,
            "efficiency_scratch": _share(scratch.work.sum() / rrm.rows, scratch.cycles.sum()),
            "efficiency_rrm": _share(rrm.work.sum() / rrm.rows, rrm.cycles.sum()),
            "balance_scratch": _share(scratch.words.sum() / rrm.pes, scratch.walk.sum()),
            "balance_rrm": _share(rrm.words.sum() / rrm.pes, rrm.walk.sum()),
            "speedup_eq10": _ratio(scratch.macs.sum(), rrm.macs.sum()),
            "speedup_all_edges": _ratio(scratch.macs_all.sum(), rrm.macs_all.sum()),
            "speedup_cycles": _ratio(scratch.cycles.sum(), rrm.cycles.sum()),
            "speedup_link": _ratio(sum(seconds["scratch"][:2]), sum(seconds["rrm"][:2])),
            "speedup_host": _ratio(sum(seconds["scratch"]), sum(seconds["rrm"])),
            "host_seconds": self.host_seconds,
            "error_mean": float(self.errors[self.frames].mean()), "error_max": float(self.errors[self.frames].max()),
            "refreshes": int(self.refreshes[self.frames].sum()),
        }
        values["time_over_theory"] = _ratio(1, values["efficiency_rrm"])
        values["measured_over_eq10"] = _ratio(values["speedup_cycles"], values["speedup_eq10"])
        for name in PARTS:
            for way, w in (("scratch", scratch), ("rrm", rrm)):
                values[f"cycles_{way}_{name}"] = w.parts[name].sum() / n
        return {k: v if isinstance(v, int) else float(v) for k, v in values.items()}


def _ratio(a: float, b: float) -> float:
    """a / b; 1 where both are 0, infinite where only b is."""
    return float(a / b) if b else (1.0 if not a else float("inf"))


def _share(a: float, b: float) -> float:
    return float(a / b) if b else 0.0


@dataclass(frozen=True)
class Rule:
    """What rrm does with small changes, and when it computes a frame from scratch (``host.session.Session``).

    cuts, errors
        what ``refresh="auto"`` and ``max_error`` go by; None where they are not used.
    """

    threshold: int | Mapping[str, int] = 0
    mode: Mode | Mapping[str, Mode] = "hold"
    refresh: Policy = "never"
    max_error: float | None = None
    cuts: RefreshRule | None = None
    errors: ErrorModel | None = None

    @property
    def exact(self) -> bool:
        """Every change is sent."""
        values = self.threshold.values() if isinstance(self.threshold, Mapping) else [self.threshold]
        return max(values, default=0) <= 1


class _Run:
    """One rule over a clip: its golden model, link and what ``Way`` holds, frame by frame."""

    def __init__(self, program: Program, rule: Rule) -> None:
        graph = program.graph
        self.rule, self.model = rule, GoldenModel(graph, rule.threshold, rule.mode)
        self.link, self.rows = LinkEstimate(program), []
        thresholds, modes = self.model.thresholds, self.model.modes
        drifting = {n: t for n, t in thresholds.items() if modes[n] == "truncate"}
        self._control = ErrorControl(graph, modes, rule.errors, rule.max_error)
        self._schedule = Schedule(rule.refresh, rule.cuts, thresholds, refresh_interval(graph, drifting), self._control)
        self.errors: list[float] = []
        self.refreshes: list[bool] = []

    @property
    def shared(self) -> bool:
        """Its values are those that scratch computes, and all that happens to them is deltas."""
        return self.rule.exact and self.rule.refresh == "never"

    def observed(self, codes: np.ndarray) -> tuple[FrameResult, Changes]:
        """The next frame."""
        reason = self._schedule.reason(lambda: self.model.snapshots[self.model.graph.input], codes, False)
        result, changes = observed_frame(self.model, codes, reason is not None)
        self._schedule.done(reason, result.refresh)
        self._control.add(result.dropped, result.refresh)
        return result, changes

    def way(self, program: Program) -> Way:
        arrays = {k: np.stack([r[k] for r in self.rows]) for k in self.rows[0]}
        return Way(**arrays, rows=program.config.rows, pes=program.config.pes)


class Analyser:
    """Runs a network both ways on the golden and the cycle model, a frame at a time, by several rules side by side.

    Parameters
        program: what the cycles are predicted for.
        rules: by name.
    """

    def __init__(self, program: Program, rules: Mapping[str, Rule]) -> None:
        self.program, self.rules = program, rules
        self._cycles = CycleModel(program)
        self._scratch = _Run(program, Rule())
        self._runs = {name: _Run(program, rule) for name, rule in rules.items()}
        self._kinds = [is_layer(e) for e in program.graph.edges]
        self._csc = [x.kind != Kind.DENSE8 for x in program.lowered]
        self._dense: list[int] = []
        self._sizes: list[float] = []

    def frame(self, codes: np.ndarray) -> dict[str, FrameResult]:
        """One frame of codes of the input tensor, int[C, H, W]: the result of every rule."""
        exact, changes = self._scratch.observed(codes)
        self._dense = [e.macs_dense for e in exact.edges]
        self._sizes.append(_norm(exact.outputs))
        found = {n: (exact, changes) if r.shared else r.observed(codes) for n, r in self._runs.items()}
        scratch = Changes(True, changes.nonzero, changes.nonzero)
        predicted = self._cycles.frames([scratch, *(c for _, c in found.values())])
        self._note(self._scratch, self._scratch.model, exact, exact, predicted[0], True)
        for (name, run), cycles in zip(self._runs.items(), predicted[1:], strict=True):
            model = self._scratch.model if run.shared else run.model
            self._note(run, model, found[name][0], exact, cycles, False)
        return {name: result for name, (result, _) in found.items()}

    def scratch(self) -> Way:
        """Frame by frame."""
        return self._scratch.way(self.program)

    def analysis(self, name: str, host_seconds: float = 0.0, events: tuple[Event, ...] = ()) -> Analysis:
        """What a rule came to over the frames so far."""
        run, config, bound = self._runs[name], self.program.config, None
        if set(run.model.modes.values()) == {"hold"}:
            worst = error_bound(self.program.graph, run.model.thresholds)
            bound = _norm(worst) / min(self._sizes) if min(self._sizes) else np.inf
        return Analysis(self.program.graph.name, config.hash, PREDICTED, self.layers(), run.way(self.program),
                        self.scratch(), np.array(run.refreshes), np.array(run.errors), host_seconds, events, bound)

    def layers(self) -> tuple[Layer, ...]:
        """The steps, in order (after the first frame)."""
        graph, found = self.program.graph, []
        for number, step in enumerate(self.program.steps):
            elements = int(np.prod(graph.tensors[step.tensor].shape)) if step.tensor else 0
            found.append(Layer(number, step.tensor or "(clear)", tuple(graph.edges[e].target for e in step.edges),
                               elements, sum(self._dense[e] for e in step.edges if self._kinds[e]),
                               sum(self._dense[e] for e in step.edges)))
        return tuple(found)

    def _note(self, run: _Run, model: GoldenModel, result: FrameResult, exact: FrameResult, cycles: FrameCycles,
              scratch: bool) -> None:
        """Add a frame to a run. ``scratch``: computed from nothing, whatever ``result`` did."""
        kept = model.snapshots | model.projections
        link = run.link.frame(kept)
        macs = [(e.macs_activations, e.macs_activations_nonzero_weights) if scratch else
                (e.macs, e.macs_nonzero_weights) for e in result.edges]
        steps, tensors = self.program.steps, result.tensors
        values = [scratch or result.refresh or s.direct for s in steps]
        run.rows.append({
            "sent": np.array([0 if s.tensor is None else tensors[s.tensor].nonzero if v else tensors[s.tensor].deltas
                              for s, v in zip(steps, values, strict=True)]),
            "macs": np.array([sum(macs[e][0] for e in s.edges if self._kinds[e]) for s in steps]),
            "macs_all": np.array([sum(macs[e][0] for e in s.edges) for s in steps]),
            "work": np.array([sum(macs[e][self._csc[e]] for e in s.edges) for s in steps]),
            "cycles": cycles.steps, "words": cycles.words, "walk": cycles.walk, "broadcasts": cycles.broadcasts,
            "reads": cycles.sweep, "link": np.array(link)})
        run.errors.append(relative_error(result.outputs, exact.outputs))
        run.refreshes.append(result.refresh)


def _norm(outputs: Mapping[str, np.ndarray]) -> float:
    """Of all outputs together."""
    return float(np.sqrt(sum(np.square(v, dtype=np.float64).sum() for v in outputs.values())))


def analyse(model: Model, frames: Iterable[np.ndarray], rule: Rule, program: Program, device: Device | None = None,
            progress: Callable[[int], None] = lambda done: None) -> Analysis:
    """A clip, frames uint8[H, W, 3] RGB, on a quantised model both ways.

    device
        loaded with the model and the rule: takes the clip twice as well, once computing every frame from scratch, and
        its cycles and bytes replace the predicted ones. Its counts are compared with the golden model's.
    progress
        called with the number of frames done.
    """
    network, pre, head = model.network, model.sidecar.input, model.sidecar.head
    code = program.graph.tensors[program.graph.input].code
    analyser, events, seconds, clip = Analyser(program, {"": rule}), Events(), [], []
    for number, frame in enumerate(frames, start=1):
        began = time.perf_counter()
        codes = network.input.to_codes(pre.apply(frame, network.input), code)
        prepared = time.perf_counter() - began
        result = analyser.frame(codes)[""]
        began = time.perf_counter()
        head.decode(network.finish(dict(result.outputs)),
                    pre.placement((frame.shape[1], frame.shape[0]), network.input))
        seconds.append(prepared + time.perf_counter() - began)
        events.add(frame)
        if device is not None:
            clip.append(codes)
        progress(number)
    if not seconds:
        raise UserError("the clip has no frames")
    found = analyser.analysis("", float(np.median(seconds)), events.found())
    if device is None:
        return found
    rrm = _counted(found.rrm, device, clip, found.refreshes)
    return replace(found, source=COUNTED, rrm=rrm,
                   scratch=_counted(found.scratch, device, clip, np.ones(len(clip), bool)))


def _counted(way: Way, device: Device, clip: list[np.ndarray], refreshes: np.ndarray) -> Way:
    """``way`` with the cycles and bytes that a device takes for the clip."""
    results = [device.frame(codes, bool(again)) for codes, again in zip(clip, refreshes, strict=True)]
    macs = np.array([[s.macs for s in r.steps] for r in results])
    if not np.array_equal(macs, way.macs_all):
        frame, step = np.argwhere(macs != way.macs_all)[0]
        raise RuntimeError(f"frame {frame}, step {step}: the device counted {macs[frame, step]} MACs, the golden "
                           f"model {way.macs_all[frame, step]}")
    return replace(way, cycles=np.array([[s.cycles for s in r.steps] for r in results]),
                   link=np.array([[r.traffic.sent, r.traffic.received] for r in results]))
