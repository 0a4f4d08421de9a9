"""The Python API: a model on a device, fed with frames.

::

    from host.session import Session

    with Session("net.onnx", calibration=frames[:32], threshold=2) as session:
        for frame in frames:                              # uint8[H, W, 3], RGB
            outputs, stats = session.infer(frame)
            print(outputs["logits"].argmax(), f"{stats.density:.0%} of the MACs")
            features = session.tap("features")            # any tensor of the network, float32[C, H, W]

With threshold 0 or 1 the outputs are bit for bit those of running the quantised network on every frame.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from host import aecs, rrm_file
from host.aecs import ErrorControl, ErrorModel
from host.calibration import calibrate
from host.devices import Device, Result, open_device
from host.errors import UserError
from host.network import Network
from host.onnx_import import import_onnx
from host.preprocess import Placement
from host.quantiser import Weights, pixel_code, quantise, refresh_interval
from host.refresh import SECTION as REFRESH
from host.refresh import Policy, Reason, RefreshRule, Schedule, with_rule
from host.rrm_file import Model
from host.sidecar import Sidecar, sidecar_for
from host.thresholds import chosen
from sim.arithmetic import Mode

CALIBRATION_FRAMES = 32
"""Frames from which the ranges of activations are taken."""


def open_model(path: str | Path, preset: str | None = None) -> Model:
    """Read a network from an ``.rrm`` file (quantised) or an ONNX file (see ``quantised``).

    An ONNX file's preprocessing and head come from the preset of that name, else from ``MODEL.toml`` beside
    it, else from a preset of the file's name, else from a guess (``model.sidecar.source`` says which).
    Raises UserError when the file or its sidecar cannot be used.
    """
    if _is_rrm(path):
        model = rrm_file.load(path)
        return model if preset is None else replace(model, sidecar=sidecar_for(path, preset))
    network = import_onnx(path)
    sidecar = sidecar_for(path, preset) or Sidecar.default(network.input)
    return Model(network, sidecar, {"source": Path(path).name})


def open_network(path: str | Path) -> Network:
    """The network of an ``.rrm`` or ONNX file alone, whatever its inputs mean."""
    return rrm_file.load(path).network if _is_rrm(path) else import_onnx(path)


def _is_rrm(path: str | Path) -> bool:
    return rrm_file.is_rrm(path) or Path(path).suffix == rrm_file.SUFFIX


def needs_calibration(model: Model) -> bool:
    """Sample frames are needed to quantise it (networks that bring all their scales along need none)."""
    graph = model.network.graph
    return not graph.quantised and any(t.code is None for t in graph.tensors.values())


def quantised(model: Model, frames: Iterable[np.ndarray] = (), weights: Weights = "auto",
              progress: Callable[[int], None] | None = None) -> Model:
    """The model with a quantised network; as it is when it has one already.

    frames
        sample frames uint8[H, W, 3] RGB, see ``needs_calibration``.
    progress
        called with the number of frames done.

    Raises UserError when frames are needed and there are none.
    """
    network, pre = model.network, model.sidecar.input
    if network.graph.quantised:
        return model
    calibration = code = None
    if needs_calibration(model):
        calibration = calibrate(network, (pre.apply(f, network.input) for f in frames), progress)
        code = None if network.input.stored else pixel_code(pre.mean, pre.scale)
    network = quantise(network, calibration, weights=weights, input_code=code)
    used = {"weights": weights, "calibration_frames": calibration.frames if calibration else 0}
    return replace(model, network=network, meta={**model.meta, **used})


@dataclass(frozen=True)
class FrameStats:
    """The work of one frame. What a device does not count is None.

    frame
        number of the frame since the session began.
    refresh
        it was computed from scratch.
    elements, nonzero, deltas
        activations of all tensors; those not zero; those that changed and were sent.
    macs, macs_nonzero_weights, macs_activations, macs_dense
        multiply-accumulates: done; those of them whose weight is not zero; needed had all non-zero
        activations been sent (a sparse engine working frame by frame); of the network.
    cycles
        clock cycles of the accelerator, from the first step to the last.
    link_sent, link_received
        bytes to the device and back for this frame: the frame, its outputs and counts, and anything repeated.
    link_repeats, link_resets
        requests that had to be repeated; how often the device had lost its state.
    reason
        why it was computed from scratch (``host.refresh.Reason``), or None.
    truncated, predicted_error
        e_t and H(e_t) after this frame (``host.aecs``): what truncation lost since the last refresh, in real units,
        and the error of the outputs that this means. None where no tensor truncates; the latter also without an
        error model.
    detail
        the same per tensor and edge (``sim.golden.FrameResult``) or per step (``host.link_device.DeviceResult``).
    """

    frame: int
    refresh: bool
    elements: int
    nonzero: int | None
    deltas: int
    macs: int
    macs_nonzero_weights: int | None
    macs_activations: int | None
    macs_dense: int
    cycles: int | None
    link_sent: int | None
    link_received: int | None
    link_repeats: int | None
    link_resets: int | None
    reason: Reason | None
    truncated: float | None
    predicted_error: float | None
    detail: Result

    COUNTED: ClassVar = ("elements", "nonzero", "deltas", "macs", "macs_nonzero_weights", "macs_activations",
                         "macs_dense")

    LINK: ClassVar = ("sent", "received", "repeats", "resets")

    @property
    def density(self) -> float:
        """Share of the network's MACs that was done."""
        return self.macs / self.macs_dense

    def counts(self) -> dict[str, int]:
        """What is known of the sums over the network, so that they may be summed over frames as well."""
        names = (*self.COUNTED, "cycles", *(f"link_{name}" for name in self.LINK))
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def as_dict(self) -> dict[str, int | float | bool | str]:
        """Plain values for JSON, without the detail and what is not known; how fast the device's board is."""
        frame = {"frame": self.frame, "refresh": self.refresh, "reason": self.reason}
        drift = {"truncated": self.truncated, "predicted_error": self.predicted_error}
        known = {name: value for name, value in (frame | drift).items() if value is not None}
        rate = getattr(self.detail, "rate", None)
        return {**known, **self.counts(), "density": round(self.density, 6), **(rate.as_dict() if rate else {})}

    @classmethod
    def of(cls, frame: int, result: Result, reason: Reason | None, control: ErrorControl) -> FrameStats:
        """The totals of a device's result."""
        traffic = getattr(result, "traffic", None)
        return cls(frame, result.refresh, **{name: result.total(name) for name in cls.COUNTED},
                   cycles=result.cycles, **{f"link_{name}": traffic and getattr(traffic, name) for name in cls.LINK},
                   reason=reason, truncated=control.accumulated, predicted_error=control.predicted, detail=result)


class Session:
    """A model loaded into a device.

    Parameters
        model: path of an ``.onnx`` or ``.rrm`` file, or a ``Model``.
        device: a backend ("rtl", "model", see ``host.devices``) or a ``Device``.
        threshold: send a change of at least this many codes; 0 and 1 are exact. For all tensors or by name; None is
            what an ``.rrm`` file was tuned to, else 0.
        epsilon: the same in real units, see ``host.thresholds``; instead of ``threshold``.
        mode: ``hold`` (what is not sent leaves the reference where it was) or ``truncate`` (the paper's: the
            reference always moves). For all tensors or by name.
        calibration: sample frames for an ``.onnx`` file in real numbers; uint8[H, W, 3] RGB.
        weights: how to quantise such a file, see ``host.quantiser.quantise``.
        refresh: frames that ``infer`` computes from scratch by itself: ``auto`` those of which that is predicted to
            be cheaper (``host.refresh.RefreshRule``; its rule is the ``.rrm`` file's or found on the sample frames;
            without one, none), N every Nth, ``never`` neither.
        max_error: with ``truncate``: also those after frames whose predicted error is larger (``host.aecs``).

    Members
        model: the quantised model.
        thresholds, modes: in codes, by tensor.
        refresh_every: frames after which ``infer`` refreshes by itself because the accumulators could wrap
            otherwise (``truncate`` only), or None.

    Raises UserError when the model, a threshold or the device cannot be used.
    """

    def __init__(self, model: str | Path | Model, device: str | Device = "model", *,
                 threshold: int | Mapping[str, int] | None = None, mode: Mode | Mapping[str, Mode] = "hold",
                 epsilon: float | None = None, calibration: Iterable[np.ndarray] = (), weights: Weights = "auto",
                 refresh: Policy = "auto", max_error: float | None = None) -> None:
        model, samples = model if isinstance(model, Model) else open_model(model), list(calibration)
        model = quantised(model, samples, weights)
        self.model = with_rule(model, samples) if refresh == "auto" else model
        self.network, sections = self.model.network, self.model.sections
        thresholds = self._by_tensor(chosen(model, threshold, epsilon), 0)
        modes = self._by_tensor(mode, "hold")
        for name, value in thresholds.items():
            if not 0 <= value <= 255:
                raise UserError(f"threshold of tensor {name} is {value}; it must be 0..255 codes")
        for name, value in modes.items():
            if value not in ("hold", "truncate"):
                raise UserError(f"mode of tensor {name} is '{value}'; it must be hold or truncate")
        drifting = {n: t for n, t in thresholds.items() if modes[n] == "truncate"}
        self.refresh_every = refresh_interval(self.network.graph, drifting)
        error_model = ErrorModel.from_section(sections[aecs.SECTION]) if aecs.SECTION in sections else None
        self._control = ErrorControl(self.network.graph, modes, error_model, max_error)
        rule = RefreshRule.from_section(sections[REFRESH]) if REFRESH in sections else None
        self._schedule = Schedule(refresh, rule, thresholds, self.refresh_every, self._control)
        self.device = open_device(device) if isinstance(device, str) else device
        self.device.load(self.model, thresholds, modes)
        self.thresholds, self.modes, self._frame = thresholds, modes, 0

    def infer(self, frame: np.ndarray, refresh: bool = False) -> tuple[dict[str, np.ndarray], FrameStats]:
        """Run one frame uint8[H, W, 3] RGB and return (every network output by its ONNX name, stats).

        ``refresh`` computes this frame from scratch; the first one always is.
        """
        return self.infer_array(self._array(frame), refresh)

    def infer_array(self, array: np.ndarray,
                    refresh: bool = False) -> tuple[dict[str, np.ndarray], FrameStats]:
        """``infer`` for an array that is preprocessed already: what onnxruntime would be fed with."""
        codes, name = self.codes(array), self.network.graph.input
        reason = self._schedule.reason(lambda: self.device.read_tensor(name), codes, refresh)
        result = self.device.frame(codes, reason is not None)
        reason = self._schedule.done(reason, result.refresh)
        self._control.add(result.dropped, result.refresh)
        stats = FrameStats.of(self._frame, result, reason, self._control)
        self._frame += 1
        return self.network.finish(dict(result.outputs)), stats

    def frame_codes(self, frame: np.ndarray) -> np.ndarray:
        """``codes`` of a frame uint8[H, W, 3] RGB."""
        return self.codes(self._array(frame))

    def codes(self, array: np.ndarray) -> np.ndarray:
        """Codes int16[C, H, W] of the input tensor for what onnxruntime would be fed with."""
        graph = self.network.graph
        return self.network.input.to_codes(array, graph.tensors[graph.input].code)

    def tap(self, name: str) -> np.ndarray:
        """A tensor, or a projection (before bias and activation), after the last frame: float32[C, H, W].

        Raises UserError listing similar names when there is none of that name.
        """
        self.check_tap(name)
        codes, graph = self.device.read_tensor(name), self.network.graph
        if name in graph.tensors:
            return graph.tensors[name].code.decode(codes).astype(np.float32)
        return (codes * graph.projections[name].scale[:, None, None]).astype(np.float32)

    def check_tap(self, name: str) -> None:
        """Raises the UserError that ``tap`` would raise."""
        graph = self.network.graph
        names = [*graph.tensors, *graph.projections]
        if name not in names:
            similar = difflib.get_close_matches(name, names, 5, 0.4) or list(graph.tensors)[:5]
            raise UserError(f"network {self.network.name} has no tensor '{name}'; similar names: "
                            + ", ".join(similar))

    def placement(self, frame: np.ndarray) -> Placement:
        """Where a frame lies in the picture that the network sees (for heads)."""
        return self.model.sidecar.input.placement((frame.shape[1], frame.shape[0]), self.network.input)

    def reset(self) -> None:
        """Forget everything: the next frame is a refresh. Frame numbers go on."""
        self.device.reset()
        self._schedule.reset()

    def close(self) -> None:
        """Give the device back."""
        self.device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _array(self, frame: np.ndarray) -> np.ndarray:
        return self.model.sidecar.input.apply(_checked(frame), self.network.input)

    def _by_tensor(self, value: object, default: object) -> dict:
        tensors = self.network.graph.tensors
        if not isinstance(value, Mapping):
            return dict.fromkeys(tensors, value)
        for name in value:
            if name not in tensors:
                self.check_tap(name)
                raise UserError(f"'{name}' is a projection; thresholds and modes belong to tensors")
        return dict.fromkeys(tensors, default) | dict(value)


def _checked(frame: np.ndarray) -> np.ndarray:
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise UserError(f"a frame must be uint8[height, width, 3] RGB, not {frame.dtype}{list(frame.shape)}")
    return frame
