"""The results page: ``python -m benchmarks.results [--part NAME]... [--clip NAME]... [-o docs/results.md]``.

Every network of ``NETWORKS`` on clips of ../shared, by several rules, each against the same engine frame by frame:
what the paper's tables 2 to 6 report, and where the cycles go. What is measured is kept per network, clip and rule in
``out/results/`` (JSON), so that a run can be stopped and taken up again, and parts can be made by processes of their
own; ``--again`` measures anew. The page is written from everything that is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np

from benchmarks import density, results_page, shapes
from benchmarks.fidelity import SHARED, run_onnx, sqnr
from host.aecs import ErrorModel
from host.analysis import Analyser, Rule
from host.configs import named
from host.drift import Drift
from host.errors import UserError
from host.heads.agreement import agreement
from host.rrm_file import Model
from host.session import CALIBRATION_FRAMES, open_model, quantised
from host.video import open_source, sample_frames

LIMIT = 0.05
"""Error of the outputs at which AECS refreshes."""
FOLDER = Path(__file__).resolve().parents[1] / "out" / "results"
AECS = f"truncate 4 + AECS {LIMIT:.0%}"
RULES = {"exact": Rule(), "hold 2": Rule(2), "hold 4": Rule(4), "truncate 4": Rule(4, "truncate"),
         AECS: Rule(4, "truncate", max_error=LIMIT)}


@dataclass(frozen=True)
class Case:
    """A network: its file, the preset of the accelerator, and on which clips (all, if not given).

    frames
        how many are measured, after the first.
    fitted
        frames, behind those, to which the error model of AECS is fitted.
    """

    stem: str
    config: str
    frames: int
    fitted: int
    clips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """Frames from number ``first`` on (where things move) of a clip, resampled or with noise."""

    stem: str
    first: int
    fps: float | None = None
    noise: float = 0.0

    @property
    def label(self) -> str:
        """Short name."""
        name = "_".join(self.stem.split("_")[:2]).removesuffix("_a")
        return name + (f", {self.fps:g} fps" if self.fps else "") + (f", noise {self.noise:g}" if self.noise else "")

    def frames(self, stop: int, start: int = 0) -> Iterator[np.ndarray]:
        """Those from ``start`` to ``stop``, uint8[H, W, 3]."""
        source = open_source(SHARED / "clips" / f"{self.stem}.mp4", fps=self.fps, noise=self.noise, seed=1)
        yield from islice(source, self.first + start, self.first + stop)


PERSON, CARS = Clip("person_walk_a_768x432_250f", 60), Clip("cars_a_768x432_120f", 30)
ASL, BOTTLES = Clip("asl_again_640x480_77f", 20), Clip("bottles_still_640x360_200f", 50)
CLIPS = {c.label: c for c in (
    ASL, PERSON, CARS, BOTTLES, replace(ASL, fps=24.0), replace(BOTTLES, fps=24.0),
    *(replace(c, noise=2.0) for c in (ASL, PERSON, CARS, BOTTLES)))}
SIGNER = ("asl_again", "asl_again, 24 fps", "asl_again, noise 2")
NETWORKS = {
    "ResNet-8": Case("mlperftiny_resnet8_cifar10", "sim64", 24, 24),
    "VWW": Case("mlperftiny_vww_96", "sim64", 24, 24),
    "UltraFace": Case("ultraface_slim_320_rawheads", "sim64", 4, 10),
    "UltraFace, S = 32": Case("ultraface_slim_320_rawheads", "sim64s32", 4, 10, ("asl_again", "person_walk")),
    "YOLO-Fastest": Case("yolo_fastest_1.1_body_320", "sim64", 4, 10),
    "SqueezeNet": Case("squeezenet10_deepcompression", "sim64", 4, 10),
    "SqueezeNet, S = 32": Case("squeezenet10_deepcompression", "sim64s32", 4, 10),
    "SqueezeNet, 64 x 1": Case("squeezenet10_deepcompression", "sim64x1", 4, 10, ("asl_again", "person_walk")),
    "Pose": Case("tfpose_mnv2small_320x240_frozenbn_asl", "sim64", 4, 10, SIGNER)}
"""Pose is plausible on the signer only. Few frames where the cycle model takes seconds for a frame."""
TABLES = {"density": lambda: density.table(rtl=True), **{n: partial(shapes.row, n) for n in shapes.NETWORKS}}
"""What is no network on clips: name -> what makes its Markdown."""


def with_error_model(rule: Rule, model: Model, case: Case, clip: Clip) -> Rule:
    """The AECS rule, its H fitted; where truncation never comes near the limit, there is nothing to control."""
    drift = Drift(model, (2, 4, 8))
    for frame in clip.frames(case.frames + 1 + case.fitted, case.frames + 1):
        drift.add(frame)
    try:
        errors = ErrorModel.fit([pair for pairs in drift.pairs.values() for pair in pairs])
    except UserError:                                       # nearly nothing is dropped
        return replace(rule, max_error=None)
    return replace(rule, errors=errors) if errors.largest > LIMIT else replace(rule, max_error=None)


def measure(case: Case, clip: Clip, rules: Mapping[str, Rule]) -> dict[str, dict]:
    """The rows of a network on a clip, by rule, as plain values."""
    path = SHARED / "models" / f"{case.stem}.onnx"
    model = quantised(open_model(path), sample_frames(SHARED / "clips" / f"{clip.stem}.mp4", CALIBRATION_FRAMES,
                                                      clip.noise, seed=1))
    rules = {name: with_error_model(rule, model, case, clip) if rule.max_error else rule
             for name, rule in rules.items()}
    network, pre, head = model.network, model.sidecar.input, model.sidecar.head
    program = named(case.config).compile(network.graph)
    code = network.graph.tensors[network.graph.input].code
    analyser, floats = Analyser(program, rules), []
    outputs, agreements = ({name: [] for name in rules} for _ in range(2))
    for frame in clip.frames(case.frames + 1):
        size = (frame.shape[1], frame.shape[0])
        array, placement = pre.apply(frame, network.input), pre.placement(size, network.input)
        results = analyser.frame(network.input.to_codes(array, code))
        floats.append(run_onnx(path, [array])[0])
        decided = head.decode(floats[-1], placement)
        for name, result in results.items():
            outputs[name].append(network.finish(dict(result.outputs)))
            agreements[name].append(agreement(decided, head.decode(outputs[name][-1], placement), size))
    rows = {}
    for name in rules:
        summary = analyser.analysis(name).summary(1e8, 6e6)
        flat = [[np.concatenate([np.ravel(o[k]) for k in floats[0]]) for o in kept[1:]]
                for kept in (floats, outputs[name])]
        rows[name] = summary | {"sqnr": float(sqnr(*flat)), "agreement": float(np.mean(agreements[name][1:]))}
    return rows


def cell(name: str, label: str) -> Path:
    """Where a network's rows on a clip are kept."""
    return FOLDER / f"{name} on {label}.json".replace(" = ", "").replace(" ", "_").replace(",", "")


def wanted(parts: list[str] | None = None, clips: list[str] | None = None) -> Iterator[tuple[str, str]]:
    """(network, clip) of every cell of the page, or of a part of it."""
    for name, case in NETWORKS.items():
        for label in case.clips or CLIPS:
            if (not parts or name in parts) and (not clips or label in clips):
                yield name, label


def fill(name: str, label: str, again: bool) -> None:
    """Measure what a cell lacks."""
    path, began = cell(name, label), time.perf_counter()
    rows = {} if again or not path.exists() else json.loads(path.read_text())
    missing = {rule: RULES[rule] for rule in RULES if rule not in rows}
    if missing:
        found = measure(NETWORKS[name], CLIPS[label], missing)
        rows |= {rule: row | {"revision": revision()} for rule, row in found.items()}
        path.write_text(json.dumps(rows, indent=1))
        print(f"{name} on {label}: {', '.join(missing)}: {time.perf_counter() - began:.0f} s", flush=True)


def revision() -> str:
    """Of this checkout, as git names it; "" without git."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=FOLDER.parent.parent, capture_output=True,
                           text=True, check=False)
    return found.stdout.strip()


def written() -> str:
    """The page, from everything that is there."""
    cells = {key: json.loads(cell(*key).read_text()) for key in wanted() if cell(*key).exists()}
    texts = {name: (FOLDER / f"{name}.md").read_text() for name in TABLES if (FOLDER / f"{name}.md").exists()}
    rows = [texts[name] for name in shapes.NETWORKS if name in texts]
    sections = {"Speed-up against density": f"{words(density)}\n\n{texts['density']}"} if "density" in texts else {}
    if rows:
        sections["The paper's networks in shape only"] = f"{words(shapes)}\n\n{shapes.table(rows)}"
    return results_page.page(cells, {name: case.frames for name, case in NETWORKS.items()}, sections)


def words(module: ModuleType) -> str:
    """What a module says of itself, without its first paragraph, as Markdown."""
    return module.__doc__.strip().partition("\n\n")[2].replace("``", "`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*NETWORKS, *TABLES], help="only this; may be repeated")
    parser.add_argument("--clip", action="append", choices=list(CLIPS), help="only this one; may be repeated")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    parser.add_argument("-o", "--output", type=Path, help="write the page here")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, label in wanted(options.part, options.clip):
        fill(name, label, options.again)
    for name, made in TABLES.items():
        path = FOLDER / f"{name}.md"
        if name in (options.part or TABLES) and (options.again or not path.exists()):
            path.write_text(made())
            print(name, flush=True)
    if options.output:
        options.output.write_text(written())


if __name__ == "__main__":
    main()
