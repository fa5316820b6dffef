"""``load``: the embedded networks by name, and torchvision's."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision.models
from torch import Tensor, nn

from gmcam.network import Network
from gmcam.preprocessing import Preprocessing


def _without_class_token(tokens: Tensor) -> Tensor:
    """(N, 1 + s·s, K) → (N, K, s, s)."""
    side = math.isqrt(tokens.shape[1] - 1)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def _channels_first(tokens: Tensor) -> Tensor:
    """(N, h, w, K) → (N, K, h, w). A few layers of these networks, which have their channels first
    already, are told by the square at the end of their shape, and refused."""
    if tokens.ndim != 4 or tokens.shape[1] != tokens.shape[2] == tokens.shape[3]:
        raise ValueError("not (N, h, w, K)")
    return tokens.permute(0, 3, 1, 2)


def _tokens(name: str, module: nn.Module) -> tuple[Callable[[Tensor], Tensor] | None, str | None]:
    """How to read the tokens of torchvision's transformers, and the layer that is theirs by default.

    In a vision transformer's last block only the class token influences the logit once attention has
    mixed them, so its layer is the normalisation before that attention.
    """
    if name.startswith("vit_"):
        return _without_class_token, [path for path, _ in module.named_modules() if path.endswith("ln_1")][-1]
    if name.startswith("swin_"):
        return _channels_first, "features.7"
    return None, None


def torchvision_names() -> list[str]:
    """Torchvision's classification networks.

    >>> from gmcam.loading import torchvision_names
    >>> "resnet50" in torchvision_names()
    True
    """
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def load(name: str, weights: str = "DEFAULT") -> Network:
    """An embedded network (``collage-vgg``, ``collage-resnet``, ``collage-vgg-biased``) or one of
    torchvision's by its name there, trained on ImageNet.

    ``weights``: for torchvision's networks, a name of their weights enum, such as
    ``"IMAGENET1K_V1"``. They are looked up in ``$TORCH_HOME/hub/checkpoints`` and downloaded with a
    progress bar and a hash check where they are not there. Raises ``ValueError`` for an unknown
    name, a damaged file, or a download that fails: it then says which file to put where.

    >>> network = gmcam.load("collage-vgg")
    >>> network
    Network('collage-vgg', 8 classes)
    >>> network.classes[:3]
    ('cat', 'cup', 'flower')
    """
    registered = entry_points(group="gmcam.networks")
    if name in registered.names:
        if weights != "DEFAULT":
            raise ValueError(f"{name} has one set of weights, its own; {weights!r} is none of it")
        network: Network = registered[name].load()(name)
        return network
    if name not in torchvision_names():
        raise ValueError(
            f"no network is called {name!r}; there are {', '.join(registered.names)}, and torchvision's: "
            f"{', '.join(torchvision_names())}"
        )
    available = torchvision.models.get_model_weights(name)
    if weights not in available.__members__:
        raise ValueError(f"{name} has weights {', '.join(available.__members__)}, not {weights!r}")
    chosen = available[weights]
    if chosen.meta["categories"] is None:
        raise ValueError(f"the weights {weights} of {name} hold no classifier; name others")
    preset = chosen.transforms()
    preprocess = Preprocessing(
        preset.resize_size[0],
        preset.crop_size[0],
        tuple(preset.mean),
        tuple(preset.std),
        preset.interpolation,
    )
    module = _pretrained(name, chosen).eval()
    reshape, layer = _tokens(name, module)
    return Network(
        module,
        name=name,
        preprocess=preprocess,
        classes=chosen.meta["categories"],
        input_shape=(3, preprocess.crop, preprocess.crop),
        reshape=reshape,
        layer=layer,
    )


def checkpoint(weights: torchvision.models.WeightsEnum) -> Path:
    """Where torch looks for a weights file before it downloads it."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def weights_on_disk(name: str) -> list[str]:
    """The weights of one of torchvision's networks that ``load`` finds without a download.

    Names of its weights enum, the default ones first; those without a classifier are left out. Raises
    ``ValueError`` for a name that torchvision does not know.
    """
    if name not in torchvision_names():
        raise ValueError(f"torchvision has no network called {name!r}")
    available = torchvision.models.get_model_weights(name)
    there = [one for one in available if one.meta["categories"] and checkpoint(one).exists()]
    return [one.name for one in sorted(there, key=lambda one: one is not available.DEFAULT)]


def _pretrained(name: str, weights: torchvision.models.WeightsEnum) -> nn.Module:
    path = checkpoint(weights)
    was_there = path.exists()
    try:
        # Torchvision would unpickle whatever the file holds; one that holds more than tensors fails here.
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        module: nn.Module = torchvision.models.get_model(name, weights=weights)
        return module
    except Exception as error:  # urllib, the hash check and the unpickler each raise their own kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if was_there:
            raise ValueError(
                f"{path} cannot be loaded as weights of {name} ({reason}); delete it and try again"
            ) from error
        raise ValueError(
            f"the weights of {name} could not be downloaded ({reason}); "
            f"put {path.name} from {weights.url} into {path.parent}"
        ) from error
