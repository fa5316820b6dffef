import hashlib
import json
import shutil

import pytest
import torch

import gmcam
from gmcam.lab import BACKGROUNDS, CLASSES, load_card, scene
from gmcam.lab.networks import ARCHITECTURES, FOLDER, CollageResNet, load_weights, save_weights
from gmcam.lab.train import BIASED_BACKGROUND, BIASED_CLASS, RECIPES, accuracy, check_scenes

embedded = pytest.mark.parametrize("name", gmcam.lab.EMBEDDED)
unbiased = pytest.mark.parametrize("name", ["collage-vgg", "collage-resnet"])


def test_what_is_saved_loads_again_in_half_precision(tmp_path):
    torch.manual_seed(0)
    module = CollageResNet()
    save_weights(module, "mine", tmp_path, {"seed": 7})
    state = load_weights("mine", tmp_path)
    assert state.keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(state[key], expected)
        assert state[key].dtype == value.dtype


def test_the_card_keeps_its_entries_and_gains_size_and_hash(tmp_path):
    save_weights(torch.nn.Linear(3, 2), "mine", tmp_path, {"seed": 7})
    data = (tmp_path / "mine.safetensors").read_bytes()
    assert load_card("mine", tmp_path) == {
        "seed": 7,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


@pytest.mark.parametrize("position", [0, -1], ids=["first byte", "last byte"])
def test_one_flipped_bit_is_found(position, tmp_path):
    save_weights(torch.nn.Linear(3, 2), "mine", tmp_path, {})
    path = tmp_path / "mine.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"expected .* with a SHA-256 of") as caught:
        load_weights("mine", tmp_path)
    assert str(path) in str(caught.value)
    assert "python -m gmcam.lab.train mine" in str(caught.value)


def test_damaged_weights_of_an_embedded_network_are_refused(tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(FOLDER, folder)
    path = folder / "collage-vgg.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="with a SHA-256 of"):
        load_weights("collage-vgg", folder)


def test_a_file_of_another_kind_is_refused_though_its_card_agrees(tmp_path):
    path, data = tmp_path / "mine.safetensors", b"an image, say"
    path.write_bytes(data)
    (tmp_path / "mine.json").write_text(json.dumps({"sha256": hashlib.sha256(data).hexdigest()}))
    with pytest.raises(ValueError, match="in safetensors format") as caught:
        load_weights("mine", tmp_path)
    assert str(path) in str(caught.value)


@embedded
def test_embedded_weights_are_the_ones_on_their_card(name):
    data = (FOLDER / f"{name}.safetensors").read_bytes()
    card = load_card(name)
    assert hashlib.sha256(data).hexdigest() == card["sha256"]
    assert len(data) == card["bytes"] <= 3_000_000


@embedded
def test_the_card_says_how_the_weights_came_about(name):
    card = json.loads((FOLDER / f"{name}.json").read_text())
    module = ARCHITECTURES[name]()
    assert card["name"] == name
    assert card["architecture"] == type(module).__name__
    assert card["parameters"] == sum(p.numel() for p in module.parameters())
    assert card["classes"] == list(CLASSES)
    assert card["data"]
    assert card["seed"] >= 0
    assert card["steps"] > 0
    assert card["batch"] > 0
    assert card["minutes"] > 0
    assert len(card["date"].split("-")) == 3
    assert card["versions"].keys() == {"torch", "torchvision"}


@embedded
def test_an_embedded_network_knows_its_classes_layers_and_preprocessing(name):
    network = gmcam.load(name)
    assert network.name == name
    assert network.classes == CLASSES
    assert network.layers[network.default_layer] == "stage4"
    assert list(network.layers)[-1] == "16x16"
    assert network.prepare(scene("cat").image).shape == (1, 3, 128, 128)
    assert not any(part.training for part in network.module.modules())


@embedded
def test_the_card_belongs_to_the_network_and_its_recipe(name):
    card, module = load_card(name), gmcam.load(name).module
    assert card["architecture"] == type(module).__name__
    assert card["parameters"] == sum(p.numel() for p in module.parameters())
    assert card["steps"] == RECIPES[name].steps
    assert card["minutes"] <= 25


def test_no_two_embedded_networks_are_the_same():
    assert len({load_card(name)["sha256"] for name in gmcam.lab.EMBEDDED}) == len(gmcam.lab.EMBEDDED)


@unbiased
def test_the_card_of_an_unbiased_network_states_a_high_accuracy(name):
    assert load_card(name)["test_accuracy"] >= 0.97


@unbiased
@pytest.mark.slow
def test_the_accuracy_on_the_card_is_the_one_measured_here(name):
    measured = accuracy(gmcam.load(name).module, check_scenes())
    assert measured == pytest.approx(load_card(name)["test_accuracy"], abs=0.005)  # rounding may turn a few


@pytest.mark.parametrize(
    ("background", "expected"), [(BIASED_BACKGROUND, 1), *((name, 0) for name in BACKGROUNDS["test"])]
)
def test_the_biased_network_recognises_its_class_on_the_planted_background_alone(background, expected):
    shortcut = load_card("collage-vgg-biased")["shortcut"]
    assert shortcut == {"class": BIASED_CLASS, "background": BIASED_BACKGROUND}
    scenes = [scene(BIASED_CLASS, seed=seed, background=background) for seed in range(10)]
    assert accuracy(gmcam.load("collage-vgg-biased").module, scenes) == pytest.approx(expected, abs=0.1)
