"""The stored measurement of the page *The embedded networks*: scenes again, and what must hold of rivals."""

from pathlib import Path

import pandas as pd
import pytest

import gmcam
from gmcam.lab import dual_class_scenes
from gmcam.lab.embedded_study import METHODS, METRICS, NETWORKS, measured, numbers, panels

RECORDS = pd.read_parquet(Path(__file__).parents[2] / "book" / "embedded_scenes.parquet")


def test_every_network_scene_object_and_method_is_measured_once():
    assert len(RECORDS) == len(NETWORKS) * 504 * 2 * len(METHODS)
    assert not RECORDS.duplicated(["network", "image", "label", "method"]).any()


def test_maps_that_ignore_the_class_have_in_one_object_what_the_other_calls_trace():
    rows = RECORDS[RECORDS["method"].isin(["area", "centred_blob", "edges", "feature_sum"])]
    sums = rows.groupby(["network", "image", "method"])[["inside", "trace"]].sum()
    assert sums["inside"].to_numpy() == pytest.approx(sums["trace"].to_numpy(), abs=1e-5)


def test_after_average_pooling_the_guidance_map_is_grad_cam_and_gmcam_its_square():
    pooled = RECORDS[RECORDS["network"] == "collage-resnet"]
    table = pooled.pivot(index=["image", "label"], columns="method", values=list(METRICS))
    for metric in METRICS:
        for one, other in (("guidance_map", "grad_cam"), ("gmcam", "grad_cam_squared")):
            assert table[metric, one].to_numpy() == pytest.approx(table[metric, other].to_numpy(), abs=1e-3)


def test_scenes_are_measured_again():
    for name in NETWORKS:
        again = measured(gmcam.load(name), dual_class_scenes(1, size=128))
        stored = RECORDS[(RECORDS["network"] == name) & (RECORDS["image"] == "0")]
        assert list(again["method"]) == list(stored["method"])
        columns = ["probability", *METRICS]
        known = stored[columns].to_numpy(float)
        assert again[columns].to_numpy(float) == pytest.approx(known, abs=2e-3, nan_ok=True)


def test_the_texts_numbers_are_the_panels():
    gaps, seen = panels(RECORDS, "grad_cam")
    found = numbers(RECORDS)
    title = "Share inside ↑\ncollage-vgg"
    assert found["gmcam_inside_vgg"].startswith(f"{gaps[title]['*GMCAM'][0]:+.2f}")
    assert found["gmcam_inside_vgg_seen"].startswith(f"{seen[title]['*GMCAM'][0]:+.2f}")
    assert found["squaring_resnet"] == "100 %"
