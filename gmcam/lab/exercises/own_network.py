"""Answers to *Explain your own network*."""

import copy

import torch
from torch import Tensor, nn

from gmcam import equations
from gmcam.capture import capture
from gmcam.lab import scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network


@exercise("own_network.1", tolerance=1e-4)
def difference_behind_a_softmax() -> Answers:
    """log p_cat − log p_cup = Y_cat − Y_cup, because the softmax divides both by the same sum."""
    labels = [("cat", "cup"), ("cat",), ("cup",)]
    images = [scene(*objects, seed=5).image for objects in labels]
    slips = {
        "a difference of probabilities depends on all classes and saturates; take logarithms": (
            lambda p: p[:, 0] - p[:, 1]
        ),
        "this is exp(Y_cat − Y_cup), which scales the raw map by that number": (lambda p: p[:, 0] / p[:, 1]),
        "log p_cat depends on all classes, not on the cup alone; subtract log p_cup": lambda p: p[:, 0].log(),
        "this is cup − cat": lambda p: p[:, 1].log() - p[:, 0].log(),
        "this compares the cat with all other classes; subtract log p_cup": lambda p: p[:, 0].logit(),
        "return one number per image: keep the batch axis": lambda p: (p[:, 0].log() - p[:, 1].log()).sum(),
    }
    return Answers(
        lambda p: p[:, 0].log() - p[:, 1].log(),
        slips,
        tried_on=(network("collage-resnet").probabilities(images),),
    )


@exercise("own_network.2", tolerance=1e-3)
def cosine_cancels() -> Answers:
    """The cosine does not depend on the length of e, so the signed map adds up to zero."""
    net = network("collage-resnet")
    backbone = copy.deepcopy(net.module)
    backbone.fc = nn.Identity()
    with torch.no_grad():
        reference = backbone(net.prepare(scene("cat", seed=5).image))

    def similarity(e: Tensor) -> Tensor:
        return torch.cosine_similarity(e, reference)

    image = scene("cat", "cup", seed=15).image
    result = capture(backbone, net.prepare(image), similarity, "stage4")
    signed = equations.class_map(result.maps["stage4"], equations.channel_weights(result.gradients["stage4"]))
    above, below = signed[signed > 0], signed[signed < 0]
    slips = {
        "this is the ratio of the numbers of cells; add up their values": len(above) / len(below),
        "this is the ratio of the means; use the sums": above.mean() / -below.mean(),
        "this is the ratio of the largest and the smallest value; add up all": above.max() / -below.min(),
        "drop the sign of the second sum": above.sum() / below.sum(),
        "this is the sum of both parts; divide the first by the second": signed.double().sum().round(),
        "this is the similarity": result.scores[0],
    }
    return Answers(above.sum() / -below.sum(), slips)


@exercise("own_network.3", tolerance=1e-3)
def region_alone() -> Answers:
    """The share of cells in the region: a 1 × 1 convolution does not mix cells."""
    masks = torch.from_numpy(scene("cat", "cat", seed=5).masks)
    cells = masks[:, 8::16, 8::16]
    region = cells[0].float().mean()
    slips = {
        "every cell has a gradient only if pooling follows; here only the region does": 1.0,
        "this is the region of both cats; the target uses one": cells.any(0).float().mean(),
        "this is the other cat's region": cells[1].float().mean(),
        "this is the number of cells; divide by all cells": cells[0].sum(),
        "this is the rest of the image, where the gradient is zero": 1 - region,
    }
    return Answers(region, slips)


@exercise("own_network.4", tolerance=1e-4)
def rows_of_patches() -> Answers:
    """(N, 1 + 4·6 + 2, K) → (N, K, 4, 6)."""
    tokens = torch.arange(2 * 27 * 5, dtype=torch.float32).reshape(2, 27, 5)

    def maps(patches: Tensor, height: int = 4, width: int = 6) -> Tensor:
        return patches.transpose(1, 2).reshape(len(patches), -1, height, width)

    slips = {
        "without a transpose, channels and positions mix": lambda t: t[:, 1:-2].reshape(len(t), -1, 4, 6),
        "the class token comes first; this keeps it and drops the last patch": lambda t: maps(t[:, :-3]),
        "the registers come last; this takes them for patches": lambda t: maps(t[:, 3:]),
        "rows and columns are swapped": lambda t: maps(t[:, 1:-2], 6, 4),
        "the channels belong on the second axis": lambda t: t[:, 1:-2].reshape(len(t), 4, 6, -1),
        "the patches come row by row, not column by column": lambda t: maps(t[:, 1:-2], 6, 4).transpose(2, 3),
    }
    return Answers(lambda t: maps(t[:, 1:-2]), slips, tried_on=(tokens,))
