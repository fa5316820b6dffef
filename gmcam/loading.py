"""``load``: a network by name. ``wrap``: a network around any module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from PIL import Image
from torch import Tensor, nn

from gmcam.capture import Layer
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing

ENTRY_POINTS = "gmcam.networks"  # other packages, and the book's laboratory, register networks here


def load(name: str, weights: str = "DEFAULT") -> Network:
    """A trained network by name: a registered one, such as ``collage-vgg``, or one of torchvision's.

    ``weights``: of torchvision's networks, a name of their enum such as ``"IMAGENET1K_V1"``; read from
    ``$TORCH_HOME/hub/checkpoints``, or downloaded there with a progress bar and a hash check. Raises
    ``ValueError`` for an unknown name, a damaged file or a failed download, with the file to put where.

    >>> network = gmcam.load("collage-vgg")
    >>> network
    Network('collage-vgg', 8 classes)
    >>> network.classes[:3]
    ('cat', 'cup', 'flower')
    """
    registered = entry_points(group=ENTRY_POINTS)
    if name in registered.names:
        if weights != "DEFAULT":
            raise ValueError(f"expected no weights for {name}, got {weights!r}: it has one set, leave it out")
        network: Network = registered[name].load()(name)
        return network
    import torchvision

    if name not in torchvision_names():
        known = f"{', '.join(sorted(registered.names))}, and torchvision's {', '.join(torchvision_names())}"
        raise ValueError(f"expected the name of a network, got {name!r}: there are {known}")
    available = torchvision.models.get_model_weights(name).__members__
    if weights not in available:
        raise ValueError(f"expected weights of {name}, got {weights!r}: there are {', '.join(available)}")
    if (classes := available[weights].meta["categories"]) is None:
        raise ValueError(f"expected weights with a classifier, got {weights} of {name}: name others")
    module = _pretrained(name, available[weights]).eval()
    tokens: dict[str, Any] = {}
    if name.startswith("vit_"):  # after its last attention only the class token counts: the layer is before
        layer = [path for path, _ in module.named_modules() if path.endswith("ln_1")][-1]
        tokens = {"reshape": _without_class_token, "layer": layer}
    elif name.startswith("swin_"):
        tokens = {"reshape": _channels_first, "layer": "features.7"}
    return wrap(module, available[weights].transforms(), classes, name=name, **tokens)


def wrap(
    module: nn.Module,
    processor: Callable[[Image.Image], Tensor] | None = None,
    classes: Sequence[str] | None = None,
    *,
    name: str = "",
    input_shape: tuple[int, int, int] | None = None,
    reshape: Callable[[Tensor], Tensor] | None = None,
    layer: Layer | None = None,
) -> Network:
    """A ``Network`` around any ``module`` from (N, 3, H, W) to logits.

    ``processor``: from an RGB image to (3, H, W); torchvision's ``weights.transforms()`` become a
    ``Preprocessing``, which also places masks and boxes. ``classes``: one name per logit. The rest is as in
    ``Network``; ``input_shape`` is a ``Preprocessing``'s crop, else (3, 224, 224). ``ValueError`` as there.

    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    >>> network = gmcam.wrap(module, gmcam.Preprocessing(resize=8, crop=8), ["cat", "cup"])
    >>> gmcam.explain(network, gmcam.lab.photo("chelsea"), "cat").maps.shape
    torch.Size([1, 8, 8])
    """
    if hasattr(processor, "resize_size") and hasattr(processor, "crop_size"):  # torchvision's presets
        preset: Any = processor
        resize, crop, filtering = preset.resize_size[0], preset.crop_size[0], preset.interpolation.name
        colours = tuple(preset.mean), tuple(preset.std)
        processor = Preprocessing(resize, crop, *colours, Image.Resampling[filtering])
    side = processor.crop if isinstance(processor, Preprocessing) else 224
    shape = (3, side, side) if input_shape is None else input_shape
    more: dict[str, Any] = {"input_shape": shape, "reshape": reshape, "layer": layer}
    return Network(module, name=name, preprocess=processor, classes=classes or (), **more)


def _without_class_token(tokens: Tensor) -> Tensor:
    """(N, 1 + s·s, K) → (N, K, s, s)."""
    side = math.isqrt(tokens.shape[1] - 1)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def _channels_first(tokens: Tensor) -> Tensor:
    """(N, h, w, K) → (N, K, h, w). A few layers of Swin already have channels first, and are refused."""
    if tokens.ndim != 4 or tokens.shape[1] != tokens.shape[2] == tokens.shape[3]:
        raise ValueError(f"expected (N, h, w, K), got {tuple(tokens.shape)}")
    return tokens.permute(0, 3, 1, 2)


def torchvision_names() -> list[str]:
    """Torchvision's classification networks.

    >>> from gmcam.loading import torchvision_names
    >>> "resnet50" in torchvision_names()
    True
    """
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def checkpoint(weights: Any) -> Path:
    """Where torch keeps the file of ``weights``, an entry of a weights enum."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def weights_on_disk(name: str) -> list[str]:
    """Weights on disk that have a classifier, the default first; ``ValueError`` for no torchvision name."""
    import torchvision

    if name not in torchvision_names():
        raise ValueError(f"expected the name of a torchvision network, got {name!r}: see torchvision_names()")
    available = torchvision.models.get_model_weights(name)
    present = [entry for entry in available if entry.meta["categories"] and checkpoint(entry).exists()]
    return [entry.name for entry in sorted(present, key=lambda entry: entry is not available.DEFAULT)]


def _pretrained(name: str, weights: Any) -> nn.Module:
    import torchvision

    existed = (path := checkpoint(weights)).exists()
    try:
        # Torchvision would unpickle anything; a file that holds more than tensors fails here.
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        module: nn.Module = torchvision.models.get_model(name, weights=weights)
        return module
    except Exception as error:  # urllib, the hash check and the unpickler raise different kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if existed:
            fault = f"expected weights of {name} in {path}, which cannot be loaded ({reason})"
            raise ValueError(f"{fault}: delete it and try again") from error
        fault = f"expected to download the weights of {name}, and it failed ({reason})"
        raise ValueError(f"{fault}: put {path.name} from {weights.url} into {path.parent}") from error
