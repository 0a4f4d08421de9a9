"""A table of plain values (TOML, JSON or command line) to a frozen dataclass, every field checked."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from fractions import Fraction

from host.errors import UserError


def read_fields(cls: type, table: object, where: str):
    """A ``cls`` (a dataclass) made from a table whose keys are its fields.

    Lists become tuples. A number may be written as a fraction ("1/255"); a list of numbers as one number or
    as text ("104,117,123", "320x240"). ``cls`` may check more in ``__post_init__`` and raise ValueError.

    Raises UserError that starts with ``where`` (file and section) and names the field and what is allowed.
    """
    if not isinstance(table, Mapping):
        raise UserError(f"{where} is not a table of fields")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for name in table:
        if name not in known:
            names = ", ".join(known) or "(none)"
            raise UserError(f"{where}: there is no field '{name}'; the fields are {names}")
    for name, f in known.items():
        needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if needed and name not in table:
            raise UserError(f"{where}: field '{name}' is missing; it is {_describe(hints[name])}")
    values = {name: _convert(value, hints[name], f"{where}: {name}") for name, value in table.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def plain(value: object):
    """The inverse of ``read_fields``: dataclasses and tuples as dicts and lists, None left out."""
    if dataclasses.is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init)
        return {name: plain(v) for name, v in pairs if v is not None}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value


def _convert(value: object, kind: object, where: str):
    """``value`` as ``kind`` (str, bool, int, float, Literal, tuple[...] or one of these ``| None``)."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        inner = next(a for a in args if a is not type(None))
        return None if value is None else _convert(value, inner, where)
    if origin is typing.Literal:
        ok = value in args if isinstance(value, str) else False
        result = value
    elif origin is tuple:
        return _convert_tuple(value, kind, where)
    elif kind in (int, float):
        result = _number(value)
        ok = result is not None and (kind is float or result == int(result))
        result = kind(result) if ok else None
    else:
        ok, result = isinstance(value, kind), value
    if not ok:
        raise UserError(f"{where} = {value!r}: it must be {_describe(kind)}")
    return result


def _convert_tuple(value: object, kind: object, where: str) -> tuple:
    args = typing.get_args(kind)
    numeric = args[0] in (int, float)
    if numeric and isinstance(value, str):
        value = [part.strip() for part in value.lower().replace("x", ",").split(",")]
    elif numeric and isinstance(value, int | float):
        value = [value]
    if not isinstance(value, list | tuple):
        raise UserError(f"{where} = {value!r}: it must be {_describe(kind)}")
    if args[-1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(value) != len(args):
        raise UserError(f"{where} = {value!r}: it must be {_describe(kind)}")
    return tuple(_convert(v, a, where) for v, a in zip(value, args, strict=True))


def _number(value: object) -> float | None:
    """A finite number from a number or a text such as "127.5" or "1/255"; None when it is neither."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        top, _, bottom = str(value).partition("/")
        number = float(Fraction(top) / Fraction(bottom)) if bottom else float(top)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _describe(kind: object) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _describe(next(a for a in args if a is not type(None)))
    if origin is typing.Literal:
        return "one of " + ", ".join(f'"{a}"' for a in args)
    if origin is tuple:
        many = "a list of " if args[-1] is Ellipsis else f"a list of {len(args)} values, each "
        return many + _describe(args[0])
    names = {int: "a whole number", float: 'a number (fractions as text: "1/255")', bool: "true or false"}
    return names.get(kind, "a text")
