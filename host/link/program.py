"""A compiled program as the driver takes it, and where its tensors are read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from host.compiler import Program
from host.link.driver import DeviceProgram, InputRule, MemoryImage, Region
from hw.layouts import Space, StepKind, pack, unpack
from hw.readout import answer_layout
from sim.arithmetic import Mode


def device_program(program: Program, threshold: int | Mapping[str, int] = 0,
                   mode: Mode | Mapping[str, Mode] = "hold") -> DeviceProgram:
    """Everything to load, with the thresholds and modes of the tensors (others: 0 and ``hold``)."""
    graph = program.graph
    images = [MemoryImage(space, image, unit) for space, units in program.images.items()
              for unit, image in enumerate(units) if len(image)]
    images.append(MemoryImage(Space.STEPS, program.step_image(threshold, mode)))
    code, name = graph.tensors[graph.input].code, graph.input
    rule = InputRule(graph.tensors[name].shape, code.lo, code.hi,
                     threshold.get(name, 0) if isinstance(threshold, Mapping) else threshold,
                     mode.get(name, "hold") if isinstance(mode, Mapping) else mode)
    return DeviceProgram(images, len(program.steps), {i: s.direct for i, s in enumerate(program.steps)
                                                      if s.kind == StepKind.FRAME}, rule,
                         (lambda codes: snapshot_image(program, codes)) if name in program.places else None)


def snapshot_image(program: Program, codes: np.ndarray) -> MemoryImage:
    """The input's snapshot, for the nodes that read it."""
    place, sweep = program.places[program.graph.input], program.config.sweep
    c, h, w = place.shape
    padded = np.zeros((-(-c // sweep) * sweep, h, w), np.int64)
    padded[:c] = codes
    words = padded.reshape(-1, sweep, h * w).transpose(2, 0, 1).reshape(-1, sweep)
    return MemoryImage(Space.SNAPSHOTS, pack(program.layouts.codes, words, len(words)), address=place.base)


def region(program: Program, name: str) -> Region:
    """The words that hold a projection or a snapshot."""
    place, config = program.places[name], program.config
    words = int(place.addresses(config.sweep)[0].max()) - place.base + 1
    if not place.projection:
        code = program.graph.tensors[name].code
        return Region(Space.SNAPSHOTS, place.base, words, low=code.lo if code.hi - code.lo < 256 else None)
    return Region(Space.PROJECTIONS, place.base, words, units=1 << place.phase_bits + place.group_bits)


def values(program: Program, name: str, words: np.ndarray) -> np.ndarray:
    """What was read from ``region(program, name)`` as int64[C, H, W]."""
    place, config = program.places[name], program.config
    where = region(program, name)
    elements = unpack(answer_layout(program.layouts, where.space), words)
    elements = elements.reshape(where.units, where.words, -1)
    word, unit = place.addresses(config.sweep)
    picked = elements[unit if place.projection else np.zeros_like(unit), word - place.base]
    _, h, w = place.shape
    return place.by_channel(picked.reshape(h, w, -1).transpose(2, 0, 1))
