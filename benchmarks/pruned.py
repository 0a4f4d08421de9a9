"""What pruned weights are worth: ``python -m benchmarks.pruned [-o PAGE.md]``.

SqueezeNet as Deep Compression left it (two thirds of the weights zero), by the cycle model; the RTL would take hours.

1. Cycles in its pruned form against the same weights stored densely, frame by frame and with deltas: what each saves,
   what both save together, and the product of the two.
2. Load balance (Han et al. 2016, EIE, section 6) of the steps with pruned layers, and what limits it.
3. EIE's queue experiment (figure 8) on all steps: load balance and stalls against queue depth.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.cycles import direct, load
from host.compiler import Program, compile_graph
from host.cycles import Changes, CycleModel, FrameCycles, observed_frame
from hw.config import PRESETS, AcceleratorConfig
from sim.golden import GoldenModel
from sim.graph import Graph

SQUEEZENET = "squeezenet10_deepcompression"
MODES = {"frame by frame": None, "exact": 0, "hold 2": 2}
FRAMES, CALIBRATION = 2, 4
DEPTHS = (1, 2, 4, 8, 16, 32)
FED = ("values", "deltas")
EIE = 0.87
"""EIE's mean load balance over its layers, at queue depth 8."""


def savings() -> str:
    """Table 1."""
    lines = ["| SqueezeNet | form | " + " | ".join(MODES) + " | deltas save (exact, hold 2) |",
             "|---" * (len(MODES) + 3) + "|"]
    for lanes, preset in ((1, "sim64x1"), (4, "sim64")):
        config = PRESETS[preset]
        cycles = {form: [_cycles(graph, codes, config.with_(kinds=kinds), t) for t in MODES.values()]
                  for form, kinds in (("dense", ("dense8",)), ("pruned", config.kinds))
                  for graph, codes in [_network("int8" if form == "dense" else "auto")]}
        name = f"{config.pes} PEs x {lanes} lane{'s' * (lanes > 1)}"
        for form, found in cycles.items():
            lines.append(f"| {name} | {form} | " + " | ".join(f"{c:,.0f}" for c in found) + " | "
                         + ", ".join(f"{found[0] / c:.2f}" for c in found[1:]) + " |")
        dense, pruned = cycles["dense"], cycles["pruned"]
        saved = [a / b for a, b in zip(dense, pruned, strict=True)]
        both = [dense[0] / c for c in pruned]
        product = [saved[0] * dense[0] / c for c in dense]
        for title, row in (("pruning saves", saved), ("both save", both), ("product of the two", product)):
            lines.append(f"| {name} | {title} | " + " | ".join(f"{x:.2f}" for x in row) + " | |")
    return "\n".join(lines)


def _network(weights: str) -> tuple[Graph, list[np.ndarray]]:
    network, codes = load(SQUEEZENET, FRAMES, CALIBRATION, weights)
    return network.graph, codes


def _cycles(graph: Graph, codes: list[np.ndarray], config: AcceleratorConfig, threshold: int | None) -> int:
    """Of the last frame."""
    graph = direct(graph) if threshold is None else graph
    model = GoldenModel(graph, threshold or 0)
    changes = [observed_frame(model, c)[1] for c in codes][-1]
    return CycleModel(compile_graph(graph, config, fit=True)).frame(changes).total


def observed() -> tuple[Program, list[Changes]]:
    """SqueezeNet on 64 PEs of one lane; what the first frame made (values), and the second (deltas)."""
    graph, codes = _network("auto")
    model = GoldenModel(graph)
    return (compile_graph(graph, PRESETS["sim64x1"], fit=True), [observed_frame(model, c)[1] for c in codes[:2]])


def is_pruned(program: Program, number: int) -> bool:
    """Some layer of a step comes pruned."""
    return any(program.graph.edges[e].codebook_bits for e in program.steps[number].edges)


def balances(program: Program, changes: list[Changes], frames: list[FrameCycles]) -> str:
    """Table 2: at the default queue depth."""
    pes, model = program.config.pes, CycleModel(program)
    lines = ["| step (deltas of) | feeds | zeros | G | fed | words | load balance | limit: weights | broadcast | "
             "sweep |", "|---" * 10 + "|"]
    means = []
    for fed, change, frame in zip(FED, changes, frames, strict=True):
        limits, found = model.limits(change), []
        for number in (n for n in range(len(program.steps)) if is_pruned(program, n)):
            words, balance = int(frame.words[number]), frame.words[number] / pes / frame.steps[number]
            limit = [float(limits[k][number]) for k in ("weights", "broadcast", "sweep")]
            found.append((balance, min(limit), words))
            lines.append(f"| {program.steps[number].tensor} | {_layers(program, number)} | {fed} | {words:,} | "
                         f"{balance:.2f} | " + " | ".join(f"{x:.2f}" for x in limit) + " |")
        balance, limit, words = np.array(found).T
        means.append(f"| {fed} | {np.average(balance, weights=words):.3f} | {np.average(limit, weights=words):.3f} | "
                     f"{balance.mean():.3f} | {limit.mean():.3f} | {(balance / limit).mean():.3f} |")
    return "\n".join([
        "| fed | weighted by words | its limit | mean of the steps | its limit | mean of balance / limit |",
        "|---" * 6 + "|", *means, "", *lines])


def _layers(program: Program, number: int) -> str:
    edges = [program.lowered[e] for e in program.steps[number].edges]
    return (", ".join(x.edge.target.removesuffix("#P") for x in edges) + " | "
            + ", ".join(f"{(x.edge.weight_code == 0).mean():.0%}" for x in edges) + " | "
            + ", ".join(str(x.place.phases) for x in edges))


def queues(program: Program, changes: list[Changes]) -> tuple[str, list[FrameCycles]]:
    """Table 3, and the frames at the default depth."""
    config, found = program.config, {}
    for depth in DEPTHS:
        found[depth] = CycleModel(replace(program, config=config.with_(queue_depth=depth))).frames(changes)
    rows = ["| SqueezeNet, step (deltas of) | feeds | fed | " + " | ".join(f"depth {d}" for d in DEPTHS) + " |",
            "|---" * (len(DEPTHS) + 3) + "|"]
    for number, step in enumerate(program.steps):
        targets = ", ".join(program.graph.edges[e].target.removesuffix("#P") for e in step.edges)
        for f, fed in enumerate(FED if step.edges else ()):
            cells = [f"{x.words[number] / config.pes / x.steps[number]:.2f} "
                     f"({x.broadcast_stalls[number] / x.steps[number]:.0%})" for x in (found[d][f] for d in DEPTHS)]
            rows.append(f"| {step.tensor} | {targets} | {fed} | " + " | ".join(cells) + " |")
    return "\n".join(rows), found[config.queue_depth]


def page() -> str:
    program, changes = observed()
    depths, frames = queues(program, changes)
    return "\n".join([INTRODUCTION, "## Two savings", "", savings(), "", SAVINGS, "## Load balance", "",
                      balances(program, changes, frames), "", BALANCE, "## Queue depth", "", depths, "", QUEUES])


INTRODUCTION = """# Pruned weights

Written by `python -m benchmarks.pruned`: SqueezeNet 1.0 as Deep Compression left it, on the first frames of
`asl_again`, by the cycle model (`host/cycles.py`, held against the RTL by `tests/test_cycles.py`).
"""
SAVINGS = """Cycles of the second frame. *dense*: the same weights as int8, zeros walked like any other; *pruned*:
CSC with a codebook where a layer comes pruned. Two thirds of all weights are zero, but hardly any in conv1, in six
of the eight squeeze and six of the eight 1x1 expand layers; those cost what they cost. *Both save*: dense frame by
frame over pruned with deltas, beside the product of what each saves alone.
"""
BALANCE = f"""All steps with a pruned layer; 64 PEs of one lane, queues of {PRESETS["sim64x1"].queue_depth}. Load
balance = weight words walked / (64 x cycles of the step, from its start to its barrier). EIE counts 1 - bubbles /
cycles: the same, but that the slots which the sweep takes from busy PEs count against us here; it reports {EIE} as
its mean. *values*: a first frame's non-zero activations, as EIE is fed; *deltas*: the next frame's changes. The
limits are the load balance if one thing alone were in the way: *weights*, the PE with most words (endless queues);
*broadcast*, one delta a cycle (EIE's layers have thousands of rows, so a delta brings work to every PE; a 1x1 layer
of 48 half-empty rows has 24 words for 64 PEs); *sweep*, the reads of the sweep (four to nine a word behind a
3x3 max-pool).
G: column phases.
"""
QUEUES = """Load balance, and in parentheses the share of the cycles in which a full queue holds the broadcast; all
steps, pruned or not.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the page here too")
    options = parser.parse_args()
    text = page()
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
