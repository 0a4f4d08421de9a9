"""A device behind the link: the compiled RTL, or a board, with the same bytes, driver and program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boards.board import Board
from host.compiler import Program
from host.compiler.stored import SECTION
from host.configs import Named, board_of, frame_reads, handed_out, link_for, named, program_for
from host.errors import UserError
from host.inspect import summarise
from host.link.connection import Traffic
from host.link.driver import Driver
from host.link.program import device_program, region, values
from host.link.transport import Transport
from host.ports import Found, find
from host.rates import Rate
from host.rrm_file import Model
from host.simulator.accelerator import AcceleratorSimulator
from hw.layouts import StepKind, unpack
from sim.arithmetic import Mode, threshold
from sim.golden import decoded_outputs


@dataclass(frozen=True)
class StepStats:
    """What a device counted in one step; ``tensor`` is the one whose deltas it sent (None: the step only clears).

    ``macs`` are in-image MACs with every entry of the weight tables; the other fields are those of
    ``hw.layouts.Layouts.counters``.
    """

    step: int
    tensor: str | None
    cycles: int
    deltas: int
    broadcasts: int
    macs: int
    broadcast_stalls: int
    sweep_stalls: int
    pe_stalls: int
    dropped: int


@dataclass(frozen=True)
class DeviceResult:
    """What one frame gave: real outputs by name, what each step counted, and the bytes on the link.

    ``deltas`` and ``dropped`` are by tensor name; those of the input come from the host, which makes them. ``board`` is
    that of the ``LinkDevice``.
    """

    outputs: Mapping[str, np.ndarray]
    refresh: bool
    steps: tuple[StepStats, ...]
    deltas: Mapping[str, int]
    dropped: Mapping[str, int]
    elements: int
    macs_dense: int
    traffic: Traffic
    board: Board | None = None

    @property
    def rate(self) -> Rate | None:
        """How fast the board would be if all frames were like this one."""
        return self.board and Rate(self.board, self.cycles, self.traffic.sent, self.traffic.received)

    @property
    def cycles(self) -> int:
        """Clock cycles of all steps."""
        return sum(s.cycles for s in self.steps)

    def total(self, field: str) -> int | None:
        """Sum over the network, as of ``sim.golden.FrameResult``; None for what a device does not count."""
        if field in ("deltas", "dropped"):
            return sum(getattr(self, field).values())
        if field == "macs":
            return sum(s.macs for s in self.steps)
        return {"elements": self.elements, "macs_dense": self.macs_dense}.get(field)


class LinkDevice:
    """A device that speaks the link.

    Parameters
        program: makes or takes the program of a model. Raises UserError when it does not fit the device.
        connect: opens the line to a device that runs this program.

    Members
        board: the board that has this accelerator, where the cycles counted are the accelerator's alone. (Behind a
            serial port they include the wait for the frame.)
    """

    board: Board | None = None

    def __init__(self, program: Callable[[Model], Program], connect: Callable[[Program], Transport]) -> None:
        self._make_program, self._connect = program, connect
        self._driver: Driver | None = None

    def load(self, model: Model, threshold: int | Mapping[str, int] = 0,
             mode: Mode | Mapping[str, Mode] = "hold") -> None:
        """See ``host.devices.Device``."""
        self.close()
        self.program = program = self._make_program(model)
        graph = program.graph
        self._driver = Driver(self._connect(program), program.config)
        self._driver.connect()
        made = device_program(program, threshold, mode)
        self._driver.load(made)
        self._rule, self._input = made.input, np.zeros(made.input.shape, np.int16)
        self._reads = frame_reads(program)
        self._fresh = True
        self._elements = sum(int(np.prod(t.shape)) for t in graph.tensors.values())
        self._macs_dense = summarise(model.network).totals["macs_dense"]

    def frame(self, codes: np.ndarray, refresh: bool = False) -> DeviceResult:
        """See ``host.devices.Device``."""
        self._fresh = False
        report = self._driver.frame(codes, refresh, reads=self._reads)
        deltas, dropped = self._move_input(codes, report.refresh)
        *read, counted = report.data
        kept = {name: values(self.program, name, words)
                for name, words in zip(handed_out(self.program.graph), read, strict=True)}
        counted = unpack(self.program.layouts.counters, counted)
        steps = tuple(StepStats(i, s.tensor, **{name: int(c[i]) for name, c in counted.items()})
                      for i, s in enumerate(self.program.steps))
        sweeps = [steps[self.program.step_of(n.target)] for n in self.program.graph.nodes]
        name = self.program.graph.input
        return DeviceResult(
            decoded_outputs(self.program.graph, kept | {name: self._input}), report.refresh, steps,
            {name: deltas} | {s.tensor: s.deltas for s in sweeps},
            {name: dropped} | {s.tensor: s.dropped for s in sweeps},
            self._elements, self._macs_dense, report.traffic, self.board)

    def _move_input(self, codes: np.ndarray, refresh: bool) -> tuple[int, int]:
        """Apply the input's threshold rule, as the driver does; (deltas, squares of what was lost)."""
        ref = np.zeros_like(self._input) if refresh else self._input
        limit = 1 if refresh else self._rule.threshold
        deltas, self._input = threshold(codes.astype(np.int16), ref, limit, self._rule.mode)
        dropped = (self._input - ref - deltas).astype(np.int64).ravel()
        return int(np.count_nonzero(deltas)), int(dropped @ dropped)

    def read_tensor(self, name: str) -> np.ndarray:
        """See ``host.devices.Device``."""
        program = self.program
        if name in program.graph.projections and (other := _overwritten_by(program, name)) is not None:
            raise UserError(f"projection {name} is gone at the end of a frame: the device keeps {other} in its place; "
                            "tap the tensor that it becomes, or use --backend model")
        return self.read(name)

    def read(self, name: str) -> np.ndarray:
        """What lies in the place of a tensor (int16) or projection (int64) now, [C, H, W]."""
        program = self.program
        if name == program.graph.input:
            return self._input.copy()
        kept = values(program, name, self._driver.read(region(program, name)))
        return kept.astype(np.int16) if name in program.graph.tensors else kept

    def begin(self, codes: np.ndarray, refresh: bool = False) -> None:
        """Begin a frame that is run with ``run``."""
        self._stepped = codes, refresh or self._fresh
        self._fresh = False
        self._move_input(*self._stepped)

    def run(self, first: int, count: int) -> None:
        """Run steps; each once, in order."""
        codes, refresh = self._stepped
        if any(step.kind == StepKind.FRAME for step in self.program.steps[first:first + count]):
            self._driver.frame(codes, refresh, steps=(first, count))
        else:
            self._driver.run(first, count, refresh)

    def counters(self) -> Mapping[str, np.ndarray]:
        """What the last run of each step counted, int64[steps] by name."""
        return self._driver.counters(0, len(self.program.steps))

    def reset(self) -> None:
        """See ``host.devices.Device``."""
        self._fresh = True
        self._driver.reset()

    def close(self) -> None:
        """See ``host.devices.Device``."""
        if self._driver is not None:
            self._driver.close()
            self._driver = None


class RtlDevice(LinkDevice):
    """The compiled RTL.

    Parameters
        accelerator: what to simulate; None is what an ``.rrm`` file is compiled for, else ``sim64`` with memories
            sized to the network.
        progress: told what goes on while the simulator is built.

    Members
        traceable: whether ``trace`` will work; to be set before ``load`` (such a simulator is slower).
    """

    def __init__(self, accelerator: str | Named | None = None,
                 progress: Callable[[str], None] = lambda what: None) -> None:
        self._accelerator = named(accelerator) if isinstance(accelerator, str) else accelerator
        self._progress, self.traceable = progress, False
        self.simulator: AcceleratorSimulator | None = None
        super().__init__(self._program_of, self._simulate)

    @property
    def clock_cycles(self) -> int:
        """Cycles simulated so far, those of the link included."""
        return self.simulator.cycles

    def trace(self, path: str | Path | None) -> None:
        """See ``AcceleratorSimulator.trace``."""
        self.simulator.trace(path)

    def _program_of(self, model: Model) -> Program:
        try:
            return program_for(model, self._accelerator)
        except UserError as e:
            raise UserError(f"{e}; --backend model runs it without the RTL") from None

    def _simulate(self, program: Program) -> AcceleratorSimulator:
        known = board_of(program.config.hash)
        self.board = known and known.board
        link = self._accelerator.link if self._accelerator else None
        self.simulator = AcceleratorSimulator(program.config, link or link_for(program), self._progress,
                                              self.traceable)
        return self.simulator


class SerialDevice(LinkDevice):
    """A board on a serial port.

    It is asked who it is before anything else. A network that is not compiled yet is compiled for the board that it
    says it is.

    Parameters
        port: path of the port.
        rates: baud rates to try; none is those of the boards.
    """

    def __init__(self, port: str, rates: Sequence[int] = ()) -> None:
        self._port, self._rates = port, rates
        self.found: Found | None = None
        super().__init__(self._program_of, lambda program: self.found.transport)

    def _program_of(self, model: Model) -> Program:
        self.found = found = find(self._port, self._rates)
        try:
            return self._compiled(model, found)
        except BaseException:
            found.transport.close()
            raise

    def _compiled(self, model: Model, found: Found) -> Program:
        config, board = found.identity.config_hash, found.board
        if SECTION not in model.sections:
            if board is None:
                raise UserError(f"{self._port}: the device is built with config {config}, which no board of this "
                                "version has; give a network that is compiled for it (rrm-fpga compile)")
            return board.compile(model.network.graph)
        program = program_for(model)
        if program.config.hash != config:
            known = f"{board.name} (config {config})" if board else f"built with config {config}"
            wanted = f" --config {board.name}" if board else ""
            raise UserError(f"{self._port}: the device is {known}, but network {model.network.name} is compiled for "
                            f"config {program.config.hash}; compile it for this device: rrm-fpga compile{wanted}")
        return program


def _overwritten_by(program: Program, name: str) -> str | None:
    """A projection that lies, wholly or partly, where this one did, and was fed later in the frame."""
    place, fed = program.places[name], {}
    for number, step in enumerate(program.steps):
        for e in step.edges:
            fed.setdefault(program.graph.edges[e].target, number)
    for other, at in program.places.items():
        meet = at.projection and at.base < place.base + place.words and place.base < at.base + at.words
        if other != name and meet and fed[other] > fed[name]:
            return other
    return None

