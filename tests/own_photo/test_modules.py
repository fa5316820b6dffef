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
from gmcam.palette import colours
from gmcam.postprocess import min_max, postprocess, smooth, upsample
from gmcam.show import overlay

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


def test_overlays_are_those_of_the_figures(agree):
    generator = torch.Generator().manual_seed(0)
    # Enough values that a step not rounded to float32 shows in some byte; one that every stop's share is in.
    fine = torch.rand((600, 800), generator=generator)
    maps = [(fine, 1), (torch.linspace(0, 1, 257)[None], 3), (torch.zeros(9, 4), 5), (torch.ones(1, 1), 7)]
    maps += [(torch.rand((7, 7), generator=generator), 32), (torch.rand((14, 28), generator=generator), 9)]
    overlays = []
    for seed, (saliency, times) in enumerate(maps):
        image = noise(saliency.shape[1] * times, saliency.shape[0] * times, seed)
        expected = overlay(image, saliency)
        overlays.append({"shown": pixels(image), "map": saliency, "expected": expected})
    uneven = noise(100, 70)  # cells of different numbers of pixels
    saliency = torch.rand((13, 9), generator=generator)
    overlays.append({"shown": pixels(uneven), "map": saliency, "expected": overlay(uneven, saliency)})
    agree("colours", ramp=" ".join(colours()["ramp-for"]), overlays=overlays)


def test_covering_is_that_of_numpy(agree):
    """Every substitute, mask and sum, and the exact sum of the logit at a map that is averaged."""
    images = [noise(side, side, side) for side in (8, 17, 40)]
    images.append(gmcam.lab.photo("chelsea").resize((128, 128)))
    images.append(noise(24, 32))
    random = np.random.default_rng(0)
    masks = [
        (random.random((side, side)) < share).astype(np.uint8) for side in (12, 28) for share in (0.1, 0.9)
    ]
    masks += [np.zeros((28, 28), np.uint8), np.ones((28, 28), np.uint8)]
    shapes = [(4, 4), (7, 7), (3, 5)]  # the last one has cells of different numbers of pixels
    agree(
        "covering",
        substitutes=[
            {"pixels": pixels(image), "expected": substitutes(np.asarray(image))} for image in images
        ],
        stamps=[
            of_stamp(side, *random.uniform(-1, side + 1, 2), size) for side in (9, 30) for size in (1, 4, 40)
        ],
        masks=[of_mask(mask, shape, random) for mask in masks for shape in shapes],
        shuffled=[{"seed": seed, "order": shuffled(list(range(50)), seed)} for seed in (1, 2, 2**31)],
        chances=[of_chance(random, output) for output in ("softmax", "sigmoid") for _ in range(3)],
        exact=[of_exact(name) for name in ("collage-resnet", "efficientnet-lite0")],
    )


def substitutes(image):
    """What covers the image: blurred by three box filters in whole numbers, its mean colour, and moved."""
    reach = min(image.shape[:2]) // 8
    sums = image.astype(np.int64)
    for _ in range(3):
        for axis in (0, 1):
            padding = [(reach, reach) if axis == one else (0, 0) for one in range(3)]
            windows = np.lib.stride_tricks.sliding_window_view(
                np.pad(sums, padding, "edge"), 2 * reach + 1, axis
            )
            sums = windows.sum(-1)
    mean = halves_up(image.sum((0, 1), dtype=np.int64), image.shape[0] * image.shape[1])
    return {
        "blurred": halves_up(sums, (2 * reach + 1) ** 6),
        "mean": np.broadcast_to(mean, image.shape),
        "copied": np.roll(image, (-(image.shape[0] // 2), -(image.shape[1] // 2)), (0, 1)),
    }


def halves_up(total, count):
    return ((2 * total + count) // (2 * count)).astype(np.uint8)


def of_stamp(side, x, y, size):
    start = [int(np.clip(np.floor(at - size / 2 + 0.5), 0, max(side - size, 0))) for at in (y, x)]
    mask = np.zeros((side, side), np.uint8)
    mask[start[0] : start[0] + size, start[1] : start[1] + size] = 1
    return {"side": side, "x": x, "y": y, "size": size, "expected": mask}


def owners(side, shape):
    """For each pixel, the cell that its middle is in."""
    row, column = (((np.arange(side) + 0.5) * cells / side).astype(int) for cells in shape)
    return row[:, None] * shape[1] + column


def shares_of(mask, shape):
    cells = owners(len(mask), shape).ravel()
    return np.bincount(cells, mask.ravel().astype(float)) / np.bincount(cells)


def shuffled(items, seed):
    """Fisher and Yates with mulberry32, in Python's integers."""
    limit = 2**32
    for last in range(len(items) - 1, 0, -1):
        seed = (seed + 0x6D2B79F5) % limit
        mixed = (seed ^ (seed >> 15)) * (1 | seed) % limit
        mixed = (mixed + (mixed ^ (mixed >> 7)) * (61 | mixed)) % limit ^ mixed
        other = int((mixed ^ (mixed >> 14)) / limit * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items


def of_mask(mask, shape, random):
    ledger = random.normal(size=shape).astype(np.float32)
    shares = shares_of(mask, shape)
    free = shuffled(np.flatnonzero(shares == 0).tolist(), 1)
    elsewhere, area = np.zeros(mask.size, np.uint8), int(mask.sum())
    cells = owners(len(mask), shape).ravel()
    drawn = np.concatenate([np.flatnonzero(cells == cell) for cell in free] or [np.zeros(0, int)])
    elsewhere[drawn[:area]] = 1
    tenth = np.argsort(-ledger.ravel(), kind="stable")[: max(1, round(ledger.size / 10))]
    return {
        "mask": mask,
        "ledger": ledger,
        "coverage": shares,
        "under": float((shares * ledger.ravel().astype(float)).sum()),
        "elsewhere": elsewhere,
        "tenth": tenth.tolist(),
        "cells": np.isin(cells, tenth).astype(np.uint8),
    }


def of_chance(random, output):
    logits, index, change = torch.from_numpy(random.normal(size=9) * 5), int(random.integers(9)), -1.7
    changed = logits.clone()
    changed[index] += change
    chances = changed.softmax(0) if output == "softmax" else changed.sigmoid()
    return {
        "logits": logits,
        "index": index,
        "change": change,
        "output": output,
        "expected": float(chances[index]),
    }


def of_exact(name):
    """M and C of the last map, and what its cells hold together: the logit without the bias."""
    network = gmcam.load(name)
    inputs, layer = network.prepare(gmcam.lab.photo("chelsea")), network.layers[network.default_layer]
    captured = capture(network.module, inputs, None, layer)
    linear = [one for one in network.module.modules() if isinstance(one, torch.nn.Linear)][-1]
    target = int(captured.target)
    held = captured.logits[0, target] - linear.bias[target]
    (M,), (C,) = captured.maps.values(), captured.gradients.values()
    return {"M": M[0], "C": C[0], "held": held.item()}


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


def test_the_chart_writes_numbers_and_verdicts(agree):
    agree("chart")


def test_types_are_sound():
    check_types(HERE)
