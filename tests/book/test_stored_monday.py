"""What *Monday morning* says of its stored measurements, and one row of each measurement, again."""

from pathlib import Path

import pytest

import gmcam
from gmcam.lab import debug_study as study
from gmcam.lab.debug_tables import MAPS, MEANS, Steps
from gmcam.lab.debugging import FIELDS, activations, cluster, outcomes, outside

STEPS = Steps(Path(__file__).parents[2] / "book")
FLAT, CONTROL = "*background flat", "as much elsewhere, flat"


def test_edges_differ_more_than_grad_cam_and_rivals_without_edges_do_not():
    maps = STEPS.maps()
    assert maps[MAPS["edges"]][0] > maps["*Grad-CAM"][2] > maps["*Grad-CAM"][1] > 0
    assert maps[MAPS["feature_sum"]][1] > 0
    for name in ("random_network", "centred_blob", "area"):
        assert maps[MAPS[name]][1] < 0 < maps[MAPS[name]][2]


def test_means_separate_best_and_three_others_are_not_clear():
    clusters = STEPS.clusters()
    assert max(clusters, key=lambda name: clusters[name][0]) == MEANS
    assert [name for name, row in clusters.items() if row[1] > 1] == list(clusters)[:2]
    assert set(STEPS.numbers()["backgrounds_low"].replace(" and", ",").split(", ")) == {
        *study.TEXTURES,
        "gravel",
    }


@pytest.mark.parametrize(("network", "least"), [("efficientnet-lite0", 0.2), (study.BIASED, 0)])
def test_every_fill_helps_and_the_control_harms(network, least):
    rows = STEPS.changes(network)
    assert rows[FLAT][1] > least and rows[CONTROL][2] < 0
    for name in rows.keys() - {CONTROL, "background without colour"}:
        assert rows[name][1] > 0, name
    grey = rows["background without colour"]
    assert grey[1] > 0 if network == study.BIASED else grey[2] < 0


def test_further_pagodas_confirm_the_hypothesis():
    rows = STEPS.changes(step="confirmed")
    assert rows[FLAT][1] > 0.2 and rows[CONTROL][2] < 0


def test_the_careful_repair_holds_on_gravel_and_the_careless_one_costs_more():
    panels = STEPS.repairs("before", "after", "careless")
    gravel, others = "pagodas, unseen texture", "other objects"
    assert panels["before"][gravel][2] < panels["after"][gravel][1]
    assert panels["before"][others][0] == panels["after"][others][0] > panels["careless"][others][0]
    assert panels["after"]["flowers, unseen backgrounds"][2] < panels["after"]["flowers, seen backgrounds"][1]


def test_the_report_fills_every_field():
    assert STEPS.entries().keys() == FIELDS.keys()


def test_an_unknown_measurement_is_named():
    with pytest.raises(KeyError, match="expected a measurement"):
        STEPS.rows("edits", "other")


def test_the_first_rows_are_those_that_are_stored():
    network = gmcam.load("efficientnet-lite0")
    images = study.collages(network, ["pagoda"], each=1, first=100)
    first = study.Images(images.scenes[:1], images.inputs[:1], images.masks[:1], images.targets[:1])
    top = study.top_classes(network, first.inputs)
    for name in ("grad_cam", "edges"):
        stored = STEPS.rows("maps", name)["value"][0]
        assert outside(network, first.inputs, top, first.masks, name)[0] == pytest.approx(stored, abs=0.1)
    for name, inputs in ({"unchanged": first.inputs} | study.edits(first)).items():
        stored = STEPS.rows("edits", name)["value"][0]
        assert outcomes(network, inputs, first.targets)[0][0] == pytest.approx(stored, abs=1e-3), name


@pytest.mark.slow
def test_the_clusters_and_a_repair_are_those_that_are_stored():
    network = gmcam.load("efficientnet-lite0")
    numbers = cluster(activations(network, study.pagodas(network).inputs))
    assert numbers.tolist() == STEPS.rows("clusters", MEANS)["value"].tolist()
    gravel = study.held_out(network)["pagodas, unseen texture"]
    stored = STEPS.rows("repairs", "after: pagodas, unseen texture")["value"]
    found = outcomes(study.repair(network), gravel.inputs, gravel.targets)[0]
    assert found == pytest.approx(stored.to_numpy(), abs=0.01)
