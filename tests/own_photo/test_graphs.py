"""The graph that *Try your own photo* downloads: against torch; weights in float16 nearly."""

from pathlib import Path

import numpy as np
import own_photo
import pytest
import torch
from torch.nn import functional as F

import gmcam
from gmcam import capture, equations
from gmcam.lab import onnx as export

CACHE = Path(__file__).parents[2] / "_build" / "own_photo_parts"  # a build's, if there was one
IMAGES = {name: gmcam.lab.photo(name) for name in ("chelsea", "coffee", "rocket", "astronaut", "motorcycle")}
IMAGES["collage"] = gmcam.lab.scene("cat", "cup", seed=98, size=384).image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network():
    return gmcam.load("efficientnet-lite0")


@pytest.fixture(scope="module")
def graph(network):
    return own_photo.exported(network, CACHE).read_bytes()


@pytest.fixture(scope="module")
def halved(graph):
    return own_photo.halved(graph)


@pytest.mark.parametrize("target", [281, 0])
def test_the_graph_computes_torchs_logits_maps_and_gradient_maps(network, graph, target):
    """For a likely and an unlikely class; and of the last layer's follows the map of ``explain``."""
    inputs, layers = network.prepare(IMAGES["chelsea"]), list(own_photo.layers_of(network).values())
    captured = capture(network.module, inputs, target, layers)
    weights = F.one_hot(torch.tensor([target]), len(network.classes)).float()
    logits, *stacks = export._session(graph)(inputs, weights)
    pairs = [(logits, captured.logits)]
    pairs += zip(stacks[::2], (captured.maps[layer] for layer in layers), strict=True)
    pairs += zip(stacks[1::2], (captured.gradients[layer] for layer in layers), strict=True)
    explained = gmcam.explain(network, IMAGES["chelsea"], target, layer=layers[-1])
    pairs.append((equations.gmcam(*stacks[-2:]), explained.raw))
    for found, expected in pairs:
        assert expected.abs().max() > 0
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", IMAGES)
def test_weights_in_float16_keep_the_top_class_and_the_guidance_map(network, halved, name):
    inputs, layers = network.prepare(IMAGES[name]), list(own_photo.layers_of(network).values())
    target = int(network.probabilities(inputs).argmax())
    captured = capture(network.module, inputs, target, layers)
    weights = F.one_hot(torch.tensor([target]), len(network.classes)).float()
    logits, *stacks = export._session(halved)(inputs, weights)
    assert int(logits.argmax()) == target
    assert (logits.softmax(1) - captured.logits.softmax(1)).abs().max() < 0.01
    for layer, M, C in zip(layers, stacks[::2], stacks[1::2], strict=True):
        found = equations.guidance_map(M, C)
        expected = equations.guidance_map(captured.maps[layer], captured.gradients[layer])
        assert np.corrcoef(found.flatten(), expected.flatten())[0, 1] >= 0.99, layer


def test_the_file_is_half_as_large_and_scalars_stay_exact(graph, halved):
    onnx = pytest.importorskip("onnx")
    assert len(halved) < 0.51 * len(graph)
    assert len(own_photo.compressed(halved)) < 8.8e6
    model = onnx.load_from_string(halved)
    onnx.checker.check_model(model)
    kinds = {bool(one.dims): one.data_type for one in model.graph.initializer if one.data_type in (1, 10)}
    assert kinds == {True: onnx.TensorProto.FLOAT16, False: onnx.TensorProto.FLOAT}
    assert own_photo.halved(graph) == halved
