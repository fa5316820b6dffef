import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gmcam import Network
from gmcam.networks import Preprocessing

NAMES = ("tabby cat", "Siamese cat", "dog")


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
    """A network of the reader's own: no names, no preprocessing."""
    return Network(module())


def picture(colour="red"):
    return Image.new("RGB", (12, 9), colour)


def test_a_network_is_named_after_its_module_without_a_name(bare, network):
    assert bare.name == "Sequential"
    assert repr(network) == "Network('small', 3 classes)"


def test_only_a_module_makes_a_network():
    with pytest.raises(ValueError, match=r"made from a torch\.nn\.Module, not a function"):
        Network(module)


@pytest.mark.parametrize(
    ("asked", "path"), [(None, "relu"), ("8x8", "relu"), ("relu", "relu"), ("conv", "conv"), ("fc", "fc")]
)
def test_a_layer_goes_by_resolution_or_by_dotted_path(network, asked, path):
    assert network.layer_path(asked) == path


def test_the_default_layer_is_the_last_convolutional_map(network):
    assert network.default_layer == "8x8"
    assert network.layers == {"8x8": "relu"}


def test_finding_the_layers_leaves_the_random_state_alone(network):
    state = torch.get_rng_state()
    assert network.found
    assert torch.equal(torch.get_rng_state(), state)


def test_the_layers_given_out_are_a_copy(network):
    network.layers.clear()
    assert network.layers == {"8x8": "relu"}


@pytest.mark.parametrize("asked", ["conf", "", "7x7"])
def test_an_unknown_layer_is_answered_with_what_there_is(network, asked):
    with pytest.raises(ValueError, match=f"no layer is called '{asked}'") as caught:
        network.layer_path(asked)
    assert "by resolution, 8x8 (relu)" in str(caught.value)
    assert re.search(r"nearest names are \w+", str(caught.value))


def test_naming_a_dotted_path_runs_nothing():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

    assert Network(Broken()).layer_path("conv") == "conv"


@pytest.mark.parametrize(
    ("asked", "index"), [("dog", 2), ("DOG", 2), ("siamese CAT", 1), (0, 0), (2, 2), (np.int64(1), 1)]
)
def test_a_class_goes_by_name_in_any_case_or_by_index(network, asked, index):
    assert network.class_index(asked) == index


def test_a_name_that_fits_letter_by_letter_comes_first():
    # ImageNet has a dog, "Cardigan" (264), and a garment, "cardigan" (474).
    network = Network(module(), classes=("Cardigan", "cardigan", "CARDIGANS"))
    assert [network.class_index(name) for name in network.classes] == [0, 1, 2]
    assert network.class_index("CARDIGAN") == 0


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("dgo", "closest: dog"),
        ("cat", "tabby cat"),
        ("zzz", "for example tabby cat, Siamese cat, dog"),
        ("Siamese", "closest: siamese cat"),
    ],
)
def test_an_unknown_class_is_answered_with_the_closest_names(network, asked, hint):
    with pytest.raises(ValueError, match=f"small has no class called '{asked}'") as caught:
        network.class_index(asked)
    assert hint.casefold() in str(caught.value).casefold()


@pytest.mark.parametrize("index", [-1, 3, 1000])
def test_a_class_out_of_range_is_answered_with_the_range(network, index):
    with pytest.raises(ValueError, match=f"class {index} is out of range: small has 3 classes, 0 to 2"):
        network.class_index(index)


def test_without_names_classes_go_by_index_alone(bare):
    assert bare.class_index(2) == 2
    assert bare.class_name(2) == "class 2"
    with pytest.raises(ValueError, match="it has no class names, so give an index"):
        bare.class_index("dog")


@pytest.mark.parametrize(
    "images",
    [
        picture(),
        np.asarray(picture()),
        [picture()],
        (np.asarray(picture()),),
        Preprocessing(8, 8)(picture()),
        Preprocessing(8, 8)(picture())[None],
    ],
    ids=["PIL", "array", "list of PIL", "tuple of arrays", "tensor", "batch"],
)
def test_one_picture_becomes_a_batch_of_one(network, images):
    assert torch.equal(network.prepare(images), Preprocessing(8, 8)(picture())[None])


def test_a_list_of_all_kinds_of_pictures_becomes_one_batch(network, tmp_path):
    picture("lime").save(tmp_path / "lime.png")
    images = [picture("red"), tmp_path / "lime.png", str(tmp_path / "lime.png"), np.asarray(picture("blue"))]
    batch = network.prepare(images)
    colours = network.preprocess.restore(batch)[:, :, 0, 0].round().tolist()
    assert colours == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(8, 8),
            "floating-point (N, 3, H, W), already preprocessed; this one is torch.float32 (8, 8)",
        ),
        (torch.zeros(1, 1, 3, 8, 8), "this one is torch.float32 (1, 1, 3, 8, 8)"),
        (torch.zeros(1, 4, 8, 8), "this one is torch.float32 (1, 4, 8, 8)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "this one is torch.uint8 (1, 3, 8, 8)"),
        (torch.full((1, 3, 8, 8), torch.nan), "the input holds NaN or infinite values"),
        (torch.full((1, 3, 8, 8), torch.inf), "the input holds NaN or infinite values"),
        ([], "the list of pictures is empty"),
        ("missing.png", "there is no file missing.png"),
    ],
    ids=["flat", "five axes", "four bands", "uint8", "NaN", "infinite", "empty list", "missing file"],
)
def test_what_cannot_be_a_batch_is_refused(network, images, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        network.prepare(images)


def test_a_picture_needs_a_preprocessing(bare):
    with pytest.raises(ValueError, match=r"Sequential has no preprocessing; give a tensor \(N, 3, H, W\)"):
        bare.prepare(picture())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_inputs_take_the_networks_dtype(network, dtype):
    network.module.to(dtype)
    assert network.prepare(picture()).dtype == dtype
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
    found = network.probabilities([picture("red"), picture("blue")])
    assert found.dtype == torch.float32
    assert found.shape == (2, 3)
    assert torch.allclose(found.sum(1), torch.ones(2), atol=1e-6)
    logits = network.module.eval()(network.prepare([picture("red"), picture("blue")]))
    assert torch.allclose(found, logits.float().softmax(1))


def test_a_network_in_training_runs_in_evaluation_mode_and_stays_in_training(network):
    network.module.train().norm.eval()
    running = network.module.norm.running_mean.clone()
    first, again = (network.probabilities(picture()) for _ in range(2))
    assert torch.equal(first, again)  # no dropout
    assert [name for name, part in network.module.named_children() if not part.training] == ["norm"]
    assert torch.equal(network.module.norm.running_mean, running)
    assert all(p.requires_grad for p in network.module.parameters())


def test_the_view_is_the_crop_or_the_whole_picture(network, bare):
    assert network.view(picture()).size == (9, 9)
    assert bare.view(picture()).size == (12, 9)
