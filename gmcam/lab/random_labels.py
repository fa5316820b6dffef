"""Data randomisation: train a small network on the true labels, and on the same labels in a random order.

``python -m gmcam.lab.random_labels --out book`` trains ten small networks, five of each kind, and compares
their maps; ``--weights FOLDER`` also stores the first two. Adebayo et al., *Sanity Checks for Saliency Maps*,
2018. Each training takes a minute on one core at most.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchvision
from torch import Tensor, nn
from tqdm import tqdm

from gmcam.explaining import Result, compare
from gmcam.lab.networks import load_weights, save_weights
from gmcam.lab.randomisation import METHODS, SLOW, STEPS, agreement, write
from gmcam.lab.scenes import CLASSES, Scene, scene
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing

SIZE, IMAGES, BATCH, EPOCHS, SEEDS = 48, 384, 32, 200, 5
LABELS = ("true", "random")
PREPROCESSING = Preprocessing(resize=SIZE, crop=SIZE)


class SmallNet(nn.Module):
    """Three convolutions, each with a rectifier, then max pooling and one linear layer: 23,560 parameters.

    From (N, 3, 48, 48) to eight logits; its last map is ``features``, 32 × 12 × 12.
    """

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(32 * 6 * 6, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.features(x)).flatten(1))
        return logits


def as_network(module: nn.Module, name: str) -> Network:
    """The module with the classes and the preprocessing of the embedded networks, at 48 pixels."""
    shape = (3, SIZE, SIZE)
    return Network(module.eval(), name=name, preprocess=PREPROCESSING, classes=CLASSES, input_shape=shape)


def small_network(labels: str) -> Network:
    """The stored small network that was trained on ``"true"`` or on ``"random"`` labels, with seed 0.

    Raises ``ValueError`` for other labels.

    >>> from gmcam.lab.random_labels import small_network
    >>> small_network("random").layers
    {'24x24': 'features.3', '12x12': 'features'}
    """
    if labels not in LABELS:
        raise ValueError(f"expected labels 'true' or 'random', got {labels!r}: choose one of the two")
    module = SmallNet()
    module.load_state_dict(load_weights(f"small-{labels}"))
    return as_network(module, f"small-{labels}")


@cache
def training_scenes() -> Sequence[Scene]:
    """The 384 scenes of the train split, one object each, on which all small networks are trained."""
    return [scene(CLASSES[i % 8], seed=i, split="train", size=SIZE) for i in range(IMAGES)]


def targets(labels: str, seed: int) -> Tensor:
    """The class index of every training scene: its object's, or, if random, a permutation of all of them.

    Each class keeps its 48 scenes. Raises ``ValueError`` for labels other than ``"true"`` and ``"random"``.
    """
    if labels not in LABELS:
        raise ValueError(f"expected labels 'true' or 'random', got {labels!r}: choose one of the two")
    true = torch.arange(IMAGES) % len(CLASSES)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(seed))
    return true[order] if labels == "random" else true


def train(labels: str, seed: int = 0, epochs: int = EPOCHS) -> tuple[SmallNet, SmallNet, dict[str, Any]]:
    """Train a small network until it fits every training label: the start, the end, and the card.

    True and random labels start with the same weights and see the images in the same order. Training ends
    with the first epoch after which the network, in evaluation mode, gives every training image its label;
    after ``epochs`` it ends anyway, and the card's ``fitted`` says how many it fits.
    """
    inputs = torch.stack([PREPROCESSING(each.image) for each in training_scenes()])
    wanted = targets(labels, seed)
    started, passes, fitted = time.monotonic(), 0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SmallNet()
        start = copy.deepcopy(module)
        optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(IMAGES).chunk(-(-IMAGES // BATCH)):
                loss = nn.functional.cross_entropy(module(inputs[rows]), wanted[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            passes += 1
            with torch.inference_mode():
                fitted = int((module(inputs).argmax(1) == wanted).sum())
            if fitted == IMAGES:
                break
    card = {"labels": labels, "seed": seed, "epochs": passes, "fitted": fitted, "images": IMAGES}
    card |= {"seconds": round(time.monotonic() - started, 1)}
    return start.eval(), module.eval(), card


def compared_scenes() -> dict[str, Sequence[Scene]]:
    """The scenes that are explained: new ones with one object and with two, of every class twice."""
    one = [scene(label, seed=seed, size=SIZE) for seed in (0, 1) for label in CLASSES]
    two = [
        scene(label, CLASSES[(i + shift) % 8], seed=shift, size=SIZE)
        for shift in (1, 3)
        for i, label in enumerate(CLASSES)
    ]
    return {"one object": one, "two objects": two}


def maps_of(network: Network, scenes: Sequence[Scene]) -> dict[str, Result]:
    """Each method's maps of the first label of every scene."""
    images, labels = [each.image for each in scenes], [each.labels[0] for each in scenes]
    results = compare(network, images, labels, methods=METHODS, options={SLOW: {"steps": STEPS}})
    return {result.method: result for result in results}


def compared(trained: Sequence[dict[str, Network]], scenes: Sequence[Scene]) -> Iterator[dict[str, Any]]:
    """Rows of agreement between the maps of networks, one per seed, comparison, method and scene.

    ``trained``: per seed the networks ``"true"``, ``"random"`` and ``"start"``. Compared with the network of
    true labels are: that of random labels, the untrained one, that of the next seed's true labels, and its
    own map of the scene before, ``"another image"``. ``"two random"``: random labels of two seeds.
    """
    maps = [{kind: maps_of(net, scenes) for kind, net in nets.items()} for nets in trained]
    for seed, mine in enumerate(tqdm(maps, desc="comparing maps")):
        following = maps[(seed + 1) % len(maps)]
        pairs = {"random labels": (mine["true"], mine["random"]), "untrained": (mine["true"], mine["start"])}
        pairs["another seed"] = mine["true"], following["true"]
        pairs["two random"] = mine["random"], following["random"]
        for comparison, (first, second) in pairs.items():
            for method in METHODS:
                yield from _rows(comparison, seed, method, first[method], second[method], scenes)
        for method in METHODS:
            yield from _rows("another image", seed, method, mine["true"][method], None, scenes)


def _rows(
    comparison: str, seed: int, method: str, first: Result, second: Result | None, scenes: Sequence[Scene]
) -> Iterator[dict[str, Any]]:
    for i, each in enumerate(scenes):
        other = (first, i - 1) if second is None else (second, i)
        row = {"comparison": comparison, "seed": seed, "method": method, "scene": i, "label": each.labels[0]}
        yield row | {"other": each.labels[-1]} | agreement((first, i), other)


@torch.inference_mode()
def accuracy(network: Network, scenes: Sequence[Scene]) -> float:
    """The share of scenes whose largest logit is that of their first label."""
    top = network.probabilities([each.image for each in scenes]).argmax(1).tolist()
    return sum(CLASSES[k] == each.labels[0] for k, each in zip(top, scenes, strict=True)) / len(scenes)


def store(out: Path, weights: Path | None = None, seeds: int = SEEDS) -> None:
    """Train the networks of each seed and write ``random_labels.parquet``, and the cards beside it.

    ``weights``: a folder for the networks of seed 0. Raises ``ValueError`` for a missing folder.
    """
    for folder in filter(None, (out, weights)):
        if not folder.is_dir():
            raise ValueError(f"expected an existing folder, got {folder}: create it first")
    test = [scene(label, seed=100 + seed, size=SIZE) for seed in range(25) for label in CLASSES]
    trained, cards = [], []
    for seed in tqdm(range(seeds), desc="training"):
        networks: dict[str, Network] = {}
        for labels in LABELS:
            start, module, card = train(labels, seed)
            networks |= {labels: as_network(module, f"small-{labels}"), "start": as_network(start, "start")}
            card["test_accuracy"] = accuracy(networks[labels], test)
            cards.append(card)
            if weights and seed == 0:
                module.load_state_dict({k: v.half().float() for k, v in module.state_dict().items()})
                card |= {"parameters": sum(p.numel() for p in module.parameters())}
                card |= {"date": datetime.now(UTC).date().isoformat()}
                card |= {"versions": {"torch": torch.__version__, "torchvision": torchvision.__version__}}
                save_weights(module, f"small-{labels}", weights, card)
        trained.append(networks)
    rows = [
        row | {"images": images}
        for images, scenes in compared_scenes().items()
        for row in compared(trained, scenes)
    ]
    write(rows, out / "random_labels.parquet")
    pd.DataFrame(cards).drop(columns=["versions", "date"], errors="ignore").to_csv(
        out / "random_labels.csv", index=False
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and compare from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m gmcam.lab.random_labels", description="Train small networks on random labels."
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER")
    parser.add_argument("--weights", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    try:
        store(options.out, options.weights, options.seeds)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
