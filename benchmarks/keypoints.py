"""What the bundled corner networks cost on video, and what thresholds do to their keypoints.

    python -m benchmarks.keypoints [--rtl] [--frames N] [-o PAGE.md]

Each network on the board that it is made for and on scenes of ``models.scene`` (320x240; camera still, then panning):

predicted
    cycles per frame by the cycle model: from scratch (every frame a refresh), exact, and with ``hold`` thresholds.
RTL
    with ``--rtl``, cycles per frame counted in compiled simulation of the board's accelerator (minutes to build the
    first time). Every frame's keypoints must be those of the golden model, places and scores, or there is no page.
again
    share of the keypoints that are found again within 3 pixels of the network's picture in the next frame, in which
    nothing moves farther (DeTone et al., 2018, section 6, without a homography).
as exact
    the same between a frame's keypoints and those of exact mode in the same frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

import models
from boards.board import MODULES, variants
from host.compiler.stored import SECTION, to_section
from host.configs import named
from host.devices import Device, ModelDevice
from host.errors import UserError
from host.rrm_file import Model
from host.session import Session, open_model, quantised
from models.evaluate import NEAR, samples
from models.scene import frames as scene_frames

SCENES = [("static", 0.0), ("static", 2.0), ("moving", 0.0), ("moving", 2.0)]
"""Motion, and sigma of the sensor noise in codes."""
RULES = {"from scratch": None, "exact": 0, "hold 2": 2, "hold 4": 4}
START = 40
"""First frame of a scene; the camera begins to pan five frames later."""


def repeated(one: np.ndarray, two: np.ndarray) -> float:
    """Share of the points [N, >= 2] and [M, >= 2] with one of the others within NEAR; 1 where there are none."""
    if len(one) + len(two) == 0:
        return 1.0
    near = np.linalg.norm(one[:, None, :2] - two[None, :, :2], axis=2) <= NEAR
    return float((near.any(axis=1).sum() + near.any(axis=0).sum()) / (len(one) + len(two)))


def run(model: Model, device: Device, threshold: int | None,
        pictures: list[np.ndarray]) -> Iterator[tuple[float, int, np.ndarray]]:
    """(share of the MACs, cycles, keypoints [N, 3]: x and y in pixels of the network's picture, score) of every frame;
    a threshold of None computes each from scratch."""
    head, size = model.sidecar.head, np.array(model.sidecar.input.picture_size(model.network.input))
    with Session(model, device, threshold=threshold or 0) as session:
        for picture in pictures:
            outputs, stats = session.infer(picture, refresh=threshold is None)
            found = head.decode(outputs, session.placement(picture))
            points = np.array([(k.x, k.y, k.score) for k in found]).reshape(-1, 3)
            yield stats.density, stats.cycles, points * [*size / picture.shape[1::-1], 1]


def simulated(model: Model, threshold: int | None, pictures: list[np.ndarray],
              expected: Sequence[np.ndarray]) -> float:
    """Mean cycles of the RTL's frames after the first. Raises UserError at a frame whose keypoints differ from
    ``expected``, those of the golden model."""
    from host.link_device import RtlDevice

    _, cycles, found = zip(*run(model, RtlDevice(progress=lambda what: print(what, flush=True)), threshold, pictures),
                           strict=True)
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if not np.array_equal(ours, theirs):
            raise UserError(f"threshold {threshold}, frame {index}: the RTL's keypoints are not the golden model's")
    return float(np.mean(cycles[1:]))


def table(path: Path, board: str, count: int, rtl: bool) -> str:
    """The rows of one network."""
    model = quantised(open_model(path), samples(path))
    program = named(board).compile(model.network.graph)
    model = replace(model, sections={SECTION: to_section(program)})
    clock = next(b.clock_hz for module in MODULES for b in variants(module) if b.label == board)
    rows = []
    for motion, noise in SCENES:
        clip = [f for f, _ in scene_frames(START + count + 1, (320, 240), noise, motion=motion)][START:]
        reference: list[np.ndarray] = []
        for rule, threshold in RULES.items():
            density, cycles, found = zip(*run(model, ModelDevice(predict=True), threshold, clip), strict=True)
            reference = reference or list(found)  # from scratch, which exact mode equals
            again = [repeated(a, b) for a, b in pairwise(found)]
            same = [repeated(a, b) for a, b in zip(found, reference, strict=True)]
            mean = float(np.mean(cycles[1:]))
            counted = [simulated(model, threshold, clip, found)] if rtl else []
            costs = [*counted, mean]
            rows.append(f"| {motion} | {noise:g} | {rule} | {np.mean(density[1:]):.1%} | "
                        + " | ".join(f"{c:,.0f}" for c in [*costs, clock / costs[0]])
                        + f" | {np.mean(again):.3f} | {np.mean(same[1:]):.3f} |")
            print(path.stem, rows[-1], flush=True)
    return "\n".join(rows)


def page(count: int, rtl: bool) -> str:
    """The whole page."""
    text = ["# The corner networks on video", "", "Written by `python -m benchmarks.keypoints --frames " + str(count)
            + (" --rtl" if rtl else "") + "`, which says what the columns are.", "",
            f"{count} frames of `models.scene`, 320x240, after the first; noise: sigma in codes. Cycles are predicted "
            "by the cycle model" + (", and counted by the board's accelerator in compiled simulation (RTL)" * rtl)
            + f"; frames/s follow from the {'counted' if rtl else 'predicted'} ones and the preset's clock, without "
            "the link. *again*: keypoints found again in the next frame; *as exact*: keypoints of exact mode too; "
            "both within 3 pixels of the network's picture."]
    if rtl:
        frames = (count + 1) * len(SCENES) * len(RULES)
        text += ["", f"In all {frames} frames of each network the RTL's keypoints were those of the golden model: the "
                 "same places and scores, bit for bit. Where much of the picture changes, the RTL takes longer than "
                 "predicted, in the first layer's step alone: that waits for the link's packets, a byte a cycle; the "
                 "model takes a frame's changes to come without a gap."]
    columns = ["scene", "noise", "rule", "MACs", *["RTL"] * rtl, "predicted", "frames/s", "again", "as exact"]
    head = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, board in models.BOARDS.items():
        text += ["", f"## {name} on {board}", "", *head, table(models.network(name), board, count, rtl)]
    return "\n".join(text) + "\n"


def main() -> None:
    """Command line: see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtl", action="store_true", help="run the RTL too")
    parser.add_argument("--frames", type=int, default=40, help="frames of each scene after the first")
    parser.add_argument("-o", "--output", type=Path, help="write the page here too")
    options = parser.parse_args()
    text = page(options.frames, options.rtl)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
