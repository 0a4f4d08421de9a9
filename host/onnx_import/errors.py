"""What a handler raises about one ONNX node; the walk collects them all into ``UnsupportedNetwork``."""

from __future__ import annotations


class Unsupported(Exception):
    """This node cannot run; the text says what is wrong in plain words and, where possible, what to do."""
