"""Answers to *Grad-CAM*."""

from gmcam import equations
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured


@exercise("grad_cam.1")
def sure_of_it() -> Answers:
    """The derivative of p with respect to its logit is p (1 − p)."""
    slips = {
        "p grows with the logit, but its slope p (1 − p) is small near 1": "it grows",
        "the gradient passes through the softmax, so every cell contains its slope p (1 − p)": "it stays",
    }
    return Answers("it shrinks", slips)


@exercise("grad_cam.2")
def negative_share() -> Answers:
    """The share of cells in which the sum of Equation 4 is negative, before the rectifier."""
    M, C = captured()
    signed = equations.class_map(M, equations.channel_weights(C))
    slips = {
        "this is the share of cells above zero": (signed > 0).float().mean(),
        "this is the number of cells; divide by all cells": (signed < 0).sum(),
        "after the rectifier no cell is negative; leave it out": 0.0,
        "these are the cells of Σ_k C_k ⊙ M_k; average C first": ((C * M).sum(1) < 0).float().mean(),
    }
    return Answers((signed < 0).float().mean(), slips)


@exercise("grad_cam.3", tolerance=1e-4)
def difference_of_logits() -> Answers:
    """Weights (K,) of the difference cat − cup: the gradient is linear in the score."""
    (_, cat), (_, cup) = captured("cat"), captured("cup")
    weights = equations.channel_weights(cat - cup)[0]
    slips = {
        "these are the cat's weights alone": equations.channel_weights(cat)[0],
        "this is cup − cat": -weights,
        "this is the sum over the cells; Equation 3 divides by their number": (cat - cup).sum((2, 3))[0],
        "this is the mean over the channels; Equation 3 averages over the cells": (cat - cup)[0].mean(0),
    }
    return Answers(weights, slips)


@exercise("grad_cam.4", tolerance=1e-4)
def from_scratch() -> Answers:
    """Equations 3 and 4 as a function of M and C."""
    slips = {
        "the rectifier is missing": lambda M, C: equations.class_map(M, C.mean((2, 3))),
        "this adds up the cells; divide by Z": lambda M, C: equations.grad_cam(M, C * C[0, 0].numel()),
        "here every cell keeps its gradient; that is Equation 5, not 4": equations.guidance_map,
        "the rectifier is applied to each channel; apply it to the sum": lambda M, C: (
            (C.mean((2, 3), keepdim=True) * M).relu().sum(1)
        ),
        "this averages M; average C": lambda M, C: equations.class_map(C, M.mean((2, 3))).relu(),
    }
    return Answers(equations.grad_cam, slips, tried_on=captured())
