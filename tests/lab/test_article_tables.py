"""Stored runs next to the article's tables: counts, order of the methods, and runs measured again."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import gmcam
from gmcam.datasets import open_dataset
from gmcam.evaluate import Choices, Run, differences, evaluate, recognised, summary
from gmcam.lab import article_tables as tables
from gmcam.lab import by_class

BOOK = Path(__file__).parents[2] / "book"
FINE = "voc-efficientnet-lite0-14x14"
PUBLISHED = pd.read_csv(BOOK / "published.csv")
TABLE = PUBLISHED[PUBLISHED["dataset"] == "voc"]


def test_a_stored_run_is_read_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.testing.assert_frame_equal(tables.stored(FINE), Run.open(BOOK / "runs" / FINE).records())
    with pytest.raises(ValueError, match="got 'no-such-run'"):
        tables.stored("no-such-run")


@pytest.mark.parametrize("name", ["collage-vgg", "collage-resnet"])
def test_the_first_images_of_a_stored_run_measured_again_give_its_numbers(name, tmp_path):
    stored = Run.open(BOOK / "runs" / name)
    dataset = open_dataset("collage", limit=2)
    items = [dataset.read(index) for index in range(2)]
    items = [replace(i, truths=tuple(replace(t, without=None) for t in i.truths)) for i in items]
    methods = ("grad_cam", "gmcam")
    changes = {"methods": methods, "steps": 0, "batch": 1}
    choices = Choices(**stored.description["arguments"] | changes)
    dataset = replace(dataset, read=items.__getitem__)
    run = evaluate(gmcam.load(name), dataset, choices, tmp_path / "run")
    assert run.description["network"]["sha256"] == stored.description["network"]["sha256"]
    new, keys = run.records().dropna(subset="method"), ["image", "label", "method"]
    columns = ["probability", "score", "salience_drop", "context_drop", "pointing", "dice", "inside"]
    old = stored.records().set_index(keys).loc[list(new.set_index(keys).index), columns]
    assert len(new) == 8
    assert new[columns].to_numpy(float) == pytest.approx(old.to_numpy(float), abs=1e-3)


@pytest.mark.parametrize("part", ["all", "recognised"])
def test_stored_counts_are_those_of_the_stored_run(part):
    name = "coco-squeezenet1_0"
    stored = pd.read_csv(BOOK / "runs_marks.csv").query("run == @name and part == @part")
    counts = tables.counted(tables.stored(name), part)
    pd.testing.assert_frame_equal(
        stored[counts.columns].reset_index(drop=True), counts, check_exact=False, atol=1e-5
    )
    assert counts["comparisons"].tolist() == [13] * len(counts)


def test_stored_counts_cover_every_run_twice():
    stored = pd.read_csv(BOOK / "runs_marks.csv")
    names = {f.name for f in (BOOK / "runs").iterdir() if "hard" not in f.name}
    pairs = set(zip(stored["run"], stored["part"], strict=True))
    assert pairs == {(name, part) for name in names for part in ("all", "recognised")}


def test_a_mark_says_who_is_better_whatever_the_metrics_direction():
    """Method b has 0.2 more than gmcam in every metric; more drop in the salience zone is worse."""
    generator, rows = np.random.default_rng(0), []
    for i in range(60):
        for method, shift in (("gmcam", 0.0), ("b", 0.2)):
            value = 0.4 + shift + generator.normal(0, 0.01)
            row = {"image": str(i), "label": f"class {i % 12}", "method": method}
            rows.append(row | {"pointing": value, "salience_drop": value, "inside_error": -value})
    marks = tables.marks(pd.DataFrame(rows)).set_index("metric")["mark"]
    assert marks.to_dict() == {"pointing": "▼", "salience_drop": "▲", "inside_error": "▲"}


def test_rank_agreement_is_spearmans_correlation_of_the_means():
    records = tables.stored(FINE)
    agreement = tables.rank_agreement(records, TABLE)
    theirs = TABLE.pivot(index="method", columns="metric", values="value")
    ours = records.groupby("method")[list(theirs)].mean()
    both = ours.index.intersection(theirs.index)
    assert len(both) == 6
    for metric, (value, low, high) in agreement.items():
        expected = spearmanr(ours.loc[both, metric], theirs.loc[both, metric]).statistic
        assert value == pytest.approx(expected, abs=1e-9)
        assert -1 <= low <= high <= 1


def test_rank_agreement_with_ties_and_with_its_own_order():
    records = tables.stored("voc-efficientnet-lite0-7x7")  # Grad-CAM and XGrad-CAM are tied
    own = summary(records, metrics=["pointing"])[["method", "metric", "value"]]
    value, low, high = tables.rank_agreement(records, own)["pointing"]
    assert value == pytest.approx(1) and low < high <= 1


def test_unrelated_orders_exceed_the_limit_once_in_twenty():
    limit = tables.unrelated(6)
    values = [spearmanr(range(6), order).statistic for order in permutations(range(6))]
    assert np.mean(np.abs(values) > limit + 1e-9) <= 0.05 <= np.mean(np.abs(values) >= limit - 1e-9)


def test_numbers_of_agreement_are_counted():
    panels = {"net": {"a": (0.9, 0.5, 1.0, ()), "b": (-0.2, -0.5, 0.1, ()), "c": (-0.9, -1, -0.5, ())}}
    numbers = tables.agreement_numbers(panels, {"net": {"a": 0.1, "b": 0.85, "c": -0.9}})
    assert numbers == {
        "all": "3", "negative": "2", "above": "1", "below": "1", "known": "1",
        "limit": "0.83", "most": "0.90 [0.50, 1.00]",
    }  # fmt: skip


def test_panel_turns_differences_around_with_their_dots():
    fine = tables.stored(FINE)
    rows = by_class(differences(fine, "gmcam", metrics=["pointing"]), fine, "gmcam")
    plain, flipped = tables.panel(rows), tables.panel(rows, flip=True)
    for name, (value, low, high, classes) in flipped.items():
        assert (value, low, high) == pytest.approx([-plain[name][i] for i in (0, 2, 1)])
        assert classes == pytest.approx([-mean for mean in plain[name][3]])
    means = fine.groupby("method")["pointing"].mean()
    assert flipped["Grad-CAM"][0] == pytest.approx(means["gmcam"] - means["grad_cam"])
    assert tables.lead(rows).startswith("+0.44 [")
    assert "*GMCAM" in tables.panel(summary(fine, metrics=["pointing"]))


def test_classes_with_few_pairs_and_sizes():
    fine = tables.stored(FINE)
    counts = fine.query("method == 'gmcam'")["label"].value_counts()
    assert set(tables.several(fine)["label"]) == set(counts[counts >= 5].index)
    assert tables.sizes(fine) == {"pairs": 147, "classes": 16, "animals": 121}
    assert tables.sizes(recognised(fine))["pairs"] == 102


def test_titles_of_runs():
    assert tables.title_of("voc-efficientnet-lite0-7x7") == "VOC, Lite0, 7 × 7"
    assert tables.title_of("coco-squeezenet1_0") == "COCO, SqueezeNet"
    assert tables.title_of("collage-vgg") == "collage-vgg"


def test_full_size_is_images_times_pairs_times_passes_over_the_rate(tmp_path):
    for device in ("cpu", "cuda"):
        (tmp_path / device).mkdir()
    methods = pd.DataFrame({"network": ["resnet50"] * 2, "batch": 1, "library": "bare"})
    methods.assign(method=["forward pass", "channels last"], milliseconds=[100.0, 50.0]).to_csv(
        tmp_path / "cpu" / "methods.csv", index=False
    )
    pd.DataFrame({"network": ["resnet50"], "pixels": 224, "passes a second": 1000.0}).to_csv(
        tmp_path / "cuda" / "article.csv", index=False
    )
    machine = pd.DataFrame({"What": ["Date", "Device"], "Which": ["2026-01-02", "A card"]})
    machine.to_csv(tmp_path / "cuda" / "machine.csv", index=False)
    # 2,195 passes for ten maps, 20 for the zones and 4,480 for 224 steps of both curves.
    full = tables.full_size(tmp_path, 10, 2.0)
    assert full.pop("card") == "A card" and full.pop("date") == "2026-01-02"
    assert full == pytest.approx({"cpu": 20 * 6695 / 10 / 3600, "gpu": 20 * 6695 / 1000 / 3600})


def test_the_numbers_named_in_the_chapter_add_up():
    stored = pd.read_csv(BOOK / "runs_marks.csv")
    numbers = tables.counted_numbers(stored)
    part = stored[stored["run"].str.endswith("-part") & (stored["part"] == "all")]
    assert numbers["parts_all"] == f"{part['comparisons'].sum():,}"
    assert numbers["curves_all"] == "306" and int(numbers["curves_marks"]) == 0
    assert float(numbers["squeezed"]) < 0.01


def test_every_published_iou_is_below_what_its_dice_allows():
    wide = TABLE.pivot(index="method", columns="metric", values="value")
    assert (wide["iou"] < wide["dice"] / (2 - wide["dice"])).all() and len(wide) == 10
    for zone in ("salience", "context"):
        assert (wide[f"{zone}_drop"] + wide[f"{zone}_increase"] <= 1).all()
