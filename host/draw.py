"""Drawing on frames: boxes, labels, points, lines and captions whose size follows that of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
GREEN: Colour = (60, 220, 90)
"""Frame-by-frame inference."""
BLUE: Colour = (70, 150, 255)
"""RRM inference."""
WHITE: Colour = (255, 255, 255)
DARK: Colour = (16, 16, 20)
"""Bars behind text, and gaps."""


def to_image(frame: np.ndarray) -> Image.Image:
    """A frame uint8[H, W, 3] RGB as a picture of its own to draw on."""
    return Image.fromarray(frame).copy()


def to_array(image: Image.Image) -> np.ndarray:
    """A picture as a frame uint8[H, W, 3] RGB."""
    return np.asarray(image.convert("RGB") if image.mode != "RGB" else image)


def stroke(size: tuple[int, int]) -> int:
    """Width of a line in a picture of (width, height): 1 below 480 pixels high, 2 at 480, 5 at 1080."""
    return max(1, round(min(size) / 220))


def font_size(size: tuple[int, int]) -> int:
    """Height of text in pixels in a picture of (width, height): 11 at 240 lines, 17 at 480, 38 at 1080."""
    return max(11, round(min(size) / 28))


def boxes(image: Image.Image, corners: np.ndarray, labels: Sequence[str], colour: Colour = GREEN) -> None:
    """Boxes [N, 4] as x0, y0, x1, y1 with a label each, drawn in place."""
    draw, width = ImageDraw.Draw(image), stroke(image.size)
    for (x0, y0, x1, y1), text in zip(np.asarray(corners, float).reshape(-1, 4), labels, strict=True):
        draw.rectangle((x0, y0, max(x1, x0), max(y1, y0)), outline=colour, width=width)
        if text:
            _tag(draw, image.size, (x0, y0), text, colour)


def points(
    image: Image.Image, where: np.ndarray, colour: Colour = WHITE, radius: float | None = None
) -> None:
    """Filled dots at [N, 2] (x, y), drawn in place."""
    draw, r = ImageDraw.Draw(image), radius or 1.2 * stroke(image.size) + 0.8
    for x, y in np.asarray(where, float).reshape(-1, 2):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def lines(image: Image.Image, ends: np.ndarray, colour: Colour = GREEN) -> None:
    """Line segments [N, 2, 2] from (x, y) to (x, y), drawn in place."""
    draw, width = ImageDraw.Draw(image), stroke(image.size) + 1
    for pair in np.asarray(ends, float).reshape(-1, 4):
        draw.line(tuple(pair), fill=colour, width=width)


def caption(image: Image.Image, text: str, colour: Colour = GREEN) -> None:
    """A bar of text along the bottom half at most, drawn in place; lines too long are cut short."""
    draw, font = ImageDraw.Draw(image), _font(font_size(image.size))
    width, height = image.size
    line, pad = _line_height(font), stroke(image.size) + 2
    rows = text.splitlines()[: max(1, height // (2 * line))]
    top = height - line * len(rows) - 2 * pad
    draw.rectangle((0, top, width, height), fill=DARK)
    for i, row in enumerate(rows):
        draw.text(
            (2 * pad, top + pad + i * line), _shorten(row, font, width - 4 * pad), font=font, fill=colour
        )


def titled(image: Image.Image, title: str, colour: Colour = WHITE) -> Image.Image:
    """A picture under a title bar."""
    font = _font(font_size(image.size))
    bar = _line_height(font) + 4
    sheet = Image.new("RGB", (image.width, image.height + bar), DARK)
    ImageDraw.Draw(sheet).text((4, 2), _shorten(title, font, image.width - 8), font=font, fill=colour)
    sheet.paste(image, (0, bar))
    return sheet


def side_by_side(
    left: Image.Image,
    right: Image.Image,
    titles: tuple[str, str] = ("frame by frame", "RRM"),
    colours: tuple[Colour, Colour] = (GREEN, BLUE),
) -> Image.Image:
    """Two pictures of the same size beside each other, each under a title bar of its colour."""
    if left.size != right.size:
        raise ValueError(f"the two pictures differ in size: {left.size} and {right.size}")
    tiles = [titled(*each) for each in zip((left, right), titles, colours, strict=True)]
    return grid(tiles, 2, 2 * stroke(left.size))


def grid(tiles: Sequence[Image.Image], columns: int, gap: int) -> Image.Image:
    """Pictures of the same size, row by row, ``gap`` pixels apart."""
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), DARK)
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def _tag(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], corner: tuple[float, float], text: str, colour: Colour
) -> None:
    """A label above the box corner, moved inside the picture when there is no room."""
    font = _font(font_size(size))
    width, height = font.getlength(text) + 4, _line_height(font)
    x = min(max(corner[0], 0), max(size[0] - width, 0))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 2, y), text, font=font, fill=DARK)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)
