"""How close the quantised networks are to the real-number ones: ``python -m benchmarks.fidelity [-o PAGE.md]``.

For every float network of ../shared/models and one fitting clip: SQNR of every network output against
onnxruntime float, for this project's golden model and for onnxruntime's own static per-channel int8
quantisation (QDQ, MinMax), both calibrated on the same 32 frames and measured on up to 96 other frames of the clip.
QDQ networks: agreement with onnxruntime's own execution of them.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from host.calibration import calibrate
from host.network import Network
from host.onnx_import import import_onnx
from host.preprocess import Preprocess
from host.quantiser import accumulator_width, pixel_code, quantise
from host.sidecar import preset_for
from host.video import sample_frames
from sim.golden import GoldenModel

SHARED = Path(__file__).resolve().parents[2] / "shared"
CALIBRATION_FRAMES, TEST_FRAMES = 32, 96
CASES = {
    "mlperftiny_resnet8_cifar10": "cars_a_768x432_120f",
    "mlperftiny_resnet8_cifar10_int8qdq": "cars_a_768x432_120f",
    "mlperftiny_vww_96": "person_walk_a_768x432_250f",
    "mlperftiny_vww_96_int8qdq": "person_walk_a_768x432_250f",
    "mlperftiny_vww_96_sparse83": "person_walk_a_768x432_250f",
    "ultraface_slim_320_rawheads": "asl_again_640x480_77f",
    "yolo_fastest_1.1_body_320": "person_walk_a_768x432_250f",
    "fsrcnn_x2_176x144": "asl_again_640x480_77f",
    "squeezenet10_deepcompression": "bottles_still_640x360_200f",
    "tfpose_mnv2small_320x240_frozenbn_asl": "asl_again_640x480_77f",
}


class _Frames(CalibrationDataReader):
    def __init__(self, name: str, arrays: list[np.ndarray]) -> None:
        self.feeds = iter([{name: a} for a in arrays])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def sqnr(exact: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Signal to quantisation-noise ratio over all frames, in dB."""
    signal = sum(float(np.square(e, dtype=np.float64).sum()) for e in exact)
    noise = sum(float(np.square(e.astype(np.float64) - o).sum()) for e, o in zip(exact, other, strict=True))
    return 10 * np.log10(signal / noise) if noise else np.inf


def load_case(stem: str) -> tuple[Path, Network, Preprocess, list[np.ndarray], list[np.ndarray]]:
    """Network of ../shared/models, its preprocessing, and ONNX input arrays (calibration, test)."""
    path = SHARED / "models" / f"{stem}.onnx"
    network, preprocess = import_onnx(path), preset_for(path).input
    clip = SHARED / "clips" / f"{CASES[stem]}.mp4"
    frames = [preprocess.apply(f, network.input) for f in sample_frames(clip, CALIBRATION_FRAMES + TEST_FRAMES)]
    test = np.linspace(1, len(frames) - 1, min(TEST_FRAMES, len(frames) // 2)).round().astype(int)
    return path, network, preprocess, [f for i, f in enumerate(frames) if i not in test], [frames[i] for i in test]


def run_onnx(path: Path, arrays: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Every network output of onnxruntime, frame by frame."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names, feed = [o.name for o in session.get_outputs()], session.get_inputs()[0].name
    return [dict(zip(names, session.run(None, {feed: a}), strict=True)) for a in arrays]


def run_ours(network: Network, arrays: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Every network output of the golden model (``rrm`` path, exact), frame by frame."""
    model, code = GoldenModel(network.graph), network.graph.tensors[network.graph.input].code
    return [network.finish(model.frame(network.input.to_codes(a, code)).outputs) for a in arrays]


def run_onnx_int8(path: Path, network: Network, calibration: list[np.ndarray], test: list[np.ndarray],
                  ) -> list[dict[str, np.ndarray]]:
    """onnxruntime's static per-channel int8 quantisation of the same network."""
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder) / "int8.onnx"
        model = onnx.load(path)  # per-channel scales need operator set 13
        if model.opset_import[0].version < 13:
            model = onnx.version_converter.convert_version(model, 13)
        quantize_static(model, str(quantised), _Frames(network.input.name, calibration),
                        quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        return run_onnx(quantised, test)


def measure(stem: str) -> list[str]:
    """Rows of the table for one network."""
    path, network, preprocess, calibration, test = load_case(stem)
    exact = run_onnx(path, test)
    if all(t.code is not None for t in network.graph.tensors.values()):
        ours = run_ours(quantise(network), test)
        rows = []
        for name, _ in network.outputs:
            difference = np.concatenate([np.abs(e[name].astype(float) - o[name]).ravel()
                                         for e, o in zip(exact, ours, strict=True)])
            top = np.mean([e[name].argmax() == o[name].argmax() for e, o in zip(exact, ours, strict=True)])
            shares = ", ".join(f"{d:g}: {n / difference.size:.1%}"
                               for d, n in zip(*np.unique(difference, return_counts=True), strict=True))
            rows.append(f"| {stem} | {name} | top-1 agreement {top:.1%} | differences in codes: {shares} | |")
        return rows
    quantised = quantise(network, calibrate(network, calibration),
                         input_code=pixel_code(preprocess.mean, preprocess.scale))
    ours, theirs = run_ours(quantised, test), run_onnx_int8(path, network, calibration, test)
    width = max(accumulator_width(quantised.graph).values())
    return [f"| {stem} | {name} | {sqnr([e[name] for e in exact], [o[name] for o in ours]):.1f} | "
            f"{sqnr([e[name] for e in exact], [o[name] for o in theirs]):.1f} | {width} |"
            for name, _ in network.outputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--page", type=Path, help="write the table here as Markdown")
    parser.add_argument("networks", nargs="*", default=list(CASES), help="networks to measure (default: all)")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # onnxruntime's advice on pre-processing: these files have it behind them
    lines = ["# Fidelity of the quantised networks", "", *__doc__.strip().splitlines()[1:], "",
             "| network | output | SQNR, dB | onnxruntime int8 SQNR, dB | accumulator bits proven |",
             "|---|---|---|---|---|"]
    for stem in args.networks:
        start = time.perf_counter()
        for row in measure(stem):
            print(row, flush=True)
            lines.append(row)
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    if args.page:
        args.page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
