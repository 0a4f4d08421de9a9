"""A network ready for a device: the RRM graph between an ONNX input array and ONNX outputs.

::

    ONNX input array --input.to_real / input.to_codes--> graph --graph.outputs--> tail (onnxruntime) --> outputs

The importer makes it in real numbers, the quantiser fills in the integers, a ``.rrm`` file stores it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim.graph import Code, Graph


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """The ONNX input and how it becomes the graph's input tensor.

    name, shape, dtype
        of the ONNX input array ("float32", "int8" or "uint8"; batch 1 included in ``shape``).
    index
        int64[C, H, W]: flat position in the ONNX array of each element of the input tensor (layout).
    stored
        for integer inputs, the scale and zero point with which the network reads them; else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    index: np.ndarray
    stored: Code | None = None

    def to_real(self, array: np.ndarray) -> np.ndarray:
        """ONNX input array -> real values float64[C, H, W] of the input tensor."""
        real = np.asarray(array, np.float64).reshape(-1)[self.index]
        return real if self.stored is None else (real - self.stored.zero_point) * self.stored.scale

    def to_codes(self, array: np.ndarray, code: Code) -> np.ndarray:
        """ONNX input array -> codes int16[C, H, W] of the input tensor (exact for integer inputs)."""
        if self.stored is not None and self.stored == code:
            flat = np.asarray(array).reshape(-1)[self.index]
            return (flat.astype(np.int16) - np.int16(code.zero_point)).astype(np.int16)
        return code.encode(self.to_real(array))


@dataclass(frozen=True, eq=False)
class Network:
    """A network: graph, its input, and the part of the ONNX file that runs on the host after it.

    outputs
        (ONNX name, shape) of every network output, in the file's order.
    tail
        a serialised ONNX model that makes the outputs which the graph does not hand over by themselves;
        its inputs are names of ``graph.outputs``. None when every network output is a graph output.
    """

    name: str
    graph: Graph
    input: NetworkInput
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    tail: bytes | None = None

    @cached_property
    def _tail_session(self):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.tail, options, providers=["CPUExecutionProvider"])

    def finish(self, handed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Real values of ``graph.outputs`` by name -> every network output (float32 unless the file says else)."""
        values = {name: np.asarray(v, np.float32) for name, v in handed.items()}
        if self.tail is not None:
            session = self._tail_session
            fed = {i.name: values[i.name] for i in session.get_inputs()}
            values |= dict(zip((o.name for o in session.get_outputs()), session.run(None, fed), strict=True))
        return {name: values[name] for name, _ in self.outputs}
