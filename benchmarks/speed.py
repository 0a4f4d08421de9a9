"""Speed and memory of the golden model on this machine: ``python -m benchmarks.speed [-o PAGE.md]``.

Every network of ../shared/models in a process of its own, one BLAS thread: decoding, preprocessing, the delta
path in exact mode and the statistics of every frame, as ``rrm-fpga infer --backend model`` runs them. The
machine's other load is not controlled, so the best of three runs is given.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

from benchmarks.fidelity import CASES, SHARED
from host.session import Session
from host.video import open_source, sample_frames

FRAMES, CALIBRATION_FRAMES, RUNS = 20, 8, 3


def measure(stem: str) -> dict[str, float]:
    """Best frames per second of three runs over the same frames, and the peak memory of this process in MB."""
    clip = SHARED / "clips" / f"{CASES[stem]}.mp4"
    best = 0.0
    with Session(SHARED / "models" / f"{stem}.onnx", calibration=sample_frames(clip, CALIBRATION_FRAMES)) as session:
        for _ in range(RUNS):
            frames = islice(open_source(clip), FRAMES + 1)
            session.infer(next(frames))
            start = time.perf_counter()
            count = sum(1 for _ in map(session.infer, frames))
            best = max(best, count / (time.perf_counter() - start))
    return {"fps": best, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--page", type=Path, help="write the table here as Markdown")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    lines = ["# Speed of the golden model", "", *__doc__.strip().splitlines()[1:], "",
             "| network | frames/s | peak memory, MB |", "|---|---|---|"]
    for stem in CASES:
        child = subprocess.run([sys.executable, "-m", "benchmarks.speed", "--one", stem], check=True,
                               capture_output=True, text=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
        found = json.loads(child.stdout)
        lines.append(f"| {stem} | {found['fps']:.1f} | {found['megabytes']:.0f} |")
        print(lines[-1], flush=True)
    lines += ["", "What limits it is memory traffic: first the node arithmetic in float64, then unfolding and the",
              "casts between floating point and integers; the matrix products are the smaller part."]
    if args.page:
        args.page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
