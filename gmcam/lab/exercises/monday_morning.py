"""Answers to *Monday morning: debug a classifier*.

Those to 1 and 3 are numbers of the stored measurements; a test computes them again.
"""

from functools import cache

from gmcam import Network, load
from gmcam.lab.debug_study import collages, edits
from gmcam.lab.debugging import outcomes
from gmcam.lab.exercises.checking import Answers, exercise

MIRRORED = (-10.0, 6.25, -2.7778)
PRICE = (-3.0, -5.473, -0.961)
APART = (-9.264, 3.512)  # the interval without pairs
CAREFUL = (-0.5, -1.571, 0.0)
CONTROL = "as much elsewhere, flat"


@cache
def _lite() -> Network:
    return load("efficientnet-lite0")


@exercise("monday_morning.1", tolerance=0.02)
def mirrored() -> Answers:
    """The change of accuracy, in points, if the right, the wrong and all pagodas are mirrored."""
    right, wrong, together = MIRRORED
    slips = {
        "these are accuracies after the edit; subtract those before": [100 + right, wrong, 100 + together],
        "right and wrong are swapped: right first": [wrong, right, together],
        "give points, such as 10, and not shares": [value / 100 for value in MIRRORED],
        "the sign is reversed: after minus before": [-value for value in MIRRORED],
    }
    return Answers(list(MIRRORED), slips)


@exercise("monday_morning.2", tolerance=0.02)
def motorbikes() -> Answers:
    """The mean change of the probability of motorbikes with a flat background, and with as much elsewhere."""
    bikes = collages(_lite(), ["motorbike"], each=1, first=100)
    before, right = outcomes(_lite(), bikes.inputs, bikes.targets)
    arms = edits(bikes)
    after = [outcomes(_lite(), arms[name], bikes.targets) for name in ("*background flat", CONTROL)]
    change = [float((chance - before).mean()) for chance, _ in after]
    slips = {
        "this is the change of the accuracy; take that of the probability": [
            float(hits.mean() - right.mean()) for _, hits in after
        ],
        "these are probabilities after the edit; subtract those before": [
            float(chance.mean()) for chance, _ in after
        ],
        "the control comes second": change[::-1],
        "the sign is reversed: after minus before": [-value for value in change],
        "give probabilities, such as 0.1, and not points": [100 * value for value in change],
    }
    return Answers(change, slips)


@exercise("monday_morning.3", tolerance=0.05)
def price() -> Answers:
    """The price of the careless repair in points, and the ends of its paired interval."""
    value, low, high = PRICE
    slips = {
        "pair the photographs: pass the differences to estimate": [value, *APART],
        "the sign is reversed: after minus before": [-value, -high, -low],
        "give points, such as 10, and not shares": [number / 100 for number in PRICE],
        "this is the careful repair": [*CAREFUL],
    }
    return Answers([value, low, high], slips)


@exercise("monday_morning.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a repair."""
    right = {"a", "c", "d"}
    slips = {
        "b would not help: another method's map is no evidence either": right | {"b"},
        "e is no objection: a paired interval is the right one": right | {"e"},
        "the second row tests the backgrounds that were trained on: a is missing": right - {"a"},
        "nothing shows what a map without a class would give in the first row: c is missing": right - {"c"},
        "the repair may have broken other classes, which the table omits: d is missing": right - {"d"},
    }
    return Answers(right, slips)
