"""Scenes whose measurements are known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import gmcam
from gmcam import Preprocessing
from gmcam.lab import dual_class_scenes, localise
from gmcam.metrics import points_inside, share_inside


class RedSeer(nn.Module):
    """Logit 0 is the mean of the red channel, so that its map is the red channel, cell by cell."""

    def __init__(self):
        super().__init__()
        self.red = nn.Conv2d(3, 1, 1, bias=False)
        self.red.weight.data = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)

    def forward(self, x):
        return self.red(x).mean((2, 3)).repeat(1, 8)


@pytest.fixture
def red_network():
    plain = Preprocessing(64, 64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return gmcam.Network(RedSeer(), preprocess=plain, classes=gmcam.lab.CLASSES, input_shape=(3, 64, 64))


def painted(scene, index, value=255):
    """The scene in black, with one object in pure red."""
    pixels = np.zeros((*scene.masks.shape[1:], 3), np.uint8)
    pixels[scene.masks[index], 0] = value
    return dataclasses.replace(scene, image=pixels)


def test_a_map_that_is_the_target_object_scores_all_and_one_that_is_the_other_none(red_network):
    scenes = dual_class_scenes(8, size=64)
    on_target = [painted(scene, 0) for scene in scenes]
    on_other = [painted(scene, 1) for scene in scenes]
    right = localise(red_network, on_target, "grad_cam", layer="red", sigma=0)
    wrong = localise(red_network, on_other, "grad_cam", layer="red", sigma=0)
    assert right["inside"] == pytest.approx(1) and right["trace"] == pytest.approx(0)
    assert right["points"].all()
    assert wrong["inside"] == pytest.approx(0) and wrong["trace"] == pytest.approx(1)


def test_an_empty_map_counts_as_a_miss(red_network):
    black = [painted(scene, 0, value=0) for scene in dual_class_scenes(2, size=64)]
    measured = localise(red_network, black, "grad_cam", layer="red")
    assert np.isnan([measured["inside"], measured["trace"]]).all() and not measured["points"].any()


def test_maps_are_measured_on_the_pixels_of_the_scene():
    """As the first edition did: explain, enlarge to the scene, then the metrics."""
    network, scenes = gmcam.load("collage-vgg"), dual_class_scenes(5, size=160)
    measured = localise(network, scenes, "grad_cam", sigma=1)
    images, labels = [s.image for s in scenes], [s.labels[0] for s in scenes]
    maps = gmcam.explain(network, images, labels, method="grad_cam", sigma=1).maps[:, None]
    maps = torch.nn.functional.interpolate(maps, (160, 160), mode="bilinear")[:, 0]
    masks = torch.from_numpy(np.stack([s.masks for s in scenes]))
    boxes = torch.from_numpy(np.stack([s.boxes[0] for s in scenes]))
    assert measured["inside"] == pytest.approx(share_inside(maps, masks[:, 0]).numpy(), abs=1e-6)
    assert measured["trace"] == pytest.approx(share_inside(maps, masks[:, 1]).numpy(), abs=1e-6)
    assert np.array_equal(measured["points"], points_inside(maps, boxes).bool().numpy())


def test_scenes_of_one_object_are_refused(red_network):
    with pytest.raises(ValueError, match="expected scenes of two objects"):
        localise(red_network, [gmcam.lab.scene("cat", size=64)], "grad_cam")
