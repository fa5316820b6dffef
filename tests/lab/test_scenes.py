import random
import re

import numpy as np
import pytest
import torch
from PIL import Image

from gmcam.lab import BACKGROUNDS, CLASSES, dual_class_scenes, scene, scenes

SMALL = 64


@pytest.fixture
def drawing(monkeypatch):
    """Record the parts of a test's scenes: cut-outs, angles, and each paste onto the canvas."""
    seen = {"sprites": [], "angles": [], "pastes": []}
    sprite, rotate, paste = scenes._sprite, Image.Image.rotate, scenes._paste

    def noted_sprite(name):
        seen["sprites"].append(name)
        return sprite(name)

    def noted_rotate(image, angle, *arguments, **options):
        seen["angles"].append(abs(angle))
        return rotate(image, angle, *arguments, **options)

    def noted_paste(canvas, cutout, at):
        before = np.asarray(canvas).copy()
        paste(canvas, cutout, at)
        seen["pastes"].append((before, cutout, at))

    monkeypatch.setattr(scenes, "_sprite", noted_sprite)
    monkeypatch.setattr(Image.Image, "rotate", noted_rotate)
    monkeypatch.setattr(scenes, "_paste", noted_paste)
    return seen


def pixels(drawn):
    return np.asarray(drawn.image)


def alpha_on_canvas(cutout, at, size):
    """The cut-out's alpha at its place, by index arithmetic rather than by Pillow's paste."""
    canvas = np.zeros((size, size), np.uint8)
    alpha = np.asarray(cutout.getchannel("A"))
    height, width = alpha[: size - at[1], : size - at[0]].shape
    canvas[at[1] : at[1] + height, at[0] : at[0] + width] = alpha[:height, :width]
    return canvas


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (("cat",), {}),
        (("cat", "cup"), {"seed": 3, "size": SMALL}),
        (("person", "coin", "coin"), {"seed": 5, "split": "train", "size": SMALL}),
        (("rocket",), {"background": "grass", "scale": (0.2, 0.3), "size": SMALL}),
    ],
)
def test_the_same_arguments_draw_the_same_image_bit_for_bit(labels, options):
    first = scene(*labels, **options)
    scene("flower", "pagoda", seed=99, size=SMALL)  # whatever is drawn in between
    again = scene(*labels, **options)
    assert first.image.tobytes() == again.image.tobytes()
    assert np.array_equal(first.masks, again.masks)
    assert np.array_equal(first.boxes, again.boxes)
    assert (first.labels, first.background, first.seed, first.split) == (
        again.labels,
        again.background,
        again.seed,
        again.split,
    )


@pytest.mark.parametrize(
    ("labels", "options"),
    [(("cat", "cup"), {"seed": 1}), (("cup", "cat"), {}), (("cat", "cup"), {"split": "train"})],
)
def test_another_seed_order_or_split_draws_another_image(labels, options):
    assert not np.array_equal(
        pixels(scene("cat", "cup", size=SMALL)), pixels(scene(*labels, size=SMALL, **options))
    )


def test_drawing_leaves_the_global_random_states_alone():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    scene("cat", "cup", size=SMALL)
    assert random.getstate() == states[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("size", [32, 100, 256])
def test_a_scene_has_the_requested_size(size):
    drawn = scene("cup", "coin", size=size)
    assert drawn.image.size == (size, size)
    assert drawn.image.mode == "RGB"
    assert drawn.masks.shape == (2, size, size)
    assert drawn.masks.dtype == bool
    assert drawn.boxes.shape == (2, 4)


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_mask_is_where_the_object_covers_the_background(label, split, drawing):
    drawn = scene(label, seed=7, split=split, size=128)
    ((background, cutout, at),) = drawing["pastes"]
    alpha = alpha_on_canvas(cutout, at, 128)
    assert np.array_equal(drawn.masks[0], alpha >= 128)

    solid = alpha == 255
    ys, xs = np.nonzero(solid)
    assert np.array_equal(pixels(drawn)[solid], np.asarray(cutout.convert("RGB"))[ys - at[1], xs - at[0]])
    # A soft shadow surrounds the object; nothing else has changed.
    near = np.asarray(Image.fromarray(alpha).filter(scenes.ImageFilter.MaxFilter(21))) > 0
    assert np.array_equal(pixels(drawn)[~near], background[~near])


@pytest.mark.parametrize("seed", range(6))
def test_masks_of_several_objects_hold_what_later_ones_leave_visible(seed, drawing):
    drawn = scene("cat", "motorbike", "coin", "coin", seed=seed, size=128)
    alphas = [alpha_on_canvas(cutout, at, 128) for _, cutout, at in drawing["pastes"]]
    hidden = np.zeros((128, 128), bool)
    for mask, alpha in zip(drawn.masks[::-1], alphas[::-1], strict=True):
        assert np.array_equal(mask, (alpha >= 128) & ~hidden)
        hidden |= alpha >= 128
    assert drawn.masks.sum(0).max() == 1


@pytest.mark.parametrize("labels", [("cat",), ("rocket", "person"), ("coin", "coin", "coin")])
@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_tight_around_their_masks(labels, seed):
    drawn = scene(*labels, seed=seed, size=SMALL)
    for mask, (left, upper, right, lower) in zip(drawn.masks, drawn.boxes, strict=True):
        inside = mask[upper:lower, left:right]
        assert inside.sum() == mask.sum() > 0
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


@pytest.mark.parametrize(
    "labels",
    [("person",), ("person", "person"), ("cat", "person"), ("person", "motorbike"), CLASSES[:6]],
    ids="-".join,
)
def test_four_fifths_of_every_object_stay_visible(labels, drawing):
    shares = []
    for seed in range(12):
        drawing["pastes"].clear()
        masks = scene(*labels, seed=seed, size=SMALL).masks
        whole = [(np.asarray(cutout.getchannel("A")) >= 128).sum() for _, cutout, _ in drawing["pastes"]]
        shares += [mask.sum() / area for mask, area in zip(masks, whole, strict=True)]
    assert min(shares) >= 0.8


def test_the_splits_share_no_background_no_coin_and_no_rotation():
    assert not set(BACKGROUNDS["train"]) & set(BACKGROUNDS["test"])
    assert not set(scenes._sprites_by_class("train")["coin"]) & set(scenes._sprites_by_class("test")["coin"])
    bands = [(low, high, split) for split, pairs in scenes._ROTATIONS.items() for low, high in pairs]
    for (_, high, split), (low, _, other) in zip(sorted(bands), sorted(bands)[1:], strict=False):
        assert high <= low
        assert split != other


@pytest.mark.parametrize(
    ("split", "bands"), [("train", [(0, 8), (14, 20)]), ("test", [(8, 14)])], ids=["train", "test"]
)
def test_drawn_scenes_keep_to_their_split(split, bands, drawing):
    drawn = [scene("coin", seed=seed, split=split, size=32) for seed in range(40)]
    assert {each.background for each in drawn} == set(BACKGROUNDS[split])
    test_coins = {int(name.removeprefix("coin")) % 4 == 3 for name in drawing["sprites"]}
    assert test_coins == {split == "test"}
    assert all(any(low <= angle <= high for low, high in bands) for angle in drawing["angles"])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["grass", "stars"])
def test_a_given_background_keeps_its_colours(name, split, monkeypatch):
    monkeypatch.setattr(scenes, "_recolour", lambda *_: pytest.fail("recoloured"))
    drawn = [scene("cup", seed=seed, background=name, split=split, size=32) for seed in range(4)]
    assert {each.background for each in drawn} == {name}


def test_the_mask_of_a_class_joins_its_objects():
    drawn = scene("coin", "cat", "coin", size=SMALL)
    assert np.array_equal(drawn.mask("coin"), drawn.masks[0] | drawn.masks[2])
    assert np.array_equal(drawn.mask("cat"), drawn.masks[1])
    assert drawn.mask("cup").shape == (SMALL, SMALL)
    assert not drawn.mask("cup").any()


def test_a_scale_sets_the_size_of_the_object():
    small, large = (scene("coin", scale=(s, s), size=128).masks.sum() for s in (0.2, 0.4))
    assert large / small == pytest.approx(4, rel=0.1)


@pytest.fixture
def longest_sides(monkeypatch):
    """Record the longest side of every object that is drawn, before its rotation."""
    sides, rotate = [], Image.Image.rotate

    def noted_rotate(image, *arguments, **options):
        sides.append(max(image.size))
        return rotate(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "rotate", noted_rotate)
    return sides


@pytest.mark.parametrize(
    "labels", [("rocket",), ("rocket", "person"), ("cat", "cup", "coin", "coin")], ids="-".join
)
@pytest.mark.parametrize("scale", [(0.16, 0.32), (0.3, 0.3)])
def test_with_a_scale_every_longest_side_is_within_it(labels, scale, longest_sides):
    for seed in range(12):
        scene(*labels, seed=seed, scale=scale, size=100)
    assert len(longest_sides) >= 12 * len(labels)
    assert 100 * scale[0] - 0.5 <= min(longest_sides) and max(longest_sides) <= 100 * scale[1] + 0.5


def test_with_a_scale_crowded_objects_are_placed_again_at_the_same_sizes(longest_sides):
    drawn = scene("cat", "cup", "flower", seed=1, scale=(0.45, 0.45), size=100)
    assert len(longest_sides) > 3  # the first layout did not fit
    assert set(longest_sides) == {45}
    assert drawn.masks.shape == (3, 100, 100)


@pytest.mark.parametrize(("labels", "scale"), [(("cat", "cup"), (0.9, 0.9)), (("coin",) * 6, (0.6, 0.7))])
def test_a_scale_at_which_the_objects_do_not_fit_is_refused(labels, scale):
    message = (
        rf"expected scale at which .*{labels[-1]} fit into 64 × 64 pixels, got \({scale[0]}, {scale[1]}\)"
    )
    with pytest.raises(ValueError, match=message):
        scene(*labels, scale=scale, size=64)


@pytest.mark.parametrize(
    ("labels", "options", "background", "boxes"),
    [
        (("cat", "cup"), {"seed": 3}, "gravel", [[28, 81, 124, 175], [96, 85, 228, 207]]),
        (("flower",), {"seed": 2, "split": "train", "size": 128}, "sky", [[35, 30, 114, 109]]),
        (
            ("rocket", "person"),
            {"seed": 5, "split": "train", "size": 192},
            "grass",
            [[38, 50, 90, 176], [92, 95, 166, 192]],
        ),
        (
            ("person", "person", "person"),
            {"seed": 4, "size": 64},
            "gravel",
            [[31, 15, 53, 39], [27, 32, 51, 57], [4, 7, 24, 29]],
        ),
        (
            ("coin", "cat", "coin", "pagoda", "person"),
            {"seed": 9, "size": 100},
            "stars",
            [[3, 53, 29, 82], [48, 26, 79, 53], [44, 5, 74, 33], [24, 44, 49, 71], [56, 71, 83, 100]],
        ),
        (
            ("flower",),
            {"seed": 7, "split": "train", "background": "grass", "scale": (0.16, 0.32)},
            "grass",
            [[112, 24, 175, 87]],
        ),
    ],
)
def test_scenes_are_the_ones_that_the_networks_were_trained_on(labels, options, background, boxes):
    drawn = scene(*labels, **options)
    assert drawn.background == background
    assert np.abs(drawn.boxes - boxes).max() <= 1  # other versions of Pillow may round otherwise


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ((), {}, "expected one to six labels, got 0"),
        (("cat",) * 7, {}, "expected one to six labels, got 7"),
        (
            ("dog",),
            {},
            "expected labels among cat, cup, flower, pagoda, rocket, motorbike, person, coin, got 'dog'",
        ),
        (("cat", "Cup"), {}, "got 'Cup'"),
        (("cat",), {"split": "val"}, "expected split 'train' or 'test', got 'val'"),
        (("cat",), {"background": "sand"}, "expected a background among grass, brick"),
        (("cat",), {"size": 31}, "expected a size of at least 32 pixels, got 31"),
        (("cat",), {"seed": -1}, "expected a seed of at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        scene(*labels, **options)


@pytest.mark.parametrize("scale", [(0.5, 0.1), (-0.5, -0.1), (0.0, 0.0), (float("nan"), 0.5)])
def test_a_scale_that_is_no_range_is_refused(scale):
    with pytest.raises(ValueError, match="expected scale as a range of shares"):
        scene("cat", scale=scale, size=SMALL)


def test_dual_class_scenes_go_through_every_ordered_pair():
    pairs = {(a, b) for a in CLASSES for b in CLASSES if a != b}
    drawn = dual_class_scenes(len(pairs) + 2, size=32)
    assert {each.labels for each in drawn[: len(pairs)]} == pairs
    assert {each.split for each in drawn} == {"test"}
    assert drawn[len(pairs)].labels == drawn[0].labels  # the same pair in another image
    assert not np.array_equal(pixels(drawn[len(pairs)]), pixels(drawn[0]))


def test_dual_class_scenes_can_leave_some_out():
    some = dual_class_scenes(8, size=32, step=3)
    assert [each.seed for each in some] == [0, 3, 6]
    for drawn, expected in zip(some, dual_class_scenes(8, size=32)[::3], strict=True):
        assert drawn.labels == expected.labels and np.array_equal(pixels(drawn), pixels(expected))


@pytest.mark.parametrize(("count", "step"), [(-1, 1), (8, 0), (8, -2)])
def test_a_count_or_step_that_makes_no_list_is_refused(count, step):
    with pytest.raises(ValueError, match=f"at least 0 and step of at least 1, got {count} and {step}"):
        dual_class_scenes(count, step=step)
