"""Answers to *Metrics that run the network*."""

import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network
from gmcam.lab.network_metrics import adcc
from gmcam.metrics import dice, drop, iou, points_inside, share_inside, zones
from gmcam.preprocessing import Preprocessing

# Probabilities on four images, whole and masked by the map.
Y = torch.tensor([0.90, 0.50, 0.10, 0.80])
MASKED = torch.tensor([0.72, 0.60, 0.02, 0.76])


@exercise("measuring_the_network.1", tolerance=0.01)
def mean_drop() -> Answers:
    """The drop over four images: the mean of max(0, Y − O) / Y."""
    lost = (Y - MASKED).clamp(min=0)
    right = drop(Y, MASKED).mean()
    slips = {
        "this is the ratio of the means; divide for each image, then take the mean": lost.sum() / Y.sum(),
        "the order is wrong: the drop is Y − O": ((MASKED - Y).clamp(min=0) / Y).mean(),
        "an increase counts as a drop of 0, not as a negative drop": ((Y - MASKED) / Y).mean(),
        "divide the loss by the whole image's probability, not the masked one's": (lost / MASKED).mean(),
        "include the image with an increase; its drop is 0": (lost / Y)[lost > 0].mean(),
        "divide each loss by the whole image's probability": lost.mean(),
        "take the maximum with 0 and divide for each image first": (Y - MASKED).sum() / Y.sum(),
        "this is the share that remains": 1 - right,
        "this is the share of images with an increase": (MASKED > Y).float().mean(),
    }
    return Answers(right, slips)


@exercise("measuring_the_network.2")
def seen_in_a_square() -> Answers:
    """The metrics that differ between Grad-CAM and its square: all but the one that uses only the maximum."""
    net, scene = network("collage-resnet"), cat_and_cup()
    assert isinstance(net.preprocess, Preprocessing)
    inputs = net.prepare(scene.image).expand(2, -1, -1, -1)
    masks = torch.stack([net.preprocess.place_mask(mask) for mask in scene.masks])
    boxes = net.preprocess.place_boxes(scene.boxes, scene.image.size)
    rows, classes = torch.arange(2), [net.class_index(label) for label in scene.labels]

    def measure(method: str) -> dict[str, Tensor]:
        maps = explain(net, scene.image, list(scene.labels), method=method, sigma=0).maps
        whole, salience, context = (
            net.probabilities(batch)[rows, classes] for batch in (inputs, *zones(inputs, maps))
        )
        return {
            "salience_drop": drop(whole, salience),
            "context_drop": drop(whole, context),
            "pointing": points_inside(maps, boxes),
            "dice": dice(maps, masks),
            "iou": iou(maps, masks),
            "inside": share_inside(maps, masks),
            "trace": share_inside(maps, masks.flip(0)),
        }

    plain, squared = measure("grad_cam"), measure("gmcam")
    different = {name for name in plain if (plain[name] - squared[name]).abs().max() > 1e-3}
    slips = {
        "squaring preserves the order of the cells, so the maximum does not move": set(plain),
        "fewer cells reach half the maximum of the square, so the area shrinks": different - {"dice", "iou"},
        "the zones multiply the image by the map, and squaring darkens them": (
            different - {"salience_drop", "context_drop"}
        ),
        "the shares change too: squaring reduces small values most": different - {"inside", "trace"},
        "this is the only metric that does not change; name the others": {"pointing"},
        "squaring changes every value except 0 and 1, and so more metrics than these": {"inside", "trace"},
    }
    return Answers(different, slips)


# A corner pixel on four pairs: drop; coherency 1 and complexity 0, because the method always draws it.
CORNER_DROPS = torch.tensor([0.0, 1.0, 0.0, 1.0])


@exercise("measuring_the_network.3", tolerance=0.01)
def corner_pixel() -> Answers:
    """The mean ADCC of a method that always marks one corner pixel."""
    ones, zeros = torch.ones(4), torch.zeros(4)
    each = adcc(CORNER_DROPS, ones, zeros)
    mean_drop = CORNER_DROPS.mean()[None]
    slips = {
        "this is the ADCC of the mean drop; take the mean of the pairs' ADCC": adcc(
            mean_drop, ones[:1], zeros[:1]
        ),
        "the mean of the three parts must be harmonic, which is 0 if one part is 0": (
            (1 - CORNER_DROPS + 2) / 3
        ).mean(),
        "a pair with a drop of 1 has an ADCC of 0 and counts": 1.0,
        "the same map is drawn for the masked image, so the coherency is 1": 0.0,
        "the correlation of a map with itself is 1, so the coherency is (1 + 1) / 2": (
            adcc(CORNER_DROPS, ones / 2, zeros).mean()
        ),
    }
    return Answers(each.mean(), {slip: torch.as_tensor(value).mean() for slip, value in slips.items()})


@exercise("measuring_the_network.4")
def referee() -> Answers:
    """The points of a referee's paragraph on max-sensitivity and ADCC."""
    steadier = "a lower radius makes every map steadier"
    logits = "a drop in logits is another metric, not a fault of this one"
    slips = {
        f"{steadier}; report the recognised pairs apart": {"a", "b", "c"},
        f"{steadier}; ask for the parts of ADCC": {"a", "b", "e"},
        f"{steadier}; name a map that ignores the image": {"b", "c", "e"},
        f"{logits}; report the recognised pairs apart": {"a", "c", "d"},
        f"{logits}; ask for the parts of ADCC": {"a", "d", "e"},
        f"{logits}; name a map that ignores the image": {"c", "d", "e"},
        "tick three points; a lower radius and logits do not help": {"a", "b", "c", "d", "e"},
    }
    return Answers({"a", "c", "e"}, slips)
