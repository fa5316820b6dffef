"""Run a network once and keep the feature maps and gradient maps of named layers.

This is Equation 2, ``C_k(i, j) = ∂Y / ∂M_k(i, j)``. Parameters are frozen, the network runs forward, and the
output of the first requested layer becomes a new leaf of the graph. So no graph exists before that layer, no
gradient of a parameter is computed, and several layers cost one forward and one backward pass. Where the
leaf would cut off some of the layer's influence, the graph starts at the input."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional as F

from gmcam._hooks import (
    Extra,
    call,
    find_layer,
    first_tensor,
    hooked,
    in_fast_layout,
    replace_tensor,
    tensors_in,
    with_gradients,
)
from gmcam.chunks import is_out_of_memory
from gmcam.outputs import Read, Resolved, Target, logits_of, scores_of

INPUT = "<input>"  # in place of a layer's name: the network's input
UNUSED = (
    "the network does not use the layer, or drops gradients after it (no_grad, detach, integers); name "
    "another layer, or a method without gradients such as score_cam or eigen_cam"
)
_SHAPE = (
    "expected maps (N, K, h, w) with N = {} at layer {!r}, got {}: name a layer whose output has height and "
    "width, or arrange it by reshape="
)
Layer = str | nn.Module


@dataclass(frozen=True, eq=False)
class Capture:
    """The result of one pass, for ``T`` targets. Compares by identity.

    ``logits`` (N, …): the first tensor in the network's output. ``scores`` (T,): what was differentiated.
    ``target``: (T,) class indices, or the function that gave the scores. ``maps`` and ``gradients``: by
    layer, (T, K, h, w) each. Tensors may be expanded views; clone before writing."""

    logits: Tensor
    scores: Tensor
    target: Resolved
    maps: dict[str, Tensor]
    gradients: dict[str, Tensor]


def capture(
    module: nn.Module,
    inputs: Tensor,
    target: Target = None,
    layer: Layer | Sequence[Layer] = (),
    *,
    gradients: bool = True,
    any_shape: bool = False,
    skip_idle: bool = False,
    extra: Extra = (),
) -> Capture:
    """Feature maps ``M`` and gradient maps ``C = ∂Y/∂M`` at ``layer``, in one forward and one backward pass.

    ``inputs``: (N, 3, H, W), or whatever the module takes first; ``extra``: its further inputs, a tuple or a
    dict of keywords. ``target``: a class index for all images; indices: one per image, or for a single image
    any T of them, differentiated in one batched backward pass; a function from the network's own output,
    perhaps with the images' indices (N,) as second parameter, to one scalar per image, (N,); or None for each
    image's top class. ``layer``: a dotted path, a module, ``INPUT`` for the network's input, or a list of
    these. ``gradients=False`` runs forward only. ``any_shape``: a layer may return any tensor (N, …), as a
    transformer block does. ``skip_idle``: leave out layers that do not run, and gradients of layers without
    influence.

    Images must not influence each other, as in a batch norm without running statistics: pass such images one
    at a time. The network runs in evaluation mode, eagerly where it was compiled, and is left as found: no
    hook, no changed ``requires_grad``, ``.grad`` or training flag. Of a tuple or mapping (a layer's output,
    or the network's for a class) the first tensor is used. Where a module keeps its output in an attribute,
    gradients miss what later reads it: request the layer that reads. Calls from several threads wait for each
    other.

    Raises ``ValueError`` for a layer that does not exist, is not reached, runs more than once, has no height
    and width or no gradient; for a target that does not fit; for non-finite scores, maps or gradients.

    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    >>> captured = gmcam.capture(module, torch.rand(2, 3, 8, 8), [0, 4], layer="0")
    >>> captured.maps["0"].shape, captured.gradients["0"].shape
    (torch.Size([2, 4, 6, 6]), torch.Size([2, 4, 6, 6]))
    """
    return Recording(module, inputs, layer, gradients, any_shape, skip_idle, extra).capture(target)


@dataclass(eq=False)
class Recording:
    """The forward pass of ``capture``, to be differentiated for one target after another.

    ``read``: from the network's output to its logits. ``arrange``: from a layer's output and its name to maps
    (N, K, …), in place of ``any_shape``."""

    module: nn.Module
    inputs: Tensor
    layer: Layer | Sequence[Layer]
    gradients: bool = True
    any_shape: bool = False
    skip_idle: bool = False
    extra: Extra = ()
    read: Read = logits_of
    arrange: Callable[[Tensor, str], Tensor] | None = None

    def __post_init__(self) -> None:
        requested: list[Any] = [*self.layer] if isinstance(self.layer, list | tuple) else [self.layer]
        if not requested:
            raise ValueError("expected the name of a layer, got none: pass layer=, such as 'features.10'")
        self.inputs = self.inputs.detach()
        self.with_input = INPUT in requested
        self.layers = dict(find_layer(self.module, each) for each in requested if each != INPUT)
        self.batched = True  # until a batched backward pass fails
        self.maps: dict[str, Tensor] = {}
        self._starts: dict[str, Tensor | GradientEdge] = {}  # where the graph starts
        # The leaf replaces the output as the layer returns, too late for what was computed from it before: a
        # hook's store, a second tensor. There the graph starts at the input.
        self._uncut, self._related = set[str](), set[str]()
        for name, part in self.layers.items():
            if self.gradients and any(p._forward_hooks or p._forward_pre_hooks for p in part.modules()):
                self._uncut.add(name)
        self.output = self._run()
        if self._related - self._uncut:
            self._uncut |= self._related
            self.output = self._run()
        in_order = [INPUT] * self.with_input + list(self.layers)
        for name in in_order:
            if name not in self.maps and not self.skip_idle:
                raise ValueError(f"expected a layer of the forward pass, got {name!r}, which is not reached")
        self.maps = {name: self.maps[name] for name in in_order if name in self.maps}

    def _run(self) -> Any:
        """Run the network forward, filling ``maps``; its own output."""

        def run(start: Tensor) -> Any:
            self.maps.clear()
            self._starts.clear()
            if self.with_input or (self._uncut and start.is_floating_point()):
                start = start.detach().requires_grad_(self.gradients)
            if self.with_input:
                self.maps[INPUT], self._starts[INPUT] = start.detach().contiguous(), start
            # A layer may overwrite its input, which autograd allows for a copy of the leaf only.
            return call(self.module, start.clone() if start.requires_grad else start, self.extra)

        with with_gradients(self.module, self.gradients), ExitStack() as stack:
            for name, layer in self.layers.items():
                stack.enter_context(hooked(layer, partial(self._keep, name)))
            # So the output has a graph even if the stem runs under the network's own no_grad.
            for parameter in (p for name in self._uncut for p in self.layers[name].parameters()):
                parameter.requires_grad_(parameter.is_floating_point())
                stack.callback(parameter.requires_grad_, False)
            return in_fast_layout(run, self.inputs)

    def _keep(self, name: str, output: Any, in_place: bool) -> Any:
        """Keep a layer's map; return what the network goes on with. ``in_place``: see ``hooked``."""
        if name in self.maps:
            raise ValueError(
                f"expected a layer that runs once in a pass, got {name!r}, which runs more than once: "
                "name the block around it, or put an nn.Identity where the pass in question leaves it; a "
                "second input that is not explained goes in as extra="
            )
        value, count = first_tensor(output), len(self.inputs)
        rows = self.arrange is not None or (value is not None and value.shape[:1] == (count,))
        if value is None or not rows or not (self.arrange or self.any_shape or value.ndim == 4):
            raise ValueError(_SHAPE.format(count, name, None if value is None else tuple(value.shape)))
        if value.requires_grad or not self.gradients:
            # Keep a copy of the values and the graph edge: an in-place module may follow.
            self.maps[name] = value.detach().clone(memory_format=torch.contiguous_format)
            if self.gradients:
                self._starts[name] = get_gradient_edge(value)
            # A clone protects what autograd saved. Not where hooks may have stored this very tensor.
            return output if self._uncut else replace_tensor(output, value, value.clone())
        if not value.is_floating_point():
            raise ValueError(f"expected floating-point maps at layer {name!r}, got {value.dtype}: {UNUSED}")
        if len(tensors_in(output)) > 1:
            self._related.add(name)
        with torch.enable_grad():  # the layer may run under the network's own no_grad
            shared = in_place or name in self._uncut  # others hold this tensor: write the leaf back into it
            # A copy, because the network may keep this tensor, and overwrite it later.
            leaf = value.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
            self.maps[name], self._starts[name] = leaf.detach(), leaf
            if shared:
                value.copy_(leaf)
                return output
            return replace_tensor(output, value, leaf.clone())

    def capture(self, target: Target, *, last: bool = True) -> Capture:
        """Equation 2 for ``target``. ``last``: the graph may be freed."""
        with with_gradients(self.module, self.gradients):  # gradient checkpointing runs forward again
            scores, resolved = scores_of(self.output, target, len(self.inputs), self.read)
            gradients = self._gradients(scores, resolved, last) if self.gradients else {}
        named = {"scores of the target": scores}
        named |= {f"maps at layer {name!r}": value for name, value in self.maps.items()}
        named |= {f"gradients at layer {name!r}": value for name, value in gradients.items()}
        if not all_finite(*named.values()):
            first = next(what for what, value in named.items() if not all_finite(value))
            raise ValueError(f"expected finite {first}, got NaN or infinity: check the weights and the input")
        maps = {name: self._arranged(name, value) for name, value in self.maps.items()}
        maps = {name: value.expand(len(scores), *value.shape[1:]) for name, value in maps.items()}
        logits = scores if first_tensor(self.output) is None else self.read(self.output)
        return Capture(logits.detach(), scores.detach(), resolved, maps, gradients)

    @property
    def rearranged(self) -> bool:
        """Whether a layer's output was not (N, K, …) as it came."""
        return any(self._arranged(name, value) is not value for name, value in self.maps.items())

    def _arranged(self, name: str, value: Tensor) -> Tensor:
        """A layer's output, or its gradient, as maps of the N images."""
        maps = value if self.arrange is None or name == INPUT else self.arrange(value, name)
        if len(maps) != len(self.inputs):
            raise ValueError(_SHAPE.format(len(self.inputs), name, tuple(maps.shape)))
        return maps

    def _gradients(self, scores: Tensor, target: Resolved, last: bool) -> dict[str, Tensor]:
        """By layer, (T, K, h, w) each."""
        starts: list[Any] = [self._starts[name] for name in self.maps]
        values: Sequence[Tensor | None] = [None] * len(starts)
        if scores.requires_grad and len(scores) == len(self.inputs):
            # Images do not influence each other, so the gradient of the sum holds that of each image.
            values = torch.autograd.grad(scores.sum(), starts, retain_graph=not last, allow_unused=True)
        elif scores.requires_grad:
            assert isinstance(target, Tensor)  # a function returns one score per image
            values = self._gradients_of_classes(target, starts)
        gradients, several = {}, len(scores) != len(self.inputs)
        for name, value in zip(self.maps, values, strict=True):
            if value is not None:
                parts = list(value) if several else [value]  # of several classes, (T, 1, K, h, w)
                maps = [self._arranged(name, part) for part in parts]
                joined = value.flatten(0, int(several)) if maps[0] is parts[0] else torch.cat(maps)
                gradients[name] = joined.contiguous()
            elif not self.skip_idle:
                raise ValueError(f"expected a gradient from the score to layer {name!r}, got none: {UNUSED}")
        return gradients

    def _gradients_of_classes(self, classes: Tensor, starts: list[Any]) -> Sequence[Tensor | None]:
        """For a single image, one gradient per class: (T, 1, K, h, w) each, in one batched backward pass."""
        # Differentiate all logits: indexed scores would be taken one class at a time.
        logits = self.read(self.output)
        vectors = F.one_hot(classes, logits.shape[1]).to(logits.dtype).unsqueeze(1)
        backward = partial(torch.autograd.grad, logits, starts, retain_graph=True, allow_unused=True)
        if self.batched:
            try:
                return backward(vectors, is_grads_batched=True)
            except Exception as error:  # vmap asserts, or raises what a user's own backward raises
                if is_out_of_memory(error):
                    raise
                self.batched = False
                warnings.warn(
                    "the network has an operation whose gradients cannot be batched, so each class takes its "
                    f"own backward pass ({next(iter(str(error).splitlines()), type(error).__name__)})",
                    stacklevel=2,
                )
        rows = zip(*(backward(vector) for vector in vectors), strict=True)
        columns = [[value for value in column if value is not None] for column in rows]
        return [torch.stack(column) if column else None for column in columns]


def all_finite(*tensors: Tensor) -> bool:
    """Whether no tensor holds NaN or infinity; True while a graph is traced."""
    if get_proxy_mode() is not None:
        return True
    # A finite sum means finite values, and is fast; an infinite one may be overflow, so look at the values.
    sums = [tensor.detach().sum() for tensor in tensors]
    pairs = zip(torch.stack([total.to(sums[0].device) for total in sums]).tolist(), tensors, strict=True)
    return all(math.isfinite(total) or bool(tensor.isfinite().all()) for total, tensor in pairs)
