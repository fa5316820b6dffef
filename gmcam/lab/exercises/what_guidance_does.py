"""Answers to *What guidance adds*."""

from functools import cache

import torch
from torch import Tensor

from gmcam import equations
from gmcam.capture import capture
from gmcam.lab import scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network


def _split(M: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """L, the sum with mean gradients, and R, the rest of the sum (N, h, w)."""
    L = equations.class_map(M, equations.channel_weights(C))
    return L, equations.hires_cam(M, C) - L


def _outcomes(before: Tensor, after: Tensor) -> set[str]:
    """What happens to each of four cells a to d between two maps (2, 2)."""
    words = set()
    for cell, old, new in zip("abcd", before.flatten().tolist(), after.flatten().tolist(), strict=True):
        word = "lifted" if new > old else "dimmed" if 0 < new < old else "cleared" if new < old else "zero"
        words.add(f"{cell} {word}")
    return words


@exercise("what_guidance_does.1")
def by_hand() -> Answers:
    """What guidance does to each of four cells, from feature maps and gradient maps."""
    M = torch.tensor([[[[2, 0], [1, 1]], [[0, 2], [1, 2]]]]).double()
    C = torch.tensor([[[[3, -2], [-3, -2]], [[0, 5], [1, 2]]]]).double()
    L, R = (cells[0] for cells in _split(M, C))
    square, S = L.relu() ** 2, equations.gmcam(M, C)[0]
    right = _outcomes(square, S)

    def instead(wrong: str) -> set[str]:
        return {wrong if wrong[0] == each[0] else each for each in right}

    slips = {
        "R is above zero in cell a, but L is not: Grad-CAM is zero there, and so is the product": instead(
            "a lifted"
        ),
        "in cell c the sum L + R is below zero, so the rectifier clears it": instead("c dimmed"),
        "in cell d, R is negative but smaller than L: the cell keeps a part": instead("d cleared"),
        "compare GMCAM with the square of Grad-CAM, not with Grad-CAM": _outcomes(L.relu(), S),
        "these follow from the sign of R alone; the outcome depends on L, too": {
            f"{cell} {'lifted' if r > 0 else 'dimmed'}"
            for cell, r in zip("abcd", R.flatten().tolist(), strict=True)
        },
        "cell c is zero in GMCAM but not in Grad-CAM: guidance clears it": instead("c zero"),
    }
    return Answers(right, slips)


def gain(M: Tensor, C: Tensor) -> Tensor:
    """The factor from Grad-CAM squared to GMCAM (N, h, w): ReLU(1 + R / L), and 0 where Grad-CAM is zero."""
    L, R = _split(M, C)
    return torch.where(L > 0, (1 + R / L).relu(), 0)


def _maps_and_gradients() -> tuple[Tensor, Tensor]:
    """Feature maps and gradient maps (2, 3, 4, 4), with every case in some cell."""
    generator = torch.Generator().manual_seed(3)
    M = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.double)
    return M, torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.double)


@exercise("what_guidance_does.2", tolerance=1e-4)
def factor() -> Answers:
    """The factor by which guidance multiplies each cell of Grad-CAM squared."""

    def ratio(M: Tensor, C: Tensor) -> Tensor:
        L, R = _split(M, C)
        return R / L

    def masked(M: Tensor, C: Tensor, factor: Tensor) -> Tensor:
        return torch.where(_split(M, C)[0] > 0, factor, 0)

    slips = {
        "the rectifier is missing: where R is below −L the factor is zero": lambda M, C: masked(
            M, C, 1 + ratio(M, C)
        ),
        "this is R / L; the factor is 1 where R is zero": lambda M, C: masked(M, C, ratio(M, C).relu()),
        "where Grad-CAM is zero the factor is 0: two negative sums have a positive ratio": lambda M, C: (
            1 + ratio(M, C)
        ).relu(),
        "this is the factor from Grad-CAM to GMCAM, the guidance map itself": lambda M, C: masked(
            M, C, equations.guidance_map(M, C)
        ),
        "this is a difference; give the factor": lambda M, C: (
            equations.gmcam(M, C) - equations.grad_cam(M, C) ** 2
        ),
        "this divides by Grad-CAM twice; the square contains it once more than GMCAM does": lambda M, C: (
            masked(M, C, equations.guidance_map(M, C) / equations.grad_cam(M, C) ** 2)
        ),
    }
    return Answers(gain, slips, tried_on=_maps_and_gradients())


@cache
def _captured(label: str = "cup", name: str = "collage-vgg", layer: str = "stage4") -> tuple[Tensor, Tensor]:
    """Feature maps and gradient maps (1, K, h, w) of the chapter's scene, in float64."""
    net, both = network(name), scene("cat", "cup", seed=15)
    result = capture(net.module, net.prepare(both.image), net.class_index(label), layer)
    return result.maps[layer].double(), result.gradients[layer].double()


@exercise("what_guidance_does.3", tolerance=0.02)
def cleared() -> Answers:
    """The share of the cup's Grad-CAM that is in cells which guidance clears."""

    def share(M: Tensor, C: Tensor) -> Tensor:
        L, R = _split(M, C)
        return L.relu()[L + R <= 0].sum() / L.relu().sum()

    L, R = _split(*_captured())
    marked, gone = L > 0, L + R <= 0
    slips = {
        "this is a share of the cells that Grad-CAM highlights; add up their values": (
            gone[marked].double().mean()
        ),
        "this is a share of all cells; add up the values of Grad-CAM": (gone & marked).double().mean(),
        "this is the cat's": share(*_captured("cat")),
        "these are the cells with R below zero: some of them are only dimmed": (
            L.relu()[R < 0].sum() / L.relu().sum()
        ),
        "this is the part that guidance keeps": 1 - share(*_captured()),
        "this is the layer before, stage3": share(*_captured(layer="stage3")),
    }
    return Answers(share(*_captured()), slips)


@exercise("what_guidance_does.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a gain in the share inside."""
    right = {"square", "one factor", "effect"}
    slips = {
        "the paragraph must ask for Grad-CAM squared, the share of the gain that needs no guidance": right
        - {"square"},
        "the paragraph must ask for the guidance map alone, squared: the product may add nothing to it": right
        - {"one factor"},
        "the paragraph must ask for the effect: the best share inside is not 1": right - {"effect"},
        "the interval excludes zero by far; more scenes of these objects do not change the claim": right
        | {"more scenes"},
        "both maps are smoothed alike, by half a cell": right | {"smoothing"},
        "no threshold enters the share inside": right | {"threshold"},
    }
    return Answers(right, slips)
