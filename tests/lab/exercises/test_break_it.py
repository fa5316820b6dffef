import pytest
import torch

import gmcam
from gmcam.lab.exercises.break_it import painted

VGG, RESNET = gmcam.load("collage-vgg"), gmcam.load("collage-resnet")


def test_a_painted_network_has_the_logits_of_the_predictor_and_the_maps_of_the_painter():
    image = gmcam.lab.scene("cat", "cup", seed=3).image
    both = painted(VGG, RESNET)
    assert torch.allclose(both.probabilities(image), VGG.probabilities(image), atol=1e-4)
    maps, predictor, painter = (
        gmcam.explain(network, image, "cup", method="grad_cam").maps for network in (both, VGG, RESNET)
    )
    assert (maps - painter).abs().mean() < (maps - predictor).abs().mean() / 2


@pytest.mark.parametrize("pair", [(RESNET, VGG), (VGG, VGG), (RESNET, RESNET)])
def test_other_networks_are_not_painted(pair):
    with pytest.raises(ValueError, match="expected a CollageVGG and a CollageResNet"):
        painted(*pair)
