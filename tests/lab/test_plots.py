import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import same_color, to_rgb
from PIL import Image

from gmcam import Network, Preprocessing, explain
from gmcam.lab import coloured, dots, feature_sheet, greyed, intervals, lines, pipeline
from gmcam.lab.layer_pictures import COLOURS
from gmcam.lab.pictures import three_digits
from gmcam.metrics import METRICS
from gmcam.palette import tint
from gmcam.show import as_array, overlay

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
X = [0, 0.5, 1]


def by_name(ax):
    """The lines, without the leaders to their labels."""
    return {name: line for line in ax.get_lines() if (name := line.get_label())[0] != "_"}


def labels(ax):
    return {text.get_text().replace("\n", " "): text for text in ax.texts}


def test_lines_show_the_values_they_were_given():
    figure = lines([{"one": (X, [0.1, np.nan, 0.3]), "two": (torch.tensor(X), torch.tensor([1.0, 0, 1]))}])
    drawn = by_name(figure.axes[0])
    assert np.array_equal(drawn["one"].get_xydata(), [[0, 0.1], [0.5, np.nan], [1, 0.3]], equal_nan=True)
    assert drawn["two"].get_xydata().tolist() == [[0, 1], [0.5, 0], [1, 1]]


def test_dots_show_value_interval_and_clusters_row_by_row():
    panel = {"first": (-0.002, 0.1, 0.3, [0.15, 0.25]), "*second": (0.6, 0.5, 0.9, [])}
    figure = dots({"inside": panel, "pointing": panel}, chance=0.5)
    for ax, title in zip(figure.axes, ("inside", "pointing"), strict=True):
        chance, small, _ = ax.get_lines()
        assert ax.get_title(loc="left") == title and list(chance.get_xdata()) == [0.5, 0.5]
        bars, drawn = ax.collections
        assert drawn.get_offsets().tolist() == [[0.6, 0], [-0.002, 1]]  # the first row is on top
        assert small.get_xydata().tolist() == [[0.15, 1], [0.25, 1]]
        segments = [segment.tolist() for segment in bars.get_segments()]
        assert segments == [[[0.5, 0], [0.9, 0]], [[0.1, 1], [0.3, 1]]]
        assert [text.get_text() for text in ax.texts] == ["0.60", "0.00"]
    tones = figure.axes[0].collections[1].get_facecolor()
    assert [same_color(tone, COLOURS[0]) for tone in tones] == [True, False]  # the bold row is ink
    names = figure.axes[0].get_yticklabels()
    assert [(name.get_text(), name.get_fontweight()) for name in names] == [
        ("second", "bold"),
        ("first", "normal"),
    ]


def test_dots_name_a_row_without_a_value_if_told_to():
    panel = {"first": (0.2, 0.1, 0.3, ()), "second": (np.nan, np.nan, np.nan, ())}
    for word, texts in (("undefined", ["undefined", "0.20"]), ("", ["0.20"])):
        assert [text.get_text() for text in dots({"trace": panel}, undefined=word).axes[0].texts] == texts


def test_dots_of_different_rows_are_refused():
    with pytest.raises(ValueError, match="expected panels with the same rows, got 2 kinds"):
        dots({"a": {"x": (1, 1, 1, [])}, "b": {"y": (1, 1, 1, [])}})
    with pytest.raises(ValueError, match="got 0 kinds"):
        dots({})
    with pytest.raises(ValueError, match="at least one column, got 0"):
        dots({"a": {"x": (1, 1, 1, [])}}, columns=0)


def test_a_row_without_a_value_is_empty_and_rules_part_the_rows():
    panel = {"a": (2.0, 1.0, 3.0, []), "b": (np.nan, np.nan, np.nan, []), "c": (100.0, 10.0, 1000.0, [])}
    (ax,) = dots({"passes": panel}, rules=[1], log=True, x="passes").axes
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "passes"
    assert [text.get_text() for text in ax.texts] == ["100", "2.00"]
    (rule,) = [line for line in ax.get_lines() if len(line.get_xdata()) == 2]
    assert list(rule.get_ydata()) == [1.5, 1.5]  # below the first of three rows


def test_on_a_phone_panels_are_below_each_other_and_all_rows_named():
    panel = {"a name that is longer than a line": (0.5, 0.4, 0.6, [])}
    figure = dots({"a": panel, "b": panel})
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == 2
    stacked = figure.stacked()
    assert stacked.axes[0].get_subplotspec().get_gridspec().ncols == 1
    for ax in stacked.axes:
        (name,) = ax.get_yticklabels()
        assert name.get_text() == "a name that is longer\nthan a line" and name.get_visible()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.005, "0.01"),
        (-0.004, "0.00"),
        (-1.234, "−1.23"),
        (9.996, "10.0"),
        (99.96, "100"),
        (-1234.5, "−1234"),
    ],
)
def test_numbers_have_at_most_three_digits(value, written):
    assert three_digits(value) == written


def test_a_name_looks_alike_in_all_charts_and_no_two_names_do():
    names = [f"method {index}" for index in range(12)]
    figure = lines([dict.fromkeys(names, (X, X)), dict.fromkeys(names[::-1], (X, X))])
    first, second = map(by_name, figure.axes)
    looks = {
        name: (line.get_color(), str(line.get_linestyle()), line._dash_pattern)
        for name, line in first.items()
    }
    assert len(set(map(str, looks.values()))) == 12
    for name, line in second.items():
        assert same_color(line.get_color(), looks[name][0]) and line._dash_pattern == looks[name][2]
    assert all(set(labels(ax)) == set(names) for ax in figure.axes)


def test_a_line_is_labelled_at_its_end_or_beside_it():
    (ax,) = lines([{"whole": (X, [0, 1, 0.5]), "here": ([0.25, 0.25], [0, 1])}], columns=1).axes
    low, high = ax.get_ylim()
    assert labels(ax)["whole"].get_position() == pytest.approx((1.08, (0.5 - low) / (high - low)))
    assert list(labels(ax)["here"].xy) == [0.25, 1]


def test_on_a_phone_charts_are_below_each_other():
    figure = lines([IMAGE, {"a": (X, X)}, {"a": (X, X)}], ["image", "in", "out"], columns=3)
    spec = figure.stacked().axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == (3, 1)


def test_colours_differ_in_lightness_or_hue_as_seen_without_one_kind_of_cone():
    # Viénot, Brettel and Mollon's projections for red and green blindness, on linear light.
    linear = np.array([to_rgb(colour) for colour in COLOURS]) ** 2.2
    for projection in (
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    ):
        seen = (linear @ np.array(projection).T).clip(0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen, axis=-1) + 9 * np.eye(len(seen))
        assert apart.min() > 0.2


@pytest.mark.parametrize(
    ("values", "expected"), [([0.2, 0.4], (0, 1)), ([-0.5, 0.4], (-0.5, 1)), ([0.2, np.nan, 2.0], (0, 2))]
)
def test_all_charts_share_a_scale_that_holds_zero_one_and_every_value(values, expected):
    figure = lines([{"a": (range(len(values)), values)}, IMAGE, {"b": (X, X)}])
    for ax in (figure.axes[0], figure.axes[2]):
        low, high = ax.get_ylim()
        room = 0.02 * (expected[1] - expected[0])
        assert (low, high) == pytest.approx((expected[0] - room, expected[1] + room))


def test_images_have_no_axes_and_a_narrower_column_than_charts():
    figure = lines([IMAGE, {"a": (X, X)}, {"a": (X, X)}] * 2, ["image", "in", "out"], columns=3, x="s", y="p")
    image, left, right, lower_image, lower_left, lower_right = figure.axes
    assert np.array_equal(image.images[0].get_array(), IMAGE)
    assert not image.axison and not lower_image.axison
    assert image.get_subplotspec().get_gridspec().get_width_ratios() == [0.7, 1, 1]
    assert [ax.get_title() for ax in figure.axes] == ["image", "in", "out", "", "", ""]
    assert [ax.get_ylabel() for ax in (left, right, lower_left, lower_right)] == ["p", "", "p", ""]
    assert [ax.get_xlabel() for ax in (left, right, lower_left, lower_right)] == ["", "", "s", "s"]


def test_words_on_the_axis_are_written_at_a_slant():
    figure = lines([{"a": (["head", "stage4", "stage3"], [1, 0.5, 0])}])
    words = figure.axes[0].get_xticklabels()
    assert [word.get_text() for word in words] == ["head", "stage4", "stage3"]
    assert {word.get_rotation() for word in words} == {45}


def test_a_place_without_a_panel_stays_empty():
    figure = lines([{"a": (X, X)}] * 3, columns=2)
    assert len(figure.axes) == 4 and not figure.axes[3].axison
    assert figure.axes[1].get_subplotspec().get_gridspec().ncols == 2


def test_the_lowest_chart_of_a_column_names_the_axis_above_an_image():
    figure = lines([{"a": (X, X)}, {"a": (X, X)}, IMAGE, Image.fromarray(IMAGE).convert("L")], x="share")
    assert [ax.get_xlabel() for ax in figure.axes] == ["share", "share", "", ""]
    assert figure.axes[3].images[0].get_array().shape == IMAGE.shape  # grey is no map


def test_a_chart_has_a_column():
    with pytest.raises(ValueError, match="at least one column, got 0"):
        lines([{"a": (X, X)}], columns=0)


@pytest.mark.parametrize("panels", [[], [IMAGE], [{}], [{"a": ([], [])}]])
def test_nothing_to_chart_is_refused(panels):
    with pytest.raises(ValueError, match="expected a panel that maps names to lines"):
        lines(panels)


def rows(*metrics):
    values = [(m, metric, 0.5, 0.4, 0.7, 9) for metric in metrics for m in ("grad_cam", "mine")]
    return pd.DataFrame(values, columns=["method", "metric", "value", "low", "high", "count"])


def test_a_panel_per_metric_and_a_line_per_method():
    figure = intervals(rows("dice", "salience_drop", "iou", "inside", "trace"))
    shown = [ax for ax in figure.axes if ax.axison]
    # In the order of the article, whatever the order of the rows.
    expected = [name for name in METRICS if name in ("dice", "salience_drop", "iou", "inside", "trace")]
    assert [ax.get_title(loc="left") for ax in shown] == [" ".join(METRICS[name]) for name in expected]
    assert [label.get_text() for label in shown[0].get_yticklabels()] == ["mine", "Grad-CAM"]
    bars, drawn = shown[0].collections
    assert drawn.get_offsets().tolist() == [[0.5, 0], [0.5, 1]]
    assert bars.get_segments()[0][:, 0].tolist() == [0.4, 0.7]


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 4), (7, 4), (9, 3), (11, 4)])
def test_panels_leave_few_places_empty(count, columns):
    figure = intervals(rows(*list(METRICS)[:count]))
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == columns


def test_a_metric_of_the_user_comes_last_under_its_name():
    shown = intervals(rows("Near ↑", "dice")).axes
    assert [ax.get_title(loc="left") for ax in shown] == [" ".join(METRICS["dice"]), "Near ↑"]


def test_a_method_that_lacks_a_metric_has_an_empty_row():
    table = rows("dice", "iou")
    _, iou = intervals(table[(table["method"] != "mine") | (table["metric"] == "dice")]).axes
    assert [text.get_text() for text in iou.texts] == ["0.50"]
    assert len(iou.get_yticks()) == 2


def test_zero_is_marked_on_request():
    counts = [len(intervals(rows("dice"), zero=zero).axes[0].lines) for zero in (False, True)]
    assert counts[1] - counts[0] == 1


def test_published_values_are_diamonds_where_there_are_any():
    published = pd.DataFrame([("grad_cam", "dice", 0.9)], columns=["method", "metric", "value"])
    dice, iou = intervals(rows("dice", "iou"), published=published).axes[:2]
    (diamond,) = [line for line in dice.lines if line.get_marker() == "D"]
    assert diamond.get_xydata().tolist() == [[0.9, 1]]  # the methods from below
    assert not [line for line in iou.lines if line.get_marker() == "D" and len(line.get_xdata())]


def test_nothing_cannot_be_drawn():
    with pytest.raises(ValueError, match="expected a summary with rows"):
        intervals(rows())


def test_a_coloured_map_times_the_greyed_image_is_the_overlay():
    saliency = np.random.default_rng(1).random((3, 2))
    tinted = coloured(saliency)
    assert tinted.mode == "RGB" and tinted.size == (2, 3)
    cells = np.asarray(tinted).astype(float).repeat(4, axis=0).repeat(4, axis=1)
    assert np.abs(np.asarray(greyed(IMAGE)) * cells / 255 - overlay(IMAGE, saliency)).max() <= 2


def test_the_feature_sheet_starts_with_the_strongest_map():
    maps = torch.zeros(5, 2, 2)
    maps[3], maps[1], maps[4] = -9, 5, 7  # strength is the mean size, whatever the sign
    figure = feature_sheet(maps, count=3, columns=2)
    assert titles(figure)[:3] == ["k = 3", "k = 4", "k = 1"]
    assert np.array_equal(figure.axes[0].images[0].get_array(), maps[3].numpy())


@pytest.mark.parametrize("shape", [(2, 2), (1, 5, 2, 2)], ids=str)
def test_a_feature_sheet_is_of_one_image(shape):
    with pytest.raises(ValueError, match=r"the feature maps of one image \(K, h, w\), got"):
        feature_sheet(torch.zeros(shape))


def test_a_feature_sheet_has_a_map():
    with pytest.raises(ValueError, match="at least one feature map, got 0"):
        feature_sheet(torch.zeros(3, 2, 2), count=0)


@pytest.fixture
def network(gap_network):
    classes = ("cat", "cup", "coin")
    return Network(gap_network, preprocess=Preprocessing(8, 8), classes=classes, input_shape=(3, 8, 8))


def titles(figure):
    """Of the panels, without the colour bar."""
    return [ax.get_title() for ax in figure.axes if ax.get_label() != "<colorbar>"]


@pytest.mark.filterwarnings("error")
def test_the_pipeline_shows_every_step_from_maps_to_gmcam(network):
    heads = titles(pipeline(network, IMAGE, "cup", channels=2))
    assert heads[0] == "image\nY = logit of “cup”"
    assert sum(title.startswith("$M_{") for title in heads) == 2
    assert sum(title.startswith("$C_{") for title in heads) == 2
    assert [title for title in heads if "Eq." in title or title == "Grad-CAM"] == [
        "Eq. 4\nReLU $\\sum_k \\lambda_k M_k$",
        "Eq. 5: GM\nReLU $\\sum_k C_k \\odot M_k$",
        "Grad-CAM",
        "Eq. 6: GMCAM",
    ]


@pytest.mark.parametrize(("title", "method"), [("Grad-CAM", "grad_cam"), ("Eq. 6: GMCAM", "gmcam")])
def test_the_pipeline_ends_in_the_maps_that_explain_computes(network, title, method):
    figure = pipeline(network, IMAGE, "cup")
    raw = explain(network, IMAGE, "cup", method=method).raw[0]
    (panel,) = [ax for ax in figure.axes if ax.get_title() == title]
    expected = overlay(network.view(IMAGE), (raw / raw.max()).float())
    assert np.abs(panel.images[0].get_array().astype(int) - expected).max() <= 1


def test_the_pipeline_draws_as_many_channels_as_there_are(network):
    heads = titles(pipeline(network, IMAGE, 1, channels=99))
    assert heads[0] == "image\nY = logit of “cup”"
    assert sum(title.startswith("$M_{") for title in heads) == network.module.conv.out_channels


@pytest.mark.filterwarnings("error")
def test_the_pipeline_shows_signed_maps_on_the_signed_scale_and_dollars_as_they_are(gap_network):
    gap_network.relu = torch.nn.Identity()
    gap_network.conv.bias.data.fill_(-1e3)
    classes = ("US$ or CA$", r"$\foo$", "coin")
    signed = Network(gap_network, preprocess=Preprocessing(8, 8), classes=classes, input_shape=(3, 8, 8))
    figure = pipeline(signed, IMAGE, 1)
    (first, *_) = [ax for ax in figure.axes if ax.get_title().startswith("$M_{")]
    drawn = as_array(first.images[0].get_array()).astype(int)
    assert (drawn[..., 2] >= drawn[..., 0]).all() and np.ptp(drawn) > 0  # the bias of −1000 makes all blue
    assert figure._repr_png_() and figure._repr_jpeg_()  # a formula between the dollars would fail to parse


def test_on_a_phone_the_pipeline_has_a_row_for_each_kind_of_map(network):
    stacked = pipeline(network, IMAGE, "cup").stacked()
    spec = stacked.axes[0].get_subplotspec().get_gridspec()
    heads = np.reshape([ax.get_title().split("\n")[0].split("_")[0] for ax in stacked.axes], (spec.nrows, -1))
    assert heads[:, 0].tolist() == ["image", "$M", "$C", "Eq. 4", "Eq. 5: GM"]
    assert heads[3:, 1].tolist() == ["Grad-CAM", "Eq. 6: GMCAM"]


class Tokens(torch.nn.Module):
    """Patches of 2 × 2 pixels as tokens, in rows and columns as in Swin, or one after the other."""

    def __init__(self, rows):
        super().__init__()
        self.patches, self.mix, self.head = (
            torch.nn.Conv2d(3, 5, 2, stride=2),
            torch.nn.Linear(5, 5),
            torch.nn.Linear(5, 3),
        )
        self.rows = rows

    def forward(self, images):
        tokens = self.patches(images).permute(0, 2, 3, 1)
        mixed = self.mix(tokens if self.rows else tokens.flatten(1, 2))
        return self.head(torch.nn.functional.gelu(mixed).flatten(1, -2).mean(1))


@pytest.mark.parametrize("rows", [True, False])
def test_the_pipeline_reads_tokens_as_maps(rows):
    torch.manual_seed(0)
    network = Network(
        Tokens(rows),
        preprocess=Preprocessing(8, 8),
        input_shape=(3, 8, 8),
        layer="mix",
        reshape=lambda x: (x if rows else x.unflatten(1, (4, 4))).permute(0, 3, 1, 2),
    )
    figure = pipeline(network, IMAGE, 1)
    for title, method in (("Eq. 4", "grad_cam"), ("Eq. 5", "guidance_map")):
        (panel,) = [ax for ax in figure.axes if ax.get_title().startswith(title)]
        raw = explain(network, IMAGE, 1, method=method).raw[0]
        drawn = np.asarray(panel.images[0].get_array()).astype(int)
        assert raw.shape == (4, 4) and np.abs(drawn - tint((raw / raw.max()).numpy())).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "dog"}, "expected a class of .*'dog'"),
        ({"target": 0, "layer": "no"}, "'no'"),
        ({"target": 0, "channels": 0}, "at least one channel, got 0"),
    ],
)
def test_the_pipeline_names_what_it_does_not_find(arguments, message, network):
    with pytest.raises(ValueError, match=message):
        pipeline(network, IMAGE, **arguments)
