import numpy as np
import pytest
import torch
from torch import nn

import gmcam
from gmcam.lab.debugging import (
    FIELDS,
    accuracy,
    activations,
    boxed,
    cluster,
    contributions,
    elsewhere,
    estimate,
    flattened,
    gap,
    outcomes,
    outside,
    report,
    slices,
)
from gmcam.lab.retraining import retrained

VGG, RESNET = gmcam.load("collage-vgg"), gmcam.load("collage-resnet")
SCENES = [gmcam.lab.scene(name, seed=3, size=128) for name in ("cat", "cup", "coin")]
INPUTS = VGG.prepare([scene.image for scene in SCENES])
NAMES = ["cat", "cup", "coin"]
MASKS = torch.stack([VGG.preprocess.place_mask(scene.masks[0]) for scene in SCENES])


def test_outcomes_are_the_networks_probabilities_and_whether_they_are_the_largest():
    probabilities = VGG.probabilities(INPUTS)
    chance, right = outcomes(VGG, INPUTS, NAMES)
    indices = torch.tensor([VGG.class_index(name) for name in NAMES])
    assert chance == pytest.approx(probabilities.gather(1, indices[:, None])[:, 0].numpy())
    assert right.tolist() == (probabilities.argmax(1) == indices).tolist()
    assert outcomes(VGG, INPUTS, indices)[0] == pytest.approx(chance)
    assert outcomes(VGG, INPUTS, "cat")[0] == pytest.approx(probabilities[:, 0].numpy())


def test_a_groups_probability_is_the_sum_and_it_is_right_if_that_is_the_largest():
    both = gmcam.group(["cat", "cup"], "either")
    chance, right = outcomes(VGG, INPUTS, both)
    assert chance == pytest.approx(VGG.probabilities(INPUTS)[:, :2].sum(1).numpy(), abs=1e-6)
    assert right[:2].all() and not right[2]


@pytest.mark.parametrize("target", [None, lambda logits: logits[:, 0]])
def test_outcomes_need_a_class(target):
    with pytest.raises(ValueError, match="name the right class"):
        outcomes(VGG, INPUTS, target)


def test_outcomes_need_one_target_an_image():
    with pytest.raises(ValueError, match="expected targets for 3 images, got 2"):
        outcomes(VGG, INPUTS, ["cat", "cup"])


def test_outcomes_do_not_depend_on_a_network_left_in_training_mode():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    network = gmcam.wrap(nn.Sequential(module, nn.Flatten(), nn.Dropout(), nn.Linear(4, 3)).train(), None)
    first, second = outcomes(network, INPUTS, 0)[0], outcomes(network, INPUTS[:1], 0)[0]
    assert network.module.training and first[:1] == pytest.approx(second)


def test_an_estimate_is_the_mean_within_its_interval_and_wider_over_clusters():
    values, names = np.repeat(np.arange(8.0), 6), np.repeat(list("abcdefgh"), 6).tolist()
    mean, low, high, small = estimate(values)
    assert mean == pytest.approx(3.5) and low < 3.5 < high and small == []
    same, lower, higher, small = estimate(values, names)
    assert same == pytest.approx(3.5) and small == pytest.approx(range(8))
    assert lower < low and high < higher


def test_a_constant_has_no_interval_but_a_perfect_accuracy_has():
    assert estimate([2.0] * 9)[:3] == (2, 2, 2)
    value, low, high, _ = accuracy([True] * 36)
    assert value == high == 100 and low == pytest.approx(100 * 36 / (36 + 1.96**2))
    assert accuracy([False] * 36)[:3] == pytest.approx((0, 0, 100 - low))


def test_wilsons_interval_is_the_set_of_shares_that_its_test_does_not_reject():
    value, low, high, _ = accuracy([True] * 20 + [False] * 16)
    for end in (low / 100, high / 100):
        assert abs(value / 100 - end) == pytest.approx(1.96 * (end * (1 - end) / 36) ** 0.5)


def test_a_gap_is_the_difference_of_the_means():
    values = [1.0, 2.0, 3.0, 7.0, 8.0, 9.0] * 5
    mean, low, high, _ = gap(values, [False, False, False, True, True, True] * 5)
    assert mean == pytest.approx(6) and 0 < low < 6 < high
    assert np.isnan(gap(values, [True] * 30)[0])


def test_slices_are_ranked_and_need_a_word_per_image():
    rows = slices([True, False, False, True], ["a", "b", "b", "a"])
    assert list(rows) == ["b", "a"] and rows["a"][0] == 100 and rows["b"][0] == 0
    with pytest.raises(ValueError, match="expected one group per image, got 1 for 2"):
        slices([True, False], ["a"])


def test_contributions_add_up_to_the_logit_where_pooling_and_a_linear_layer_follow():
    rows = contributions(RESNET, INPUTS, NAMES)
    results = [gmcam.explain(RESNET, x[None], name) for x, name in zip(INPUTS, NAMES, strict=True)]
    logits = torch.cat([result.score for result in results])
    biases = RESNET.module.fc.bias.detach()[[RESNET.class_index(name) for name in NAMES]]
    assert torch.allclose(rows.sum(1), logits - biases, atol=1e-4)


def test_activations_are_the_channels_means_and_have_no_class():
    rows = activations(RESNET, INPUTS)
    maps = gmcam.capture(RESNET.module, INPUTS, layer=RESNET.layer_path(), gradients=False).maps
    assert torch.allclose(rows, maps[RESNET.layer_path()].mean((2, 3)), atol=1e-5)
    assert torch.allclose(contributions(RESNET, INPUTS, "cat")[:, 5] / rows[:, 5], _weight(5), atol=1e-4)


def _weight(channel):
    return RESNET.module.fc.weight.detach()[0, channel].expand(3)


def test_the_part_outside_is_one_minus_the_share_inside():
    found = outside(VGG, INPUTS, NAMES, MASKS)
    for value, x, name, mask in zip(found, INPUTS, NAMES, MASKS, strict=True):
        maps = gmcam.explain(VGG, x[None], name, method="grad_cam", sigma=0).maps
        assert value == pytest.approx(
            100 - 100 * gmcam.metrics.share_inside(maps, mask[None]).item(), abs=0.01
        )
    area = 100 - 100 * MASKS.float().mean((1, 2)).numpy()
    assert outside(VGG, INPUTS, NAMES, MASKS, "area") == pytest.approx(area, abs=0.5)  # noise


def test_clusters_are_directions_and_the_largest_is_zero():
    vectors = torch.tensor([[1.0, 0], [5, 0.1], [0, 1], [0.1, 9], [0, 2]])
    assert cluster(vectors).tolist() == [1, 1, 0, 0, 0]
    assert cluster(vectors, 1).tolist() == [0] * 5
    with pytest.raises(ValueError, match="expected 1 to 5 clusters of 5 images, got 6"):
        cluster(vectors, 6)


def test_a_region_elsewhere_is_as_large_and_not_where_it_was():
    masks = boxed(torch.zeros(2, 3, 32, 32), [[0, 0, 8, 8], [10, 4, 20, 20]])
    moved = elsewhere(masks)
    assert moved.sum((1, 2)).tolist() == masks.sum((1, 2)).tolist()
    assert not (moved & masks)[0].any()
    assert torch.equal(moved, elsewhere(masks)) and not torch.equal(moved, elsewhere(masks, seed=1))


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor])
def test_boxes_are_masks_which_have_the_pixels_that_a_box_cuts(convert):
    masks = boxed(torch.zeros(2, 3, 8, 8), convert([[1.0, 2.0, 3.0, 4.0], [5.5, -2.0, 9.5, 0.5]]))
    assert masks[0].nonzero().tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert masks[1].nonzero().tolist() == [[0, 5], [0, 6], [0, 7]]


def test_boxes_are_one_an_image():
    with pytest.raises(ValueError, match="expected one box per image, got 1 for 2"):
        boxed(torch.zeros(2, 3, 8, 8), [[0, 0, 1, 1]])


def test_a_flat_region_has_its_own_mean_and_the_rest_is_unchanged():
    flat = flattened(INPUTS, MASKS)
    for before, after, mask in zip(INPUTS, flat, MASKS, strict=True):
        assert torch.equal(before[:, ~mask], after[:, ~mask])
        assert torch.allclose(after[:, mask], before[:, mask].mean(1, keepdim=True), atol=1e-5)
    assert torch.equal(flattened(INPUTS, torch.zeros_like(MASKS)), INPUTS)


@pytest.mark.parametrize("masks", [MASKS.float(), MASKS[:, :64]])
def test_masks_are_bool_and_of_the_inputs_size(masks):
    with pytest.raises(ValueError, match="expected bool masks"):
        flattened(INPUTS, masks)


def test_retraining_changes_the_last_layer_alone_and_not_the_given_network():
    before = RESNET.module.fc.weight.clone()
    new = retrained(RESNET, INPUTS, ["cup", "cup", "cup"], pull=0)
    assert torch.equal(RESNET.module.fc.weight, before)
    assert outcomes(new, INPUTS, "cup")[1].all() and new.name == "collage-resnet, retrained"
    changed = [
        name
        for (name, p), q in zip(RESNET.module.named_parameters(), new.module.parameters(), strict=True)
        if not torch.equal(p, q)
    ]
    assert changed == ["fc.weight", "fc.bias"]


def test_retraining_keeps_predictions_and_weights_as_it_is_told():
    weight = RESNET.module.fc.weight

    def moved(**how):
        new = retrained(RESNET, INPUTS[:1], ["cup"], **how)
        change = (new.probabilities(INPUTS[1:]) - RESNET.probabilities(INPUTS[1:])).abs().max()
        return change.item(), (new.module.fc.weight - weight).norm().item()

    free, kept, pulled = moved(pull=0), moved(pull=0, keep=INPUTS[1:]), moved(pull=10)
    assert kept[0] < free[0] and pulled[1] < free[1]


def test_what_cannot_be_retrained_is_refused():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, 2))
    with pytest.raises(ValueError, match="expected a network with a softmax"):
        retrained(gmcam.wrap(module, None, output="sigmoid"), INPUTS, 0)
    with pytest.raises(ValueError, match="to be that of its last linear layer"):
        retrained(gmcam.wrap(nn.Sequential(module, nn.Tanh()), None), INPUTS, 0)
    plain = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="expected a last linear layer"):
        retrained(gmcam.wrap(plain, None), INPUTS, 0)


def test_a_report_has_every_field_and_refuses_others():
    page = report("Cups", slice="3 of 9", price="none")
    assert page.startswith("**Report: Cups**") and page.endswith("\n")
    assert page.count("*Not done.*") == len(FIELDS) - 2 and page._repr_markdown_() == page
    with pytest.raises(ValueError, match="got sliec: rename them"):
        report(sliec="3 of 9")
