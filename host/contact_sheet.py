"""A picture of a whole run: a dozen frames with what was found, over the share of the network that each frame took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from host import draw
from host.output import AtomicFile
from host.session import FrameStats

COLUMNS, ROWS = 4, 3
KEPT = 4 * COLUMNS * ROWS
"""Most tiles in memory."""
TILE_WIDTH = 400
STRIP_HEIGHT = 120


class ContactSheet(AtomicFile):
    """A PNG file with COLUMNS x ROWS frames, evenly spaced, and a bar per frame.

    At most KEPT tiles are kept, however long the clip is: when there are more, every other one is dropped, and from
    then on every other frame is passed over.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._tiles: list[tuple[int, Image.Image]] = []
        self._every = 1
        self._density: list[float] = []

    def add(self, image: Image.Image, stats: FrameStats, found: int) -> None:
        """One frame as it was drawn, with its counts and the number of detections."""
        number = len(self._density)
        self._density.append(stats.density)
        if number % self._every:
            return
        size = (TILE_WIDTH, max(1, round(image.height * TILE_WIDTH / image.width)))
        cycles = "" if stats.cycles is None else f", {stats.cycles:,} cycles"
        title = f"frame {number}: {stats.density:.0%} of the MACs{cycles}, {found} found"
        self._tiles.append((number, draw.titled(image.resize(size, Image.Resampling.LANCZOS), title)))
        if len(self._tiles) > KEPT:
            self._tiles, self._every = self._tiles[::2], 2 * self._every

    def commit(self) -> None:
        """Draw the sheet and move it into place; without a frame there is none."""
        if not self._tiles:
            self.discard()
            return
        count = min(len(self._tiles), COLUMNS * ROWS)
        shown = [self._tiles[i] for i in np.linspace(0, len(self._tiles) - 1, count).round().astype(int)]
        gap = 6
        tiles = draw.grid([tile for _, tile in shown], min(COLUMNS, count), gap)
        strip = _strip(tiles.width, np.array(self._density), [number for number, _ in shown])
        sheet = Image.new("RGB", (tiles.width, tiles.height + gap + strip.height), draw.DARK)
        sheet.paste(tiles, (0, 0))
        sheet.paste(strip, (0, tiles.height + gap))
        sheet.save(self.file, "PNG")
        super().commit()


def _strip(width: int, density: np.ndarray, marked: list[int]) -> Image.Image:
    """A bar per frame, full height for all MACs of the network; the frames ``marked`` in white."""
    bars = Image.new("RGB", (width, STRIP_HEIGHT), draw.DARK)
    pen = ImageDraw.Draw(bars)
    edges = np.linspace(0, width, len(density) + 1)
    for i, share in enumerate(density):
        right = max(edges[i], edges[i + 1] - (1 if edges[1] > 3 else 0.01))
        top = round((STRIP_HEIGHT - 1) * (1 - min(1.0, share)))
        pen.rectangle((edges[i], top, right, STRIP_HEIGHT), fill=draw.WHITE if i in marked else draw.BLUE)
    return draw.titled(bars, f"share of the network's MACs, frame by frame: {density.mean():.1%} in the mean")
