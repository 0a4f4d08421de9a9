"""The linear layers: convolutions, fully connected layers and averages become edges into a projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from host.onnx_import.builder import four_dimensional
from host.onnx_import.errors import Unsupported
from host.onnx_import.loader import OnnxNode
from host.onnx_import.ops_elementwise import summed
from host.onnx_import.registry import Context, Kind, operator, real, weights
from host.onnx_import.resample import AxisMap, common_step
from host.onnx_import.values import Const, Unit, Value, View
from sim.graph import Geometry

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A sliding window over an image of one or two axes, as (y, x) pairs."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    begin: Pair
    end: Pair
    size: Pair

    @classmethod
    def of(cls, node: OnnxNode, shape: Sequence[int], kernel: Sequence[int]) -> Window:
        """From a Conv's or pool's attributes; ``shape`` is the input's ONNX shape."""
        axes = len(shape) - 2
        if axes not in (1, 2):
            raise Unsupported(f"it works on {axes} image axes; 1 or 2 are possible")
        image, kernel = pair(shape[2:], 1), pair(kernel, 1)
        stride = pair(node.attribute("strides", [1] * axes), 1)
        dilation = pair(node.attribute("dilations", [1] * axes), 1)
        pads = node.attribute("pads", [0] * 2 * axes)
        begin, end = pair(pads[:axes], 0), pair(pads[axes:], 0)
        reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        mode = node.attribute("auto_pad", "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            size = tuple(-(-n // s) for n, s in zip(image, stride, strict=True))
            total = [max((o - 1) * s + r - n, 0)
                     for o, s, r, n in zip(size, stride, reach, image, strict=True)]
            small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
            begin, end = (small, large) if mode == "SAME_UPPER" else (large, small)
        elif mode == "VALID":
            begin = end = (0, 0)
        ceil = bool(node.attribute("ceil_mode", 0)) and mode == "NOTSET"
        size = tuple(_positions(*at, ceil=ceil) for at in zip(image, begin, end, stride, reach, strict=True))
        if min(size) < 1:
            raise Unsupported(f"its window of {kernel} does not fit an image of {image}")
        return cls(kernel, stride, dilation, begin, end, size)

    @property
    def geometry(self) -> Geometry:
        """As the geometry of an edge."""
        return Geometry(self.stride, self.dilation, (1, 1), self.begin)


def _positions(image: int, begin: int, end: int, stride: int, reach: int, *, ceil: bool) -> int:
    """Number of window positions; ``ceil``: also a last partial one that starts before the end padding."""
    room = image + begin + end - reach
    count = -(-room // stride) + 1 if ceil else room // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= image + begin else count


def pair(values: Sequence[int], missing: int) -> Pair:
    """One value per image axis as (y, x): a 1-D signal lies along x."""
    return (missing, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def _onnx_shape(axes: int, unit: Unit) -> tuple[int, ...]:
    channels, height, width = unit.shape
    return (1, channels, width) if axes == 1 else (1, channels, height, width)


def _kernel(arg: Value | None, what: str = "weight") -> np.ndarray:
    """A convolution's weight [., ., kh, kw]."""
    weight = weights(arg, what)
    if weight.ndim not in (3, 4):
        raise Unsupported(f"it works on {weight.ndim - 2} image axes; 1 or 2 are possible")
    return weight[:, :, None, :] if weight.ndim == 3 else weight


def _step(arg: Value | None, axis: int, groups: int = 1) -> np.ndarray | None:
    """The integer step of each output channel of a dequantised weight, or None.

    The output channels lie on ``axis``, for each of ``groups`` anew.
    """
    if not isinstance(arg, Const) or arg.step is None:
        return None
    step = np.moveaxis(arg.step, axis, 0)
    step = step.reshape(len(step), -1)
    if (step != step[:, :1]).any():
        return None
    return np.tile(step[:, 0], groups)


def _bias(args: Sequence[Value | None], position: int) -> np.ndarray | None:
    return weights(args[position], "bias") if len(args) > position and args[position] is not None else None


@operator("Conv", kind=Kind.LAYER, becomes="an edge per producer of its input",
          limits="1-D and 2-D, any kernel, stride, dilation, groups, padding, `auto_pad`; constant weights")
def conv(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Convolution."""
    weight, view = _kernel(args[1]), real(args[0])
    window = Window.of(node, view.shape, weight.shape[4 - (len(view.shape) - 2):])
    unit = context.builder.convolution(
        node.outputs[0], view, four_dimensional(view.index)[0], weight, window.geometry, window.size,
        node.attribute("group", 1), _bias(args, 2), _step(args[1], 0))
    return View.whole(unit, _onnx_shape(len(view.shape) - 2, unit))


@operator("ConvTranspose", kind=Kind.LAYER, becomes="an edge with up-sampling and the kernel turned round",
          limits="1-D and 2-D, any stride, dilation, groups, pads, `output_padding`, `output_shape`, "
                 "`auto_pad`; constant weights")
def conv_transpose(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Transposed convolution: output position ``y * stride - pad + k * dilation``."""
    weight, view, groups = _kernel(args[1]), real(args[0]), node.attribute("group", 1)
    axes = len(view.shape) - 2
    kernel, image = weight.shape[2:], pair(view.shape[2:], 1)
    stride, dilation = (pair(node.attribute(n, [1] * axes), 1) for n in ("strides", "dilations"))
    extra = pair(node.attribute("output_padding", [0] * axes), 0)
    full = [s * (n - 1) + e + (k - 1) * d + 1
            for s, n, e, k, d in zip(stride, image, extra, kernel, dilation, strict=True)]
    pads, mode = node.attribute("pads", [0] * 2 * axes), node.attribute("auto_pad", "NOTSET")
    begin, end = pair(pads[:axes], 0), pair(pads[axes:], 0)
    size = node.attribute("output_shape", None)
    if size is not None or mode.startswith("SAME"):
        same = tuple(n * s for n, s in zip(image, stride, strict=True))
        size = same if size is None else pair(size[-axes:], 1)
        total = [max(f - o, 0) for f, o in zip(full, size, strict=True)]
        begin = tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total)
    else:
        begin, end = ((0, 0), (0, 0)) if mode == "VALID" else (begin, end)
        size = tuple(f - p - q for f, p, q in zip(full, begin, end, strict=True))
    inputs, outputs = weight.shape[:2]
    turned = (weight[:, :, ::-1, ::-1].reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2)
              .reshape(groups * outputs, inputs // groups, *kernel))
    pad = tuple((k - 1) * d - p for k, d, p in zip(kernel, dilation, begin, strict=True))
    unit = context.builder.convolution(
        node.outputs[0], view, four_dimensional(view.index)[0], turned,
        Geometry((1, 1), dilation, stride, pad), size, groups, _bias(args, 2), _step(args[1], 1, groups))
    return View.whole(unit, _onnx_shape(axes, unit))


@operator("Gemm", kind=Kind.LAYER, becomes="an edge per producer, with the whole image as its kernel",
          limits="one operand constant; `transA`, `transB`, `alpha`, `beta`")
def gemm(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """``alpha * A @ B + beta * C`` with A the data and B constant."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    turned, view = bool(node.attribute("transB", 0)), real(args[0])
    weight, step = weights(args[1], "weight"), _step(args[1], 0 if turned else 1)
    weight = alpha * (weight.T if turned else weight)
    index = view.index.T if node.attribute("transA", 0) else view.index
    third = args[2] if len(args) > 2 else None
    name = node.outputs[0] if not isinstance(third, View) else f"{node.outputs[0]}/product"
    outputs = weight.shape[1]
    bias = np.zeros(outputs)
    if isinstance(third, Const):
        given = beta * weights(third, "bias")
        if given.size > outputs:
            raise Unsupported("its bias differs between rows; one value per output is possible")
        bias = np.broadcast_to(given.reshape(-1), outputs)
    step = None if step is None or alpha == 0 else step * abs(alpha)
    product = _matrix(context, name, view, index, weight, bias, step)
    if not isinstance(third, View):
        return product
    if beta != 1:
        raise Unsupported(f"it adds a map times beta = {beta}; only beta = 1 is possible")
    return summed(context.builder, node.outputs[0], product, third)


@operator("MatMul", kind=Kind.LAYER, becomes="an edge per producer: fully connected, or 1x1 over the rows",
          limits="exactly one operand constant, a matrix")
def matmul(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """``A @ B`` with one of them constant."""
    left = isinstance(args[0], Const)
    weight, view = weights(args[0 if left else 1], "second operand"), real(args[1 if left else 0])
    if weight.ndim > 2 and weight.size == np.prod(weight.shape[-2:]):
        weight = weight.reshape(weight.shape[-2:])
    if weight.ndim != 2:
        raise Unsupported(f"its constant has shape {list(weight.shape)}; a matrix is possible")
    step = _step(args[0 if left else 1], 0 if left else -1)
    index = np.swapaxes(view.index, -1, -2) if left else view.index
    bias = np.zeros(weight.shape[0 if left else 1])
    product = _matrix(context, node.outputs[0], view, index, weight.T if left else weight, bias, step)
    return product.arranged(np.swapaxes(product.index, -1, -2)) if left else product


def _matrix(context: Context, name: str, view: View, index: np.ndarray, weight: np.ndarray, bias: np.ndarray,
            step: np.ndarray | None) -> View:
    """``index`` [..., N] times weight [N, M]: fully connected for one row, else 1x1 over the rows."""
    rows = index.shape[:-1]
    if np.prod(rows) == 1:
        unit = context.builder.dense(name, view, index.ravel(), weight, bias, step)
        return View.whole(unit, (*rows, weight.shape[1]))
    image = tuple(n for n in rows if n != 1)
    image = (1, *image) if len(image) == 1 else image
    if len(image) != 2:
        raise Unsupported(f"it has rows of shape {list(rows)}; up to two axes are possible")
    planes = np.moveaxis(index.reshape(*image, index.shape[-1]), -1, 0)
    unit = context.builder.convolution(name, view, planes, weight.T[:, :, None, None], Geometry(), image,
                                       bias=bias, step=step)
    whole = View.whole(unit)
    return whole.arranged(np.moveaxis(whole.index[0], 0, -1).reshape(*rows, weight.shape[1]))


# ---- averages

@operator("AveragePool", "GlobalAveragePool", kind=Kind.LAYER, limits="1-D and 2-D",
          becomes="a depthwise edge of ones / divisor; windows at the border that average over fewer pixels "
                  "get edges of their own")
def average_pool(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Average over a window."""
    view = real(args[0])
    image = four_dimensional(view.index)[0]
    kernel = node.attribute("kernel_shape", view.shape[2:])
    window = Window.of(node, view.shape, kernel)
    padding_counts = bool(node.attribute("count_include_pad", 0))
    averages = [_average_map(window, axis, n, padding_counts) for axis, n in enumerate(image.shape[1:])]
    if all(len(divisors) == 1 for _, divisors in averages):
        divisor = prod(n for _, divisors in averages for n in divisors)
        unit = _averaged(context, node.outputs[0], view, image, window.kernel, window.geometry, window.size,
                         divisor)
    else:
        maps = [m for m, _ in averages]
        unit = context.builder.resampled(node.outputs[0], view, image, *maps, step=common_step(*maps))
    return View.whole(unit, _onnx_shape(len(view.shape) - 2, unit))


def _average_map(window: Window, axis: int, length: int, padding_counts: bool) -> tuple[AxisMap, set[int]]:
    """The averages over one axis as a matrix, and the numbers of pixels that they are over."""
    low, high = (-window.begin[axis], length + window.end[axis]) if padding_counts else (0, length)
    taps = np.arange(window.kernel[axis]) * window.dilation[axis]
    starts = np.arange(window.size[axis]) * window.stride[axis] - window.begin[axis]
    at = starts[:, None] + taps
    counts = ((at >= low) & (at < high)).sum(axis=1)
    matrix = (at[:, :, None] == np.arange(length)).sum(axis=1) / counts[:, None]
    return AxisMap(matrix, window.stride[axis]), set(counts.tolist())


def _averaged(context: Context, name: str, view: View, image: np.ndarray, kernel: Pair, geometry: Geometry,
              size: Pair, divisor: int) -> Unit:
    channels = len(image)
    weight = np.full((channels, 1, *kernel), 1 / divisor)
    return context.builder.convolution(name, view, image, weight, geometry, size, channels,
                                       step=np.full(channels, 1 / divisor))


@operator("ReduceMean", kind=Kind.LAYER, limits="any axes but the batch",
          becomes="a depthwise edge of ones / divisor; over channels a 1x1 edge")
@operator("ReduceSum", kind=Kind.LAYER, limits="any axes but the batch", anchors=False,
          becomes="a depthwise edge of ones; over channels a 1x1 edge")
def reduce_mean(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Mean or sum over some axes."""
    view = real(args[0])
    given, rank = node.attribute("axes", None), len(view.shape)
    if len(args) > 1 and args[1] is not None:
        given = weights(args[1], "list of axes").astype(int).tolist()
    if not given and node.attribute("noop_with_empty_axes", 0):
        return view
    axes = sorted({a % rank for a in (given or range(1, rank))})
    keep = node.attribute("keepdims", 1)
    shape = [1 if a in axes else n for a, n in enumerate(view.shape) if keep or a not in axes]
    if 0 in axes and view.shape[0] != 1:
        raise Unsupported("it reduces the batch axis")
    planes = four_dimensional(view.index)[0]
    order = (2, 0, 1) if axes == [1, 2] and rank == 4 else (0, 1, 2)  # NHWC: the channels come last
    planes = planes.transpose(order)
    spatial = {3: (0, 2), 4: (0, 1, 2), 2: (0,)}[rank]
    reduced = {order.index(spatial[a - 1]) for a in axes if a}
    divisor = int(np.prod([view.shape[a] for a in axes])) if node.op == "ReduceMean" else 1
    kernel = tuple(n if a in reduced else 1 for a, n in zip((1, 2), planes.shape[1:], strict=True))
    size = tuple(1 if a in reduced else n for a, n in zip((1, 2), planes.shape[1:], strict=True))
    if 0 in reduced:
        weight = np.full((1, len(planes), *kernel), 1 / divisor)
        unit = context.builder.convolution(node.outputs[0], view, planes, weight, Geometry(), size,
                                           step=np.full(1, 1 / divisor))
    else:
        unit = _averaged(context, node.outputs[0], view, planes, kernel, Geometry(), size, divisor)
    result = View.whole(unit).index[0].transpose(np.argsort(order))
    return View.whole(unit).arranged(result.reshape(shape))
