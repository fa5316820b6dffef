import pytest
import torch

import gmcam
from gmcam.lab.exercises.break_it import painted

VGG, RESNET = gmcam.load("collage-vgg"), gmcam.load("collage-resnet")


def test_a_painted_network_answers_as_one_and_is_explained_as_the_other():
    image = gmcam.lab.scene("cat", "cup", seed=3).image
    both = painted(VGG, RESNET)
    assert torch.allclose(both.probabilities(image), VGG.probabilities(image), atol=1e-4)
    found = gmcam.explain(both, image, "cup", method="grad_cam").maps
    painter = gmcam.explain(RESNET, image, "cup", method="grad_cam").maps
    own = gmcam.explain(VGG, image, "cup", method="grad_cam").maps
    assert (found - painter).abs().mean() < (found - own).abs().mean() / 2


@pytest.mark.parametrize("pair", [(RESNET, VGG), (VGG, VGG), (RESNET, RESNET)])
def test_other_networks_are_not_painted(pair):
    with pytest.raises(ValueError, match="a CollageVGG is painted by a CollageResNet"):
        painted(*pair)
