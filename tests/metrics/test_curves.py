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
READING = torch.arange(16.0).flip(0).view(1, 4, 4)  # reading order: the upper left pixel is the most salient


class Counter(nn.Module):
    """Logit 0 is ln 3 for every pixel above one half, logit 1 is 0: p = 3ⁿ / (3ⁿ + 1) for n such pixels.

    Blurred, eight ones among zeros are all below one half. ``batches``: the size of each batch.
    """

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
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


def test_equal_pixels_follow_one_permutation():
    """By hand: torch's permutation of twelve pixels, seeded with 0, gives the order of equal ones."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    flat = pixel_ranks(torch.zeros(2, 3, 4)).flatten(1)
    assert flat[0].tolist() == flat[1].tolist() == [order.index(pixel) for pixel in range(12)]
    map_ = torch.zeros(1, 3, 4)
    map_[0, 1, 2] = map_[0, 2, 0] = 1  # pixels 6 and 8 come first, in the order of the permutation
    first, second = sorted((6, 8), key=order.index)
    expected = [first, second, *(pixel for pixel in order if pixel not in (6, 8))]
    assert pixel_ranks(map_).flatten().tolist() == [expected.index(pixel) for pixel in range(12)]


def test_ties_do_not_depend_on_memory_layout_company_or_random_state():
    maps = torch.rand(2, 40, 30).round(decimals=1)
    torch.manual_seed(1)
    expected = pixel_ranks(maps)
    torch.manual_seed(2)
    columns_first = maps.transpose(1, 2).contiguous().transpose(1, 2)
    assert not columns_first.is_contiguous()
    assert torch.equal(pixel_ranks(columns_first), expected)
    assert torch.equal(pixel_ranks(maps[1:]), expected[1:])
    assert expected.flatten(1).sort(1).values.eq(torch.arange(1200)).all()


def test_curves_of_a_flat_map_counted_by_hand():
    """A step takes the next four pixels of the permutation; those on the left are the eight ones."""
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).tolist()
    ones = [sum(pixel % 4 < 2 for pixel in order[:taken]) for taken in (0, 4, 8, 12, 16)]
    assert ones != [0, 2, 4, 6, 8]  # in reading order, each step would take two of them
    result = curves(counter(), LEFT, [0], torch.zeros(1, 4, 4), steps=4)
    assert torch.allclose(result.insertion, chances(*ones).double())
    assert torch.allclose(result.deletion, chances(*(8 - n for n in ones)).double())


@pytest.mark.slow
def test_a_mask_does_not_lose_to_grad_cam_by_its_ties():
    """From top to bottom, insertion of objects' masks has a smaller area than Grad-CAM; shuffled, larger."""
    network, scenes = gmcam.load("collage-resnet"), gmcam.lab.dual_class_scenes(56, step=7)
    inputs, labels = network.prepare([s.image for s in scenes]), [s.labels[0] for s in scenes]
    masks = torch.stack([network.preprocess.place_mask(s.masks[0]) for s in scenes]).double()
    ramp = torch.arange(masks[0].numel(), 0, -1.0).view(masks[0].shape) / masks[0].numel()
    grad_cam = gmcam.explain(network, inputs, labels, method="grad_cam").maps
    maps = {"reading order": masks + 1e-3 * ramp, "shuffled": masks, "Grad-CAM": grad_cam}
    areas = {
        name: curves(network, inputs, labels, m, steps=10).insertion_area.mean() for name, m in maps.items()
    }
    assert areas["reading order"] < areas["Grad-CAM"] - 0.05
    assert areas["shuffled"] > areas["Grad-CAM"] + 0.03


def test_ranks_do_not_change_under_a_rising_function():
    maps = torch.rand(2, 9, 9)
    assert torch.equal(pixel_ranks(maps**2), pixel_ranks(maps))


# The blurred copy


def kernel():
    """RISE's, derived independently: a Gaussian of σ = 5, cut at 20 cells, folded back at 11 cells."""
    bell = np.exp(-0.5 * (np.arange(-20, 21) / 5) ** 2)
    bell /= bell.sum()
    row = np.zeros(11)
    for offset, weight in zip(range(-20, 21), bell, strict=True):
        for i in range(11):
            at = (i + offset) % 22  # reflected: … 1 0 | 0 1 … 10 | 10 9 …
            row[i] += weight * (min(at, 21 - at) == 5)
    return np.outer(row, row)


def test_the_kernel_is_scipys():
    spike = np.zeros((11, 11))
    spike[5, 5] = 1
    expected = ndimage.gaussian_filter(spike, sigma=5, mode="reflect")
    blur = blurred(torch.from_numpy(np.pad(spike, 5))[None, None])[0, 0, 5:16, 5:16]
    assert np.abs(blur.numpy() - expected).max() < 1e-9


def test_the_kernel_is_nearly_a_box():
    spike = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    spike[0, 0, 10, 10] = 1
    blur = blurred(spike)[0, 0]
    assert np.allclose(blur[5:16, 5:16], kernel(), atol=1e-12)
    assert blur.sum().item() == pytest.approx(1)
    assert (blur[5, 5] / blur[10, 10]).item() == pytest.approx(0.876, abs=5e-4)
    assert (blur > 0).sum() == 121


def test_each_channel_is_blurred_by_itself_with_zeros_beyond_the_border():
    inputs = torch.randn(2, 3, 14, 17)
    for channel, blur in zip(inputs.flatten(0, 1), blurred(inputs).flatten(0, 1), strict=True):
        assert np.allclose(blur, ndimage.convolve(channel.double(), kernel(), mode="constant"), atol=1e-6)


# Curves


def test_curves_counted_by_hand():
    result = curves(counter(), LEFT, [0], READING, pixels=4)  # a row of two ones at each step
    assert result.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert torch.allclose(result.insertion, chances(0, 2, 4, 6, 8).double())
    assert torch.allclose(result.deletion, chances(8, 6, 4, 2, 0).double())
    a, b, c, d, e = chances(0, 2, 4, 6, 8)[0]
    assert result.insertion_area.item() == pytest.approx((a / 2 + b + c + d + e / 2).item() / 4)


def test_steps_are_equal_up_to_a_pixel():
    result = curves(counter(), LEFT, 0, READING, steps=5)
    assert (16 * result.fractions).tolist() == [0, 3, 6, 9, 12, 16]
    fine = curves(counter(), LEFT, 0, READING, steps=100)  # no more than a step per pixel
    assert torch.allclose(fine.insertion_area, curves(counter(), LEFT, 0, READING, pixels=1).insertion_area)


def test_one_target_for_all_images_and_one_per_image():
    two = LEFT.expand(2, -1, -1, -1)
    every, each = (curves(counter(), two, t, READING.expand(2, -1, -1), steps=4) for t in (1, [1, 1]))
    assert torch.equal(every.insertion, each.insertion)


def test_the_last_step_takes_what_is_left():
    result = curves(counter(), LEFT, [0], READING, pixels=5)
    assert result.fractions.tolist() == [0, 5 / 16, 10 / 16, 15 / 16, 1]
    assert torch.allclose(result.insertion, chances(0, 3, 6, 8, 8).double())
    assert torch.allclose(result.deletion, chances(8, 5, 2, 0, 0).double())
    whole = curves(counter(), LEFT, [0], READING, pixels=100)
    assert whole.fractions.tolist() == [0, 1]
    assert torch.allclose(whole.insertion, chances(0, 8).double())


def test_another_class_has_another_curve():
    two = LEFT.expand(2, -1, -1, -1)
    result = curves(counter(), two, torch.tensor([1, 0]), READING.expand(2, -1, -1), steps=4)
    assert torch.allclose(result.insertion, torch.stack([1 - result.insertion[1], result.insertion[1]]))
    assert torch.allclose(result.deletion[0], 1 - result.deletion[1])


@pytest.mark.parametrize("pixels", [1, 4, 5, 7, 16])
def test_areas_are_scikit_learns(pixels):
    result = curves(counter(), LEFT, [0], READING, pixels=pixels)
    x, (insertion,), (deletion,) = (values.numpy() for values in (result.fractions, *on(result)))
    assert result.insertion_area.item() == pytest.approx(auc(x, insertion))
    assert result.deletion_area.item() == pytest.approx(auc(x, deletion))


def on(result):
    return result.insertion, result.deletion


def state_by_state(module, image, target, saliency, pixels):
    """Both curves of an image: a loop over pixels, one forward pass for every state."""
    order = np.argsort(pixel_ranks(saliency[None]).numpy().ravel())
    assert (np.diff(saliency.numpy().ravel()[order]) <= 0).all()
    blur = np.stack([ndimage.convolve(channel, kernel(), mode="constant") for channel in image.numpy()])
    inserted, deleted = blur.copy(), image.numpy().copy()
    rows = []
    for start in range(0, len(order) + pixels, pixels):
        states = torch.from_numpy(np.stack([inserted, deleted]))
        rows.append([module(state[None]).softmax(1)[0, target].item() for state in states])
        for index in order[start : start + pixels]:
            at = slice(None), index // image.shape[2], index % image.shape[2]
            inserted[at], deleted[at] = image.numpy()[at], 0
    return torch.tensor(rows, dtype=torch.float64).T


@pytest.mark.parametrize("name", ["gap_network", "flat_network"])
@pytest.mark.parametrize("pixels", [3, 16])
def test_curves_are_those_of_the_slow_loop(name, pixels, images, request):
    module = request.getfixturevalue(name)
    maps = torch.rand(3, 8, 8).round(decimals=1)  # with ties
    result = curves(gmcam.Network(module, input_shape=(3, 8, 8)), images, [2, 0, 1], maps, pixels=pixels)
    for n, target in enumerate([2, 0, 1]):
        with torch.no_grad():
            insertion, deletion = state_by_state(module, images[n], target, maps[n], pixels)
        assert torch.allclose(result.insertion[n], insertion, rtol=1e-9)
        assert torch.allclose(result.deletion[n], deletion, rtol=1e-9)
    assert len({round(value, 6) for value in result.insertion.flatten().tolist()}) > 6


@pytest.mark.parametrize("fill", ["zero", "blur", "road"])
def test_both_tests_hide_pixels_by_the_same_fill(fill, flat_network, images):
    """Step by step, from ``filled`` and ``blurred``: hidden by one fill in both orders."""
    network, maps = gmcam.Network(flat_network, input_shape=(3, 8, 8)), torch.rand(3, 8, 8)
    targets, ranks = [2, 0, 1], pixel_ranks(maps)
    found = curves(network, images, targets, maps, pixels=16, fill=fill, chunk_size=5)
    for step in range(5):
        first = ranks < 16 * step
        for curve, hidden in zip(on(found), (~first, first), strict=True):
            if fill == "blur":
                states = torch.where(hidden[:, None], blurred(images), images)
            elif fill == "zero" or hidden.all():  # nothing to impute from
                states = torch.where(hidden[:, None], 0, images)
            else:
                states = gmcam.metrics.filled(images, hidden, "road")
            with torch.no_grad():
                expected = flat_network(states).softmax(1)[range(3), targets]
            assert torch.allclose(curve[:, step], expected, rtol=1e-6)
    assert torch.equal(found.insertion[:, 0], found.deletion[:, -1])
    assert torch.equal(found.insertion[:, -1], found.deletion[:, 0])


def test_without_a_fill_insertion_is_on_the_blur_and_deletion_into_zeros(flat_network, images):
    network, maps = gmcam.Network(flat_network, input_shape=(3, 8, 8)), torch.rand(3, 8, 8)
    rise, blur, zero = (
        curves(network, images, [2, 0, 1], maps, steps=4, fill=f) for f in (None, "blur", "zero")
    )
    assert torch.equal(rise.insertion, blur.insertion)
    assert torch.allclose(rise.deletion, zero.deletion)
    assert not torch.allclose(rise.insertion, zero.insertion)


def test_neither_chunks_nor_company_nor_order_change_anything(flat_network, images):
    network, maps = gmcam.Network(flat_network, input_shape=(3, 8, 8)), torch.rand(3, 8, 8)
    targets = torch.tensor([2, 0, 1])
    expected = curves(network, images, targets, maps, pixels=10)

    def same(result, rows):
        for curve, reference in zip(on(result), on(expected), strict=True):
            assert torch.allclose(curve, reference[rows], rtol=1e-10)

    for chunk_size in (1, 5, 1000):
        same(curves(network, images, targets, maps, pixels=10, chunk_size=chunk_size), slice(None))
    turned = [2, 0, 1]
    same(curves(network, images[turned], targets[turned], maps[turned], pixels=10), turned)
    for n in range(3):
        same(curves(network, images[n : n + 1], targets[n : n + 1], maps[n : n + 1], pixels=10), [n])


def test_a_map_like_the_object_beats_its_opposite_and_its_square_equals_it(flat_network, images):
    best, worst = (curves(counter(), LEFT, [0], sign * LEFT[0], pixels=1) for sign in (1, -1))
    # The opposite spends the first eight of sixteen pixels on nothing, and the curve moves by half the axis.
    gain = (chances(8) - chances(0)).item() / 2
    assert (best.insertion_area - worst.insertion_area).item() == pytest.approx(gain)
    assert (worst.deletion_area - best.deletion_area).item() == pytest.approx(gain)
    network, maps = gmcam.Network(flat_network, input_shape=(3, 8, 8)), torch.rand(3, 8, 8)
    of_map, of_square = (on(curves(network, images, [0, 1, 2], m, pixels=9)) for m in (maps, maps**2))
    for curve, same in zip(of_map, of_square, strict=True):
        assert torch.equal(curve, same)


def test_every_state_runs_once_and_shared_ones_are_shared():
    network = counter()
    three = LEFT.expand(3, -1, -1, -1)
    curves(network, three, [0, 0, 0], READING.expand(3, -1, -1), pixels=4, chunk_size=7)
    # Four steps: two curves of five states; the image is in both, and the zeros are the same for all.
    assert sum(network.module.batches) == 3 * (2 * 5 - 2) + 1
    assert max(network.module.batches) == 7
    assert len(network.module.batches) == 1 + math.ceil(24 / 7)


class Largest(TorchDispatchMode):
    """The most bytes in any tensor created inside."""

    most = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if torch.is_tensor(result):
            self.most = max(self.most, result.untyped_storage().nbytes())
        return result


def test_memory_does_not_grow_with_the_number_of_steps():
    network = gmcam.Network(Counter(), input_shape=(3, 32, 32))
    largest = {}
    for pixels, chunk_size in ((128, 8), (8, 8), (8, 256)):
        with Largest() as recorded:
            sizes = {"pixels": pixels, "chunk_size": chunk_size}
            curves(network, torch.rand(2, 3, 32, 32), [0, 0], torch.rand(2, 32, 32), **sizes)
        largest[pixels, chunk_size] = recorded.most
    assert largest[8, 8] == largest[128, 8] < largest[8, 256] / 20


def test_the_network_is_left_as_it_was_found(flat_network, images, snapshot):
    flat_network.train()
    before = snapshot(flat_network)
    state = images.clone(), torch.get_rng_state()
    result = curves(gmcam.Network(flat_network, input_shape=(3, 8, 8)), images, [0, 1, 2], images[:, 0])
    assert snapshot(flat_network) == before
    assert torch.equal(images, state[0]) and torch.equal(torch.get_rng_state(), state[1])
    assert isinstance(result, Curves)
    assert not any(values.is_inference() or values.requires_grad for values in on(result))


def test_half_precision_gives_probabilities_in_float32(flat_network, images):
    network = gmcam.Network(flat_network.bfloat16(), input_shape=(3, 8, 8))
    result = curves(network, images, [0, 1, 2], images[:, 0], pixels=16)
    assert result.insertion.dtype == result.fractions.dtype == torch.float32
    assert result.insertion_area.isfinite().all()


def test_no_images_give_no_curves(flat_network, images):
    result = curves(
        gmcam.Network(flat_network, input_shape=(3, 8, 8)), images[:0], [], images[:0, 0], pixels=16
    )
    assert result.insertion.shape == result.deletion.shape == (0, 5)
    assert result.insertion_area.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": torch.zeros(3, 8, 7)}, r"expected maps \(3, 8, 8\), got \(3, 8, 7\)"),
        ({"maps": torch.zeros(1, 8, 8)}, r"expected maps \(3, 8, 8\), got \(1, 8, 8\)"),
        ({"maps": torch.full((3, 8, 8), torch.nan)}, "without NaN"),
        ({"inputs": torch.zeros(3, 8, 8, dtype=torch.int64)}, "expected a preprocessed floating-point"),
        ({"inputs": torch.full((3, 3, 8, 8), torch.inf)}, "expected a finite input"),
        ({"target": [0, 1]}, "expected 3 targets, got 2"),
        ({"target": torch.zeros(3)}, "expected class indices"),
        ({"target": [0.0, 1.0, 2.0]}, "expected a class name or index, got 0.0"),
        ({"target": None}, "expected class indices"),
        ({"target": ["dog", 1, 2]}, "got 'dog'"),
        ({"target": [0, 3, 1]}, "expected a class from 0 to 2, got 3"),
        ({"target": [0, -1, 1]}, "expected a class from 0 to 2, got -1"),
        ({"pixels": 0}, "for pixels, got 0"),
        ({"steps": 0}, "for steps, got 0"),
        ({"fill": "grey"}, "expected fill to be zero, blur, road or None, got 'grey'"),
        ({"chunk_size": 0}, "for chunk_size, got 0"),
    ],
)
def test_what_does_not_fit_is_named(change, message, flat_network, images):
    network = gmcam.Network(flat_network, input_shape=(3, 8, 8))
    fitting = {"inputs": images, "target": [0, 1, 2], "maps": images[:, 0]}
    with pytest.raises(ValueError, match=message):
        curves(network, **(fitting | change))


def test_wrong_shapes_and_outputs_are_named():
    with pytest.raises(ValueError, match=r"expected maps \(N, H, W\) without NaN, got .*\(8, 8\)"):
        pixel_ranks(torch.zeros(8, 8))
    with pytest.raises(ValueError, match=r"expected inputs \(N, C, H, W\), got \(3, 8, 8\)"):
        blurred(torch.zeros(3, 8, 8))
    maps_out = gmcam.Network(nn.Conv2d(3, 2, 1), input_shape=(3, 8, 8))
    with pytest.raises(ValueError, match=r"expected an output .*\(N, classes\), got \(1, 2, 8, 8\)"):
        curves(maps_out, torch.zeros(1, 3, 8, 8), [0], torch.zeros(1, 8, 8))


def test_on_a_trained_network_the_objects_mask_beats_its_opposite():
    network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", seed=3)
    inputs = network.prepare([scene.image, scene.image])
    mask = network.preprocess.place_mask(scene.masks[0]).float()
    result = curves(network, inputs, ["cat", "cat"], torch.stack([mask, 1 - mask]), pixels=1024)
    assert result.insertion_area[0] > result.insertion_area[1] + 0.1
    assert result.deletion_area[0] < result.deletion_area[1] - 0.1
