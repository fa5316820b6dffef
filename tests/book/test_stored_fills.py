"""What the chapter *Insertion and deletion* says of its stored areas, and the areas themselves, again."""

from pathlib import Path

import pytest

import gmcam
from gmcam.lab.fill_study import FILLS, ORDERED, FillStudy, photo_curves
from gmcam.metrics import curves

BOOK = Path(__file__).parents[2] / "book"
STUDY, PHOTO = FillStudy(BOOK), photo_curves(BOOK)
NETWORKS, AREAS = ("collage-vgg", "collage-resnet"), ("deletion", "insertion")
RIVALS = ("feature_sum", "random_network", "edges", "centred_blob", "area")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("area", AREAS)
def test_most_pairs_keep_their_order_and_no_clear_one_is_reversed(network, area):
    assert STUDY.areas(network, area, "road").shape[0] == 28
    assert STUDY.same_order(network, area, ("zero", "road"))[0] > 0.85
    assert STUDY.reversed(network, area, ("zero", "road")) == []


@pytest.mark.parametrize("fill", FILLS)
def test_gmcams_lead_is_not_clear_with_any_fill(fill):
    for area in AREAS:
        _, low, high, _ = STUDY.gap("collage-vgg", area, fill, "gmcam")
        assert low < 0 < high
        pairs = STUDY.clear("collage-vgg", area, fill)
        assert ("grad_cam", "gmcam") not in pairs and len(pairs) < len(ORDERED)


def test_the_mask_loses_in_insertion_with_road_alone():
    gaps = {fill: STUDY.gap("collage-vgg", "insertion", fill, "mask") for fill in FILLS}
    assert gaps["road"][2] < 0 and gaps["zero"][1] < 0 < gaps["zero"][2]
    assert STUDY.change("collage-vgg", "insertion", ("road", "zero"), "mask")[2] < 0
    assert STUDY.change("collage-vgg", "deletion", ("road", "zero"), "area")[1] < 0  # not clear


def test_on_the_photograph_rivals_beat_grad_cam_with_grey_alone():
    areas = {key: curve["deletion_area"] for key, curve in PHOTO.items()}
    ahead = {fill: sum(areas[fill, r] < areas[fill, "grad_cam"] for r in RIVALS) for fill in FILLS}
    assert ahead["zero"] == 4 and ahead["road"] == 0
    for fill in FILLS:
        insertion = {name: PHOTO[fill, name]["insertion_area"] for name in ("grad_cam", "centred_blob")}
        assert insertion["centred_blob"] < insertion["grad_cam"]


@pytest.mark.slow
def test_a_scenes_areas_are_those_that_are_stored():
    network = gmcam.load("collage-vgg")
    scene = gmcam.lab.dual_class_scenes(56, step=2)[0]
    maps = gmcam.explain(network, scene.image, scene.labels[0], method="gmcam").maps
    for fill in FILLS:
        found = curves(network, network.prepare([scene.image]), scene.labels[0], maps, steps=8, fill=fill)
        for area in AREAS:
            stored = STUDY.areas("collage-vgg", area, fill).loc[scene.labels, "gmcam"]
            assert getattr(found, f"{area}_area").item() == pytest.approx(stored, abs=2e-4)
