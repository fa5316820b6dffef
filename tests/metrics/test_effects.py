"""Effects and effect maps by hand on tiny networks, against Captum, and on collages; filled masks."""

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients
from torch import nn

import gmcam
from gmcam import metrics


class Pooled(nn.Module):
    """Two channels, one per class: Y_c = w_c · mean of ReLU(x), so that every effect can be read off."""

    def __init__(self):
        super().__init__()
        self.maps = nn.ReLU()
        self.fc = nn.Linear(2, 2, bias=False)
        self.fc.weight.data = torch.tensor([[2.0, 0.0], [-1.0, 4.0]])

    def forward(self, x):
        return self.fc(self.maps(x).mean((2, 3)))


class Curved(nn.Module):
    """A smooth network whose gradient varies along the way: Y = (sum of tanh(conv))² and its negative."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bend, self.rest = nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 3, 2)

    def forward(self, x):
        total = self.rest(self.bend(self.conv(x))).sigmoid().sum((1, 2, 3))
        return torch.stack([total**2, -total], 1)


def network_of(module, size=(2, 4), **options):
    return gmcam.Network(module, input_shape=(2, *size), classes=("first", "second"), **options)


@pytest.fixture
def pooled():
    return network_of(Pooled(), layer="maps")


@pytest.fixture
def curved():
    return network_of(Curved(), (7, 6), layer="bend")


def pair(size, count=2):
    return torch.randn(2, count, 2, *size, generator=torch.Generator().manual_seed(1))


def test_effects_by_hand(pooled):
    image = torch.zeros(1, 2, 2, 4)
    image[0, 0, 0, 0], image[0, 1, 1, 1] = 8.0, 16.0  # means of channels: 1 and 2
    without, alone, empty = image.clone(), image.clone(), torch.zeros_like(image)
    without[0, 0], alone[0, 1] = 0, 0
    other = image + 1  # on both channels
    given = {"alone": alone, "empty": empty, "backgrounds": [other, other - 0.5]}
    effects = metrics.effects(pooled, image, without, "second", **given)
    # Y_second = −1 · 1 + 4 · 2; the background adds 3 · (1 and ½) to it, means 1 and ½ to each channel.
    assert effects.removal.tolist() == [-1]
    assert effects.addition.tolist() == [-1]
    assert effects.interaction.tolist() == [0]
    assert effects.background.item() == pytest.approx(-(3 + 1.5) / 2)
    assert metrics.effects(pooled, image, without, "first").removal.tolist() == [2]
    difference = metrics.effects(pooled, image, without, "first", against="second")
    assert difference.removal.tolist() == [2 - -1]
    assert (difference.addition, difference.interaction, difference.background) == (None, None, None)


def test_the_interaction_is_what_is_not_added_up(curved):
    image, without = pair((7, 6))
    alone, empty = pair((7, 6), 2) * 2
    found = metrics.effects(curved, image, without, 0, alone=alone, empty=empty)
    with torch.no_grad():
        y = [curved.module(images)[:, 0] for images in (image, without, alone, empty)]
    assert torch.allclose(found.interaction, y[0] - y[1] - y[2] + y[3], atol=1e-3)


def test_the_log_probability_is_that_of_the_softmax(curved):
    image, without = pair((7, 6))
    found = metrics.effects(curved, image, without, [0, 1], score="log-probability").removal
    with torch.no_grad():
        after, before = (curved.module(images).log_softmax(1) for images in (image, without))
    expected = (after - before)[[0, 1], [0, 1]]
    assert torch.allclose(found, expected, atol=1e-5)


def test_without_a_target_it_is_the_top_class_of_the_image_with_the_object(pooled):
    image = torch.ones(1, 2, 2, 4)
    image[0, 0] = 9  # first: 2 · 9, second: 4 − 9
    assert metrics.effects(pooled, image, torch.zeros_like(image)).removal.tolist() == [18]
    assert metrics.effect_map(pooled, image, torch.zeros_like(image)).sum().item() == pytest.approx(18)


def test_a_pooled_networks_effect_map_is_the_difference_of_class_maps(pooled):
    image, without = pair((2, 4))
    for path in ("maps", "images"):
        found = metrics.effect_map(pooled, image, without, ["first", "second"], path=path)
        cells = (image.relu() - without.relu()) / 8
        expected = torch.stack([2 * cells[0, 0], 4 * cells[1, 1] - cells[1, 0]])
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("path", ["maps", "images"])
@pytest.mark.parametrize("target", [0, 1])
def test_the_effect_map_adds_up_to_the_effect(curved, path, target):
    image, without = pair((7, 6))
    found = metrics.effect_map(curved, image, without, target, path=path, steps=600)
    removal = metrics.effects(curved, image, without, target).removal
    assert found.shape == (2, 5, 4)
    assert removal.abs().min() > 0.05
    assert torch.allclose(found.sum((1, 2)), removal, atol=1e-5, rtol=1e-5)


def test_through_blended_images_it_is_captums_layer_integrated_gradients(curved):
    image, without = pair((7, 6))
    found = metrics.effect_map(curved, image, without, 0, path="images", steps=400)
    captum = LayerIntegratedGradients(curved.module, curved.module.bend)
    # Captum integrates along the layer's values between the ends of the blended images, too.
    expected = captum.attribute(image, without, target=0, n_steps=400).sum(1)
    straight = metrics.effect_map(curved, image, without, 0, path="maps", steps=400)
    assert torch.allclose(straight, expected, atol=2e-3)
    assert not torch.allclose(found, straight, atol=1e-2)  # another convention, the same sum
    assert torch.allclose(found.sum((1, 2)), straight.sum((1, 2)), atol=1e-4)


def test_one_pair_has_a_map_for_each_of_several_targets(curved):
    image, without = pair((7, 6), 1)
    both = metrics.effect_map(curved, image, without, ["first", "second"])
    for index in (0, 1):
        assert torch.equal(both[index], metrics.effect_map(curved, image, without, index)[0])


def test_a_group_and_a_function_are_targets(curved):
    image, without = pair((7, 6))
    group = gmcam.group(["first", "second"], "either")
    for target in (group, lambda output: output.logsumexp(1)):
        found = metrics.effect_map(curved, image, without, target, steps=400)
        with torch.no_grad():
            expected = curved.module(image).logsumexp(1) - curved.module(without).logsumexp(1)
        assert torch.allclose(found.sum((1, 2)), expected, atol=1e-4)


def test_the_difference_of_a_class_and_a_group(curved):
    image, without = pair((7, 6))
    module = nn.Sequential(curved.module, nn.Linear(2, 3))
    network = gmcam.Network(module, input_shape=(2, 7, 6), classes=("a", "b", "c"))
    group = gmcam.group(["b", "c"], "either")
    found = metrics.effects(network, image, without, "a", against=group).removal
    with torch.no_grad():
        after, before = (
            module(images)[:, 0] - module(images)[:, 1:].logsumexp(1) for images in (image, without)
        )
    assert torch.allclose(found, after - before, atol=1e-4)
    turned = metrics.effects(network, image, without, group, against="a").removal
    assert torch.allclose(turned, -found, atol=1e-4)


def test_a_layer_that_works_in_place_is_replaced_in_place():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3))
    module.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
    network = network_of(module, (8, 8))
    image, without = pair((8, 8))
    removal = metrics.effects(network, image, without, 0).removal
    for layer in ("0", "1"):
        found = metrics.effect_map(network, image, without, 0, layer, steps=500)
        assert torch.allclose(found.sum((1, 2)), removal, atol=1e-4)


def test_the_network_is_left_as_found(curved):
    curved.module.train()
    metrics.effect_map(curved, *pair((7, 6)), 0)
    assert curved.module.training
    assert all(p.requires_grad and p.grad is None for p in curved.module.parameters())
    assert not curved.module.bend._forward_hooks


def test_fidelity_is_pearsons_r_over_cells():
    generator = torch.Generator().manual_seed(0)
    maps, effect = torch.randn(2, 3, 4, 5, generator=generator)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps, effect, strict=True)]
    assert metrics.fidelity(maps, effect).tolist() == pytest.approx(expected, abs=1e-6)
    # A finer map is averaged into cells; an amount and a constant do not matter.
    fine = (3 * maps + 1).repeat_interleave(4, 1).repeat_interleave(2, 2)
    assert metrics.fidelity(fine, effect).tolist() == pytest.approx(expected, abs=1e-6)
    assert metrics.fidelity(effect, effect).tolist() == pytest.approx([1, 1, 1])


def test_a_flat_map_has_no_fidelity_and_a_flat_effect_no_truth():
    some, flat = torch.rand(1, 2, 3), torch.full((1, 2, 3), 0.5)
    assert metrics.fidelity(flat, some).item() == 0
    assert metrics.fidelity(some, torch.zeros(1, 2, 3)).isnan().all()


def test_inside_error_by_hand():
    effect = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]])  # positive: 3 of 4 in the left column
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[:, :, :2] = True  # the left column of cells
    for maps, share in (([[1.0, 0.0], [1.0, 0.0]], 1.0), ([[-2.0, 1.0], [0.0, 1.0]], 0.0)):
        assert metrics.inside_error(torch.tensor([maps]), effect, masks).item() == pytest.approx(share - 0.75)
    half = masks.clone()
    half[:, ::2] = False  # half of each cell counts half
    assert metrics.inside_error(effect * 2, effect, half).item() == 0
    assert metrics.inside_error(torch.tensor([[[1.0, 0], [1, 0]]]), effect, half).item() == pytest.approx(
        0.125
    )
    assert metrics.inside_error(torch.zeros(1, 2, 2), effect, masks).isnan().all()


def test_fills_leave_the_rest_alone():
    inputs = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 20, 24, dtype=torch.bool)
    masks[0, 4:9, 3:12], masks[1, 10:, 15:] = True, True
    for fill in metrics.FILLS:
        found = metrics.filled(inputs, masks, fill)
        outside = ~masks[:, None].expand_as(inputs)
        assert torch.equal(found[outside], inputs[outside])
        assert not torch.isclose(found[~outside], inputs[~outside]).all()
    assert metrics.filled(inputs, masks, "zero")[0, :, 5, 5].tolist() == [0, 0, 0]
    assert torch.equal(metrics.filled(inputs, masks & False, "mean"), inputs)


def test_mean_is_that_of_the_surroundings_by_hand():
    """Of 2 pixels around one of 16 × 32, a 16th of its width: 5 × 5 without the middle, cut at the border."""
    inputs = torch.zeros(2, 1, 16, 32)
    masks = torch.zeros(2, 16, 32, dtype=torch.bool)
    masks[0, 8, 10], masks[1, 0, 0] = True, True
    inputs[0, 0, 6, 8], inputs[0, 0, 8, 13] = 6, 100  # the second is three pixels away
    inputs[1, 0, 2, 2], inputs[1, 0, 0, 0] = 4, 7
    found = metrics.filled(inputs, masks, "mean")
    assert found[0, 0, 8, 10].item() == pytest.approx(6 / 24)
    assert found[1, 0, 0, 0].item() == pytest.approx(4 / 8)


def test_a_plain_background_is_restored():
    """What the mask covers is like its surroundings, so the mean and the neighbours restore it."""
    plain = torch.tensor([0.2, -0.5, 0.9])[None, :, None, None].expand(1, 3, 16, 16).clone()
    spoiled, masks = plain.clone(), torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, 5:9, 6:12] = True
    spoiled[:, :, masks[0]] = 7
    for fill in ("mean", "harmonic"):
        assert torch.allclose(metrics.filled(spoiled, masks, fill), plain, atol=1e-5)
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16).clone()
    spoiled = ramp.masked_fill(masks[:, None], 1)
    assert torch.allclose(metrics.filled(spoiled, masks, "harmonic"), ramp, atol=1e-5)


def noise_of(shape):
    """ROAD's noise: drawn with seed 0, the same for every image and mask."""
    return 0.01 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_road_is_a_dense_solution_of_its_equations_at_borders_too():
    """Pixel by pixel: a direct neighbour weighs ⅙, a diagonal one 1/12, those outside do not count."""
    inputs = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(1)).double()
    masks = torch.rand(1, 6, 7, generator=torch.Generator().manual_seed(2)) < 0.6
    masks[0, 0, 0], masks[0, 5, :3], masks[0, 3, 3] = True, True, False
    hidden = [tuple(place) for place in masks[0].nonzero().tolist()]
    matrix, right = np.zeros((len(hidden), len(hidden))), np.zeros((len(hidden), 2))
    for row, (y, x) in enumerate(hidden):
        for down, along in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
            place, weight = (y + down, x + along), 1 / 6 if 0 in (down, along) else 1 / 12
            if not (0 <= place[0] < 6 and 0 <= place[1] < 7):
                continue
            matrix[row, row] += weight
            if place in hidden:
                matrix[row, hidden.index(place)] -= weight
            else:
                right[row] += weight * inputs[0, :, place[0], place[1]].numpy()
    solution = torch.from_numpy(np.linalg.solve(matrix, right)).T + noise_of((2, 6, 7)).double()[:, masks[0]]
    assert torch.allclose(metrics.filled(inputs, masks, "road")[0][:, masks[0]], solution, atol=1e-9)
    assert not torch.allclose(metrics.filled(inputs, masks, "harmonic")[0][:, masks[0]], solution, atol=0.02)


def test_road_on_one_pixel_is_the_weighted_mean_of_eight():
    inputs, masks = torch.rand(1, 3, 3, 3).double(), torch.zeros(1, 3, 3, dtype=torch.bool)
    masks[0, 1, 1] = True
    weights = torch.tensor([[1.0, 2, 1], [2, 0, 2], [1, 2, 1]]).double() / 12
    expected = (inputs[0] * weights).sum((1, 2)) + noise_of((3, 3, 3))[:, 1, 1]
    assert torch.allclose(metrics.filled(inputs, masks, "road")[0, :, 1, 1], expected)


def test_road_restores_a_ramp_inside_the_image_up_to_its_noise():
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")
    ramp = (0.3 * rows - 0.2 * columns + 1).expand(2, 3, 12, 15).clone()
    masks = torch.zeros(2, 12, 15, dtype=torch.bool)
    masks[0, 3:8, 4:13], masks[1, 6:10, 1:4] = True, True
    found = metrics.filled(ramp.masked_fill(masks[:, None], 9), masks, "road")
    expected = ramp + noise_of((3, 12, 15)) * masks[:, None]
    assert torch.allclose(found, expected, atol=1e-5)
    assert 0.008 < (found - ramp)[masks[:, None].expand_as(ramp)].std() < 0.012


def test_on_a_collage_the_object_moves_its_own_class_up():
    network, scene = gmcam.load("collage-resnet"), gmcam.lab.scene("cat", "cup", seed=0)
    without = scene.without("cat").image
    removal = metrics.effects(network, scene.image, without, ["cat", "cup"]).removal
    assert removal[0] > 1 > removal[1]
    maps = metrics.effect_map(network, scene.image, without, ["cat", "cup"])
    assert torch.allclose(maps.sum((1, 2)), removal, atol=1e-5)
    # Exact on this network: the CAM with the object minus the CAM without it, over the number of cells.
    cams = [gmcam.explain(network, image, "cat", method="cam").raw for image in (scene.image, without)]
    assert torch.allclose(maps[:1], (cams[0] - cams[1]) / maps[0].numel(), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, x: metrics.effects(n, x, x[:1]), "expected one shape of 4 dimensions"),
        (lambda n, x: metrics.effects(n, x, x, 0, score="odds"), "expected score to be logit or log-prob"),
        (lambda n, x: metrics.effects(n, x, x, 0, alone=x), "expected alone and empty together"),
        (lambda n, x: metrics.effects(n, x, x, "third"), "expected a class of"),
        (lambda n, x: metrics.effect_map(n, x, x, 0, path="straight"), "expected path to be maps or images"),
        (lambda n, x: metrics.effect_map(n, x, x, 0, steps=0), "steps"),
        (lambda n, x: metrics.effect_map(n, x, x, [0, 1, 1]), "expected 2 targets, got 3"),
        (lambda n, x: metrics.effect_map(n, x, x, 0, "nowhere"), "nowhere"),
        (lambda n, x: metrics.fidelity(x[:, 0], x[:1, 0]), "expected maps"),
        (lambda n, x: metrics.fidelity(x, x), "expected maps"),
        (lambda n, x: metrics.filled(x, x[:, 0] > 9, "grey"), "expected fill to be one of mean, harmonic"),
        (lambda n, x: metrics.filled(x, x[:, 0] < 9e9, "road"), "expected masks that leave pixels outside"),
        (lambda n, x: metrics.filled(x, x[:, 0]), "expected inputs .* and bool masks"),
        (lambda n, x: metrics.filled(x, x[:, 0] < 9e9), "expected masks that leave pixels outside"),
    ],
)
def test_what_does_not_fit_is_named(pooled, call, message):
    with pytest.raises(ValueError, match=message):
        call(pooled, pair((2, 4))[0])


def test_a_layer_without_influence_is_named():
    class Aside(Pooled):
        def forward(self, x):
            self.maps(x)
            return self.fc(x.relu().mean((2, 3)))

    network = network_of(Aside(), layer="maps")
    for path in metrics.effects.__globals__["PATHS"]:
        with pytest.raises(ValueError, match="expected a gradient from the score to layer 'maps'"):
            metrics.effect_map(network, *pair((2, 4)), 0, path=path)
