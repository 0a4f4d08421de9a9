"""Max-pooling, which belongs to the node, and resizing, which is a linear edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

import numpy as np

from host.onnx_import.builder import NCHW_TO_NHWC, NHWC_TO_NCHW, Builder, four_dimensional
from host.onnx_import.errors import Unsupported
from host.onnx_import.loader import OnnxNode
from host.onnx_import.ops_elementwise import derived, each_unit, own_sum
from host.onnx_import.ops_layer import Window
from host.onnx_import.registry import Context, Kind, operator, real
from host.onnx_import.resample import AxisMap, common_step
from host.onnx_import.values import Const, Unit, UnitLayout, Value, View, as_planes
from sim.graph import Pool


@operator("MaxPool", "GlobalMaxPool", kind=Kind.SPATIAL, becomes="the max-pool at the end of the node",
          limits="no `Indices` output; several pools of one map share its projection", anchors=False)
def max_pool(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Maximum over a window, also of integer values."""
    if len([o for o in node.outputs if o]) > 1:
        raise Unsupported("its Indices output cannot be made")
    view, name, b = args[0], node.outputs[0], context.builder
    window = Window.of(node, view.shape, node.attribute("kernel_shape", view.shape[2:]))
    planes = _whole_planes(view)
    if planes is None:
        view = b.gathered(f"{name}/in", real(view))
        planes = _whole_planes(view)
    pool = Pool(window.kernel, window.stride, window.begin, window.dilation)
    code = view.code
    pooled = each_unit(b, name, view, lambda _, name, unit: _pooled(b, name, unit, pool, window.size))
    if code is not None:
        pooled = pooled.with_units([replace(u, code=old.code) for u, old in
                                    zip(pooled.units, map(b.settled, view.units), strict=True)])
    layout, size = UnitLayout(pooled.units), window.size[0] * window.size[1]
    index = 1 + planes[:, None] * size + np.arange(size)
    shape = (*view.shape[:2], *window.size[2 - (len(view.shape) - 2):])
    assert layout.starts[-1] > index.max()
    return replace(pooled, index=index.reshape(shape))


def _pooled(b: Builder, name: str, unit: Unit, pool: Pool, size: tuple[int, int]) -> Unit:
    unit = own_sum(b, b.settled(unit))
    if unit.pool is not None:
        unit = b.tensor(unit)
    return derived(b, name, unit, pool=pool, shape=(unit.shape[0], *size))


def _whole_planes(view: View) -> np.ndarray | None:
    """Joined channel number of every channel of the view, when each is one whole plane of a unit."""
    index = four_dimensional(view.index)[0]
    planes = as_planes(view, index)
    if planes is None or sum(len(p.positions) for p in planes) < len(index):
        return None
    for p in planes:
        if any(not np.array_equal(at, np.arange(n))
               for at, n in zip((p.rows, p.columns), p.unit.shape[1:], strict=True)):
            return None
    return view.layout.channel(index[:, 0, 0])


# ---- resizing

@operator("Resize", "Upsample", kind=Kind.SPATIAL, anchors=False,
          becomes="depthwise edges with up-sampling; repeated border pixels get edges of their own",
          limits="`nearest` and `linear`, image axes only, factors that are small fractions; `half_pixel`, "
                 "`pytorch_half_pixel`, `asymmetric`, `tf_half_pixel_for_nn`, `align_corners` (few taps)")
def resize(context: Context, node: OnnxNode, args: Sequence[Value | None]) -> View:
    """Nearest or linear resizing by the formulas of ONNX."""
    view, name = real(args[0]), node.outputs[0]
    _refuse_variants(node)
    scales, sizes = _targets(context, node, args, view.shape)
    axes = [a for a, (n, m) in enumerate(zip(view.shape, sizes, strict=True)) if n != m or scales[a] != 1]
    channels_last = len(view.shape) == 4 and 1 in axes and 3 not in axes
    order, back = (NHWC_TO_NCHW, NCHW_TO_NHWC) if channels_last else ((0, 1, 2, 3), (0, 1, 2, 3))
    first = {4: 2, 3: 1}.get(len(view.shape), 0) - channels_last
    if any(not first <= a < first + 2 or a == 0 for a in axes) or len(view.shape) not in (3, 4):
        raise Unsupported("it resizes the batch or channel axis")
    index = four_dimensional(view.index).transpose(order)[0]
    if channels_last and as_planes(view, index) is None:
        raise Unsupported("it resizes the channel axis")
    maps = [_axis_map(context, node, view.shape[a], sizes[a], scales[a]) if a in axes else None
            for a in (first, first + 1)]
    unit = context.builder.resampled(name, view, index, *maps, step=common_step(*maps))
    whole = View.whole(unit)
    return whole.arranged(whole.index.transpose(back).reshape(sizes))


def _refuse_variants(node: OnnxNode) -> None:
    mode = node.attribute("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        raise Unsupported(f"its mode is {mode}; nearest and linear are possible")
    if node.attribute("antialias", 0):
        raise Unsupported("it uses antialias; only plain linear resizing is possible")
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("it keeps the aspect ratio; give the sizes themselves")
    if node.attribute("exclude_outside", 0):
        raise Unsupported("it leaves out pixels beyond the border (exclude_outside)")


def _targets(context: Context, node: OnnxNode, args: Sequence[Value | None],
             shape: Sequence[int]) -> tuple[list[Fraction], list[int]]:
    """Scale and size of every axis."""
    if any(isinstance(a, View) for a in args[1:]):
        raise Unsupported("its size depends on the image; only constants are possible")
    given = [a.array.tolist() if isinstance(a, Const) and a.array.size else None for a in args[1:]]
    late = node.op == "Resize" and context.source.opsets[""] >= 11
    scales = node.attribute("scales", None) or (given + [None] * 3)[1 if late else 0]
    sizes = (given + [None] * 3)[2] if late else None
    axes = [a % len(shape) for a in node.attribute("axes", range(len(shape)))]
    if scales is None:
        targets = dict(zip(axes, map(int, sizes), strict=True))
        target = [targets.get(a, n) for a, n in enumerate(shape)]
        return [Fraction(m, n) for m, n in zip(target, shape, strict=True)], target
    by_axis = dict(zip(axes, scales, strict=True))
    exact = [_fraction(by_axis.get(a, 1.0)) for a in range(len(shape))]
    if node.attribute("coordinate_transformation_mode", "") == "align_corners" and any(
            (n * f).denominator > 1 for n, f in zip(shape, exact, strict=True)):
        raise Unsupported("its factor gives no whole size, which align_corners leaves undefined; give the sizes")
    return exact, [floor(n * f) for n, f in zip(shape, exact, strict=True)]


def _fraction(scale: float) -> Fraction:
    near = Fraction(scale).limit_denominator(256)
    if scale <= 0 or abs(float(near) - scale) > 1e-6 * scale:
        raise Unsupported(f"its factor {scale} is not a small fraction")
    return near


def _axis_map(context: Context, node: OnnxNode, source: int, target: int, scale: Fraction) -> AxisMap:
    """The matrix of one axis: where each output pixel is read, exactly."""
    late = node.op == "Resize" and context.source.opsets[""] >= 11
    coordinates = node.attribute("coordinate_transformation_mode", "half_pixel" if late else "asymmetric")
    half, ratio = Fraction(1, 2), scale
    if coordinates == "align_corners":
        ratio = Fraction(target - 1, source - 1) if source > 1 and target > 1 else Fraction(1)
        at = [o / ratio if target > 1 else Fraction(0) for o in range(target)]
    elif coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and target > 1) or (
            coordinates == "half_pixel_symmetric" and scale * source == target):
        at = [(o + half) / scale - half for o in range(target)]
    elif coordinates == "asymmetric":
        at = [o / scale for o in range(target)]
    elif coordinates == "pytorch_half_pixel":
        at = [Fraction(0)] * target
    elif coordinates == "tf_half_pixel_for_nn":
        at = [(o + half) / scale for o in range(target)]
    else:
        raise Unsupported(f"its coordinate mode is {coordinates}; half_pixel and asymmetric are possible")
    matrix = np.zeros((target, source))
    rounding = node.attribute("nearest_mode", "round_prefer_floor" if late else "floor")
    for o, x in enumerate(at):
        if node.attribute("mode", "nearest") == "nearest":
            nearest = {"floor": floor, "ceil": ceil, "round_prefer_floor": lambda x: ceil(x - half),
                       "round_prefer_ceil": lambda x: floor(x + half)}[rounding](x)
            matrix[o, min(max(nearest, 0), source - 1)] = 1
        else:
            x = min(max(x, Fraction(0)), Fraction(source - 1))
            low = floor(x)
            matrix[o, low] += float(1 - (x - low))
            if x > low:
                matrix[o, low + 1] += float(x - low)
    return AxisMap(matrix, ratio.denominator, ratio.numerator)
