"""Answers to *Guided aggregation*."""

from torch import Tensor

from gmcam import equations
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured_for, network

# Maps of exercise 1: values inside the object, and outside.
CELLS = {
    "a": ([3, 3, 3], [4, 1, 1, 1]),
    "b": ([2, 2], [3, 0]),
    "c": ([5, 1], [4, 4, 4]),
    "d": ([4, 1, 1, 1], [3]),
    "e": ([2, 2, 2], [1, 1, 1, 1]),
}


def share(inside: list[int], outside: list[int], power: int = 1) -> float:
    """The share inside of a map whose cells are raised to a power."""
    of_object, rest = (sum(value**power for value in values) for values in (inside, outside))
    return float(of_object / (of_object + rest))


@exercise("guided_aggregation.1")
def squared() -> Answers:
    """The maps whose share inside rises when their cells are squared."""
    rises = {key for key, cells in CELLS.items() if share(*cells, power=2) > share(*cells)}
    mean = {key: [sum(values) / len(values) for values in cells] for key, cells in CELLS.items()}
    slips = {
        "these are the maps whose strongest cell is inside; several weaker ones outweigh it": {
            key for key, (inside, outside) in CELLS.items() if max(inside) > max(outside)
        },
        "these are the maps whose mean is larger inside; squaring weights each cell by its value": {
            key for key, (inside, outside) in mean.items() if inside > outside
        },
        "these are the maps with more than half inside, before squaring": {
            key for key, cells in CELLS.items() if share(*cells) > 1 / 2
        },
        "these are the maps with more than half inside, after squaring": {
            key for key, cells in CELLS.items() if share(*cells, power=2) > 1 / 2
        },
        "squaring can lower the share, where the strongest cells are outside": set(CELLS),
    }
    return Answers(rises, slips)


@exercise("guided_aggregation.2")
def rectifiers() -> Answers:
    """Which rectifier is redundant: the inner one of GM or the outer one of Equation 6."""
    M, C = captured_for(network().class_index("cat"))
    weights, S = equations.channel_weights(C), equations.gmcam(M, C)

    def guided(guide: Tensor) -> Tensor:
        return equations.class_map(guide.unsqueeze(1) * M, weights)

    without_inner = guided(equations.hires_cam(M, C)).relu()
    without_outer = guided(equations.guidance_map(M, C))
    equal = [bool((other - S).abs().max() <= 1e-4 * S.max()) for other in (without_inner, without_outer)]
    words = {(False, False): "neither", (True, False): "inner", (False, True): "outer", (True, True): "both"}
    slips = {
        "without the inner one, cells in which both factors are negative become positive": "inner",
        "without the outer one, a negative weighted sum stays negative where GM is above zero": "outer",
        "leave out one at a time, and compare with S": "both",
    }
    return Answers(words[equal[0], equal[1]], slips)


@exercise("guided_aggregation.3", tolerance=1e-3)
def twice_the_score() -> Answers:
    """The factor by which the raw map grows if the score is doubled: both factors of S double."""
    cat = network().class_index("cat")
    once, twice = captured_for(cat), captured_for(lambda logits: 2 * logits[:, cat])
    gmcam, grad_cam = (
        float(equation(*twice).max() / equation(*once).max())
        for equation in (equations.gmcam, equations.grad_cam)
    )
    slips = {
        "this is Grad-CAM's factor; S contains the gradient twice, in λ and in GM": grad_cam,
        "this holds after min–max normalisation; the question is about the raw map": 1.0,
        "M does not change; only λ and GM double": gmcam * 2,
    }
    return Answers(gmcam, slips)


@exercise("guided_aggregation.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a gain in share inside that is credited to guidance."""
    right = {"a", "c", "e"}
    slips = {
        "without a square next to GMCAM, contrast counts as guidance: a is missing": right - {"a"},
        "the effect of an object spreads beyond it, so 1 is not the aim: c is missing": right - {"c"},
        "the claim is about objects, and the scenes reuse eight: e is missing": right - {"e"},
        "more scenes of the same eight objects do not test other objects: drop b": right | {"b"},
        "the pointing game reads the strongest pixel, which squaring keeps: drop d": right | {"d"},
        "a share does not depend on the unit of the map: drop f": right | {"f"},
    }
    return Answers(right, slips)
