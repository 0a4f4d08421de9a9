"""Files that appear whole or not at all: written under a temporary name in the same folder, then moved.

A writer opens its temporary file when it is made, so a path that cannot be written is found before any
work begins. ``commit()`` moves the file into place; leaving the ``with`` block without it removes the
temporary file.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from host.errors import UserError


def check_writable(path: str | Path) -> Path:
    """The path as a ``Path`` if a file can be made there, else UserError. Nothing is left behind."""
    AtomicFile(path).discard()
    return Path(path)


class AtomicFile:
    """A binary file ``path`` that appears at ``commit()``.

    Parameters
        path: the final path; its folder must exist.

    Members
        file: the open temporary file.
        temporary: its path.

    Raises
        UserError: the folder is missing or not writable, or ``path`` is a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_file():
            raise UserError(f"{self.path}: cannot write: this is no ordinary file; give a file name")
        folder = self.path.parent
        if not folder.is_dir():
            raise UserError(f"{self.path}: cannot write: the folder {folder} does not exist")
        try:
            handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".part", dir=folder)
        except OSError as error:
            raise UserError(f"{self.path}: cannot write: {error.strerror}") from error
        self.temporary = Path(name)
        self.file: IO[bytes] = os.fdopen(handle, "wb")

    def commit(self) -> None:
        """Close the file and move it into place, with the permissions of an ordinary new file."""
        self.file.close()
        umask = os.umask(0)
        os.umask(umask)
        self.temporary.chmod(0o666 & ~umask)
        self.temporary.replace(self.path)

    def discard(self) -> None:
        """Close and remove the temporary file; nothing happens after ``commit``."""
        self.file.close()
        self.temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.discard()


class JsonLines(AtomicFile):
    """A JSON Lines file: one JSON object per line, UTF-8."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one object."""
        self.file.write(json.dumps(record, allow_nan=False, default=_plain).encode() + b"\n")


class FrameArrays(AtomicFile):
    """An ``.npz`` file of arrays ``[frames, ...]`` that grow frame by frame and are never held in memory.

    The rows of every array go to an unnamed spool file each; ``commit`` joins them into the archive.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._spools: dict[str, IO[bytes]] = {}
        self._kind: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self._frames = 0

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add one frame; every frame brings the same names, types and shapes."""
        kind = {name: (np.asarray(a).dtype, np.shape(a)) for name, a in arrays.items()}
        if not self._kind:
            self._kind = kind
            self._spools = {name: tempfile.TemporaryFile(dir=self.path.parent) for name in kind}
        if kind != self._kind:
            raise ValueError(f"{self.path}: a frame differs from the first in names, types or shapes")
        for name, array in arrays.items():
            self._spools[name].write(np.ascontiguousarray(array).tobytes())
        self._frames += 1

    def commit(self) -> None:
        """Write the archive and move it into place."""
        with zipfile.ZipFile(self.file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, (dtype, shape) in self._kind.items():
                spool = self._spools[name]
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(
                        member, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
                                 "shape": (self._frames, *shape)})
                    spool.seek(0)
                    while block := spool.read(1 << 20):
                        member.write(block)
        self._close_spools()
        super().commit()

    def discard(self) -> None:
        """Close and remove everything temporary."""
        self._close_spools()
        super().discard()

    def _close_spools(self) -> None:
        for spool in self._spools.values():
            spool.close()
        self._spools = {}


def npy_bytes(array: np.ndarray) -> bytes:
    """The ``.npy`` form of an array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as JSON's own types."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
