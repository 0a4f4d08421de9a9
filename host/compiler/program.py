"""``compile_graph``: a quantised graph -> step program and memory images for one config."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from host.compiler.edges import Lowered, Weights, choose_kind
from host.compiler.order import balanced, phases, rearranged
from host.compiler.places import Place, place_all
from host.compiler.reach import Reach, Reaches, early_rows, late_row, reaches_of, skippable
from host.compiler.weights import Table
from host.errors import UserError
from hw.config import MOST_WORDS, AcceleratorConfig
from hw.layouts import FieldError, Kind, Layouts, Space, StepKind, chunks, pack
from sim.arithmetic import Mode, lossy
from sim.graph import Edge, Graph, Node, Tensor
from sim.graph import Pool as MaxPool


@dataclass(frozen=True)
class Step:
    """One step of the program.

    kind, tensor
        where its deltas come from and whose they are (None for the first step, which only clears).
    direct
        values are sent, not deltas.
    edges
        indices into ``graph.edges``, in the order of their descriptors.
    fields
        the descriptor without threshold and mode.
    reaches
        what its deltas reach, in the order of the table.
    reads
        tensors whose snapshots its node reads.
    """

    kind: StepKind
    tensor: str | None
    direct: bool
    edges: tuple[int, ...]
    fields: dict
    reaches: tuple[Reach, ...]
    reads: tuple[str, ...]

    def skips(self, lossy: Collection[str]) -> bool:
        """It may leave out what nothing has reached; not where it reads a tensor that changes without a delta, and so
        without a mark (``sim.arithmetic.lossy``)."""
        return bool(self.fields.get("skip")) and not any(name in lossy for name in self.reads)


@dataclass(frozen=True)
class Program:
    """A compiled graph.

    graph, config
        what was compiled, for what.
    steps
        step 0 clears; then every tensor in topological order (twice when it has delta and direct consumers).
    places
        where each projection and each snapshot lies (the input only has one when a node reads it).
    lowered
        the edges in the order of ``graph.edges``, their channels and rows where ``places`` put them.
    images
        words of every memory but the steps': per PE for the spaces that exist per PE.
    used
        words used (in the fullest PE), or limits reached, by the config's field name.
    """

    graph: Graph
    config: AcceleratorConfig
    steps: tuple[Step, ...]
    places: Mapping[str, Place]
    lowered: tuple[Lowered, ...]
    images: Mapping[Space, list[np.ndarray]]
    used: Mapping[str, int]

    @cached_property
    def layouts(self) -> Layouts:
        return Layouts(self.config)

    def step_image(self, threshold: int | Mapping[str, int] = 0,
                   mode: Mode | Mapping[str, Mode] = "hold") -> np.ndarray:
        """uint32[steps, chunks]: the step table with the thresholds and modes of the tensors (input excepted,
        whose rule the host applies)."""
        words = []
        thresholds, modes = ({n: v.get(n, default) if isinstance(v, Mapping) else v for n in self.graph.tensors}
                             for v, default in ((threshold, 0), (mode, "hold")))
        moved = lossy(thresholds, modes)
        for step in self.steps:
            own = {}
            if step.kind == StepKind.SWEEP:
                own = {"threshold": thresholds[step.tensor], "truncate": int(modes[step.tensor] == "truncate"),
                       "skip": int(step.skips(moved))}
            words.append(_packed(self.layouts.step, step.fields | own, 1, f"step of {step.tensor}"))
        return np.concatenate(words)

    def step_of(self, tensor: str) -> int:
        """Number of the step whose counters hold a tensor's deltas."""
        return next(i for i, s in enumerate(self.steps) if s.tensor == tensor)


def compile_graph(graph: Graph, config: AcceleratorConfig, *, fit: bool = False) -> Program:
    """Compile for a config. ``fit``: memories grow to the next power of two where the network needs more, and the
    weights of pruned layers may be copied to have more equal work for the PEs.

    Raises UserError when something does not fit or cannot be expressed, naming layer and memory.
    """
    if not graph.quantised:
        raise UserError(f"network {graph.name}: it is not quantised yet")
    if not graph.edges:
        raise UserError(f"network {graph.name} has no linear layer (convolution, fully connected) to run")
    _check_width(graph, config, fit)
    if fit:
        config = _grown(config, accumulator_bits=graph.accumulator_bits,
                        max_size=max(max(graph.shape_of(n)[1:]) for n in (*graph.tensors, *graph.projections)),
                        max_channels=max(graph.shape_of(n)[0] for n in (*graph.tensors, *graph.projections)))
    places, p_words, snapshot_words = place_all(graph, config, *_feeds(graph), phases(graph, config) if fit else {})
    orders = balanced(graph, config, places)
    places |= {name: replace(places[name], order=tuple(map(int, order))) for name, order in orders.items()}
    original, graph = graph, rearranged(graph, orders)
    order = _step_order(graph)
    fed, _ = _feeds(graph)
    weights = Weights(config)
    lowered = _lower(graph, config, places, weights)
    nodes: list[dict] = []
    clears: list[tuple[int, int, int]] = []
    edges: list[dict] = []
    steps = []
    skipping, reaching, reaches = skippable(graph, order), reaches_of(graph, order), Reaches()
    marks = {number: reaches.place(number, order[number][1]) for number in skipping}
    for number, (kind, tensor, node, direct, ids) in enumerate(order):
        entry = {"kind": int(kind), "direct": int(direct), "edge": len(edges) if ids else 0,
                 "edges": len(ids)}
        edges += [lowered[i].descriptor for i in ids]
        first_clear = len(clears)
        clears += [(places[p].base, places[p].words, int(graph.projections[p].mode == "direct"))
                   for p in graph.projections if fed[p] == number + 1]
        entry["clears"] = len(clears) - first_clear
        entry["clear"] = first_clear if entry["clears"] else 0
        if kind == StepKind.SWEEP:
            entry |= _node_fields(graph, node, tensor, places, len(nodes), MOST_WORDS if fit else config.line_words)
            entry |= {"skip": int(number in marks), "marks": marks.get(number, 0),
                      "early": early_rows(number, order, reaching) if number in marks else 0}
            nodes += _node_rows(node, tensor.shape[0], config.sweep, places)
        if tensor is not None:
            entry["late"] = late_row(tensor)
        if reaching[number]:
            entry |= {"reach": reaches.add(reaching[number]),
                      "reaches": len(reaching[number])}
        steps.append(Step(kind, tensor and tensor.name, direct, tuple(ids), entry, tuple(reaching[number]),
                          tuple(op.source for op in (node.operands if node else ()) if op.source in graph.tensors)))
    used = {"projection_words": p_words, "snapshot_words": snapshot_words, "node_words": len(nodes),
            "clear_words": len(clears), "edge_words": len(edges), "step_words": len(steps),
            "weight_words": max(weights.weight_words), "column_words": weights.columns,
            "tap_words": max(t.size for t in weights.taps), "codebook_words": weights.codebook.size,
            "axis_words": max(weights.axis_y.size, weights.axis_x.size), "channel_words": weights.channels.size,
            "mark_words": reaches.marks, "reach_words": reaches.table.size, "span_words": reaches.spans.size,
            "line_words": max((s.fields["width"] * s.fields["groups"] for s in steps if s.fields.get("shared_y")),
                              default=0),
            "max_blocks": max(x.descriptor["walk"]["last_block"] + 1 for x in lowered)}
    if fit:
        config = _grown(config, **used)
    short = [f"{name} needs {n}, has {getattr(config, name)} ({n - getattr(config, name)} too few)"
             for name, n in used.items() if n > getattr(config, name)]
    if short:
        raise UserError(f"network {graph.name} does not fit this accelerator: {'; '.join(short)}")
    images = _images(graph, config, weights, nodes, clears, edges, reaches)
    return Program(original, config, tuple(steps), places, lowered, images, used)


def _check_width(graph: Graph, config: AcceleratorConfig, fit: bool) -> None:
    if not fit and graph.accumulator_bits != config.accumulator_bits:
        raise UserError(f"network {graph.name}: quantised for accumulators of {graph.accumulator_bits} bits, but this "
                        f"accelerator has {config.accumulator_bits}")


def _grown(config: AcceleratorConfig, **needs: int) -> AcceleratorConfig:
    """The config with what is too small made as large as needed (depths: the next power of two)."""
    changes = {}
    for f in fields(config):
        need = needs.get(f.name)
        if f.name == "accumulator_bits" and need is not None:
            changes[f.name] = need
        elif need is not None and need > getattr(config, f.name):
            changes[f.name] = 1 << (int(need) - 1).bit_length()
    return config.with_(**changes)


def _step_order(graph: Graph) -> list[tuple[StepKind, Tensor | None, Node | None, bool, list[int]]]:
    """(kind, tensor, node, direct, edge numbers) of every step."""
    number = {id(e): i for i, e in enumerate(graph.edges)}
    order = [(StepKind.NONE, None, None, False, [])]
    for tensor, node in graph.steps():
        kind = StepKind.FRAME if node is None else StepKind.SWEEP
        groups: dict[bool, list[int]] = {False: [], True: []}
        for edge in graph.edges_from(tensor.name):
            groups[graph.projections[edge.target].mode == "direct"].append(number[id(edge)])
        modes = [direct for direct, ids in groups.items() if ids] or [False]
        order += [(kind, tensor, node, direct, groups[direct]) for direct in modes]
    return order


def _feeds(graph: Graph) -> tuple[dict[str, int], dict[str, int]]:
    """Step that first feeds each projection, and last step that sweeps it."""
    fed, swept = {}, {}
    for number, (_, _, node, _, ids) in enumerate(_step_order(graph)):
        for i in ids:
            fed.setdefault(graph.edges[i].target, number)
        for op in node.operands if node is not None else ():
            if op.source in graph.projections:
                swept[op.source] = number
    return fed, swept


def _lower(graph: Graph, config: AcceleratorConfig, places: Mapping[str, Place],
           weights: Weights) -> tuple[Lowered, ...]:
    """Dense edges first: their weights begin at the same address in every PE."""
    def sparse(edge: Edge) -> bool:
        table = Table.scalar(edge, config.rows >> places[edge.target].phase_bits, config.lanes)
        return choose_kind(edge, table, config) != Kind.DENSE8

    order = sorted(range(len(graph.edges)), key=lambda i: sparse(graph.edges[i]))
    lowered: dict[int, Lowered] = {}
    for i in order:
        edge = graph.edges[i]
        lowered[i] = weights.add(edge, graph.tensors[edge.source].shape, places[edge.target])
    return tuple(lowered[i] for i in range(len(graph.edges)))


def _node_fields(graph: Graph, node: Node, tensor: Tensor, places: Mapping[str, Place], first: int,
                 line_words: int) -> dict:
    _, h, w = tensor.shape
    operands = []
    for op in _operands(node, places):
        shape, branch = graph.shape_of(op.source), op.branch
        operands.append({"place": places[op.source].fields(), "height": shape[1], "width": shape[2],
                         "branch": int(branch is not None), "lo": branch.lo if branch else 0,
                         "hi": branch.hi if branch else 0})
    operands += [{}] * (2 - len(operands))
    pool = node.pool
    window = [{"kernel": pool.kernel[a], "stride": pool.stride[a], "dilation": pool.dilation[a], "pad": pool.pad[a]}
              if pool else {"kernel": 1, "stride": 1, "dilation": 1} for a in (0, 1)]
    shared_y, shared_x = (_shared(pool, axis) for axis in (0, 1))
    # What the window above has shared comes a read late.
    shared_y *= window[0]["stride"] * window[1]["stride"] > 1 and w * places[tensor.name].blocks <= line_words
    return {"height": h, "width": w, "groups": places[tensor.name].blocks, "operands": operands,
            "two": int(len(node.operands) == 2), "window_y": window[0], "window_x": window[1], "shared_y": shared_y,
            "shared_x": shared_x, "node": first, "sign": int(node.sign), "lo": node.lo, "hi": node.hi, "keep": 1,
            "snapshot": places[tensor.name].base}


def _shared(pool: MaxPool | None, axis: int) -> int:
    """Rows or columns that a window and the next one have in common. Of the last ones only the maximum is kept, so
    none of them may be one that the window does not read itself."""
    if pool is None or pool.dilation[axis] > 1:
        return 0
    shared = pool.kernel[axis] - pool.stride[axis]
    return shared if 0 < shared <= pool.stride[axis] else 0


def _operands(node: Node, places: Mapping[str, Place]) -> list:
    """The operands, projections first: then the snapshot memory is free for the reference in the first slot."""
    return sorted(node.operands, key=lambda op: not places[op.source].projection)


def _node_rows(node: Node, channels: int, sweep: int, places: Mapping[str, Place]) -> list[dict]:
    """The node table: per channel group, per operand, int64[S] by field."""
    operands = _operands(node, places)
    groups = -(-channels // sweep)
    zero = np.zeros(channels, np.int64)
    gone = np.all([op.negative_multiplier == 0 for op in operands], axis=0)
    kept = np.all([op.negative_multiplier == op.multiplier for op in operands], axis=0)
    if len(operands) == 2 and not node.sign and not (gone | kept).all():
        raise UserError(f"node {node.target}: a sum of two operands with a slope other than 0 and 1 cannot run")
    tables = []
    for op in operands:
        branch = op.branch is not None
        table = {"bias": op.bias_code, "multiplier": op.multiplier,
                 "negative": op.multiplier if node.sign else op.negative_multiplier,
                 "branch": op.branch_multiplier if branch else zero, "shift": zero if node.sign else node.shift,
                 "branch_shift": op.branch_shift if branch else zero,
                 "rectify": zero if node.sign else (gone & ~kept).astype(np.int64)}
        padded = {k: np.zeros(groups * sweep, np.int64) for k in table}
        for k, value in table.items():
            padded[k][:channels] = value
        tables.append(padded)
    return [{k: v[g * sweep:(g + 1) * sweep] for k, v in table.items()} for g in range(groups) for table in tables]


def _images(graph: Graph, config: AcceleratorConfig, weights: Weights, nodes: list[dict], clears: list,
            edges: list[dict], reaches: Reaches) -> dict[Space, list[np.ndarray]]:
    """Every memory but the step table, packed; one image per PE, or one."""
    lay, name = Layouts(config), f"network {graph.name}"
    wrap = {"offset": lay.projection_address, "origin": lay.projection_address}

    def table(layout, columns: dict[str, np.ndarray], count: int) -> np.ndarray:
        wrapped = {k: v % (1 << wrap[k]) if k in wrap else v for k, v in columns.items()}
        return _packed(layout, wrapped, count, name)

    images: dict[Space, list[np.ndarray]] = {space: [] for space in (Space.WEIGHTS, Space.COLUMNS, Space.TAPS,
                                                                    Space.CODEBOOK)}
    codebook = weights.codebook.columns()["value"]
    for pe in range(config.pes):
        words = np.zeros((weights.weight_words[pe], chunks(lay.weight_word)), np.uint32)
        for base, kind, values in weights.weight_parts[pe]:
            count = len(next(iter(values.values())))
            part = _packed(getattr(lay, kind.name.lower()), values, count, name)
            words[base:base + count, :part.shape[1]] = part
        images[Space.WEIGHTS].append(words)
        columns = {k: np.zeros(weights.columns, np.int64) for k in ("count", "row", "first")}
        for base, values in weights.column_parts[pe]:
            for k, v in values.items():
                columns[k][base:base + len(v)] = np.where(values["count"] > 0, v, 0)
        images[Space.COLUMNS].append(table(lay.column, columns, weights.columns))
        images[Space.TAPS].append(table(lay.tap, weights.taps[pe].columns(), weights.taps[pe].size))
        images[Space.CODEBOOK].append(_packed(lay.codebook, codebook, len(codebook), name))
    for space, layout, pool in ((Space.AXIS_Y, lay.axis, weights.axis_y), (Space.AXIS_X, lay.axis, weights.axis_x),
                                (Space.CHANNELS, lay.channels, weights.channels),
                                (Space.REACHES, lay.reach, reaches.table), (Space.SPANS, lay.span, reaches.spans)):
        images[space] = [table(layout, pool.columns(), pool.size)]
    rows = {k: np.stack([n[k] for n in nodes]) for k in nodes[0]} if nodes else {}
    images[Space.NODES] = [_packed(lay.node, rows, len(nodes), name)]
    images[Space.EDGES] = [np.concatenate([_packed(lay.edge, e, 1, name) for e in edges])]
    images[Space.CLEARS] = [np.concatenate([_packed(lay.clear, dict(zip(("base", "count", "always"), c, strict=True)),
                                                   1, name) for c in clears])]
    return images


def _packed(layout, values, count: int, where: str) -> np.ndarray:
    try:
        return pack(layout, values, count)
    except FieldError as e:
        raise UserError(f"{where}: {e}; compile for an accelerator with larger memories or limits") from None
