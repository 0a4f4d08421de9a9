"""The results page: densities that must be reached, shapes as published, one small cell, what the page says of it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import density, results, results_page, shapes
from benchmarks.results import CLIPS, Case
from host.analysis import PARTS
from host.compiler import compile_graph
from host.onnx_import import import_onnx
from hw.config import PRESETS
from sim.golden import GoldenModel
from tests.networks import clip_path, model_path


@pytest.fixture(scope="module")
def program():
    return compile_graph(density.layer(), PRESETS["sim64"])


@pytest.mark.parametrize("pattern", density.PATTERNS)
@pytest.mark.parametrize("share,required", density.REQUIRED.items())
def test_speed_up_against_density(program, pattern, share, required):
    dense = GoldenModel(program.graph).frame(density.values("random", 1.0)).edges[1].macs_dense / 64
    speed_up = dense / density.predicted(program, density.values(pattern, share))
    assert required <= speed_up <= 1 / share


@pytest.mark.parametrize("pattern", density.PATTERNS)
def test_patterns_have_their_density(pattern):
    for share in density.DENSITIES:
        values = density.values(pattern, share)
        assert np.count_nonzero(values) == round(share * values.size)
    clustered = density.values("clustered", 0.2).any(axis=0)
    assert clustered[16, 16]
    assert not clustered[0].any()


def test_resnet18_has_its_published_shape(tmp_path):
    graph = import_onnx(shapes.build("ResNet-18", tmp_path)).graph
    assert sum(e.weight.size for e in graph.edges if e.kernel != (7, 7) or not e.vector) == 11_678_912
    assert [t.shape for t in graph.tensors.values()][:2] == [(3, 224, 224), (64, 56, 56)]
    assert {t.shape for t in graph.tensors.values()} >= {(128, 28, 28), (256, 14, 14), (512, 7, 7)}


def test_a_cell():
    model_path("mlperftiny_resnet8_cifar10"), clip_path("asl_again")
    rows = results.measure(Case("mlperftiny_resnet8_cifar10", "sim64", 3, 8), CLIPS["asl_again"], results.RULES)
    assert list(rows) == list(results.RULES)
    exact, hold = rows["exact"], rows["hold 2"]
    assert exact["error_mean"] == 0 < hold["error_mean"]
    assert exact["frames"] == 3
    assert exact["measured_over_eq10"] >= results_page.GOAL
    assert exact["cycles_scratch"] == hold["cycles_scratch"] > exact["cycles_rrm"] > hold["cycles_rrm"]
    assert 0 <= exact["agreement"] <= 1
    assert exact["sqnr"] > 15
    text = results_page.page({("ResNet-8", "asl_again"): rows}, {"ResNet-8": 3}, {"More": "text"})
    line = next(x for x in text.splitlines() if x.startswith("|  | hold 2 |"))
    assert f"| {hold['speedup_cycles']:.2f} |" in line
    assert f"| {exact['cycles_scratch']:,.0f} |" in text
    assert "## More\n\ntext\n" in text


def test_where_the_goal_is_reached_is_summed_up():
    def row(eq10: float, cycles: float) -> dict[str, float]:
        parts = {f"cycles_{way}_{part}": 0.0 for way in ("rrm", "scratch") for part in PARTS}
        return parts | {"speedup_eq10": eq10, "speedup_cycles": 1000 / cycles, "cycles_rrm": cycles,
                        "cycles_rrm_sweep": cycles - 1000 / eq10, "cycles_rrm_work": 1000 / eq10,
                        "cycles_scratch_work": 1000.0}

    cells = {("A", "moves"): {"exact": row(1.5, 700.0), "hold 2": row(4, 265.0)},
             ("A", "still"): {"exact": row(3, 400.0), "hold 2": row(20, 200.0)},
             ("B", "moves"): {"exact": row(2, 1000.0), "hold 2": row(2, 500.0)}}
    assert results_page._reached(cells)[2:] == [
        "| A | exact | 1 of 2 | 1.50 | 3.00 | 0.833 | still | sweep 17% | 200 (5.0) |",
        "| A | hold 2 | 1 of 2 | 4.00 | 20.00 | 0.250 | still | sweep 75% | 200 (5.0) |",
        "| B | exact | 0 of 1 |  | 2.00 | 0.500 | moves | sweep 50% | 500 (2.0) |",
        "| B | hold 2 | 1 of 1 | 2.00 |  | 1.000 | moves |  | 500 (2.0) |"]


def test_causes_are_named_by_what_exceeds_the_bound():
    row = {"speedup_eq10": 4.0, "cycles_rrm": 1000.0} | {
        f"cycles_{way}_{part}": 0.0 for way in ("rrm", "scratch") for part in PARTS}
    row |= {"cycles_scratch_work": 2000.0, "cycles_rrm_work": 500.0, "cycles_rrm_sweep": 450.0,
            "cycles_scratch_barrier": 200.0, "cycles_rrm_barrier": 50.0, "cycles_rrm_broadcast": 60.0}
    assert results_page.causes(row) == "sweep 45%"
    assert results_page.causes(row | {"cycles_rrm_broadcast": 300.0}) == "sweep 45%, broadcast 30%"
