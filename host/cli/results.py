"""The files that ``rrm-fpga infer`` leaves: all of them hold the finished frames, or none appears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from host import draw
from host.contact_sheet import ContactSheet
from host.errors import UserError
from host.heads import Head
from host.output import AtomicFile, FrameArrays, JsonLines, check_writable
from host.session import FrameStats
from host.video import VideoWriter


@dataclass(frozen=True)
class ResultPaths:
    """Where results go; None is not wanted. Raises UserError when a path is given twice or not writable."""

    json: Path | None = None
    arrays: Path | None = None
    video: Path | None = None
    compare: Path | None = None
    sheet: Path | None = None

    def __post_init__(self) -> None:
        paths = [check_writable(p) for p in self.all()]
        for i, path in enumerate(paths):
            if path.resolve() in [p.resolve() for p in paths[:i]]:
                raise UserError(f"{path}: two results would go to the same file")

    def all(self) -> list[Path]:
        """The paths that are wanted."""
        return [p for p in (self.json, self.arrays, self.video, self.compare, self.sheet) if p is not None]


class Results:
    """Writers for the wanted files; ``add`` one frame after the other, then ``commit``.

    Parameters
        paths: where to.
        head: decodes and draws.
        fps: of the videos.
    """

    def __init__(self, paths: ResultPaths, head: Head, fps: float) -> None:
        self.paths, self.head, self.fps = paths, head, fps
        self._stack = ExitStack()
        self._json = self._open(JsonLines, paths.json)
        self._arrays = self._open(FrameArrays, paths.arrays)
        self._video = self._open_video(paths.video)
        self._compare = self._open_video(paths.compare)
        self._sheet = self._open(ContactSheet, paths.sheet)

    def add(self, frame: np.ndarray, outputs: Mapping[str, np.ndarray], stats: FrameStats,
            detections: Sequence, taps: Mapping[str, np.ndarray],
            dense_detections: Sequence | None = None) -> None:
        """One frame uint8[H, W, 3] RGB and what the network made of it."""
        if self._json:
            self._json.write(stats.as_dict() | {"detections": [d.as_dict() for d in detections]})
        if self._arrays:
            self._arrays.append({**outputs, **taps})
        if self._video or self._compare or self._sheet:
            drawn = self._drawn(frame, detections, draw.BLUE)
        if self._video:
            self._video.write(draw.to_array(drawn))
        if self._sheet:
            self._sheet.add(drawn, stats, len(detections))
        if self._compare:
            pair = draw.side_by_side(self._drawn(frame, dense_detections, draw.GREEN), drawn)
            self._compare.write(draw.to_array(pair))

    def commit(self) -> None:
        """Move everything into place."""
        for writer in (self._json, self._arrays, self._sheet):
            if writer:
                writer.commit()
        for video in (self._video, self._compare):
            if video:
                video.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, kind: type[AtomicFile], path: Path | None):
        return self._stack.enter_context(kind(path)) if path else None

    def _open_video(self, path: Path | None) -> VideoWriter | None:
        if path is None:
            return None
        writer = VideoWriter(path, self.fps)
        self._stack.callback(writer.abort)
        return writer

    def _drawn(self, frame: np.ndarray, detections: Sequence, colour: draw.Colour):
        return self.head.draw(draw.to_image(frame), detections, colour)
