"""A clip in chunks, computed side by side, each beginning with a precise frame (paper, end of section 3.2).

::

    clip = ClipSource("clip.mp4")
    with ChunkedSession(model, clip, ["rtl"] * 4, 250, threshold=2) as session:
        session.compute()
        for frame in clip.open():
            outputs, stats = session.infer(frame)

Every chunk has a process and a device of its own; what it computed waits in a file until it is asked for, in the
order of the clip. In exact mode the outputs are those of one device, bit for bit; with thresholds the first frame of
every chunk is a precise one, which one device would not have.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from host import rrm_file
from host.devices import DeviceProgress, open_device
from host.errors import UserError
from host.rrm_file import Model
from host.session import FrameStats, Session
from host.video import Source, open_source

ATTEMPTS = 3
"""How often a chunk is begun before its dying workers are the user's problem."""


@dataclass(frozen=True)
class ClipSource:
    """What ``host.video.open_source`` is given, to read the same frames again."""

    source: str
    fps: float | None = None
    frames: int | None = None
    noise: float = 0.0
    seed: int = 0

    def open(self) -> Source:
        """Raises UserError."""
        return open_source(self.source, self.fps, self.frames, self.noise, self.seed)


def bounds(frames: int, chunks: int) -> list[tuple[int, int]]:
    """(first frame, frame behind the last) of each chunk; their lengths differ by one at most, none is empty."""
    chunks = min(frames, chunks)
    at = [frames * i // chunks for i in range(chunks + 1)]
    return list(pairwise(at))


def backends(backend: str, chunks: int) -> list[str]:
    """The backend of every chunk. A serial port is one device, so they are listed: "serial:PORT,PORT,...".

    Raises UserError when there are not as many ports as chunks.
    """
    name, _, ports = backend.partition(":")
    if name != "serial":
        return [backend] * chunks
    listed = [f"serial:{port}" for port in ports.split(",")]
    if len(set(listed)) != chunks:
        raise UserError(f"{chunks} chunks need as many boards, and {backend} names {len(set(listed))}; list their "
                        "ports: --backend serial:PORT,PORT,...")
    return listed


class ChunkedSession(Session):
    """A ``Session`` whose frames are computed by worker processes before they are asked for.

    Parameters
        model: a quantised ``Model``.
        clip: the frames; ``infer`` takes the same ones, in order.
        devices: the backend of each chunk; their number is that of the chunks.
        frames: how many frames the clip has, as far as is known; the last chunk ends where the clip does.
        taps: tensors or projections that ``tap`` will be asked for.
        progress: called with what the first worker waits for.
        options: as ``Session``'s (threshold, epsilon, mode, refresh, max_error).

    Raises UserError when the model or an option cannot be used.
    """

    def __init__(self, model: Model, clip: ClipSource, devices: Sequence[str], frames: int, taps: Sequence[str] = (),
                 progress: DeviceProgress = lambda what: None, **options: Any) -> None:
        super().__init__(model, _Elsewhere(), **options)
        for name in taps:
            self.check_tap(name)
        self._folder = tempfile.TemporaryDirectory(prefix="rrm-fpga-chunks-")
        self._work = _Work(Path(self._folder.name) / "model.rrm", clip, tuple(taps), options)
        rrm_file.save(self._work.model, self.model)
        ends = bounds(frames, len(devices))
        self._chunks = [_Chunk(i, first, end, end if i + 1 < len(ends) else None, devices[i],
                               Path(self._folder.name) / f"{i}.pickle") for i, (first, end) in enumerate(ends)]
        self._progress, self._results = progress, self._read()
        self._taps: dict[str, np.ndarray] = {}

    def compute(self, show: Callable[[int], None] = lambda done: None,
                stop: Callable[[], bool] = lambda: False) -> tuple[int, float]:
        """Run all chunks and return (frames that ``infer`` can give, seconds).

        ``show`` is called with the number of frames done in all chunks. After ``stop`` says so the workers end their
        frames, and what is whole from the beginning counts. A chunk whose worker dies is redone by another one.

        Raises the UserError of a worker, or one when a chunk's workers die ``ATTEMPTS`` times.
        """
        began = time.perf_counter()
        pool = _Pool(self._work, self._progress)
        try:
            done = 0
            for done in pool.run(self._chunks, stop):
                show(done)
        finally:
            pool.close()
        self.device.clock_cycles = sum(c.clock_cycles for c in self._chunks) or None
        self.device.accelerator, self.device.board = pool.device
        whole = 0
        for chunk in self._chunks:
            whole += chunk.done
            if not chunk.finished:
                break
        return whole, time.perf_counter() - began

    def infer(self, frame: np.ndarray, refresh: bool = False) -> tuple[dict[str, np.ndarray], FrameStats]:
        """What was computed of the next frame of the clip."""
        outputs, stats, self._taps = next(self._results)
        return outputs, stats

    def tap(self, name: str) -> np.ndarray:
        """See ``Session.tap``; of ``taps`` only."""
        return self._taps[name]

    def close(self) -> None:
        """Throw away what was computed."""
        self._results.close()
        self._folder.cleanup()

    def _read(self) -> Iterator[tuple[dict[str, np.ndarray], FrameStats, dict[str, np.ndarray]]]:
        for chunk in self._chunks:
            with chunk.path.open("rb") as file:
                for _ in range(chunk.done):
                    yield pickle.load(file)


class _Elsewhere:
    """Stands for the workers' devices. ``clock_cycles``, ``accelerator`` and ``board`` are theirs, once known."""

    clock_cycles = accelerator = board = None

    def load(self, model: Model, threshold: object = 0, mode: object = "hold") -> None:
        """The workers load."""

    def close(self) -> None:
        """The workers close."""


@dataclass(frozen=True)
class _Work:
    """What every worker is told: the model (an .rrm file), the clip, and with which options."""

    model: Path
    clip: ClipSource
    taps: tuple[str, ...]
    options: dict[str, Any]


@dataclass
class _Chunk:
    """Frames first..end - 1 (``stop`` is None in the last: to the end of the clip), their results in a file as they
    come, and how far that is."""

    number: int
    first: int
    end: int
    stop: int | None
    backend: str
    path: Path
    attempts: int = 0
    done: int = 0
    finished: bool = False
    clock_cycles: int = 0


@dataclass
class _Pool:
    """The workers: one process per chunk. The first one alone until its device is there (it may have to build a
    simulator, which the others then find built)."""

    work: _Work
    progress: DeviceProgress
    device: tuple[str | None, Any] = (None, None)
    _running: dict[Connection, tuple[BaseProcess, _Chunk]] = field(default_factory=dict)

    def run(self, chunks: Sequence[_Chunk], stop: Callable[[], bool]) -> Iterator[int]:
        """Yields the number of frames done in all chunks, whenever there are more, until all chunks are."""
        waiting, stopped = list(chunks), False
        self._start(waiting.pop(0))
        while self._running:
            for connection in wait(list(self._running), timeout=0.2):
                chunk = self._running[connection][1]
                kind, value = self._receive(connection)
                if kind == "ready":
                    self.device = value
                    while waiting:
                        self._start(waiting.pop(0))
                elif kind == "frame":
                    chunk.done = value
                    yield sum(c.done for c in chunks)
                elif kind == "end":
                    chunk.finished, chunk.clock_cycles = value
                    self._running.pop(connection)[0].join()
                elif kind == "say":
                    self.progress(value)
                elif kind == "error":
                    raise UserError(value)
                elif not stopped:
                    self._again(connection, chunk, value)
                else:
                    self._running.pop(connection)
            if stop() and not stopped:
                stopped, waiting = True, []
                for connection in self._running:
                    with suppress(OSError):                                      # it is dying just now
                        connection.send("stop")

    def _start(self, chunk: _Chunk) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(self.work, chunk, theirs), daemon=True,
                                  name=f"chunk {chunk.number}")
        process.start()
        theirs.close()
        chunk.attempts += 1
        self._running[ours] = process, chunk

    def _receive(self, connection: Connection) -> tuple[str, Any]:
        """A worker's message; of a dead one ("dead", why)."""
        try:
            return connection.recv()
        except (EOFError, OSError):
            process = self._running[connection][0]
            process.join()
            return "dead", f"exit code {process.exitcode}"

    def _again(self, connection: Connection, chunk: _Chunk, why: str) -> None:
        """Redo a chunk whose worker has died."""
        del self._running[connection]
        if chunk.attempts == ATTEMPTS:
            raise UserError(f"chunk {chunk.number} (frames {chunk.first} to {chunk.end - 1}, {chunk.backend}): its "
                            f"worker died {ATTEMPTS} times ({why}); see above for its reason, or try fewer --chunks")
        self.progress(f"the worker of chunk {chunk.number} died ({why}); its frames are done again")
        chunk.done = 0
        self._start(chunk)

    def close(self) -> None:
        """End the workers that still run."""
        for connection, (process, _) in self._running.items():
            process.terminate()
            process.join()
            connection.close()
        self._running.clear()


def _worker(work: _Work, chunk: _Chunk, connection: Connection) -> None:
    """The process of one chunk."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)                  # Ctrl-C reaches it as "stop"
    try:
        device = open_device(chunk.backend, lambda what: connection.send(("say", what)))
        with Session(rrm_file.load(work.model), device, **work.options) as session, work.clip.open() as clip:
            connection.send(("ready", (getattr(device, "accelerator", None), getattr(device, "board", None))))
            finished = _frames(work, chunk, session, islice(clip, chunk.first, chunk.stop), connection)
            connection.send(("end", (finished, getattr(device, "clock_cycles", None) or 0)))
    except UserError as error:
        connection.send(("error", str(error)))


def _frames(work: _Work, chunk: _Chunk, session: Session, frames: Iterator[np.ndarray], connection: Connection) -> bool:
    """Compute a chunk; False when it was stopped before its end."""
    with chunk.path.open("wb") as file:
        for done, frame in enumerate(frames, start=1):
            outputs, stats = session.infer(frame)
            stats = replace(stats, frame=chunk.first + done - 1, detail=None)
            pickle.dump((outputs, stats, {name: session.tap(name) for name in work.taps}), file)
            file.flush()
            connection.send(("frame", done))
            if connection.poll():
                return chunk.first + done == chunk.end
    return True
