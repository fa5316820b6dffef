"""The text's numbers of *Write your own metric*, on records whose answers are known."""

import pandas as pd
import pytest

from gmcam.lab.metric_study import above_square, numbers, seen, share_of_squaring

VALUES = {"grad_cam": 0.2, "grad_cam_squared": 0.5, "gmcam": 0.6, "centred_blob": 0.1, "random_network": 0.0}
METRICS = ["inside", "Near ↑", "Contrast ↑", "dice", "pointing"]


def records():
    """Four classes, 24 images; the same value in every metric, and an odd image is recognised."""
    rows = [
        {"image": str(i), "label": "abcd"[i % 4], "method": method, "probability": 0.1 + 0.5 * (i % 2)}
        | dict.fromkeys(METRICS, value)
        for i in range(24)
        for method, value in VALUES.items()
    ]
    return pd.DataFrame(rows)


def test_squaring_has_its_part_of_the_lead_and_the_rest_is_above_it():
    assert share_of_squaring(records()).to_numpy() == pytest.approx(0.75)
    assert above_square(records())["value"].to_numpy() == pytest.approx(0.1)


def test_a_target_is_recognised_from_a_fifth_on():
    assert set(seen(records())["probability"]) == {0.6}


def test_numbers_of_the_text():
    found = numbers(records())
    assert (found["share_near"], found["pairs"], found["pairs_seen"]) == ("75 %", "24", "12")
    assert found["rest_near"] == found["seen_near"] == "+0.10 [+0.10, +0.10]"
    assert found["blob_lead"].startswith("−0.50") and found["points_gmcam"].startswith("+0.40")
