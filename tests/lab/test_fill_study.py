"""The statistics of the stored areas, on tables whose answers are known by construction."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from gmcam.lab.fill_study import ORDERED, FillStudy, gaps_of_run, photo_curves, signed

OBJECTS = ("cat", "cup", "coin", "flower", "rocket", "person")


def table(tmp_path, offsets, noise=0.001):
    """Areas of each map, constant up to a little noise: fill → map → area."""
    generator, rows = np.random.default_rng(0), []
    for first, second in permutations(OBJECTS, 2):
        scene = generator.normal(0.5, 0.1)  # shared by all maps and fills, so only pairing removes it
        for fill, areas in offsets.items():
            for method, offset in areas.items():
                about = {"network": "n", "first": first, "second": second, "method": method, "fill": fill}
                about["probability"] = 0.1 if first == "cat" else 0.5
                values = (scene + offset + generator.normal(0, noise, 2)).tolist()
                rows.append(about | dict(zip(("insertion", "deletion"), values, strict=True)))
    pd.DataFrame(rows).to_parquet(tmp_path / "insertion_fills.parquet")
    return FillStudy(tmp_path)


RISING = {name: 0.1 * i for i, name in enumerate(ORDERED)}
FALLING = {name: -offset for name, offset in RISING.items()}


def test_gaps_are_paired_differences_with_intervals_around_them(tmp_path):
    study = table(tmp_path, {"zero": RISING})
    gaps = study.gaps("n", "insertion", "zero")
    assert "Grad-CAM" not in gaps and next(iter(gaps)) == "*GMCAM"
    assert len(gaps) == len(ORDERED) - 1
    for i, (value, low, high, small) in enumerate(gaps.values(), 1):
        assert value == pytest.approx(0.1 * i, abs=0.001)
        assert low <= value <= high < low + 0.004 and len(small) == len(OBJECTS)
    assert study.gap("n", "deletion", "zero", "area", "edges")[0] == pytest.approx(0.2, abs=0.001)
    recognised = FillStudy(tmp_path, least=0.2).areas("n", "deletion", "zero")
    assert len(recognised) == 25 and "cat" not in recognised.index.get_level_values("first")


def test_the_same_order_is_kept_and_a_turned_one_is_reversed(tmp_path):
    study = table(tmp_path, {"zero": RISING, "blur": RISING, "road": FALLING})
    pairs = len(ORDERED) * (len(ORDERED) - 1) // 2
    assert study.same_order("n", "insertion", ("zero", "blur")) == (1, 1, 1)
    assert study.same_order("n", "insertion", ("zero", "road")) == (0, 0, 0)
    assert study.reversed("n", "insertion", ("zero", "blur")) == []
    assert len(study.reversed("n", "insertion", ("zero", "road"))) == pairs
    assert set(study.clear("n", "deletion", "road").values()) == {1}
    assert study.change("n", "insertion", ("zero", "road"), "gmcam")[0] == pytest.approx(0.2, abs=0.002)


def test_maps_that_differ_by_noise_are_not_clear(tmp_path):
    study = table(tmp_path, {"zero": dict.fromkeys(ORDERED, 0), "road": dict.fromkeys(ORDERED, 0)}, 0.05)
    assert study.clear("n", "insertion", "zero") == {}
    assert study.reversed("n", "insertion", ("zero", "road")) == []
    value, low, high = study.same_order("n", "insertion", ("zero", "road"))
    assert low <= value <= high and 0.1 < value < 0.9


def test_equal_maps_are_not_clear_either(tmp_path):
    study = table(tmp_path, {"zero": {"grad_cam": 0.0, "x_grad_cam": 0.0, "area": 0.3}}, 0)
    assert study.clear("n", "insertion", "zero") == {("grad_cam", "area"): -1, ("x_grad_cam", "area"): -1}
    assert study.gap("n", "insertion", "zero", "x_grad_cam")[:3] == (0, 0, 0)
    assert study.same_order("n", "insertion", ("zero", "zero")) == (1, 1, 1)


def test_what_is_not_stored_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"insertion_fills\.parquet"):
        FillStudy(tmp_path)
    with pytest.raises(ValueError, match="expected a stored network and fill, got 'n' and 'grey'"):
        table(tmp_path, {"zero": RISING}).areas("n", "insertion", "grey")


def test_signs_and_true_minus():
    assert signed((0.0123, -0.0004, 0.02, ())) == "+0.012 [+0.000, +0.020]"
    assert signed((-0.25, -0.5, -0.1, ()), 1) == "−0.2 [−0.5, −0.1]"


def test_curves_of_the_photograph_are_sorted_by_share(tmp_path):
    rows = [("grad_cam", "zero", share, 1 - share, share**2) for share in (0.5, 0.0, 1.0)]
    columns = ["method", "fill", "share", "deletion", "insertion"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "insertion_photo.parquet")
    found = photo_curves(tmp_path)
    assert list(found) == [("zero", "grad_cam")]
    curve = {name: values.tolist() for name, values in found["zero", "grad_cam"].items()}
    areas = {"deletion_area": 0.5, "insertion_area": 0.375}
    assert curve == {"share": [0, 0.5, 1], "deletion": [1, 0.5, 0], "insertion": [0, 0.25, 1]} | areas


def test_gaps_of_a_run_are_taken_image_by_image():
    rows = [
        {"image": f"{label}{i}", "label": label, "method": method, "insertion": i + offset}
        for label in OBJECTS
        for i in range(3)
        for method, offset in (("grad_cam", 0.0), ("gmcam", 0.25))
    ]
    assert gaps_of_run(pd.DataFrame(rows), ["insertion"], ["gmcam"]) == {
        "insertion": {"gmcam": (0.25, 0.25, 0.25, ())}
    }
