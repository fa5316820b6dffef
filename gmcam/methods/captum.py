"""Captum's attributions under the names ``captum.…``: Captum computes, this file gives it the target,
the baseline and the sign.

Captum's attributions are signed and, at the input, one per colour. Here they are summed over channels
and rectified: what is left is where the colours together speak for the class. (``saliency`` is an
absolute value: where the score reacts at all, for or against.) Baselines are the zero tensor at the
network's input.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gmcam.capture import find_layer, forward, left_as_found
from gmcam.chunks import halving, in_chunks
from gmcam.methods.canonical import ACTIVATIONS, canonical
from gmcam.registry import Query, method, no_layer, with_progress


class _Scores(nn.Module):
    """Captum asks a network for one number per picture: the target function after the network."""

    def __init__(self, network: nn.Module, target: Any) -> None:
        super().__init__()
        self.network = network
        self.target = target

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.target(forward(self.network, inputs))
        return scores


class Ceiling(nn.Module):
    """ReLU6(x) = y − ReLU(y − 6) with y = ReLU(x): Captum has rules for these, and none for ReLU6.

    The second rectifier goes by the name of a leaky one without a leak. DeepLIFT has the same rule for
    both, and the two steps together have the multiplier of ReLU6, Δoutput/Δinput. Guided
    backpropagation takes it for no rectifier: above 6 the gradient is zero, not the positive part of
    a difference.
    """

    def __init__(self) -> None:
        super().__init__()
        self.floor, self.above = nn.ReLU(), nn.LeakyReLU(0.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.floor(x)
        over: Tensor = self.above(y - 6)
        return y - over


def _attribute(
    query: Query,
    algorithm: Any,
    *layer: str,
    chunk_size: int = 8,
    chunks_within: str = "",
    rules: tuple[type[nn.Module], ...] = (),
    **arguments: Any,
) -> Tensor:
    """ReLU(Σ_channels of what ``algorithm`` attributes), (T, h, w), ``chunk_size`` maps at a time.

    ``chunks_within``: the argument by which the algorithm itself takes the size of chunks, for each map.
    ``rules``: the activations that the algorithm has a rule for; it runs on the network rewritten with a
    module for every step. Raises ``ValueError`` for a network with another one.
    """
    module = query.network.module
    found = []

    def attribute(indices: Tensor, size: int = 0) -> Tensor:
        inputs, target = query.rows(indices)
        named = isinstance(target, Tensor)
        explained = algorithm(_Scores(network, torch.clone if named else target), *parts)
        more = arguments | ({chunks_within: size} if size else {})
        computed: Tensor = explained.attribute(inputs.clone(), target=target if named else None, **more)
        return computed.detach().sum(1).relu()

    with warnings.catch_warnings(), left_as_found(module), torch.inference_mode(False), torch.enable_grad():
        # Captum announces its hooks. No other warnings: a thread that reads pictures may keep the filter.
        warnings.filterwarnings("ignore", module=r"captum\b")
        network = ruled(module, query.inputs[:1], algorithm, rules) if rules else module
        parts = [find_layer(module, path) for path in layer]
        rows = torch.arange(len(query.captured.scores))
        if not chunks_within:
            return torch.cat([maps for _, maps in in_chunks(attribute, rows, chunk_size, algorithm.__name__)])
        for row in with_progress(torch.split(rows, 1), algorithm.__name__):
            maps, chunk_size = halving(partial(attribute, row), chunk_size)
            found.append(maps)
    return torch.cat(found)


def ruled(module: nn.Module, like: Tensor, algorithm: Any, rules: tuple[type[nn.Module], ...]) -> nn.Module:
    """The network with a module for every step, each activation one of ``rules``."""
    network = canonical(module, like=like)
    for name, part in list(network.named_children()):
        if isinstance(part, nn.ReLU6):
            setattr(network, name, Ceiling())
        elif isinstance(part, ACTIVATIONS) and not isinstance(part, rules):
            raise ValueError(
                f"Captum's {algorithm.__name__} has no rule for {type(part).__name__}: "
                "use captum.integrated_gradients, which needs none"
            )
    return network


@method(
    "captum.layer_grad_cam",
    title="Captum: LayerGradCam",
    source="Kokhlikyan et al., arXiv:2009.07896, 2020",
    gradients=False,
    convolutional=True,
)
def layer_grad_cam(query: Query) -> Tensor:
    """ReLU(Σ_k λ_k M_k): Grad-CAM. Captum's own is not rectified, and enlarges to the nearest cell."""
    from captum.attr import LayerGradCam

    return _attribute(query, LayerGradCam, query.layer)


@method(
    "captum.layer_gradient_x_activation",
    title="Captum: LayerGradientXActivation",
    source="Kokhlikyan et al., arXiv:2009.07896, 2020",
    gradients=False,
    convolutional=True,
)
def layer_gradient_x_activation(query: Query) -> Tensor:
    """ReLU(Σ_k C_k ⊙ M_k): rectified HiResCAM, which is the guidance map."""
    from captum.attr import LayerGradientXActivation

    return _attribute(query, LayerGradientXActivation, query.layer)


@method(
    "captum.saliency",
    title="Captum: Saliency",
    source="Simonyan et al., ICLR Workshops 2014",
    keeps=no_layer,
    gradients=False,
)
def saliency(query: Query) -> Tensor:
    """Σ_c |∂Y/∂x_c|: how strongly the score reacts to a pixel, for or against."""
    from captum.attr import Saliency

    return _attribute(query, Saliency)


@method(
    "captum.input_x_gradient",
    title="Captum: InputXGradient",
    source="Shrikumar et al., arXiv:1605.01713, 2016",
    keeps=no_layer,
    gradients=False,
)
def input_x_gradient(query: Query) -> Tensor:
    """ReLU(Σ_c x_c ⊙ ∂Y/∂x_c)."""
    from captum.attr import InputXGradient

    return _attribute(query, InputXGradient)


@method(
    "captum.integrated_gradients",
    title="Captum: IntegratedGradients",
    source="Sundararajan et al., ICML 2017",
    keeps=no_layer,
    gradients=False,
)
def integrated_gradients(query: Query, steps: int = 50, chunk_size: int = 8) -> Tensor:
    """ReLU(Σ_c x_c ⊙ ∫ ∂Y/∂x_c(s x) ds), with s from 0 to 1.

    The integral is a Gauss–Legendre sum of ``steps`` terms. ``chunk_size``: pictures at a time.
    """
    from captum.attr import IntegratedGradients

    return _attribute(
        query, IntegratedGradients, chunk_size=chunk_size, chunks_within="internal_batch_size", n_steps=steps
    )


@method(
    "captum.guided_backprop",
    title="Captum: GuidedBackprop",
    source="Springenberg et al., ICLR Workshops 2015",
    keeps=no_layer,
    gradients=False,
    convolutional=True,
)
def guided_backprop(query: Query) -> Tensor:
    """ReLU(Σ_c g_c), with g the gradient of the score that each rectifier lets pass where it is positive.

    A ReLU6 lets it pass where it is positive and the output is between 0 and 6.
    """
    from captum.attr import GuidedBackprop

    return _attribute(query, GuidedBackprop, rules=(nn.ReLU,))


@method(
    "captum.guided_grad_cam",
    title="Captum: GuidedGradCam",
    source="Selvaraju et al., ICCV 2017",
    gradients=False,
    convolutional=True,
)
def guided_grad_cam(query: Query) -> Tensor:
    """ReLU(Σ_c g_c) ⊙ nearest(Grad-CAM), both by Captum, as its GuidedGradCam multiplies them.

    Captum's own class wants the layer and the rectifiers in one network; here guided backpropagation
    runs on the rewritten one, so that shared rectifiers are no obstacle.
    """
    from captum.attr import LayerAttribution

    coarse = layer_grad_cam(query).unsqueeze(1)
    cam: Tensor = LayerAttribution.interpolate(coarse, query.size)
    return guided_backprop(query) * cam.squeeze(1)


@method(
    "captum.occlusion",
    title="Captum: Occlusion",
    source="Zeiler and Fergus, ECCV 2014",
    keeps=no_layer,
    gradients=False,
)
def occlusion(query: Query, share: int = 7, chunk_size: int = 16) -> Tensor:
    """ReLU(Σ_squares (Y(x) − Y(x without it)) / number of squares), over the squares that cover a pixel.

    A square is 1/``share`` of the picture's height and width and moves by half its side; it covers
    with zeros. ``chunk_size``: covered pictures at a time.
    """
    from captum.attr import Occlusion

    channels = query.inputs.shape[1]  # a square covers all colours, and Captum credits each with the loss
    window = (channels, *(max(1, side // share) for side in query.size))
    strides = (channels, *(max(1, side // 2) for side in window[1:]))
    total = _attribute(
        query,
        Occlusion,
        chunk_size=chunk_size,
        chunks_within="perturbations_per_eval",
        sliding_window_shapes=window,
        strides=strides,
    )
    return total / channels


@method(
    "captum.deep_lift",
    title="Captum: DeepLift",
    source="Shrikumar et al., ICML 2017",
    keeps=no_layer,
    gradients=False,
    convolutional=True,
)
def deep_lift(query: Query) -> Tensor:
    """ReLU(Σ_c (x_c − 0) ⊙ m_c), with m DeepLIFT's multipliers (rescale rule).

    The products add up to the difference from the score of the zero input, but for Captum's rule for
    max pooling, which may lose some of it.
    """
    from captum.attr import DeepLift

    return _attribute(query, DeepLift, rules=(nn.ReLU, nn.LeakyReLU, nn.ELU))
