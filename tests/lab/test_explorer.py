import base64
import importlib
import io
import re
import statistics
import time
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from ipywidgets import HTML
from PIL import Image

import gmcam
from gmcam import Network, Preprocessing, explain
from gmcam.lab.explorer import WIDTH, _uploaded, explorer
from gmcam.show import by_cell, overlay

module = importlib.import_module("gmcam.lab.explorer")  # gmcam.lab.explorer is the function
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 6),
    ]
    return Network(
        torch.nn.Sequential(*layers),
        name="<b>small</b>",
        preprocess=Preprocessing(16, 16),
        classes=("cat", "cup", "<i>coin</i>", "dog", "hat", "bee"),
        input_shape=(3, 16, 16),
    )


def parts(widget):
    return [widget, *(part for child in getattr(widget, "children", ()) for part in parts(child))]


def control(widget, description):
    (match,) = [part for part in parts(widget) if getattr(part, "description", None) == description]
    return match


def figure(widget):
    """Alternative text, source and caption of the image."""
    (html,) = [part.value for part in parts(widget) if type(part) is HTML and "<figure>" in part.value]
    pattern = r'alt="(.*)" src="data:image/webp;base64,(.*)"><figcaption>(.*)</figcaption>'
    return re.search(pattern, html).groups()


def shown(widget):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(figure(widget)[1]))))


def same(image, other):
    """Equal up to the compression of WebP."""
    return image.shape == other.shape and abs(image.astype(int) - other).mean() < 4


def caption(widget):
    alternative, _, text = figure(widget)
    assert alternative == text
    return text


def message(widget):
    (html,) = [part.value for part in parts(widget) if type(part) is HTML and "<figure>" not in part.value]
    return html


def base(network, image=IMAGE):
    view = network.view(image)
    return view.resize((WIDTH, round(WIDTH * view.height / view.width)), Image.Resampling.LANCZOS)


def expected(network, widget):
    """The image for the controls' values, computed without the explorer."""
    result = explain(
        network,
        IMAGE,
        control(widget, "class").value,
        method=control(widget, "method").value,
        layer=control(widget, "layer").value,
    )
    return overlay(base(network), by_cell(result))


def test_it_opens_with_the_top_class_the_default_layer_and_the_last_method(network):
    widget = explorer(network, IMAGE, method=("cam", "grad_cam"))
    assert control(widget, "class").value == int(network.probabilities(IMAGE)[0].argmax())
    assert control(widget, "layer").value == network.default_layer
    assert control(widget, "method").value == "grad_cam"
    assert same(shown(widget), expected(network, widget))


@pytest.mark.parametrize(
    ("description", "value"),
    [("class", 4), ("layer", "16x16"), ("method", "hires_cam"), ("method", "cam")],
)
def test_every_control_changes_the_image_to_what_explain_gives(description, value, network):
    widget = explorer(network, IMAGE, target=("cat", "hat"))
    before = shown(widget)
    control(widget, description).value = value
    assert same(shown(widget), expected(network, widget))
    assert not np.array_equal(shown(widget), before)


def test_two_changes_add_up_and_can_be_taken_back(network):
    widget = explorer(network, IMAGE)
    first = shown(widget)
    control(widget, "layer").value = "16x16"
    control(widget, "method").value = "grad_cam"
    assert same(shown(widget), expected(network, widget))
    control(widget, "layer").value = network.default_layer
    control(widget, "method").value = "gmcam"
    assert same(shown(widget), first)


def by_probability(network, image=IMAGE):
    chances, indices = network.probabilities(image)[0].sort(descending=True)
    return tuple(
        (f"{network.classes[i]} ({p:.1%})", i) for p, i in zip(chances, indices.tolist(), strict=True)
    )


def test_without_names_all_classes_are_offered_the_most_probable_first(network):
    assert control(explorer(network, IMAGE), "class").options == by_probability(network)


def upload(widget, content):
    """What the front end does when the reader has chosen a file."""
    button = control(widget, "Your own image")
    file = {"name": "a", "type": "image/png", "size": len(content), "content": memoryview(content)}
    button.value = [file | {"last_modified": datetime(2026, 1, 1, tzinfo=UTC)}]


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def test_a_reader_can_upload_an_image(network):
    other = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    widget = explorer(network, IMAGE, target=("cat", "hat"))
    upload(widget, png(other))
    assert control(widget, "class").options == by_probability(network, other)
    top = int(network.probabilities(other)[0].argmax())
    result = explain(network, other, top)
    assert same(shown(widget), overlay(base(network, other), by_cell(result)))
    control(widget, "class").value = (top + 1) % 6
    assert f"Logit {explain(network, other, (top + 1) % 6).score[0]:.2f}" in caption(widget)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(({"name": "a.png", "content": memoryview(b"its bytes")},), id="ipywidgets 8"),
        pytest.param({"a.png": {"metadata": {"name": "a.png"}, "content": b"its bytes"}}, id="ipywidgets 7"),
    ],
)
def test_an_upload_is_read_as_each_version_of_ipywidgets_gives_it(files):
    assert _uploaded(files) == b"its bytes"


def test_an_upload_that_is_withdrawn_leaves_the_current_image(network):
    widget = explorer(network, IMAGE)
    upload(widget, png(IMAGE.rotate(180)))
    before = shown(widget)
    control(widget, "Your own image").value = ()
    assert same(shown(widget), before)
    assert not message(widget)


@pytest.mark.parametrize("content", [b"no image", b"", png(IMAGE)[:200]])
def test_a_file_that_is_no_image_leaves_the_current_one(network, content):
    widget = explorer(network, IMAGE)
    before = shown(widget)
    upload(widget, content)
    assert "expected" in message(widget)
    assert same(shown(widget), before)
    control(widget, "layer").value = "16x16"
    assert same(shown(widget), expected(network, widget))


def test_the_classes_and_methods_named_are_offered_in_their_order(network):
    widget = explorer(network, IMAGE, target=("HAT", "cat"), method=("gmcam", "GradCAM"))
    assert [index for _, index in control(widget, "class").options] == [4, 0]
    assert control(widget, "method").options == (("GMCAM", "gmcam"), ("Grad-CAM", "grad_cam"))
    assert control(widget, "layer").options == tuple(network.layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": ("lion",)}, "expected a class of .*'lion'"),
        ({"method": ("grab_cam",)}, "'grab_cam'"),
        ({"method": ()}, "expected at least one method, got none"),
    ],
)
def test_unknown_names_are_refused(arguments, message, network):
    with pytest.raises(ValueError, match=message):
        explorer(network, IMAGE, **arguments)


def test_cam_away_from_the_last_map_says_so_and_shows_the_bare_image(network):
    widget = explorer(network, IMAGE, method=("cam",))
    control(widget, "layer").value = "16x16"
    assert "grad_cam" in caption(widget)
    assert same(shown(widget), np.asarray(base(network)))
    control(widget, "layer").value = network.default_layer
    assert "grad_cam" not in caption(widget)
    assert same(shown(widget), expected(network, widget))


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("no memory left"), MemoryError("no memory left")])
def test_a_failure_is_shown_in_place_of_a_map(failure, network, monkeypatch):
    widget = explorer(network, IMAGE)

    def fails(*_, **__):
        raise failure

    monkeypatch.setattr(module, "explain", fails)
    control(widget, "layer").value = "16x16"
    assert caption(widget) == "no memory left" and same(shown(widget), np.asarray(base(network)))
    before = shown(widget)
    monkeypatch.setattr(Network, "probabilities", fails)
    upload(widget, png(IMAGE.rotate(180)))
    assert "no memory left" in message(widget) and same(shown(widget), before)


def test_names_with_markup_are_escaped_in_the_caption(network):
    network.module[5] = torch.nn.AdaptiveMaxPool2d(1)  # so that CAM is not defined
    widget = explorer(network, IMAGE, method=("cam",))
    assert "&lt;b&gt;small&lt;/b&gt;" in caption(widget)
    assert "<b>" not in caption(widget)


def test_names_with_markup_stay_text_in_the_list_of_classes(network):
    label, _ = control(explorer(network, IMAGE, target=("<i>coin</i>",)), "class").options[0]
    assert label.startswith("<i>coin</i> (")


def test_the_caption_gives_logit_size_and_place(network):
    widget = explorer(network, IMAGE, target=("cup",))
    result = explain(network, IMAGE, "cup")
    row, column = divmod(int(result.raw[0].argmax()), 8)
    assert f"Logit {result.score[0]:.2f}; map of 8 × 8 cells" in caption(widget)
    assert f"strongest in row {row}, column {column}" in caption(widget)


def test_the_caption_of_an_empty_map_says_so(network):
    network.module[3].bias.data.fill_(-1e6)
    assert "the map is empty" in caption(explorer(network, IMAGE))


def test_a_map_is_computed_once_however_often_it_is_drawn(network, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "explain", lambda *a, **k: calls.append(1) or explain(*a, **k))
    widget = explorer(network, IMAGE, target=("cat", "hat"))
    assert len(calls) == 1
    for _ in range(2):
        control(widget, "class").value = 4
        control(widget, "class").value = 0
    assert len(calls) == 2


@pytest.mark.slow
def test_one_update_takes_less_than_a_tenth_of_a_second():
    network = gmcam.load("collage-vgg")
    widget = explorer(network, gmcam.lab.scene("cat", "cup", seed=3).image, target=network.classes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    for layer in network.layers:
        control(widget, "layer").value = layer
        for index in range(1, len(network.classes)):
            start = time.process_time()  # what other programs take does not count
            control(widget, "class").value = index
            seconds.append(time.process_time() - start)
        control(widget, "class").value = 0
    torch.set_num_threads(threads)
    assert statistics.median(seconds) < 0.1
