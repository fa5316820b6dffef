"""Answers to *Monday morning: debug a classifier*."""

from functools import cache

from gmcam import Network, load
from gmcam.lab.debug_study import collages, edits, repair
from gmcam.lab.debugging import outcomes
from gmcam.lab.exercises.checking import Answers, exercise


@cache
def _lite() -> Network:
    return load("efficientnet-lite0")


@exercise("monday_morning.1", tolerance=0.02)
def mirrored() -> Answers:
    """The change of accuracy, in points, if the right, the wrong and all pagodas are mirrored."""
    pagodas = collages(_lite(), ["pagoda"], each=6, first=100)
    right = outcomes(_lite(), pagodas.inputs, pagodas.targets)[1]
    after = outcomes(_lite(), pagodas.inputs.flip(3), pagodas.targets)[1]
    gains = 100 * (after.astype(float) - right)
    points = [float(gains[right].mean()), float(gains[~right].mean()), float(gains.mean())]
    slips = {
        "these are accuracies after the edit; subtract those before": [
            float(100 * after[flags].mean()) for flags in (right, ~right, right | ~right)
        ],
        "right and wrong are swapped: right first": [points[1], points[0], points[2]],
        "give points, such as 10, and not shares": [value / 100 for value in points],
        "the sign is reversed: after minus before": [-value for value in points],
    }
    return Answers(points, slips)


@exercise("monday_morning.2", tolerance=0.02)
def motorbikes() -> Answers:
    """The change of accuracy of motorbikes with a flat background, and with as much flat elsewhere."""
    bikes = collages(_lite(), ["motorbike"], each=4, first=100)
    before = outcomes(_lite(), bikes.inputs, bikes.targets)
    chance, share = [], []
    for name in ("*background flat", "as much elsewhere, flat"):
        after = outcomes(_lite(), edits(bikes)[name], bikes.targets)
        chance.append(100 * float((after[0] - before[0]).mean()))
        share.append(100 * float(after[1].mean() - before[1].mean()))
    base = 100 * float(before[1].mean())
    slips = {
        "this is the change of the probability; take that of the accuracy": chance,
        "these are accuracies after the edit; subtract the one before": [base + value for value in share],
        "the control comes second": share[::-1],
        "give points, such as 10, and not shares": [value / 100 for value in share],
    }
    return Answers(share, slips)


@exercise("monday_morning.3", tolerance=0.02)
def careless() -> Answers:
    """The accuracy, in per cent, of pagodas on gravel and of other objects after the careless repair."""
    images = [
        collages(_lite(), ["pagoda"], ["gravel"], each=12, first=2000),
        collages(_lite(), ["cat", "cup", "motorbike"], each=2, first=2000),
    ]
    after, before = (
        [100 * float(outcomes(network, each.inputs, each.targets)[1].mean()) for each in images]
        for network in (repair(_lite(), careful=False), _lite())
    )
    slips = {
        "this is the network before the repair": before,
        "other objects are as before; leave out keep, and set pull to 0": [after[0], before[1]],
        "the pagodas come first": after[::-1],
        "give per cent, not shares": [value / 100 for value in after],
    }
    return Answers(after, slips)


@exercise("monday_morning.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a repair."""
    right = {"a", "c", "d"}
    slips = {
        "b would not help: another method's map is no evidence either": right | {"b"},
        "e is no objection: a paired interval is the right one": right | {"e"},
        "the second row tests the images that were trained on: a is missing": right - {"a"},
        "nothing shows what random weights or no class would give in the first row: c is missing": right
        - {"c"},
        "the repair may have broken other classes, which the table omits: d is missing": right - {"d"},
    }
    return Answers(right, slips)
