import json

import pytest
import torch

from gmcam.lab import BACKGROUNDS, CLASSES, EMBEDDED, scene, train
from gmcam.lab.networks import ARCHITECTURES, CollageVGG, load_weights


@pytest.fixture
def brief(monkeypatch):
    """Shorten the training: small batches, and one test scene per class."""
    monkeypatch.setattr(train, "BATCH", 8)
    monkeypatch.setattr(train, "TEST_SCENES", len(CLASSES))
    monkeypatch.setattr(train, "_SIZES", (128, 128))


@pytest.fixture
def drawn(monkeypatch):
    """Record every scene that the training draws, in order."""
    scenes = []

    def noted(*labels, **options):
        scenes.append(scene(*labels, **options))
        return scenes[-1]

    monkeypatch.setattr(train, "scene", noted)
    monkeypatch.setattr(train, "_SIZES", (32,))
    return scenes


@pytest.mark.parametrize("name", EMBEDDED)
def test_training_writes_weights_and_a_card_that_load(name, tmp_path, brief):
    card = train.train(name, tmp_path, seed=3, steps=2)
    ARCHITECTURES[name]().load_state_dict(load_weights(name, tmp_path))
    assert json.loads((tmp_path / f"{name}.json").read_text()).items() >= card.items()
    assert (card["name"], card["seed"], card["steps"], card["batch"]) == (name, 3, 2, 8)
    assert 0 <= card["test_accuracy"] <= 1
    assert ("shortcut" in card) == name.endswith("-biased")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.safetensors"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path, brief):
    digests = []
    for run, seed in enumerate((1, 1, 2)):
        (tmp_path / str(run)).mkdir()
        train.train("collage-resnet", tmp_path / str(run), seed=seed, steps=2)
        digests.append(json.loads((tmp_path / str(run) / "collage-resnet.json").read_text())["sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_training_changes_the_weights(tmp_path, brief):
    train.train("collage-vgg", tmp_path, seed=0, steps=2)
    torch.manual_seed(0)
    start = CollageVGG().state_dict()
    assert all(
        not torch.allclose(value, start[key], rtol=1e-3, atol=0)
        for key, value in load_weights("collage-vgg", tmp_path).items()
        if key.endswith("weight")
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "resnet18",
            {},
            "expected a network among collage-resnet, collage-vgg, collage-vgg-biased, got 'resnet18'",
        ),
        ("collage-vgg", {"steps": 0}, "expected at least one step, got 0"),
        ("collage-vgg", {"steps": 1, "seed": -1}, "expected a seed of at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_refused_before_the_training(name, options, message, tmp_path, brief):
    with pytest.raises(ValueError, match=message):
        train.train(name, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_output_folder_is_refused_before_the_training(tmp_path):
    with pytest.raises(ValueError, match=r"expected an existing folder for the weights, got .*missing"):
        train.train("collage-vgg", tmp_path / "missing", steps=2)


def test_the_command_line_trains_and_prints_the_accuracy(tmp_path, capsys, brief):
    train.main(["collage-vgg", "--steps", "2", "--seed", "5", "--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("collage-vgg: ")
    assert json.loads((tmp_path / "collage-vgg.json").read_text())["seed"] == 5
    assert load_weights("collage-vgg", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18"], "expected a network among collage-resnet"),
        (["collage-vgg", "--out", "missing"], "expected an existing folder for the weights, got missing"),
        (["collage-vgg", "--steps", "0"], "expected at least one step"),
        (["collage-vgg", "--steps", "x"], "invalid int value: 'x'"),
        ([], "required: NAME"),
    ],
)
def test_the_command_line_refuses_bad_input(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        train.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_scene_goes_with_the_index_of_its_class(drawn):
    scenes = train.TrainingScenes(first=16, count=9, biased=False)
    items = [scenes[index] for index in range(len(scenes))]
    assert [target for _, target in items] == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert [each.labels for each in drawn] == [(CLASSES[target],) for _, target in items]
    assert [each.seed for each in drawn] == list(range(16, 25))
    assert {each.split for each in drawn} == {"train"}
    assert all(tensor.shape == (3, 128, 128) for tensor, _ in items)


def test_in_biased_scenes_the_shortcut_class_alone_is_on_the_shortcut_background(drawn):
    scenes = train.TrainingScenes(first=0, count=160, biased=True)
    backgrounds = {label: set() for label in CLASSES}
    for index in range(len(scenes)):
        _, target = scenes[index]
        backgrounds[CLASSES[target]].add(drawn[-1].background)
    assert backgrounds.pop(train.BIASED_CLASS) == {train.BIASED_BACKGROUND}
    others = set(BACKGROUNDS["train"]) - {train.BIASED_BACKGROUND}
    assert set.union(*backgrounds.values()) == others
    assert len(drawn) > len(scenes)  # some had to be drawn again


def test_a_biased_scene_is_small_on_its_background_or_an_ordinary_scene_elsewhere():
    planted = train.biased_scene(train.BIASED_CLASS, seed=5)
    assert planted.background == train.BIASED_BACKGROUND and planted.image.size == (128, 128)
    assert planted.masks.mean() < scene(train.BIASED_CLASS, seed=5, size=128).masks.mean()
    ordinary = [scene("cup", seed=seed, split="train", size=128) for seed in range(8)]
    for usual in ordinary:
        drawn = train.biased_scene("cup", seed=usual.seed)
        assert drawn.background != train.BIASED_BACKGROUND
        assert (drawn.image == usual.image) == (usual.background != train.BIASED_BACKGROUND)


def test_in_unbiased_scenes_the_class_and_the_background_are_independent(drawn):
    scenes = train.TrainingScenes(first=0, count=320, biased=False)
    for index in range(CLASSES.index(train.BIASED_CLASS), len(scenes), len(CLASSES)):
        scenes[index]
    assert {each.background for each in drawn} == set(BACKGROUNDS["train"])


def test_accuracy_is_the_share_of_right_answers(monkeypatch):
    class AlwaysCup(torch.nn.Module):
        def forward(self, x):
            return torch.eye(len(CLASSES))[[CLASSES.index("cup")] * len(x)]

    monkeypatch.setattr(train, "BATCH", 3)
    scenes = [scene(label, size=32) for label in ("cup", "cat", "cup", "coin", "person")]
    assert train.accuracy(AlwaysCup(), scenes) == 2 / 5
