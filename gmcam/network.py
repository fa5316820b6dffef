"""A network with what an explanation needs: preprocessing, class names, layers."""

import difflib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from gmcam._hooks import COMPILED, find_layer, forward, refuse_scripted, without_gradients
from gmcam.capture import Layer, all_finite
from gmcam.layers import discover
from gmcam.outputs import Target, probabilities
from gmcam.preprocessing import Preprocessing
from gmcam.reading import ImageSource, open_image

Images = Tensor | ImageSource | Sequence[ImageSource | Tensor]


class Network:
    """A classifier: a module, its preprocessing, its class names and its layers.

    ``module``: any ``torch.nn.Module`` from (N, 3, H, W) to logits; a compiled one is used as the module it
    was compiled from. ``preprocess``: from an RGB image to (3, H, W); without it, only tensors are accepted.
    ``classes``: one name per logit; without them, classes are named by index. ``input_shape``: of the noise
    on which the network runs once to list its layers. ``reshape``: for a transformer, from a layer's tokens
    to maps (N, K, h, w). ``layer``: the default layer, where it is not the last map.

    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    >>> network = gmcam.Network(module, name="tiny", classes=["cat", "cup"], input_shape=(3, 8, 8))
    >>> network.layers
    {'6x6': '0'}
    >>> network.class_index("cup")
    1
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str = "",
        preprocess: Callable[[Image.Image], Tensor] | None = None,
        classes: Sequence[str] = (),
        input_shape: tuple[int, int, int] = (3, 224, 224),
        reshape: Callable[[Tensor], Tensor] | None = None,
        layer: Layer | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"expected a torch.nn.Module, got a {type(module).__name__}: pass the model")
        refuse_scripted(module)
        self.module: nn.Module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
        self.name = name or type(self.module).__name__
        self.preprocess, self.reshape = preprocess, reshape
        self.classes, self.input_shape = tuple(classes), input_shape
        self.layer = None if layer is None else self._find(layer)

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {len(self.classes)} classes)"

    @cached_property
    def _map_layers(self) -> tuple[dict[str, tuple[int, int, int]], dict[str, str]]:
        noise = torch.rand((1, *self.input_shape), generator=torch.Generator().manual_seed(0))
        like = next(self.module.parameters(), noise)
        return discover(self.module, noise.to(like), self.reshape, self.layer)

    @property
    def map_shapes(self) -> dict[str, tuple[int, int, int]]:
        """Dotted path → (K, h, w) of every module that gives one map per pass, in the order they run."""
        return dict(self._map_layers[0])

    @property
    def layers(self) -> dict[str, str]:
        """Resolution, such as ``14x14``, → dotted path of the last map at it, shallow to deep."""
        return dict(self._map_layers[1])

    @property
    def default_layer(self) -> str:
        """Readable name of the last map."""
        return list(self.layers)[-1]

    def layer_path(self, layer: Layer | None = None) -> str:
        """Dotted path of a readable name, path or module (None: the default); ``ValueError`` if unknown."""
        if layer is None:
            return self.layers[self.default_layer]
        try:  # a dotted path or a module needs no pass to be found
            return self._find(layer)
        except ValueError as error:
            try:
                if isinstance(layer, str) and layer in self.layers:
                    return self.layers[layer]
                hint = "by resolution, " + ", ".join(f"{name} ({path})" for name, path in self.layers.items())
            except ValueError as reason:
                hint = str(reason)
            raise ValueError(f"{self.name}: {error}; {hint}") from None

    def _find(self, layer: Layer) -> str:
        return find_layer(self.module, layer.removeprefix(COMPILED) if isinstance(layer, str) else layer)[0]

    def as_maps(self, output: Tensor) -> Tensor:
        """A layer's output, or its gradient, as maps (T, K, h, w): through ``reshape`` if there is one."""
        if self.reshape is None:
            return output
        try:
            maps = self.reshape(output)
            if maps.ndim == 4 and len(maps) == len(output):
                return maps
            result = f"shape {tuple(maps.shape)}"
        except (RuntimeError, ValueError, IndexError) as error:
            result = f"the error: {error}"
        fault = f"expected reshape to turn {tuple(output.shape)} into ({len(output)}, K, h, w), got {result}"
        raise ValueError(f"{fault}: name another layer, or change reshape")

    def class_index(self, target: str | int) -> int:
        """The index of a class, from its name in any case or its index; ``ValueError`` if there is none."""
        if isinstance(target, str):
            if target in self.classes:  # ImageNet has a dog called Cardigan and a garment called cardigan
                return self.classes.index(target)
            plain, names = target.casefold(), [name.casefold() for name in self.classes]
            if plain in names:
                return names.index(plain)
            near = difflib.get_close_matches(plain, names, n=3, cutoff=0.5)
            near += [name for name in names if plain in name and name not in near][:3]
            lead, similar = ("the closest are", near) if near else ("choose one, as", [*self.classes[:3]])
            hint = f"{lead} {', '.join(similar)}" if names else "without class names, pass an index"
            raise ValueError(f"expected a class of {self.name}, got {target!r}: {hint}")
        if isinstance(target, bool) or not hasattr(target, "__index__"):
            raise ValueError(f"expected a class name or index, got {target!r}: pass one of these")
        if self.classes and not (last := len(self.classes) - 1) >= target >= 0:
            raise ValueError(f"expected a class of {self.name} from 0 to {last}, got {target}: choose one")
        return target

    def class_name(self, index: int) -> str:
        """The name of a class, or "class 7" where the network has no names."""
        return self.classes[index] if self.classes else f"class {index}"

    def target_indices(self, target: Target | str | Sequence[str | int]) -> Target:
        """Class names as indices; functions, tensors and None unchanged."""
        if isinstance(target, str | int) and not isinstance(target, bool):
            return self.class_index(target)
        if isinstance(target, list | tuple):
            return torch.tensor([self.class_index(each) for each in target], dtype=torch.long)
        return cast(Target, target)

    def check_class_names(self, logits: int) -> None:
        """Raise ``ValueError`` unless there is a name for each logit, or none at all."""
        if self.classes and len(self.classes) != logits:
            raise ValueError(f"expected {logits} class names, got {len(self.classes)}: name each logit")

    def prepare(self, image: Images) -> Tensor:
        """One batch (N, 3, H, W) of images or tensors, on the network's device and in its dtype. Raises
        ``ValueError`` for wrong shapes and types, an empty list, and values that are not finite."""
        items: Sequence[Any] = image if isinstance(image, list | tuple) else [image]
        if not items:
            raise ValueError("expected at least one image, got an empty list: pass one")
        if items is image and all(isinstance(item, Tensor) for item in items):
            image = _stacked(items, "got")
        if isinstance(image, Tensor):
            batch = image.unsqueeze(0) if image.ndim == 3 else image
            if batch.ndim != 4 or batch.shape[1] != self.input_shape[0] or not batch.is_floating_point():
                shapes = f"(N, {self.input_shape[0]}, H, W), got {image.dtype} {tuple(image.shape)}"
                raise ValueError(f"expected a preprocessed floating-point tensor {shapes}: convert it")
        elif self.preprocess is None:
            raise ValueError(f"expected a tensor, as {self.name} has no preprocessing, got an image: add one")
        else:
            batch = _stacked([self.preprocess(open_image(item)) for item in items], "got from preprocessing")
        like = next((p for p in self.module.parameters() if p.is_floating_point()), batch)
        batch = batch.to(like.dtype)  # first, because a value finite in one type may be infinite in another
        if not all_finite(batch):
            raise ValueError(f"expected a finite input, got NaN or infinity in {batch.dtype}: check it")
        return batch.to(like.device)

    def probabilities(self, image: Images) -> Tensor:
        """Softmax of the logits: (N, classes), float32. The module runs in evaluation mode."""
        with without_gradients(self.module):
            return probabilities(forward(self.module, self.prepare(image))).float()

    def view(self, image: ImageSource) -> Image.Image:
        """The part of an image that the network sees, at the image's resolution."""
        opened = open_image(image)
        return self.preprocess.view(opened) if isinstance(self.preprocess, Preprocessing) else opened


def _stacked(tensors: Sequence[Tensor], source: str) -> Tensor:
    shapes = sorted({str(tuple(t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in tensors})
    if len(shapes) > 1 or not isinstance(tensors[0], Tensor) or tensors[0].ndim != 3:
        raise ValueError(f"expected tensors (3, H, W) of one size, {source} {' and '.join(shapes)}: resize")
    return torch.stack(list(tensors))
