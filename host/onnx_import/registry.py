"""The table of supported ONNX operators: what each becomes, its limits, and the function that imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from host.onnx_import.builder import Builder
from host.onnx_import.errors import Unsupported
from host.onnx_import.loader import OnnxNode, Source
from host.onnx_import.values import Const, Value, View


class Kind(StrEnum):
    """What an operator does to its input."""

    LAYER = "Layers"
    ELEMENTWISE = "Elementwise"
    SPATIAL = "Pooling and resizing"
    VIEW = "Views"
    CODES = "Quantised networks"


@dataclass(frozen=True)
class Context:
    """What a handler may use: the file and the graph being built."""

    source: Source
    builder: Builder


Handler = Callable[[Context, OnnxNode, Sequence[Value | None]], Value | Sequence[Value]]


@dataclass(frozen=True)
class Operator:
    """One supported operator.

    becomes, limits
        Markdown for the table in the documentation.
    anchors
        everything before it has to run on the accelerator (the layers, see ``host.onnx_import.plan``).
    """

    name: str
    kind: Kind
    becomes: str
    limits: str
    anchors: bool
    run: Handler

    @property
    def transparent(self) -> bool:
        """Its output holds its input's elements, so a use of the one is a use of the other."""
        return self.kind is Kind.VIEW or self.name in ("DequantizeLinear", "Cast")


OPERATORS: dict[str, Operator] = {}
"""Operator name -> how it is imported; filled by the modules of this package."""


def operator(*names: str, kind: Kind, becomes: str, limits: str = "",
             anchors: bool | None = None) -> Callable[[Handler], Handler]:
    """Decorator: enter a handler for these operators."""

    def enter(run: Handler) -> Handler:
        for name in names:
            OPERATORS[name] = Operator(name, kind, becomes, limits,
                                       kind is Kind.LAYER if anchors is None else anchors, run)
        return run

    return enter


def call(function: Callable, *args):
    """Call a handler; what NumPy or the ONNX reference implementation refuses is a problem of the node."""
    try:
        return function(*args)
    except Unsupported:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        text = (str(error).splitlines() or [repr(error)])[0]
        raise Unsupported(f"its inputs or attributes do not fit together ({text})") from error


def real(arg: Value | None) -> View:
    """The argument as a view of real values."""
    if not isinstance(arg, View):
        raise Unsupported("its data input is missing or constant")
    if arg.code is not None:
        raise Unsupported("it works on integers; put a DequantizeLinear before it")
    return arg


def weights(arg: Value | None, what: str) -> np.ndarray:
    """A constant argument in float64; raises Unsupported when it is computed at run time or not finite."""
    if not isinstance(arg, Const):
        raise Unsupported(f"its {what} depends on the image; only constants are possible")
    values = arg.real
    if not np.isfinite(values).all():
        raise Unsupported(f"its {what} holds NaN or infinity")
    return values


def operator_table() -> str:
    """The Markdown table of supported operators, grouped by kind."""

    def rows() -> Iterator[str]:
        for kind in Kind:
            ops = [o for o in OPERATORS.values() if o.kind is kind]
            yield f"\n### {kind}\n\n| operator | becomes | limits |\n|---|---|---|\n"
            for becomes, limits in dict.fromkeys((o.becomes, o.limits) for o in ops):
                names = ", ".join(f"`{o.name}`" for o in ops if (o.becomes, o.limits) == (becomes, limits))
                yield f"| {names} | {becomes} | {limits} |\n"

    return "".join(rows()).strip() + "\n"
