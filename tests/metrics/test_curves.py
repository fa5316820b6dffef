"""Insertion and deletion against probabilities in closed form, scikit-learn and a slow loop."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import auc
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gmcam
from gmcam.metrics.curves import Curves, blurred, curves, pixel_ranks

LEFT = torch.tensor([1.0, 1, 0, 0]).expand(1, 1, 4, 4).double()  # eight ones on the left, zeros on the right
READING = torch.arange(16.0).flip(0).view(1, 4, 4)  # the upper left pixel is the most salient


class Counter(nn.Module):
    """Logit 0 is ln 3 for every pixel above one half, logit 1 is 0: p = 3ⁿ / (3ⁿ + 1) for n such pixels.

    Blurred, eight ones among zeros are all below one half. It notes how many pictures it is shown.
    """

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x):
        self.shown.append(len(x))
        logit = (x > 0.5).flatten(1).sum(1) * math.log(3)
        return torch.stack([logit, torch.zeros_like(logit)], 1).to(x.dtype)


def counter():
    return gmcam.Network(Counter(), input_shape=(1, 4, 4))


def chances(*counts):
    return torch.tensor([[3.0**n / (3.0**n + 1) for n in counts]])


# Ranks


def test_ranks_by_hand():
    maps = torch.tensor([[[0.1, 0.9], [0.5, -1.0]], [[3.0, 2.0], [1.0, 0.0]]])
    assert pixel_ranks(maps).tolist() == [[[2, 0], [1, 3]], [[0, 1], [2, 3]]]
    assert pixel_ranks(maps).dtype == torch.int64


def test_equal_pixels_go_row_by_row_however_the_map_lies_in_memory():
    map_ = torch.zeros(1, 40, 30)
    map_[0, 7, 3] = 1
    expected = torch.arange(1, 1201).view(1, 40, 30)
    expected[map_ == 1] = 0
    expected[0].flatten()[7 * 30 + 4 :] -= 1
    assert torch.equal(pixel_ranks(map_), expected)
    columns_first = map_.transpose(1, 2).contiguous().transpose(1, 2)
    assert not columns_first.is_contiguous()
    assert torch.equal(pixel_ranks(columns_first), expected)


def test_ranks_do_not_change_under_a_rising_function():
    maps = torch.rand(2, 9, 9)
    assert torch.equal(pixel_ranks(maps**2), pixel_ranks(maps))


# The blurred copy


def kernel():
    """RISE's, derived anew: a Gaussian of σ = 5 cut at 20 cells and folded back at the borders of 11."""
    bell = np.exp(-0.5 * (np.arange(-20, 21) / 5) ** 2)
    bell /= bell.sum()
    row = np.zeros(11)
    for offset, weight in zip(range(-20, 21), bell, strict=True):
        for i in range(11):
            at = (i + offset) % 22  # reflected: … 1 0 | 0 1 … 10 | 10 9 …
            row[i] += weight * (min(at, 21 - at) == 5)
    return np.outer(row, row)


def test_the_kernel_is_nearly_a_box():
    spike = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    spike[0, 0, 10, 10] = 1
    found = blurred(spike)[0, 0]
    assert np.allclose(found[5:16, 5:16], kernel(), atol=1e-12)
    assert found.sum().item() == pytest.approx(1)
    assert (found[5, 5] / found[10, 10]).item() == pytest.approx(0.876, abs=5e-4)
    assert (found > 0).sum() == 121


def test_each_channel_is_blurred_by_itself_with_zeros_beyond_the_border():
    inputs = torch.randn(2, 3, 14, 17)
    for picture, blur in zip(inputs, blurred(inputs), strict=True):
        for channel, found in zip(picture, blur, strict=True):
            assert np.allclose(
                found, ndimage.convolve(channel.double(), kernel(), mode="constant"), atol=1e-6
            )


# Curves


def test_curves_counted_by_hand():
    found = curves(counter(), LEFT, [0], READING, pixels=4)  # a row of two ones at each step
    assert found.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert torch.allclose(found.insertion, chances(0, 2, 4, 6, 8).double())
    assert torch.allclose(found.deletion, chances(8, 6, 4, 2, 0).double())
    a, b, c, d, e = chances(0, 2, 4, 6, 8)[0]
    assert found.insertion_area.item() == pytest.approx((a / 2 + b + c + d + e / 2).item() / 4)


def test_the_last_step_takes_what_is_left():
    found = curves(counter(), LEFT, [0], READING, pixels=5)
    assert found.fractions.tolist() == [0, 5 / 16, 10 / 16, 15 / 16, 1]
    assert torch.allclose(found.insertion, chances(0, 3, 6, 8, 8).double())
    assert torch.allclose(found.deletion, chances(8, 5, 2, 0, 0).double())
    whole = curves(counter(), LEFT, [0], READING, pixels=100)
    assert whole.fractions.tolist() == [0, 1]
    assert torch.allclose(whole.insertion, chances(0, 8).double())


def test_another_class_has_another_curve():
    found = curves(counter(), LEFT.expand(2, -1, -1, -1), torch.tensor([1, 0]), READING.expand(2, -1, -1), 4)
    assert torch.allclose(found.insertion, torch.stack([1 - found.insertion[1], found.insertion[1]]))
    assert torch.allclose(found.deletion[0], 1 - found.deletion[1])


@pytest.mark.parametrize("pixels", [1, 4, 5, 7, 16])
def test_areas_are_scikit_learns(pixels):
    found = curves(counter(), LEFT, [0], READING, pixels=pixels)
    x, (insertion,), (deletion,) = (values.numpy() for values in (found.fractions, *on(found)))
    assert found.insertion_area.item() == pytest.approx(auc(x, insertion))
    assert found.deletion_area.item() == pytest.approx(auc(x, deletion))


def on(found):
    return found.insertion, found.deletion


def one_state_at_a_time(module, picture, target, saliency, pixels):
    """Both curves of one picture: a loop over pixels, one forward pass for every state."""
    order = np.argsort(-saliency.numpy().ravel(), kind="stable")
    blur = np.stack([ndimage.convolve(channel, kernel(), mode="constant") for channel in picture.numpy()])
    inserted, deleted = blur.copy(), picture.numpy().copy()
    rows = []
    for start in range(0, len(order) + pixels, pixels):
        states = torch.from_numpy(np.stack([inserted, deleted]))
        rows.append([module(state[None]).softmax(1)[0, target].item() for state in states])
        for index in order[start : start + pixels]:
            at = slice(None), index // picture.shape[2], index % picture.shape[2]
            inserted[at], deleted[at] = picture.numpy()[at], 0
    return torch.tensor(rows, dtype=torch.float64).T


@pytest.mark.parametrize("name", ["gap_network", "flat_network"])
@pytest.mark.parametrize("pixels", [3, 16])
def test_curves_are_those_of_the_slow_loop(name, pixels, pictures, request):
    module = request.getfixturevalue(name)
    maps = torch.rand(3, 8, 8).round(decimals=1)  # with ties
    found = curves(gmcam.Network(module, input_shape=(3, 8, 8)), pictures, [2, 0, 1], maps, pixels)
    for n, target in enumerate([2, 0, 1]):
        with torch.no_grad():
            insertion, deletion = one_state_at_a_time(module, pictures[n], target, maps[n], pixels)
        assert torch.allclose(found.insertion[n], insertion, rtol=1e-9)
        assert torch.allclose(found.deletion[n], deletion, rtol=1e-9)
    assert len({round(value, 6) for value in found.insertion.flatten().tolist()}) > 6


def test_neither_chunks_nor_company_nor_order_change_anything(flat_network, pictures):
    network, maps = gmcam.Network(flat_network, input_shape=(3, 8, 8)), torch.rand(3, 8, 8)
    targets = torch.tensor([2, 0, 1])
    expected = curves(network, pictures, targets, maps, pixels=10)

    def same(found, rows):
        for one, other in zip(on(found), on(expected), strict=True):
            assert torch.allclose(one, other[rows], rtol=1e-10)

    for chunk_size in (1, 5, 1000):
        same(curves(network, pictures, targets, maps, pixels=10, chunk_size=chunk_size), slice(None))
    turned = [2, 0, 1]
    same(curves(network, pictures[turned], targets[turned], maps[turned], pixels=10), turned)
    for n in range(3):
        same(curves(network, pictures[n : n + 1], targets[n : n + 1], maps[n : n + 1], pixels=10), [n])


def test_a_map_like_the_object_beats_its_opposite_and_its_square_equals_it(flat_network, pictures):
    best, worst = (curves(counter(), LEFT, [0], sign * LEFT[0], pixels=1) for sign in (1, -1))
    # The opposite spends the first eight of sixteen pixels on nothing, and the curve moves by half the axis.
    gain = (chances(8) - chances(0)).item() / 2
    assert (best.insertion_area - worst.insertion_area).item() == pytest.approx(gain)
    assert (worst.deletion_area - best.deletion_area).item() == pytest.approx(gain)
    network, maps = gmcam.Network(flat_network, input_shape=(3, 8, 8)), torch.rand(3, 8, 8)
    for one, other in zip(
        on(curves(network, pictures, [0, 1, 2], maps, 9)),
        on(curves(network, pictures, [0, 1, 2], maps**2, 9)),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_every_state_is_run_once_and_the_shared_ones_are_shared():
    network = counter()
    three = LEFT.expand(3, -1, -1, -1)
    curves(network, three, [0, 0, 0], READING.expand(3, -1, -1), pixels=4, chunk_size=7)
    # Four steps: two curves of five states; the picture is in both, and the zeros are the same for all.
    assert sum(network.module.shown) == 3 * (2 * 5 - 2) + 1
    assert max(network.module.shown) == 7
    assert len(network.module.shown) == 1 + math.ceil(24 / 7)


class Largest(TorchDispatchMode):
    """The most bytes in one tensor made inside."""

    most = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if torch.is_tensor(result):
            self.most = max(self.most, result.untyped_storage().nbytes())
        return result


def test_memory_does_not_grow_with_the_number_of_steps():
    network = gmcam.Network(Counter(), input_shape=(3, 32, 32))
    made = {}
    for pixels, chunk_size in ((128, 8), (8, 8), (8, 256)):
        with Largest() as recorded:
            curves(network, torch.rand(2, 3, 32, 32), [0, 0], torch.rand(2, 32, 32), pixels, chunk_size)
        made[pixels, chunk_size] = recorded.most
    assert made[8, 8] == made[128, 8] < made[8, 256] / 20


def test_the_network_is_left_as_it_was_found(flat_network, pictures, snapshot):
    flat_network.train()
    before = snapshot(flat_network)
    kept = pictures.clone(), torch.get_rng_state()
    found = curves(gmcam.Network(flat_network, input_shape=(3, 8, 8)), pictures, [0, 1, 2], pictures[:, 0])
    assert snapshot(flat_network) == before
    assert torch.equal(pictures, kept[0]) and torch.equal(torch.get_rng_state(), kept[1])
    assert isinstance(found, Curves)
    assert not any(values.is_inference() or values.requires_grad for values in on(found))


def test_half_precision_gives_probabilities_in_float32(flat_network, pictures):
    network = gmcam.Network(flat_network.bfloat16(), input_shape=(3, 8, 8))
    found = curves(network, pictures, [0, 1, 2], pictures[:, 0], pixels=16)
    assert found.insertion.dtype == found.fractions.dtype == torch.float32
    assert found.insertion_area.isfinite().all()


def test_no_pictures_no_curves(flat_network, pictures):
    found = curves(gmcam.Network(flat_network, input_shape=(3, 8, 8)), pictures[:0], [], pictures[:0, 0], 16)
    assert found.insertion.shape == found.deletion.shape == (0, 5)
    assert found.insertion_area.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": torch.zeros(3, 8, 7)}, r"maps for these inputs are \(3, 8, 8\), not \(3, 8, 7\)"),
        ({"maps": torch.zeros(1, 8, 8)}, r"maps for these inputs are \(3, 8, 8\), not \(1, 8, 8\)"),
        ({"maps": torch.full((3, 8, 8), torch.nan)}, "the maps hold NaN"),
        ({"inputs": torch.zeros(3, 8, 8, dtype=torch.int64)}, "a tensor of pictures is floating-point"),
        ({"inputs": torch.full((3, 3, 8, 8), torch.inf)}, "the input holds NaN or infinite values"),
        ({"targets": [0, 1]}, "targets are class indices, one for each of 3 pictures"),
        ({"targets": torch.zeros(3)}, "targets are class indices, one for each of 3 pictures"),
        ({"targets": [0.0, 1.0, 2.0]}, "a class goes by name or index, not by 0.0"),
        ({"targets": ["dog", 1, 2]}, "has no class called 'dog'"),
        ({"targets": [0, 3, 1]}, "class 3 is out of range: the classes are 0 to 2"),
        ({"targets": [0, -1, 1]}, "class -1 is out of range"),
        ({"pixels": 0}, "pixels and chunk_size count from 1 on, not 0 and 32"),
        ({"chunk_size": 0}, "pixels and chunk_size count from 1 on, not 224 and 0"),
    ],
)
def test_what_does_not_fit_is_named(change, message, flat_network, pictures):
    network = gmcam.Network(flat_network, input_shape=(3, 8, 8))
    fitting = {"inputs": pictures, "targets": [0, 1, 2], "maps": pictures[:, 0]}
    with pytest.raises(ValueError, match=message):
        curves(network, **(fitting | change))


def test_wrong_shapes_and_outputs_are_named():
    with pytest.raises(ValueError, match=r"saliency maps have shape \(N, H, W\), not \(8, 8\)"):
        pixel_ranks(torch.zeros(8, 8))
    with pytest.raises(ValueError, match=r"inputs have shape \(N, C, H, W\), not \(3, 8, 8\)"):
        blurred(torch.zeros(3, 8, 8))
    maps_out = gmcam.Network(nn.Conv2d(3, 2, 1), input_shape=(3, 8, 8))
    with pytest.raises(ValueError, match=r"output has shape \(1, 2, 8, 8\), not \(N, classes\)"):
        curves(maps_out, torch.zeros(1, 3, 8, 8), [0], torch.zeros(1, 8, 8))


def test_on_a_trained_network_the_objects_mask_beats_its_opposite():
    network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", seed=3)
    inputs = network.prepare([scene.image, scene.image])
    mask = network.preprocess.place_mask(scene.masks[0]).float()
    found = curves(network, inputs, ["cat", "cat"], torch.stack([mask, 1 - mask]), pixels=1024)
    assert found.insertion_area[0] > found.insertion_area[1] + 0.1
    assert found.deletion_area[0] < found.deletion_area[1] - 0.1
