"""``.rrm`` files: a quantised network with its preprocessing and head, ready to run.

An ``.rrm`` file is a zip archive::

    rrm-fpga        the magic: b"rrm-fpga\\n", first member, stored
    0.npy, 1.bin    the arrays and bytes that the header points at
    header.json     {"format": 1, "written_by": ..., "network": ..., "sidecar": ..., ...}

In the header an object ``{"$": KIND, ...}`` stands for something that JSON lacks: ``npy`` an array,
``blob`` bytes, ``map`` a mapping, anything else a dataclass of ``sim.graph`` or ``host.network`` with its
fields. ``sections`` holds what later tools add (program, memory images, config hash, addresses), each under
its own name; a reader keeps the sections that it does not know.

``FORMAT`` rises when an older reader would misread the file; new sections do not raise it. The same content
makes the same bytes.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from host.errors import UserError
from host.network import Network, NetworkInput
from host.output import AtomicFile, npy_bytes
from host.sidecar import Sidecar
from sim import graph as g

FORMAT = 1
"""The newest file format that this program reads, and the one that it writes."""
MAGIC = b"rrm-fpga\n"
SUFFIX = ".rrm"

_KINDS = {kind.__name__: kind for kind in (
    g.Code, g.Tensor, g.Projection, g.Geometry, g.Edge, g.Pool, g.Operand, g.Node, g.Read, g.Output, g.Graph,
    NetworkInput, Network)}


@dataclass(frozen=True, eq=False)
class Model:
    """A network together with what its inputs and outputs mean: what an ``.rrm`` file holds.

    network
        in a file always quantised.
    sidecar
        preprocessing and head.
    meta
        facts for people and tools as plain values: where it came from, how it was calibrated.
    sections
        name -> mapping of plain values, arrays and bytes: what later tools add.
    """

    network: Network
    sidecar: Sidecar
    meta: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def save(path: str | Path, model: Model, written_by: str = "rrm-fpga") -> None:
    """Write an ``.rrm`` file, whole or not at all. Raises UserError when the path cannot be written."""
    with AtomicFile(path) as out:
        write(out.file, model, written_by)
        out.commit()


def write(file: BinaryIO, model: Model, written_by: str = "rrm-fpga") -> None:
    """Write the archive to an open binary file."""
    if not model.network.graph.quantised:
        raise ValueError(f"{model.network.name}: only a quantised network can be stored")
    with zipfile.ZipFile(file, "w") as archive:
        _add(archive, "rrm-fpga", MAGIC, zipfile.ZIP_STORED)
        packer = _Packer(archive)
        header = {"format": FORMAT, "written_by": written_by, "network": packer.pack(model.network),
                  "sidecar": model.sidecar.to_dict(), "meta": packer.pack(model.meta),
                  "sections": packer.pack(model.sections)}
        _add(archive, "header.json", json.dumps(header, allow_nan=False, indent=1).encode())


def is_rrm(path: str | Path) -> bool:
    """The file begins like an ``.rrm`` file (whatever it is called)."""
    try:
        with open(path, "rb") as file:
            return file.read(30 + len("rrm-fpga") + len(MAGIC)).endswith(b"rrm-fpga" + MAGIC)
    except OSError:
        return False


def load(path: str | Path) -> Model:
    """Read an ``.rrm`` file. Raises UserError when it is missing, damaged, or from a newer program."""
    if not is_rrm(path):
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file")
        raise UserError(f"{path}: this is not an {SUFFIX} file; make one with: rrm-fpga compile")
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read("header.json"))
            if header["format"] > FORMAT:
                raise UserError(f"{path}: file format {header['format']}, written by {header['written_by']}; "
                                f"this program reads formats up to {FORMAT}; update it or compile again")
            sidecar = Sidecar.from_dict(header.pop("sidecar"), str(path))
            parts = {name: _unpack(header[name], archive) for name in ("network", "meta", "sections")}
            parts["network"].graph.validate()
            return Model(sidecar=sidecar, **parts)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError, AttributeError, IndexError,
            NotImplementedError, OSError, EOFError) as error:
        raise UserError(f"{path}: damaged {SUFFIX} file ({error}); compile the network again") from error


def _add(archive: zipfile.ZipFile, name: str, data: bytes, compression: int = zipfile.ZIP_DEFLATED) -> None:
    """Add a member without a date, so that files are reproducible."""
    archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)


class _Packer:
    """Turns values into JSON's own types, moving arrays and bytes into members of the archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = 0

    def _member(self, suffix: str, data: bytes) -> str:
        name = f"{self._members}{suffix}"
        self._members += 1
        _add(self._archive, name, data)
        return name

    def pack(self, value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [self.pack(v) for v in value]
        if isinstance(value, np.ndarray):
            return {"$": "npy", "member": self._member(".npy", npy_bytes(value))}
        if isinstance(value, bytes):
            return {"$": "blob", "member": self._member(".bin", value)}
        if isinstance(value, Mapping):
            return {"$": "map", "items": {str(k): self.pack(v) for k, v in value.items()}}
        if is_dataclass(value) and type(value).__name__ in _KINDS:
            return {"$": type(value).__name__,
                    **{f.name: self.pack(getattr(value, f.name)) for f in fields(value)}}
        raise TypeError(f"{type(value).__name__} cannot be stored in an {SUFFIX} file")


def _unpack(value: Any, archive: zipfile.ZipFile) -> Any:
    """The inverse of ``_Packer.pack``; sequences come back as tuples."""
    if isinstance(value, list):
        return tuple(_unpack(v, archive) for v in value)
    if not isinstance(value, dict):
        return value
    kind = value.pop("$")
    if kind == "npy":
        with archive.open(value["member"]) as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    if kind == "blob":
        return archive.read(value["member"])
    if kind == "map":
        return {k: _unpack(v, archive) for k, v in value["items"].items()}
    return _KINDS[kind](**{k: _unpack(v, archive) for k, v in value.items()})
