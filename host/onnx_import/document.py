"""``docs/onnx.md``, made from the operator table: ``python -m host.onnx_import.document > docs/onnx.md``."""

from __future__ import annotations

from host.onnx_import import importer  # noqa: F401 (fills the operator table)
from host.onnx_import.registry import operator_table

_TEXT = """\
# ONNX networks: what can run, and what becomes of it

<!-- Made by `python -m host.onnx_import.document > docs/onnx.md`; edit the table in host/onnx_import. -->

A network is one image in, any number of arrays out: batch 1, fixed shape, `float32`, `int8` or `uint8`,
channels first or last. `rrm-fpga inspect net.onnx` shows the RRM graph that it becomes, or lists everything
that cannot run, with node name, operator and reason, all at once.

## Rules

- **Layers** become edges into a projection `P`; what follows a layer up to the next one (bias,
  BatchNormalization, activation, clip, residual sum, max-pool) becomes one node that makes one tensor.
- **Views** (Reshape, Transpose, Concat, Split, Slice, Pad, channel shuffle, space-to-depth...) cost
  nothing: they are channel maps and geometry of the edges behind them. A concat is never stored: each layer
  that reads it has one edge per producer. The input tensor is laid out as its first layer reads it.
- **Names.** A tensor has the name of the ONNX value that it holds, after the last operator fused into it;
  with `[i]` behind it when it holds only a part of that value or another order of its elements. A
  projection has the name of its layer's output with `#P` behind it.
- **The tail.** Operators with no layer behind them (Softmax, Sigmoid, box decoding, a last Relu...) run on
  the host in onnxruntime; network outputs that only rearrange a projection or tensor are read directly.
- **Networks with their own scales** (QuantizeLinear/DequantizeLinear pairs) keep them: every QuantizeLinear
  is a tensor with that scale and zero point and has its output's name; weights and scales of projections
  are exactly the file's integers. Where equal parameters make a pair an identity there is no extra tensor.
  The Q of a layer that only an Add reads becomes the code of that operand. One case is rounded anew:
  tensors of different scales that enter one layer without a QuantizeLinear between them are requantised to
  a common scale.
- **Constants** and everything computed from shapes are folded.
- **Anything else** in front of a layer cannot run: gates (Sigmoid, Swish, Softmax), normalisation by the
  frame's own values (LRN, InstanceNormalization), products of two maps, dynamic shapes, several images. Use
  another operator and train again, or cut the file before it with `onnx.utils.extract_model`.

## Operators
"""


def page() -> str:
    """The whole page as Markdown."""
    return f"{_TEXT}\n{operator_table()}"


if __name__ == "__main__":
    print(page(), end="")
