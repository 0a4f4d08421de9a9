"""Speed-up against density: ``python -m benchmarks.density [--rtl] [-o PAGE.md]``.

A 3x3 convolution, 64 -> 64 channels at 32x32, in the middle of a network (its input comes from a sweep), on 64 rows
(``sim64``). The speed-up is over the dense layer at peak, MACs / rows without any stall, zeros multiplied like
everything else. *Random*: every element is not zero with the same probability. *Clustered*: the non-zero elements
fill a disc in all channels, as the change of a moving thing does. ``--rtl`` counts the cycles in compiled simulation
too (minutes to build the first time).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from host.compiler import Program, compile_graph
from host.cycles import CycleModel, observed_frame
from hw.config import PRESETS
from sim.golden import GoldenModel
from sim.graph import Code, Edge, Geometry, Graph, Node, Operand, Output, Projection, Read, Tensor

CHANNELS, SIZE = 64, 32
DENSITIES = (0.01, 0.05, 0.10, 0.20, 0.40, 0.80, 1.00)
REQUIRED = {0.10: 8.2, 0.20: 3.0, 0.40: 1.8, 1.00: 0.93}
"""The best published FPGA curve: geometric means of ESDA's layers."""
PATTERNS = ("random", "clustered")


def layer(seed: int = 0) -> Graph:
    """input -> copy -> "features" -> the convolution; codes and weights are int8 at random."""
    rng, shape = np.random.default_rng(seed), (CHANNELS, SIZE, SIZE)
    code, one = Code(1.0, -128, 127), np.ones(CHANNELS)
    weight = rng.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3))
    weight[weight == 0] = 1
    copy = Edge.conv("image", "copied", np.ones((CHANNELS, 1, 1, 1)), groups=CHANNELS)
    conv = Edge.conv("features", "result", weight.astype(float), Geometry(pad=(1, 1)))
    zero, unit = np.zeros(CHANNELS, np.int64), np.ones(CHANNELS, np.int64)
    operand = Operand("copied", 0 * one, None, zero, unit, unit)
    index = np.arange(CHANNELS * SIZE * SIZE).reshape(1, *shape)
    graph = Graph(
        "conv3x3", "image", {n: Tensor(n, shape, code) for n in ("image", "features")},
        {n: Projection(n, shape, one) for n in ("copied", "result")},
        tuple(Edge(e.source, e.target, e.channels, e.rows, e.weight, e.geometry, e.weight.astype(np.int32))
              for e in (copy, conv)),
        (Node("features", (operand,), one, shift=zero, lo=-128, hi=127),),
        (Output("result", index.shape, (Read("result", 0 * one),), index),))
    graph.validate()
    return graph


def values(pattern: str, density: float, seed: int = 1) -> np.ndarray:
    """Codes int64[C, H, W] of which a share ``density`` is not zero."""
    rng, shape = np.random.default_rng(seed), (CHANNELS, SIZE, SIZE)
    count = round(density * CHANNELS * SIZE * SIZE)
    if pattern == "random":
        chosen = rng.permutation(CHANNELS * SIZE * SIZE)[:count]
    else:
        y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
        nearest = np.argsort((y * y + x * x).ravel(), kind="stable")             # pixels, from the middle outwards
        chosen = (nearest[:, None] + np.arange(CHANNELS) * SIZE * SIZE).ravel()[:count]
    mask = np.zeros(CHANNELS * SIZE * SIZE, bool)
    mask[chosen] = True
    codes = rng.integers(1, 128, mask.size) * rng.choice([-1, 1], mask.size)
    return np.where(mask, codes, 0).reshape(shape)


def predicted(program: Program, codes: np.ndarray) -> int:
    """Cycles of the convolution's step by the cycle model."""
    _, changes = observed_frame(GoldenModel(program.graph), codes)
    return int(CycleModel(program).frame(changes).steps[program.step_of("features")])


def counted(program: Program, clip: list[np.ndarray]) -> list[int]:
    """The same, each frame from scratch, in compiled simulation."""
    from host.simulator import RingSimulator
    from host.simulator.frames import FrameRunner

    simulator = RingSimulator(program.config, lambda what: print(what, flush=True))
    runner, cycles = FrameRunner(simulator, program), []
    for codes in clip:
        runner.frame(codes, refresh=True)
        cycles.append(int(simulator.counters(program)["cycles"][program.step_of("features")]))
    simulator.close()
    return cycles


def table(rtl: bool) -> str:
    """The table in Markdown."""
    program = compile_graph(layer(), PRESETS["sim64"])
    dense = GoldenModel(program.graph).frame(values("random", 1.0)).edges[1].macs_dense / program.config.rows
    clips = {p: [values(p, d) for d in DENSITIES] for p in PATTERNS}
    cycles = {p: [predicted(program, c) for c in clip] for p, clip in clips.items()}
    rtl_cycles = {p: counted(program, clip) for p, clip in clips.items()} if rtl else cycles
    lines = ["| non-zero | ideal 1 / density | required | " + " | ".join(
        f"{p}: speed-up (cycles{', predicted' if not rtl else ' of the RTL, predicted'})" for p in PATTERNS) + " |",
        "|---|---|---|" + "---|" * len(PATTERNS)]
    for i, d in enumerate(DENSITIES):
        cells = [f"{dense / rtl_cycles[p][i]:.2f} ({rtl_cycles[p][i]:,}" + (f", {cycles[p][i]:,})" if rtl else ")")
                 for p in PATTERNS]
        lines.append(f"| {d:.0%} | {1 / d:.4g} | {REQUIRED.get(d, '')} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Dense at peak: {dense:,.0f} cycles."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtl", action="store_true", help="count the cycles on the RTL as well")
    parser.add_argument("-o", "--output", type=Path, help="write the page here too")
    options = parser.parse_args()
    text = "\n".join(["# Speed-up against density", "", *__doc__.strip().splitlines()[2:], "", table(options.rtl), ""])
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
