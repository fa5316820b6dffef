"""The methods that repeat a pass on changed inputs and add up: CAMERAS over sizes of the picture,
Integrated Grad-CAM on the way from an empty input to the picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations
from gmcam.chunks import in_chunks, is_out_of_memory
from gmcam.registry import Query, method, with_progress


@method("cameras", title="CAMERAS", source="Jalwana et al., CVPR 2021")
def cameras(query: Query, sizes: int = 8, chunk_size: int = 64) -> Tensor:
    """ReLU(Σ_k mean(up(M_k)) ⊙ mean(up(C_k))), means over sizes of the picture, up to its first size.

    The picture is enlarged (bicubic) to 224, 324, … 924 pixels, or the same factors of another first
    size; maps and gradient maps are brought (bilinear) to the first. As in the authors' code, where
    no target is given the sizes whose top class differs from the first size's are left out. A map
    without a positive value, NaN in the original, is zero. ``chunk_size``: channels enlarged at a
    time. Beside them the maps and gradient maps of all sizes are held, at the layer's own resolution:
    of eight sizes 61 times the cells of the first. (To show the network the last size takes 17 times the
    memory of showing it the first.)
    """
    height, width = query.size
    found = []
    for number in with_progress(range(sizes), "CAMERAS"):
        factor = 1 + number * 100 / 224
        size = (round(height * factor), round(width * factor))
        enlarged = F.interpolate(query.inputs, size, mode="bicubic", align_corners=False)
        try:
            captured = query.again(enlarged, query.captured.target)
        except (RuntimeError, AssertionError) as error:
            if number == 0 or is_out_of_memory(error):
                raise
            raise ValueError(
                f"cameras shows the network larger pictures; {query.network.name} does not take "
                f"{size[0]} x {size[1]} ({error}): use a method of one size"
            ) from error
        counts = torch.ones(len(query.M), dtype=torch.bool, device=query.M.device)
        if query.targets is None and isinstance(query.captured.target, Tensor):
            counts = captured.logits.argmax(1) == query.captured.target
        pair = (captured.maps[query.layer], captured.gradients[query.layer])
        found.append((counts[:, None, None, None], [query.network.as_maps(part) for part in pair]))

    def mean(part: int, channels: Tensor) -> Tensor:
        total = query.M.new_zeros(1)
        for counts, pair in found:
            maps = pair[part][:, channels].to(query.M.dtype)
            up = F.interpolate(maps, query.size, mode="bilinear", align_corners=False)
            total = total + up * counts
        return total / sum(counts for counts, _ in found)

    def products(channels: Tensor) -> Tensor:
        return (mean(0, channels) * mean(1, channels)).sum(1)

    raw = query.M.new_zeros(len(query.M), *query.size)
    for _, added in in_chunks(products, torch.arange(query.M.shape[1]), chunk_size):
        raw += added
    return raw.relu()


@method("integrated_grad_cam", title="Integrated Grad-CAM", source="Sattarzadeh et al., ICASSP 2021")
def integrated_grad_cam(query: Query, steps: int = 50, chunk_size: int = 8) -> Tensor:
    """Σ_s ReLU(Σ_k λ_k(s x) M_k(s x)), with s = 0, 1/50, … 49/50: Grad-CAM on the way from zero.

    As in the authors' code: a sum of ``steps`` left points, each rectified; the baseline is the zero
    tensor at the network's input (where that is normalised, the mean colour: a grey), and the maps are
    weighted themselves, not their difference from the baseline's. ``chunk_size``: pictures
    at a time.
    """
    raw = torch.zeros_like(query.M[:, 0])

    def on_the_way(points: Tensor) -> Tensor:
        inputs, target = query.rows(points // steps)
        share = (points % steps).to(raw.dtype) / steps
        captured = query.again(inputs * share[:, None, None, None].to(inputs.dtype), target)
        maps, gradients = (
            query.network.as_maps(found[query.layer]).to(raw.dtype)
            for found in (captured.maps, captured.gradients)
        )
        return equations.grad_cam(maps, gradients)

    points = torch.arange(len(raw) * steps, device=raw.device)  # the steps of the first map, of the second, …
    for chunk, found in in_chunks(on_the_way, points, chunk_size, "Integrated Grad-CAM"):
        raw.index_add_(0, chunk // steps, found)
    return raw
