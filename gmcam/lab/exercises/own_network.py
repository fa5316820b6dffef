"""Answers to *Explain your own network*."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gmcam import Network, equations
from gmcam.capture import capture
from gmcam.lab import scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network


class _Own(nn.Module):
    """The chapter's network: one rectifier that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


@exercise("own_network.1")
def layers_with_a_map() -> Answers:
    """The modules that run once and give more than one cell."""
    usable = set(Network(_Own(), input_shape=(3, 128, 128)).found.shapes)
    return Answers(
        usable,
        {
            "relu runs twice in a forward pass, so it has no single map": usable | {"relu"},
            "pool leaves one cell, and a map of one cell is flat": usable | {"pool"},
            "relu runs twice and pool leaves one cell; neither has a map to show": usable | {"relu", "pool"},
            "fc gives a vector, which has no cells": usable | {"fc"},
            "conv1 gives a map too, an earlier and finer one": {"conv2"},
            "relu runs twice; conv1 and conv2, which run once, are the ones": {"relu"},
        },
    )


@exercise("own_network.2", tolerance=1e-4)
def difference_behind_a_softmax() -> Answers:
    """log p_cat − log p_cup = Y_cat − Y_cup: the sum in the softmax is the same for both."""
    net = network("collage-resnet")
    pictures = [cat_and_cup().image, scene("cat", seed=5).image, scene("cup", seed=5).image]
    return Answers(
        lambda p: p[:, 0].log() - p[:, 1].log(),
        {
            "the slope of a probability holds all rivals and shrinks with confidence; take logarithms": (
                lambda p: p[:, 0] - p[:, 1]
            ),
            "this is exp(Y_cat − Y_cup): its raw map is the wanted one times that number": (
                lambda p: p[:, 0] / p[:, 1]
            ),
            "log p_cat has all rivals in it, not the cup alone; subtract log p_cup": lambda p: p[:, 0].log(),
            "this is cup − cat": lambda p: p[:, 1].log() - p[:, 0].log(),
            "this is the cat against all others together; subtract log p_cup": lambda p: p[:, 0].logit(),
            "the target gives one number per picture; keep the batch axis": (
                lambda p: (p[:, 0].log() - p[:, 1].log()).sum()
            ),
        },
        tried_on=(net.probabilities(pictures),),
    )


@exercise("own_network.3", tolerance=1e-3)
def cosine_cancels() -> Answers:
    """The cosine does not change with the length of e, so the signed map adds up to zero."""
    net = network("collage-resnet")
    backbone = copy.deepcopy(net.module)
    backbone.fc = nn.Identity()
    with torch.no_grad():
        reference = backbone(net.prepare(scene("cat", seed=5).image))
    found = capture(
        backbone,
        net.prepare(cat_and_cup().image),
        lambda e: torch.cosine_similarity(e, reference),
        ["stage4"],
    )
    M, C = found.maps["stage4"], found.gradients["stage4"]
    signed = equations.class_map(M, equations.channel_weights(C))
    above, below = signed > 0, signed < 0
    return Answers(
        signed[above].sum() / -signed[below].sum(),
        {
            "that is how many cells are above zero for each one below; add up their values": above.sum()
            / below.sum(),
            "that is the ratio of the means; the sums are asked for": signed[above].mean()
            / -signed[below].mean(),
            "that is the largest value over the smallest; add up all": signed.max() / -signed.min(),
            "leave the sign of the second sum away": signed[above].sum() / signed[below].sum(),
            "that is the sum of both parts; divide the one by the other": signed.double().sum().round(),
            "that is the similarity itself": found.scores[0],
        },
    )


@exercise("own_network.4", tolerance=1e-3)
def region_alone() -> Answers:
    """The share of the cells that the region has: a 1 × 1 convolution does not mix cells."""
    masks = torch.from_numpy(scene("cat", "cat", seed=5).masks)
    cells = masks[:, 8::16, 8::16]
    region = cells[0].float().mean()
    return Answers(
        region,
        {
            "only where pooling follows has every cell a gradient; here the region alone has": 1.0,
            "that is the region of both cats; the target asks about one": cells.any(0).float().mean(),
            "that is the other cat's region": cells[1].float().mean(),
            "that is the number of cells; divide by all": cells[0].sum(),
            "that is the rest of the picture, where the gradient is zero": 1 - region,
        },
    )


@exercise("own_network.5", tolerance=1e-4)
def rows_of_patches() -> Answers:
    """(N, 1 + 4·6 + 2, K) → (N, K, 4, 6)."""
    tokens = torch.arange(2 * 27 * 5, dtype=torch.float32).reshape(2, 27, 5)
    return Answers(
        lambda t: t[:, 1:-2].transpose(1, 2).reshape(len(t), -1, 4, 6),
        {
            "without a transpose, channels and places are mixed": lambda t: t[:, 1:-2].reshape(
                len(t), -1, 4, 6
            ),
            "the class token comes first; you kept it and lost the last patch": (
                lambda t: t[:, :-3].transpose(1, 2).reshape(len(t), -1, 4, 6)
            ),
            "the registers stand at the end; you took them for patches": (
                lambda t: t[:, 3:].transpose(1, 2).reshape(len(t), -1, 4, 6)
            ),
            "rows and columns are swapped": lambda t: t[:, 1:-2].transpose(1, 2).reshape(len(t), -1, 6, 4),
            "the channels belong on the second axis": lambda t: t[:, 1:-2].reshape(len(t), 4, 6, -1),
            "the columns run down: the patches come row by row": (
                lambda t: t[:, 1:-2].transpose(1, 2).reshape(len(t), -1, 6, 4).transpose(2, 3)
            ),
        },
        tried_on=(tokens,),
    )
