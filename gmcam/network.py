"""A network with what an explanation needs around it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn

from gmcam.capture import (
    COMPILED,
    all_finite,
    find_layer,
    forward,
    original,
    refuse_scripted,
    without_gradients,
)
from gmcam.layers import Layers, discover
from gmcam.preprocessing import Preprocessing
from gmcam.reading import ImageSource, open_image


class Network:
    """A classifier: a module, its preprocessing, its class names and its layers.

    ``module``: any ``torch.nn.Module`` from (N, 3, H, W) to logits; in place of what ``torch.compile``
    made of a module, the module itself. ``preprocess``: from an RGB picture to (3, H, W); without it,
    only tensors are taken. ``classes``: one name per logit; without them, classes are called by index.
    ``input_shape``: of the noise on which the network is run once to find its layers, when they are
    first asked for. ``reshape``: for a transformer, from a layer's tokens to maps (N, K, h, w).
    ``layer``: dotted path of the default layer, where it is not the last map.

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
        layer: str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"a network is made from a torch.nn.Module, not a {type(module).__name__}")
        refuse_scripted(module)
        self.module = original(module)
        self.name = name or type(self.module).__name__
        self.preprocess = preprocess
        self.classes = tuple(classes)
        self.input_shape = input_shape
        self.reshape = reshape
        if layer is not None:
            layer = layer.removeprefix(COMPILED)
            find_layer(self.module, layer)
        self.layer = layer

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {len(self.classes)} classes)"

    @cached_property
    def found(self) -> Layers:
        """Every module that gives a map, found by running the network once."""
        first = next(self.module.parameters(), torch.empty(0))
        generator = torch.Generator().manual_seed(0)  # leaves the global random state alone
        noise = torch.rand((1, *self.input_shape), generator=generator)
        noise = noise.to(first.device, first.dtype)
        return discover(self.module, noise, reshape=self.reshape, last=self.layer)

    @property
    def layers(self) -> dict[str, str]:
        """Resolution, such as ``14x14``, → dotted path of the last map at it, shallow to deep."""
        return dict(self.found.stages)

    @property
    def default_layer(self) -> str:
        """Readable name of the last convolutional map."""
        return list(self.layers)[-1]

    def layer_path(self, layer: str | None = None) -> str:
        """The dotted path of a layer given by readable name or dotted path; None is the default.

        Raises ``ValueError`` that lists the layers where there is none of that name.
        """
        if layer is None:
            return self.layers[self.default_layer]
        layer = layer.removeprefix(COMPILED)
        try:  # a dotted path needs no run to be found
            find_layer(self.module, layer)
            return layer
        except ValueError as error:
            try:
                if layer in self.layers:
                    return self.layers[layer]
                hint = "by resolution, " + ", ".join(f"{name} ({path})" for name, path in self.layers.items())
            except ValueError as reason:
                hint = str(reason)
            raise ValueError(f"{self.name}: {error}; {hint}") from None

    def as_maps(self, output: Tensor) -> Tensor:
        """A layer's output, or its gradient, as maps (T, K, h, w): through ``reshape`` if there is one."""
        if self.reshape is None:
            return output
        try:
            maps = self.reshape(output)
            made = f"it made {tuple(maps.shape)}"
            if maps.ndim == 4 and len(maps) == len(output):
                return maps
        except (RuntimeError, ValueError, IndexError) as error:
            made = str(error)
        raise ValueError(
            f"reshape does not fit a layer's output of shape {tuple(output.shape)}: {made}, "
            f"and not maps ({len(output)}, K, h, w)"
        )

    def class_index(self, target: str | int) -> int:
        """The index of a class given by name (upper or lower case alike) or index.

        Raises ``ValueError`` with the closest names for an unknown one.
        """
        if isinstance(target, str):
            if target in self.classes:  # ImageNet has a dog called Cardigan and a garment called cardigan
                return self.classes.index(target)
            names = [name.casefold() for name in self.classes]
            if target.casefold() in names:
                return names.index(target.casefold())
            near = difflib.get_close_matches(target.casefold(), names, n=3, cutoff=0.5)
            near += [name for name in names if target.casefold() in name and name not in near][:3]
            hint = f"closest: {', '.join(near)}" if near else f"for example {', '.join(self.classes[:3])}"
            if not self.classes:
                hint = "it has no class names, so give an index"
            raise ValueError(f"{self.name} has no class called {target!r}; {hint}")
        if isinstance(target, bool) or not hasattr(target, "__index__"):
            raise ValueError(f"a class goes by name or index, not by {target!r}")
        if self.classes and not 0 <= target < len(self.classes):
            raise ValueError(
                f"class {target} is out of range: {self.name} has {len(self.classes)} classes, "
                f"0 to {len(self.classes) - 1}"
            )
        return target

    def class_name(self, index: int) -> str:
        """The name of a class, or its index in words where the network has no names."""
        return self.classes[index] if self.classes else f"class {index}"

    def prepare(self, images: Tensor | ImageSource | Sequence[ImageSource]) -> Tensor:
        """Pictures or tensors as one batch (N, 3, H, W) on the network's device, in its dtype.

        Raises ``ValueError`` for pictures without a preprocessing, tensors of a wrong shape or
        type, an empty list, and values that are not finite.
        """
        if isinstance(images, Tensor):
            batch = images.unsqueeze(0) if images.ndim == 3 else images
            if batch.ndim != 4 or batch.shape[1] != self.input_shape[0] or not batch.is_floating_point():
                raise ValueError(
                    f"a tensor of pictures is floating-point (N, {self.input_shape[0]}, H, W), "
                    f"already preprocessed; this one is {images.dtype} {tuple(images.shape)}"
                )
        else:
            many = isinstance(images, list | tuple)
            pictures = cast(Sequence[ImageSource], images if many else [images])
            if not pictures:
                raise ValueError("the list of pictures is empty")
            if self.preprocess is None:
                raise ValueError(f"{self.name} has no preprocessing; give a tensor (N, 3, H, W)")
            made = [self.preprocess(open_image(one)) for one in pictures]
            shapes = {str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in made}
            if len(shapes) > 1 or not isinstance(made[0], Tensor) or made[0].ndim != 3:
                raise ValueError(
                    "preprocessing gives tensors (3, H, W), alike for all pictures; "
                    f"that of {self.name} gives {' and '.join(sorted(shapes))}"
                )
            batch = torch.stack(made)
        like = next((p for p in self.module.parameters() if p.is_floating_point()), batch)
        batch = batch.to(like.dtype)  # first, since what one type holds may be infinite in another
        if not all_finite(batch):
            raise ValueError(f"the input holds NaN or infinite values, as {batch.dtype}")
        return batch.to(like.device)

    def probabilities(self, images: Tensor | ImageSource | Sequence[ImageSource]) -> Tensor:
        """Softmax of the logits: (N, classes) float32. The module runs in evaluation mode."""
        inputs = self.prepare(images)
        with without_gradients(self.module):
            logits = forward(self.module, inputs)
        return logits.float().softmax(1)

    def view(self, image: ImageSource) -> Image.Image:
        """The part of a picture that the network sees, at the picture's own resolution."""
        picture = open_image(image)
        return self.preprocess.view(picture) if isinstance(self.preprocess, Preprocessing) else picture
