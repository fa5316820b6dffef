import copy
import gc
import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import same_color
from PIL import Image

from gmcam import Network, Preprocessing, explain, explain_layers, show
from gmcam.show import by_cell, grid, overlay, wrapped

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8))
GREY = np.asarray(IMAGE.convert("L"), np.float64)[..., None] / 255
PALE = (1.42 * (0.5 + 0.62 * (GREY - 0.5))).clip(0, 1)  # 62 % contrast, 142 % brightness
# A share of the maximum → its colour; half of the first stop is half way from white.
COLOURS = {0: (255, 255, 255), 0.125: (255, 239, 220), 0.25: (255, 222, 184), 0.5: (255, 160, 78)}
COLOURS |= {0.75: (222, 88, 8), 1: (140, 40, 0), 2: (140, 40, 0), -0.5: (104, 182, 232), -1: (4, 56, 98)}


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


@pytest.mark.parametrize("share", COLOURS)
def test_the_colour_of_a_share_is_multiplied_onto_the_pale_image(share):
    laid = overlay(IMAGE, np.full((12, 8), share))
    assert laid.dtype == np.uint8 and laid.shape == (12, 8, 3)
    assert np.abs(laid - PALE * COLOURS[share]).max() <= 1  # cut off to whole numbers


def test_a_map_without_a_class_has_no_hue():
    white = np.full((1, 2, 3), 255, np.uint8)
    assert overlay(white, torch.tensor([[0.0, 1.0]]), "activity").tolist() == [[[255] * 3, [29, 36, 51]]]


def test_cells_stay_cells():
    coarse = torch.tensor([[0.0, 1.0], [0.3, -0.6], [0.9, 0.1]])
    fine = np.kron(coarse.numpy(), np.ones((4, 4)))
    assert np.array_equal(overlay(IMAGE, coarse), overlay(IMAGE, fine))
    uneven = overlay(Image.new("L", (7, 1), 255), torch.tensor([[0.0, 1.0, 0.5]]))[0, :, 0]
    assert uneven.tolist() == [255, 255, 140, 140, 140, 255, 255]  # the cell at the middle of each pixel


def test_a_map_of_more_cells_than_pixels_is_averaged():
    small = overlay(Image.new("L", (1, 1), 255), torch.tensor([[0.0, 1.0]]))
    assert small.tolist() == [[list(COLOURS[0.5])]]


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
    figure = show(IMAGE, result)
    assert titles(figure) == ["image", "GMCAM", "", ""]
    names = [f"{name}, {100 * p:.1f} %" for name, p in zip(("coin", "cat"), result.probability, strict=True)]
    assert [ax.get_ylabel() for ax in figure.axes] == [names[0], "", names[1], ""]
    view = network.view(IMAGE)
    assert np.array_equal(shown(figure, 0), np.asarray(view))
    assert np.array_equal(shown(figure, 2), np.asarray(view))
    assert np.array_equal(shown(figure, 3), overlay(view, result.raw[1] / result.raw[1].max()))
    smooth = show(IMAGE, result, smooth=True)
    assert np.array_equal(shown(smooth, 3), overlay(view, result.maps[1]))


def test_each_result_has_a_column(network):
    methods = ("cam", "grad_cam", "gmcam")
    results = [explain(network, IMAGE, ["cup", "cat"], method=name) for name in methods]
    figure = show(IMAGE, *results)
    assert titles(figure) == ["image", "CAM", "Grad-CAM", "GMCAM", *[""] * 4]
    assert np.array_equal(shown(figure, 6), overlay(network.view(IMAGE), by_cell(results[1], 1)))


def test_a_map_by_cell_is_rectified_and_its_maximum_one(network):
    result = explain(network, IMAGE, "cup", method="cam")
    raw = torch.tensor([[[-3.0, 0.0], [1.0, 2.0]], [[-1.0, 0.0], [-2.0, 0.0]]])
    signed = replace(result, raw=raw)
    assert by_cell(signed).tolist() == [[0, 0], [0.5, 1]]
    assert by_cell(signed, 1).tolist() == [[0, 0], [0, 0]]


def test_results_may_differ_in_their_targets_and_in_how_many(network, gap_network):
    pair, single = (explain(network, IMAGE, target) for target in (["cup", "cat"], "coin"))
    figure = show(IMAGE, pair, single)
    assert [title.split("\n")[-1].split(",")[0] for title in titles(figure)[:6]] == [
        *("image", "cup", "coin"),
        *("", "cat", ""),
    ]
    assert titles(figure)[4].startswith("GMCAM\ncat")
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
    assert heads == ["image", "GMCAM (empty map)", "", "(empty map)"]


def test_dollars_in_a_name_are_no_formula(gap_network):
    classes = ("US$ or CA$", r"$\foo$", "coin")
    named = Network(gap_network, preprocess=Preprocessing(8, 8), classes=classes, input_shape=(3, 8, 8))
    figure = show(IMAGE, explain(named, IMAGE, [0, 1]))
    assert figure.axes[0].get_ylabel().startswith("US\\$ or CA\\$")
    assert figure._repr_png_()  # a formula would fail to parse


def test_a_target_function_is_named_and_has_no_probability(network):
    def contrast(logits):
        return logits[:, 0] - logits[:, 1]

    assert show(IMAGE, explain(network, IMAGE, contrast)).axes[0].get_ylabel() == "contrast"


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
    assert heights[1] - heights[0] > 0.17  # a line of ten points and some air


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
    ("low", "high", "expected", "ramp"),
    [
        (0, 3, (0, 3), "activity"),
        (1, 2, (0, 2), "for"),
        (0, 0, (0, 1), "activity"),
        (-1, 3, (-3, 3), "signed"),
        (-4, 3, (-4, 4), "signed"),
        (-2, -1, (-2, 2), "signed"),
    ],
)
def test_maps_share_a_scale_that_is_symmetric_where_values_are_signed(low, high, expected, ramp):
    asked = {} if ramp == "signed" else {"ramp": ramp}
    figure = grid([np.full((2, 2), low), np.full((2, 2), high)], bar="value", **asked)
    for ax in figure.axes[:2]:
        image = ax.images[0]
        assert (image.norm.vmin, image.norm.vmax) == expected
        assert image.cmap.name == ramp
    assert figure.axes[2].get_ylabel() == "value"


def test_maps_have_the_colours_of_the_palette():
    image = grid([np.array([[-4.0, -2.0, 0.0, 2.0, 4.0]])]).axes[0].images[0]
    drawn = image.cmap(image.norm(image.get_array()), bytes=True)[0, :, :3]
    assert np.abs(drawn.astype(int) - [COLOURS[share] for share in (-1, -0.5, 0, 0.5, 1)]).max() <= 1


@pytest.mark.parametrize(("panels", "bar"), [([IMAGE], "saliency"), ([np.ones((2, 2))], "")])
def test_only_maps_whose_values_have_a_name_have_a_colour_bar(panels, bar):
    assert len(grid(panels, bar=bar).axes) == 1


def test_panels_carry_no_ticks_and_only_maps_a_frame():
    figure = grid([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2))], ["title"])
    for ax, frame in zip(figure.axes, (False, True), strict=True):
        assert not len(ax.get_xticks()) and not len(ax.get_yticks())
        assert {spine.get_visible() for spine in ax.spines.values()} == {frame}
    assert same_color(figure.axes[0].title.get_color(), "#1d2433")


def order(figure):
    """The numbers of the panels, row by row, and the rows' names; −1 for an empty place."""
    spec = figure.axes[0].get_subplotspec().get_gridspec()
    numbers = [int(ax.images[0].get_array()[0, 0, 0]) if ax.images else -1 for ax in figure.axes]
    return np.reshape(numbers, (spec.nrows, spec.ncols)).tolist(), [ax.get_ylabel() for ax in figure.axes]


def numbered(count):
    return [np.full((2, 2, 3), number, np.uint8) for number in range(count)]


def test_on_a_phone_the_columns_of_a_table_stay_together():
    names, heads = ["cat", "cup"], ["image", "a", "b", "c"]
    stacked = grid(numbered(8), heads, columns=4, rows=names).stacked()
    places, rows = order(stacked)
    assert places == [[0, 1], [4, 5], [2, 3], [6, 7]]
    assert rows == ["cat", "", "cup", ""] * 2
    assert [ax.get_title() for ax in stacked.axes] == ["image", "a", "", "", "b", "c", "", ""]


def test_on_a_phone_other_panels_follow_each_other():
    assert order(grid(numbered(4), list("abcd")).stacked())[0] == [[0, 1], [2, 3]]
    assert order(grid(numbered(7), columns=7).stacked())[0] == [[0, 1, 2], [3, 4, 5], [6, -1, -1]]
    assert order(grid(numbered(3), columns=3).stacked())[0] == [[0, 1, 2]]


@pytest.mark.parametrize(("columns", "least", "most"), [(1, 150, 720), (5, 720 * 0.9, 720), (8, 960, 1000)])
def test_a_figure_is_as_wide_as_the_text_or_the_page(columns, least, most):
    figure = grid([IMAGE] * columns, ["a long title of a panel"] * columns, columns=columns, rows=["row"])
    with Image.open(io.BytesIO(figure._repr_png_())) as image:
        width = image.width * 96 / image.info["dpi"][0]  # in pixels of the page
        assert least < width <= most
        assert width / columns >= 118
    with Image.open(io.BytesIO(figure._repr_jpeg_())) as image:
        assert image.format == "JPEG" and image.width * 96 / image.info["dpi"][0] <= 360


def test_a_formula_in_a_title_is_not_broken():
    assert wrapped(r"of $\sum_k C_k \odot M_k$ it", 9) == "of\n$\\sum_k C_k \\odot M_k$\nit"


def test_a_figure_shows_itself_as_a_png_without_pyplot():
    figure = grid([IMAGE] * 3, ["a", "b", "c"])
    with Image.open(io.BytesIO(figure._repr_png_())) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 200
    assert plt.get_fignums() == []


def canvases():
    gc.collect()
    return [item for item in gc.get_objects() if type(item) is RendererAgg]


def test_a_figure_that_was_shown_keeps_no_canvas():
    before = canvases()
    figure = grid([IMAGE, np.ones((2, 2))], ["a"], bar="saliency")
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
