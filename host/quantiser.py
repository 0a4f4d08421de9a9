"""Post-training quantisation: a real-number network becomes one of integers.

Activations get 8-bit codes with a zero point, weights int8 per output channel of the *projection* (every
edge into a projection uses that projection's scale) or a codebook of 16 or 256 16-bit values, and each node
its 24-bit multipliers. What a QuantizeLinear/DequantizeLinear network brings along is kept: tensors that
have a code and projections that have a scale are not touched.

The accumulator width that a projection needs is *proven* from its weights (``accumulator_width``), not
observed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from host.calibration import Calibration, TensorStatistics
from host.errors import UserError
from host.network import Network
from sim.graph import MULTIPLIER_BITS, Code, Edge, Graph, Node, Output, Projection, Tensor
from sim.linear import scatter

Weights = Literal["auto", "int8", "codebook16", "codebook256"]

MAX_SHIFT = 47
"""Largest requantisation shift; a factor too small for it loses multiplier bits, not range."""
MAX_BIAS = 1 << 25
"""Largest bias code: bias and accumulator together then fit 28 bits."""
GAIN_BELOW = 10 ** (30 / 10)
"""Signal to rounding noise (power) of a consumer's typical sum below which a tensor gets a gain per channel."""
RANGE_FACTORS = np.linspace(0.5, 1.0, 26)
"""Candidate fractions of a tensor's extremes for the range with the least mean square error."""
SCALE_FACTORS = np.linspace(0.7, 1.0, 13)
"""Candidate fractions of a weight row's extreme for the scale with the least weighted square error."""


def pixel_code(mean: Sequence[float], scale: Sequence[float]) -> Code:
    """Code of an input tensor that holds ``(pixel - mean[c]) * scale[c]`` for pixels 0..255.

    With one scale and whole-numbered means every pixel value is one code, exactly; else the nearest of 255.
    """
    mean, scale = np.atleast_1d(np.asarray(mean, float)), np.atleast_1d(np.asarray(scale, float))
    if (scale == scale[0]).all() and (mean == np.rint(mean)).all() and mean.min() >= 0 and mean.max() <= 255:
        return Code(float(scale[0]), -int(mean.max()), 255 - int(mean.min()))
    ends = np.stack([-mean * scale, (255 - mean) * scale])
    return range_code(float(ends.min()), float(ends.max()))


def range_code(low: float, high: float) -> Code:
    """The 256-value code that holds every real value in low..high (0 included), none clipped."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 0:
        return Code(1.0, 0, 255)
    lo = -round(255 * -low / (high - low))
    hi = lo + 255
    return Code(max(low / lo if lo else 0.0, high / hi if hi else 0.0), lo, hi, zero_point=-128 - lo)


def activation_code(stats: TensorStatistics) -> Code:
    """The code with the least mean square error on the calibration sample (clipping against resolution)."""
    low, high = float(stats.low.min()), float(stats.high.max())
    candidates = [range_code(low * f, high * f) for f in RANGE_FACTORS[::-1]]
    errors = [float(np.square(c.decode(c.encode(stats.sample)) - stats.sample).mean()) for c in candidates]
    return candidates[int(np.argmin(errors))]


def channel_code(stats: TensorStatistics) -> Code:
    """A code with a gain per channel, so that each channel uses the whole of one common range of codes."""
    lo = -np.arange(256.0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.fmax(np.fmax(stats.low / lo, stats.high / (lo + 255)), 0.0)      # [candidate, channel]
    live = steps[0] > 0
    if not live.any():
        return range_code(0.0, 0.0)
    best = int(np.log2(steps[:, live]).sum(axis=1).argmin())
    widest = np.where(live, steps[best], steps[best].max())
    step, least = widest, np.full(len(widest), np.inf)
    for factor in RANGE_FACTORS[::-1]:
        codes = np.clip(np.rint(stats.sample / (widest * factor)[:, None]), -best, 255 - best)
        error = np.square(codes * (widest * factor)[:, None] - stats.sample).mean(axis=1)
        step, least = np.where(error < least, widest * factor, step), np.minimum(error, least)
    return Code(float(step.max()), -best, 255 - best, best - 128, tuple(step / step.max()))


def quantise(network: Network, calibration: Calibration | None = None, *, weights: Weights = "auto",
             input_code: Code | None = None) -> Network:
    """The same network with every integer field filled in.

    calibration
        needed unless every tensor has a code already (a QDQ network).
    weights
        ``int8``; ``codebook16``/``codebook256``: 16-bit values from a codebook per edge; ``auto``:
        a codebook where the weights are already pruned and shared (at most 256 values, 30% zeros), else int8.
    input_code
        code of the input tensor where it is known better than from calibration, see ``pixel_code``.

    Raises UserError when a proof of the accumulator width fails on scales that the network fixes.
    """
    graph = network.graph
    tensors = _tensor_codes(graph, calibration, input_code)
    energy = {n: s.energy / np.square(tensors[n].code.scales(len(s.energy)))
              for n, s in (calibration.tensors.items() if calibration else ())}
    projections, coded = {}, {}
    for p in graph.projections.values():
        edges = graph.edges_into(p.name)
        projections[p.name], codes, bits = _quantise_projection(graph, p, edges, tensors, energy, weights)
        for e, code in zip(edges, codes, strict=True):
            coded[id(e)] = replace(e, weight_code=code, codebook_bits=bits)
    edges = tuple(coded[id(e)] for e in graph.edges)
    drift = _weight_drift(edges, tensors, projections, calibration)
    nodes = tuple(_quantise_node(n, tensors, projections, drift) for n in graph.nodes)
    outputs = tuple(_corrected(out, drift) for out in graph.outputs)
    done = graph.with_parts(tensors=tensors, projections=projections, edges=edges, nodes=nodes, outputs=outputs)
    for name, bits in accumulator_width(done).items():
        if bits > graph.accumulator_bits:
            raise UserError(f"{network.name}: projection {name} needs {bits}-bit accumulators with the scales that "
                            f"the network brings along; there are {graph.accumulator_bits} bits")
    return replace(network, graph=done)


# ---------------------------------------------------------------------------------------------- tensors

def _tensor_codes(graph: Graph, calibration: Calibration | None, known: Code | None) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for tensor, node in graph.steps():
        code = tensor.code
        if code is None and node is None and known is not None:
            code = known
        elif code is None and node is not None and node.sign:
            code = Code(1.0, -1, 1)
        elif code is None and node is not None and _only_moves(node, graph):
            code = tensors[node.operands[0].source].code
        elif code is None:
            if calibration is None:
                raise UserError(f"graph {graph.name}: tensor {tensor.name} has no scale; calibration is needed")
            stats = calibration.tensors[tensor.name]
            code = activation_code(stats)
            if node is not None and _wants_gain(graph, node, code, stats):
                code = channel_code(stats)
        tensors[tensor.name] = replace(tensor, code=code)
    return tensors


def _wants_gain(graph: Graph, node: Node, code: Code, stats: TensorStatistics) -> bool:
    """One scale for all channels would leave typical sums of the consumers too noisy, and gains can be had
    (a clip must not cut a channel inside its range of codes)."""
    low, high = node.clip
    if node.sign or not (low in (None, 0) and (high is None or stats.low.min() >= 0)):
        return False
    noise = code.scale ** 2 / 12
    ratios = [stats.energy / noise]
    for e in graph.edges_from(node.target):
        power = np.square(e.weight).sum(axis=(2, 3))                                # [K, R]
        signal, heard = np.zeros(graph.shape_of(e.target)[0]), np.zeros(graph.shape_of(e.target)[0])
        np.add.at(signal, e.rows, power * stats.energy[e.channels][:, None])
        np.add.at(heard, e.rows, power * noise)
        ratios.append(signal[heard > 0] / heard[heard > 0])
    return any(len(r) > 0 and np.median(r) < GAIN_BELOW for r in ratios[1:] or ratios)


def _only_moves(node: Node, graph: Graph) -> bool:
    """The node copies or max-pools one tensor, so that the tensor's own code serves unchanged."""
    op = node.operands[0]
    return (len(node.operands) == 1 and op.source in graph.tensors and not op.bias.any()
            and (node.slope == 1).all() and node.clip == (None, None))


# ------------------------------------------------------------------------------------------- projections

def _quantise_projection(graph: Graph, p: Projection, edges: tuple[Edge, ...], tensors: dict[str, Tensor],
                         energy: dict[str, np.ndarray], weights: Weights,
                         ) -> tuple[Projection, list[np.ndarray], Literal[None, 4, 8]]:
    """Scale of a projection, weight codes of its edges, and the width of their codebook (None: int8)."""
    inputs = [tensors[e.source].code for e in edges]
    unit = [e.weight * _by_column(c, e) for e, c in zip(edges, inputs, strict=True)]  # what one code adds
    if p.scale is not None:
        codes = [np.rint(w / _by_row(p.scale, e)).astype(np.int32) for e, w in zip(edges, unit, strict=True)]
        return p, codes, None if all((-128 <= c.min()) and (c.max() <= 127) for c in codes) else 8
    entries = {"codebook16": 16, "codebook256": 256}.get(weights)
    if weights == "auto" and is_pruned_and_shared(edges):
        entries = 256
    floor = _bias_floor(graph, p)
    if entries is not None:
        shared = [_cluster(w, entries) for w in unit]
        scale = np.maximum(_codebook_scale(graph, edges, inputs, shared, p), floor)
        codes = [np.rint(w / _by_row(scale, e)).astype(np.int32) for e, w in zip(edges, shared, strict=True)]
        return replace(p, scale=scale), codes, 4 if entries == 16 else 8
    scale = np.maximum(_int8_scale(p, edges, unit, energy), floor)
    codes, room = _int8_codes(edges, unit, scale), (1 << (graph.accumulator_bits - 1)) - 1
    while ((bound := _row_bounds(edges, codes, inputs, p.shape[0])[1]) > room).any():
        scale = np.where(bound > room, scale * np.maximum(bound / room, 1 + 1 / 127), scale)
        codes = _int8_codes(edges, unit, scale)                # rounding and clipping change with the scale
    return replace(p, scale=scale), codes, None


def _by_row(per_row: np.ndarray, e: Edge) -> np.ndarray:
    """Spread a per-output-channel array over an edge's entries: [C] -> [K, R, 1, 1]."""
    return per_row[e.rows][:, :, None, None]


def _by_column(code: Code, e: Edge) -> np.ndarray:
    """Real value of one code of each column's channel: [K, 1, 1, 1]."""
    channels = int(e.channels[-1]) + 1 if code.gain is None else len(code.gain)
    return code.scales(channels)[e.channels][:, None, None, None]


def _row_max(edges: tuple[Edge, ...], values: list[np.ndarray], rows: int) -> np.ndarray:
    """Largest |value| of each projection row over all edges: [rows]."""
    top = np.zeros(rows)
    for e, v in zip(edges, values, strict=True):
        np.maximum.at(top, e.rows, np.abs(v).max(axis=(2, 3)))
    return top


def _int8_codes(edges: tuple[Edge, ...], unit: list[np.ndarray], scale: np.ndarray) -> list[np.ndarray]:
    return [np.clip(np.rint(w / _by_row(scale, e)), -127, 127).astype(np.int32)
            for e, w in zip(edges, unit, strict=True)]


def _int8_scale(p: Projection, edges: tuple[Edge, ...], unit: list[np.ndarray], energy: dict[str, np.ndarray],
                ) -> np.ndarray:
    """Scale per row: exact where a row is made of small whole multiples (pooling, up-sampling), else the
    candidate with the least square error, each column weighted by the mean square ``energy`` of its codes."""
    rows = p.shape[0]
    top = _row_max(edges, unit, rows)
    top[top == 0] = top.max() or 1.0
    best, least = top / 127, np.full(rows, np.inf)
    for factor in SCALE_FACTORS[::-1]:
        scale = top * factor / 127
        error = np.zeros(rows)
        for e, w, code in zip(edges, unit, _int8_codes(edges, unit, scale), strict=True):
            cost = energy[e.source][e.channels] if e.source in energy else np.ones(len(e.channels))
            np.add.at(error, e.rows, np.square(code * _by_row(scale, e) - w).sum(axis=(2, 3)) * cost[:, None])
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    exact = _whole_number_scale(edges, unit, rows)
    return np.where(exact > 0, exact, best)


def _whole_number_scale(edges: tuple[Edge, ...], unit: list[np.ndarray], rows: int) -> np.ndarray:
    """Per row the unit of which all its weights are whole multiples up to 127, or 0 where there is none."""
    smallest = np.full(rows, np.inf)
    for e, w in zip(edges, unit, strict=True):
        magnitude = np.abs(w)
        np.minimum.at(smallest, e.rows, np.where(magnitude > 0, magnitude, np.inf).min(axis=(2, 3)))
    fits = np.isfinite(smallest)
    smallest[~fits] = 1.0
    for e, w in zip(edges, unit, strict=True):
        multiple = w / _by_row(smallest, e)
        whole = (np.abs(multiple - np.rint(multiple)) < 1e-5) & (np.abs(multiple) < 127.5)
        np.logical_and.at(fits, e.rows, whole.all(axis=(2, 3)))
    return np.where(fits, smallest, 0.0)


def _bias_floor(graph: Graph, p: Projection) -> np.ndarray:
    """Smallest scale at which every bias added to the projection still fits: [C]."""
    largest = np.zeros(p.shape[0])
    for node in graph.nodes:
        for op in node.operands:
            if op.source == p.name:
                largest = np.maximum(largest, np.abs(op.bias))
    return np.maximum(largest / MAX_BIAS, np.finfo(np.float32).tiny)


def is_pruned_and_shared(edges: tuple[Edge, ...]) -> bool:
    """The layer comes in the Deep Compression form: at most 256 values and 30% zeros in every edge."""
    return all(e.weight.size >= 512 and (e.weight == 0).mean() >= 0.3 and len(np.unique(e.weight)) <= 256
               for e in edges)


def _cluster(weight: np.ndarray, entries: int) -> np.ndarray:
    """Weights with at most ``entries`` different values, zero kept as zero (k-means; as they are if few already)."""
    values, inverse, counts = np.unique(weight, return_inverse=True, return_counts=True)
    if (values != 0).sum() > entries - 1:                                           # one entry is 0's
        centres = _k_means(values[values != 0], counts[values != 0], entries - 1)
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        values = np.where(values == 0, 0.0, centres[nearest])
    return values[inverse].reshape(weight.shape)


def _k_means(values: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Lloyd's algorithm on sorted, counted values from a linear start (Deep Compression, section 3.1)."""
    centres = np.linspace(values[0], values[-1], k)
    mass, moment = np.cumsum(counts, dtype=float), np.cumsum(counts * values)
    for _ in range(100):
        ends = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], ends, [len(values)]])
        n = np.diff(np.concatenate([[0.0], mass])[edges])
        s = np.diff(np.concatenate([[0.0], moment])[edges])
        moved = np.where(n > 0, s / np.maximum(n, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = np.sort(moved)
    return centres


def _codebook_scale(graph: Graph, edges: tuple[Edge, ...], inputs: list[Code], shared: list[np.ndarray],
                    p: Projection) -> np.ndarray:
    """One scale for all rows, so that equal weights are equal codes: 16 bits, or what the accumulators hold."""
    rows = p.shape[0]
    top = max(float(np.abs(w).max()) for w in shared) or 1.0
    probe = [np.rint(w / top * 32767).astype(np.int64) for w in shared]
    bound = _row_bounds(edges, probe, inputs, rows)[1].max()
    room = (1 << (graph.accumulator_bits - 1)) - sum(e.weight[0, 0].size * len(e.channels) * 128 for e in edges) - 1
    return np.full(rows, top / 32767 * max(1.0, bound / max(room, 1)))


# ------------------------------------------------------------------------------------- width of accumulators

def _row_bounds(edges: tuple[Edge, ...], codes: list[np.ndarray], inputs: list[Code], rows: int,
                ) -> tuple[np.ndarray, np.ndarray]:
    """Per row (sum of |weight|, largest |P|) over every input that the codes allow: each float64[rows].

    With up-sampling an output position meets only the taps of one phase, so the worst phase counts.
    """
    mass, bound = np.zeros(rows), np.zeros(rows)
    for e, w, code in zip(edges, codes, inputs, strict=True):
        w = w.astype(np.float64)
        most, least = np.maximum(w * code.hi, w * code.lo), np.minimum(w * code.hi, w * code.lo)
        g = e.geometry
        edge_mass, edge_bound = np.zeros(rows), np.zeros(rows)
        for py in range(g.upsample[0]):
            for px in range(g.upsample[1]):
                taps = np.ix_(range(w.shape[0]), range(w.shape[1]),
                              _phase(e.kernel[0], g.dilation[0], g.upsample[0], py),
                              _phase(e.kernel[1], g.dilation[1], g.upsample[1], px))
                sums = [np.zeros(rows) for _ in range(3)]
                for total, part in zip(sums, (np.abs(w), most, least), strict=True):
                    np.add.at(total, e.rows, part[taps].sum(axis=(2, 3)))
                edge_mass = np.maximum(edge_mass, sums[0])
                edge_bound = np.maximum(edge_bound, np.maximum(sums[1], -sums[2]))
        mass, bound = mass + edge_mass, bound + edge_bound
    return mass, bound


def _phase(kernel: int, dilation: int, upsample: int, phase: int) -> list[int]:
    return [k for k in range(kernel) if (k * dilation) % upsample == phase]


def _projection_bounds(graph: Graph, p: Projection) -> tuple[np.ndarray, np.ndarray]:
    edges = graph.edges_into(p.name)
    return _row_bounds(edges, [e.weight_code for e in edges], [graph.tensors[e.source].code for e in edges], p.shape[0])


def accumulator_width(graph: Graph) -> dict[str, int]:
    """Bits (two's complement) that each projection needs, proven from the weights.

    Holds for ``direct`` projections and for ``delta`` ones in exact and ``hold`` mode, where P is exactly
    W * snapshot at every barrier; what wraps in between does not matter.
    """
    return {p.name: int(_projection_bounds(graph, p)[1].max()).bit_length() + 1 for p in graph.projections.values()}


def refresh_interval(graph: Graph, threshold: dict[str, int]) -> int | None:
    """Frames that ``truncate`` may run after a refresh before an accumulator could wrap (None: for ever; 0: none).

    Each frame moves P away from W * snapshot by less than sum(|W|) * (T - 1).
    """
    frames = math.inf
    for p in graph.projections.values():
        edges = graph.edges_into(p.name)
        drift = np.zeros(p.shape[0])
        for e in edges:
            t = max(threshold.get(e.source, 1), 1)
            drift += _row_bounds((e,), [e.weight_code], [graph.tensors[e.source].code], p.shape[0])[0] * (t - 1)
        if p.mode == "delta" and drift.max() > 0:
            room = (1 << (graph.accumulator_bits - 1)) - 1 - _projection_bounds(graph, p)[1]
            frames = min(frames, math.floor((room[drift > 0] / drift[drift > 0]).min()))
    return None if frames == math.inf else int(frames)


# ------------------------------------------------------------------------------------------------- nodes

def _weight_drift(edges: tuple[Edge, ...], tensors: dict[str, Tensor], projections: dict[str, Projection],
                  calibration: Calibration | None) -> dict[str, np.ndarray]:
    """Mean change of each projection that its rounded weights cause, in real units per channel.

    Linear in the input, so the mean input map gives it exactly (bias correction, Nagel et al. 2019,
    section 4.2); nodes and outputs take it off their bias.
    """
    drift: dict[str, np.ndarray] = {}
    for e in edges if calibration else ():
        p = projections[e.target]
        rounded = _decoded(e, p, tensors[e.source].code)
        moved = scatter(e, calibration.tensors[e.source].mean, rounded - e.weight, p.shape, np.float64)
        drift[p.name] = drift.get(p.name, 0.0) + moved.mean(axis=(1, 2))
    return drift


def decoded_weights(graph: Graph, edge: Edge) -> np.ndarray:
    """The real weights that a quantised edge's codes stand for, float64[K, R, kh, kw]."""
    return _decoded(edge, graph.projections[edge.target], graph.tensors[edge.source].code)


def _decoded(edge: Edge, target: Projection, source: Code) -> np.ndarray:
    return edge.weight_code * _by_row(target.scale, edge) / _by_column(source, edge)


def _corrected(out: Output, drift: dict[str, np.ndarray]) -> Output:
    return replace(out, reads=tuple(replace(r, bias=r.bias - drift.get(r.source, 0.0)) for r in out.reads))


def _quantise_node(node: Node, tensors: dict[str, Tensor], projections: dict[str, Projection],
                   drift: dict[str, np.ndarray]) -> Node:
    target = tensors[node.target].code
    operands, factors = [], []
    for op in node.operands:
        channels = len(op.bias)
        source = (projections[op.source].scale if op.source in projections
                  else tensors[op.source].code.scales(channels))
        bias = op.bias - drift.get(op.source, 0.0)
        op = replace(op, bias=bias, bias_code=np.rint(bias / source).astype(np.int64))
        if op.branch is not None:
            factor, shift = _multiplier(source / op.branch.scale)
            op = replace(op, branch_multiplier=factor, branch_shift=shift)
            source = np.full(channels, op.branch.scale)
        operands.append(op)
        factors.append(source / target.scales(channels))
    steepest = np.maximum(np.abs(node.slope), 1.0)
    _, shift = _multiplier(np.max(factors, axis=0) * steepest)
    for i, (op, factor) in enumerate(zip(operands, factors, strict=True)):
        exact = np.ldexp(factor, shift)
        operands[i] = replace(op, multiplier=np.rint(exact).astype(np.int64),
                              negative_multiplier=np.rint(exact * node.slope).astype(np.int64))
    low, high = node.clip
    lo = target.lo if low is None or target.gain else int(target.encode(low))
    hi = target.hi if high is None or target.gain else int(target.encode(high))
    return replace(node, operands=tuple(operands), shift=shift, lo=lo, hi=hi)


def _multiplier(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A real factor per channel as (multiplier, shift): factor ~ multiplier / 2**shift, as many bits as fit."""
    limit = (1 << (MULTIPLIER_BITS - 1)) - 1
    shift = np.clip(np.floor(np.log2(limit / factor)), 0, MAX_SHIFT).astype(np.int64)
    multiplier = np.rint(np.ldexp(factor, shift)).astype(np.int64)
    if (multiplier > limit).any():
        raise UserError(f"requantisation factor {factor.max():.3g} does not fit {MULTIPLIER_BITS} bits; "
                        "a tensor's scale is far too small for its input's")
    return multiplier, shift
