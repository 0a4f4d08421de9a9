"""Deep Compression without retraining (Han et al., 2016): magnitude pruning, shared weights, 4-bit relative indices.

``pruned`` sets the smallest weights of every layer to 0; the quantiser then shares the others by k-means (``weights =
"codebook16"`` or ``"codebook256"``), and the compiler stores them in CSC form. ``layers`` says what that did to every
layer, ``outputs_sqnr`` what it did to the outputs. A network that comes pruned and shared is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from rich.table import Table

from host.errors import UserError
from host.network import Network
from host.quantiser import decoded_weights, is_pruned_and_shared
from hw.config import INDEX_BITS
from sim.float_model import FloatModel
from sim.golden import GoldenModel
from sim.graph import Edge

SMALLEST = 512
"""Weights of a layer below which pruning gains nothing worth its error."""
FLOAT_BITS, VALUE_BITS = 32, 16
"""Bits of a weight as imported, and of a codebook's value."""


def pruned(network: Network, share: float) -> Network:
    """The network, not yet quantised, with at least this share of every layer's weights zero, the smallest first.

    A layer is an edge. Depthwise ones, those of fewer than ``SMALLEST`` weights or without learned ones (pooling,
    up-sampling), and those that are pruned and shared already stay as they are.

    Raises UserError when the share is not in 0..1 or the network is quantised.
    """
    if not 0 <= share < 1:
        raise UserError(f"--prune {share:g}: the share of weights to set to zero must be at least 0 and below 1")
    if network.graph.quantised:
        raise UserError(f"{network.name}: it is quantised already; prune the ONNX network")
    edges = tuple(_pruned(e, share) if is_prunable(e) else e for e in network.graph.edges)
    return replace(network, graph=network.graph.with_parts(edges=edges))


def is_prunable(edge: Edge) -> bool:
    """``pruned`` changes this edge."""
    return edge.weight.size >= SMALLEST and not edge.vector and _is_learned(edge) and not is_pruned_and_shared((edge,))


def _is_learned(edge: Edge) -> bool:
    return len(np.unique(edge.weight)) > 2


def _pruned(edge: Edge, share: float) -> Edge:
    magnitude, zeros = np.abs(edge.weight), round(share * edge.weight.size)
    kept = np.partition(magnitude, zeros, axis=None)[zeros]                    # the smallest that is
    return replace(edge, weight=np.where(magnitude < kept, 0, edge.weight))


@dataclass(frozen=True)
class Layer:
    """One edge before and after.

    source, target
        of the edge.
    weights, zeros_before, zeros
        how many there are; of these 0 as imported, and as quantised.
    values
        different ones that are not 0, as quantised.
    codebook_bits
        None for int8, 4 or 8.
    pruning_error, coding_error
        sum of squares of what pruning changed, and of what sharing and rounding changed after that; ``energy`` is the
        sum of squares of the weights as imported. In their real unit.
    bits
        of the weights as stored: a code each of int8, else 4-bit relative index and code for every non-zero weight
        and every padding entry of one processing element, and the codebook. Pointers to columns are not counted.
    """

    source: str
    target: str
    weights: int
    zeros_before: int
    zeros: int
    values: int
    codebook_bits: int | None
    energy: float
    pruning_error: float
    coding_error: float
    bits: int

    @property
    def kind(self) -> str:
        return "int8" if self.codebook_bits is None else f"codebook of {1 << self.codebook_bits}"


def layers(original: Network, compressed: Network) -> list[Layer]:
    """What pruning and quantisation did to every edge with learned weights. ``original`` is the network as imported,
    ``compressed`` the same quantised."""
    return [_layer(before, after, decoded_weights(compressed.graph, after))
            for before, after in zip(original.graph.edges, compressed.graph.edges, strict=True) if _is_learned(before)]


def _layer(before: Edge, after: Edge, decoded: np.ndarray) -> Layer:
    values = np.unique(after.weight_code[after.weight_code != 0])
    size = before.weight.size
    bits = 8 * size if after.codebook_bits is None else (
        (INDEX_BITS + after.codebook_bits) * csc_entries(after) + VALUE_BITS * len(values))
    return Layer(after.source, after.target, size, int((before.weight == 0).sum()), int((after.weight_code == 0).sum()),
                 len(values), after.codebook_bits, float(np.square(before.weight).sum()),
                 float(np.square(after.weight - before.weight).sum()), float(np.square(decoded - after.weight).sum()),
                 int(bits))


def csc_entries(edge: Edge) -> int:
    """Entries of an edge's columns with 4-bit relative indices in one processing element, padding included: gaps of
    more than 15 zeros take an entry for every 16."""
    codes = np.moveaxis(edge.weight_code, 1, -1).reshape(len(edge.channels), -1)           # [column, tap and row]
    column, row = np.nonzero(codes)
    gap = np.diff(row, prepend=-1) - 1
    first = np.diff(column, prepend=-1) != 0
    return len(row) + int((np.where(first, row, gap) >> INDEX_BITS).sum())


def outputs_sqnr(original: Network, compressed: Network, arrays: Iterable[np.ndarray]) -> tuple[str, str]:
    """What is left of the outputs: signal to noise ratio in dB over ONNX input arrays, of the pruned network in real
    numbers, and of its integers (shared and rounded).

    The signal is ``original`` in real numbers, the network as imported. Outputs are those of the accelerator, before
    what runs on the host; all of them together.
    """
    models = [FloatModel(network.graph) for network in (original, compressed)]
    golden, code = GoldenModel(compressed.graph), compressed.graph.tensors[compressed.graph.input].code
    signal, pruning, both = np.zeros(3)
    for array in arrays:
        wanted, floats = (model.outputs(original.input.to_real(array)) for model in models)
        integers = golden.frame(compressed.input.to_codes(array, code)).outputs
        for name, value in wanted.items():
            signal += np.square(value).sum()
            pruning += np.square(floats[name] - value).sum()
            both += np.square(integers[name] - value).sum()
    return db(signal, pruning), db(signal, both)


def db(energy: float, error: float) -> str:
    """A signal to noise ratio in dB."""
    return "exact" if error <= 0 else f"{10 * np.log10(energy / error):.1f}"


def table(found: Iterable[Layer], name: str) -> Table:
    """For people: a row per layer and the sum."""
    found = list(found)
    out = Table(title=f"{name}: weights as compressed")
    for title, justify in (("from", "left"), ("into", "left"), ("kind", "left"), ("weights", "right"),
                           ("zeros before", "right"), ("zeros", "right"), ("values", "right"),
                           ("pruning, dB", "right"), ("sharing, dB", "right"), ("kB float", "right"), ("kB", "right")):
        out.add_column(title, justify=justify)
    for x in found:
        out.add_row(x.source, x.target, x.kind, *_numbers([x]))
    out.add_section()
    out.add_row("all", "", "", *_numbers(found))
    return out


def _numbers(found: list[Layer]) -> tuple[str, ...]:
    def total(name: str) -> float:
        return sum(getattr(x, name) for x in found)

    weights, kept = total("weights"), total("energy") - total("pruning_error")
    return (f"{weights:,}", f"{total('zeros_before') / weights:.1%}", f"{total('zeros') / weights:.1%}",
            f"{found[0].values}" if len(found) == 1 else "", db(total("energy"), total("pruning_error")),
            db(kept, total("coding_error")), f"{weights * FLOAT_BITS / 8192:,.1f}", f"{total('bits') / 8192:,.1f}")
