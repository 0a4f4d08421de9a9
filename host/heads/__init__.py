"""Heads: what the outputs of known networks mean, decoded and drawn.

A new head is a frozen dataclass derived from ``Head`` in a module of its own, and one line in ``HEADS``.
"""

from __future__ import annotations

from collections.abc import Mapping

from host.errors import UserError
from host.fields import read_fields
from host.heads.base import Box, Head, Label
from host.heads.classes import Classes
from host.heads.keypoints import Keypoints
from host.heads.openpose import OpenPose
from host.heads.raw import Raw
from host.heads.ssd_faces import SsdFaces
from host.heads.superres import SuperRes
from host.heads.yolo import Yolo

__all__ = ["HEADS", "Box", "Head", "Label", "Raw", "head_for"]

HEADS: dict[str, type[Head]] = {
    head.kind: head for head in (Classes, SsdFaces, Yolo, OpenPose, Keypoints, SuperRes, Raw)
}


def head_for(table: Mapping, where: str = "[head]") -> Head:
    """The head of a sidecar's ``[head]`` table. Raises UserError: ``where`` and the field."""
    if not isinstance(table, Mapping) or table.get("kind") not in HEADS:
        given = table.get("kind") if isinstance(table, Mapping) else table
        raise UserError(f"{where}: kind = {given!r}: it must be one of {', '.join(HEADS)}")
    return read_fields(HEADS[table["kind"]], {k: v for k, v in table.items() if k != "kind"}, where)
