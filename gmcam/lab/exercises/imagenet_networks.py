"""Answers to *On ImageNet*; none of them needs a network."""

import torch
from torch import Tensor

from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.postprocess import postprocess, upsample


@exercise("imagenet_networks.1", tolerance=0.002)
def perfect_map() -> Answers:
    """The score of a perfect map, a little of which up-sampling carries across the two seams."""
    raw = torch.zeros(1, 14, 14)
    raw[:, :7, :7] = 1

    def score(maps: Tensor) -> Tensor:
        return maps[:, :112, :112].sum() / maps.sum()

    right = score(upsample(raw, (224, 224)))
    one_seam = upsample(raw.amax(1, keepdim=True).expand(-1, 14, -1), (224, 224))
    slips = {
        "the raw map is perfect, but interpolation between cells carries some of it across the seam": 1.0,
        "this is the smoothed map; use sigma=0": score(postprocess(raw, (224, 224))[0]),
        "a mosaic of four has two seams; this counts one": one_seam[..., :112].sum() / one_seam.sum(),
        "a quarter is chance, the score of a uniform map": 0.25,
        "this is the share that is lost": 1 - right,
    }
    return Answers(right, slips)


@exercise("imagenet_networks.2", tolerance=0.01)
def shortcuts() -> Answers:
    """What class-blind maps score where a mosaic does not count all its targets alike; computed in a test."""
    slips = {
        "chance is one half only if every mosaic counts all its targets, so neither is": [0.5, 0.5],
        "this is the mean of the four maps; the question asks for the best": [0.629, 0.529],
        "a: the blob's maximum is a single pixel, on one side of the seam": [0.5, 0.607],
        "b: keep single targets, also where the other one of the mosaic is not recognised": [1.0, 0.5],
        "the order is a, then b": [0.607, 1.0],
    }
    return Answers([1.0, 0.607], slips)


@exercise("imagenet_networks.3", tolerance=0.05)
def shared_photographs() -> Answers:
    """The width of an interval over photographs, divided by that over rows; computed in a test."""
    slips = {
        "rows that share a photograph vary together, so they are not independent": 1.0,
        "this is the inverse; divide the width over photographs by theirs": 1 / 2.18,
        "this is the factor of GMCAM's own share; take its difference from Grad-CAM": 2.33,
        "this is the factor for `pointing`; take `inside`": 1.65,
        "compare intervals, not the root of four rows a photograph": 2.0,
    }
    return Answers(2.18, slips)


@exercise("imagenet_networks.4")
def referee() -> Answers:
    """What a review of a comparison of two networks by one map each must say."""
    right = {"a", "c", "e"}
    slips = {
        "b: smoothing spreads each map over its cells; the layers still differ": right | {"b"},
        "d: squaring changes both maps' shares; the layers still differ": right | {"d"},
        "a: one network has such maps at two layers: compare like layers": right - {"a"},
        "c: one photograph shows no spread": right - {"c"},
        "e: at 14 × 14 cells a random network points as well, so the share shows little": right - {"e"},
    }
    return Answers(right, slips)
