"""The paper's section 4.2: actions from mean features, against epsilon: ``python -m benchmarks.actions [-o PAGE.md]``.

Clips are generated: a soft textured thing on a textured ground, lit unevenly in time, with the noise of a sensor; its
action (where it goes, how it grows, whether it blinks) is the label. Features are the last map before the global
pooling of ResNet-8 (``../shared``, 64 x 8 x 8), in real numbers, with its input scaled to 0..1, so that epsilon means
what it means in the paper. Their mean over the clip goes into a two-layer MLP, which is trained on exact features and
tested on features extracted with ``truncate`` at every epsilon, without and with accumulated-error control (AECS). H
is fitted on clips of the training set, for each epsilon its own and as in the paper for the middle, not for 95% of the
frames; the error is the features'. Density and speed-up (eq. 10) are means over the clips, first frames and refreshes
included.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from host.aecs import ErrorModel
from host.onnx_import import import_onnx
from sim.float_model import RecurrentFloatModel
from sim.graph import Graph
from sim.linear import edge_axes

NETWORK = Path(__file__).resolve().parents[2] / "shared" / "models" / "mlperftiny_resnet8_cifar10.onnx"
ACTIONS = ("stand", "go sideways", "go up and down", "rise", "fall", "circle", "grow and shrink", "blink")
SIZE, FRAMES = 32, 16
EPSILONS = (1e-4, 1e-3, 1e-2, 3e-2, 5e-2, 1e-1, np.inf)
LIMIT = 0.3
"""Error of the features above which AECS refreshes."""
HIDDEN, EPOCHS, RATE, DECAY = 64, 60, 1e-3, 1e-3


# ----------------------------------------------------------------------------------------------------- clips

def clip(action: int, rng: np.random.Generator) -> np.ndarray:
    """A clip of an action, float32[FRAMES, 3, SIZE, SIZE] of 0..1 in steps of 1/255."""
    ground, thing = texture(rng, 0.2, 0.45, 0.04), texture(rng, 0.65, 1.0, 0.08)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    middle, span = rng.uniform(14, 17, 2), rng.uniform(6, 9)
    radius, phase = rng.uniform(3.5, 5.0), rng.uniform(0, 2 * np.pi)
    turns, soft = rng.uniform(0.8, 1.2), rng.uniform(1.0, 2.0)
    light, frames = rng.uniform(-0.03, 0.03), []
    for t in np.arange(FRAMES) / FRAMES:
        swing = np.sin(phase + 2 * np.pi * turns * t)
        aside = np.cos(phase + 2 * np.pi * turns * t)
        passing = {1: (0, swing), 2: (swing, 0), 3: (-swing, swing), 4: (swing, swing), 5: (swing, aside)}
        move = passing.get(action, start_of(phase, span))   # the others stand where these pass
        at = middle + span * np.array(move)
        size = radius * (1 + 0.7 * swing if action == 6 else 1)
        shown = 0.5 + 0.5 * swing if action == 7 else 1
        mask = shown / (1 + np.exp((np.hypot(y - at[0], x - at[1]) - size) / soft * 2))
        frame = ground * (1 - mask) + thing * mask + light * np.sin(2 * np.pi * t)
        frame = frame + rng.normal(0, 1 / 255, frame.shape)
        frames.append(np.rint(np.clip(frame, 0, 1) * 255) / 255)
    return np.array(frames, np.float32)


def start_of(phase: float, span: float) -> tuple[float, float]:
    """A place within the reach of the things that move."""
    return np.sin(phase) * (span % 1), np.cos(phase) * (span % 1)


def texture(rng: np.random.Generator, low: float, high: float, contrast: float) -> np.ndarray:
    """A smooth random picture [3, SIZE, SIZE] about a colour in low..high."""
    coarse = rng.normal(0, contrast, (3, 5, 5))
    at = np.linspace(0, 4, SIZE)
    first = np.minimum(at.astype(int), 3)
    part = at - first
    rows = coarse[:, first] * (1 - part)[:, None] + coarse[:, first + 1] * part[:, None]
    smooth = rows[:, :, first] * (1 - part) + rows[:, :, first + 1] * part
    return smooth + rng.uniform(low, high, 3)[:, None, None]


def labelled(count: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Clips with the number of their action, all actions equally often."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        yield i % len(ACTIONS), clip(i % len(ACTIONS), rng)


# -------------------------------------------------------------------------------------------------- features

def network() -> tuple[Graph, str]:
    """The graph in real numbers with an input of 0..1, and the name of its features."""
    graph = import_onnx(NETWORK).graph
    edges = tuple(replace(e, weight=e.weight * 255) if e.source == graph.input else e for e in graph.edges)
    maps = [name for name, t in graph.tensors.items() if t.shape == (64, 8, 8)]
    return graph.with_parts(edges=edges), maps[-1]


@dataclass(frozen=True)
class Extracted:
    """What a clip gave: mean features, (e_t, error) of every frame, MACs done and needed for what is not zero as shares
    of the dense ones, and refreshes after the first frame."""

    features: np.ndarray
    pairs: tuple[tuple[float, float], ...]
    density: float
    nonzero: float
    refreshes: int


class Extractor:
    """Features of clips at an epsilon, with or without AECS."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name
        self._macs = {n: sum(_macs(graph, e) for e in graph.edges_from(n)) for n in graph.tensors}

    def exact(self, frames: np.ndarray) -> np.ndarray:
        """float32[frames, features]."""
        model, found = RecurrentFloatModel(self.graph, 0.0), []
        for frame in frames:
            model.frame(frame)
            found.append(model.values[self.name].ravel().copy())
        return np.array(found)

    def run(self, frames: np.ndarray, exact: np.ndarray, epsilon: float,
            control: ErrorModel | None = None) -> Extracted:
        """``exact``: the features of the same frames. With ``control``, a frame after H(e_t) > LIMIT is precise."""
        model, features, pairs, done, active = RecurrentFloatModel(self.graph, epsilon), [], [], 0.0, 0.0
        e, refreshes = 0.0, -1
        for frame, right in zip(frames, exact, strict=True):
            result = model.frame(frame, refresh=control is not None and control(e) > LIMIT)
            e = 0.0 if result.refresh else e + sum(result.truncated[n] for n, macs in self._macs.items() if macs)
            refreshes += result.refresh
            features.append(model.values[self.name].ravel().copy())
            pairs.append((e, float(np.linalg.norm(features[-1] - right) / np.linalg.norm(right))))
            done += sum(result.sent[n].mean() * macs for n, macs in self._macs.items())
            active += sum((model.values[n] != 0).mean() * macs for n, macs in self._macs.items())
        dense = sum(self._macs.values()) * len(frames)
        return Extracted(np.mean(features, axis=0), tuple(pairs), done / dense, active / dense, refreshes)


def _macs(graph: Graph, edge) -> int:
    y, x = edge_axes(edge, graph.shape_of(edge.source), graph.shape_of(edge.target))
    hits = y.hits(edge.kernel[0]).sum() * x.hits(edge.kernel[1]).sum()
    return int(hits) * edge.rows.size


# ------------------------------------------------------------------------------------------------------- MLP

class Mlp:
    """Features -> ReLU(HIDDEN) -> actions, trained with Adam on the cross entropy."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._mean, self._spread = features.mean(axis=0), features.std(axis=0) + 0.1 * features.std()
        x, wide = self._scaled(features), features.shape[1]
        self._weights = [rng.normal(0, np.sqrt(2 / wide), (wide, HIDDEN)), np.zeros(HIDDEN),
                         rng.normal(0, np.sqrt(1 / HIDDEN), (HIDDEN, len(ACTIONS))), np.zeros(len(ACTIONS))]
        first, second, step = [0.0] * 4, [0.0] * 4, 0
        for _ in range(EPOCHS):
            for batch in np.array_split(rng.permutation(len(x)), max(1, len(x) // 32)):
                step += 1
                for i, slope in enumerate(self._slopes(x[batch], labels[batch])):
                    first[i] = 0.9 * first[i] + 0.1 * slope
                    second[i] = 0.999 * second[i] + 0.001 * slope ** 2
                    moved = first[i] / (1 - 0.9 ** step) / (np.sqrt(second[i] / (1 - 0.999 ** step)) + 1e-8)
                    self._weights[i] = self._weights[i] - RATE * (moved + DECAY * self._weights[i])

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return (features - self._mean) / self._spread

    def _slopes(self, x: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        w1, b1, w2, b2 = self._weights
        hidden = np.maximum(x @ w1 + b1, 0)
        scores = hidden @ w2 + b2
        error = np.exp(scores - scores.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(x)), labels] -= 1
        error /= len(x)
        back = (error @ w2.T) * (hidden > 0)
        return [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]

    def top1(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Share of the clips whose action has the largest score."""
        w1, b1, w2, b2 = self._weights
        scores = np.maximum(self._scaled(features) @ w1 + b1, 0) @ w2 + b2
        return float((scores.argmax(axis=1) == labels).mean())


# ------------------------------------------------------------------------------------------------------ page

def row(label: str, mlp: Mlp, labels: np.ndarray, found: Sequence[Extracted]) -> str:
    """A row of the table; ``label`` is its first two cells."""
    errors = np.array([error for f in found for _, error in f.pairs])
    density, nonzero = np.mean([f.density for f in found]), np.mean([f.nonzero for f in found])
    return (f"{label} | {mlp.top1(np.array([f.features for f in found]), labels):.1%} | {errors.mean():.4f} | "
            f"{errors.max():.3f} | {density:.3f} | {nonzero / density:.2f} | "
            f"{np.mean([f.refreshes for f in found]):.1f} |")


def measure(train: int, test: int, fitted: int) -> list[str]:
    """The lines of the page."""
    extractor = Extractor(*network())
    clips = {part: list(labelled(count, seed)) for part, count, seed in (("train", train, 0), ("test", test, 1))}
    exact = {part: [extractor.exact(frames) for _, frames in own] for part, own in clips.items()}
    labels = {part: np.array([action for action, _ in own]) for part, own in clips.items()}
    means, firsts = ({part: np.array([reduced(e) for e in own]) for part, own in exact.items()}
                     for reduced in (lambda e: e.mean(axis=0), lambda e: e[0]))
    mlp = Mlp(means["train"], labels["train"])
    first = Mlp(firsts["train"], labels["train"]).top1(firsts["test"], labels["test"])
    lines = [f"{train} clips of {FRAMES} frames to train on, {test} to test on, {len(ACTIONS)} actions: "
             f"{', '.join(ACTIONS)}.", f"Exact features: {mlp.top1(means['test'], labels['test']):.1%} (on the "
             f"training set {mlp.top1(means['train'], labels['train']):.1%}); an MLP on first frames only: "
             f"{first:.1%}; chance {1 / len(ACTIONS):.1%}. AECS: {fitted} clips, limit {LIMIT}.", "",
             "| epsilon | AECS | top-1 | mean error | largest | density | speed-up (eq. 10) | refreshes per clip |",
             "|---|---|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    seen, asked = (list(zip((frames for _, frames in clips[part]), exact[part], strict=True))
                   for part in ("train", "test"))
    for epsilon in EPSILONS:
        pairs = [p for own in seen[:fitted] for p in extractor.run(*own, epsilon).pairs]
        for label, control in (("no", None), ("yes", ErrorModel.fit(pairs, quantile=0.5))):
            found = [extractor.run(*own, epsilon, control) for own in asked]
            lines.append(row(f"| {epsilon:g} | {label}", mlp, labels["test"], found))
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--test", type=int, default=64)
    parser.add_argument("--fitted", type=int, default=8, help="training clips that error models are fitted on")
    parser.add_argument("-o", "--output", type=Path, help="write the page here too")
    options = parser.parse_args()
    lines = ["# Actions against epsilon", "", *__doc__.strip().splitlines()[2:], "",
             *measure(options.train, options.test, options.fitted)]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
