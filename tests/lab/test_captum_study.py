"""The stored measurement of the chapter *Captum baselines*: one scene again, and rivals."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

import gmcam
from gmcam.lab import dual_class_scenes
from gmcam.lab.captum_study import OURS, PIXELS, RIVALS, agreement, measured

BOOK = Path(__file__).parents[2] / "book"
RECORDS = pd.read_parquet(BOOK / "captum_scenes.parquet")
IGNORE_THE_CLASS = ["area", "centred_blob", "edges", "feature_sum"]


def test_agreement_is_spearmans_correlation():
    one, other = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(0))
    other = (5 * other).round()  # with ties
    assert agreement(one, other) == pytest.approx(spearmanr(one.flatten(), other.flatten()).statistic)
    assert agreement(one, 3 * one) == pytest.approx(1) and agreement(one, -one) == pytest.approx(-1)


def test_every_scene_has_two_objects_and_every_method():
    assert len(RECORDS) == 56 * 2 * len((*RIVALS, *OURS, *PIXELS))
    assert (RECORDS.groupby(["image", "label"]).size() == len((*RIVALS, *OURS, *PIXELS))).all()


def test_a_map_that_ignores_the_class_agrees_with_itself():
    rows = RECORDS[RECORDS["method"].isin(IGNORE_THE_CLASS)]
    assert rows["agreement"].to_numpy() == pytest.approx(1)
    swapped = rows.groupby(["image", "method"])[["inside", "trace"]].sum()
    assert swapped["inside"].to_numpy() == pytest.approx(swapped["trace"].to_numpy(), abs=1e-5)


@pytest.mark.slow
def test_a_stored_scene_is_measured_again():
    cheap = [method for method in (*RIVALS, *OURS, *PIXELS) if method != "captum.occlusion"]
    again = measured(gmcam.load("collage-vgg"), dual_class_scenes(56, size=128)[:1], cheap)
    stored = RECORDS[(RECORDS["image"] == "0") & (RECORDS["method"] != "captum.occlusion")]
    assert list(again["method"]) == list(stored["method"])
    columns = ["probability", "rank", "inside", "trace", "pointing", "agreement"]
    assert again[columns].to_numpy() == pytest.approx(stored[columns].to_numpy(), abs=2e-3)
