"""Captum's attributions as methods ``captum.…``, summed over channels. Baselines are zero tensors."""

import re
import warnings
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmcam._extras import require
from gmcam._hooks import Extra, find_layer, forward, left_as_found
from gmcam.chunks import halving, in_chunks
from gmcam.methods.canonical import ACTIVATIONS, canonical
from gmcam.outputs import bound
from gmcam.registry import METHODS, Compute, Query, method, no_layer, require_counts, with_progress

_CAPTUM = "Kokhlikyan et al., arXiv:2009.07896, 2020"
_CHUNKS = {"IntegratedGradients": "internal_batch_size", "Occlusion": "perturbations_per_eval"}
Rules = tuple[type[nn.Module], ...]


def _path(query: Query, steps: int = 50, chunk_size: int = 8) -> dict[str, Any]:
    """Σ_c x_c ⊙ ∫ ∂Y/∂x_c(s x) ds, with s from 0 to 1; signed.

    A Gauss–Legendre sum of ``steps`` terms. ``chunk_size``: images per pass."""
    require_counts(steps=steps, chunk_size=chunk_size)
    return {"n_steps": steps, "internal_batch_size": chunk_size}


def _squares(query: Query, share: int = 7, chunk_size: int = 16) -> dict[str, Any]:
    """Σ_squares (Y(x) − Y(x without it)) / number of squares, over the squares at a pixel; signed.

    A square, 1/``share`` of the image's height and width, is set to zero and moves by half its side.
    ``chunk_size``: occluded images per pass."""
    require_counts(share=share, chunk_size=chunk_size)
    channels, *sides = query.inputs.shape[1:]
    window = (channels, *(max(1, side // share) for side in sides))
    strides = (channels, *(max(1, side // 2) for side in window[1:]))
    return {"sliding_window_shapes": window, "strides": strides, "perturbations_per_eval": chunk_size}


def _method(name: str, source: str, **fields: Any) -> Callable[[Compute], Compute]:
    path = "captum." + re.sub("(?<=.)(?=[A-Z])", "_", name).lower()
    fields |= {"gradients": False, "images_only": True}
    return method(path, title=f"Captum: {name}", source=source, **fields)


def _register(name: str, source: str, formula: str = "", rules: Rules = (), arguments: Any = None) -> None:
    # rules: the activations with a rule, where Captum's class needs a network with a module for every step
    arguments = arguments or (lambda query: {})
    compute = partial(_attribute, name, rules, arguments)
    compute.__doc__ = formula or arguments.__doc__
    vars(compute)["__signature__"] = signature(arguments).replace(return_annotation=Tensor)
    at_layer = name.startswith("Layer")
    shape = {"keeps": None if at_layer else no_layer, "convolutional": at_layer or bool(rules)}
    _method(name, source, signed=name != "Saliency", **shape)(compute)


def _attribute(name: str, rules: Rules, arguments_of: Any, query: Query, **options: Any) -> Tensor:
    algorithm, module = getattr(require("captum.attr", "captum"), name), query.network.module
    arguments = arguments_of(query, **options)

    def attribute(indices: Tensor, size: int = 0) -> Tensor:
        inputs, target, _ = query.rows(indices)
        images, function = query.images_at(indices), query.captured.target
        chunks = {_CHUNKS[name]: size} if size else {}
        index = None if callable(target) else target

        def score(changed: Tensor) -> Tensor:  # Captum repeats all rows for each step
            rows = images.repeat(len(changed) // len(images))
            output = forward(network, changed, query.extra_at(rows))
            return bound(function, rows)(output) if callable(function) else query.network.logits_of(output)

        scored = nn.Sequential(network)  # because Captum expects a module
        vars(scored)["forward"] = score
        explained = algorithm(scored, *layer)
        maps: Tensor = explained.attribute(inputs, target=index, **arguments | chunks).detach()
        return maps.mean(1) if name == "Occlusion" else maps.sum(1)  # a square's effect, for every colour

    with warnings.catch_warnings(), left_as_found(module), torch.inference_mode(False), torch.enable_grad():
        warnings.filterwarnings("ignore", module=r"captum\b")  # it announces its hooks
        first, extra = query.inputs[:1], query.extra_at(torch.tensor([0]))
        network = with_rules(module, first, name, rules, extra) if rules else module
        layer = [find_layer(module, query.layer)[1]] if name.startswith("Layer") else []
        rows = torch.arange(len(query.captured.scores))
        if name not in _CHUNKS:
            return torch.cat([maps for _, maps in in_chunks(attribute, rows, 8, name)])
        raw, size = [], arguments[_CHUNKS[name]]
        for row in with_progress(rows[:, None], name):
            maps, size = halving(partial(attribute, row), size)
            raw.append(maps)
        return torch.cat(raw)


def with_rules(module: nn.Module, example: Tensor, name: str, rules: Rules, extra: Extra = ()) -> nn.Module:
    """``module`` with a module for every step; ``ValueError`` for activations other than ``rules``."""
    network = canonical(module, example=example, extra=extra)
    for path, part in list(network.named_children()):
        if isinstance(part, nn.ReLU6):  # Captum finds rules by type, and that for nn.ReLU holds here
            rectifier = nn.ReLU()
            vars(rectifier)["forward"] = F.relu6
            setattr(network, path, rectifier)
        elif isinstance(part, ACTIVATIONS) and not isinstance(part, rules):
            fault = f"expected activations that Captum's {name} has a rule for, got {type(part).__name__}"
            raise ValueError(f"{fault}: use captum.integrated_gradients, which needs none")
    return network


_register("LayerGradCam", _CAPTUM, "Σ_k λ_k M_k, Grad-CAM without its rectifier; signed.")
_register("LayerGradientXActivation", _CAPTUM, "Σ_k C_k ⊙ M_k, HiResCAM; signed.")
_register("Saliency", "Simonyan et al., ICLR Workshops 2014", "Σ_c |∂Y/∂x_c|, an absolute value.")
_register("InputXGradient", "Shrikumar et al., arXiv:1605.01713, 2016", "Σ_c x_c ⊙ ∂Y/∂x_c; signed.")
_register("IntegratedGradients", "Sundararajan et al., ICML 2017", arguments=_path)
_GUIDED = """Σ_c g_c, with g the gradient of which each rectifier passes on the positive part; signed.

A ReLU6 passes it on where its output is between 0 and 6; other activations raise ``ValueError``."""
_register("GuidedBackprop", "Springenberg et al., ICLR Workshops 2015", _GUIDED, (nn.ReLU,))
_register("Occlusion", "Zeiler and Fergus, ECCV 2014", arguments=_squares)
_DEEP_LIFT = """Σ_c (x_c − 0) ⊙ m_c, with m DeepLIFT's multipliers (rescale rule); signed.

The sum is the difference from the zero input's score, except for losses in Captum's rule for max pooling.
Activations other than ReLU, ReLU6, LeakyReLU and ELU raise ``ValueError``."""
_register("DeepLift", "Shrikumar et al., ICML 2017", _DEEP_LIFT, (nn.ReLU, nn.LeakyReLU, nn.ELU))


@_method("GuidedGradCam", "Selvaraju et al., ICCV 2017", convolutional=True, signed=True)
def guided_grad_cam(query: Query) -> Tensor:
    """Σ_c g_c ⊙ nearest(ReLU(Σ_k λ_k M_k)), with g and the errors of ``captum.guided_backprop``; signed."""
    grad_cam = METHODS["captum.layer_grad_cam"].compute(query).relu().unsqueeze(1)
    return METHODS["captum.guided_backprop"].compute(query) * F.interpolate(grad_cam, query.size).squeeze(1)
