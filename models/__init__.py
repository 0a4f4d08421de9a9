"""What the project ships of its own: corner networks and a clip, all made by scripts in here."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent

BOARDS = {"corners_35t": "arty_a7_35", "corners_100t": "arty_a7_100"}
"""The corner networks, and the board that each is made for."""


def network(name: str) -> Path:
    """The ONNX file of a corner network by name; its sidecar ``.toml`` lies beside it."""
    return _HERE / "corners" / f"{name}.onnx"


def default_network() -> Path:
    """The one that fits every board."""
    return network("corners_35t")


def default_clip() -> Path:
    """The bundled clip (320x240, 120 frames, 30 fps), made by ``python -m models.scene``."""
    return _HERE / "clips" / "scene.mp4"
