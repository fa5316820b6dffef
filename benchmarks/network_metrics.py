"""What metrics that run the network again make of each map: ``book/network_metrics.parquet``.

    python benchmarks/network_metrics.py [--part 0/2] [--turns 2] [--merge]

28 scenes, one for each pair of the eight classes, on ``collage-vgg``, at its last map. One of a scene's two
classes is explained, its first or its second; with two turns, both. One row a pair and a map: the average
drop and the increase of the soft salience zone, coherency, complexity, ADCC, sparseness, and, for each of two
seeds, infidelity and max-sensitivity (``gmcam.lab.network_metrics``, with its default squares and noise).
Besides methods and rivals there are five fixed maps, the object's mask, an empty and a uniform map, a map of
all but one pixel and a single corner pixel, and one made for infidelity, ``squares``: the mean fall of the
logit over the squares that cover a pixel, from the other seed's squares. ``--part`` measures a share of the
scenes, and ``--merge`` joins the parts. All methods see the same squares and the same noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

import gmcam
from gmcam.lab import collage
from gmcam.lab import network_metrics as measured
from gmcam.metrics import drop, increase, zones

OUT = Path(__file__).parents[1] / "book" / "network_metrics.parquet"
METHODS = ["grad_cam", "x_grad_cam", "layer_cam", "gmcam", "guidance_map", "grad_cam_squared"]
METHODS += ["feature_sum", "random_network", "centred_blob", "edges", "area"]
SEEDS = (0, 1)


class Case:
    """One pair of image and class: its maps and logits, each computed once."""

    def __init__(self, network: gmcam.Network, inputs: Tensor, label: str, mask: Tensor) -> None:
        self.network, self.inputs, self.label = network, inputs, label
        self.index = network.class_index(label)
        corner = torch.zeros(1, *inputs.shape[2:])
        corner[:, 0, 0] = 1
        fixed = {"mask": mask[None].float(), "empty": 0 * corner, "uniform": corner * 0 + 1}
        self.fixed = fixed | {"all_but_a_corner": 1 - corner, "corner": corner}
        self.maps: dict[int, dict[str, Tensor]] = {}
        self.logits: dict[int, Tensor] = {}

    def maps_of(self, name: str) -> Callable[[Tensor], Tensor]:
        """inputs (N, 3, H, W) → the maps (N, H, W) of a method or a fixed map."""

        def drawn(images: Tensor) -> Tensor:
            if name in self.fixed:
                return self.fixed[name].expand(len(images), -1, -1)
            key = _key(images)
            if key not in self.maps:
                with torch.enable_grad():
                    found = gmcam.compare(self.network, images, [self.label] * len(images), methods=METHODS)
                self.maps[key] = {result.method: result.maps for result in found}
            return self.maps[key][name]

        return drawn

    def score(self, images: Tensor) -> Tensor:
        key = _key(images)
        if key not in self.logits:
            parts = [self.network.module(part)[:, self.index] for part in images.split(16)]
            self.logits[key] = torch.cat(parts)
        return self.logits[key]

    def from_squares(self, seed: int) -> Tensor:
        """The mean fall of the logit over the squares of the other seed that cover a pixel."""
        size, falls, covered = self.inputs.shape[2:], 0, 0
        for other in set(SEEDS) - {seed}:
            generator = torch.Generator().manual_seed(other)
            inside = measured.squares(measured.SQUARES, size, measured.SIDE, generator)
            fall = self.score(self.inputs) - self.score(self.inputs * (1 - inside[:, None]))
            falls, covered = falls + (inside * fall[:, None, None]).sum(0), covered + inside.sum(0)
        return (falls / covered.clamp(min=1)).clamp(min=0)[None]

    def row(self, name: str) -> dict[str, float]:
        """All metrics of one map."""
        maps = self.maps_of(name)(self.inputs)
        zone = zones(self.inputs, maps)[0]
        before, after = (self.network.probabilities(x)[:, self.index] for x in (self.inputs, zone))
        if name in self.fixed:
            again = maps
        else:
            again = gmcam.explain(self.network, zone, [self.label], method=name).maps
        values = {"probability": before, "average_drop": drop(before, after), "rise": increase(before, after)}
        values |= {"coherency": measured.coherency(maps, again), "complexity": measured.complexity(maps)}
        three = values["average_drop"], values["coherency"], values["complexity"]
        values |= {"adcc": measured.adcc(*three), "sparseness": measured.sparseness(maps)}
        for seed in SEEDS:
            fit = measured.infidelity(self.score, self.inputs, maps, seed=seed)
            moved = measured.max_sensitivity(self.maps_of(name), self.inputs, seed=seed)
            values |= {f"infidelity_{seed}": fit, f"max_sensitivity_{seed}": moved}
        return {key: float(value) for key, value in values.items()}


def _key(images: Tensor) -> int:
    return hash(images.contiguous().numpy().tobytes())


def measure(part: int, parts: int, turns: int, out: Path) -> None:
    """Write the rows of a share of the scenes, after every pair."""
    network, data, rows = gmcam.load("collage-vgg"), collage(56), []
    kept = [i for i, name in enumerate(data.names) if (pair := name.split("-"))[0] < pair[1]]
    for turn in range(turns):
        for index in kept[part::parts]:
            record = data.read(index)
            truth = record.truths[(index + turn) % 2]
            inputs, mask = network.prepare(record.image), network.preprocess.place_mask(truth.mask)
            case = Case(network, inputs, truth.label, mask)
            known = {"image": record.name, "label": truth.label}
            rows += [known | {"method": name} | case.row(name) for name in [*METHODS, *case.fixed]]
            maps = {seed: case.from_squares(seed) for seed in SEEDS}
            fits = {s: measured.infidelity(case.score, inputs, maps[s], seed=s) for s in SEEDS}
            rows.append(known | {"method": "squares"} | {f"infidelity_{s}": float(fits[s]) for s in SEEDS})
            pd.DataFrame(rows).round(4).to_parquet(out)
            print(record.name, truth.label, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--part", default="0/1", help="which share of the scenes, such as 0/2")
    arguments.add_argument("--turns", type=int, default=1, help="classes of a scene that are explained")
    arguments.add_argument("--merge", action="store_true", help="join the parts")
    options = arguments.parse_args()
    part, parts = map(int, options.part.split("/"))
    pieces = sorted(OUT.parent.glob(f"{OUT.stem}_*.parquet"))
    if options.merge:
        rows = pd.concat(map(pd.read_parquet, pieces)).sort_values(["image", "label"], kind="stable")
        rows.reset_index(drop=True).to_parquet(OUT)
        for piece in pieces:
            piece.unlink()
        return
    out = OUT if parts == 1 else OUT.with_stem(f"{OUT.stem}_{part}")
    measure(part, parts, options.turns, out)


if __name__ == "__main__":
    main()
