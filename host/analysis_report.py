"""An ``Analysis`` for people (tables, charts) and for programs (plain values)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from host import charts
from host.aecs import relative_error
from host.analysis import PARTS, Analysis, Rule
from host.rrm_file import Model
from sim.arithmetic import Mode
from sim.golden import GoldenModel

THRESHOLDS = (1, 2, 4, 8, 16, 256)
"""Of the chart of thresholds; no two codes differ by 256, so that is infinity."""


def by_layer(found: Analysis) -> list[dict]:
    """Plain values per layer, means per frame."""
    rrm, scratch = found.rrm.of(found.frames), found.scratch.of(found.frames)
    n, rows = len(rrm.macs), []
    for i, layer in enumerate(found.layers):
        means = {f"{name}_{way}": float(getattr(w, field)[:, i].sum() / n)
                 for way, w in (("scratch", scratch), ("rrm", rrm))
                 for name, field in (("sent", "sent"), ("macs", "macs_all"), ("cycles", "cycles"))}
        parts = {name: float(rrm.parts[name][:, i].sum() / n) for name in PARTS}
        dense = layer.macs_dense_all
        rows.append(asdict(layer) | means | {
            "sparsity_activations": 1 - means["macs_scratch"] / dense if dense else None,
            "sparsity_deltas": 1 - means["macs_rrm"] / dense if dense else None,
            "speedup_eq10": means["macs_scratch"] / means["macs_rrm"] if means["macs_rrm"] else None,
            "speedup_cycles": means["cycles_scratch"] / means["cycles_rrm"] if means["cycles_rrm"] else None,
            "cycles_dense_peak": dense / rrm.rows,
            "balance": float(rrm.words[:, i].sum() / rrm.pes / max(1, rrm.walk[:, i].sum())),
            "efficiency": parts["work"] / means["cycles_rrm"] if means["cycles_rrm"] else None,
            "parts": parts})
    return rows


def as_dict(found: Analysis, run: dict, clock_hz: float, baud: float) -> dict:
    """Everything as plain values for JSON: ``run`` (how it was made), summary, layers, frames, events."""
    frames = [{"frame": i, "refresh": bool(found.refreshes[i]), "error": float(found.errors[i])}
              | {f"{name}_{way}": int(getattr(w, name)[i].sum())
                 for way, w in (("scratch", found.scratch), ("rrm", found.rrm))
                 for name in ("macs", "macs_all", "cycles", "link")} for i in range(len(found.errors))]
    summary = {k: v if np.isfinite(v) else None for k, v in found.summary(clock_hz, baud).items()}
    return {"network": found.network, "config": found.config, "cycles": found.source,
            **run, "clock_hz": clock_hz, "baud": baud, "summary": summary,
            "error_bound": found.bound if found.bound is not None and np.isfinite(found.bound) else None,
            "layers": by_layer(found),
            "frames": frames, "events": [asdict(e) for e in found.events]}


def layer_table(found: Analysis) -> Table:
    """One row per layer (step)."""
    table = Table(title=f"Layers: means of {len(found.rrm.of(found.frames).macs)} frames; cycles {found.source}",
                  title_justify="left")
    for name in ("tensor", "feeds"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=24)
    for name in ("dense\nMACs", "non-zero\nactivations", "deltas\nsent", "MACs\n(eq. 6)", "speed-up\n(eq. 10)",
                 "dense\n(peak)", "frame by\nframe", "RRM\ncycles", "speed-up\n(cycles)", "balance", "effi-\nciency"):
        table.add_column(name, justify="right")
    table.add_column("lost to", no_wrap=True)
    for row in by_layer(found):
        cause = max(PARTS[1:], key=row["parts"].__getitem__)
        share = row["parts"][cause] / row["cycles_rrm"] if row["cycles_rrm"] else 0
        elements = max(row["elements"], 1)
        table.add_row(
            row["tensor"], ", ".join(f.removesuffix("#P") for f in row["feeds"]),
            f"{row['macs_dense_all']:,}", f"{row['sent_scratch'] / elements:.0%}", f"{row['sent_rrm'] / elements:.0%}",
            f"{row['macs_rrm']:,.0f}", _times(row["speedup_eq10"]), f"{row['cycles_dense_peak']:,.0f}",
            f"{row['cycles_scratch']:,.0f}", f"{row['cycles_rrm']:,.0f}", _times(row["speedup_cycles"]),
            f"{row['balance']:.2f}" if row["feeds"] else "", f"{row['efficiency'] or 0:.2f}" if row["feeds"] else "",
            f"{cause} {share:.0%}" if share > 0.1 else "")
    return table


def totals_table(found: Analysis, clock_hz: float, baud: float) -> Table:
    """The whole network: frame by frame beside RRM, then the speed-up from the narrowest view to the widest."""
    s = found.summary(clock_hz, baud)
    table = Table("", title="Whole network, per frame", title_justify="left")
    for name in ("frame by frame", "RRM", "speed-up"):
        table.add_column(name, justify="right")

    def both(label: str, name: str, form: str, speedup: str = "") -> None:
        table.add_row(label, format(s[name.format("scratch", "activations")], form),
                      format(s[name.format("rrm", "deltas")], form), _times(s[speedup]) if speedup else "")

    both("sparsity (eq. 9), Conv and FC", "sparsity_{1}", ".1%")
    both("sparsity, all edges", "sparsity_{1}_all", ".1%")
    both("MACs (eq. 6), Conv and FC", "macs_{0}", ",.0f", "speedup_eq10")
    table.add_row("MACs, all edges", "", "", _times(s["speedup_all_edges"]))
    both(f"+ sweep, broadcasts, barriers: cycles {found.source}", "cycles_{0}", ",.0f", "speedup_cycles")
    both(f"+ link: bytes, at {baud / 1e6:g} Mbaud and {clock_hz / 1e6:g} MHz", "bytes_{0}", ",.0f", "speedup_link")
    table.add_row(f"+ host: {1e3 * s['host_seconds']:.2f} ms on this machine", "", "", _times(s["speedup_host"]))
    table.add_section()
    both("efficiency: MACs / (rows x cycles)", "efficiency_{0}", ".3f")
    both("load balance of the weights", "balance_{0}", ".3f")
    for part, text in zip(PARTS, ("cycles: MACs / rows", "  imbalance", "  broadcast", "  sweep",
                                  "  barrier, latency, full queues"), strict=True):
        both(text, f"cycles_{{0}}_{part}", ",.0f")
    table.add_section()
    table.add_row("dense, all edges, at peak", f"{s['cycles_dense_peak']:,.0f}", "", "")
    table.add_row("time over theoretical", "", f"{s['time_over_theory']:.3f}", "")
    table.add_row("measured speed-up over eq. 10", "", f"{s['measured_over_eq10']:.3f}", "")
    table.add_row("error of the outputs, mean (max)", "", f"{s['error_mean']:.2%} ({s['error_max']:.2%})", "")
    if found.bound is not None:
        table.add_row("  bound of hold, through |W|", "", f"{found.bound:.2%}", "")
    table.add_row("frames from scratch after the first", "", str(s["refreshes"]), "")
    for event in found.events:
        table.add_row(f"frame {event.frame}: {event.kind}", "", f"{event.size:+.1f} codes", "")
    return table


def draw(folder: Path, found: Analysis, model: Model, frames: Iterable[np.ndarray], rule: Rule, title: str,
         clock_hz: float, baud: float) -> None:
    """The charts, as PNG files in a folder.

    ``layers``, ``time``, ``tradeoff`` (the paper's figure 5) show the analysis; ``threshold`` (figure 3) and
    ``error`` (figures 2 and 4) run the golden model on the same frames again, with other thresholds.
    """
    steps = [i for i, layer in enumerate(found.layers) if layer.feeds]
    rows = by_layer(found)
    title = f"{title}; cycles {found.source}"
    dense = found.macs_dense_all[steps]
    rrm, scratch = (np.array([rows[i][f"macs_{way}"] for i in steps]) / dense for way in ("rrm", "scratch"))
    charts.layer_chart(folder / "layers.png", [rows[i]["tensor"] for i in steps], rrm,
                       [rows[i]["cycles_rrm"] for i in steps], [rows[i]["cycles_scratch"] for i in steps],
                       activations=scratch, title=title)
    ways = {"frame by frame": found.scratch, "RRM": found.rrm}
    charts.time_chart(folder / "time.png", {k: w.macs.sum(axis=1) / found.macs_dense.sum() for k, w in ways.items()},
                      {k: w.cycles.sum(axis=1) for k, w in ways.items()}, found.errors, found.events, title=title)
    sparsity = 1 - found.rrm.macs.sum(axis=1)[found.frames] / found.macs_dense.sum()
    charts.tradeoff_chart(folder / "tradeoff.png", sparsity, speedups(found, clock_hz, baud), title=title)
    network, pre = model.network, model.sidecar.input
    code = network.graph.tensors[network.graph.input].code
    codes = [network.input.to_codes(pre.apply(f, network.input), code) for f in frames]
    limit = rule.threshold if isinstance(rule.threshold, int) and not rule.exact else 4
    mean, gain, series = thresholds(model, codes)
    charts.threshold_chart(folder / "threshold.png", THRESHOLDS, mean, gain, title=title.partition(";")[0])
    chosen = {f"{mode} {limit}": series[mode, limit] if (mode, limit) in series else
              run_errors(model, codes, limit, mode) for mode in ("hold", "truncate")}
    charts.error_chart(folder / "error.png", chosen | {"infinite threshold": series["hold", 256]}, found.events,
                       title=title.partition(";")[0])


def speedups(found: Analysis, clock_hz: float, baud: float) -> dict[str, np.ndarray]:
    """Speed-up of every frame by what is counted, see ``Analysis.summary``."""
    total = {}
    for way, w in (("scratch", found.scratch.of(found.frames)), ("rrm", found.rrm.of(found.frames))):
        cycles, link = w.cycles.sum(axis=1) / clock_hz, w.link.sum(axis=1) * 10 / baud
        total[way] = [w.macs.sum(axis=1), cycles, cycles + link, cycles + link + found.host_seconds]
    names = ("MACs only (eq. 10)", "+ sweep, broadcasts, barriers", "+ link", "+ host")
    return {name: a / np.maximum(b, 1e-12) for name, a, b in zip(names, total["scratch"], total["rrm"], strict=True)}


def thresholds(model: Model, codes: Sequence[np.ndarray]) -> tuple[dict, dict, dict]:
    """(mean error by mode, speed-up of the MACs by mode, errors float[frames] by mode and threshold)."""
    graph, mean, gain, series = model.network.graph, {}, {}, {}
    dense = GoldenModel(graph)
    exact = [dense.frame(c) for c in codes]
    baseline = sum(r.total("macs_activations") for r in exact[1:])
    for mode in ("hold", "truncate"):
        means, gains = [], []
        for t in THRESHOLDS:
            golden = GoldenModel(graph, t, mode)
            results = [golden.frame(c) for c in codes]
            series[mode, t] = np.array([relative_error(r.outputs, e.outputs)
                                        for r, e in zip(results, exact, strict=True)])
            means.append(series[mode, t].mean())
            gains.append(baseline / max(1, sum(r.total("macs") for r in results[1:])) if t < 256 else np.nan)
        mean[mode], gain[mode] = means, gains
    return mean, gain, series


def run_errors(model: Model, codes: Sequence[np.ndarray], threshold: int, mode: Mode) -> np.ndarray:
    """float[frames]: error of the outputs with a threshold."""
    exact, golden = GoldenModel(model.network.graph), GoldenModel(model.network.graph, threshold, mode)
    return np.array([relative_error(golden.frame(c).outputs, exact.frame(c).outputs) for c in codes])


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

