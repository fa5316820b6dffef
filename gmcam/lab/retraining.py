"""Retrain the last layer of a classifier on a few images, and keep its predictions for others."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gmcam._hooks import forward, without_gradients
from gmcam.explaining import NamedTarget
from gmcam.lab.debugging import AT_ONCE, per_image
from gmcam.network import Network


def retrained(
    network: Network, inputs: Tensor, target: NamedTarget, keep: Tensor | None = None, pull: float = 0.01
) -> Network:
    """The network with its last linear layer trained further; the given network does not change.

    The loss is the cross-entropy of ``inputs`` for ``target``; for the images ``keep`` the divergence from
    the old probabilities, so that these stay; and ``pull`` times the squared change of the weights.
    30 steps of L-BFGS on stored features: the same images give the same network. Raises ``ValueError`` for a
    network without a softmax, and one whose output is not that of its last linear layer.
    """
    if network.output != "softmax":
        raise ValueError(f"expected a network with a softmax, got {network.output!r}: retrain it yourself")
    joined, indices = per_image(network, target, len(inputs))
    new = copy.copy(network)
    new.module, new.name = copy.deepcopy(network.module), f"{network.name}, retrained"
    last = _last_linear(new)
    features, kept = _features(new, last, inputs), None if keep is None else _features(new, last, keep)
    names, old = zip(*((name, p.detach().clone()) for name, p in last.named_parameters()), strict=True)
    own = [p.clone().requires_grad_() for p in old]
    optimiser = torch.optim.LBFGS(own, max_iter=30, history_size=3, line_search_fn="strong_wolfe")

    def log_probabilities(reader: Network, rows: Tensor, values: Sequence[Tensor]) -> Tensor:
        logits = torch.func.functional_call(last, dict(zip(names, values, strict=True)), (rows,))
        return reader.logits_of(logits).log_softmax(1)

    def loss() -> Tensor:
        optimiser.zero_grad()
        chosen = log_probabilities(joined, features, own).gather(1, indices[:, None].to(features.device))
        moved = [(now - p).square().sum() for now, p in zip(own, old, strict=True)]
        total = pull * torch.stack(moved).sum() - chosen.mean()
        if kept is not None:
            before = log_probabilities(network, kept, old)
            change = before - log_probabilities(network, kept, own)
            total = total + (before.exp() * change).sum(1).mean()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter, value in zip(last.parameters(), own, strict=True):
            parameter.copy_(value)
    return new


def _last_linear(network: Network) -> nn.Linear:
    layers = [part for part in network.module.modules() if isinstance(part, nn.Linear)]
    if not layers:
        raise ValueError(f"expected a last linear layer in {network.name}, got none: retrain it yourself")
    return layers[-1]


def _features(network: Network, last: nn.Linear, inputs: Tensor) -> Tensor:
    """What the last linear layer receives, (N, F); ``ValueError`` if its output is not the network's."""
    rows, outputs, logits = list[Tensor](), list[Tensor](), list[Tensor]()

    def keep(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        rows.append(arguments[0].detach())
        outputs.append(network.logits_of(output.detach()) if output.ndim == 2 else output.detach())

    hook = last.register_forward_hook(keep)
    try:
        for part in torch.split(inputs, AT_ONCE):
            with without_gradients(network.module):
                logits.append(network.logits_of(forward(network.module, network.prepare(part))))
    finally:
        hook.remove()
    if len(outputs) != len(logits) or not all(map(torch.equal, outputs, logits)):
        fault = f"expected the output of {network.name} to be that of its last linear layer"
        raise ValueError(f"{fault}, got something else: retrain it yourself")
    return torch.cat(rows)
