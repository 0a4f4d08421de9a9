"""Cycles of the ring: ``python -m benchmarks.cycles [--rtl] [--frames N] [-o PAGE.md]``.

ResNet-8 on ``asl_again``, 64 rows, S = 16, against the bound of a ring that sweeps all of P in every frame and begins a
step when the one before is over: per node ``max(MACs in the image / rows, broadcasts, P elements / S) + 60``. (Ours
leaves out what no change has reached, and steps overlap, so it may come below.) A delta is broadcast once per edge for
which it meets a tap, in vector mode S deltas at once. Frame by frame (all projections direct), exact, hold 2, hold 4.
``--rtl`` also runs the RTL in compiled simulation (minutes to build the first time). Pruned weights:
``benchmarks/pruned.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from host.calibration import calibrate
from host.compiler import Program, compile_graph
from host.cycles import CycleModel, observed_frame
from host.network import Network
from host.onnx_import import import_onnx
from host.quantiser import Weights, pixel_code, quantise
from host.sidecar import preset
from host.video import open_source, sample_frames
from hw.config import PRESETS
from sim.golden import FrameResult, GoldenModel
from sim.graph import Graph

SHARED = Path(__file__).resolve().parents[2] / "shared"
CLIP = SHARED / "clips" / "asl_again_640x480_77f.mp4"
RESNET = "mlperftiny_resnet8_cifar10"
MODES = {"frame by frame": None, "exact": 0, "hold 2": 2, "hold 4": 4}
STEP = 60
"""Cycles that the bound allows a step beyond its work."""


def load(stem: str, frames: int, calibration: int = 16,
         weights: Weights = "auto") -> tuple[Network, list[np.ndarray]]:
    """A network of ../shared/models in integers, and codes of the clip's first frames."""
    network, sidecar = import_onnx(SHARED / "models" / f"{stem}.onnx"), preset(stem)
    arrays = (sidecar.input.apply(f, network.input) for f in sample_frames(CLIP, calibration))
    code = pixel_code(sidecar.input.mean, sidecar.input.scale)
    network = quantise(network, calibrate(network, arrays), weights=weights, input_code=code)
    code = network.graph.tensors[network.graph.input].code
    return network, [network.input.to_codes(sidecar.input.apply(f, network.input), code)
                     for f in islice(open_source(CLIP), frames)]


def bound(program: Program, result: FrameResult, broadcasts: np.ndarray) -> int:
    """Cycles of a frame that a ring without marks and overlap takes at least; ``broadcasts`` int[steps]."""
    graph, config, total = program.graph, program.config, 0
    nodes = {n.target: n for n in graph.nodes}
    for number, step in enumerate(program.steps[1:], start=1):
        macs = sum(result.edges[e].macs for e in step.edges)
        swept = 0 if step.tensor == graph.input else sum(
            np.prod(graph.projections[op.source].shape) for op in nodes[step.tensor].operands
            if op.source in graph.projections)
        total += max(macs / config.rows, broadcasts[number], swept / config.sweep) + STEP
    return round(total)


def resnet8(frames: int, rtl: bool) -> str:
    """Table 1."""
    network, codes = load(RESNET, frames + 1)
    lines = [f"| ResNet-8, `asl_again` frames 1-{frames} | bound | predicted | RTL | RTL / bound | array efficiency |",
             "|---|---|---|---|---|---|"]
    for name, threshold in MODES.items():
        graph = network.graph if threshold is not None else direct(network.graph)
        program = compile_graph(graph, PRESETS["sim64"])
        model = GoldenModel(graph, threshold or 0)
        results, changes = zip(*(observed_frame(model, c) for c in codes), strict=True)
        counted = _counted(program, codes, threshold or 0)[1:] if rtl else []
        predicted = CycleModel(program).frames(changes[1:])
        cycles = [f.total for f in predicted]
        limit = np.mean([bound(program, r, f.broadcasts) for r, f in zip(results[1:], predicted, strict=True)])
        best = np.mean(counted if rtl else cycles)
        macs = np.mean([r.total("macs") for r in results[1:]])
        lines.append(f"| {name} | {limit:,.0f} | {np.mean(cycles):,.0f} | "
                     f"{f'{best:,.0f}' if rtl else 'not run'} | {best / limit:.3f} | "
                     f"{macs / program.config.rows / best:.3f} |")
    return "\n".join(lines)


def direct(graph: Graph) -> Graph:
    """The graph frame by frame: nothing is kept, the non-zero values are sent."""
    return graph.with_parts(projections={k: replace(p, mode="direct") for k, p in graph.projections.items()})


def _counted(program: Program, codes: Iterable[np.ndarray], threshold: int) -> list[int]:
    """Cycles of each frame in compiled simulation."""
    from host.simulator import RingSimulator
    from host.simulator.frames import FrameRunner

    simulator = RingSimulator(program.config, lambda what: print(what, flush=True))
    runner = FrameRunner(simulator, program, threshold)
    cycles = []
    for c in codes:
        runner.frame(c)
        cycles.append(int(simulator.counters(program)["cycles"].sum()))
    simulator.close()
    return cycles


def page(frames: int, rtl: bool) -> str:
    return "\n".join([
        "# Cycles", "", "Written by `python -m benchmarks.cycles`; the cycle model is `host/cycles.py`. "
        "Pruned weights, load balance and queue depth: [pruned](pruned.md).", "", "## ResNet-8 against the bound", "",
        resnet8(frames, rtl), "",
        "Mean cycles per frame. *RTL*: compiled simulation; the last two columns are of the "
        f"{'RTL' if rtl else 'prediction'}. Array efficiency: MACs in the image / (64 rows x cycles).", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtl", action="store_true", help="run ResNet-8 on the RTL as well")
    parser.add_argument("--frames", type=int, default=29, help="frames of ResNet-8 after the first")
    parser.add_argument("-o", "--output", type=Path, help="write the page here too")
    options = parser.parse_args()
    text = page(options.frames, options.rtl)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
