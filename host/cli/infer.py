"""``rrm-fpga infer``: a network on a video, frame by frame, computing only what changed."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from host.cli import options as o
from host.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from host.cli.results import Results
    from host.session import Session

_EXACTNESS, _RESULTS, _INPUT = "Exactness", "Results", "Input"


def infer(
        source: Annotated[str | None, typer.Argument(
            metavar="SOURCE", show_default=False,
            help="Video file, image folder, camera:N or stream URL; the bundled clip if not given.")] = None,
        model: Annotated[Path | None, typer.Option(
            metavar="FILE", rich_help_panel=o.NETWORK,
            help="Network: .onnx, or .rrm from `rrm-fpga compile`; the bundled one if not given.")] = None,
        backend: Annotated[str, typer.Option(
            metavar="NAME", rich_help_panel=o.NETWORK,
            help="What runs it; model is the exact integer model in NumPy.")] = "model",
        calibrate: o.CalibrateOption = None,
        weights: o.WeightsOption = "auto",
        frames: Annotated[int | None, typer.Option(
            min=1, metavar="N", rich_help_panel=_INPUT, help="Stop after N frames.")] = None,
        fps: Annotated[float | None, typer.Option(
            metavar="F", rich_help_panel=_INPUT,
            help="Frames per second to take from a video, or that an image folder stands for.")] = None,
        noise: Annotated[float, typer.Option(
            min=0.0, metavar="SIGMA", rich_help_panel=_INPUT,
            help="Add Gaussian noise to every pixel, as sensors do; 1 to 3 codes is usual.")] = 0.0,
        seed: Annotated[int, typer.Option(
            min=0, metavar="S", rich_help_panel=_INPUT, help="Seed of --noise.")] = 0,
        threshold: Annotated[int, typer.Option(
            min=0, max=255, metavar="T", rich_help_panel=_EXACTNESS,
            help="Send a change of at least T codes (of 256); 0 and 1 are exact.")] = 0,
        mode: Annotated[Literal["hold", "truncate"], typer.Option(
            rich_help_panel=_EXACTNESS,
            help="hold: changes below T add up until they reach it, so the error stays bounded. "
                 "truncate (the paper's): they are lost.")] = "hold",
        refresh: Annotated[int | None, typer.Option(
            min=1, metavar="N", rich_help_panel=_EXACTNESS,
            help="Compute every Nth frame from scratch.")] = None,
        out: Annotated[Path | None, typer.Option(
            metavar="VIDEO", rich_help_panel=_RESULTS,
            help="The clip with what the network sees drawn on it.")] = None,
        compare: Annotated[Path | None, typer.Option(
            metavar="VIDEO", rich_help_panel=_RESULTS,
            help="Frame by frame (green) beside RRM (blue); takes twice the time.")] = None,
        json: Annotated[Path | None, typer.Option(
            metavar="FILE", rich_help_panel=_RESULTS,
            help="JSON Lines, one object per frame: frame, refresh, deltas, macs, macs_dense, density, "
                 "detections and more.")] = None,
        save_outputs: Annotated[Path | None, typer.Option(
            metavar="FILE.npz", rich_help_panel=_RESULTS,
            help="Every network output, dequantised, as [frames, ...] under its ONNX name.")] = None,
        tap: Annotated[list[str] | None, typer.Option(
            metavar="TENSOR", rich_help_panel=_RESULTS,
            help="Also store this tensor of the network in --save-outputs; may be repeated.")] = None,
        preset: o.PresetOption = None,
        head: o.HeadOption = None,
        size: o.SizeOption = None,
        colour: o.ColourOption = None,
        mean: o.MeanOption = None,
        scale: o.ScaleOption = None,
        layout: o.LayoutOption = None,
        resize: o.ResizeOption = None) -> int:
    """Run a network on a video and compute only what changed from frame to frame.

    With --threshold 0 the results are bit for bit those of running the quantised network on every frame.
    Ctrl-C ends the run after the current frame and keeps the finished ones (exit code 130); results appear
    only when they are whole.

    Examples:

        rrm-fpga infer --out annotated.mp4
        rrm-fpga infer my.mp4 --model net.onnx --threshold 2 --json frames.jsonl
    """
    import models
    from host.cli.calibrate import calibrated
    from host.cli.results import ResultPaths, Results
    from host.cli.terminal import progress
    from host.session import CALIBRATION_FRAMES, Session
    from host.video import open_source, sample_frames

    if tap and save_outputs is None:
        raise UserError("--tap needs --save-outputs FILE.npz to store the tensor in")
    paths = ResultPaths(json, save_outputs, out, compare)
    source = str(models.default_clip()) if source is None else source
    with ExitStack() as stack:
        clip = stack.enter_context(open_source(source, fps=fps, noise=noise, seed=seed))
        stream = iter(clip)
        loaded = o.PictureOptions(preset, head, size, colour, mean, scale, layout, resize).open_model(
            models.default_network() if model is None else model)
        ahead: list[np.ndarray] = []  # a live source cannot be read twice: what calibration saw comes first

        def samples() -> list[np.ndarray]:
            if clip.live and calibrate is None:
                ahead.extend(islice(stream, CALIBRATION_FRAMES))
                return ahead
            return sample_frames(calibrate or source, CALIBRATION_FRAMES, noise, seed)

        loaded = calibrated(loaded, samples, weights, wanted=calibrate is not None)
        session = stack.enter_context(Session(loaded, backend, threshold=threshold, mode=mode))
        baseline = stack.enter_context(Session(loaded)) if compare else None
        for name in tap or ():
            session.check_tap(name)
        results = stack.enter_context(Results(paths, loaded.sidecar.head, clip.fps))
        total = min(n for n in (clip.total, frames, float("inf")) if n is not None)
        run = _Run(session, baseline, results, tuple(tap or ()), refresh)
        try:
            with progress("inferring", None if total == float("inf") else total) as show:
                run.over(islice(chain(ahead, stream), frames), show)
        except UserError:
            if clip.live:  # a stream that breaks off keeps what is finished
                results.commit()
            raise
        results.commit()
    run.summary(clip.name, backend)
    return 130 if run.interrupted else 0


class _Run:
    """One pass over a clip and its totals."""

    def __init__(self, session: Session, baseline: Session | None, results: Results, taps: tuple[str, ...],
                 refresh: int | None) -> None:
        self.session, self.baseline, self.results = session, baseline, results
        self.taps, self.refresh = taps, refresh
        self.frames = self.refreshes = 0
        self.totals: Counter[str] = Counter()
        self.seconds = 0.0
        self.interrupted = False

    def over(self, frames: Iterable[np.ndarray], show: Callable) -> None:
        """Run until the frames end or Ctrl-C is pressed."""
        with _StopAfterFrame() as stop:
            for frame in frames:
                self._one(frame)
                show(self.frames)
                if stop.asked:
                    self.interrupted = True
                    return

    def _one(self, frame: np.ndarray) -> None:
        head, placement = self.results.head, self.session.placement(frame)
        due = self.refresh is not None and self.frames % self.refresh == 0
        began = time.perf_counter()
        outputs, stats = self.session.infer(frame, due)
        self.seconds += time.perf_counter() - began
        detections, dense = head.decode(outputs, placement), None
        if self.baseline:
            dense = head.decode(self.baseline.infer(frame, refresh=True)[0], placement)
        taps = {name: self.session.tap(name) for name in self.taps if name not in outputs}
        self.results.add(frame, outputs, stats, detections, taps, dense)
        self.frames += 1
        self.refreshes += stats.refresh
        self.totals.update(stats.counts())

    def summary(self, clip: str, backend: str) -> None:
        """Print what was done and what it cost."""
        from host.quantiser import accumulator_width

        network, t = self.session.network, self.totals
        print(f"{network.name} on {clip}: {_count(self.frames, 'frame')}"
              + (" (stopped by Ctrl-C)" if self.interrupted else ""))
        print(f"  input         preprocessing and head from {self.session.model.sidecar.source}")
        if self.frames:
            speed = self.frames / self.seconds
            print(f"  speed         {speed:.3g} frames/s, backend {backend} on this machine")
            print(f"  activations   {t['nonzero'] / t['elements']:.1%} not zero; "
                  f"{t['deltas'] / t['elements']:.1%} changed and sent "
                  f"({_count(self.refreshes, 'frame')} of {self.frames} from scratch)")
            print(f"  MACs          {t['macs'] / t['macs_dense']:.1%} of dense: "
                  f"{t['macs'] / self.frames:,.0f} of {t['macs_dense'] / self.frames:,.0f} a frame; "
                  f"without the zero activations {t['macs_activations'] / t['macs_dense']:.1%}")
            if t["macs_nonzero_weights"] < 0.9 * t["macs"]:
                print(f"                {t['macs_nonzero_weights'] / t['macs_dense']:.1%} of dense when zero "
                      "weights are skipped as well")
        width = accumulator_width(network.graph)
        widest = max(width, key=width.__getitem__)
        print(f"  accumulators  {width[widest]} bits needed, {network.graph.accumulator_bits} there "
              f"(projection {widest if len(widest) < 60 else widest[:57] + '...'})")
        if self.session.refresh_every is not None:
            print(f"  refresh       {_count(self.session.refresh_every, 'frame')} after the last at most, "
                  "or an accumulator could wrap")
        if self.frames:
            for path in self.results.paths.all():
                print(f"  written       {path}")


class _StopAfterFrame:
    """While entered, the first Ctrl-C sets ``asked``; a second one interrupts at once, as usual."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._previous = signal.getsignal(signal.SIGINT)
        if self._previous is not signal.SIG_IGN:  # a shell's background job ignores it on purpose
            signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._previous)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
