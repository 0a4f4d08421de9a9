"""The compiler's memory images, read back word by word as a PE would, against the definition of an edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import host.compiler.program
from host.compiler import compile_graph
from host.compiler.axes import Axis
from host.compiler.pools import Intervals
from host.errors import UserError
from hw.config import PRESETS
from hw.layouts import Kind, Space, unpack
from tests.random_graphs import OVERLAPPING, Limits, random_graph


class Reader:
    """Walks the images of a program."""

    def __init__(self, program) -> None:
        self.program, self.lay, self.config = program, program.layouts, program.config
        self.tables = {space: [unpack(self.lay.memories()[space][0], image) for image in images]
                       for space, images in program.images.items() if space != Space.WEIGHTS}
        self.words = {kind: [unpack(getattr(self.lay, kind.name.lower()), w) for w in program.images[Space.WEIGHTS]]
                      for kind in Kind}

    def macs(self, number: int, c: int, y: int, x: int) -> dict[tuple[int, int, int], int]:
        """{(pe, P address, lane): weight} that a delta at (c, y, x) meets on edge ``number``, zeros left out."""
        lay, config = self.lay, self.config
        edge = {k: v for k, v in self.program.lowered[number].descriptor.items() if k != "walk"}
        walk = self.program.lowered[number].descriptor["walk"]
        axis_y, axis_x, channels = (self.tables[s][0] for s in (Space.AXIS_Y, Space.AXIS_X, Space.CHANNELS))
        ay, ax = edge["axis_y"] + y, edge["axis_x"] + x
        source = self.program.places.get(self.program.graph.edges[number].source)
        group, lane = divmod(c if source is None or source.order is None else source.order[c], config.sweep)
        mask, first = (int(channels[k][edge["channels"] + group]) for k in ("mask", "first"))
        if not mask >> lane & 1 or not axis_y["taps"][ay] or not axis_x["taps"][ax]:
            return {}
        vector = edge["vector"]
        k = first >> edge["group_bits"] if vector else first + (mask & ((1 << lane) - 1)).bit_count()
        column = edge["column"] + int(axis_y["column"][ay] + axis_x["column"][ax])
        column += k if walk["kind"] != Kind.DENSE8 else 0
        origin = edge["origin"] + int(axis_y["origin"][ay] + axis_x["origin"][ax]) + (k if vector else 0)
        found: dict[tuple[int, int, int], int] = {}
        for pe in range(config.pes):
            in_group = (pe // config.group_pes ^ first) & ((1 << edge["group_bits"]) - 1) == 0
            if vector and not in_group:
                continue
            lanes = [lane - pe % config.group_pes * config.lanes] if vector else range(config.lanes)
            for address, weights in self.walk(pe, walk, column, edge["weight"] + k * edge["stride"], origin):
                for at in lanes:
                    if 0 <= at < config.lanes and weights[at]:
                        key = pe, address % (1 << lay.projection_address), at
                        assert key not in found, "an accumulator is met twice"
                        found[key] = int(weights[at])
        return found

    def walk(self, pe: int, walk: dict, column: int, start: int, origin: int):
        columns, taps = self.tables[Space.COLUMNS][pe], self.tables[Space.TAPS][pe]
        count, row, first = (int(columns[k][column]) for k in ("count", "row", "first"))
        words = self.words[Kind(walk["kind"])][pe]
        blocks = walk["last_block"] + 1
        for i in range(count):
            if walk["kind"] == Kind.DENSE8:
                tap, block = row + i // blocks, i % blocks
                weights = words["weights"][start + taps["weight"][tap] + block]
            else:
                row += int(words["index"][first + i]) + (i > 0)
                codes = words["codes"][first + i]
                if words["index"][first + i] == 15 and not codes.any():
                    continue
                tap, block = row >> walk["block_bits"], row & ((1 << walk["block_bits"]) - 1)
                weights = self.tables[Space.CODEBOOK][pe][walk["codebook"] + codes]
            yield origin + int(taps["offset"][tap]) + block, weights


def defined(program, number: int, c: int, y: int, x: int) -> dict[tuple[int, int, int], int]:
    """The same from the definition in ``sim.graph``."""
    edge, config = program.graph.edges[number], program.config
    place, g = program.places[edge.target], edge.geometry
    out: dict[tuple[int, int, int], int] = {}
    y0, y1, x0, x1 = g.window or (0, 1 << 30, 0, 1 << 30)
    where = np.flatnonzero(edge.channels == c)
    if not len(where) or not (y0 <= y < y1 and x0 <= x < x1):
        return out
    k = int(where[0])
    rows = config.rows >> place.phase_bits
    for ky, kx in np.ndindex(edge.kernel):
        oy, ry = divmod(y * g.upsample[0] + g.pad[0] - ky * g.dilation[0], g.stride[0])
        ox, rx = divmod(x * g.upsample[1] + g.pad[1] - kx * g.dilation[1], g.stride[1])
        if ry or rx or not (0 <= oy < place.shape[1] and 0 <= ox < place.shape[2]):
            continue
        for r, row in enumerate(edge.rows[k]):
            weight = int(edge.weight_code[k, r, ky, kx])
            block, within = divmod(int(row) if place.order is None else place.order[row], rows)
            pe = ox % place.phases * (rows // config.lanes) + within // config.lanes
            address = place.base + (oy * place.pitch + ox // place.phases) * place.blocks + block
            if weight:
                out[pe, address, within % config.lanes] = weight
    return out


def check_images(program, seed: int) -> None:
    """What a delta meets by the images is what the definition says, at random places of every edge."""
    reader, rng = Reader(program), np.random.default_rng(seed)
    for number, edge in enumerate(program.graph.edges):
        c, h, w = program.graph.tensors[edge.source].shape
        for _ in range(25):
            at = int(rng.integers(c)), int(rng.integers(h)), int(rng.integers(w))
            assert reader.macs(number, *at) == defined(program, number, *at)


@pytest.mark.parametrize("preset", ["sim1", "sim8", "sim64", "sim64s32", "sim64x1"])
@pytest.mark.parametrize("seed", range(6))
def test_images_hold_exactly_the_entries_inside_the_image(preset, seed):
    graph = random_graph(seed, Limits(channels=12, size=6, layers=3))
    program = compile_graph(graph, PRESETS[preset], fit=True)
    check_images(program, seed)


@pytest.mark.parametrize("seed", [1, 15, 33, 45, 51])
def test_channels_are_dealt_out_evenly(seed, monkeypatch):
    """Every word is still where the definition wants it, and in some edge the fullest PE walks fewer."""
    graph = random_graph(seed, Limits(layers=2, channels=14, size=8, p_subset=0.1, weight_density=0.4))
    program = compile_graph(graph, PRESETS["sim8"], fit=True)
    moved = [e for e in graph.edges if program.places[e.target].order is not None]
    assert moved
    assert all(sorted(p.order) == list(range(p.shape[0])) for p in program.places.values() if p.order is not None)
    check_images(program, seed)
    monkeypatch.setattr(host.compiler.program, "balanced", lambda graph, config, places: {})
    plain = compile_graph(graph, PRESETS["sim8"], fit=True)
    assert any(a.words < b.words for a, b in zip(program.lowered, plain.lowered, strict=True))


def test_the_reader_sees_a_wrong_class():
    """The check itself: one axis entry moved to another class is found."""
    program = compile_graph(random_graph(1, Limits(edges=("conv",), p_window=0, p_subset=0)), PRESETS["sim8"], fit=True)
    reader = Reader(program)
    axis = reader.tables[Space.AXIS_Y][0]
    axis["origin"][0] += 1
    number = next(i for i, e in enumerate(program.lowered) if e.descriptor["axis_y"] == 0)
    c, _, w = program.graph.tensors[program.graph.edges[number].source].shape
    assert any(reader.macs(number, i, 0, x) != defined(program, number, i, 0, x)
               for i in range(c) for x in range(w))


@pytest.mark.parametrize("phases", [1, 2, 4])
def test_axis_offsets_depend_on_tap_and_phase_alone(phases):
    rng = np.random.default_rng(phases)
    for _ in range(200):
        source, target, kernel, stride, dilation, upsample = (int(rng.integers(1, n)) for n in (12, 12, 6, 4, 4, 4))
        pad = int(rng.integers(-3, 6))
        axis = Axis.solve(source, target, kernel, stride, dilation, upsample, pad, None, phases)
        for at in range(source):
            hits = [(k, (at * upsample + pad - k * dilation) // stride) for k in range(kernel)
                    if (at * upsample + pad - k * dilation) % stride == 0]
            hits = [(k, out) for k, out in hits if 0 <= out < target]
            assert axis.taps[at] == len(hits)
            sets = axis.classes[axis.column[at]]
            assert sorted(k for s in sets for k in s) == [k for k, _ in hits]
            for k, out in hits:
                assert k in sets[out % phases]
                assert axis.origin[at] + axis.offset[out % phases, k] == out // phases


def test_intervals_share_only_what_never_meets():
    rng = np.random.default_rng(0)
    intervals, pieces = Intervals(), []
    for _ in range(60):
        first = int(rng.integers(20))
        words, last = int(rng.integers(1, 9)), first + int(rng.integers(4))
        pieces.append((intervals.add(words, first, last), words, first, last))
    for i, (base, words, first, last) in enumerate(pieces):
        for b, n, f, t in pieces[:i]:
            assert base + words <= b or b + n <= base or last < f or t < first
    assert intervals.size < sum(p[1] for p in pieces)


def test_direct_projections_share_memory():
    graph = random_graph(3, Limits(layers=6, p_direct=0))
    kept = compile_graph(graph, PRESETS["sim8"], fit=True)
    direct = graph.with_parts(outputs=graph.outputs[:1],
                              projections={n: replace(p, mode="direct") for n, p in graph.projections.items()})
    shared = compile_graph(direct, PRESETS["sim8"], fit=True)
    assert shared.used["projection_words"] < kept.used["projection_words"]


def test_the_line_memory_holds_the_rows_that_it_has_room_for():
    """It grows for all that windows share; in a fixed one a map that is too wide shares its columns only."""
    limits = Limits(layers=3, channels=9, size=20, stride=1, nodes=("pool",), pools=OVERLAPPING)
    shared = 0
    for seed in range(12):
        graph = random_graph(seed, limits)
        program = compile_graph(graph, PRESETS["sim8"], fit=True)
        wanted = {i: s.fields["width"] * s.fields["groups"] for i, s in enumerate(program.steps)
                  if s.fields.get("shared_y")}
        assert program.used["line_words"] == max(wanted.values(), default=0) <= program.config.line_words
        for room in {0, *wanted.values()} - {program.used["line_words"]}:
            small = compile_graph(graph, program.config.with_(line_words=room))
            assert {i for i, s in enumerate(small.steps) if s.fields.get("shared_y")} == {
                i for i, words in wanted.items() if words <= room}
            assert [s.fields.get("shared_x") for s in small.steps] == [s.fields.get("shared_x") for s in program.steps]
        shared += len(wanted)
    assert shared >= 6


def test_what_does_not_fit_says_by_how_much_and_where():
    graph = random_graph(3)
    config = PRESETS["sim8"].with_(projection_words=2, weight_words=1)
    with pytest.raises(UserError, match=r"projection_words needs \d+, has 2 \(\d+ too few\); .*weight_words"):
        compile_graph(graph, config)


def test_a_width_of_accumulators_must_agree():
    graph = random_graph(3).with_parts(accumulator_bits=20)
    with pytest.raises(UserError, match="accumulators of 20 bits"):
        compile_graph(graph, PRESETS["sim8"])
    assert compile_graph(graph, PRESETS["sim8"], fit=True).config.accumulator_bits == 20


def test_weights_that_no_kind_holds_name_the_edge():
    graph = random_graph(5, Limits(edges=("conv",), nodes=(), layers=1, p_codebook=0))
    edge = graph.edges[0]
    wide = replace(edge, weight_code=edge.weight_code * 1000 + 1)
    with pytest.raises(UserError, match=f"edge {edge.source} -> {edge.target}"):
        compile_graph(graph.with_parts(edges=(wide, *graph.edges[1:])), PRESETS["sim8"].with_(kinds=("dense8",)),
                      fit=True)


def test_tables_may_be_full_to_the_last_word():
    """Steps that feed nothing (the outputs') come after the last edge and the last clear."""
    full = 0
    for seed in range(12):
        graph = random_graph(seed)
        program = compile_graph(graph, PRESETS["sim8"].with_(accumulator_bits=graph.accumulator_bits), fit=True)
        exact = program.config.with_(edge_words=program.used["edge_words"], clear_words=program.used["clear_words"])
        full += not program.used["edge_words"] & (program.used["edge_words"] - 1)
        compile_graph(graph, exact).step_image(0, "hold")
    assert full, "no graph fills a table of a power of two"


def test_a_network_without_layers_is_refused():
    graph = random_graph(0)
    empty = graph.with_parts(edges=(), projections={}, nodes=(), outputs=(),
                             tensors={graph.input: graph.tensors[graph.input]})
    with pytest.raises(UserError, match="no linear layer"):
        compile_graph(empty, PRESETS["sim8"].with_(accumulator_bits=graph.accumulator_bits), fit=True)
