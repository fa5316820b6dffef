"""The JavaScript of *Try your own photo* against values computed by Python, under Node's test runner."""

from pathlib import Path

import numpy as np
import own_photo
import PIL
import pytest
import torch
from javascript import check_types, run
from PIL import Image

import gmcam
from gmcam import METHODS, Preprocessing, capture, compare, equations
from gmcam.lab.frozen import place_in_words
from gmcam.postprocess import min_max, postprocess, smooth, upsample
from gmcam.show import colour_table, overlay

HERE = Path(__file__).parent
SHOWN = ("cam", "grad_cam", "hires_cam", "guidance_map", "gmcam")


@pytest.fixture
def agree(tmp_path):
    """A function that runs the tests of a module in JavaScript on the values that Python expects."""
    return lambda module, **expected: run(HERE / f"{module}.test.js", tmp_path, **expected)


def noise(width, height, seed=0):
    """Every pixel has another colour, so that no error by one pixel is hidden."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def pixels(image):
    return {"data": np.asarray(image), "width": image.width, "height": image.height}


# One pixel, slender, small and large, even and odd, and both orders of resizing the sides.
SIZES = [(1, 1), (2, 1), (1, 50), (50, 1), (37, 53), (128, 128), (129, 301), (640, 427), (61, 999)]
NEW_SIZES = [(1, 1), (128, 128), (224, 1), (3, 200), (97, 64), (256, 301)]


@pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 resizes tall images differently"
)
def test_resize_is_pillows_byte_for_byte(agree):
    pairs = [(size, new) for size in SIZES for new in [*NEW_SIZES, size]]
    pairs += [((40, height), (30, 40)) for height in (60, 61)]  # height shrinks twice as much, and more
    random = np.random.default_rng(3)
    pairs += [tuple(map(tuple, random.integers(1, 90, (2, 2)).tolist())) for _ in range(150)]
    resized = []
    for seed, (size, new) in enumerate(pairs):
        image = noise(*size, seed)
        resized.append({"from": pixels(image), "to": pixels(image.resize(new, Image.Resampling.BILINEAR))})
    photo = gmcam.lab.photo("chelsea")
    prepared = [
        prepared_as(preprocessing, image)
        for preprocessing in (
            *(gmcam.load(name).preprocess for name in own_photo.NETWORKS),
            Preprocessing(256, 224),
            Preprocessing(33, 22),  # 5.5 pixels are cut off on either side, rounded to the even 6
            Preprocessing(35, 22),  # 6.5 pixels, rounded to the even 6
            Preprocessing(48, 40, mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 0.25)),
            Preprocessing(64, 40, squash=True),
        )
        for image in (photo, *(noise(*size) for size in SIZES))
    ]
    # Every byte on every alpha.
    values, alphas = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    rgba = np.stack([values, values[:, ::-1], np.full_like(values, 7), alphas], axis=2)
    with pytest.raises(ValueError, match="50 times the shorter"):
        Preprocessing(256, 224)(noise(1, 51))
    agree(
        "resize",
        resized=resized,
        prepared=prepared,
        rgba=rgba,
        over_white=pixels(gmcam.open_image(rgba)),
    )


def prepared_as(preprocessing, image):
    names = ("resize", "crop", "mean", "std", "squash")
    return {
        "from": pixels(image),
        "preprocessing": {name: getattr(preprocessing, name) for name in names},
        "shown": pixels(preprocessing._resized(image, preprocessing.interpolation)),
        "input": preprocessing(image),
    }


def test_saliency_is_that_of_the_equations(agree):
    """Expected in float64 from the same float32 maps, so that only JavaScript rounds."""
    stacks = []
    for seed, shape in enumerate([(1, 1, 1), (3, 1, 7), (5, 6, 4), (512, 13, 13), (32, 64, 64)]):
        for scale in (1.0, 1e-12, 1e8):
            generator = torch.Generator().manual_seed(seed)
            M = torch.randn(1, *shape, generator=generator).relu() * scale
            C = torch.randn(1, *shape, generator=generator) / scale
            stacks.append(of_equations(M, C))
    M = torch.rand(1, 4, 5, 5)
    stacks += [of_equations(M, -M), of_equations(M, torch.zeros_like(M)), of_equations(-M, M)]
    agree(
        "saliency",
        stacks=stacks,
        titles={name: METHODS[name].title for name in SHOWN},
        steps=[of_steps(raw, size, sigma) for raw in raw_maps() for size, sigma in SETTINGS],
    )


def of_equations(M, C):
    wide_M, wide_C = M.double(), C.double()
    weights = equations.channel_weights(wide_C)
    expected = {
        "channelWeights": weights,
        "classMap": equations.class_map(wide_M, weights),
        "gradCam": equations.grad_cam(wide_M, wide_C),
        "hiresCam": equations.hires_cam(wide_M, wide_C),
        "guidanceMap": equations.guidance_map(wide_M, wide_C),
        "gmcam": equations.gmcam(wide_M, wide_C),
    }
    return {"M": M[0], "C": C[0], "expected": {name: value[0] for name, value in expected.items()}}


SETTINGS = [
    ((224, 224), 0.5),
    ((128, 128), 0.0),
    ((7, 300), 0.1),  # a radius of no cell
    ((1, 1), 2.0),
    ((3, 2), 1.3),
]


def raw_maps():
    """(h, w) float32: signed, one cell, a row, flat, nearly flat, and large."""
    generator = torch.Generator().manual_seed(0)
    yield from (
        torch.randn(size, generator=generator) for size in [(13, 13), (16, 16), (1, 9), (6, 1), (64, 48)]
    )
    yield torch.randn((5, 7), generator=generator).relu() * 1e37
    yield torch.randn((5, 7), generator=generator) * 1e-30
    yield from (torch.full((4, 4), value) for value in (0.0, 5.0, -3.0, 1e30))
    yield torch.tensor([[7.0]])
    yield 1 + 2**-23 * torch.arange(9.0).reshape(3, 3).div(2, rounding_mode="floor")  # flat but for rounding
    yield torch.tensor([[-1.0, 1.0, 3.0]])


def of_steps(raw, size, sigma):
    smoothed = smooth(raw[None], sigma)
    normalised, flat = min_max(raw[None])
    maps, empty = postprocess(raw[None], size, sigma)
    return {
        "raw": raw,
        "size": size,
        "sigma": sigma,
        "smooth": smoothed[0],
        "normalise": {"map": normalised[0], "empty": bool(flat)},
        "upsample": upsample(raw[None], size)[0],
        "postprocess": {"map": maps[0], "empty": bool(empty)},
    }


@pytest.mark.parametrize("name", own_photo.NETWORKS)
def test_every_method_gives_the_map_of_explain(agree, name):
    """For a photograph, the most probable class and the fifth, at every layer; CAM at the last one."""
    network, layers = gmcam.load(name), own_photo.layers_of(gmcam.load(name))
    inputs = network.prepare(gmcam.lab.photo("chelsea"))
    classes = network.probabilities(inputs)[0].topk(5).indices[::4]
    captured = capture(network.module, inputs, classes, layer=list(layers.values()))
    explained = []
    for layer, path in layers.items():
        with_cam = layer == network.default_layer and name != "collage-vgg"
        methods = SHOWN if with_cam else SHOWN[1:]
        results = compare(network, inputs, classes, methods=methods, layer=layer)
        for index in range(len(classes)):
            maps = {r.method: {"map": r.maps[index], "empty": bool(r.empty[index])} for r in results}
            explained.append(
                {
                    "M": captured.maps[path][index],
                    "C": captured.gradients[path][index],
                    "size": inputs.shape[2:],
                    "maps": maps,
                }
            )
    agree("explained", explained=explained)


def test_colours_are_those_of_the_figures(agree):
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(256.0).div(255).repeat(2, 1)  # where one colour ends and the next begins
    # Enough values that a step not rounded to float32 shows in some byte.
    maps = [torch.rand((600, 800), generator=generator), steps, torch.zeros(9, 4), torch.ones(1, 1)]
    overlays = []
    for seed, saliency in enumerate(maps):
        image = noise(saliency.shape[1], saliency.shape[0], seed)
        for opacity in (0.0, 0.1, 0.3, 0.7, 1.0):
            overlays.append(
                {
                    "shown": pixels(image),
                    "map": saliency,
                    "opacity": opacity,
                    "expected": overlay(image, saliency, opacity),
                }
            )
    agree("colours", colours=colour_table(), overlays=overlays)


def test_words_are_those_of_the_frozen_explorer(agree):
    generator = torch.Generator().manual_seed(0)
    sizes = [(1, 1), (1, 5), (2, 2), (3, 3), (4, 7), (128, 128), (224, 224)]
    places = []
    for size in sizes:
        for _ in range(12):
            saliency = torch.rand(size, generator=generator) ** 4
            row, column = np.unravel_index(int(saliency.argmax()), size)
            thirds = [(6 * np.arange(side) + 3) // (2 * side) for side in size]
            inside = np.outer(thirds[0] == thirds[0][row], thirds[1] == thirds[1][column])
            share = saliency.double()[torch.from_numpy(inside)].sum() / saliency.double().sum()
            place = place_in_words(saliency)
            places.append({"map": saliency, "size": size, "place": place, "share": float(share)})
    guesses = []
    for classes, scale in ((2, 1.0), (2, 1000.0), (8, 1.0), (8, 1000.0), (1000, 1.0), (1000, 1000.0)):
        for output in ("softmax", "sigmoid") if scale == 1 else ("softmax",):  # a large sigmoid is 1, a tie
            logits = torch.randn(classes, generator=generator) * scale
            chances = logits.double().softmax(0) if output == "softmax" else logits.double().sigmoid()
            top = chances.topk(min(5, classes))
            guesses.append(
                {
                    "output": output,
                    "logits": logits,
                    "indices": logits.topk(min(5, classes)).indices.tolist(),
                    "probabilities": top.values.tolist(),
                }
            )
    agree("words", places=places, guesses=guesses)


def test_types_are_sound():
    check_types(HERE)
