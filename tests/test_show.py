import copy
import gc
import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import same_color
from PIL import Image
from torch.nn import functional as F

from gmcam import Network, Preprocessing, explain, explain_layers, show
from gmcam.show import grid, overlay

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8))
GREY = np.floor(np.asarray(IMAGE.convert("L"), np.float32)[..., None] * np.float32(0.8) + 25)
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


def shown(figure, index):
    """The array that panel number ``index`` shows."""
    return figure.axes[index].images[0].get_array()


def test_where_nothing_is_salient_the_grey_image_shows():
    assert np.array_equal(overlay(IMAGE, np.zeros((3, 2))), np.repeat(GREY, 3, 2).astype(np.uint8))


@pytest.mark.parametrize("opacity", [0, 1])
def test_where_everything_is_salient_opacity_decides(opacity):
    laid = overlay(IMAGE, torch.ones(3, 2), opacity)
    expected = np.broadcast_to(HOTTEST, (12, 8, 3)) if opacity else np.repeat(GREY, 3, 2)
    assert laid.dtype == np.uint8
    assert np.array_equal(laid, expected)


def test_in_between_image_and_colour_mix_by_opacity_times_saliency():
    colour = np.array(matplotlib.colormaps["inferno"](int(0.5 * 255))[:3]) * 255
    grey = np.asarray(IMAGE.convert("L"), float)[..., None] * 0.8 + 25
    laid = overlay(IMAGE, np.full((12, 8), 0.5), 0.6)
    assert np.abs(laid - (grey * 0.7 + colour * 0.3)).max() <= 1


def test_a_map_of_another_size_is_scaled_smoothly_to_the_image():
    coarse = torch.tensor([[0.0, 1.0, 0.3]])
    fine = F.interpolate(coarse[None, None], (12, 8), mode="bilinear", align_corners=False)[0, 0]
    from_coarse, from_fine = (overlay(IMAGE, saliency).astype(int) for saliency in (coarse, fine))
    assert np.abs(from_coarse - from_fine).max() <= 4  # a step in the table of 256 colours


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_an_opacity_outside_its_range_is_refused(opacity):
    with pytest.raises(ValueError, match="expected an opacity between 0 and 1"):
        overlay(IMAGE, np.zeros((3, 2)), opacity)


@pytest.mark.parametrize("shape", [(4,), (1, 3, 2), (3, 2, 3)], ids=str)
def test_a_map_without_height_and_width_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected one saliency map \(h, w\)"):
        overlay(IMAGE, np.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="expected a finite saliency map"):
        overlay(IMAGE, np.array([[0, value]]))


def test_a_map_may_be_any_tensor():
    saliency = torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16, requires_grad=True)
    assert np.array_equal(overlay(IMAGE, saliency), overlay(IMAGE, np.array([[0.0, 1.0]])))


def test_each_target_has_a_row_with_the_image_first(network):
    result = explain(network, IMAGE, ["coin", "cat"])
    coin, cat = result.probability
    figure = show(IMAGE, result, opacity=0.5)
    assert titles(figure) == ["image", f"GMCAM\ncoin, {coin:.1%}", "", f"GMCAM\ncat, {cat:.1%}"]
    view = network.view(IMAGE)
    assert np.array_equal(shown(figure, 0), np.asarray(view))
    assert np.array_equal(shown(figure, 2), np.asarray(view))
    assert np.array_equal(shown(figure, 3), overlay(view, result.maps[1], 0.5))
    assert figure.axes[-1].get_ylabel() == "saliency"


def test_each_result_has_a_column(network):
    methods = ("cam", "grad_cam", "gmcam")
    results = [explain(network, IMAGE, ["cup", "cat"], method=name) for name in methods]
    figure = show(IMAGE, *results)
    heads = [title.split(",")[0] for title in titles(figure)]
    assert heads[:4] == ["image", "CAM\ncup", "Grad-CAM\ncup", "GMCAM\ncup"]
    assert heads[4:] == ["", "CAM\ncat", "Grad-CAM\ncat", "GMCAM\ncat"]
    assert np.array_equal(shown(figure, 6), overlay(network.view(IMAGE), results[1].maps[1]))


def test_results_may_differ_in_their_targets_and_in_how_many(network, gap_network):
    pair, single = (explain(network, IMAGE, target) for target in (["cup", "cat"], "coin"))
    figure = show(IMAGE, pair, single)
    assert [title.split("\n")[-1].split(",")[0] for title in titles(figure)[:6]] == [
        *("image", "cup", "coin"),
        *("", "cat", ""),
    ]
    assert not figure.axes[5].axison  # the single target has no second row
    wide = Network(copy.deepcopy(gap_network), preprocess=Preprocessing(12, 12), input_shape=(3, 12, 12))
    figure = show(IMAGE, single, explain(wide, IMAGE, 0))
    assert shown(figure, 2).shape == np.asarray(wide.view(IMAGE)).shape  # over what its network receives


def test_layers_are_named_where_one_method_explains_several(gap_network):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1).double(), gap_network)
    deep = Network(module, preprocess=Preprocessing(8, 8), input_shape=(3, 8, 8))
    results = explain_layers(deep, IMAGE, 0, layers=["0", "1.conv"])
    heads = [title.split("\n")[0] for title in titles(show(IMAGE, *results))]
    assert heads == ["image", "GMCAM, 0", "GMCAM, 1.conv"]


def test_anything_but_results_is_refused(network):
    with pytest.raises(ValueError, match="expected results of explain, got none"):
        show(IMAGE)
    with pytest.raises(ValueError, match=r"got list: call show\(image, \*results\)"):
        show(IMAGE, [explain(network, IMAGE, 0)])


def test_an_empty_map_is_marked(network):
    network.module.conv.bias.data.fill_(-1e6)
    heads = titles(show(IMAGE, explain(network, IMAGE, ["cup", "cat"])))
    assert heads[1].startswith("GMCAM (empty map)\ncup")
    assert heads[3].startswith("GMCAM (empty map)\ncat")


def test_dollars_in_a_name_are_no_formula(gap_network):
    classes = ("US$ or CA$", r"$\foo$", "coin")
    named = Network(gap_network, preprocess=Preprocessing(8, 8), classes=classes, input_shape=(3, 8, 8))
    figure = show(IMAGE, explain(named, IMAGE, [0, 1]))
    assert titles(figure)[1].startswith("GMCAM\nUS\\$ or CA\\$")
    assert figure._repr_png_()  # a formula would fail to parse


def test_a_target_function_is_named_and_has_no_probability(network):
    def contrast(logits):
        return logits[:, 0] - logits[:, 1]

    assert titles(show(IMAGE, explain(network, IMAGE, contrast)))[1] == "GMCAM\ncontrast"


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


def test_a_grid_takes_images_arrays_tensors_and_empty_places():
    tensor = torch.tensor([[0.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    figure = grid([IMAGE, np.asarray(IMAGE), None, tensor], ["a", "b", "", "c"])
    assert titles(figure) == ["a", "b", "", "c"]
    assert np.array_equal(shown(figure, 0), np.asarray(IMAGE))
    assert np.array_equal(shown(figure, 1), np.asarray(IMAGE))
    assert not figure.axes[2].axison and not figure.axes[2].images
    assert shown(figure, 3).tolist() == [[0, 2]]


def test_a_grey_image_is_an_image_and_no_map():
    grey = IMAGE.convert("L")
    figure = grid([grey, np.array([[0.0, 0.5]])])
    assert np.array_equal(shown(figure, 0), np.asarray(grey.convert("RGB")))
    assert figure.axes[1].images[0].norm.vmax == 0.5


def test_nan_leaves_a_gap_and_the_scale_alone():
    for panels in ([[[np.nan, 1.0]], [[0.0, 3.0]]], [[[0.0, 3.0]], [[np.inf, 1.0]]]):
        figure = grid(list(map(np.array, panels)))
        assert [(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in figure.axes[:2]] == [(0, 3)] * 2
        assert figure._repr_png_()


def test_rows_are_named_as_far_as_names_go():
    figure = grid([np.zeros((2, 2, 3), np.uint8)] * 4, columns=2, rows=["first"])
    assert [ax.get_ylabel() for ax in figure.axes] == ["first", "", "", ""]


@pytest.mark.parametrize(("panels", "columns"), [([], 4), ([IMAGE], 0)])
def test_a_grid_of_nothing_is_refused(panels, columns):
    with pytest.raises(ValueError, match="expected at least one panel and one column"):
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
    ax = grid([np.zeros((2, 2, 3), np.uint8)], ["title"]).axes[0]
    assert not len(ax.get_xticks()) and not len(ax.get_yticks())
    assert not any(spine.get_visible() for spine in ax.spines.values())
    assert same_color(ax.title.get_color(), "#222222")


def test_a_figure_shows_itself_as_a_png_without_pyplot():
    figure = grid([IMAGE] * 3, ["a", "b", "c"], bar="saliency")
    with Image.open(io.BytesIO(figure._repr_png_())) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 200
    assert plt.get_fignums() == []


def canvases():
    gc.collect()
    return [item for item in gc.get_objects() if type(item) is RendererAgg]


def test_a_figure_that_was_shown_keeps_no_canvas():
    before = canvases()
    figure = grid([IMAGE], ["a"], bar="saliency")
    figure.text(0, 0, "")
    figure._repr_png_()
    assert [(canvas.width, canvas.height) for canvas in canvases() if canvas not in before] == [(1, 1)]


MISSING = """
import sys
sys.modules["{package}"] = None
import gmcam
for name in {names}:
    try:
        getattr(gmcam.lab, name)
    except ImportError as error:
        assert str(error).startswith("expected {package} to be installed"), error
        assert str(error).endswith("pip install 'gmcam[plot]'"), error
    else:
        raise AssertionError(name)
"""


@pytest.mark.parametrize(
    ("package", "names"), [("matplotlib", ["lines", "pipeline"]), ("ipywidgets", ["explorer", "freeze"])]
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(package, names):
    code = MISSING.format(package=package, names=names)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_results_of_several_images_are_refused(gap_network, images):
    result = explain(gap_network, images, 0, layer="relu")
    assert result.images == 3
    with pytest.raises(ValueError, match="expected results for one image, got several"):
        show(Image.new("RGB", (8, 8)), result)
