"""``rrm-fpga infer``: a network on a video, frame by frame, computing only what changed."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from host.cli import options as o
from host.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from host.cli.results import Results
    from host.compiler import Program
    from host.configs import Named
    from host.devices import Device
    from host.rates import Forecast
    from host.session import Session

FORECAST_FRAMES = 4
"""Frames from which the cycles of boards are predicted."""
_EXACTNESS, _RESULTS, _INPUT = "Exactness", "Results", "Input"
_REASONS = {"first": "at the start", "asked": "as asked", "schedule": "by --refresh", "cut": "cheaper than the changes",
            "error": "for --max-error", "range": "before an accumulator could wrap", "device": "after a device reset"}


def infer(
        source: Annotated[str | None, typer.Argument(
            metavar="SOURCE", show_default=False,
            help="Video file, image folder, camera:N or stream URL; the bundled clip if not given.")] = None,
        model: Annotated[Path | None, typer.Option(
            metavar="FILE", rich_help_panel=o.NETWORK,
            help="Network: .onnx, or .rrm from `rrm-fpga compile`; the bundled one if not given.")] = None,
        backend: Annotated[str, typer.Option(
            metavar="NAME", rich_help_panel=o.NETWORK,
            help="What runs it: rtl is the accelerator in compiled simulation (rtl:NAME: that of a board or preset), "
                 "serial:PORT a board (serial:PORT@BAUD: at another baud rate than its own), model the exact integer "
                 "model in NumPy, with the same results (model:cycles: and predicted cycles).")] = "rtl",
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
        chunks: Annotated[int, typer.Option(
            min=1, metavar="K", rich_help_panel=_INPUT,
            help="Split the clip into K chunks that run side by side, each in a process with a device of its own and "
                 "from a precise frame on; boards are listed as serial:PORT,PORT,...")] = 1,
        threshold: Annotated[int | None, typer.Option(
            min=0, max=255, metavar="T", rich_help_panel=_EXACTNESS, show_default=False,
            help="Send a change of at least T codes (of 256); 0 and 1 are exact. Without it: what `rrm-fpga tune` put "
                 "into the .rrm file, else 0.")] = None,
        mode: Annotated[Literal["hold", "truncate"], typer.Option(
            rich_help_panel=_EXACTNESS,
            help="hold: changes below T add up until they reach it, so the error stays bounded. "
                 "truncate (the paper's): they are lost.")] = "hold",
        epsilon: Annotated[float | None, typer.Option(
            min=0.0, metavar="E", rich_help_panel=_EXACTNESS, show_default=False,
            help="The same in the unit of the activations (the paper's threshold), converted per tensor.")] = None,
        refresh: Annotated[str, typer.Option(
            metavar="auto|never|N", rich_help_panel=_EXACTNESS,
            help="Frames to compute from scratch: those of which that is predicted to be cheaper (scene cuts), "
                 "none, or every Nth.")] = "auto",
        max_error: Annotated[float | None, typer.Option(
            metavar="E", rich_help_panel=_EXACTNESS, show_default=False,
            help="With --mode truncate: compute a frame from scratch after one whose predicted relative error is "
                 "larger (0.05 is 5%). Needs a model that `rrm-fpga fit-error` has seen.")] = None,
        out: Annotated[Path | None, typer.Option(
            metavar="VIDEO", rich_help_panel=_RESULTS,
            help="The clip with what the network sees drawn on it.")] = None,
        compare: Annotated[Path | None, typer.Option(
            metavar="VIDEO", rich_help_panel=_RESULTS,
            help="Frame by frame (green) beside RRM (blue); takes twice the time.")] = None,
        sheet: Annotated[Path | None, typer.Option(
            metavar="FILE.png", rich_help_panel=_RESULTS,
            help="A contact sheet: a dozen frames with what the network sees, and the share of MACs of every "
                 "frame.")] = None,
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
        trace: Annotated[Path | None, typer.Option(
            metavar="FILE.vcd", rich_help_panel=_RESULTS,
            help="Waveforms of every signal of the RTL in one frame; large.")] = None,
        trace_frame: Annotated[int, typer.Option(
            min=0, metavar="N", rich_help_panel=_RESULTS, help="The frame of --trace.")] = 0,
        preset: o.PresetOption = None,
        head: o.HeadOption = None,
        size: o.SizeOption = None,
        colour: o.ColourOption = None,
        mean: o.MeanOption = None,
        scale: o.ScaleOption = None,
        layout: o.LayoutOption = None,
        resize: o.ResizeOption = None) -> int:
    """Run a network on a video and compute only what changed from frame to frame.

    It runs on the accelerator's RTL, in compiled simulation; its first run builds the simulator, which takes
    some minutes. With --threshold 0 the results are bit for bit those of running the quantised network on every frame.
    Ctrl-C ends the run after the current frame and keeps the finished ones (exit code 130); results appear
    only when they are whole.

    Examples:

        rrm-fpga infer --out annotated.mp4
        rrm-fpga infer my.mp4 --model net.onnx --threshold 2 --json frames.jsonl
    """
    import models
    from host.chunks import ChunkedSession, ClipSource, backends
    from host.cli.calibrate import calibrated
    from host.cli.results import ResultPaths, Results
    from host.cli.terminal import note, progress, waiting
    from host.devices import ModelDevice, open_device
    from host.output import check_writable
    from host.refresh import SECTION, with_rule
    from host.session import CALIBRATION_FRAMES, Session
    from host.video import open_source, sample_frames

    if tap and save_outputs is None:
        raise UserError("--tap needs --save-outputs FILE.npz to store the tensor in")
    paths = ResultPaths(json, save_outputs, out, compare, sheet)
    source = str(models.default_clip()) if source is None else source
    with ExitStack() as stack:
        clip = stack.enter_context(open_source(source, fps=fps, noise=noise, seed=seed))
        stream = iter(clip)
        loaded = o.PictureOptions(preset, head, size, colour, mean, scale, layout, resize).open_model(
            models.default_network() if model is None else model)
        ahead: list[np.ndarray] = []  # a live source cannot be read twice: what calibration saw comes first

        @cache
        def samples() -> list[np.ndarray]:
            if clip.live and calibrate is None:
                ahead.extend(islice(stream, CALIBRATION_FRAMES))
                return ahead
            return sample_frames(calibrate or source, CALIBRATION_FRAMES, noise, seed)

        loaded = calibrated(loaded, samples, weights, wanted=calibrate is not None)
        policy = int(refresh) if refresh.isdecimal() else refresh
        if policy == "auto" and SECTION not in loaded.sections:
            loaded = with_rule(loaded, samples())
        total = min(n for n in (clip.total, frames, float("inf")) if n is not None)
        rules = {"threshold": threshold, "epsilon": epsilon, "mode": mode, "refresh": policy, "max_error": max_error}
        if chunks > 1:
            if trace or clip.live or total == float("inf"):
                raise UserError("--chunks needs a clip of known length (--frames N) and goes without --trace")
            session = stack.enter_context(ChunkedSession(
                loaded, ClipSource(source, fps, frames, noise, seed), backends(backend, chunks), total, tap or (), note,
                **rules))
        else:
            with waiting() as say:
                device = open_device(backend, say)
                if trace:
                    _traceable(device, check_writable(trace))
                session = stack.enter_context(Session(loaded, device, **rules))
        baseline = stack.enter_context(Session(loaded, ModelDevice(), threshold=0)) if compare else None
        for name in tap or ():
            session.check_tap(name)
        results = stack.enter_context(Results(paths, loaded.sidecar.head, clip.fps))
        run = _Run(session, baseline, results, tuple(tap or ()), (trace_frame, trace))
        try:
            with progress("inferring", None if total == float("inf") else total) as show:
                if chunks > 1:
                    frames, show = run.side_by_side(show), lambda done: None
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
                 trace: tuple[int, Path | None]) -> None:
        self.session, self.baseline, self.results = session, baseline, results
        self.taps, self.trace = taps, trace
        self.frames = 0
        self.refreshes: Counter[str] = Counter()
        self._first: list[np.ndarray] = []
        self._forecast: Forecast | None = None
        self.totals: Counter[str] = Counter()
        self.seconds = 0.0
        self.interrupted = False

    def side_by_side(self, show: Callable) -> int:
        """Compute the chunks until they end or Ctrl-C is pressed; the number of frames that are there then."""
        with _StopAfterFrame() as stop:
            whole, seconds = self.session.compute(show, lambda: stop.asked)
        self.seconds, self.interrupted = seconds, stop.asked
        return whole

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
        began = time.perf_counter()
        with self._tracing():
            outputs, stats = self.session.infer(frame)
        self.seconds += time.perf_counter() - began
        detections, dense = head.decode(outputs, placement), None
        if self.baseline:
            dense = head.decode(self.baseline.infer(frame, refresh=True)[0], placement)
        taps = {name: self.session.tap(name) for name in self.taps if name not in outputs}
        self.results.add(frame, outputs, stats, detections, taps, dense)
        if self.frames < FORECAST_FRAMES:
            self._first.append(self.session.frame_codes(frame))
        self.frames += 1
        self.refreshes.update([stats.reason] if stats.refresh else ())
        self.totals.update(stats.counts())

    @contextmanager
    def _tracing(self) -> Iterator[None]:
        """Waveforms of the frame that is wanted, in place when they are whole."""
        number, path = self.trace
        if path is None or number != self.frames:
            yield
            return
        part = path.with_name(f".{path.name}.part")
        try:
            self.session.device.trace(part)
            yield
            self.session.device.trace(None)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def summary(self, clip: str, backend: str) -> None:
        """Print what was done and what it cost."""
        network = self.session.network
        print(f"{network.name} on {clip}: {_count(self.frames, 'frame')}"
              + (" (stopped by Ctrl-C)" if self.interrupted else ""))
        print(f"  input         preprocessing and head from {self.session.model.sidecar.source}")
        if self.frames:
            self._speed(backend)
            self._work()
        self._limits()
        if self.frames:
            for path in self.results.paths.all():
                print(f"  written       {path}")

    def _speed(self, backend: str) -> None:
        t, simulated = self.totals, getattr(self.session.device, "clock_cycles", None)
        print(f"  speed         {self.frames / self.seconds:.3g} frames/s, backend {backend} on this machine"
              + (f"; {simulated / self.seconds:,.0f} simulated cycles/s" if simulated else ""))
        if t["cycles"]:
            accelerator = getattr(self.session.device, "accelerator", None)
            print(f"  cycles        {t['cycles'] / self.frames:,.0f} a frame"
                  + (f", as predicted for {accelerator}" if accelerator else "")
                  + (", with those that waited for the line" if backend.startswith("serial:") else ""))
        if t["link_sent"]:
            print(f"  link          {t['link_sent'] / self.frames:,.0f} bytes a frame to the device, "
                  f"{t['link_received'] / self.frames:,.0f} back"
                  + (f"; {_count(t['link_repeats'], 'packet')} repeated" if t["link_repeats"] else "")
                  + (f"; the device lost its state {_count(t['link_resets'], 'time')}" if t["link_resets"] else ""))

    def _work(self) -> None:
        t = self.totals
        print("  activations   " + (f"{t['nonzero'] / t['elements']:.1%} not zero; " if t["nonzero"] else "")
              + f"{t['deltas'] / t['elements']:.1%} changed and sent "
              f"({_count(self.refreshes.total(), 'frame')} of {self.frames} from scratch: "
              + ", ".join(f"{n} {_REASONS[reason]}" for reason, n in self.refreshes.items()) + ")")
        print(f"  MACs          {t['macs'] / t['macs_dense']:.1%} of dense: "
              f"{t['macs'] / self.frames:,.0f} of {t['macs_dense'] / self.frames:,.0f} a frame"
              + (f"; without the zero activations {t['macs_activations'] / t['macs_dense']:.1%}"
                 if t["macs_activations"] else ""))
        if 0 < t["macs_nonzero_weights"] < 0.9 * t["macs"]:
            print(f"                {t['macs_nonzero_weights'] / t['macs_dense']:.1%} of dense when zero "
                  "weights are skipped as well")

    def _limits(self) -> None:
        from host.configs import boards_for
        from host.quantiser import accumulator_width

        graph = self.session.network.graph
        width = accumulator_width(graph)
        widest = max(width, key=width.__getitem__)
        print(f"  accumulators  {width[widest]} bits needed, {graph.accumulator_bits} there "
              f"(projection {widest if len(widest) < 60 else widest[:57] + '...'})")
        if self.session.refresh_every is not None:
            print(f"  refresh       {_count(self.session.refresh_every, 'frame')} after the last at most, "
                  "or an accumulator could wrap")
        for i, (board, program, shortage) in enumerate(boards_for(graph)):
            short = shortage.split("; ")
            more = f"; and {len(short) - 3} more" if len(short) > 3 else ""
            holds = f"does not fit: {'; '.join(short[:3])}{more}" if shortage else f"fits{self._rate(board, program)}"
            print(f"  {'' if i else 'boards':13} {board.name}: {holds}")

    def _rate(self, board: Named, program: Program) -> str:
        """How fast a board would be that holds the network: as measured where it ran on this board's accelerator."""
        from host.rates import Forecast, Rate

        t, session = self.totals, self.session
        if t["link_sent"] and session.device.board == board.board:
            rate = Rate(board.board, *(t[name] / self.frames for name in ("cycles", "link_sent", "link_received")))
            return f"; at most {rate}"
        if not self._first:
            return ""
        if self._forecast is None:
            self._forecast = Forecast(session.network.graph, session.thresholds, session.modes, self._first)
        rate = self._forecast.rate(board, program, self.refreshes.total() / self.frames)
        return f"; at most {rate}, predicted from the first {_count(len(self._first), 'frame')}"


def _traceable(device: Device, path: Path) -> None:
    """Prepare a device that is not loaded yet for ``--trace``. Raises UserError."""
    if not hasattr(device, "traceable"):
        raise UserError(f"--trace {path} needs the RTL: --backend rtl")
    device.traceable = True


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
