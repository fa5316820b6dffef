"""Methods that weight a channel by its effect on the score: Score-CAM and Ablation-CAM."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gmcam import equations
from gmcam._hooks import Extra, find_layer, first_tensor, forward, hooked, replace_tensor, without_gradients
from gmcam.chunks import in_chunks
from gmcam.postprocess import min_max, upsample
from gmcam.registry import Query, method

_DESAI = "Desai and Ramaswamy, WACV 2020"
_perturbing = partial(method, gradients=False, images_only=True)


@_perturbing("score_cam", title="Score-CAM", source="Wang et al., CVPR Workshops 2020")
def score_cam(query: Query, chunk_size: int = 16) -> Tensor:
    """ReLU(Σ_k w_k up(M_k)), with w_k the class's probability for x ⊙ up(M_k), up(M_k) scaled to [0, 1].

    As in the authors' code, without the paper's baseline and softmax over channels, summed at the image's
    size. Channels of zeros are skipped; other constant channels (skipped there, which can move the cut at 0)
    share a mask of zeros. Probabilities are as in ``Network.output``, the softmax by default; w is the logit
    where that is None, and a target function's value. ``chunk_size``: masked images per pass."""
    M, module = query.M, query.network.module
    low, high = M.flatten(2).aminmax(dim=2)
    constant = (low == high) & (high != 0)
    first = constant & (constant.cumsum(1) == 1)

    def scores(image: int, channels: Tensor) -> Tensor:
        masks, _ = min_max(upsample(M[image, channels], query.size))
        masked = query.inputs[image] * masks.unsqueeze(1).to(query.inputs.dtype)
        extra = query.extra_at(torch.full((len(masked),), image))
        return query.scores(forward(module, masked, extra), image, probability=True)

    with without_gradients(module):
        weights = _weights(query, (low < high) | first, scores, chunk_size, "Score-CAM")
    weights = torch.where(constant, (weights * first).sum(1, keepdim=True), weights)
    return upsample(equations.class_map(M, weights), query.size).relu()


@_perturbing("ablation_cam", title="Ablation-CAM", source=_DESAI, convolutional=True)
def ablation_cam(query: Query, chunk_size: int = 32) -> Tensor:
    """ReLU(Σ_k w_k M_k), with w_k = Y − Y_k and Y_k the logit when channel k is set to zero.

    The paper also divides by Y, which only inverts the map where Y is negative. ``chunk_size``: channels per
    pass; channels of zeros are skipped."""
    maps = query.captured.maps[query.layer]

    def drops(image: int, channels: Tensor) -> Tensor:
        ablated = maps[image].repeat(len(channels), 1, 1, 1)
        ablated[torch.arange(len(channels)), channels] = 0
        extra = query.extra_at(torch.full((len(channels),), image))
        output = rerun(query.network.module, query.inputs[image : image + 1], query.layer, ablated, extra)
        rows = slice(None) if len(query.inputs) == 1 else slice(image, image + 1)
        return query.captured.scores[rows] - query.scores(output, image)

    weights = _weights(query, maps.abs().amax((2, 3)) > 0, drops, chunk_size, "Ablation-CAM")
    return equations.class_map(query.M, weights).relu()


def rerun(module: nn.Module, inputs: Tensor, layer: str, maps: Tensor, extra: Extra = ()) -> Any:
    """The network's output for one image (1, C, H, W) when ``layer`` outputs ``maps`` (B, …).

    Modules before the layer run on one image where the network allows it; otherwise, and with further inputs,
    which have B rows, the image is repeated."""

    def replace(output: Any, in_place: bool) -> Any:
        tensor: Any = first_tensor(output)
        # In-place output aliases the input (copy_ raises for a batch of one); an in-place step may follow.
        return replace_tensor(output, tensor, tensor.copy_(maps) if in_place else maps.clone())

    with without_gradients(module), hooked(find_layer(module, layer)[1], replace):
        with suppress(Exception):  # a network may raise anything for B maps next to one image
            output = None if extra else forward(module, inputs)
            if (first := first_tensor(output)) is not None and len(first) == len(maps):
                return output
        return forward(module, inputs.expand(len(maps), -1, -1, -1), extra)


def _weights(query: Query, active: Tensor, run: Callable[..., Tensor], chunk_size: int, label: str) -> Tensor:
    """(T, K): ``run(image, channels)``, of shape (channels, targets of the image); 0 where not ``active``."""
    active = active[: len(query.inputs)]
    pairs = torch.split(active.nonzero(), active.sum(1).tolist())  # by image: rows of image and channel
    weights = query.M.new_zeros(query.M.shape[:2])
    for chunk, values in in_chunks(lambda rows: run(int(rows[0, 0]), rows[:, 1]), pairs, chunk_size, label):
        rows = slice(None) if len(active) == 1 else chunk[:1, 0]
        weights[rows, chunk[:, 1]] = values.T.to(weights.dtype)
    return weights
