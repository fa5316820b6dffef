"""What the network makes of the salient part of an image, and of the rest."""

from __future__ import annotations

from torch import Tensor

from gmcam.metrics.localisation import _check_alike, salient_area

ZONES = ("soft", "hard")


def drop(before: Tensor, after: Tensor) -> Tensor:
    """``max(0, Y − O) / Y``: the share of the class's probability that is lost; 0/0 is NaN.

    ``before`` Y and ``after`` O, (N,) in [0, 1]. Source: Chattopadhay et al., WACV 2018. Raises
    ``ValueError`` where the shapes differ.

    >>> from gmcam.metrics import drop
    >>> drop(torch.tensor([0.5, 0.5]), torch.tensor([0.125, 0.75])).tolist()
    [0.75, 0.0]
    """
    _check_alike(before=before, after=after)
    return (before - after).clamp(min=0) / before


def increase(before: Tensor, after: Tensor) -> Tensor:
    """``O > Y``: whether the probability rose; float, 0 or 1. Raises and source as ``drop``.

    >>> from gmcam.metrics import increase
    >>> increase(torch.tensor([0.5, 0.5]), torch.tensor([0.125, 0.75])).tolist()
    [0.0, 1.0]
    """
    _check_alike(before=before, after=after)
    return (after > before).to(before.dtype)


def zones(inputs: Tensor, maps: Tensor, zone: str = "soft", threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """The salient picture and the context picture, in the network's normalised input space.

    ``soft``: ``x ⊙ S`` and ``x ⊙ (1 − S)``; ``hard``: the same with ``salient_area(S, threshold)`` in
    place of ``S``. What is taken away becomes 0, the mean colour. ``inputs`` (N, 3, H, W), ``maps`` in
    [0, 1] → two (N, 3, H, W). The article does not say how it cuts; *soft* is Grad-CAM++'s way. Raises
    ``ValueError`` for another zone or shapes that do not fit.

    >>> from gmcam.metrics import zones
    >>> salient, context = zones(torch.ones(1, 3, 1, 2), torch.tensor([[[0.25, 1.0]]]))
    >>> salient[0, 0].tolist(), context[0, 0].tolist()
    ([[0.25, 1.0]], [[0.75, 0.0]])
    """
    if zone not in ZONES:
        raise ValueError(f"a zone is {' or '.join(ZONES)}, not {zone!r}")
    if inputs.ndim != 4 or (len(inputs), *inputs.shape[2:]) != tuple(maps.shape):
        raise ValueError(
            f"inputs {tuple(inputs.shape)} are (N, 3, H, W), maps {tuple(maps.shape)} (N, H, W) of one size"
        )
    kept = (maps if zone == "soft" else salient_area(maps, threshold)).unsqueeze(1).to(inputs.dtype)
    return inputs * kept, inputs * (1 - kept)
