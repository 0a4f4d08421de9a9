"""A program as plain values, for the ``program`` section of an ``.rrm`` file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from host.compiler.edges import Lowered
from host.compiler.order import rearranged
from host.compiler.places import Place
from host.compiler.program import Program, Step
from host.compiler.reach import Reach
from host.errors import UserError
from hw.config import AcceleratorConfig, ConfigError
from hw.layouts import Kind, Space, StepKind
from sim.graph import Graph

SECTION = "program"
"""Name of the section."""
FORMAT = 4
"""Version of the section: raised whenever an older reader would misunderstand it."""


def to_section(program: Program) -> dict[str, Any]:
    """Config and its hash, steps, edges, where each tensor and projection lies, memory images, words used."""
    return {
        "format": FORMAT, "config_hash": program.config.hash, "config": program.config.canonical,
        "steps": [{"kind": int(s.kind), "tensor": s.tensor, "direct": s.direct, "edges": s.edges, "fields": s.fields,
                   "reaches": [{"step": r.step, "y": r.y, "x": r.x} for r in s.reaches], "reads": s.reads}
                  for s in program.steps],
        "places": {name: asdict(place) for name, place in program.places.items()},
        "edges": [{"kind": int(e.kind), "vector": e.vector, "words": e.words, "descriptor": e.descriptor}
                  for e in program.lowered],
        "images": {space.name: list(images) for space, images in program.images.items()},
        "used": dict(program.used)}


def from_section(section: Mapping[str, Any], graph: Graph) -> Program:
    """The program of a graph. Raises UserError when another version of this program made the section."""
    try:
        if section["format"] != FORMAT:
            raise ConfigError(f"program: made in format {section['format']}; this is format {FORMAT}")
        config = AcceleratorConfig.from_json(section["config"])
    except ConfigError as e:
        raise UserError(f"network {graph.name}: {e}; compile the network again") from None
    places = {name: Place(**p) for name, p in section["places"].items()}
    steps = tuple(Step(StepKind(s["kind"]), s["tensor"], s["direct"], s["edges"], s["fields"],
                       tuple(Reach(**r) for r in s["reaches"]), tuple(s["reads"])) for s in section["steps"])
    edges = rearranged(graph, {n: np.array(p.order) for n, p in places.items() if p.order is not None}).edges
    lowered = tuple(Lowered(edge, Kind(e["kind"]), e["vector"], places[edge.target], e["words"], e["descriptor"])
                    for edge, e in zip(edges, section["edges"], strict=True))
    images = {Space[name]: list(units) for name, units in section["images"].items()}
    return Program(graph, config, steps, places, lowered, images, section["used"])
