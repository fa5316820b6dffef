"""Methods that repeat the pass on changed inputs and average: CAMERAS and Integrated Grad-CAM."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations
from gmcam.chunks import in_chunks, is_out_of_memory
from gmcam.postprocess import resize
from gmcam.registry import Query, method, require_counts, with_progress


@method("cameras", title="CAMERAS", source="Jalwana et al., CVPR 2021")
def cameras(query: Query, sizes: int = 8, chunk_size: int = 64) -> Tensor:
    """ReLU(Σ_k mean(up(M_k)) ⊙ mean(up(C_k))), means over input sizes, at the first size's resolution.

    The image is enlarged (bicubic; signals and volumes linearly) to 224, 324, … 924 pixels, or by these
    factors; maps bilinearly. Without a target, sizes of another top class than the first's are skipped, as in
    the authors' code. A map without positive values is zero (NaN there). ``chunk_size``: channels up-sampled
    at a time; all maps are kept, for eight sizes 61 times the memory of the first. Raises ``ValueError`` for
    a network of fixed input size."""
    require_counts(sizes=sizes, chunk_size=chunk_size)
    target, counted, maps, gradients = query.captured.target, [], [], []
    top = target if query.target is None and isinstance(target, Tensor) else None
    cells, enlarging = query.M.ndim - 2, {3: "linear", 4: "bicubic", 5: "trilinear"}[query.inputs.ndim]
    for number in with_progress(range(sizes), "CAMERAS"):
        size = [round(side * (1 + number * 100 / 224)) for side in query.inputs.shape[2:]]
        try:
            captured = query.again(F.interpolate(query.inputs, size, mode=enlarging), target)
        except (RuntimeError, AssertionError) as error:
            if number == 0 or is_out_of_memory(error):
                raise
            fault = f"expected a network that accepts larger images, got {query.network.name}, which fails at"
            fault += f" {size[0]} x {size[1]} ({error}): use a method of one input size"
            raise ValueError(fault) from error
        counts = query.M.new_ones(1) if top is None else captured.logits.argmax(1) == top
        counted.append(counts.view(-1, 1, *[1] * cells))
        maps.append(captured.maps[query.layer])
        gradients.append(captured.gradients[query.layer])

    def mean(stacks: list[Tensor], channels: Tensor) -> Tensor:
        dtype, start = query.M.dtype, query.M.new_zeros(1)
        ups = (resize(stack[:, channels].to(dtype), query.size) for stack in stacks)
        return sum((counts * up for counts, up in zip(counted, ups, strict=True)), start) / sum(counted)

    channels = torch.arange(query.M.shape[1])
    chunks = in_chunks(lambda part: (mean(maps, part) * mean(gradients, part)).sum(1), channels, chunk_size)
    return sum((raw for _, raw in chunks), query.M.new_zeros(1)).relu()


@method("integrated_grad_cam", title="Integrated Grad-CAM", source="Sattarzadeh et al., ICASSP 2021")
def integrated_grad_cam(query: Query, steps: int = 50, chunk_size: int = 8) -> Tensor:
    """Σ_s ReLU(Σ_k λ_k(s x) M_k(s x)), with s = 0, 1/50, … 49/50: Grad-CAM along the path from zero.

    As in the authors' code, λ weights the maps, not their difference from those of the baseline, the zero
    tensor. ``steps``: left points, each rectified. ``chunk_size``: images per pass."""
    require_counts(steps=steps, chunk_size=chunk_size)
    raw = torch.zeros_like(query.M[:, 0])

    def grad_cam_at(points: Tensor) -> Tensor:
        inputs, target, extra = query.rows(points // steps)
        scale = (points % steps).view(-1, *[1] * (inputs.ndim - 1)).to(raw) / steps
        captured = query.again(inputs * scale.to(inputs.dtype), target, extra)
        M, C = captured.maps[query.layer], captured.gradients[query.layer]
        return equations.grad_cam(M.to(raw.dtype), C.to(raw.dtype))

    points = torch.arange(len(raw) * steps)  # all steps of the first map, then the second
    for chunk, maps in in_chunks(grad_cam_at, points, chunk_size, "Integrated Grad-CAM"):
        raw.index_add_(0, (chunk // steps).to(raw.device), maps)
    return raw
