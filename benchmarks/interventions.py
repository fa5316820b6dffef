"""What objects do to the networks' scores, and how near saliency maps are to that: interventions_*.parquet.

    OMP_NUM_THREADS=1 python benchmarks/interventions.py [--scenes N] [--out FOLDER] [PART ...]

Scenes of two objects of the test split: each ordered pair of classes with the seeds 0 … N−1 (by default 3)
for the embedded networks, and 20·N scenes of a cat and a cup for EfficientNet-Lite0, whose targets are groups
of ImageNet's classes. Each part, by default all, writes a table; "maps" and "seven" write two. In all of them
``first`` and ``second`` are the scene's objects in drawing order, ``target`` is the explained class,
``object`` the object that is removed, and ``layer`` what ``gmcam.explain`` takes; effects are in logits.

effects: removal, addition, interaction and background effects on the logit and on the log-probability, for
    every class; ``area``, the object's visible share of the image.
trace: ``all``, ``without_target``, ``without_other``: Σ ReLU(Σ_k C_k ⊙ M_k) of the target on the other
    object's cells, in logits, in three images; ``removal``: the other object's effect on the target.
maps: for each saliency map ``r``, Pearson's r over cells with the effect map, and ``inside``, the share of
    its positive values inside the object (NaN: none); ``effect_inside``: that of the effect map. Besides
    gmcam's methods: "mask" is the object's bare mask; "signed_grad_cam" is not rectified; "guidance_squared";
    "absent_class" is Grad-CAM of a class that the scene does not show; "grad_cam_power_p" where average
    pooling follows; and for the other object, "minus_…" is the negative map of that object's own class.
effect_maps: the maps' ground truth: ``total``, its sum, and ``removal``, which that should be; ``own``,
    ``other``, ``background``: shares of its absolute values in the cells of the target's object, the other
    object and the background; ``positive_own``, …: shares of its positive values; ``r_paths``: Pearson's r
    of the map along the straight way of maps with that through blended images, for the first scenes.
sums: sums of signed and rectified maps over the object's cells beside the removal effect.
pixels: the same of integrated gradients (zero baseline, 16 points), signed and rectified pixel by pixel.
fills: ``estimate``: the removal effect where the object is not removed, but its mask is filled: by
    ``gmcam.metrics.filled``; "telea", OpenCV's inpainting (comes with grad-cam); "narrow_blur" of a 32nd of
    the width; "mirror", a piece of the mirrored image; "shadow_stays", the pixels without the object.
bias: logits of single objects on all backgrounds, honest and biased network; ``background_32`` and
    ``background_16``: the signed map's sum over the cells of the background at 32 × 32 and 16 × 16 cells.
backgrounds: the removal effect on each of the nine backgrounds, for the first scenes; ``bare_answer`` and
    ``bare_probability``: the network's answer to the background alone.
triples: of three objects' scenes the sums of the removal and of the addition effects, and Y(S) − Y(∅).
chances: ``probability``, the target's, a group's being the sum over its classes: who is recognised.
library: Pearson's r of every method's map with the exact effect map, on the first scenes and the last layer
    of collage-resnet; ``r_rectified``: of its positive values alone, taken before a finer map is averaged.
repairs: HiResCAM's sum, mended step by step, for every class. ``zero``: Σ C ⊙ M over the object's own
    cells; ``baseline``: Σ C ⊙ (M − M⁻) over them; ``everywhere``: the same over all cells.
pooling: collage-vgg's maps ``before`` and ``after`` the max pooling that follows ``layer``: ``zeros_…``, the
    share of gradients that are 0; ``difference``, the largest between the two sums over a window;
    ``r_each_other``; ``r_…``, with the effect map after the pooling, of the target's own object.
seven_effects, seven_sums: as "effects" and "sums", of EfficientNet-Lite0 and the first two scenes of each
    pair of seven classes (coins have none on ImageNet).
orders: of the stored sums, ``sign``, the mean hit rate of positive and negative effects; ``which`` of two
    objects counts more for an absent class, correct in a share of cases; ``rho``, Spearman's over an object's
    other classes; ``own``, ``other``: Pearson's r with the removal effect. "elsewhere" is no map, but the
    mean removal effect in the other scenes of the same two objects.

The script takes about three quarters of an hour of one processor.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, permutations
from pathlib import Path

import cv2
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

import gmcam
from gmcam import equations, metrics
from gmcam.capture import Recording
from gmcam.groups import resolved
from gmcam.lab import BACKGROUNDS, CLASSES, scene
from gmcam.lab.scenes import Scene
from gmcam.metrics.effects import FILLS, SCORES

OUT = Path(__file__).parents[1] / "book"
LITE = "efficientnet-lite0"
GROUPS = {
    "cat": ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"],
    "cup": ["cup", "coffee mug", "espresso"],
    "flower": ["daisy", "yellow lady's slipper"],
    "pagoda": ["stupa", "palace", "monastery", "bell cote"],
    "rocket": ["missile", "projectile", "space shuttle"],
    "motorbike": ["moped", "motor scooter"],
    "person": ["suit", "military uniform", "academic gown", "groom"],
}
SEVEN = {label: gmcam.group(names, label) for label, names in GROUPS.items()}
# Layers, and parts of the way of their effect maps: enough for r > 0.999 with the maps at 128 parts.
LAYERS = {
    "collage-vgg": {"32x32": 32, "16x16": 32, "pool": 32},
    "collage-resnet": {"32x32": 16, "stage3": 16, "16x16": 1},
    LITE: {"14x14": 16, "stage7": 16, "7x7": 16},
}
LAST = {"collage-vgg": "16x16", "collage-resnet": "16x16", LITE: "7x7"}
POOLED = {"collage-resnet": "16x16", LITE: "7x7"}  # layers that average pooling follows
SUM_LAYERS = {
    "collage-vgg": ("64x64", "32x32", "16x16", "pool"),
    "collage-resnet": ("64x64", "32x32", "stage3", "16x16"),
    LITE: ("14x14", "stage7", "7x7"),
}
METHODS = ["grad_cam", "guidance_map", "gmcam", "grad_cam_squared", "hires_cam", "signed_grad_cam"]
METHODS += ["grad_cam_pp", "x_grad_cam", "layer_cam", "feature_sum", "area", "centred_blob"]
PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))  # the target's object, the one removed
POOLINGS = {"32x32": ("stage3", "stage4.0"), "16x16": ("stage4", "pool")}
ENDS = ("before", "after")
POWERS = (0.25, 0.5, 1, 2, 4)
EVERYWHERE = [name for names in BACKGROUNDS.values() for name in names]
Row = dict[str, object]


@gmcam.method("signed_grad_cam", title="Signed Grad-CAM", source="Selvaraju et al., ICCV 2017", signed=True)
def signed_grad_cam(query: gmcam.Query) -> Tensor:
    """Σ_k λ_k M_k."""
    return signed_class_map(query.M, query.C)


def signed_class_map(M: Tensor, C: Tensor) -> Tensor:
    """Grad-CAM without its rectifier."""
    return equations.class_map(M, equations.channel_weights(C))


EQUATIONS = {"signed_grad_cam": signed_class_map, "grad_cam": equations.grad_cam}
EQUATIONS |= {"hires_cam": equations.hires_cam, "guidance_map": equations.guidance_map}


class Case:
    """A scene of two objects for a network: classes by name, targets, masks at its size, a row's start."""

    def __init__(self, network: gmcam.Network, drawn: Scene, classes: Iterable[str]) -> None:
        self.network, self.scene, self.labels = network, drawn, drawn.labels
        self.classes = {name: SEVEN[name] if network.name == LITE else name for name in classes}
        self.targets = [self.classes[label] for label in drawn.labels]
        place = network.preprocess.place_mask
        self.masks = torch.stack([place(mask) for mask in drawn.masks])
        self.about: Row = {"network": network.name, "first": drawn.labels[0], "second": drawn.labels[1]}
        self.about["seed"] = drawn.seed
        self.without = [drawn.without(number).image for number in range(2)]

    def removals(self) -> list[dict[str, float]]:
        """For each object, the effect of removing it on each of ``classes``."""
        targets = list(self.classes.values())
        pairs = [(self.scene.image, without) for without in self.without]
        found = [metrics.effects(self.network, *pair, targets).removal.tolist() for pair in pairs]
        return [dict(zip(self.classes, values, strict=True)) for values in found]


def cases(names: Iterable[str], seeds: int) -> Iterator[Case]:
    """The scenes of the networks, the first seed of every pair first."""
    networks, started = [gmcam.load(name) for name in names], time.process_time()
    pairs = list(permutations(CLASSES, 2))
    for seed in range(seeds):
        for network in networks:
            drawn, size = [(*pair, seed) for pair in pairs], 256
            classes: Iterable[str] = CLASSES
            if network.name == LITE:
                drawn, size, classes = [("cat", "cup", 20 * seed + n) for n in range(20)], 384, ("cat", "cup")
            for *labels, number in drawn:
                yield Case(network, scene(*labels, seed=number, size=size), classes)
            print(f"  {network.name} seed {seed}, {time.process_time() - started:.0f} s", flush=True)


def sevens(seeds: int) -> Iterator[Case]:
    """EfficientNet-Lite0's scenes of two of the seven objects that ImageNet has classes for."""
    network = gmcam.load(LITE)
    for seed in range(min(seeds, 2)):
        for pair in permutations(SEVEN, 2):
            yield Case(network, scene(*pair, seed=seed, size=384), SEVEN)


def behind(network: gmcam.Network, layer: str) -> gmcam.Network:
    """What follows a layer, as a network of that layer's maps: it spares the time of what comes before."""
    parts, path = dict(network.module.named_children()), network.layer_path(layer)
    part, *numbers = path.split(".")
    steps = [step for n in numbers for step in list(parts[part].children())[int(n) + 1 :]]
    steps += list(parts.values())[list(parts).index(part) + 1 :]
    if network.name != LITE:  # their code flattens before the last part
        steps.insert(-1, nn.Flatten(1))
    shape = network.map_shapes[path]
    module = nn.Sequential(nn.Identity(), *steps)
    return gmcam.Network(module, name=path, classes=network.classes, input_shape=shape)


def behind_with_maps(case: Case, layer: str) -> tuple[gmcam.Network, Tensor]:
    """What follows a layer, and its maps: of the scene, and of the scene without each object."""
    tail, images = behind(case.network, layer), case.network.prepare([case.scene.image, *case.without])
    return tail, gmcam.capture(case.network.module, images, 0, tail.name, gradients=False).maps[tail.name]


def in_cells(maps: Tensor, like: Tensor) -> Tensor:
    """Maps or masks (N, H, W), averaged into the cells of another map (…, h, w)."""
    return F.adaptive_avg_pool2d(maps.float(), like.shape[-2:])


def effects(scenes: Iterable[Case]) -> Iterator[Row]:
    for case in scenes:
        drawn, targets = case.scene, list(case.classes.values())
        empty = drawn.without(0).without(0).image
        elsewhere = [drawn.on(each).image for each in EVERYWHERE if each != drawn.background]
        found, background = {}, {}
        for number in range(2):
            for score in SCORES:
                images = (drawn.image, case.without[number])
                found[number, score] = metrics.effects(
                    case.network,
                    *images,
                    targets,
                    alone=case.without[1 - number],
                    empty=empty,
                    backgrounds=elsewhere if number == 0 else (),
                    score=score,
                )
                if number == 0:  # it does not depend on the object
                    background[score] = found[number, score].background
        for number, label in enumerate(case.labels):
            for i, target in enumerate(case.classes):
                row = case.about | {"object": label, "target": target}
                row["area"] = float(case.masks[number].float().mean())
                for score, end in (("logit", ""), ("log-probability", "_log_probability")):
                    each = found[number, score]
                    row["removal" + end], row["addition" + end] = each.removal[i], each.addition[i]
                    row["interaction" + end] = each.interaction[i]
                    row["background" + end] = background[score][i]
                yield row


def trace(seeds: int) -> Iterator[Row]:
    for case in cases(LAST, seeds):
        layer = LAST[case.network.name]
        removals = case.removals()
        images = [case.scene.image, *case.without]
        for number, target in enumerate(case.targets):
            what = {"method": "hires_cam", "layer": layer}
            raw = gmcam.explain(case.network, images, [target] * 3, **what).raw.relu()
            mask = in_cells(case.masks[1 - number : 2 - number], raw)
            masses = (raw * mask).sum((1, 2)).tolist()
            label, other = case.labels[number], case.labels[1 - number]
            yield case.about | {
                "layer": layer,
                "target": label,
                "other": other,
                "all": masses[0],
                "without_target": masses[1 + number],
                "without_other": masses[2 - number],
                "removal": removals[1 - number][label],
            }


def maps_and_truth(seeds: int) -> Iterator[tuple[str, Row]]:
    """Rows of the tables "maps" and "effect_maps"."""
    for case in cases(LAYERS, seeds):
        name, seed, removals = case.network.name, case.scene.seed, case.removals()
        absent = [] if name == LITE else [c for c in CLASSES if c not in case.labels][seed % 6 :][:1]
        for layer, steps in LAYERS[name].items():
            tail, maps = behind_with_maps(case, layer)
            what = {"methods": METHODS, "layer": layer}
            results = gmcam.compare(case.network, case.scene.image, case.targets + absent, **what)
            raw = {each.method: in_cells(each.raw, results[0].raw) for each in results}
            shares = in_cells(case.masks, results[0].raw)
            for number, which in PAIRS:
                target = case.targets[number]
                effect = metrics.effect_map(tail, maps[:1], maps[1 + which :][:1], target, "0", steps=steps)
                about = {"layer": layer, **case.about, "target": case.labels[number]}
                about["object"] = case.labels[which]
                truth: Row = {"total": effect.sum(), "removal": removals[which][case.labels[number]]}
                truth |= places(effect, shares[number], shares[1 - number])
                if seed < (20 if name == LITE else 1) and layer != POOLED.get(name):
                    pair = (case.scene.image, case.without[which])
                    how = {"layer": layer, "steps": 8, "path": "images"}
                    blended = metrics.effect_map(case.network, *pair, target, **how)
                    truth["r_paths"] = metrics.fidelity(blended, effect)
                yield "effect_maps", about | truth
                compared = {method: each[number] for method, each in raw.items()}
                compared |= {"mask": shares[which], "guidance_squared": compared["guidance_map"] ** 2}
                if absent:
                    compared["absent_class"] = raw["grad_cam"][2]
                if which != number:
                    compared |= {f"minus_{each}": -raw[each][which] for each in ("grad_cam", "hires_cam")}
                if layer == POOLED.get(name):
                    compared |= {f"grad_cam_power_{p}": compared["grad_cam"] ** p for p in POWERS}
                for row in compare(compared, effect, shares[which]):
                    yield "maps", about | row


def compare(maps: dict[str, Tensor], effect: Tensor, mask: Tensor) -> Iterator[Row]:
    """Each map (h, w) beside an effect map (1, h, w), and the object's mask (h, w)."""
    stack = torch.stack(list(maps.values()))
    inside = metrics.share_inside(stack.relu(), mask.expand_as(stack))
    effect_inside = metrics.share_inside(effect.relu(), mask[None])
    r = metrics.fidelity(stack, effect.expand_as(stack))
    for i, name in enumerate(maps):
        yield {"map": name, "r": r[i], "inside": inside[i], "effect_inside": effect_inside}


def places(effect: Tensor, own: Tensor, other: Tensor) -> Row:
    """Shares of an effect map in the cells of the target's object, the other object and the background."""
    row: Row = {}
    for start, values in (("", effect[0].abs()), ("positive_", effect[0].relu())):
        for place, share in (("own", own), ("other", other), ("background", 1 - own - other)):
            row[start + place] = (values * share).sum() / values.sum()
    return row


def sums(scenes: Iterable[Case]) -> Iterator[Row]:
    signed, rectified = ["hires_cam", "signed_grad_cam"], ["guidance_map", "gmcam"]
    for case in scenes:
        layers = SUM_LAYERS[case.network.name]
        removals = case.removals()
        targets = list(case.classes.values())
        for layer in layers:
            what = {"methods": signed + rectified, "layer": layer}
            results = gmcam.compare(case.network, case.scene.image, targets, **what)
            shares = in_cells(case.masks, results[0].raw)
            totals = {r.method: torch.einsum("thw,nhw->nt", r.raw, shares) for r in results}
            for number, label in enumerate(case.labels):
                for i, target in enumerate(case.classes):
                    row = {"layer": layer, **case.about, "target": target, "object": label}
                    row["removal"] = removals[number][target]
                    kept = signed + rectified if target in case.labels else signed
                    yield row | {method: totals[method][number, i] for method in kept}


def pixels(seeds: int) -> Iterator[Row]:
    for case in cases(("collage-vgg", "collage-resnet"), seeds):
        what = {"method": "captum.integrated_gradients", "steps": 16}
        raw = gmcam.explain(case.network, case.scene.image, case.targets, **what).raw
        removals = case.removals()
        for number, label in enumerate(case.labels):
            mask = case.masks[number].float()
            for i, target in enumerate(case.labels):
                row = case.about | {"map": "integrated_gradients", "target": target, "object": label}
                row |= {"removal": removals[number][target], "signed": (raw[i] * mask).sum()}
                yield row | {"rectified": (raw[i].relu() * mask).sum()}


def fills(seeds: int) -> Iterator[Row]:
    for case in cases(LAYERS, min(seeds, 2)):
        inputs = case.network.prepare(case.scene.image)
        for number, label in enumerate(case.labels):
            mask, without = case.masks[number][None], case.network.prepare(case.without[number])
            images = {fill: metrics.filled(inputs, mask, fill) for fill in FILLS}
            width = (0, 0, *[inputs.shape[3] / 32] * 2)
            blurred = torch.from_numpy(gaussian_filter(inputs.numpy(), width, mode="nearest"))
            others = {"narrow_blur": blurred, "mirror": inputs.flip(3), "shadow_stays": without}
            others["telea"] = telea(inputs, mask)
            images |= {fill: torch.where(mask[:, None], each, inputs) for fill, each in others.items()}
            batch = torch.cat([inputs, without, *images.values()])
            for target in case.labels:
                chosen = case.classes[target]
                count = len(batch) - 1
                estimates = metrics.effects(
                    case.network, batch[:1].expand(count, -1, -1, -1), batch[1:], [chosen] * count
                ).removal
                for fill, estimate in zip(images, estimates[1:], strict=True):
                    row = case.about | {"target": target, "object": label, "fill": fill}
                    yield row | {"estimate": estimate, "removal": estimates[0]}


def telea(inputs: Tensor, masks: Tensor) -> Tensor:
    """OpenCV's inpainting after Telea (2004), of the image in 8 bits."""
    low, high = inputs.aminmax()
    image = ((inputs[0] - low) / (high - low) * 255).round().byte().permute(1, 2, 0).numpy()
    painted = cv2.inpaint(image, masks[0].byte().numpy(), 3, cv2.INPAINT_TELEA)
    return torch.from_numpy(painted).permute(2, 0, 1)[None].to(inputs) / 255 * (high - low) + low


def bias(seeds: int) -> Iterator[Row]:
    for name in ("collage-vgg-biased", "collage-vgg"):
        network = gmcam.load(name)
        for label in ("flower", "cat", "person"):
            for seed in range(8 * seeds):
                for background in EVERYWHERE:
                    drawn = scene(label, seed=seed, size=128, background=background)
                    outside = 1 - network.preprocess.place_mask(drawn.masks[0]).float()[None]
                    row: Row = {"network": name, "label": label, "seed": seed, "background": background}
                    layers = ["32x32", "16x16"]
                    how = {"layers": layers, "method": "hires_cam"}
                    for result in gmcam.explain_layers(network, drawn.image, label, **how):
                        sum_outside = (result.raw * in_cells(outside, result.raw)).sum()
                        row["logit"], row[f"background_{result.cells[0]}"] = result.score, sum_outside
                    yield row


def backgrounds(seeds: int) -> Iterator[Row]:
    for case in cases(LAYERS, 1):
        for background in EVERYWHERE:
            on = case.scene.on(background)
            bare = case.network.probabilities(on.without(0).without(0).image)[0]
            row = case.about | {"background": background, "bare_probability": bare.max()}
            row["bare_answer"] = case.network.class_name(int(bare.argmax()))
            for number, label in enumerate(case.labels):
                pair = (on.image, on.without(number).image)
                found = metrics.effects(case.network, *pair, case.targets).removal
                for target, value in zip(case.labels, found, strict=True):
                    yield row | {"target": target, "object": label, "removal": value}


def triples(seeds: int) -> Iterator[Row]:
    networks = [gmcam.load(name) for name in ("collage-vgg", "collage-resnet")]
    for labels in list(permutations(CLASSES, 3))[::6]:
        drawn = scene(*labels, seed=0)
        removed = [drawn.without(label) for label in labels]
        alone = [removed[n - 1].without(labels[n - 2]) for n in range(3)]
        images = [each.image for each in (drawn, *removed, *alone, alone[0].without(0))]
        for network in networks:
            with torch.inference_mode():
                logits = network.logits_of(network.module(network.prepare(images)))
            for target in labels:
                y = logits[:, network.class_index(target)]
                row: Row = {"network": network.name, "labels": " ".join(labels), "target": target}
                row |= {"removals": (y[0] - y[1:4]).sum(), "additions": (y[4:7] - y[7]).sum()}
                yield row | {"total": y[0] - y[7]}


def chances(seeds: int) -> Iterator[Row]:
    for case in cases(LAYERS, seeds):
        found = gmcam.explain(case.network, case.scene.image, case.targets, method="area").probability
        for target, probability in zip(case.labels, found, strict=True):
            yield case.about | {"target": target, "probability": probability}


def library(seeds: int) -> Iterator[Row]:
    for case in cases(["collage-resnet"], 1):
        layer = LAST[case.network.name]
        tail, maps = behind_with_maps(case, layer)
        results = gmcam.compare(
            case.network,
            case.scene.image,
            case.targets,
            methods=list(gmcam.METHODS),
            layer=layer,
            options={name: {"steps": 16} for name in ("integrated_grad_cam", "captum.integrated_gradients")},
        )
        raw = {each.method: each.raw for each in results}
        for number, which in PAIRS:
            effect = metrics.effect_map(
                tail, maps[:1], maps[1 + which :][:1], case.targets[number], "0", steps=1
            )
            compared = {method: each[number] for method, each in raw.items()}
            compared["mask"] = case.masks[which].float()
            if which != number:
                compared["minus_grad_cam"] = -raw["grad_cam"][which]
            about = case.about | {"target": case.labels[number], "object": case.labels[which]}
            for name, each in compared.items():
                r, r_rectified = (metrics.fidelity(part[None], effect)[0] for part in (each, each.relu()))
                yield about | {"map": name, "r": r, "r_rectified": r_rectified}


def repairs(seeds: int) -> Iterator[Row]:
    for case in chain(cases(("collage-resnet", "collage-vgg"), seeds), sevens(seeds)):
        layer = LAST[case.network.name]
        tail, maps = behind_with_maps(case, layer)
        tail, targets = resolved(tail, list(case.classes.values()))
        C = Recording(tail.module, maps[:1], "0", read=tail.logits_of).capture(targets).gradients["0"]
        shares, removals, zero = in_cells(case.masks, maps), case.removals(), (C * maps[0]).sum(1)
        for number, label in enumerate(case.labels):
            baseline = (C * (maps[0] - maps[1 + number])).sum(1)
            for i, target in enumerate(case.classes):
                row: Row = {"layer": layer, **case.about, "target": target, "object": label}
                row |= {"removal": removals[number][target], "zero": (zero[i] * shares[number]).sum()}
                row |= {"baseline": (baseline[i] * shares[number]).sum(), "everywhere": baseline[i].sum()}
                yield row


def pooling(seeds: int) -> Iterator[Row]:
    for case in cases(["collage-vgg"], 1):
        inputs = case.network.prepare(case.scene.image)
        targets = torch.tensor([case.network.class_index(label) for label in case.labels])
        for layer, ends in POOLINGS.items():
            captured = gmcam.capture(case.network.module, inputs, targets, list(ends))
            M, C = ([each[end] for end in ends] for each in (captured.maps, captured.gradients))
            tail, maps = behind_with_maps(case, ends[1])
            for i, label in enumerate(case.labels):
                effect = metrics.effect_map(tail, maps[:1], maps[1 + i :][:1], label, "0", steps=32)
                about: Row = {"layer": layer, **case.about, "target": label}
                about |= {f"zeros_{end}": (C[n][i] == 0).float().mean() for n, end in enumerate(ENDS)}
                for name, equation in EQUATIONS.items():
                    pair = [equation(M[n][i : i + 1], C[n][i : i + 1]) for n in range(2)]
                    row = about | {
                        f"r_{end}": metrics.fidelity(pair[n], effect)[0] for n, end in enumerate(ENDS)
                    }
                    row |= {"map": name, "r_each_other": metrics.fidelity(*pair)[0]}
                    yield row | {"difference": (4 * in_cells(*pair) - pair[1]).abs().max()}


def seven(seeds: int) -> Iterator[tuple[str, Row]]:
    for name, part in (("seven_effects", effects), ("seven_sums", sums)):
        for row in part(sevens(seeds)):
            yield name, row


def orders(seeds: int) -> Iterator[Row]:
    stored = {name: pd.read_parquet(OUT / f"interventions_{name}.parquet") for name in ("sums", "seven_sums")}
    stored["sums"] = stored["sums"][stored["sums"]["network"] != LITE]  # its two classes are both there
    for table in stored.values():
        pair = table[["first", "second"]].apply(sorted, axis=1).str.join(" ")
        each = table.groupby(["network", "layer", pair, "object", "target"])["removal"]
        rows = table.assign(
            elsewhere=(each.transform("sum") - table["removal"]) / (each.transform("size") - 1)
        )
        for (network, layer), part in rows.groupby(["network", "layer"], sort=False):
            for name in ("hires_cam", "signed_grad_cam", "elsewhere"):
                yield {"network": network, "layer": layer, "map": name, **ordered(part, name)}


def ordered(rows: pd.DataFrame, name: str) -> Row:
    """How well a column has the removal effects' signs, and their order over objects and over classes."""
    case, columns = ["first", "second", "seed"], [name, "removal"]
    hits, positive = rows[name] * rows["removal"] > 0, rows["removal"] > 0
    own = rows["target"] == rows["object"]
    shown = (rows["target"] == rows["first"]) | (rows["target"] == rows["second"])
    by_class = rows[~shown].groupby([*case, "target"])[columns]
    gaps = by_class.first() - by_class.last()  # one object and the other
    by_object = rows[~own].groupby([*case, "object"])[columns]
    return {
        "sign": (hits[positive].mean() + hits[~positive].mean()) / 2,
        "which": (gaps[name] * gaps["removal"] > 0).mean(),
        "rho": by_object.apply(lambda each: each.corr("spearman").iloc[0, 1]).mean(),
        "own": rows[own][name].corr(rows[own]["removal"]),
        "other": rows[shown & ~own][name].corr(rows[shown & ~own]["removal"]),
    }


PARTS: dict[str, Callable[[int], Iterator[Row] | Iterator[tuple[str, Row]]]] = {
    "effects": lambda seeds: effects(cases(LAYERS, seeds)),
    "trace": trace,
    "maps": maps_and_truth,
    "sums": lambda seeds: sums(cases(SUM_LAYERS, seeds)),
    "pixels": pixels,
    "fills": fills,
    "bias": bias,
    "backgrounds": backgrounds,
    "triples": triples,
    "chances": chances,
    "library": library,
    "repairs": repairs,
    "pooling": pooling,
    "seven": seven,
    "orders": orders,
}


def write(tables: dict[str, list[Row]], folder: Path) -> None:
    """Write tables; three decimals in those of many rows, but for GMCAM's sums, products of small numbers."""
    for name, rows in tables.items():
        table = pd.DataFrame(
            [{k: v.item() if isinstance(v, Tensor) else v for k, v in row.items()} for row in rows]
        )
        for column in table.select_dtypes("float"):
            rounded = len(table) > 1000 and column != "gmcam"
            table[column] = (table[column].round(3) if rounded else table[column]).astype("float32")
        path = folder / f"interventions_{name}.parquet"
        table.to_parquet(path, compression="zstd", index=False)
        print(f"{path.name}: {len(table)} rows, {path.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    options.add_argument("--scenes", type=int, default=3, help="seeds of each pair of classes")
    options.add_argument("--out", type=Path, default=OUT)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        started, saved = time.process_time(), time.monotonic()
        tables: dict[str, list[Row]] = {}
        for found in PARTS[part](arguments.scenes):
            name, row = found if isinstance(found, tuple) else (part, found)
            tables.setdefault(name, []).append(row)
            if time.monotonic() > saved + 600:
                write(tables, arguments.out)
                saved = time.monotonic()
        write(tables, arguments.out)
        print(f"{part}: {time.process_time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
