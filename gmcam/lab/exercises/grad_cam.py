"""Answers to *Grad-CAM*."""

import torch

from gmcam import equations
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured_for, network

# The example of nine cells, (1, 2, 3, 3).
M_SMALL = torch.tensor([[[[0, 1, 2], [0, 3, 1], [0, 0, 0]], [[1, 0, 0], [2, 0, 0], [3, 1, 0]]]]).double()
C_SMALL = torch.tensor([[[[0, 0, 6], [0, 6, 3], [0, 0, 3]], [[-3, 0, 0], [-3, -3, 0], [0, 0, 0]]]]).double()


@exercise("grad_cam.1")
def sure_of_it() -> Answers:
    """The derivative of p with respect to its logit is p (1 − p)."""
    slips = {
        "p grows with the logit, but its slope p (1 − p) is small near 1": "it grows",
        "the gradient passes through the softmax, so every cell contains its slope p (1 − p)": "it stays",
    }
    return Answers("it shrinks", slips)


def unchanged() -> set[str]:
    """The letters of the changes after which the scaled map is the same."""
    cat = network().class_index("cat")
    M, C = captured_for(cat)
    changed = {
        "a": equations.grad_cam(*captured_for(lambda logits: 3 * logits[:, cat])),
        "b": equations.grad_cam(*captured_for(lambda logits: logits[:, cat] + 5)),
        "c": equations.grad_cam(*captured_for(lambda logits: -logits[:, cat])),
        "d": equations.class_map(M, C.sum((2, 3))).relu(),
        "e": equations.class_map(M, C.abs().mean((2, 3))).relu(),
        "f": (C.mean((2, 3), keepdim=True) * M).relu().sum(1),
    }
    before = equations.grad_cam(M, C)
    before = before / before.max()
    return {key for key, after in changed.items() if torch.allclose(after / after.max(), before, atol=1e-4)}


@exercise("grad_cam.2")
def invariances() -> Answers:
    """Factors and constants of the score leave the scaled map as it is."""
    right = unchanged()
    slips = {
        "scaling removes a factor of the score: a is missing": right - {"a"},
        "a constant has no gradient: b is missing": right - {"b"},
        "the sum is Z times the mean, and scaling removes the factor: d is missing": right - {"d"},
        "−Y reverses all weights, so the rectifier keeps the other cells: c changes the map": right | {"c"},
        "with |C| no channel can lower the sum: e changes the map": right | {"e"},
        "rectified one by one, channels against the class lower no cell: f changes the map": right | {"f"},
    }
    return Answers(right, slips)


@exercise("grad_cam.3", tolerance=1e-4)
def difference_of_logits() -> Answers:
    """Weights (K,) of the difference cat − cup: the gradient is linear in the score."""
    (_, cat), (_, cup) = (captured_for(network().class_index(name)) for name in ("cat", "cup"))
    weights = equations.channel_weights(cat - cup)[0]
    slips = {
        "these are the cat's weights alone": equations.channel_weights(cat)[0],
        "this is cup − cat": -weights,
        "this is the sum over the cells; Equation 3 divides by their number": (cat - cup).sum((2, 3))[0],
        "this is the mean over the channels; Equation 3 averages over the cells": (cat - cup)[0].mean(0),
    }
    return Answers(weights, slips)


@exercise("grad_cam.4", tolerance=1e-3)
def not_the_logit() -> Answers:
    """The logit of a flattened linear head, and the sum of Grad-CAM's signed cells, with the bias 1."""
    cells = equations.class_map(M_SMALL, equations.channel_weights(C_SMALL))
    products = equations.hires_cam(M_SMALL, C_SMALL)
    right = torch.stack([products.sum(), cells.sum()]) + 1
    slips = {
        "add the bias to both": right - 1,
        "the bias enters once, not in every cell": right + 8,
        "negative cells count, too: leave out the rectifier": 1
        + torch.stack([products.relu().sum(), cells.relu().sum()]),
        "these are the means of the cells; add them up": 1 + torch.stack([products.mean(), cells.mean()]),
        "the order is Y, then the sum of Grad-CAM's cells": right.flip(0),
        "the head does not pool: multiply cell by cell for Y": right[[1, 1]],
        "the mean of C is not its own cell: use λ for the second sum": right[[0, 0]],
    }
    return Answers(right, slips)
