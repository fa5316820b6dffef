import numpy as np
import pytest
import torch

import gmcam
from gmcam.lab import debug_study as study
from gmcam.lab.debug_tables import change, edit_rows, listed, map_rows, points, repair_rows, share
from gmcam.lab.debugging import outcomes

BIASED = gmcam.load(study.BIASED)
IMAGES = study.collages(BIASED, ["cat", "coin"], ["grass", "brick"], each=2, first=10)


def test_collages_have_targets_masks_and_seeds_of_their_own():
    assert IMAGES.labels == ["cat"] * 4 + ["coin"] * 4
    assert IMAGES.backgrounds == ["grass", "brick"] * 4 and IMAGES.targets == IMAGES.labels
    assert [each.seed for each in IMAGES.scenes] == [10, 11, 12, 13] * 2
    assert IMAGES.inputs.shape == (8, 3, 128, 128) and IMAGES.masks.shape == (8, 128, 128)
    for scene, mask in zip(IMAGES.scenes, IMAGES.masks, strict=True):
        assert torch.equal(mask, torch.from_numpy(scene.masks[0]))


def test_the_seeds_of_the_slice_the_repair_and_the_tests_differ():
    lite = gmcam.load("efficientnet-lite0")
    slices = [study.pagodas(lite), study.confirming(lite)]
    slices += [study.collages(lite, ["pagoda"], study.TEXTURES, each=8, first=1000)]
    slices += [study.collages(lite, ["pagoda"], ["gravel"], each=12, first=first) for first in (2000, 5000)]
    seeds = [{each.seed for each in images.scenes} for images in slices]
    assert sum(map(len, seeds)) == len(set.union(*seeds)) == 36 + 36 + 24 + 12 + 12
    assert "gravel" not in study.TEXTURES


def test_an_untrained_network_is_a_copy_with_other_weights_always_the_same():
    first, second = study.untrained(BIASED), study.untrained(BIASED)
    p, q, r = (next(network.module.parameters()) for network in (first, second, BIASED))
    assert torch.equal(p, q) and not torch.equal(p, r)


def test_edits_change_the_background_alone_and_the_control_a_region_as_large():
    arms, background = study.edits(IMAGES), ~IMAGES.masks
    for name, inputs in arms.items():
        changed = (inputs != IMAGES.inputs).any(1)
        if "background" in name:
            assert not (changed & ~background).any() and changed.any(), name
    grey = arms["background without colour"]
    assert torch.allclose(grey.std(1)[background], torch.zeros(()), atol=1e-6)
    assert torch.equal(arms["mirrored"].flip(3), IMAGES.inputs)
    changed = (arms["as much elsewhere, flat"] != IMAGES.inputs).any(1).sum((1, 2))
    assert (changed <= background.sum((1, 2))).all() and (changed > background.sum((1, 2)) * 0.9).all()


def test_prepared_inputs_are_shown_as_the_images_that_they_were():
    for shown, scene in zip(study.seen(BIASED, IMAGES.inputs), IMAGES.scenes, strict=True):
        assert np.abs(shown.astype(int) - np.asarray(scene.image)).max() <= 1


def test_an_edited_image_has_titles_with_the_top_class_and_the_right_ones_probability():
    panels, titles = study.edited(BIASED, IMAGES, 0)
    chance = outcomes(BIASED, IMAGES.inputs[:1], "cat")[0][0]
    top = BIASED.class_name(study.top_classes(BIASED, IMAGES.inputs[:1])[0])
    assert titles[0] == f"unchanged\n{top}; cat {100 * chance:.0f} %"
    assert len(panels) == len(titles) == 3 and panels[1].shape == (128, 128, 3)
    assert len(np.unique(panels[1][~IMAGES.masks[0].numpy()], axis=0)) == 1


def test_a_verdict_is_what_a_failed_assertion_says():
    def fails(network):
        assert network is None, "found 3"

    assert study.verdict(fails, BIASED) == "fails: found 3" and study.verdict(fails, None) == "passes"


def test_rows_are_one_an_image_and_measurement():
    (row, *rest) = map_rows(BIASED, IMAGES, ["area"])
    area = 100 - 100 * IMAGES.masks[0].float().mean().item()
    assert row["value"] == pytest.approx(area, abs=0.5) and len(rest) == 7
    assert (row["step"], row["arm"], row["image"]) == ("maps", "area", "cat-grass-10")
    rows = list(edit_rows(BIASED, IMAGES))
    chance, right = outcomes(BIASED, IMAGES.inputs, IMAGES.targets)
    assert [each["value"] for each in rows[:8]] == pytest.approx(chance.tolist())
    assert [each["right"] for each in rows[:8]] == right.tolist()
    assert len(rows) == 8 * (1 + len(study.edits(IMAGES)))


def test_rows_of_repairs_have_the_moment_and_what_the_images_show(monkeypatch):
    monkeypatch.setattr(study, "held_out", lambda network: {"all": IMAGES})
    rows = list(repair_rows(BIASED, {"before": BIASED, "after": study.untrained(BIASED)}))
    assert [each["arm"] for each in rows] == ["before: all"] * 8 + ["after: all"] * 8
    assert rows[0]["network"] == study.BIASED == rows[-1]["network"]


def test_numbers_in_words():
    assert (
        share((54.4, 40.1, 66.6, [])) == "54 % [40, 67]" and share((100, 90, 100, []), ends=False) == "100 %"
    )
    assert points((-0.4, -12.2, 3.0, [])) == "+0 [−12, +3]"
    assert change((0.501, 0.4, 0.6, [])) == "+0.50 [+0.40, +0.60]"
    assert [listed(words) for words in ([], ["a"], ["a", "b", "c"])] == ["none", "a", "a, b and c"]
