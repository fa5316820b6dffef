"""The network's response to the salient part of an image, and to the rest."""

from torch import Tensor

from gmcam.metrics.localisation import check_alike, salient_area

ZONES = ("soft", "hard")


def drop(before: Tensor, after: Tensor) -> Tensor:
    """``max(0, Y − O) / Y``: the share of the class's probability that is lost; NaN for 0/0.
    ``before`` Y, ``after`` O: (N,) in [0, 1], or ``ValueError``. Source: Chattopadhay et al., WACV 2018.

    >>> gmcam.metrics.drop(torch.tensor([0.5, 0.5]), torch.tensor([0.125, 0.75])).tolist()
    [0.75, 0.0]
    """
    check_alike(1, before=before, after=after)
    return (before - after).clamp(min=0) / before


def increase(before: Tensor, after: Tensor) -> Tensor:
    """``O > Y``: 1 if the probability rose, else 0. Errors and source as ``drop``.

    >>> gmcam.metrics.increase(torch.tensor([0.5, 0.5]), torch.tensor([0.125, 0.75])).tolist()
    [0.0, 1.0]
    """
    check_alike(1, before=before, after=after)
    return (after > before).to(before.dtype)


def zones(inputs: Tensor, maps: Tensor, zone: str = "soft", threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """The salient image and the context image, in the network's normalised input space.
    ``soft``: ``x ⊙ S`` and ``x ⊙ (1 − S)``, Grad-CAM++'s way; ``hard``: with ``salient_area(S, threshold)``
    for ``S``. ``inputs`` (N, 3, H, W), ``maps`` (N, H, W) in [0, 1] → two (N, 3, H, W). ``ValueError`` for
    another zone or shapes that do not fit.

    >>> salient, context = gmcam.metrics.zones(torch.ones(1, 3, 1, 2), torch.tensor([[[0.25, 1.0]]]))
    >>> salient[0, 0].tolist(), context[0, 0].tolist()
    ([[0.25, 1.0]], [[0.75, 0.0]])
    """
    if zone not in ZONES:
        raise ValueError(f"expected zone to be {' or '.join(ZONES)}, got {zone!r}: choose one")
    if inputs.ndim != 4 or (len(inputs), *inputs.shape[2:]) != tuple(maps.shape):
        shapes = f"{tuple(inputs.shape)} and {tuple(maps.shape)}"
        raise ValueError(f"expected inputs (N, 3, H, W) and maps (N, H, W), got {shapes}: match their sizes")
    share = (maps if zone == "soft" else salient_area(maps, threshold)).unsqueeze(1).to(inputs.dtype)
    return inputs * share, inputs * (1 - share)
