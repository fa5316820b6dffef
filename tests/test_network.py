import re
from collections import OrderedDict
from itertools import product

import numpy as np
import pytest
import torch
from modules import plain_autograd
from PIL import Image
from torch import nn

from gmcam import Network, Preprocessing, explain, explain_layers

NAMES = ("tabby cat", "Siamese cat", "dog")


class Block(nn.Module):
    """Attention and a linear layer, each added to its input."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix, self.widen = nn.LayerNorm(6), nn.Linear(6, 18), nn.Linear(6, 6)

    def forward(self, x):
        query, key, value = self.mix(self.norm(x)).chunk(3, 2)
        x = x + (query @ key.transpose(1, 2)).softmax(2) @ value
        return x + self.widen(x).tanh()


class Transformer(nn.Module):
    """8 × 12 pixels → a class token and 2 × 3 tokens of 6 numbers → 4 classes."""

    def __init__(self):
        super().__init__()
        self.cut, self.token = nn.Conv2d(3, 6, 4, stride=4), nn.Parameter(torch.zeros(1, 1, 6))
        self.places = nn.Parameter(torch.zeros(1, 7, 6))
        self.blocks, self.head = nn.Sequential(Block(), Block()), nn.Linear(6, 4)

    def forward(self, x):
        tokens = self.cut(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.places
        return self.head(self.blocks(tokens)[:, 0])


def grid(tokens):
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (2, 3))


@pytest.fixture
def transformer():
    """Float64 and fixed; its default layer has the tokens that the last attention mixes."""
    torch.manual_seed(2)
    module = Transformer().double().requires_grad_(False)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape) / 2)
    return Network(module.eval(), input_shape=(3, 8, 12), reshape=grid, layer="blocks.1.norm")


def module():
    torch.manual_seed(0)
    layers = [
        ("conv", nn.Conv2d(3, 4, 3, padding=1)),
        ("norm", nn.BatchNorm2d(4)),
        ("relu", nn.ReLU()),
        ("drop", nn.Dropout(0.5)),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flat", nn.Flatten()),
        ("fc", nn.Linear(4, 3)),
    ]
    return nn.Sequential(OrderedDict(layers))


@pytest.fixture
def network():
    return Network(
        module(), name="small", preprocess=Preprocessing(8, 8), classes=NAMES, input_shape=(3, 8, 8)
    )


@pytest.fixture
def bare():
    """No names, no preprocessing."""
    return Network(module())


def plain_image(colour="red"):
    return Image.new("RGB", (12, 9), colour)


def test_a_network_is_named_after_its_module_without_a_name(bare, network):
    assert bare.name == "Sequential"
    assert repr(network) == "Network('small', 3 classes)"


def test_only_a_module_makes_a_network():
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module, got a function"):
        Network(module)


@pytest.mark.parametrize(
    ("layer", "path"), [(None, "relu"), ("8x8", "relu"), ("relu", "relu"), ("conv", "conv"), ("fc", "fc")]
)
def test_a_layer_is_named_by_resolution_or_by_dotted_path(network, layer, path):
    assert network.layer_path(layer) == path


def test_a_layer_may_be_the_module_itself(network):
    assert network.layer_path(network.module.conv) == "conv"
    assert Network(network.module, layer=network.module.norm).layer_path() == "norm"
    with pytest.raises(ValueError, match=r"got (a )?ReLU"):
        network.layer_path(nn.ReLU())


def test_the_default_layer_is_the_last_convolutional_map(network):
    assert network.default_layer == "8x8"
    assert network.layers == {"8x8": "relu"}


def test_finding_the_layers_leaves_the_random_state_alone(network):
    state = torch.get_rng_state()
    assert network.map_shapes == {"conv": (4, 8, 8), "norm": (4, 8, 8), "relu": (4, 8, 8)}
    assert torch.equal(torch.get_rng_state(), state)


def test_the_layers_are_a_copy(network):
    network.layers.clear()
    network.map_shapes.clear()
    assert network.map_shapes
    assert network.layers == {"8x8": "relu"}


def test_a_compiled_module_is_the_plain_one_inside():
    plain = module().eval()
    network = Network(torch.compile(plain, backend="eager"), input_shape=(3, 8, 8), layer="_orig_mod.conv")
    assert network.module is plain
    assert network.name == "Sequential"
    assert network.layers == {"8x8": "conv"}
    for layer in ("relu", "_orig_mod.relu", plain.relu):
        assert network.layer_path(layer) == "relu"
    with pytest.raises(ValueError, match="got 'conf': the nearest are conv"):
        network.layer_path("_orig_mod.conf")


@pytest.mark.parametrize("layer", ["conf", "", "7x7", 5, ["conv"], ("conv", "relu")], ids=repr)
def test_an_unknown_layer_raises_with_the_layers_there_are(network, layer):
    with pytest.raises(ValueError, match=re.escape(f"got {layer!r}")) as caught:
        network.layer_path(layer)
    assert "8x8 (relu)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_naming_a_dotted_path_runs_nothing():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

    assert Network(Broken()).layer_path("conv") == "conv"


@pytest.mark.parametrize(
    ("target", "index"), [("dog", 2), ("DOG", 2), ("siamese CAT", 1), (0, 0), (2, 2), (np.int64(1), 1)]
)
def test_a_class_is_given_by_name_in_any_case_or_by_index(network, target, index):
    assert network.class_index(target) == index


def test_a_name_in_the_same_case_comes_first():
    # ImageNet has a dog, "Cardigan" (264), and a garment, "cardigan" (474).
    network = Network(module(), classes=("Cardigan", "cardigan", "CARDIGANS"))
    assert [network.class_index(name) for name in network.classes] == [0, 1, 2]
    assert network.class_index("CARDIGAN") == 0


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("dgo", "closest are dog"),
        ("cat", "tabby cat"),
        ("zzz", "tabby cat, Siamese cat, dog"),
        ("Siamese", "closest are siamese cat"),
    ],
)
def test_an_unknown_class_raises_with_the_closest_names(network, target, hint):
    with pytest.raises(ValueError, match=f"a class of small, got '{target}'") as caught:
        network.class_index(target)
    assert hint.casefold() in str(caught.value).casefold()


@pytest.mark.parametrize("index", [-1, 3, 1000])
def test_a_class_out_of_range_raises_with_the_range(network, index):
    with pytest.raises(ValueError, match=f"small from 0 to 2, got {index}:"):
        network.class_index(index)


def test_without_names_classes_have_only_an_index(bare):
    assert bare.class_index(2) == 2
    assert bare.class_name(2) == "class 2"
    with pytest.raises(ValueError, match="got 'dog': without class names"):
        bare.class_index("dog")


@pytest.mark.parametrize(
    "images",
    [
        plain_image(),
        np.asarray(plain_image()),
        [plain_image()],
        (np.asarray(plain_image()),),
        Preprocessing(8, 8)(plain_image()),
        Preprocessing(8, 8)(plain_image())[None],
    ],
    ids=["PIL", "array", "list of PIL", "tuple of arrays", "tensor", "batch"],
)
def test_one_image_becomes_a_batch_of_one(network, images):
    assert torch.equal(network.prepare(images), Preprocessing(8, 8)(plain_image())[None])


def test_a_list_of_all_kinds_of_images_becomes_one_batch(network, tmp_path):
    plain_image("lime").save(tmp_path / "lime.png")
    images = [
        plain_image("red"),
        tmp_path / "lime.png",
        str(tmp_path / "lime.png"),
        np.asarray(plain_image("blue")),
    ]
    batch = network.prepare(images)
    colours = network.preprocess.restore(batch)[:, :, 0, 0].round().tolist()
    assert colours == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(8, 8),
            "a preprocessed floating-point tensor (N, 3, H, W), got torch.float32 (8, 8)",
        ),
        (torch.zeros(1, 1, 3, 8, 8), "got torch.float32 (1, 1, 3, 8, 8)"),
        (torch.zeros(1, 4, 8, 8), "got torch.float32 (1, 4, 8, 8)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "got torch.uint8 (1, 3, 8, 8)"),
        (torch.full((1, 3, 8, 8), torch.nan), "a finite input, got NaN or infinity"),
        (torch.full((1, 3, 8, 8), torch.inf), "a finite input, got NaN or infinity"),
        (torch.full((1, 3, 8, 8), 1e300, dtype=torch.float64), "infinity in torch.float32"),
        ([], "an empty list"),
        ("missing.png", "missing.png"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)], "(3, 8, 8) and (3, 8, 9)"),
        ([torch.zeros(1, 3, 8, 8)], "(1, 3, 8, 8)"),
        ([torch.zeros(3, 8, 8), plain_image()], "got Tensor"),
    ],
    ids=[
        *("flat", "5 axes", "4 bands", "uint8", "NaN", "infinite", "too large", "empty list", "missing file"),
        *("tensors of two sizes", "batches in a list", "tensors and images"),
    ],
)
def test_what_cannot_be_a_batch_is_refused(network, images, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        network.prepare(images)


def test_a_list_of_tensors_is_stacked(network, bare):
    tensors = [torch.rand(3, 8, 8), torch.rand(3, 8, 8)]
    for several in (tensors, tuple(tensors)):
        assert torch.equal(network.prepare(several), torch.stack(tensors))
    network.module.double()
    assert torch.equal(network.prepare(tensors), torch.stack(tensors).double())
    assert torch.equal(bare.prepare(tensors[:1]), tensors[0][None])


def test_a_preprocessing_may_return_images_of_one_size_only():
    network = Network(module(), preprocess=lambda image: torch.zeros(3, *image.size))
    assert network.prepare([plain_image(), plain_image()]).shape == (2, 3, 12, 9)
    with pytest.raises(ValueError, match=r"preprocessing .*\(3, 12, 9\) and \(3, 9, 9\)"):
        network.prepare([plain_image(), plain_image().crop((0, 0, 9, 9))])


def test_an_image_needs_a_preprocessing(bare):
    with pytest.raises(ValueError, match="Sequential has no preprocessing, got an image"):
        bare.prepare(plain_image())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_inputs_take_the_networks_dtype(network, dtype):
    network.module.to(dtype)
    assert network.prepare(plain_image()).dtype == dtype
    assert network.prepare(torch.zeros(2, 3, 8, 8)).dtype == dtype


def test_inputs_go_to_the_networks_device(network):
    network.module.to("meta")
    assert network.prepare(torch.zeros(2, 3, 8, 8)).device.type == "meta"


def test_a_module_without_parameters_takes_inputs_as_they_are():
    inputs = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    assert torch.equal(Network(nn.Flatten()).prepare(inputs), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_probabilities_are_the_softmax_and_sum_to_one(network, dtype):
    network.module.to(dtype)
    probabilities = network.probabilities([plain_image("red"), plain_image("blue")])
    assert probabilities.dtype == torch.float32
    assert probabilities.shape == (2, 3)
    assert torch.allclose(probabilities.sum(1), torch.ones(2), atol=1e-6)
    logits = network.module.eval()(network.prepare([plain_image("red"), plain_image("blue")]))
    assert torch.allclose(probabilities, logits.float().softmax(1))


def test_a_network_in_training_runs_in_evaluation_mode_and_stays_in_training(network):
    network.module.train().norm.eval()
    running = network.module.norm.running_mean.clone()
    first, again = (network.probabilities(plain_image()) for _ in range(2))
    assert torch.equal(first, again)  # no dropout
    assert [name for name, part in network.module.named_children() if not part.training] == ["norm"]
    assert torch.equal(network.module.norm.running_mean, running)
    assert all(p.requires_grad for p in network.module.parameters())


def test_the_view_is_the_crop_or_the_whole_plain_image(network, bare):
    assert network.view(plain_image()).size == (9, 9)
    assert bare.view(plain_image()).size == (12, 9)


# Transformers.


@pytest.fixture
def patches():
    return torch.randn(3, 3, 8, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def maps_by_hand(module, inputs, targets, layer):
    """Maps and gradients (N, 6, 2, 3) by plain autograd, token by token into their cells."""
    pairs = plain_autograd(module, inputs, layer, lambda logits: logits[range(len(inputs)), targets])
    both = []
    for tokens in pairs:
        maps = torch.empty(len(inputs), 6, 2, 3, dtype=torch.float64)
        for row, column in product(range(2), range(3)):
            maps[:, :, row, column] = tokens[:, 1 + 3 * row + column]
        both.append(maps)
    return both


def weighted(maps, gradients):
    return (gradients.mean((2, 3), keepdim=True) * maps).sum(1).relu()


BY_HAND = {
    "grad_cam": weighted,
    "hires_cam": lambda maps, gradients: (gradients * maps).sum(1),
    "guidance_map": lambda maps, gradients: (gradients * maps).sum(1).relu(),
    "gmcam": lambda maps, gradients: (gradients * maps).sum(1).relu() * weighted(maps, gradients),
    "layer_cam": lambda maps, gradients: (gradients.relu() * maps).sum(1).relu(),
}


@pytest.mark.parametrize("layer", ["blocks.0", "blocks.1.norm"])
@pytest.mark.parametrize("method", BY_HAND)
def test_tokens_are_explained_cell_by_cell(transformer, patches, method, layer):
    result = explain(transformer, patches, [0, 3, 1], method=method, layer=layer)
    expected = BY_HAND[method](*maps_by_hand(transformer.module, patches, [0, 3, 1], layer))
    assert expected.any()
    assert torch.allclose(result.raw, expected, rtol=1e-9, atol=1e-12)
    assert result.maps.shape == (3, 8, 12)


def test_all_classes_of_one_image_through_a_transformer(transformer, patches):
    together = explain(transformer, patches[:1], [0, 3, 1], method="grad_cam")
    for number, target in enumerate([0, 3, 1]):
        expected = weighted(*maps_by_hand(transformer.module, patches[:1], [target], "blocks.1.norm"))
        assert torch.allclose(together.raw[number], expected[0], rtol=1e-9, atol=1e-12)


def test_integrated_grad_cam_of_tokens_is_a_sum_on_the_way_from_zero(transformer, patches):
    result = explain(transformer, patches, 2, method="integrated_grad_cam", steps=4)
    steps = [
        maps_by_hand(transformer.module, patches * s, [2] * 3, "blocks.1.norm") for s in (0, 0.25, 0.5, 0.75)
    ]
    assert torch.allclose(result.raw, sum(weighted(*pair) for pair in steps), rtol=1e-9, atol=1e-12)


def test_score_cam_masks_a_transformers_image_with_its_tokens(transformer, patches):
    result = explain(transformer, patches[:1], 2, method="score_cam")
    maps, _ = maps_by_hand(transformer.module, patches[:1], [2], "blocks.1.norm")
    up = nn.functional.interpolate(maps, (8, 12), mode="bilinear")[0]
    masks = torch.stack([(m - m.min()) / (m.max() - m.min()) for m in up])
    weights = transformer.module(patches[:1] * masks[:, None]).softmax(1)[:, 2]
    assert torch.allclose(result.raw[0], (weights[:, None, None] * up).sum(0).relu(), rtol=1e-9)


def test_several_layers_of_a_transformer(transformer, patches):
    results = explain_layers(transformer, patches, 1, layers=["blocks.1.norm", "blocks.0"])
    assert [result.layer for result in results] == ["blocks.1.norm", "blocks.0"]
    assert torch.equal(results[1].raw, explain(transformer, patches, 1, layer="blocks.0").raw)


def test_the_default_layer_of_a_transformer_is_its_argument(transformer):
    assert (transformer.default_layer, transformer.layer_path()) == ("2x3", "blocks.1.norm")
    assert transformer.layers == {"2x3": "blocks.1.norm"}


def test_a_transformer_that_reads_its_class_token_asks_for_the_layer(transformer, patches):
    with pytest.raises(ValueError, match=r"tokens.*gmcam\.Network\(module, reshape=…\)"):
        explain(transformer.module, patches, 0)
    assert explain(transformer.module, patches, 0, layer="cut").layer == "cut"
    with pytest.raises(ValueError, match=r"^Transformer: .*got 'blocks.2': .* blocks.1, .*2x3 \(blocks.0\)"):
        explain(transformer.module, patches, 0, layer="blocks.2")


def test_a_default_layer_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="got 'conf': the nearest are conv"):
        Network(module(), layer="conf")


CONVOLUTIONAL = ("cam", "full_grad", "smooth_full_grad", "ablation_cam", "relevance_cam", "captum.deep_lift")


@pytest.mark.parametrize("method", [*CONVOLUTIONAL, "captum.guided_backprop", "captum.layer_grad_cam"])
def test_methods_that_need_a_convolutional_map_refuse_tokens(transformer, patches, method):
    with pytest.raises(ValueError, match=f"convolutional maps for {method}, got the tokens of Transformer"):
        explain(transformer, patches, 0, method=method)


def test_cameras_refuses_a_transformer_of_one_input_size(transformer, patches):
    with pytest.raises(ValueError, match="got Transformer, which fails at 12 x 17"):
        explain(transformer, patches, 0, method="cameras")


MISFITS = {
    "no maps": (lambda t: t[:, 1:], r"\(3, 7, 6\) into .* got shape \(3, 6, 6\)"),
    "no batch": (lambda t: t[:1, 1:, :, None], r"\(3, 7, 6\) into .* got shape \(1, 6, 6, 1\)"),
    "a grid that does not fit": (lambda t: t.transpose(1, 2).reshape(3, 6, 3, 3), r"\(3, 7, 6\)"),
    "with the class token": (lambda t: t.unflatten(1, (2, 3)), r"\(3, 7, 6\)"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_wrong_reshape_is_refused_with_the_shapes(transformer, patches, case):
    transformer.reshape, message = MISFITS[case]
    with pytest.raises(ValueError, match=message) as caught:
        explain(transformer, patches, 0, layer="blocks.0")
    assert "\n" not in str(caught.value)


def test_a_layer_that_reshape_does_not_fit_is_refused_with_the_shapes(transformer, patches):
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        explain(transformer, patches, 0, layer="head")
    with pytest.raises(ValueError, match=r"\(3, 6, 2, 3\)"):
        explain(transformer, patches, 0, layer="cut")
