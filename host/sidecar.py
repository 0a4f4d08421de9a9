"""The sidecar of a network: how frames go in, what its outputs mean (``MODEL.toml``, docs/sidecar.md)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from host.errors import UserError
from host.fields import plain, read_fields
from host.heads import Head, Raw, head_for
from host.preprocess import InputArray, Preprocess, default_preprocess


@dataclass(frozen=True)
class Sidecar:
    """Preprocessing and head of one network. ``source`` says where it came from, for the user."""

    input: Preprocess = field(default_factory=Preprocess)
    head: Head = field(default_factory=Raw)
    source: str = field(default="", compare=False)

    @classmethod
    def load(cls, path: str | Path) -> Sidecar:
        """Read a TOML file. Raises UserError naming file, section and field."""
        path = Path(path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UserError(f"{path}: the sidecar cannot be read: {reason}") from None
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path}: the sidecar is not TOML: {error}") from None
        if isinstance(table.get("head"), dict):
            table["head"] = _with_names(table["head"], path)
        return cls.from_dict(table, str(path))

    @classmethod
    def from_dict(cls, table: Mapping, where: str = "sidecar") -> Sidecar:
        """The inverse of ``to_dict``; ``where`` starts the message of a UserError and becomes ``source``."""
        for name in table:
            if name not in ("input", "head"):
                raise UserError(f"{where}: there is no section '{name}'; the sections are [input] and [head]")
        pre = read_fields(Preprocess, table.get("input", {}), f"{where}: [input]")
        return cls(pre, head_for(table.get("head", {"kind": "raw"}), f"{where}: [head]"), where)

    def to_dict(self) -> dict:
        """Plain lists, numbers and texts, to be carried by a compiled file."""
        return {"input": plain(self.input), "head": {"kind": self.head.kind, **plain(self.head)}}

    def with_input(self, changes: Mapping[str, object], where: str = "preprocessing options") -> Sidecar:
        """The same with some ``[input]`` fields replaced; text will do ("320x240", "1/255")."""
        pre = read_fields(Preprocess, plain(self.input) | dict(changes), where)
        return Sidecar(pre, self.head, f"{self.source} with options" if changes else self.source)

    @classmethod
    def default(cls, network_input: InputArray) -> Sidecar:
        """A guess from the shape of the input, and the head ``raw``; the caller tells the user."""
        return cls(default_preprocess(network_input), Raw(), "a guess from the input's shape")


def preset_names() -> list[str]:
    """The networks that need no sidecar of their own."""
    return sorted(p.name.removesuffix(".toml") for p in _presets().iterdir() if p.name.endswith(".toml"))


def preset(name: str) -> Sidecar:
    """The preset of that name. Raises UserError listing all of them."""
    if name not in preset_names():
        raise UserError(f"there is no preset '{name}'; the presets are {', '.join(preset_names())}")
    table = tomllib.loads((_presets() / f"{name}.toml").read_text(encoding="utf-8"))
    return Sidecar.from_dict(table, f"preset {name}")


def preset_for(path: str | Path) -> Sidecar | None:
    """The preset named like an ONNX or compiled network without its suffix, if there is one."""
    name = Path(path).stem
    return preset(name) if name in preset_names() else None


def sidecar_for(path: str | Path, preset_name: str | None = None) -> Sidecar | None:
    """The preset asked for, else ``MODEL.toml`` beside the network, else its preset, else None."""
    if preset_name is not None:
        return preset(preset_name)
    beside = Path(path).with_suffix(".toml")
    return Sidecar.load(beside) if beside.exists() else preset_for(path)


def _presets():
    return resources.files("host") / "presets"


def _with_names(head: dict, path: Path) -> dict:
    """``names_file`` (one class name a line, beside the sidecar) read into ``names``."""
    if "names_file" not in head:
        return head
    head = dict(head)
    name = head.pop("names_file")
    if not isinstance(name, str) or "names" in head:
        raise UserError(f"{path}: [head]: names_file must be a text, and stands in place of names")
    try:
        lines = (path.parent / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: [head]: names_file = {name!r} cannot be read") from None
    return head | {"names": [line.strip() for line in lines if line.strip()]}
