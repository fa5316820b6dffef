"""The JavaScript of the live equation figure against values computed by Python, under Node's test runner."""

from pathlib import Path

import numpy as np
import pytest
import torch
from javascript import check_types, run

import gmcam
from gmcam import equations
from gmcam.lab.equation_data import pack, subject, unpack
from gmcam.lab.equation_figure import _percent, _signed
from gmcam.palette import colours, tint

HERE = Path(__file__).parent
# Network, scene, class → object, and by how much a sum may miss the equation, as a share of the maximum.
SUBJECTS = [
    ("collage-vgg", {"seed": 15}, {"cat": "cat", "cup": "cup"}, 1e-4),
    ("collage-resnet", {"seed": 15}, {"cat": "cat", "cup": "cup"}, 1e-4),
    ("efficientnet-lite0", {"seed": 98, "size": 384}, {"Egyptian cat": "cat", "espresso": "cup"}, 1e-3),
]


@pytest.fixture
def agree(tmp_path):
    """A function that runs the tests of a module in JavaScript on the values that Python expects."""
    return lambda module, **expected: run(HERE / f"{module}.test.js", tmp_path, **expected)


def test_arrays_are_those_that_python_unpacks(agree):
    rng = np.random.default_rng(0)
    stacks = [rng.normal(size=(3, 4, 5)), np.zeros((2, 3, 3)), np.ones((4, 1, 1))]
    stacks.append(np.tile(rng.normal(size=(6, 1, 1)), (1, 7, 7)))
    sparse = rng.normal(size=(40, 16, 16)) * (rng.random((40, 16, 16)) < 0.02)
    sparse[10:20] = 0  # gaps of more than 255 zeros
    packs = [pack(stack) for stack in [*stacks, sparse]]
    assert {kind for kind, _, _ in packs} == {"flat", "dense", "sparse"}
    shapes = [stack.shape for stack in [*stacks, sparse]]
    maps = [unpack(*each) for each in zip(packs, shapes, strict=True)]
    agree("arrays", packs=[{"packed": p, "maps": m} for p, m in zip(packs, maps, strict=True)])


def test_sums_are_those_of_the_equations(agree):
    """Expected from the maps themselves, in float64, and not from what is packed."""
    agree("sums", subjects=[of_network(*each) for each in SUBJECTS])


def of_network(name, how, target, tolerance):
    network, scene = gmcam.load(name), gmcam.lab.scene("cat", "cup", **how)
    layer = network.layer_path()
    shown = subject(network, scene, target, layer)
    indices = [network.class_index(each) for each in target]
    captured = gmcam.capture(network.module, network.prepare(scene.image), indices, layer=layer)
    M, C = captured.maps[layer].double(), captured.gradients[layer].double()
    weights = equations.channel_weights(C)
    expected = {
        "aggregated_map": equations.aggregated_map(M),
        "cam": equations.class_map(M, weights * M[0, 0].numel()),
        "grad_cam": equations.class_map(M, weights),
        "guidance_map": equations.hires_cam(M, C),
        "gmcam": equations.guidance_map(M, C) * equations.class_map(M, weights),  # before its rectifier
    }
    classes = {}
    for number, (each, question) in enumerate(shown.questions.items()):
        found, cover = shown.maps(each), shown.cover[question.object].flatten()
        classes[each] = {
            "C": question.packed,
            "maps": {method: maps[number].flatten() for method, maps in expected.items()},
            "shares": [(method, cover, shown.share(each, method)) for method in found],
            "found": {method: places(found, method, shown.bare) for method in ("grad_cam", "guidance_map")},
        }
    return {
        "name": name,
        "M": shown.packed,
        "channels": len(shown.M),
        "cells": shown.bare.size,
        "bare": np.flatnonzero(shown.bare).tolist(),
        "classes": classes,
        "tolerance": tolerance,
    }


def places(maps, method, bare):
    """Cells by place, from maps that are compared with NumPy's own order."""
    values, grad, guidance = (maps[name].flatten() for name in (method, "grad_cam", "guidance_map"))
    found = {"most": int(values.argmax()), "least": int(values.argmin())}
    if (dropped := (grad > 0) & (guidance <= 0)).any():
        found["apart"] = int(np.where(dropped, grad, -np.inf).argmax())
    if bare.any():
        found["bare"] = int(np.where(bare.flatten(), values, -np.inf).argmax())
    return found


def test_words_are_those_of_python(agree):
    values = [0, 0.001, -0.004, 0.005001, 1.404, -3.6, 9.994, 9.996, 14.04, 99.94, 99.96, -123.4, 1e6]
    shares = [0, 0.004, 0.296, 0.5601, 1]
    agree(
        "words",
        numbers=[(value, _signed(value)) for value in values],
        shares=[(share, _percent(share)) for share in shares],
    )


def test_ramps_are_those_of_the_palette(agree):
    shares = np.linspace(0, 1, 257)[None]
    ramps = []
    for name in ("for", "against", "activity"):
        stops = " ".join(colours()[f"ramp-{name}"])
        tints = tint(shares, name)[0].astype(float).flatten()
        ramps.append({"stops": stops, "shares": shares[0].tolist(), "tints": torch.from_numpy(tints)})
    agree("paint", ramps=ramps)


def test_types_are_sound():
    check_types(HERE)
