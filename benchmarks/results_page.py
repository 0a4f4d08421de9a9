"""The results page in Markdown, from the rows that ``benchmarks.results`` measured."""

from __future__ import annotations

from collections.abc import Mapping

from host.analysis import PARTS

Cells = Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]]
"""(network, clip) -> rule -> ``Analysis.summary`` with ``sqnr`` and ``agreement``."""
GOAL = 0.93
"""Of eq. 10 that the measured speed-up is to reach."""
PAPER = {"ResNet-8": "Table 2 (classification)", "VWW": "Table 2 (classification)",
         "UltraFace": "Table 6 (detection)", "YOLO-Fastest": "Table 6 (detection)",
         "SqueezeNet": "Table 4 (Deep Compression)", "Pose": "Table 5 (pose)"}
INTRODUCTION = """\
# Results

Written by `python -m benchmarks.results -o docs/results.md`; every figure is from a run. What is measured:

- *Frame by frame*: the same engine computes every frame from scratch and skips zero activations (the baseline of the
  paper's eq. 10). *exact*: only changes, the same integers. *hold T*: changes below T codes wait until they add up to
  T. *truncate T*: they are lost (the paper's rule). *AECS E*: truncate, and a frame is computed from scratch when the
  predicted error of the outputs is above E (eq. 7 and 8; H fitted to the frames behind those measured. Where they never
  come near E there is nothing to control, and the row is that of truncate).
- *From scratch*: how many of the frames were. Truncate computes one whenever an accumulator could wrap otherwise; where
  that is every frame, the network's weights leave it no room to drift in 27 bits.
- Densities, MACs, outputs: counted by the integer golden model, which the RTL equals bit for bit. Cycles: by the cycle
  model, which the tests hold against the RTL ([cycles.md](cycles.md), [verification.md](verification.md)), for 16 PEs
  x 4 lanes, S = 16 (`sim64`); *S = 32*: `sim64s32`, whose sweep looks at twice as much in a cycle; *64 x 1*: `sim64x1`,
  64 PEs with one lane. All have a line memory for max-pools ([architecture](architecture.md)), which the boards have
  not. Nothing here was measured on a board.
- Frames follow each other in the clip from a frame on at which things move; the first is left out of all means. Clips
  are H.264, whose skipped blocks are exactly unchanged; *noise 2* adds Gaussian noise of 2 codes to every pixel.
- Density: share of the MACs whose input is sent (in the image, strides included; convolutions and fully connected
  layers). Efficiency: in-image MACs / (rows x cycles), of non-zero weights where they are stored in CSC form; its
  inverse is the time over the theoretical one, for which the paper expects 1.10.
- *Over eq. 10*: the speed-up in cycles over that of eq. 10. Where it is below .93, the last column says to what the
  cycles were lost, as shares of the frame's: *sweep* (what changes may have reached is read, a word a cycle),
  *broadcast* (one delta a cycle), *imbalance* (rows without work), *barrier* (latency between steps, full queues).
- *With the link*: 100 MHz, 6 Mbaud (the Arty's), one after the other; frame by frame sends changed bytes only, too.
- SQNR and agreement are against the float network in onnxruntime, error is |y - y0| / |y0| against the exact run.
  Agreement is that of the decisions: the best class; boxes with an overlap of .5, body parts within 2% of the diagonal,
  2 x pairs / all. The decisions of the pose network do not survive int8 ([fidelity](fidelity.md)): its rows are about
  work and cycles only.
"""
REACHED = """\
In how many clips the speed-up in cycles is at least that part of eq. 10's, and up to which speed-up of eq. 10; the
least part, in which clip, and to what the cycles were lost there. *Quietest*: the fewest cycles that a frame takes on
average, by any rule in any clip, and what speed-up that is. Eq. 10 counts MACs alone, so it has no limit. The sweep
looks at what a change has reached, all channels of it: behind a max-pool it reads four or more words for each that may
change, where few channels do it reads many for one delta. Where much moves, that hides behind the MACs. A wider sweep
(S = 32) helps a network with max-pools; one with narrow layers (UltraFace) then takes more cycles frame by frame and
where much moves, because no more than 2 of its pixels, not 4, can share the rows of the array.
"""


def page(cells: Cells, frames: Mapping[str, int], sections: Mapping[str, str] = {}) -> str:
    """The page; ``sections``: title -> Markdown to put behind the tables."""
    revisions = sorted({row["revision"] for rules in cells.values() for row in rules.values() if "revision" in row})
    parts = [INTRODUCTION, f"Clips measured at revision {', '.join(revisions) or 'unknown'}.", "",
             f"## Whether {GOAL:g} of eq. 10 is reached", "", REACHED, *_reached(cells), "",
             "## Sparsity, as in the paper's tables", "", *_sparsity(cells), "## Every row", ""]
    for name, count in frames.items():
        if any(network == name for network, _ in cells):
            parts += [f"### {name} ({count} frames)", "", *_rows(cells, name), ""]
    for title, text in sections.items():
        parts += [f"## {title}", "", text, ""]
    return "\n".join(parts).rstrip() + "\n"


def _reached(cells: Cells) -> list[str]:
    """A row per network and rule."""
    lines = ["| network | rule | reached | reached up to | missed from | least | in | lost to | quietest |",
             "|---|---|---|---:|---:|---:|---|---|---|"]
    for name in dict.fromkeys(network for network, _ in cells):
        own = {clip: rules for (network, clip), rules in cells.items() if network == name}
        quiet = min((row for rules in own.values() for row in rules.values()), key=lambda row: row["cycles_rrm"])
        for rule in ("exact", "hold 2"):
            over = {clip: _over(rules[rule]) for clip, rules in own.items()}
            least = min(over, key=over.__getitem__)
            speed_ups = {met: [own[c][rule]["speedup_eq10"] for c in own if (over[c] >= GOAL) == met]
                         for met in (True, False)}
            cells_of = [name, rule, f"{len(speed_ups[True])} of {len(own)}",
                        f"{max(speed_ups[True]):.2f}" if speed_ups[True] else "",
                        f"{min(speed_ups[False]):.2f}" if speed_ups[False] else "", f"{over[least]:.3f}", least,
                        causes(own[least][rule]) if over[least] < GOAL else "",
                        f"{quiet['cycles_rrm']:,.0f} ({quiet['speedup_cycles']:.1f})"]
            lines.append("| " + " | ".join(cells_of) + " |")
    return lines


def _over(row: Mapping[str, float]) -> float:
    """The speed-up in cycles over that of eq. 10."""
    return row["speedup_cycles"] / row["speedup_eq10"]


def _sparsity(cells: Cells) -> list[str]:
    """A table per network: clips across."""
    lines = []
    for name in PAPER:
        clips = [clip for network, clip in cells if network == name]
        if not clips:
            continue
        rows = [cells[name, clip] for clip in clips]
        lines += [f"| {name}: {PAPER[name]} | " + " | ".join(clips) + " |", "|---" * (len(clips) + 1) + "|",
                  _line("activations", [f"{r['exact']['sparsity_activations']:.1%}" for r in rows])]
        for rule in ("exact", "hold 2", "hold 4"):
            lines += [_line(f"deltas, {rule}", [f"{r[rule]['sparsity_deltas']:.1%}" for r in rows]),
                      _line("speed-up (eq. 10)", [f"{r[rule]['speedup_eq10']:.2f}" for r in rows]),
                      _line("speed-up in cycles", [f"**{r[rule]['speedup_cycles']:.2f}**" for r in rows]),
                      _line("with the link", [f"{r[rule]['speedup_link']:.2f}" for r in rows])]
        lines.append("")
    return lines


def _line(label: str, values: list[str]) -> str:
    return f"| {label} | " + " | ".join(values) + " |"


def _rows(cells: Cells, name: str) -> list[str]:
    """Every clip and rule of a network."""
    heads = ("clip", "rule", "density", "eq. 10", "cycles", "speed-up", "over eq. 10", "efficiency", "time over theory",
             "SQNR, dB", "error", "agreement", "from scratch", "lost to")
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (len(heads) - 3) + "---|"]
    for (network, clip), rules in cells.items():
        if network != name:
            continue
        exact = rules["exact"]
        base = {**exact, "speedup_eq10": 1, "speedup_cycles": 1, "refreshes": exact["frames"], "error_mean": 0}
        lines.append(_row(clip, "frame by frame", base, "scratch", "activations"))
        lines += [_row("", rule, row, "rrm", "deltas") for rule, row in rules.items()]
    return lines


def _row(clip: str, rule: str, row: Mapping[str, float], way: str, sparsity: str) -> str:
    over, efficiency = _over(row), row[f"efficiency_{way}"]
    cells = [clip, rule, f"{1 - row[f'sparsity_{sparsity}']:.3f}", f"{row['speedup_eq10']:.2f}",
             f"{row[f'cycles_{way}']:,.0f}", f"{row['speedup_cycles']:.2f}", f"{over:.3f}", f"{efficiency:.3f}",
             f"{1 / efficiency:.2f}", f"{row['sqnr']:.1f}", f"{row['error_mean']:.2%}", f"{row['agreement']:.3f}",
             f"{row['refreshes']:.0f}", causes(row) if way == "rrm" and over < GOAL else ""]
    return "| " + " | ".join(cells) + " |"


def causes(row: Mapping[str, float]) -> str:
    """Why the speed-up in cycles is below eq. 10: by part of the cycles, what it takes beyond frame by frame / eq. 10,
    as shares of the cycles of the frame; the parts that make up four fifths of it."""
    excess = {p: row[f"cycles_rrm_{p}"] - row[f"cycles_scratch_{p}"] / row["speedup_eq10"] for p in PARTS[1:]}
    ordered = sorted(((v, p) for p, v in excess.items() if v > 0), reverse=True)
    named, covered, total = [], 0.0, sum(v for v, _ in ordered)
    for value, part in ordered:
        if covered >= 0.8 * total:
            break
        covered += value
        named.append(f"{part} {value / row['cycles_rrm']:.0%}")
    return ", ".join(named)
