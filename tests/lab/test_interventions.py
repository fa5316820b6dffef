"""Effects of a scene's objects against the images drawn by hand, and the effect map's sum."""

import pytest
import torch

import gmcam
from gmcam.lab import effect_map, effects, scene
from gmcam.lab.scenes import BACKGROUNDS


@pytest.fixture(scope="module")
def network():
    return gmcam.load("collage-resnet")


def logit(network, drawn, label):
    with torch.no_grad():
        return network.module(network.prepare(drawn.image))[0, network.classes.index(label)].item()


def test_effects_are_those_of_the_images_that_the_scene_draws(network):
    drawn = scene("cat", "cup", seed=5)
    found = effects(network, drawn, "cup", "cat")
    both, alone = logit(network, drawn, "cat"), logit(network, drawn.without("cat"), "cat")
    other, bare = (
        logit(network, part, "cat") for part in (drawn.without("cup"), drawn.without(0).without(0))
    )
    names = [name for part in BACKGROUNDS.values() for name in part if name != drawn.background]
    elsewhere = [logit(network, drawn.on(name), "cat") for name in names]
    assert len(elsewhere) == 8
    assert found.removal.item() == pytest.approx(both - other, abs=1e-4)
    assert found.addition.item() == pytest.approx(alone - bare, abs=1e-4)
    assert found.interaction.item() == pytest.approx(both - other - alone + bare, abs=1e-4)
    assert found.background.item() == pytest.approx(both - sum(elsewhere) / 8, abs=1e-4)


def test_an_object_goes_by_its_label_or_its_number(network):
    drawn = scene("coin", "cup", "coin", seed=2)
    two, first = effects(network, drawn, "coin", "cup"), effects(network, drawn, 0, "cup")
    assert two.removal.item() == pytest.approx(
        logit(network, drawn, "cup") - logit(network, drawn.without("coin"), "cup"), abs=1e-4
    )
    assert first.addition.item() == pytest.approx(
        logit(network, drawn.without("cup").without(1), "cup")
        - logit(network, drawn.without("coin").without("cup"), "cup"),
        abs=1e-4,
    )


def test_the_effect_map_adds_up_to_the_removal(network):
    drawn = scene("cat", "cup", seed=5)
    removal = effects(network, drawn, "cat", "cat").removal
    exact = effect_map(network, drawn, "cat", "cat")
    assert exact.shape == (16, 16)
    assert exact.sum().item() == pytest.approx(removal.item(), abs=1e-5)
    assert effect_map(network, drawn, "cat", ["cat", "cup"]).shape == (2, 16, 16)
    for path in ("maps", "images"):
        near = effect_map(network, drawn, "cat", "cat", "32x32", path=path, steps=100)
        assert near.sum().item() == pytest.approx(removal.item(), abs=0.05)


def test_what_the_scene_or_the_network_lacks_is_named(network):
    drawn = scene("cat", "cup", seed=5)
    for measure in (effects, effect_map):
        with pytest.raises(ValueError, match=r"expected an object of the scene .*cat.*cup.*, got 'coin'"):
            measure(network, drawn, "coin", "cat")
        with pytest.raises(ValueError, match="expected a class of collage-resnet, got 'tabby'"):
            measure(network, drawn, "cup", "tabby")
