"""The order in which channels lie in the array, chosen so that the PEs have equal work.

A PE holds every n-th group of ``lanes`` channels of a projection (n PEs to a phase). In a pruned layer some channels
have far more weights than others, and with one or two groups per PE the fullest decides how long a broadcast takes.
Which channel lies where is free, as long as a tensor lies in the order in which its node reads its operands. With more
phases a PE holds more channels of fewer columns, which evens out more, but every phase needs a copy of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from host.compiler.edges import choose_kind
from host.compiler.places import Place, phase_options, projection_place
from host.compiler.weights import Table
from hw.config import AcceleratorConfig
from hw.layouts import Kind
from sim.graph import Edge, Graph, Node

WORTH = 0.98
"""Share of the fullest PE's words that must be undercut for channels to be moved."""


def balanced(graph: Graph, config: AcceleratorConfig, places: Mapping[str, Place]) -> dict[str, np.ndarray]:
    """Position of each channel, int[C], by the name of every tensor and projection that is rearranged.

    ``places`` are those of the projections.
    """
    orders: dict[str, np.ndarray] = {}
    for names in _free(graph):
        order = _balanced(config, [(e, places[e.target]) for n in names if n in graph.projections
                                   for e in graph.edges_into(n) if not e.vector])
        if order is not None:
            orders |= dict.fromkeys(names, order)
    return orders


def _free(graph: Graph) -> list[list[str]]:
    """Tensors and projections that may lie in any order, those together that nodes and depthwise edges tie to the
    same one."""
    sets = {name: [name] for name in (*graph.projections, *graph.tensors)}
    ties = [(node.target, op.source) for node in graph.nodes for op in node.operands]
    ties += [(e.source, e.target) for e in graph.edges if e.vector]
    for a, b in ties:
        one, other = sets[a], sets[b]
        if one is not other:
            one += other
            sets |= dict.fromkeys(other, one)
    # The host writes the input, and a depthwise edge between other channels would lose its vector mode.
    fixed = {graph.input, *(e.source for e in graph.edges if e.vector and (
        graph.shape_of(e.source)[0] != graph.shape_of(e.target)[0] or (e.rows[:, 0] != e.channels).any()))}
    return [names for names in {id(names): names for names in sets.values()}.values() if not fixed & set(names)]


def phases(graph: Graph, config: AcceleratorConfig) -> dict[str, int]:
    """log2 of the number of phases with which the fullest PE has least to do (within 5%: the smallest), by the name of
    the projections where that is known: those with CSC edges."""
    chosen = {}
    for name, projection in graph.projections.items():
        options = phase_options(projection.shape, config)
        edges = [e for e in graph.edges_into(name) if not e.vector]
        if len(options) == 1 or not edges:
            continue
        fullest = []
        for bits in options:
            place = projection_place(projection.shape, config, bits)
            load = _loads(config, [(e, place) for e in edges])
            if load is None:
                break
            fullest.append(_dealt(load, config, place)[1] * (config.pes >> bits))
        else:
            chosen[name] = next(b for b, f in zip(options, fullest, strict=True) if f <= 1.05 * min(fullest))
    return chosen


def _balanced(config: AcceleratorConfig, edges: list[tuple[Edge, Place]]) -> np.ndarray | None:
    """Position of each channel of the projections that these edges feed; None where no order gains anything."""
    load = _loads(config, edges)
    if load is None or len({place.phase_bits for _, place in edges}) > 1:
        return None
    place = edges[0][1]
    before = max(np.bincount(np.arange(len(row)) % (config.pes >> place.phase_bits), row).max() for row in load)
    slot, fullest = _dealt(load, config, place)
    if fullest > WORTH * before:
        return None
    return (slot[:, None] * config.lanes + np.arange(config.lanes)).reshape(-1)[:place.shape[0]]


def _loads(config: AcceleratorConfig, edges: list[tuple[Edge, Place]]) -> np.ndarray | None:
    """Share of each group of ``lanes`` channels in an edge's weight words, float[edge, group], of the CSC edges; None
    where there are none."""
    loads = [words / words.sum() for e, place in edges if (words := _words(e, config, place)) is not None]
    return np.stack(loads) if loads else None


def _dealt(load: np.ndarray, config: AcceleratorConfig, place: Place) -> tuple[np.ndarray, float]:
    """Deal the groups out to the PEs of a phase: the heaviest first, each to the PE whose fullest edge it fills least.
    (Position of each group, int[groups]; the fullest PE's share of an edge.)"""
    pes, groups, whole = config.pes >> place.phase_bits, load.shape[1], place.shape[0] // config.lanes
    total, filled = np.zeros((len(load), pes)), np.zeros(pes, np.int64)
    capacity = np.bincount(np.arange(whole) % pes, minlength=pes)
    if whole < groups:                                              # the last, not whole group stays where it is
        total[:, whole % pes] += load[:, whole]
    slot = np.arange(groups)
    for group in np.argsort(-load[:, :whole].max(axis=0), kind="stable"):
        fullest = (total + load[:, group, None]).max(axis=0)
        pe = int(np.where(filled < capacity, fullest, np.inf).argmin())
        slot[group] = filled[pe] * pes + pe
        total[:, pe] += load[:, group]
        filled[pe] += 1
    return slot, float(total.max())


def _words(edge: Edge, config: AcceleratorConfig, place: Place) -> np.ndarray | None:
    """Weight words of each group of ``lanes`` channels, int[groups]; None where they are not CSC, or none."""
    table = Table.scalar(edge, config.rows >> place.phase_bits, config.lanes)
    if choose_kind(edge, table, config) == Kind.DENSE8:
        return None
    first, count = table.blocks
    words = np.zeros((first + count, len(table.codes)), np.int64)
    words[first:] = table.codes.any(axis=-1).sum(axis=(1, 2)).T                    # [block, pe]
    groups = -(-place.shape[0] // config.lanes)
    words = np.pad(words.reshape(-1), (0, max(0, groups - words.size)))[:groups]
    return words if words.any() else None


def rearranged(graph: Graph, orders: Mapping[str, np.ndarray]) -> Graph:
    """Edges and nodes as they are lowered: channel c of ``name`` is at position ``orders[name][c]``. Codes, scales and
    outputs keep the channels' own order."""
    return replace(graph, edges=tuple(_edge(e, orders) if {e.source, e.target} & orders.keys() else e
                                      for e in graph.edges),
                   nodes=tuple(_node(n, orders[n.target]) if n.target in orders else n for n in graph.nodes))


def _edge(edge: Edge, orders: Mapping[str, np.ndarray]) -> Edge:
    channels = orders[edge.source][edge.channels] if edge.source in orders else edge.channels
    rows = orders[edge.target][edge.rows] if edge.target in orders else edge.rows
    k = np.argsort(channels)[:, None]
    r = np.argsort(rows[k[:, 0]], axis=1)
    return replace(edge, channels=channels[k[:, 0]], rows=rows[k, r], weight=edge.weight[k, r],
                   weight_code=edge.weight_code[k, r])


def _node(node: Node, order: np.ndarray) -> Node:
    """The node table has a row per position."""
    at = np.argsort(order)
    operands = tuple(replace(op, **{name: value[at] for name in (
        "bias", "bias_code", "multiplier", "negative_multiplier", "branch_multiplier", "branch_shift")
        if (value := getattr(op, name)) is not None}) for op in node.operands)
    return replace(node, operands=operands, slope=node.slope[at], shift=node.shift[at])
