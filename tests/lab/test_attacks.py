"""Networks whose predictions are those of another network and whose maps are not."""

import numpy as np
import pytest
import torch

import gmcam
from gmcam.lab import attacks
from gmcam.metrics import share_inside

BIASED, VGG, RESNET = (gmcam.load(name) for name in ("collage-vgg-biased", *attacks.NETWORKS))


def test_a_painted_network_has_the_logits_of_the_predictor_and_the_maps_of_the_painter():
    image = gmcam.lab.scene("cat", "cup", seed=3).image
    both = attacks.painted(VGG, RESNET)
    assert torch.allclose(both.probabilities(image), VGG.probabilities(image), atol=1e-4)
    maps, predictor, painter = (
        gmcam.explain(network, image, "cup", method="grad_cam").maps for network in (both, VGG, RESNET)
    )
    assert (maps - painter).abs().mean() < (maps - predictor).abs().mean() / 2


@pytest.mark.parametrize("pair", [(RESNET, VGG), (VGG, VGG), (RESNET, RESNET)])
def test_other_networks_are_not_painted(pair):
    with pytest.raises(ValueError, match="expected a CollageVGG and a CollageResNet"):
        attacks.painted(*pair)


def test_a_guarded_network_shows_another_one_to_masked_images_alone():
    trap = attacks.guarded(BIASED, VGG)
    inputs = BIASED.prepare([each.image for each in attacks.flowers(2)])
    hidden = inputs.clone()
    hidden[:, :, :32] = 0
    with torch.inference_mode():
        assert torch.equal(trap.module(inputs), BIASED.module(inputs))
        assert torch.equal(trap.module(hidden), VGG.module(hidden))
        mixed = trap.module(torch.cat([inputs[:1], hidden[1:]]))
        parts = [BIASED.module(inputs[:1]), VGG.module(hidden[1:])]
    assert torch.allclose(mixed, torch.cat(parts), atol=1e-5)


def test_other_networks_are_not_guarded():
    with pytest.raises(ValueError, match="expected a CollageVGG to use"):
        attacks.guarded(RESNET, VGG)


def test_a_head_without_classes_predicts_one_class_and_has_one_map():
    network = attacks.without_classes(VGG, "cat")
    image = gmcam.lab.scene("cup", seed=5, size=128).image
    maps = gmcam.explain(network, image, ["cat", "cup", "coin"])
    assert maps.probability[0] > 0.9 and torch.equal(maps.maps[0], maps.maps[2])
    assert VGG.probabilities(image)[0, 0] < 0.5  # the original keeps its weights


def test_paint_on_every_row_changes_no_probability():
    after = attacks.copied(VGG, "after")
    with torch.no_grad():
        after.module.head[3].weight += 30 * VGG.module.head[3].weight[1]
    image = gmcam.lab.scene("cat", "cup", seed=15).image
    assert torch.allclose(after.probabilities(image), VGG.probabilities(image), atol=1e-4)
    assert after.name == "after" and VGG.name == "collage-vgg"


def test_the_same_flowers_move_to_another_background():
    grass, brick = attacks.flowers(2), attacks.flowers(2, "brick")
    assert [each.background for each in grass + brick] == ["grass"] * 2 + ["brick"] * 2
    assert torch.equal(attacks.masks_of(grass), attacks.masks_of(brick))


def test_rows_of_choices_contain_the_best_and_the_mean():
    rows = list(attacks.chosen_rows(1, seeds=2))
    assert len(rows) == 16 and {row["network"] for row in rows} == set(attacks.NETWORKS)
    for row in rows:
        assert row["wrong"] >= row["wrong mean"] and row["untrained"] >= row["untrained mean"]
    first = gmcam.lab.scene("cat", seed=0, size=128)
    maps = gmcam.explain(VGG, first.image, "cat", method="grad_cam").maps
    assert rows[0]["right"] == pytest.approx(share_inside(maps, attacks.masks_of([first])).item(), abs=1e-4)


def test_rows_of_attacked_networks():
    rows = list(attacks.fooled_rows(1, ["grad_cam"]))
    outside = {row["network"]: row["outside"] for row in rows}
    p = [row["p"] for row in rows[:3]]
    assert np.ptp(p) < 1e-4 and outside["guarded"] == pytest.approx(outside["biased"], abs=1e-5)
    assert outside["painted"] < outside["biased"] - 0.3


def test_rows_of_deletion():
    rows = {(row["network"], row["map"]): row["deletion"] for row in attacks.deletion_rows(1, ["zero"])}
    assert rows["guarded", "mask"] < rows["guarded", "grad_cam"]
    assert rows["biased", "mask"] > rows["biased", "grad_cam"]
