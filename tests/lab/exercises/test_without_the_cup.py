import pytest
import torch

import gmcam
from gmcam.lab.exercises import all_exercises
from gmcam.lab.exercises.without_the_cup import balanced, pooled_effect

RESNET = gmcam.load("collage-resnet")


def test_shapley_values_of_two_equal_cats_add_up_to_the_effect_of_both_and_removals_do_not():
    removal, together, shapley = all_exercises()["without_the_cup.1"].answers().right
    assert 2 * shapley == together != 2 * removal


def test_the_pooled_effect_is_the_effect_map_of_a_network_that_ends_in_average_pooling():
    scene = gmcam.lab.scene("cat", "cup", seed=17)
    target, layer = RESNET.class_index("cat"), "stage4"
    images = scene.image, scene.without("cup").image
    maps = [
        gmcam.capture(RESNET.module, RESNET.prepare(image), target, layer).maps[layer][0] for image in images
    ]
    linear = next(m for m in RESNET.module.modules() if isinstance(m, torch.nn.Linear))
    cells = pooled_effect(*maps, linear.weight.detach(), linear.bias.detach(), target)
    expected = gmcam.metrics.effect_map(RESNET, *images, "cat", steps=1)[0]
    assert torch.allclose(cells, expected, atol=1e-5)
    removal = gmcam.metrics.effects(RESNET, *images, "cat").removal.item()
    assert cells.sum().item() == pytest.approx(removal, abs=1e-4)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_an_estimate_of_one_sign_has_one_half_whatever_the_base_rate(sign):
    effects = torch.tensor([-1.0, -2, -3, -0.1, 0.5, 0])
    assert balanced(torch.full((6,), sign), effects) == 0.5
    assert balanced(effects, effects) == 1
    assert balanced(-effects, effects) == 0
