"""What the project ships of its own: a corner network and a clip, both made by scripts in here."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def default_network() -> Path:
    """The ONNX file of the bundled corner network; its sidecar ``.toml`` lies beside it."""
    return _HERE / "corners" / "corners_35t.onnx"


def default_clip() -> Path:
    """The bundled clip (320x240, 120 frames, 30 fps), made by ``python -m models.scene``."""
    return _HERE / "clips" / "scene.mp4"
