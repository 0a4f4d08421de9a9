"""The golden model against Python integers, and its recurrent path against its dense one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.float_model import FloatModel
from sim.golden import EdgeStats, GoldenModel
from sim.graph import Code, Edge, Geometry, Graph, GraphError, Projection, Tensor
from tests.plain_reference import PlainModel, node_element, pooled, scatter
from tests.random_graphs import EDGES, NODES, Limits, random_clip, random_graph

LIMITS = Limits(channels=8, size=10)
seeds = st.integers(0, 2**32)


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Exactly equal maps of values, or the first name that differs."""
    assert found.keys() == expected.keys()
    for name in found:
        assert np.array_equal(found[name], expected[name]), name


def random_rule(graph: Graph, seed: int) -> tuple[dict[str, int], dict[str, str]]:
    """Thresholds and modes of every tensor, at random."""
    rng = np.random.default_rng((seed, 2))
    return ({n: int(rng.choice([0, 1, 2, 4, 9, 60])) for n in graph.tensors},
            {n: str(rng.choice(["hold", "truncate"])) for n in graph.tensors})


@settings(max_examples=300, deadline=None)
@given(seeds, st.sampled_from([27, 9, 14]))
def test_frame_is_the_definition_element_by_element(seed, bits):
    """Tensors, projections, counts and squares dropped; any threshold and mode, refreshes, wrapping."""
    graph = random_graph(seed, LIMITS).with_parts(accumulator_bits=bits)
    thresholds, modes = random_rule(graph, seed)
    model, plain = GoldenModel(graph, thresholds, modes), PlainModel(graph, thresholds, modes)
    for i, codes in enumerate(random_clip(graph, seed, 4)):
        before = {n: ref.copy() for n, ref in plain.snapshots.items()}
        result = model.frame(codes, refresh=i == 3)
        plain.frame(codes, refresh=i == 3)
        same(model.snapshots, plain.snapshots)
        same(model.projections, plain.projections)
        assert result.refresh == (i in (0, 3))
        assert [(e.macs, e.macs_nonzero_weights) for e in result.edges] == plain.fed
        for name, stats in result.tensors.items():
            assert stats.elements == graph.tensors[name].shape[0] * graph.tensors[name].shape[1] * (
                graph.tensors[name].shape[2])
            assert stats.nonzero == np.count_nonzero(plain.snapshots[name])
            assert stats.deltas == np.count_nonzero(plain.deltas[name])
            start = 0 if result.refresh else before[name]
            left = (plain.results[name] - start - plain.deltas[name]) * (modes[name] == "truncate")
            assert stats.dropped == (left * left).sum()


@settings(max_examples=300, deadline=None)
@given(seeds, st.sampled_from([27, 9, 14]), st.sampled_from([0, 1]), st.sampled_from(["hold", "truncate"]))
def test_exact_frames_equal_dense_frames(seed, bits, threshold, mode):
    """The recurrent path loses nothing, whatever changes from frame to frame (paper, section 3.2)."""
    graph = random_graph(seed, LIMITS).with_parts(accumulator_bits=bits)
    model = GoldenModel(graph, threshold, mode)
    for codes in random_clip(graph, seed, 6):
        result, dense = model.frame(codes), model.dense(codes)
        same(model.snapshots, dense.snapshots)
        same(model.projections, dense.projections)
        same(result.outputs, model.outputs(dense))
        assert result.total("dropped") == 0


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_exact_results_do_not_depend_on_projection_modes(seed):
    graph = random_graph(seed, LIMITS)
    models = [GoldenModel(graph.with_parts(
        projections={n: replace(p, mode=mode) for n, p in graph.projections.items()}))
        for mode in ("delta", "direct")]
    for codes in random_clip(graph, seed, 4):
        results = [m.frame(codes) for m in models]
        same(models[0].snapshots, models[1].snapshots)
        same(models[0].projections, models[1].projections)
        assert results[0].total("macs_activations") == results[1].total("macs")


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(2, 40))
def test_hold_keeps_every_value_within_the_threshold(seed, threshold):
    """|value - result of the node on the same operands| < T, for ever and without refresh."""
    graph = random_graph(seed, LIMITS)
    model = GoldenModel(graph, threshold, "hold")
    for i, codes in enumerate(random_clip(graph, seed, 6)):
        model.frame(codes)
        values = model.snapshots | model.projections
        for tensor, node in graph.steps():
            x = codes
            if node is not None:
                sources = [values[op.source] for op in node.operands]
                x = np.zeros(sources[0].shape, object)
                for at in np.ndindex(x.shape):
                    x[at] = node_element(node, [int(a[at]) for a in sources], at[0])
                x = x if node.pool is None else pooled(x, node.pool, tensor.shape)
            assert np.abs(model.snapshots[tensor.name] - x).max() < (threshold if i else 1)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_refresh_forgets_everything(seed):
    graph = random_graph(seed, LIMITS)
    thresholds, modes = random_rule(graph, seed)
    model = GoldenModel(graph, thresholds, modes)
    for codes in random_clip(graph, seed, 4):
        model.frame(codes)
    assert model.frame(codes, refresh=True).refresh
    dense = model.dense(codes)
    same(model.snapshots, dense.snapshots)
    same(model.projections, dense.projections)
    model.frame(np.zeros_like(codes))
    model.reset()
    assert model.frame(codes).refresh
    same(model.projections, dense.projections)


def test_dense_leaves_the_state_alone():
    graph = random_graph(3)
    model = GoldenModel(graph)
    first, second = random_clip(graph, 5, 2)
    model.frame(first)
    before = {n: v.copy() for n, v in (model.snapshots | model.projections).items()}
    model.dense(second)
    same(model.snapshots | model.projections, before)


def test_truncate_drifts_and_hold_does_not():
    """A slow ramp stays below the threshold each frame: truncate never sends it, hold does in steps."""
    graph = one_edge(np.ones((1, 1, 1, 1), np.int32), (1, 1, 1), (1, 1, 1))
    ends = {}
    for mode in ("hold", "truncate"):
        model = GoldenModel(graph, 4, mode)
        for value in range(0, 101):
            model.frame(np.full((1, 1, 1), value))
        ends[mode] = int(model.projections["p"].item())
    assert ends == {"hold": 100, "truncate": 0}


def one_edge(weight: np.ndarray, source, target, geometry=None, bits=27, code=None) -> Graph:
    """A graph of one tensor "t", one dense edge and one projection "p"."""
    base = random_graph(0)
    edge = Edge.conv("t", "p", weight, geometry or Geometry())
    return replace(base, input="t", tensors={"t": Tensor("t", source, code or Code(1.0, -128, 127))},
                   projections={"p": Projection("p", target, np.ones(target[0]))},
                   edges=(replace(edge, weight_code=edge.weight),), nodes=(), outputs=(),
                   accumulator_bits=bits).with_parts()


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_mac_counts_are_brute_force_counts(seed):
    """Of deltas, of non-zero activations and of everything, with and without zero weights."""
    graph = random_graph(seed, replace(LIMITS, weight_density=0.5))
    model = GoldenModel(graph)
    frames = list(random_clip(graph, seed, 2))
    model.frame(frames[0])
    before = {n: v.astype(int) for n, v in model.snapshots.items()}
    result = model.frame(frames[1])
    for edge, stats in zip(graph.edges, result.edges, strict=True):
        now = model.snapshots[edge.source].astype(int)
        target = graph.projections[edge.target]
        fed = now - before[edge.source] if target.mode == "delta" else now
        counts = [scatter(edge, v, edge.weight_code, np.zeros(target.shape, object))
                  for v in (fed, now, np.ones_like(now))]
        assert stats == EdgeStats(edge.source, edge.target, np.count_nonzero(fed[edge.channels]),
                                  *counts[0], *counts[1], *counts[2])


def test_mac_counts_by_hand():
    """A 3x3 convolution with padding 1 on 4x4: 16 * 9 taps less those outside the image."""
    weight = np.ones((2, 1, 3, 3), np.int32)
    weight[1, 0] = 0
    model = GoldenModel(one_edge(weight, (1, 4, 4), (2, 4, 4), Geometry(pad=(1, 1))))
    codes = np.zeros((1, 4, 4), int)
    codes[0, 0, 0] = 7
    edge = model.frame(codes).edges[0]
    assert (edge.macs, edge.macs_nonzero_weights, edge.macs_dense) == (2 * 4, 4, 2 * 100)
    codes[0, 1, 1] = 1
    edge = model.frame(codes).edges[0]
    assert (edge.fed, edge.macs, edge.macs_activations) == (1, 2 * 9, 2 * 13)


@pytest.mark.parametrize("columns, dtype", [(2, np.float32), (600, np.float64)])
def test_largest_sums_are_exact(columns, dtype):
    """Extreme weights and codes, on either side of the bound where float32 stops being exact."""
    weight = np.full((1, columns, 3, 3), -127, np.int32)
    weight[0, 0, 0, 0] = -126
    graph = one_edge(weight, (columns, 3, 3), (1, 1, 1), bits=32)
    model = GoldenModel(graph)
    assert model._edges[id(graph.edges[0])]._scatter.dtype == dtype
    for code in (127, -128, 127):
        model.frame(np.full((columns, 3, 3), code))
        assert model.projections["p"].item() == code * int(weight.sum())


def test_weights_beyond_floating_point_fall_back_to_integers():
    weight = np.full((1, 3, 1, 1), (1 << 52) - 1, np.int64)
    weight[0, 0] = 1
    model = GoldenModel(one_edge(weight, (3, 1, 1), (1, 1, 1), bits=64))
    model.frame(np.array([[[1]], [[3]], [[5]]]))
    assert model.projections["p"].item() == 1 + 8 * ((1 << 52) - 1)


def test_float_model_agrees_on_what_is_not_rounded():
    """Real projections of the input equal accumulators times scale; outputs read the same elements."""
    for seed in range(30):
        graph = random_graph(seed, replace(LIMITS, layers=1))
        golden, real = GoldenModel(graph), FloatModel(graph, np.float64)
        codes = next(random_clip(graph, seed, 1))
        golden.frame(codes)
        values = real.run(graph.tensors["t0"].code.decode(codes))
        for name, projection in graph.projections.items():
            expected = golden.projections[name] * projection.scale[:, None, None]
            np.testing.assert_allclose(values[name], expected, rtol=1e-9, atol=1e-9)


def test_float_model_stays_near_the_codes():
    """Real and integer nodes are the same function up to rounding (fine multipliers, no saturation)."""
    limits = replace(LIMITS, nodes=("relu", "leaky", "prelu", "clip", "pool", "add"), layers=1)
    close = total = 0
    for seed in range(100):
        graph = random_graph(seed, limits)
        if min(int(np.abs(op.multiplier).min()) for n in graph.nodes for op in n.operands) < 4096:
            continue
        golden, real = GoldenModel(graph), FloatModel(graph, np.float64)
        codes = next(random_clip(graph, seed, 1))
        golden.frame(codes)
        code = graph.tensors["t1"].code
        values = real.run(graph.tensors["t0"].code.decode(codes))["t1"] / code.scale
        found = golden.snapshots["t1"]
        assert np.abs(found - np.clip(values, code.lo, code.hi)).max() <= 1
        close, total = close + 1, total + found.size
    assert close >= 5


def test_outputs_gather_biased_elements():
    graph = random_graph(11)
    model = GoldenModel(graph)
    result = model.frame(next(random_clip(graph, 11, 1)))
    for output in graph.outputs:
        flat = []
        for read in output.reads:
            tensor = graph.tensors.get(read.source)
            source = model.snapshots[read.source] if tensor else model.projections[read.source]
            for c, y, x in np.ndindex(source.shape):
                scale = tensor.code.scale if tensor else graph.projections[read.source].scale[c]
                flat.append(int(source[c, y, x]) * scale + read.bias[c])
        expected = np.array(flat)[output.index.ravel()].reshape(output.shape)
        assert np.array_equal(result.outputs[output.name], expected)


def test_what_is_not_quantised_or_not_a_tensor_is_an_error():
    graph = random_graph(1)
    with pytest.raises(GraphError, match="not quantised"):
        GoldenModel(replace(graph, nodes=(replace(graph.nodes[0], shift=None), *graph.nodes[1:])))
    with pytest.raises(GraphError, match="threshold for 'nowhere'"):
        GoldenModel(graph, {"nowhere": 2})
    too_far = replace(graph.nodes[0], shift=np.full_like(graph.nodes[0].shift, 62))
    with pytest.raises(GraphError, match="shift"):
        GoldenModel(replace(graph, nodes=(too_far, *graph.nodes[1:])))
    too_low = replace(graph.nodes[0], sign=False, lo=-300)
    with pytest.raises(GraphError, match="leave the codes"):
        GoldenModel(replace(graph, nodes=(too_low, *graph.nodes[1:])))
    model = GoldenModel(graph, mode="holt")
    with pytest.raises(ValueError, match="mode is 'holt'"):
        model.frame(np.zeros(graph.tensors["t0"].shape, int))
    model = GoldenModel(graph)
    with pytest.raises(ValueError, match="takes integer codes"):
        model.frame(np.zeros((1, 1, 99), int))
    with pytest.raises(ValueError, match="leave the range"):
        model.frame(np.full(graph.tensors["t0"].shape, 300))


def test_a_change_beyond_nine_bits_is_an_error():
    graph = one_edge(np.ones((1, 1, 1, 1), np.int32), (1, 1, 1), (1, 1, 1), code=Code(1.0, -200, 200))
    model = GoldenModel(graph)
    model.frame(np.full((1, 1, 1), -128))
    model.frame(np.full((1, 1, 1), 127))
    with pytest.raises(ValueError, match="256 values"):
        model.frame(np.full((1, 1, 1), -130))
    assert model.snapshots["t"].item() == 127


def test_random_graphs_cover_what_they_promise_and_repeat():
    """Every edge kind, node feature and shape of graph turns up, and the same seed gives the same graph."""
    seen: set[str] = set()
    for seed in range(300):
        graph, again = random_graph(seed), random_graph(seed)
        assert [e.weight_code.tolist() for e in graph.edges] == [e.weight_code.tolist() for e in again.edges]
        for e in graph.edges:
            g = e.geometry
            seen |= {f"stride {s}" for s in g.stride} | {f"upsample {u}" for u in g.upsample}
            seen |= {"negative pad"} if min(g.pad) < 0 else set()
            seen |= {"window"} if g.window else set()
            seen |= {"dilation"} if max(g.dilation) > 1 else set()
            seen |= {"vector"} if e.vector else {"dense"} if e.dense else {"other rows"}
            seen |= {f"codebook {e.codebook_bits}"}
        for n in graph.nodes:
            seen |= {f"{len(n.operands)} operands"} | ({"pool"} if n.pool else set())
            seen |= {"sign"} if n.sign else set()
            seen |= {"branch"} if any(op.branch for op in n.operands) else set()
            seen |= {"slope"} if not np.isin(n.slope, (0, 1)).all() else set()
        seen |= {f"{len(graph.edges_into(p))} edges into" for p in graph.projections}
        seen |= {"several edges from" for t in graph.tensors if len(graph.edges_from(t)) > 1}
        seen |= {p.mode for p in graph.projections.values()}
        read = [op.source for n in graph.nodes for op in n.operands]
        seen |= {"read twice"} if len(read) > len(set(read)) else set()
        seen |= {"wide input"} if graph.tensors["t0"].code.hi - graph.tensors["t0"].code.lo > 255 else set()
    promised = {"stride 1", "stride 2", "stride 3", "upsample 2", "upsample 3", "negative pad", "window",
                "dilation", "vector", "dense", "other rows", "codebook None", "codebook 4", "codebook 8",
                "1 operands", "2 operands", "pool", "sign", "branch", "slope", "1 edges into", "2 edges into",
                "3 edges into", "several edges from", "delta", "direct", "read twice", "wide input"}
    assert promised <= seen, promised - seen


@pytest.mark.parametrize("kind", EDGES)
def test_every_edge_kind_alone(kind):
    check_alone(Limits(channels=6, size=6, layers=2, edges=(kind,), nodes=("relu",)))


@pytest.mark.parametrize("feature", NODES)
def test_every_node_feature_alone(feature):
    check_alone(Limits(channels=3, size=5, layers=3, edges=("conv",), nodes=(feature,)))


def check_alone(limits: Limits) -> None:
    """A few graphs of one kind against the plain model, so that a failure names the kind."""
    for seed in range(10):
        graph = random_graph(seed, limits)
        thresholds, modes = random_rule(graph, seed)
        model, plain = GoldenModel(graph, thresholds, modes), PlainModel(graph, thresholds, modes)
        for codes in random_clip(graph, seed, 3):
            model.frame(codes)
            plain.frame(codes)
            same(model.snapshots, plain.snapshots)
            same(model.projections, plain.projections)
