"""Whole networks on the compiled ring against the golden model: ``python -m tests.verify_networks``.

Every projection at its barrier, every tensor after its step and the counters of every step, for every frame, with the
networks and clips of ../shared (``host.simulator.compare``). One ring, with memories for all the chosen networks, or
just as it is on a board, is built per config; that takes minutes. Prints a row per run; the exit code is 1 if one of
them found a difference.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import fields
from datetime import date

import numpy as np
import pytest

from host.compiler import compile_graph
from host.configs import boards
from host.simulator import RingSimulator
from host.simulator.compare import first_mismatch
from hw.config import PRESETS, AcceleratorConfig
from sim.graph import Graph, Output, Read
from tests.networks import onnx_arrays, quantised

RUNS = {"resnet8": ("mlperftiny_resnet8_cifar10", 30), "resnet8-qdq": ("mlperftiny_resnet8_cifar10_int8qdq", 30),
        "vww": ("mlperftiny_vww_96", 5), "vww-sparse83": ("mlperftiny_vww_96_sparse83", 5),
        "ultraface": ("ultraface_slim_320_rawheads", 5), "yolo": ("yolo_fastest_1.1_body_320", 2),
        "squeezenet-8": ("squeezenet10_deepcompression", 2), "squeezenet": ("squeezenet10_deepcompression", 2)}
"""Short name: network, frames."""
RULES = {"exact": (0, "hold"), "hold 2": (2, "hold"), "truncate 4": (4, "truncate")}
CONFIGS = {**PRESETS, "sim64x2": PRESETS["sim64"].with_(pes=32, lanes=2)}
LAYERS = 8
"""Of a network cut short (``-8``)."""
BOARDS = {board.name: board.config for board in boards()}


def first_layers(graph: Graph, count: int) -> Graph:
    """The part of a graph that its first ``count`` projections make, with the nodes behind them; all that nothing in
    it reads becomes output."""
    whole, tensors, nodes = list(graph.projections)[:count], {graph.input}, []
    for node in graph.nodes:
        if all(o.source in whole or o.source in tensors for o in node.operands):
            nodes.append(node)
            tensors.add(node.target)
    edges = [e for e in graph.edges if e.target in whole]
    projections = {e.target: graph.projections[e.target] for e in edges}
    read = {e.source for e in edges} | {o.source for n in nodes for o in n.operands}
    outputs = []
    for name in (*projections, *(n.target for n in nodes)):
        if name not in read:
            shape = graph.shape_of(name)
            index = np.arange(np.prod(shape)).reshape(shape)
            outputs.append(Output(name, shape, (Read(name, np.zeros(shape[0])),), index))
    return graph.with_parts(tensors={n: graph.tensors[n] for n in graph.tensors if n in tensors}, edges=tuple(edges),
                            projections=projections, nodes=tuple(nodes), outputs=tuple(outputs))


def network(name: str) -> Graph:
    """A network of ``RUNS`` in integers."""
    graph = quantised(RUNS[name][0])[0].graph
    return first_layers(graph, LAYERS) if name.endswith(f"-{LAYERS}") else graph


def codes(name: str, count: int) -> list[np.ndarray]:
    """Frames of the network's clip as codes of its input."""
    full = quantised(RUNS[name][0])[0]
    code = full.graph.tensors[full.graph.input].code
    return [full.input.to_codes(a, code) for a in onnx_arrays(RUNS[name][0], count)]


def largest(configs: list[AcceleratorConfig]) -> AcceleratorConfig:
    """A config with the larger of each memory."""
    sizes = {f.name: max(getattr(c, f.name) for c in configs) for f in fields(AcceleratorConfig) if f.type == "int"}
    return configs[0].with_(**sizes)


def verify(config: str, names: list[str], rules: list[str], frames: int | None) -> bool:
    """Run, print a row each; True when there was no difference."""
    graphs = {name: network(name) for name in names}
    if config in BOARDS:
        size = BOARDS[config]
    else:
        bits = max(g.accumulator_bits for g in graphs.values())
        graphs = {name: g.with_parts(accumulator_bits=bits) for name, g in graphs.items()}
        size = largest([compile_graph(g, CONFIGS[config], fit=True).config for g in graphs.values()])
    programs = {name: compile_graph(g, size) for name, g in graphs.items()}
    simulator = RingSimulator(size, lambda what: print(what, file=sys.stderr, flush=True))
    good = True
    for name in names:
        for rule in rules:
            begin = time.monotonic()
            clip = codes(name, frames or RUNS[name][1])
            found = first_mismatch(simulator, programs[name], clip, *RULES[rule])
            good &= found is None
            print(f"| {date.today()} | {name} | {config} | {rule} | {len(clip)} | "
                  f"{found or 'the same'} | {(time.monotonic() - begin) / 60:.1f} |", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(RUNS)}; all without any")
    parser.add_argument("--config", nargs="*", default=["sim64"], choices=[*CONFIGS, *BOARDS])
    parser.add_argument("--rule", nargs="*", default=list(RULES), choices=list(RULES))
    parser.add_argument("--frames", type=int, help="in place of each network's own number")
    args = parser.parse_args()
    if unknown := set(args.networks) - set(RUNS):
        parser.error(f"there is no network {sorted(unknown)[0]}; choose from {', '.join(RUNS)}")
    print("| date | network | config | rule | frames | result | minutes |\n|---|---|---|---|---|---|---|", flush=True)
    try:
        results = [verify(config, args.networks or list(RUNS), args.rule, args.frames) for config in args.config]
    except pytest.skip.Exception as absent:
        print(absent, file=sys.stderr)
        return 1
    return not all(results)


if __name__ == "__main__":
    sys.exit(main())
