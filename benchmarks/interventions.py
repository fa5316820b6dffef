"""What objects do to the networks' scores, and how near saliency maps are to that: interventions_*.parquet.

    OMP_NUM_THREADS=1 python benchmarks/interventions.py [--scenes N] [--out FOLDER] [PART ...]

Scenes of two objects of the test split: each ordered pair of classes with the seeds 0 … N−1 (by default 3)
for the embedded networks, and 20·N scenes of a cat and a cup for EfficientNet-Lite0, whose targets are groups
of ImageNet's classes. Each part, by default all, writes a table; "maps" writes two. In all of them ``first``
and ``second`` are the scene's objects in drawing order, ``target`` is the explained class, ``object`` the
object that is removed, and ``layer`` what ``gmcam.explain`` takes; effects are in logits.

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

The script takes about half an hour of one processor.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import permutations
from pathlib import Path

import cv2
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

import gmcam
from gmcam import equations, metrics
from gmcam.lab import BACKGROUNDS, CLASSES, scene
from gmcam.lab.scenes import Scene
from gmcam.metrics.effects import FILLS, SCORES

OUT = Path(__file__).parents[1] / "book"
LITE = "efficientnet-lite0"
CATS = gmcam.group(["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"], "cat")
CUPS = gmcam.group(["cup", "coffee mug", "espresso"], "cup")
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
POWERS = (0.25, 0.5, 1, 2, 4)
EVERYWHERE = [name for names in BACKGROUNDS.values() for name in names]
Row = dict[str, object]


@gmcam.method("signed_grad_cam", title="Signed Grad-CAM", source="Selvaraju et al., ICCV 2017", signed=True)
def signed_grad_cam(query: gmcam.Query) -> Tensor:
    """Σ_k λ_k M_k."""
    return equations.class_map(query.M, equations.channel_weights(query.C))


class Case:
    """A scene of two objects for a network: its targets, its masks at the network's size, a row's start."""

    def __init__(self, network: gmcam.Network, drawn: Scene) -> None:
        self.network, self.scene, self.labels = network, drawn, drawn.labels
        groups = {"cat": CATS, "cup": CUPS}
        self.targets = [groups[c] for c in drawn.labels] if network.name == LITE else list(drawn.labels)
        place = network.preprocess.place_mask
        self.masks = torch.stack([place(mask) for mask in drawn.masks])
        self.about: Row = {"network": network.name, "first": drawn.labels[0], "second": drawn.labels[1]}
        self.about["seed"] = drawn.seed
        self.without = [drawn.without(number).image for number in range(2)]

    @property
    def classes(self) -> dict[str, object]:
        """All classes by name; of ImageNet's, the two groups."""
        if self.network.name == LITE:
            return dict(zip(self.labels, self.targets, strict=True))
        return {name: name for name in CLASSES}

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
            drawn = [(*pair, seed) for pair in pairs]
            if network.name == LITE:
                drawn = [("cat", "cup", 20 * seed + n) for n in range(20)]
            for *labels, number in drawn:
                yield Case(network, scene(*labels, seed=number, size=384 if network.name == LITE else 256))
            print(f"  {network.name} seed {seed}, {time.process_time() - started:.0f} s", flush=True)


def behind(network: gmcam.Network, layer: str) -> gmcam.Network:
    """What follows a layer, as a network of that layer's maps: it spares the time of what comes before."""
    parts, path = dict(network.module.named_children()), network.layer_path(layer)
    after = list(parts)[list(parts).index(path) + 1 :]
    steps = [parts[name] for name in after]
    if network.name != LITE:  # their code flattens before the last part
        steps.insert(-1, nn.Flatten(1))
    shape = network.map_shapes[path]
    module = nn.Sequential(nn.Identity(), *steps)
    return gmcam.Network(module, name=path, classes=network.classes, input_shape=shape)


def in_cells(maps: Tensor, like: Tensor) -> Tensor:
    """Maps or masks (N, H, W), averaged into the cells of another map (…, h, w)."""
    return F.adaptive_avg_pool2d(maps.float(), like.shape[-2:])


def effects(seeds: int) -> Iterator[Row]:
    for case in cases(LAYERS, seeds):
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
            tail = behind(case.network, layer)
            images = case.network.prepare([case.scene.image, *case.without])
            captured = gmcam.capture(case.network.module, images, 0, tail.name, gradients=False)
            maps = captured.maps[tail.name]
            what = {"methods": METHODS, "layer": layer}
            results = gmcam.compare(case.network, case.scene.image, case.targets + absent, **what)
            raw = {each.method: in_cells(each.raw, results[0].raw) for each in results}
            shares = in_cells(case.masks, results[0].raw)
            for number, which in ((0, 0), (0, 1), (1, 0), (1, 1)):  # the target's object, the one removed
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


def sums(seeds: int) -> Iterator[Row]:
    signed, rectified = ["hires_cam", "signed_grad_cam"], ["guidance_map", "gmcam"]
    for case in cases(SUM_LAYERS, seeds):
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


PARTS: dict[str, Callable[[int], Iterator[Row] | Iterator[tuple[str, Row]]]] = {
    "effects": effects,
    "trace": trace,
    "maps": maps_and_truth,
    "sums": sums,
    "pixels": pixels,
    "fills": fills,
    "bias": bias,
    "backgrounds": backgrounds,
    "triples": triples,
}


def write(tables: dict[str, list[Row]], folder: Path) -> None:
    """Write tables; three decimals in those of many rows, but for GMCAM's sums, products of small numbers."""
    for name, rows in tables.items():
        table = pd.DataFrame(
            [{k: v.item() if isinstance(v, Tensor) else v for k, v in row.items()} for row in rows]
        )
        for column in table.select_dtypes("float"):
            rounded = len(table) > 2000 and column != "gmcam"
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
