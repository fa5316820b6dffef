"""Every metric by hand on maps of four cells, then against torchmetrics on random ones."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_jaccard_index
from torchmetrics.functional.segmentation import dice_score

from gmcam import metrics
from gmcam.metrics import METRICS

MAPS = torch.tensor([[[1.0, 3.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
RIGHT = torch.tensor([[[False, True], [False, True]], [[True, True], [True, True]]])


def random_case(seed, size=6):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(3, size, size, generator=generator, dtype=torch.float64)
    return maps, torch.rand(3, size, size, generator=generator) < 0.4


def test_drop_is_the_share_that_is_lost_and_never_negative():
    before, after = torch.tensor([0.8, 0.5, 0.2, 0.0]), torch.tensor([0.2, 0.5, 0.9, 0.1])
    assert metrics.drop(before, after)[:3].tolist() == pytest.approx([0.75, 0, 0])
    assert metrics.drop(before, after)[3].isnan()
    increase = metrics.increase(before, after)
    assert (increase.tolist(), increase.dtype) == ([0, 0, 1, 1], torch.float32)


def test_salient_area_is_relative_to_each_maps_maximum():
    assert metrics.salient_area(MAPS, 0.5).tolist() == [[[False, True], [False, True]], [[False] * 2] * 2]
    assert torch.equal(metrics.salient_area(MAPS), metrics.salient_area(MAPS, 0.5))
    assert metrics.salient_area(MAPS, 0.8).sum() == 1
    assert metrics.salient_area(MAPS, 1.0).sum() == 1


def test_zeros_are_never_salient_however_small_the_maximum():
    assert metrics.salient_area(torch.tensor([[[0.0, 1e-45]]]), 0.25).tolist() == [[[False, True]]]


def test_dice_and_iou_by_hand():
    masks = torch.tensor([[[True, True], [False, False]], [[False, False], [False, False]]])
    # The salient area is the right column, the mask the upper row: one cell in common, three in all.
    assert metrics.dice(MAPS, masks)[0] == 2 / 4
    assert metrics.iou(MAPS, masks)[0] == 1 / 3
    assert metrics.dice(MAPS, masks)[1].isnan() and metrics.iou(MAPS, masks)[1].isnan()  # both empty


def test_an_empty_map_or_an_empty_mask_alone_scores_nothing():
    assert metrics.dice(MAPS, RIGHT)[1] == metrics.iou(MAPS, RIGHT)[1] == 0
    assert metrics.dice(MAPS, torch.zeros_like(RIGHT))[0] == 0


def test_void_pixels_count_neither_for_nor_against():
    counts = torch.ones_like(RIGHT)
    counts[0, 0] = False  # the upper row
    upper = torch.tensor([[[True, True], [False, True]]]).expand(2, 2, 2)
    assert metrics.dice(MAPS, upper, counts)[0] == 1  # without void: 2 · 2 / (2 + 3)
    assert metrics.iou(MAPS, upper, counts)[0] == 1
    assert metrics.share_inside(MAPS, RIGHT, counts)[0] == 1
    nothing = torch.zeros_like(RIGHT)
    assert metrics.dice(MAPS, RIGHT, nothing).isnan().all()
    assert metrics.share_inside(MAPS, RIGHT, nothing).isnan().all()


def test_share_is_the_sum_inside_over_the_whole_sum():
    share = metrics.share_inside(MAPS, RIGHT)
    assert share[0] == 7 / 8
    assert share[1].isnan()  # undefined for an empty map


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_dice_and_iou_are_those_of_torchmetrics(seed, threshold):
    maps, masks = random_case(seed)
    salient = metrics.salient_area(maps, threshold)
    expected = dice_score(
        salient[:, None].long(), masks[:, None].long(), num_classes=1, input_format="one-hot"
    )
    assert metrics.dice(maps, masks, threshold=threshold).tolist() == pytest.approx(
        expected.flatten().tolist()
    )
    overlap = [binary_jaccard_index(a.long(), b.long()) for a, b in zip(salient, masks, strict=True)]
    assert metrics.iou(maps, masks, threshold=threshold).tolist() == pytest.approx(
        [v.item() for v in overlap]
    )


@given(st.integers(0, 10_000))
def test_a_perfect_map_scores_one_everywhere(seed):
    _, masks = random_case(seed)
    masks[:, 0, 0] = True
    rows, columns = torch.where(masks.any(0))
    maps = masks.double()
    boxes = torch.tensor([[0, 0, int(columns.max()) + 1, int(rows.max()) + 1]] * 3)
    for value in (metrics.dice(maps, masks), metrics.iou(maps, masks), metrics.share_inside(maps, masks)):
        assert value.tolist() == [1, 1, 1]
    assert metrics.points_inside(maps, boxes).tolist() == [1, 1, 1]


@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_the_order_of_images_changes_nothing(seed, order):
    maps, masks = random_case(seed)
    for metric in (metrics.dice, metrics.iou, metrics.share_inside):
        together = metric(maps, masks)[list(order)]
        alone = torch.cat([metric(maps[i : i + 1], masks[i : i + 1]) for i in order])
        assert torch.equal(together, alone)
        assert alone.dtype == maps.dtype
    boxes = torch.tensor([[0, 0, 3, 6], [2, 2, 6, 6], [3, 3, 3, 3]])  # the last one is empty
    together = metrics.points_inside(maps, boxes)[list(order)]
    alone = torch.cat([metrics.points_inside(maps[i : i + 1], boxes[i : i + 1]) for i in order])
    assert torch.allclose(together, alone, equal_nan=True)
    assert alone.dtype == maps.dtype


@pytest.mark.parametrize(
    ("box", "hit"),
    [((1, 1, 2, 2), 1), ((0, 0, 2, 2), 1), ((0, 0, 1, 2), 0), ((1, 0, 2, 1), 0), ((0.5, 0.5, 1.4, 1.4), 1)],
)
def test_the_right_and_lower_sides_of_a_box_are_outside(box, hit):
    assert metrics.points_inside(MAPS[:1], torch.tensor([box])).item() == hit


@pytest.mark.parametrize(
    ("sides", "pixels"), [((2, 5), [2, 3, 4]), ((1.1, 4.1), [2, 3, 4]), ((3, 3.1), [3]), ((3.1, 3.9), [])]
)
def test_a_pixel_is_in_a_box_if_its_upper_left_corner_is(sides, pixels):
    left, right = sides
    peaks = torch.zeros(8, 8, 8)
    peaks[range(8), range(8), 0] = 1  # each map's in another row of its first column
    for maps, box in ((peaks, (0, left, 1, right)), (peaks.mT, (left, 0, right, 1))):
        inside = metrics.points_inside(maps, torch.tensor([box]).expand(8, 4))
        assert inside.nonzero().flatten().tolist() == pixels


def test_one_of_several_boxes_suffices_and_empty_ones_do_not_count():
    boxes = torch.tensor([[[0, 0, 1, 1], [1, 1, 2, 2]], [[0, 0, 0, 0], [0, 0, 2, 2]]])
    assert metrics.points_inside(MAPS, boxes).tolist() == [1, 0]  # an empty map scores 0
    assert metrics.points_inside(MAPS, boxes[:, :0]).isnan().all()
    outside = torch.tensor([[[5.0, 5, 5, 9]], [[2, 2, 3, 2]]])  # without width, without height
    assert metrics.points_inside(MAPS, outside, tolerance=99).isnan().all()


def test_the_tolerance_is_a_distance():
    maps = torch.zeros(1, 20, 20)
    maps[0, 3, 4] = 1  # row 3, column 4
    box = torch.tensor([[8, 6, 10, 9]])  # 4 columns further right, 3 rows further down: 5 pixels away
    assert metrics.points_inside(maps, box, tolerance=4.9).item() == 0
    assert metrics.points_inside(maps, box, tolerance=5).item() == 1
    left = torch.tensor([[0, 0, 2, 20]])  # its last column is 1, three from 4
    assert metrics.points_inside(maps, left, tolerance=2).item() == 0
    assert metrics.points_inside(maps, left, tolerance=3).item() == 1


def test_the_first_of_equal_maxima_counts():
    box = torch.tensor([[0, 0, 1, 1]])
    assert metrics.points_inside(torch.ones(1, 3, 3), box).item() == 1
    assert metrics.points_inside(torch.ones(1, 3, 3), torch.tensor([[2, 2, 3, 3]])).item() == 0


def test_soft_and_hard_zones_by_hand():
    inputs = torch.full((1, 3, 2, 2), 2.0)
    maps = torch.tensor([[[0.25, 1.0], [0.0, 0.5]]])
    salient, context = metrics.zones(inputs, maps, "soft")
    assert salient[0, 0].tolist() == [[0.5, 2], [0, 1]]
    assert context[0, 2].tolist() == [[1.5, 0], [2, 1]]
    salient, context = metrics.zones(inputs, maps, "hard", threshold=0.5)
    assert salient[0, 1].tolist() == [[0, 2], [0, 2]]
    assert context[0, 1].tolist() == [[2, 0], [2, 0]]
    salient, _ = metrics.zones(inputs, maps, "hard", threshold=0.6)
    assert salient[0, 1].tolist() == [[0, 2], [0, 0]]


@pytest.mark.parametrize("zone", metrics.ZONES)
def test_the_two_zones_add_up_to_the_image(zone):
    inputs, maps = torch.randn(2, 3, 5, 5), torch.rand(2, 5, 5)
    assert torch.allclose(sum(metrics.zones(inputs, maps, zone)), inputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.drop(torch.ones(2), torch.ones(3)),
            r"one shape of 1 .*'before': \(2,\), 'after': \(3,\)",
        ),
        (lambda: metrics.increase(torch.ones(2, 2), torch.ones(2, 2)), "one shape of 1 dimensions"),
        (lambda: metrics.increase(torch.ones(2), torch.ones(1)), r"'before': \(2,\), 'after': \(1,\)"),
        (lambda: metrics.share_inside(MAPS, MAPS[0] > 0), r"'maps': \(2, 2, 2\), 'masks': \(2, 2\)"),
        (lambda: metrics.share_inside(MAPS, RIGHT, RIGHT[:1]), r"'counts': \(1, 2, 2\)"),
        (lambda: metrics.dice(MAPS, RIGHT, RIGHT[:1]), r"'counts': \(1, 2, 2\)"),
        (lambda: metrics.dice(MAPS, RIGHT[:1], RIGHT), r"'masks': \(1, 2, 2\)"),
        (lambda: metrics.dice(MAPS[:1], RIGHT), r"'maps': \(1, 2, 2\)"),
        (lambda: metrics.iou(MAPS[0], RIGHT[0]), "one shape of 3 dimensions"),
        (lambda: metrics.dice(MAPS, RIGHT, threshold=0), "above 0 and at most 1, got 0"),
        (lambda: metrics.iou(MAPS, RIGHT, threshold=math.nan), "got nan"),
        (lambda: metrics.salient_area(MAPS, 1.01), "got 1.01"),
        (lambda: metrics.points_inside(MAPS, torch.zeros(1, 4)), r"boxes .* got \(2, 2, 2\) and \(1, 1, 4\)"),
        (lambda: metrics.points_inside(MAPS[0], torch.zeros(2, 4)), r"expected maps \(N, H, W\)"),
        (lambda: metrics.points_inside(MAPS, torch.zeros(2, 4), -1), "expected a tolerance of 0 or more"),
        (lambda: metrics.zones(torch.ones(2, 3, 2, 2), MAPS, "firm"), "soft or hard, got 'firm'"),
        (lambda: metrics.zones(torch.ones(2, 3, 2, 4), MAPS), r"got \(2, 3, 2, 4\) and \(2, 2, 2\)"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_metric_has_a_title_and_a_direction():
    assert all(title and direction in ("↑", "↓", "→ 0") for title, direction in METRICS.values())
