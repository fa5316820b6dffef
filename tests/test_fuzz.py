"""Networks, inputs and targets drawn at random, against plain autograd and loops written out here.

A few hundred cases in the usual run; ``make fuzz`` draws ten thousand for each test.
"""

import copy
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

import gmcam
from gmcam import metrics
from gmcam.capture import INPUT, capture
from gmcam.metrics.curves import pixel_ranks
from gmcam.postprocess import NORMALISATIONS, min_max, postprocess, smooth, upsample

pytestmark = pytest.mark.fuzz
# ``snapshot`` returns a function without a state, which serves all cases of a test.
pure_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

EXTREMES = (0.0, 1e-45, 1e-40, 1e-30, 1e-4, 1.0, 6e4, 1e20, 1e30, 3e38, math.inf, math.nan)


class Residual(nn.Module):
    """``x + body(x)``, as torchvision's networks add it, in place or not."""

    def __init__(self, body, inplace):
        super().__init__()
        self.body, self.inplace = body, inplace

    def forward(self, x):
        out = self.body(x)
        if self.inplace:
            out += x
            return out
        return out + x


class Branches(nn.Module):
    """Channels of two branches side by side."""

    def __init__(self, left, right):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x):
        return torch.cat([self.left(x), self.right(x)], 1)


# Networks: drawn part by part.


def activation(draw, fixed):
    """A non-linearity, in place or not, and whether its output is ``fixed``: nothing may be written into it.

    The output is fixed where the backward pass needs it: a network with a layer in place after it could not
    be trained. It is also fixed after a layer in place: a second one might change a copy of its output, and
    not the tensor that a shortcut adds.
    """
    kind = draw(st.sampled_from([nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.Tanh]))
    if kind in (nn.GELU, nn.Tanh):
        return kind(), kind is nn.Tanh
    inplace = not fixed and draw(st.booleans())
    return kind(inplace=inplace), inplace or kind in (nn.ReLU, nn.LeakyReLU)


def part(draw, channels, fixed, inside):
    """One part for (N, channels, h, w): the module, its channels, whether its output is fixed.

    ``inside`` a block, height and width stay as they are, and there is no further block. Nor is there
    dropout, which returns its input itself in evaluation mode, so that the shortcut's tensor is the layer's
    output, too.
    """
    more = [] if inside else ["dropout", "residual", "branches"]
    kind = draw(st.sampled_from(["conv", "depthwise", "norm", "activation", "pool", *more]))
    if kind == "conv":
        out, size = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3]))
        stride = 1 if inside else draw(st.integers(1, 2))
        return nn.Conv2d(channels, out, size, stride, size // 2, bias=draw(st.booleans())), out, False
    if kind == "depthwise":
        return nn.Conv2d(channels, channels, 3, padding=1, groups=channels), channels, False
    if kind == "norm":
        return nn.BatchNorm2d(channels), channels, False
    if kind == "activation":
        module, fixed = activation(draw, fixed)
        return module, channels, fixed
    if kind == "dropout":
        return draw(st.sampled_from([nn.Dropout(0.5), nn.Dropout2d(0.5)])), channels, True
    if kind == "pool":
        pools = [nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)]
        if not inside:
            pools += [nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)]
            pools += [nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveMaxPool2d(2)]
        return draw(st.sampled_from(pools)), channels, False
    if kind == "residual":
        body, width, _ = sequence(draw, channels, fixed, inside=True, longest=3)
        body.append(nn.Conv2d(width, channels, 1))
        return Residual(body, inplace=draw(st.booleans())), channels, False
    branches, widths = [], []
    for _ in range(2):
        body, width, _ = sequence(draw, 2, False, inside=True, longest=2)
        branches.append(nn.Sequential(nn.Conv2d(channels, 2, 1), *body))
        widths.append(width)
    return Branches(*branches), sum(widths), False


def sequence(draw, channels, fixed, inside, longest):
    parts = []
    for _ in range(draw(st.integers(1, longest))):
        module, channels, fixed = part(draw, channels, fixed, inside)
        parts.append(module)
    return nn.Sequential(*parts), channels, fixed


HEADS = ("average", "maximum", "flat", "map per class")


def classifier(draw, kind, body, channels, size, classes):
    """From maps to logits: pooling, flattening, or a map per class."""
    if kind == "map per class":
        return nn.Sequential(nn.Conv2d(channels, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if kind == "flat":
        with torch.no_grad():
            cells = copy.deepcopy(body).eval()(torch.zeros(1, 3, *size)).numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(cells, 5), nn.Tanh(), nn.Linear(5, classes))
    pool = {"average": nn.AdaptiveAvgPool2d, "maximum": nn.AdaptiveMaxPool2d}[kind](1)
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(channels, classes, bias=draw(st.booleans())))


def filled(module, generator, scale):
    """Weights and running statistics in which no two channels are alike."""
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5
        parameter.data.copy_(values * scale)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module


# Inputs and targets.

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "one image": lambda x: x[:1].expand_as(x),
    "grey": lambda x: x[:, :1].expand_as(x),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every second": lambda x: x.repeat_interleave(2, 3)[..., ::2],
}
FUNCTIONS = (
    lambda logits: logits[:, 0] - logits[:, -1],
    lambda logits: logits.softmax(1)[:, 0],
    lambda logits: logits.square().sum(1),
)


@dataclass
class Case:
    module: nn.Module
    inputs: torch.Tensor
    targets: Any
    layers: list[str]


@st.composite
def cases(draw, extreme=False, finite=False, head=None):
    """A network, images for it, targets and one to three layers.

    ``extreme``: images hold values of ``EXTREMES``, or with ``finite`` the finite ones, and weights may
    be very large or small. ``head``: a kind in ``HEADS``, or any.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([torch.float64, torch.float32] * 3 + [torch.float16, torch.bfloat16]))
    count, classes = draw(st.integers(0, 3)), draw(st.integers(1, 4))
    size = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    body, channels, _ = sequence(draw, 3, False, inside=False, longest=5)
    last = classifier(draw, head or draw(st.sampled_from(HEADS)), body, channels, size, classes)
    scale = draw(st.sampled_from([1e-20, 1.0, 1.0, 1.0, 1e10])) if extreme else 1.0
    module = filled(nn.Sequential(OrderedDict(body=body, head=last)), generator, scale).to(dtype)
    module.train(draw(st.booleans()))
    body.train(draw(st.booleans()))
    body.requires_grad_(draw(st.booleans()))
    inputs = torch.randn(count, 3, *size, generator=generator, dtype=torch.float64)
    if extreme:
        value = draw(st.sampled_from([v for v in EXTREMES if not finite or math.isfinite(v)]))
        value = torch.tensor(draw(st.sampled_from([value, -value])), dtype=torch.float64)
        everywhere = torch.rand(inputs.shape, generator=generator) < draw(st.sampled_from([0.05, 0.5, 1]))
        inputs = torch.where(everywhere, value, inputs)
    inputs = LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](inputs.to(dtype))
    index = st.integers(0, classes - 1)
    several = st.lists(index, min_size=count, max_size=count)
    if count == 1:
        several = st.lists(index, min_size=1, max_size=4)
    one_each = several | several.map(lambda indices: torch.tensor(indices, dtype=torch.int32))
    targets = draw(st.none() | index | one_each | st.sampled_from(FUNCTIONS))
    names = [INPUT, *(name for name, _ in module.named_modules() if name.startswith("body"))]
    layers = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    return Case(module, inputs, targets, layers)


# The reference.


class ByHand:
    """The network run part by part: the output of every layer, and the gradient of a zero added to it.

    The gradient with respect to that zero is the gradient with respect to the output. No hook, no detached
    tensor, every score differentiated alone.
    """

    def __init__(self, case):
        self.layers, self.maps, self.zeros = case.layers, {}, {}
        self.module = copy.deepcopy(case.module).eval().requires_grad_(False)
        x = case.inputs.clone(memory_format=torch.contiguous_format)
        if x.dtype == torch.float32:  # the layout decides how sums are rounded
            x = x.contiguous(memory_format=torch.channels_last)
        if INPUT in case.layers:
            x = self.keep(INPUT, x, inplace=True)
        self.logits = self.walk("body", self.module.body, x)[1]
        self.logits = self.module.head(self.logits)
        self.scores, self.gradients = self.differentiate(case.targets, len(case.inputs))

    def keep(self, name, x, inplace):
        if name not in self.layers:
            return x
        if not x.requires_grad and not inplace:
            x = x.contiguous()
        self.maps[name], self.zeros[name] = x, torch.zeros_like(x, requires_grad=True)
        return x + self.zeros[name]

    def walk(self, name, module, x):
        """The content of ``x`` after the module, which may work in place, and the module's output."""
        if isinstance(module, nn.Sequential):
            y, same = x, True
            for child_name, child in module.named_children():
                after, y = self.walk(f"{name}.{child_name}", child, y)
                x = after if same else x
                same = same and after is y
        elif isinstance(module, Residual):
            x, y = self.walk(f"{name}.body", module.body, x)
            y = y + x
        elif isinstance(module, Branches):
            pieces = [self.walk(f"{name}.{side}", getattr(module, side), x)[1] for side in ("left", "right")]
            y = torch.cat(pieces, 1)
        else:
            clone = x.clone()
            y = module(clone)
            x = y if y is clone else x
        inplace = y is x
        y = self.keep(name, y, inplace)
        return y if inplace else x, y

    def differentiate(self, targets, count):
        indices = self.logits.argmax(1) if targets is None else targets
        if callable(targets):
            rows, scores = range(count), targets(self.logits)
        else:
            indices = [indices] * count if isinstance(indices, int) else list(map(int, indices))
            rows = [0] * len(indices) if count == 1 else range(count)
            pairs = zip(rows, indices, strict=True)
            scores = self.logits.new_zeros(0) if not indices else torch.stack([self.logits[p] for p in pairs])
        zeros = list(self.zeros.values())
        by_score = [torch.autograd.grad(score, zeros, retain_graph=True) for score in scores]
        gradients = {
            name: torch.stack([parts[place][row] for parts, row in zip(by_score, rows, strict=True)])
            if by_score
            else zero.detach()[:0]
            for place, (name, zero) in enumerate(self.zeros.items())
        }
        self.maps = {name: value.detach()[list(rows)] for name, value in self.maps.items()}
        return scores.detach(), gradients

    def finite(self):
        values = [self.scores, *self.maps.values(), *self.gradients.values()]
        return all(bool(value.isfinite().all()) for value in values)


def rounding(dtype, size):
    """The error allowed in sums of size ``size``; in half precision few steps, or anything would pass."""
    kind = torch.finfo(dtype)
    return (256 if dtype.itemsize >= 4 else 16) * (kind.eps * size + kind.tiny)


def assert_close(value, expected):
    """Equal but for rounding, measured by the largest finite value."""
    assert value.shape == expected.shape
    assert value.dtype == expected.dtype
    if expected.numel():
        exact = expected.double()
        largest = exact.nan_to_num(0, 0, 0).abs().max().item()
        room = rounding(expected.dtype, largest)
        assert torch.allclose(value.double(), exact, rtol=0, atol=room, equal_nan=True)


def assert_as_by_hand(result, expected, gradients=True):
    assert_close(result.logits, expected.logits.detach())
    assert_close(result.scores, expected.scores)
    assert result.maps.keys() == expected.maps.keys()
    for name in result.maps:
        assert_close(result.maps[name], expected.maps[name])
        if gradients:
            assert_close(result.gradients[name], expected.gradients[name])


def one_sentence(error):
    text = str(error)
    return bool(text) and "\n" not in text and len(text) < 400


@pure_fixture
@given(cases())
def test_capture_is_plain_autograd(snapshot, case):
    before, inputs = snapshot(case.module), case.inputs.clone()
    result = capture(case.module, case.inputs, case.targets, case.layers)
    assert_as_by_hand(result, ByHand(case))
    forward_only = capture(case.module, case.inputs, case.targets, case.layers, gradients=False)
    assert not forward_only.gradients
    assert_as_by_hand(forward_only, ByHand(case), gradients=False)
    assert snapshot(case.module) == before
    assert torch.equal(case.inputs, inputs)


@pure_fixture
@given(cases(extreme=True))
def test_extreme_values_are_right_or_refused(snapshot, case):
    before = snapshot(case.module)
    expected = ByHand(case)
    try:
        result = capture(case.module, case.inputs, case.targets, case.layers)
    except ValueError as error:
        assert one_sentence(error)
        assert not expected.finite()
    else:
        assert expected.finite()
        assert_as_by_hand(result, expected)
    assert snapshot(case.module) == before


# The equations, on the maps and gradients of such networks.


def saliency_by_hand(method, M, C):
    """Equations 4 to 6 and HiResCAM in float64, a bound on the sums in each cell, and the largest number
    in between."""

    def compute(M, C, relu):
        λ = C.mean((2, 3), keepdims=True)
        by_channel, by_cell = (λ * M).sum(1), (C * M).sum(1)
        maps = {
            "grad_cam": relu(by_channel),
            "hires_cam": by_cell,
            "guidance_map": relu(by_cell),
            "gmcam": relu(by_cell) * relu(by_channel),
        }
        return maps[method], by_cell[:, None] * M if method == "gmcam" else by_cell

    M, C = M.double().numpy(), C.double().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        expected, _ = compute(M, C, lambda x: np.maximum(x, 0))
        bound, product = compute(abs(M), abs(C), abs)
    return expected, bound, max(bound.max(initial=0), product.max(initial=0))


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "guidance_map", "gmcam"])
@given(case=st.one_of(cases(), cases(extreme=True, finite=True)))
def test_explained_maps_are_the_equations(method, case):
    layer = next((name for name in case.layers if name != INPUT), "body")
    case.layers = [layer]
    reference = ByHand(case)
    M, C = reference.maps[layer], reference.gradients[layer]
    if not (reference.finite() and case.inputs.isfinite().all()):
        with pytest.raises(ValueError) as refused:
            gmcam.explain(case.module, case.inputs, case.targets, method=method, layer=layer)
        assert one_sentence(refused.value)
        return
    expected, bound, largest = saliency_by_hand(method, M, C)
    try:
        result = gmcam.explain(case.module, case.inputs, case.targets, method=method, layer=layer)
    except ValueError as error:
        assert one_sentence(error)
        assert largest > torch.finfo(M.dtype).max / 2
        return
    assert_equal_within(result.raw, expected, bound, M.dtype)
    assert_is_a_saliency_map(result.maps, result.empty, case.inputs.shape[2:])


def assert_equal_within(value, expected, bound, dtype):
    """Equal but for the rounding of sums of size ``bound``."""
    assert len(value) == len(expected)
    if len(expected):
        assert np.all(abs(value.double().numpy() - expected) <= rounding(dtype, bound.max()))


def assert_is_a_saliency_map(maps, empty, size):
    assert maps.shape == (len(empty), *size)
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert ((maps >= 0) & (maps <= 1)).all()
    assert not maps[empty].any()


@given(cases(head="average"))
def test_the_mean_of_a_class_map_and_the_bias_are_the_logit(case):
    case.layers = ["body"]
    if callable(case.targets):
        case.targets = None
    reference, last = ByHand(case), case.module.head[-1]
    result = gmcam.explain(case.module, case.inputs, case.targets, method="cam", layer="body")
    weights = last.weight.detach().double()[result.target, :, None, None]
    terms = (weights * reference.maps["body"]).numpy()
    expected, bound = terms.sum(1), abs(terms).sum(1)
    assert_equal_within(result.raw, expected, bound, reference.scores.dtype)
    bias = 0 if last.bias is None else last.bias.detach().double()[result.target].numpy()
    assert_equal_within(reference.scores, expected.mean((1, 2)) + bias, bound + 4, reference.scores.dtype)


# Post-processing.

SIDES = st.integers(1, 7)
NUMBERS = st.floats(-1e4, 1e4, width=32)


@st.composite
def saliency_maps(draw, elements=NUMBERS, dtypes=(np.float32, np.float64)):
    """(N, h, w) with 0 to 3 maps."""
    shape = draw(st.tuples(st.integers(0, 3), SIDES, SIDES))
    values = draw(arrays.arrays(np.float64, shape, elements=elements))
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.astype(draw(st.sampled_from(dtypes))))


SCALES = st.sampled_from(NORMALISATIONS)


@given(saliency_maps(st.floats()), st.tuples(SIDES, SIDES), st.floats(0, 3), SCALES)
def test_any_map_is_scaled_or_refused(raw, size, sigma, normalise):
    exact = raw.double().flatten(1)
    ranges = [max(values) / 2 - min(values) / 2 for values in exact.tolist()]
    try:
        maps, empty = postprocess(raw, size, sigma, normalise)
    except ValueError as error:
        assert one_sentence(error)
        widest = 0.49 * torch.finfo(raw.dtype).max
        assert not raw.isfinite().all() or (max(ranges) > widest and normalise == "minmax")
    else:
        assert raw.isfinite().all()
        assert_is_a_saliency_map(maps, empty, size)


@given(saliency_maps())
def test_normalised_maps_reach_from_zero_to_one_in_the_same_order(raw):
    normalised, empty = min_max(raw)
    for values, scaled, flat in zip(raw.tolist(), normalised, empty, strict=True):
        values = [value for row in values for value in row]
        spread = max(values) - min(values)
        assert flat == (spread <= 8 * torch.finfo(raw.dtype).eps * max(map(abs, values)))
        expected = [0.0 if flat else (value - min(values)) / spread for value in values]
        assert scaled.flatten().tolist() == pytest.approx(expected, abs=1e-6)
        assert {scaled.min().item(), scaled.max().item()} == ({0.0} if flat else {0.0, 1.0})


@given(saliency_maps(), SCALES)
def test_zero_stays_zero_where_the_scale_says_so(raw, normalise):
    maps, empty = postprocess(raw, tuple(raw.shape[1:]), 0, normalise)
    positive = raw.double().relu()
    low = positive.flatten(1).amin(1) if raw.numel() else torch.zeros(len(raw))
    for number, values in enumerate(positive):
        peak = positive.max() if normalise == "batch" else values.max()
        if normalise in ("max", "batch"):
            assert empty[number] == (values.max() == 0)
            expected = values / peak if peak else values
        elif normalise == "rectified" and not empty[number]:
            expected = (values - low[number]) / (peak - low[number])
        else:
            continue
        assert torch.allclose(maps[number].double(), expected, atol=1e-6)


@given(saliency_maps(), st.sampled_from([2.0**-10, 0.5, 8.0, 2.0**20]), st.tuples(SIDES, SIDES), SCALES)
def test_the_scale_of_a_map_does_not_matter(raw, factor, size, normalise):
    raw = torch.where(raw.abs() < 1e-30, 0, raw)  # a smaller number loses digits when it is scaled
    maps, empty = postprocess(raw, size, normalise=normalise)
    scaled, scaled_empty = postprocess(raw * factor, size, normalise=normalise)
    assert torch.equal(scaled_empty, empty)
    assert torch.equal(scaled, maps)


@given(saliency_maps(), st.sampled_from([(1,), (2,), (1, 2)]), st.tuples(SIDES, SIDES))
def test_the_steps_commute_with_mirrors(raw, sides, size):
    scale = raw.abs().max().item() if raw.numel() else 0
    for step, largest in [
        (smooth, scale),
        (lambda maps: min_max(maps)[0], 1),
        (lambda maps: upsample(maps, size), scale),
    ]:
        difference = step(raw.flip(sides)) - step(raw).flip(sides)
        assert difference.abs().max().item() <= 1e-5 * largest if raw.numel() else not difference.numel()


# Metrics, by loops over pixels.


@st.composite
def judged(draw):
    """Saliency maps with ties and empty ones, masks, and which pixels count."""
    values = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1, width=32)
    maps = draw(saliency_maps(values))
    masks, counts = (torch.from_numpy(draw(arrays.arrays(bool, tuple(maps.shape)))) for _ in range(2))
    return maps, masks, draw(st.sampled_from([counts, None]))


def pixels(*grids):
    """(row, column, values of every grid) in reading order."""
    return [
        (i, j, *values)
        for i, rows in enumerate(zip(*(grid.tolist() for grid in grids), strict=True))
        for j, values in enumerate(zip(*rows, strict=True))
    ]


def ratio(a, b):
    return a / b if b else math.nan


@given(judged(), st.sampled_from([0.25, 0.5, 1.0]) | st.floats(0.01, 1))
def test_overlaps_are_those_of_a_loop_over_pixels(judged, threshold):
    maps, masks, counts = judged
    everywhere = torch.ones_like(masks) if counts is None else counts
    expected: dict[str, list[float]] = {"dice": [], "iou": [], "share": []}
    for grids in zip(maps, masks, everywhere, strict=True):
        rows = [(value, mask, counting) for _, _, value, mask, counting in pixels(*grids)]
        limit = (threshold * grids[0].max()).item()
        ours = [(value >= limit and value > 0, mask, value) for value, mask, counting in rows if counting]
        both = sum(salient and mask for salient, mask, _ in ours)
        salient, masked = sum(a for a, _, _ in ours), sum(b for _, b, _ in ours)
        expected["dice"].append(ratio(2 * both, salient + masked))
        expected["iou"].append(ratio(both, salient + masked - both))
        share = ratio(sum(value for _, mask, value in ours if mask), sum(value for *_, value in ours))
        expected["share"].append(share)
    overlaps = {
        "dice": metrics.dice(maps, masks, counts, threshold),
        "iou": metrics.iou(maps, masks, counts, threshold),
        "share": metrics.share_inside(maps, masks, counts),
    }
    for name, values in overlaps.items():
        assert values.tolist() == pytest.approx(expected[name], rel=1e-5, nan_ok=True)


@given(judged(), st.data())
def test_pointing_is_a_loop_over_boxes(judged, data):
    maps, tolerance = judged[0], data.draw(st.integers(0, 4))
    corners = st.lists(st.integers(-2, 8), min_size=4, max_size=4)
    boxes = [[data.draw(corners) for _ in range(2)] for _ in maps]
    expected = []
    for grid, rows in zip(maps, boxes, strict=True):
        i, j, peak = max(pixels(grid), key=lambda pixel: pixel[2])  # the first of equal ones
        real = [(a, b, c, d) for a, b, c, d in rows if c > a and d > b]
        near = any(
            (y - i) ** 2 + (x - j) ** 2 <= tolerance**2
            for left, upper, right, lower in real
            for y in range(upper, lower)
            for x in range(left, right)
        )
        expected.append(float(near and peak > 0) if real else math.nan)
    inside = metrics.points_inside(maps, torch.tensor(boxes).reshape(len(maps), 2, 4), tolerance)
    assert inside.tolist() == pytest.approx(expected, nan_ok=True)


@given(judged(), st.sampled_from(metrics.ZONES), st.sampled_from([0.25, 0.5, 1.0]))
def test_zones_are_products_pixel_by_pixel(judged, zone, threshold):
    maps = judged[0]
    inputs = torch.randn(len(maps), 3, *maps.shape[1:], dtype=maps.dtype)
    salient, context = metrics.zones(inputs, maps, zone, threshold)
    for image, grid, inside, outside in zip(inputs, maps, salient, context, strict=True):
        limit = (threshold * grid.max()).item()
        for i, j, value in pixels(grid):
            share = value if zone == "soft" else float(value >= limit and value > 0)
            assert torch.equal(inside[:, i, j], image[:, i, j] * share)
            assert torch.allclose(outside[:, i, j], image[:, i, j] * (1 - share))


@given(saliency_maps(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, math.inf]) | st.floats(allow_nan=False)))
def test_ranks_are_those_of_a_sorted_list(maps):
    height, width = maps.shape[1:]
    shuffled = torch.randperm(height * width, generator=torch.Generator().manual_seed(0)).tolist()
    for grid, ranks in zip(maps, pixel_ranks(maps), strict=True):
        # Equal pixels follow one permutation, whatever the map.
        order = sorted(
            pixels(grid), key=lambda pixel: (-pixel[2], shuffled.index(pixel[0] * width + pixel[1]))
        )
        for rank, (i, j, _) in enumerate(order):
            assert ranks[i, j] == rank
