"""A network with what an explanation needs: preprocessing, class names, layers."""

import difflib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor, nn

from gmcam._hooks import COMPILED, Extra, find_layer, forward, refuse_scripted, without_gradients
from gmcam.capture import INPUT, Layer, all_finite
from gmcam.chunks import is_out_of_memory
from gmcam.layers import CHANNELS_FIRST, OFFERS, Discovery, discover
from gmcam.outputs import MEANINGS, Meaning, Target, logits_of, probabilities
from gmcam.preprocessing import Preprocessing
from gmcam.reading import ImageSource, open_image

Images = Tensor | ImageSource | Sequence[ImageSource | Tensor]

_DISCOVERIES = WeakKeyDictionary[nn.Module, tuple[Any, Discovery]]()  # the last of each module


class Network:
    """A classifier: a module, its preprocessing, its class names and its layers.

    ``module``: any ``torch.nn.Module`` from (N, 3, H, W) to logits; a compiled one is used as the module it
    was compiled from. ``preprocess``: from an RGB image to (3, H, W); without it, only tensors are accepted.
    ``classes``: one name per logit; without them, classes are named by index. ``input_shape``: of the noise
    on which the network runs once to list its layers. ``reshape``: for a transformer, from a layer's tokens
    to maps (N, K, h, w). ``layer``: the default layer, where it is not the last map. ``output``: what the
    logits mean, "softmax" (of a single logit the sigmoid), "sigmoid" for several findings, None for no
    probabilities, or a function from the network's own output to probabilities (N, classes).

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
        input_shape: tuple[int, ...] = (3, 224, 224),
        reshape: Callable[[Tensor], Tensor] | None = None,
        layer: Layer | None = None,
        output: Meaning = "softmax",
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"expected a torch.nn.Module, got a {type(module).__name__}: pass the model")
        refuse_scripted(module)
        self.module: nn.Module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
        self.name = name or type(self.module).__name__
        if not (callable(output) or output in MEANINGS):
            raise ValueError(
                f"expected output to be one of {MEANINGS} or a function, got {output!r}: choose one"
            )
        self.preprocess, self.reshape, self.output = preprocess, reshape, output
        self.classes, self.input_shape = tuple(classes), input_shape
        self.layer = None if layer is None else self._find(layer)
        self.extra: Extra = ()  # one image's further inputs, for the pass that lists the layers; see explain

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {len(self.classes)} classes)"

    @cached_property
    def _map_layers(self) -> Discovery:
        # A module explained without a Network is listed once, not in every call.
        parts = tuple((name, id(part)) for name, part in self.module.named_modules())
        weights = tuple(0 if p.is_inference() else p._version for p in self.module.parameters())
        key = (parts, weights, self.input_shape, self.reshape, self.layer)
        last, discovery = _DISCOVERIES.get(self.module, (None, None))
        if discovery is None or last != key:
            noise = torch.rand((1, *self.input_shape), generator=torch.Generator().manual_seed(0))
            like = next((p for p in self.module.parameters() if p.is_floating_point()), noise)
            discovery = discover(self.module, noise.to(like), self.reshape, self.layer, self.extra)
            _DISCOVERIES[self.module] = key, discovery
        return discovery

    @property
    def map_shapes(self) -> dict[str, tuple[int, ...]]:
        """Dotted path → (K, h, w) of every module that gives one map per pass, in the order they run."""
        if not self._map_layers.shapes:
            raise ValueError(self._map_layers.fault)
        return dict(self._map_layers.shapes)

    @property
    def layers(self) -> dict[str, str]:
        """Resolution, such as ``14x14``, → dotted path of its last map; the default layer comes last."""
        return dict(self._map_layers.stages) if self.map_shapes else {}

    @property
    def default_layer(self) -> str:
        """Readable name of the last map before the network pools or flattens it; ``ValueError`` where maps
        end early because later layers return shapes that cannot be arranged."""
        if self._map_layers.fault:
            raise ValueError(self._map_layers.fault)
        return list(self.layers)[-1]

    def depth(self, layer: Layer | None = None) -> float:
        """The share of the layers with weights that have run when ``layer`` returns; 0 for the input."""
        if layer == INPUT:
            return 0.0
        part = self.module.get_submodule(self.layer_path(layer))
        return self._map_layers.depths.get(self._find(part), 0.0)  # by the first of its paths

    def layer_path(self, layer: Layer | None = None) -> str:
        """Dotted path of a readable name, path or module (None: the default); ``ValueError`` if unknown."""
        if layer is None:
            return self.layer or self.layers[self.default_layer]
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

    @cached_property
    def _plain(self) -> bool:
        """Convolutions and what goes with them, so that outputs are channels first."""
        kinds = (*CHANNELS_FIRST, nn.Linear, nn.PReLU)
        return all(isinstance(part, kinds) or not part._parameters for part in self.module.modules())

    def as_maps(self, output: Tensor, layer: str) -> Tensor:
        """The output of ``layer`` (a dotted path), or its gradient, as maps (N, K, h, w): by ``reshape``, or
        as its shape was understood when the layers were listed. ``ValueError`` where there is no way."""
        if self.reshape is not None:
            try:
                maps, count = self.reshape(output), getattr(self.reshape, "count", None)  # of reshape.frames
                ndim, batches = 5 if count else 1 + len(self.input_shape), [*output.shape]
                if maps.ndim == ndim and (len(maps) in batches or (count and len(maps) * count in batches)):
                    return maps
                result = f"shape {tuple(maps.shape)}"
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                result = f"the error: {error}"
            fault = f"expected reshape to turn {tuple(output.shape)} into (N, K, h, w), got {result}"
            raise ValueError(f"{fault}: name a layer other than {layer!r}, or change reshape")
        part, shaped = self.module.get_submodule(layer), output.ndim == 1 + len(self.input_shape)
        if shaped and (isinstance(part, CHANNELS_FIRST) or (self._plain and not isinstance(part, nn.Linear))):
            return output  # without a pass to list the layers
        with suppress(Exception):  # a network that cannot run on noise of this shape
            arrangements, shaped = self._map_layers.arrangements, False
            arrangement = arrangements[self._find(part)]
            return output if arrangement is None else arrangement(output)
        if shaped:
            return output
        fault = f"expected maps at layer {layer!r}, got {tuple(output.shape)}"
        raise ValueError(f"{fault}: name a layer whose output has height and width, or pass {OFFERS}")

    def class_index(self, target: str | int) -> int:
        """The index of a class, from its name in any case or its index; ``ValueError`` if there is none."""
        if isinstance(target, str):
            if target in self.classes:  # ImageNet has a dog called Cardigan and a garment called cardigan
                return self.classes.index(target)
            plain, names = target.casefold(), [name.casefold() for name in self.classes]
            if plain in names:
                return names.index(plain)
            having = [name for name in self.classes if plain in re.findall(r"\w+", name.casefold())]
            near = having or difflib.get_close_matches(plain, names, n=3, cutoff=0.5)
            near = near or [name for name in self.classes if plain in name.casefold()][:3]
            hint = "without class names, pass an index"
            if len(having) > 1:
                hint = f"choose one of {', '.join(having)}, or several: gmcam.group([...])"
            elif near:
                hint = f"the closest are {', '.join(near)}"
            elif names:
                hint = f"choose one, as {', '.join(self.classes[:3])}"
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

    def logits_of(self, output: Any) -> Tensor:
        """The logits (N, classes) in the network's own output; one logit and two names give (−z, z)."""
        return logits_of(output, len(self.classes))

    def probabilities_of(self, output: Any) -> Tensor:
        """Probabilities (N, classes) from the network's own output; ``ValueError`` for ``output=None``."""
        return probabilities(output, self.output, len(self.classes))

    def prepare(self, image: Images) -> Tensor:
        """One batch (N, 3, H, W) of images or tensors, on the network's device and in its dtype. Raises
        ``ValueError`` for wrong shapes and types, an empty list, and values that are not finite."""
        items: Sequence[Any] = image if isinstance(image, list | tuple) else [image]
        if not items:
            raise ValueError("expected at least one image, got an empty list: pass one")
        channels, *sides = self.input_shape
        form = f"({channels}, {', '.join('CDHW'[-len(sides) :]) if len(sides) > 1 else 'T'})"
        if items is image and all(isinstance(item, Tensor) for item in items):
            image = _stacked(items, "got", form, 1 + len(sides))
        if isinstance(image, Tensor):
            batch = image.unsqueeze(0) if image.ndim == len(self.input_shape) else image
            fits = batch.ndim == 1 + len(self.input_shape) and batch.shape[1] == channels
            if not fits or not batch.is_floating_point():
                shapes = f"(N, {form[1:]}, got {image.dtype} {tuple(image.shape)}"
                raise ValueError(f"expected a preprocessed floating-point tensor {shapes}: convert it")
        elif self.preprocess is None:
            raise ValueError(f"expected a tensor, as {self.name} has no preprocessing, got an image: add one")
        else:
            prepared = [self.preprocess(open_image(item)) for item in items]
            batch = _stacked(prepared, "got from preprocessing", form, 1 + len(sides))
        like = next((p for p in self.module.parameters() if p.is_floating_point()), batch)
        batch = batch.to(like.dtype)  # first, because a value finite in one type may be infinite in another
        if not all_finite(batch):
            raise ValueError(f"expected a finite input, got NaN or infinity in {batch.dtype}: check it")
        return batch.to(like.device)

    def size_of(self, inputs: Tensor) -> tuple[int, ...]:
        """The size of a saliency map for prepared ``inputs``: (H, W), (T,) or (D, H, W)."""
        frames = getattr(self.reshape, "count", None)  # of reshape.frames
        return tuple(inputs.shape[2:]) if frames is None else (frames, *inputs.shape[-2:])

    def probabilities(self, image: Images, extra: Extra = ()) -> Tensor:
        """Probabilities (N, classes), float32, as ``output`` says. The module runs in evaluation mode."""
        with without_gradients(self.module):
            return self.probabilities_of(forward(self.module, self.prepare(image), extra)).float()

    def view(self, image: ImageSource) -> Image.Image:
        """The part of an image that the network sees, at the image's resolution."""
        opened = open_image(image)
        return self.preprocess.view(opened) if isinstance(self.preprocess, Preprocessing) else opened


def _stacked(tensors: Sequence[Tensor], source: str, form: str, ndim: int) -> Tensor:
    shapes = sorted({str(tuple(t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in tensors})
    if len(shapes) > 1 or not isinstance(tensors[0], Tensor) or tensors[0].ndim != ndim:
        hint = "resize them, and pass further inputs of the network as extra="
        raise ValueError(f"expected tensors {form} of one size, {source} {' and '.join(shapes)}: {hint}")
    return torch.stack(list(tensors))
