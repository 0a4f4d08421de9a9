"""Which ONNX nodes have to run on the accelerator, and how often each value is used."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from host.onnx_import.loader import OnnxNode, Source
from host.onnx_import.registry import OPERATORS, Kind

SHAPE_OPERATORS = ("Shape", "Size")
"""Operators whose result depends on the shape alone, and so is a constant."""
_ON_BOARD = (Kind.ELEMENTWISE, Kind.SPATIAL, Kind.VIEW, Kind.CODES)


@dataclass(frozen=True, eq=False)
class Plan:
    """The split of a file.

    next_layer
        for each node, the name of a layer at or after it, or None: then it can run on the host.
    device
        nodes that run on the accelerator if they can: those with a layer behind them, or with a
        QuantizeLinear behind them that its graph can still make.
    uses
        value name -> how many operators (other than views of it) and network outputs read it.
    """

    next_layer: Mapping[OnnxNode, str | None]
    device: frozenset[OnnxNode]
    uses: Mapping[str, int]

    @classmethod
    def of(cls, source: Source) -> Plan:
        """Walk the nodes backwards once."""
        consumers: dict[str, list[OnnxNode]] = defaultdict(list)
        for node in source.nodes:
            for name in node.reads:
                consumers[name].append(node)
        constant = _constants(source)
        uses = Counter(source.outputs)
        next_layer: dict[OnnxNode, str | None] = {}
        device: set[OnnxNode] = set()
        for node in reversed(source.nodes):
            after = [c for o in node.outputs for c in consumers[o]]
            op = OPERATORS.get(node.op)
            layer = op is not None and op.kind is Kind.LAYER and _is_layer(node, constant)
            behind = (next_layer[c] for c in after)
            next_layer[node] = node.label if layer else next(filter(None, behind), None)
            makes_codes = node.op == "QuantizeLinear" or (
                op is not None and op.kind in _ON_BOARD and any(c in device for c in after))
            if next_layer[node] or makes_codes:
                device.add(node)
            through = sum(uses[o] for o in node.outputs if o) if op is not None and op.transparent else 1
            through = 0 if node.op in SHAPE_OPERATORS else through
            for name in (*node.inputs, *set(node.reads).difference(node.inputs)):
                uses[name] += through
        return cls(next_layer, frozenset(device), uses)


def _constants(source: Source) -> set[str]:
    """Values that do not depend on the image."""
    known = set(source.constants)
    for node in source.nodes:
        if node.op in SHAPE_OPERATORS or known.issuperset(node.reads):
            known.update(node.outputs)
    return known


def _is_layer(node: OnnxNode, constant: set[str]) -> bool:
    """The operator forces everything before it onto the accelerator."""
    if not OPERATORS[node.op].anchors or constant.issuperset(node.reads):
        return False
    return node.op != "MatMul" or len(constant.intersection(node.inputs)) == 1
