"""``load``: a network by name. ``wrap``: a network around any module."""

import runpy
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import shorten
from typing import Any, cast
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gmcam.capture import Layer
from gmcam.hub import first_line, preprocessing_of, settings, timm_module
from gmcam.network import Network
from gmcam.outputs import Meaning

TIMM = "timm:"  # before the name of a model of timm
ENTRY_POINTS = "gmcam.networks"  # other packages, and the book's laboratory, register networks here


def load(name: str, weights: str = "DEFAULT") -> Network:
    """A trained network by name: a registered one, such as ``collage-vgg``, torchvision's or timm's.

    ``name``: of timm's, with "timm:" before it, such as ``"timm:convnext_tiny"``. ``weights``: of
    torchvision's networks, a name of their enum such as ``"IMAGENET1K_V1"``; read from
    ``$TORCH_HOME/hub/checkpoints``, or downloaded there with a progress bar and a hash check. Raises
    ``ValueError`` for an unknown name, a damaged file or a failed download, with what to do.

    >>> network = gmcam.load("collage-vgg")
    >>> network
    Network('collage-vgg', 8 classes)
    >>> network.classes[:3]
    ('cat', 'cup', 'flower')
    """
    registered = entry_points(group=ENTRY_POINTS)
    if name in registered.names or name.startswith(TIMM):
        if weights != "DEFAULT":
            raise ValueError(f"expected no weights for {name}, got {weights!r}: it has one set, leave it out")
        if name.startswith(TIMM):
            return wrap(timm_module(name.removeprefix(TIMM)), name=name)
        return cast(Network, registered[name].load()(name))
    import torchvision

    if name not in torchvision_names():
        known = f"{', '.join(sorted(registered.names))}, timm's with timm: before the name, and torchvision's"
        fault = f"expected the name of a network, got {name!r}: there are {known}"
        raise ValueError(f"{fault} {', '.join(torchvision_names())}")
    available = torchvision.models.get_model_weights(name).__members__
    if weights not in available:
        raise ValueError(f"expected weights of {name}, got {weights!r}: there are {', '.join(available)}")
    if (classes := available[weights].meta["categories"]) is None:
        raise ValueError(f"expected weights with a classifier, got {weights} of {name}: name others")
    module = _pretrained(name, available[weights]).eval()
    return wrap(module, available[weights].transforms(), classes, name=name)


def wrap(
    module: nn.Module,
    processor: Any = None,
    classes: Sequence[str] | None = None,
    *,
    name: str = "",
    input_shape: tuple[int, ...] | None = None,
    reshape: Callable[[Tensor], Tensor] | None = None,
    layer: Layer | None = None,
    output: Meaning = "softmax",
) -> Network:
    """A ``Network`` around any ``module`` from (N, 3, H, W) to logits: torchvision's, timm's, Hugging Face's.

    ``processor``: from an RGB image to (3, H, W), or an image processor of Hugging Face; one that resizes,
    crops and normalises becomes a ``Preprocessing``, which also places masks and boxes. ``classes``: one name
    per logit; of a CLIP, the texts. A model of timm brings preprocessing, ImageNet's classes, input shape and
    prefix tokens; one of Hugging Face classes, input shape, prefix tokens, and ``output="sigmoid"`` where its
    configuration declares several labels. Every argument overrides them; arguments and errors are as in
    ``Network``. ``input_shape`` is what the processor returns, else the model's, else (3, 224, 224).

    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    >>> network = gmcam.wrap(module, gmcam.Preprocessing(resize=8, crop=8), ["cat", "cup"])
    >>> gmcam.explain(network, gmcam.lab.photo("chelsea"), "cat").maps.shape
    torch.Size([1, 8, 8])
    """
    preprocess, shape = preprocessing_of(processor)
    module, known = settings(getattr(module, "_orig_mod", module), processor, classes, shape)
    given: Any = {"preprocess": preprocess, "classes": classes, "name": name or None, "reshape": reshape}
    given |= {"input_shape": input_shape or shape, "layer": layer}
    known |= {key: value for key, value in given.items() if value is not None}
    return Network(module, **known if output == "softmax" else known | {"output": output})


def build(file: Path, name: str) -> nn.Module:
    """The module that ``name`` in a Python ``file`` is, or returns; ``ValueError`` if there is none."""
    described = f"{name or 'a function'} in {file}"
    try:
        sys.path.insert(0, str(file.resolve().parent))  # the file may import its neighbours
        entry = runpy.run_path(str(file), run_name=file.stem)[name]
        module = entry if isinstance(entry, nn.Module) else entry()
    except Exception as error:  # whatever the file's own code raises
        fault = f"expected {described} that returns a torch.nn.Module, got {type(error).__name__}"
        remedy = "pass FILE.py:FUNCTION, a function without arguments"
        raise ValueError(f"{fault}: {first_line(error)}: {remedy}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(module, nn.Module):
        fault = f"expected {described} to return a torch.nn.Module, got a {type(module).__name__}"
        raise ValueError(f"{fault}: return the model")
    return module.eval()


def untrained(name: str, classes: Sequence[str] = ()) -> nn.Module:
    """A module of timm or torchvision without its weights, with one logit per class; for ``read_weights``."""
    options = {"num_classes": len(classes)} if classes else {}
    if name.startswith(TIMM):
        return timm_module(name.removeprefix(TIMM), pretrained=False, **options)
    import torchvision

    if name not in torchvision_names():
        fault = f"expected a network of timm or torchvision for a file of weights, got {name!r}"
        raise ValueError(f"{fault}: choose one, or pass FILE.py:FUNCTION")
    return cast(nn.Module, torchvision.models.get_model(name, weights=None, **options).eval())


def read_weights(module: nn.Module, path: Path) -> None:
    """Load a file of tensors: safetensors, or what ``torch.save`` wrote of a state dict.

    A state dict may be in a checkpoint's "state_dict" or "model", and its names may have a prefix in common,
    as under DataParallel. ``ValueError`` for a file that does not fit or holds anything but tensors."""
    try:
        is_safe = path.suffix == ".safetensors"
        state: Any = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
        inside = [state[key] for key in ("state_dict", "model") if isinstance(state.get(key), dict)]
        state, names = [*inside, state][0], module.state_dict().keys()
        while not names & state.keys() and len({key.split(".")[0] for key in state}) == 1:
            state = {key.partition(".")[2]: value for key, value in state.items()}
        module.load_state_dict(state)
    except Exception as error:  # safetensors, the unpickler and load_state_dict raise different kinds
        reason = shorten(" ".join(str(error).split()) or type(error).__name__, 240)
        fault = f"expected weights of {type(module).__name__} in {path}, which cannot be loaded ({reason})"
        raise ValueError(f"{fault}: save the state_dict of the same network") from error


def torchvision_names() -> list[str]:
    """Torchvision's classification networks."""
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
        return cast(nn.Module, torchvision.models.get_model(name, weights=weights))
    except Exception as error:  # urllib, the hash check and the unpickler raise different kinds
        if existed:
            fault = f"expected weights of {name} in {path}, which cannot be loaded ({first_line(error)})"
            raise ValueError(f"{fault}: delete it and try again") from error
        fault = f"expected to download the weights of {name}, and it failed ({first_line(error)})"
        raise ValueError(f"{fault}: put {path.name} from {weights.url} into {path.parent}") from error
