"""The methods that weigh a channel by what it does to the score when the network runs again: Score-CAM
shows the picture through the channel, Ablation-CAM takes the channel away. No gradient is needed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gmcam import equations
from gmcam.capture import forward, rerun, without_gradients
from gmcam.chunks import in_chunks
from gmcam.postprocess import normalise, upsample
from gmcam.registry import Query, method


@method("score_cam", title="Score-CAM", source="Wang et al., CVPR Workshops 2020", gradients=False)
def score_cam(query: Query, chunk_size: int = 16) -> Tensor:
    """ReLU(Σ_k w_k up(M_k)), with w_k = softmax(Y(x ⊙ up(M_k) scaled to [0, 1])) of the class.

    As in the authors' code: the plain probability, with no baseline subtracted and no softmax over
    channels, as the paper has it; the map is summed at the picture's size. A channel of zeros adds
    nothing, whatever its weight, and is not run. Of a channel that is flat but not zero the mask is zero:
    all such channels see the same empty picture, which runs once for all of them. (The authors' code
    leaves them out. Each adds the same number to every cell, which is gone after min–max, unless the
    rectifier cuts elsewhere for it, as it can on maps that were not rectified.) Where the target is
    a function, its value takes the probability's place. ``chunk_size``: masked pictures at a time.
    """
    M, module = query.M, query.network.module
    low, high = M.flatten(2).aminmax(dim=2)
    flat = (low == high) & (high != 0)
    first = flat & (flat.cumsum(1) == 1)

    def probabilities(picture: int, channels: Tensor) -> Tensor:
        masks, _ = normalise(upsample(M[picture, channels], query.size))
        masked = query.inputs[picture] * masks.unsqueeze(1).to(query.inputs.dtype)
        logits = forward(module, masked)
        if isinstance(query.captured.target, Tensor):
            logits = logits.to(M.dtype).softmax(1)
        return query.scores(logits, picture)

    with without_gradients(module):
        weights = _channel_scores(query, (low < high) | first, chunk_size, probabilities, "Score-CAM")
    weights = torch.where(flat, (weights * first).sum(1, keepdim=True), weights)
    return upsample(equations.class_map(M, weights), query.size).relu()


@method(
    "ablation_cam",
    title="Ablation-CAM",
    source="Desai and Ramaswamy, WACV 2020",
    gradients=False,
    convolutional=True,
)
def ablation_cam(query: Query, chunk_size: int = 32) -> Tensor:
    """ReLU(Σ_k w_k M_k), with w_k = Y − Y_k and Y_k the logit when channel k is set to zero.

    The paper divides w_k by Y, a common factor that would only turn the map over where Y is negative.
    A channel that is zero already changes nothing and is not run. ``chunk_size``: channels at a time;
    what lies before the layer runs once for each chunk where the network allows it.
    """
    M, maps = query.M, query.captured.maps[query.layer]

    def losses(picture: int, channels: Tensor) -> Tensor:
        without = maps[picture].repeat(len(channels), 1, 1, 1)
        without[torch.arange(len(channels)), channels] = 0
        inputs = query.inputs[picture : picture + 1]
        left = query.scores(rerun(query.network.module, inputs, query.layer, without), picture)
        whole = query.captured.scores
        return (whole if len(query.inputs) == 1 else whole[picture : picture + 1]) - left

    weights = _channel_scores(query, maps.abs().amax((2, 3)) > 0, chunk_size, losses, "Ablation-CAM")
    return equations.class_map(M, weights).relu()


def _channel_scores(
    query: Query,
    channels: Tensor,
    chunk_size: int,
    run: Callable[[int, Tensor], Tensor],
    what: str,
) -> Tensor:
    """(T, K): for the ``channels`` (T, K) bool of each picture, what ``run(picture, indices)`` gives,
    (indices, targets of the picture); zero for the others."""
    M, pictures = query.M, len(query.inputs)
    wanted = channels[:pictures].nonzero()  # a picture and a channel in each row
    by_picture = torch.split(wanted, channels[:pictures].sum(1).tolist())
    weights = M.new_zeros(M.shape[:2])
    for chunk, found in in_chunks(
        lambda rows: run(int(rows[0, 0]), rows[:, 1]), by_picture, chunk_size, what
    ):
        rows = slice(None) if pictures == 1 else chunk[:1, 0]
        weights[rows, chunk[:, 1]] = found.T.to(M.dtype)
    return weights
