"""Effects and effect maps of a scene's objects: ``gmcam.metrics`` with the images that a scene can draw."""

from __future__ import annotations

from torch import Tensor

from gmcam import metrics
from gmcam.capture import Layer
from gmcam.explaining import NamedTarget
from gmcam.groups import Group
from gmcam.lab.scenes import BACKGROUNDS, Scene
from gmcam.metrics import Effects
from gmcam.network import Network


def effects(
    network: Network,
    scene: Scene,
    label: str | int,
    target: NamedTarget = None,
    *,
    score: str = "logit",
    against: str | int | Group | None = None,
) -> Effects:
    """What an object of a scene does to the score of ``target``: removal, addition, interaction, background.

    ``label``: the object's label, or its number; ``target``: by default the network's top class. The object
    alone and the bare background are drawn from the scene, and so are the eight backgrounds that it does not
    stand on. Other arguments, units and errors as ``gmcam.metrics.effects`` and ``Scene.without``.

    >>> network, scene = gmcam.load("collage-resnet"), gmcam.lab.scene("cat", "cup", seed=98)
    >>> found = gmcam.lab.effects(network, scene, "cup", "cat")
    >>> bool(found.removal < 0), bool(found.interaction == found.removal - found.addition)
    (True, True)
    """
    without, alone = scene.without(label), scene
    chosen = [n for n, name in enumerate(scene.labels) if label in (n, name)]
    for number in reversed(range(len(scene.labels))):
        alone = alone if number in chosen else alone.without(number)
    empty = alone.without(alone.labels[0])
    others = [name for names in BACKGROUNDS.values() for name in names if name != scene.background]
    return metrics.effects(
        network,
        scene.image,
        without.image,
        target,
        alone=alone.image,
        empty=empty.image,
        backgrounds=[scene.on(name).image for name in others],
        score=score,
        against=against,
    )


def effect_map(
    network: Network,
    scene: Scene,
    label: str | int,
    target: NamedTarget = None,
    layer: Layer | None = None,
    *,
    path: str = "maps",
    steps: int = 32,
) -> Tensor:
    """The removal effect of a scene's object on the logit of ``target``, cell by cell: (h, w), in logits.

    ``label``: the object's label, or its number. Several targets give (T, h, w). Other arguments, what is
    exact, and errors as ``gmcam.metrics.effect_map`` and ``Scene.without``.

    >>> network, scene = gmcam.load("collage-resnet"), gmcam.lab.scene("cat", "cup", seed=98)
    >>> cells = gmcam.lab.effect_map(network, scene, "cup", "cat")
    >>> cells.shape, bool(cells.sum() < 0)
    (torch.Size([16, 16]), True)
    """
    pair = scene.image, scene.without(label).image
    maps = metrics.effect_map(network, *pair, target, layer, path=path, steps=steps)
    return maps[0] if len(maps) == 1 else maps
