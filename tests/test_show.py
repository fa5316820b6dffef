import copy
import gc
import io

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import same_color
from PIL import Image
from torch.nn import functional as F

from gmcam import Network, Preprocessing, explain, show
from gmcam.lab import coloured, feature_sheet, greyed, pipeline
from gmcam.show import grid, overlay

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8))
GREY = np.floor(np.asarray(PICTURE.convert("L"), np.float32)[..., None] * np.float32(0.8) + 25)
HOTTEST = [int(value * 255) for value in matplotlib.colormaps["inferno"](255)[:3]]


@pytest.fixture
def network(gap_network):
    return Network(
        gap_network,
        name="small",
        preprocess=Preprocessing(8, 8),
        classes=("cat", "cup", "coin"),
        input_shape=(3, 8, 8),
    )


def titles(figure):
    """Of the panels, without the colour bar."""
    return [ax.get_title() for ax in figure.axes if ax.get_label() != "<colorbar>"]


def drawn(figure, index):
    """What panel number ``index`` shows, as it was given to matplotlib."""
    return figure.axes[index].images[0].get_array()


def test_where_nothing_is_salient_the_grey_picture_shows():
    assert np.array_equal(overlay(PICTURE, np.zeros((3, 2))), np.repeat(GREY, 3, 2).astype(np.uint8))


@pytest.mark.parametrize("opacity", [0, 1])
def test_where_everything_is_salient_opacity_decides(opacity):
    found = overlay(PICTURE, torch.ones(3, 2), opacity)
    expected = np.broadcast_to(HOTTEST, (12, 8, 3)) if opacity else np.repeat(GREY, 3, 2)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_in_between_picture_and_colour_mix_by_opacity_times_saliency():
    colour = np.array(matplotlib.colormaps["inferno"](int(0.5 * 255))[:3]) * 255
    grey = np.asarray(PICTURE.convert("L"), float)[..., None] * 0.8 + 25
    found = overlay(PICTURE, np.full((12, 8), 0.5), 0.6)
    assert np.abs(found - (grey * 0.7 + colour * 0.3)).max() <= 1


def test_a_map_of_another_size_is_scaled_smoothly_to_the_picture():
    coarse = torch.tensor([[0.0, 1.0, 0.3]])
    fine = F.interpolate(coarse[None, None], (12, 8), mode="bilinear", align_corners=False)[0, 0]
    found, expected = (overlay(PICTURE, saliency).astype(int) for saliency in (coarse, fine))
    assert np.abs(found - expected).max() <= 4  # a step in the table of 256 colours


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_an_opacity_outside_its_range_is_refused(opacity):
    with pytest.raises(ValueError, match="opacity lies between 0 and 1, not"):
        overlay(PICTURE, np.zeros((3, 2)), opacity)


@pytest.mark.parametrize("shape", [(4,), (1, 3, 2), (3, 2, 3)], ids=str)
def test_a_map_without_height_and_width_is_refused(shape):
    with pytest.raises(ValueError, match=r"a saliency map is \(h, w\), not"):
        overlay(PICTURE, np.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="a saliency map is finite; this one holds NaN or infinite"):
        overlay(PICTURE, np.array([[0, value]]))


def test_a_map_may_be_any_tensor():
    saliency = torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16, requires_grad=True)
    assert np.array_equal(overlay(PICTURE, saliency), overlay(PICTURE, np.array([[0.0, 1.0]])))


def test_a_coloured_map_over_the_greyed_picture_is_the_overlay():
    saliency = np.random.default_rng(1).random((3, 2))
    above = coloured(saliency, PICTURE.size)
    assert above.mode == "RGBA" and above.size == PICTURE.size
    laid = Image.alpha_composite(greyed(PICTURE).convert("RGBA"), above).convert("RGB")
    assert np.abs(np.asarray(laid).astype(int) - overlay(PICTURE, saliency, opacity=1)).max() <= 2


def test_a_coloured_map_has_height_and_width():
    with pytest.raises(ValueError, match=r"a saliency map is \(h, w\), not \(2, 2, 2\)"):
        coloured(np.zeros((2, 2, 2)), (4, 4))


def test_one_result_shows_the_picture_and_a_map_per_class(network):
    result = explain(network, PICTURE, ["coin", "cat"])
    chances = result.probabilities[0]
    figure = show(PICTURE, result, opacity=0.5)
    assert titles(figure) == ["picture", f"GMCAM\ncoin, {chances[2]:.1%}", f"GMCAM\ncat, {chances[0]:.1%}"]
    assert np.array_equal(drawn(figure, 0), np.asarray(network.view(PICTURE)))
    assert np.array_equal(drawn(figure, 2), overlay(network.view(PICTURE), result.maps[1], 0.5))
    assert figure.axes[-1].get_ylabel() == "saliency"


def test_several_methods_for_one_class_stand_in_a_line(network):
    results = [explain(network, PICTURE, "cup", method=name) for name in ("grad_cam", "gmcam")]
    lines = [title.splitlines()[0] for title in titles(show(PICTURE, *results))]
    assert lines == ["picture", "Grad-CAM", "GMCAM"]


def test_several_methods_for_several_classes_make_a_table(network):
    results = [
        explain(network, PICTURE, ["cup", "cat"], method=name) for name in ("cam", "grad_cam", "gmcam")
    ]
    figure = show(PICTURE, *results)
    assert titles(figure) == ["picture", "CAM", "Grad-CAM", "GMCAM", "", "", "", ""]
    chances = results[0].probabilities[0]
    rows = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert rows[:2] == [f"cup, {chances[1]:.1%}", f"cat, {chances[0]:.1%}"]
    assert np.array_equal(drawn(figure, 5), overlay(network.view(PICTURE), results[0].maps[1]))


def test_results_with_different_targets_or_networks_do_not_share_the_names_of_a_table(network, gap_network):
    one, other = (explain(network, PICTURE, targets) for targets in (["cup", "cat"], ["coin", "cup"]))
    names = [title.split("\n")[-1].split(",")[0] for title in titles(show(PICTURE, one, other))[:5]]
    assert names == ["picture", "cup", "cat", "coin", "cup"]
    wide = Network(
        copy.deepcopy(gap_network),
        preprocess=Preprocessing(12, 12),
        classes=("a", "b", "c"),
        input_shape=(3, 12, 12),
    )
    figure = show(PICTURE, one, explain(wide, PICTURE, ["a", "b"]))
    names = [title.split("\n")[-1].split(",")[0] for title in titles(figure)[:5]]
    assert names == ["picture", "cup", "cat", "a", "b"]
    assert drawn(figure, 3).shape == np.asarray(wide.view(PICTURE)).shape  # each over what its network saw


def test_layers_are_named_where_one_method_explains_several(gap_network):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1).double(), gap_network)
    deep = Network(module, preprocess=Preprocessing(8, 8), input_shape=(3, 8, 8))
    results = explain(deep, PICTURE, 0, layer=["0", "1.conv"])
    found = [title.split("\n")[0] for title in titles(show(PICTURE, *results))]
    assert found == ["picture", "GMCAM, 0", "GMCAM, 1.conv"]
    with pytest.raises(ValueError, match=r"one by one, show\(image, \*results\), not a list"):
        show(PICTURE, results)


def test_a_result_of_several_pictures_is_refused(network):
    with pytest.raises(ValueError, match="show is for one picture, and a result explains 2"):
        show(PICTURE, explain(network, [PICTURE, PICTURE], "cup"))


def test_an_empty_map_is_marked(network):
    network.module.conv.bias.data.fill_(-1e6)
    empty = explain(network, PICTURE, ["cup", "cat"])
    assert titles(show(PICTURE, empty))[1].startswith("GMCAM (empty map)\ncup")
    again = explain(network, PICTURE, ["cup", "cat"], method="grad_cam")
    table = titles(show(PICTURE, empty, again))
    assert table[:3] == ["picture", "GMCAM (empty map)", "Grad-CAM (empty map)"]
    assert [title.strip() for title in table[3:]] == ["", "(empty map)", "(empty map)"]


def test_dollars_in_a_name_are_no_formula(gap_network):
    classes = ("US$ or CA$", r"$\foo$", "coin")
    named = Network(gap_network, preprocess=Preprocessing(8, 8), classes=classes, input_shape=(3, 8, 8))
    figure = show(PICTURE, explain(named, PICTURE, [0, 1]))
    assert titles(figure)[1].startswith("GMCAM\nUS\\$ or CA\\$")
    assert figure._repr_png_() and pipeline(named, PICTURE, 1)._repr_png_()  # no formula that fails to parse


def test_a_score_of_the_readers_own_is_titled_by_its_function(network):
    def contrast(logits):
        return logits[:, 0] - logits[:, 1]

    assert titles(show(PICTURE, explain(network, PICTURE, contrast)))[1] == "GMCAM\ncontrast"


def test_showing_nothing_is_refused():
    with pytest.raises(ValueError, match="show needs at least one result of explain"):
        show(PICTURE)


@pytest.mark.parametrize(("count", "columns", "shape"), [(1, 4, (1, 1)), (3, 4, (1, 3)), (5, 2, (3, 2))])
def test_a_grid_has_as_many_lines_as_it_needs(count, columns, shape):
    figure = grid([np.zeros((2, 2, 3), np.uint8)] * count, columns=columns)
    spec = figure.axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == shape
    assert sum(bool(ax.images) for ax in figure.axes) == count


def test_every_panel_of_a_grid_may_have_a_title_and_each_titled_line_has_room_for_it():
    panels, rows = [np.zeros((2, 2, 3), np.uint8)] * 6, ["x", "y"]
    none, first, every = (grid(panels, list("abcdef")[:n], columns=3, rows=rows) for n in (0, 3, 6))
    assert [ax.get_title() for ax in every.axes] == list("abcdef")
    assert [ax.get_title() for ax in first.axes] == [*"abc", "", "", ""]
    heights = [figure.get_figheight() for figure in (none, first, every)]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])
    assert heights[1] - heights[0] > 0.4  # two lines of ten points and some air


def test_a_grid_takes_pictures_arrays_and_tensors():
    tensor = torch.tensor([[0.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    figure = grid([PICTURE, np.asarray(PICTURE), tensor], ["a", "b", "c"])
    assert titles(figure) == ["a", "b", "c"]
    assert np.array_equal(drawn(figure, 0), np.asarray(PICTURE))
    assert np.array_equal(drawn(figure, 1), np.asarray(PICTURE))
    assert drawn(figure, 2).tolist() == [[0, 2]]


def test_a_grey_picture_is_a_picture_and_no_map():
    grey = PICTURE.convert("L")
    figure = grid([grey, np.array([[0.0, 0.5]])])
    assert np.array_equal(drawn(figure, 0), np.asarray(grey.convert("RGB")))
    assert figure.axes[1].images[0].norm.vmax == 0.5


def test_nan_leaves_a_gap_and_the_scale_alone():
    for panels in ([[[np.nan, 1.0]], [[0.0, 3.0]]], [[[0.0, 3.0]], [[np.inf, 1.0]]]):
        figure = grid(list(map(np.array, panels)))
        assert [(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in figure.axes[:2]] == [(0, 3)] * 2
        assert figure._repr_png_()


def test_rows_are_named_as_far_as_names_go():
    figure = grid([np.zeros((2, 2, 3), np.uint8)] * 4, columns=2, rows=["first"])
    assert [ax.get_ylabel() for ax in figure.axes] == ["first", "", "", ""]


@pytest.mark.parametrize(("panels", "columns"), [([], 4), ([PICTURE], 0)])
def test_a_grid_of_nothing_is_refused(panels, columns):
    with pytest.raises(ValueError, match="grid needs at least one panel and one column"):
        grid(panels, columns=columns)


@pytest.mark.parametrize(
    ("low", "high", "expected", "colours"),
    [
        (0, 3, (0, 3), "inferno"),
        (1, 2, (0, 2), "inferno"),
        (0, 0, (0, 1), "inferno"),
        (-1, 3, (-3, 3), "PuOr"),
        (-4, 3, (-4, 4), "PuOr"),
        (-2, -1, (-2, 2), "PuOr"),
    ],
)
def test_maps_share_a_scale_that_is_symmetric_where_values_are_signed(low, high, expected, colours):
    figure = grid([np.full((2, 2), low), np.full((2, 2), high)], bar="value")
    for ax in figure.axes[:2]:
        image = ax.images[0]
        assert (image.norm.vmin, image.norm.vmax) == expected
        assert image.cmap.name == colours
    assert figure.axes[2].get_ylabel() == "value"


def test_white_stands_for_zero_on_the_signed_scale():
    image = grid([np.array([[-1.0, 0.0, 3.0]])]).axes[0].images[0]
    assert np.allclose(image.cmap(image.norm(0.0))[:3], 1, atol=0.04)


def test_panels_carry_no_ticks_and_no_frame():
    ax = grid([np.zeros((2, 2, 3), np.uint8)], ["one"]).axes[0]
    assert not len(ax.get_xticks()) and not len(ax.get_yticks())
    assert not any(spine.get_visible() for spine in ax.spines.values())
    assert same_color(ax.title.get_color(), "#222222")


def test_the_feature_sheet_starts_with_the_strongest_map():
    maps = torch.zeros(5, 2, 2)
    maps[3], maps[1], maps[4] = -9, 5, 7  # strength is the mean size, whatever the sign
    figure = feature_sheet(maps, count=3, columns=2)
    assert titles(figure)[:3] == ["k = 3", "k = 4", "k = 1"]
    assert np.array_equal(drawn(figure, 0), maps[3].numpy())


@pytest.mark.parametrize("shape", [(2, 2), (1, 5, 2, 2)], ids=str)
def test_a_feature_sheet_is_of_one_picture(shape):
    with pytest.raises(ValueError, match=r"feature maps of one picture are \(K, h, w\), not"):
        feature_sheet(torch.zeros(shape))


def test_a_feature_sheet_has_a_map():
    with pytest.raises(ValueError, match="a feature sheet has at least one map, not 0"):
        feature_sheet(torch.zeros(3, 2, 2), count=0)


@pytest.mark.filterwarnings("error")
def test_the_pipeline_shows_every_step_from_maps_to_gmcam(network):
    found = titles(pipeline(network, PICTURE, "cup", channels=2))
    assert found[0] == "picture\nY = logit of “cup”"
    assert sum(title.startswith("$M_{") for title in found) == 2
    assert sum(title.startswith("$C_{") for title in found) == 2
    assert [title for title in found if "Eq." in title or title == "Grad-CAM"] == [
        "Eq. 4\nReLU $\\sum_k \\lambda_k M_k$",
        "Eq. 5: GM\nReLU $\\sum_k C_k \\odot M_k$",
        "Grad-CAM",
        "Eq. 6: GMCAM",
    ]


@pytest.mark.parametrize(("title", "method"), [("Grad-CAM", "grad_cam"), ("Eq. 6: GMCAM", "gmcam")])
def test_the_pipeline_ends_in_the_maps_that_explain_computes(network, title, method):
    figure = pipeline(network, PICTURE, "cup")
    raw = explain(network, PICTURE, "cup", method=method).raw[0]
    (panel,) = [ax for ax in figure.axes if ax.get_title() == title]
    expected = overlay(network.view(PICTURE), (raw / raw.max()).float())
    assert np.abs(panel.images[0].get_array().astype(int) - expected).max() <= 1


def test_the_pipeline_names_the_class_of_an_index(network):
    assert titles(pipeline(network, PICTURE, 1))[0] == "picture\nY = logit of “cup”"


def test_the_pipeline_draws_as_many_channels_as_there_are(network):
    found = titles(pipeline(network, PICTURE, "cup", channels=99))
    assert sum(title.startswith("$M_{") for title in found) == network.module.conv.out_channels


@pytest.mark.filterwarnings("error")
def test_the_pipeline_shows_signed_maps_on_the_signed_scale(gap_network):
    gap_network.relu = torch.nn.Identity()
    gap_network.conv.bias.data.fill_(-1e3)
    signed = Network(gap_network, preprocess=Preprocessing(8, 8), input_shape=(3, 8, 8))
    figure = pipeline(signed, PICTURE, 1)
    (first, *_) = [ax for ax in figure.axes if ax.get_title().startswith("$M_{")]
    assert first.images[0].cmap.name == "PuOr"
    assert figure._repr_png_()


class Tokens(torch.nn.Module):
    """Patches of 2 × 2 pixels as tokens, in rows and columns as Swin has them, or one after the other."""

    def __init__(self, rows):
        super().__init__()
        self.patches, self.mix, self.head = (
            torch.nn.Conv2d(3, 5, 2, stride=2),
            torch.nn.Linear(5, 5),
            torch.nn.Linear(5, 3),
        )
        self.rows = rows

    def forward(self, pictures):
        tokens = self.patches(pictures).permute(0, 2, 3, 1)
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
    figure = pipeline(network, PICTURE, 1)
    for title, method in (("Eq. 4", "grad_cam"), ("Eq. 5", "guidance_map")):
        (panel,) = [ax for ax in figure.axes if ax.get_title().startswith(title)]
        raw = explain(network, PICTURE, 1, method=method).raw[0]
        assert raw.shape == (4, 4) and np.allclose(panel.images[0].get_array(), raw, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "dog"}, "no class called 'dog'"),
        ({"target": 0, "layer": "no"}, "no layer is called 'no'"),
        ({"target": 0, "channels": 0}, "at least one channel, not 0"),
    ],
)
def test_the_pipeline_names_what_it_does_not_find(arguments, message, network):
    with pytest.raises(ValueError, match=message):
        pipeline(network, PICTURE, **arguments)


def test_a_figure_shows_itself_as_a_png_without_pyplot(network):
    figure = pipeline(network, PICTURE, "cup")
    with Image.open(io.BytesIO(figure._repr_png_())) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 200
    assert plt.get_fignums() == []


def canvases():
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is RendererAgg]


def test_a_figure_that_was_shown_keeps_no_canvas(network):
    before = canvases()
    figure = pipeline(network, PICTURE, "cup")
    figure.text(0, 0, "")
    figure._repr_png_()
    assert [(one.width, one.height) for one in canvases() if one not in before] == [(1, 1)]
