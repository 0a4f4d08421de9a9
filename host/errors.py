"""The one error that a user may meet: printed as a single line, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Input, options or environment are wrong. The message names the file, layer or field and what to do."""


class UnsupportedNetwork(UserError):
    """An ONNX network holds parts that cannot run. ``problems`` lists (node name, op, reason), all at once."""

    def __init__(self, path: str, problems: Sequence[tuple[str, str, str]]) -> None:
        self.path, self.problems = path, tuple(problems)
        lines = [f"{path}: {len(self.problems)} part(s) of this network cannot run:"]
        lines += [f"  {name} ({op}): {reason}" for name, op, reason in self.problems]
        super().__init__("\n".join(lines))
