"""What ``wrap`` and ``load`` read from models of timm and Hugging Face, and from image processors.

Neither package is imported before a model of it is used, or the name of one."""

import difflib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import product
from math import floor
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor, nn
from torch.nn import functional as F

from gmcam._extras import require
from gmcam._hooks import without_gradients
from gmcam.preprocessing import Preprocessing
from gmcam.reshape import Reshape, tokens

Processor = Callable[[Image.Image], Tensor]
SIZE = (512, 256)  # of the images that measure a processor: whole numbers of pixels per colour level
TOLERANCE = 1 / 255  # mean difference in colour, because libraries round differently
# In Hugging Face's models: the parameters that stand before the patches; fields of several resolutions.
PREFIXES = ("cls_token", "class_embedding", "distillation_token", "register_tokens")
HIERARCHICAL = ("depths", "hidden_sizes")


def timm_module(name: str, *, pretrained: bool = True, **options: Any) -> nn.Module:
    """A model of timm in evaluation mode; ``ValueError`` if there is none, or its weights cannot be had."""
    timm = require("timm", "hub")
    architecture = name.partition(".")[0]
    if ":" not in name and not timm.is_model(architecture):  # a colon is in the address of a hub
        near = difflib.get_close_matches(architecture, timm.list_models(), 3) or ["convnext_tiny"]
        raise ValueError(f"expected the name of a timm model, got {name!r}: such as {', '.join(near)}")
    try:
        return cast(nn.Module, timm.create_model(name, pretrained=pretrained, **options).eval())
    except Exception as error:  # of urllib, httpx, the hub or timm
        fault = f"expected to load timm's {name}, and it failed ({first_line(error)})"
        remedy = "go online once, or pass a model from timm.create_model to gmcam.wrap"
        if isinstance(error, RuntimeError):  # timm's own, such as for a tag without weights
            remedy = "choose one of timm.list_pretrained()"
        raise ValueError(f"{fault}: {remedy}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def settings(
    module: nn.Module, processor: Any, classes: Sequence[str] | None, shape: tuple[int, ...] | None
) -> tuple[nn.Module, dict[str, Any]]:
    """``module`` as a classifier of images, and the arguments of ``Network`` that its library knows.

    ``shape``: (C, H, W) of what the processor returns, if there is one."""
    if comes_from(module, "transformers"):  # first, because it also wraps models of timm
        return _hugging_face(module, processor, classes, shape)
    if comes_from(module, "torchvision") and type(module).__name__ == "VisionTransformer":
        return module, {"reshape": tokens(prefix=1)}
    return module, _timm(module) if comes_from(module, "timm") else {}


def _timm(module: Any) -> dict[str, Any]:
    from torchvision.models import ResNet18_Weights

    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    known: dict[str, Any] = {}
    if getattr(module, "pretrained_cfg", None):
        data = import_module("timm.data")
        config = data.resolve_data_config(model=module)
        channels = config["input_size"][0] if first is None else first.in_channels
        config["input_size"] = shape = (channels, *(size or config["input_size"][1:]))
        known = {"name": module.pretrained_cfg.get("architecture", ""), "input_shape": shape}
        if channels == 3 and shape[1] == shape[2] and config["crop_mode"] == "center":
            resize, filtering = floor(shape[1] / config["crop_pct"]), config["interpolation"].upper()
            colours = tuple(config["mean"]), tuple(config["std"])
            known["preprocess"] = Preprocessing(resize, shape[1], *colours, Resampling[filtering])
        elif channels == 3:
            known["preprocess"], _ = measured(data.create_transform(**config))
        if module.num_classes == 1000:
            known["classes"] = ResNet18_Weights.DEFAULT.meta["categories"]
    elif size and first is not None:
        known["input_shape"] = (first.in_channels, *size)
    # Where the class token and registers join before the first block, all blocks have them.
    prefix = getattr(module, "num_prefix_tokens", 0)
    if prefix and hasattr(module, "_pos_embed") and _convolutions(module) <= 1:
        known["reshape"] = _tokens(prefix, *module.patch_embed.grid_size)
    return known


def _hugging_face(
    module: Any, processor: Any, classes: Sequence[str] | None, shape: tuple[int, ...] | None
) -> tuple[nn.Module, dict[str, Any]]:
    vision = getattr(module.config, "vision_config", module.config)
    size, patch = (getattr(vision, name, None) for name in ("image_size", "patch_size"))
    size, patch = ((side, side) if isinstance(side, int) else side for side in (size, patch))
    known: dict[str, Any] = {"name": type(module).__name__}
    if size:
        known["input_shape"] = (getattr(vision, "num_channels", 3), *size)
    if hasattr(module, "get_text_features") and hasattr(module, "get_image_features"):
        module = ImageTextSimilarity(module, processor, classes, shape or known["input_shape"])
        known["output"] = "sigmoid" if module.pairwise else "softmax"
    elif any(re.search("For[A-Z]", kind.__name__) for kind in type(module).__mro__):  # not ViTModel and such
        known["classes"] = [str(name) for _, name in sorted((module.config.id2label or {}).items())]
        if getattr(module.config, "problem_type", None) == "multi_label_classification":
            known["output"] = "sigmoid"
    one_grid = not any(hasattr(vision, name) for name in HIERARCHICAL) and _convolutions(module) <= 1
    if size and patch and one_grid:
        named = [(name.rpartition(".")[2], parameter) for name, parameter in module.named_parameters()]
        prefix = sum(1 if p.ndim == 1 else p.shape[1] for name, p in named if name in PREFIXES)
        known["reshape"] = _tokens(prefix, size[0] // patch[0], size[1] // patch[1])
    return module, known


def _tokens(prefix: int, height: int, width: int) -> Reshape:
    return tokens(prefix, None if height == width else (height, width))  # a square at any input size


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d) for part in module.modules())


class ImageTextSimilarity(nn.Module):
    """A classifier from a CLIP: one logit per text, the scaled cosine similarity of image and text.

    ``texts``: encoded once by ``processor``. The layers keep their names in ``model``."""

    def __init__(
        self, model: Any, processor: Any, texts: Sequence[str] | None, shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        name = type(model).__name__
        if not texts or not hasattr(processor, "tokenizer"):
            given = f"classes={texts!r} and a {type(processor).__name__}"
            fault = f"expected texts and their tokenizer for {name}, got {given}"
            raise ValueError(f"{fault}: pass its processor, and texts such as 'a photo of a cat'")
        words = processor.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        like = next(model.parameters())
        with without_gradients(model):
            inputs = {key: value.to(like.device) for key, value in words.items()}
            output = model(**inputs, pixel_values=torch.zeros(1, *shape).to(like))
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", nn.Identity())
        self.pairwise = hasattr(model, "logit_bias")
        scale = model.logit_scale.exp() if hasattr(model, "logit_scale") else 1 / model.temperature
        bias = model.logit_bias if self.pairwise else torch.zeros_like(scale)
        kept = (value.detach().clone() for value in (output.text_embeds, scale, bias))
        self.texts, self.scale, self.bias = map(nn.Buffer, kept)

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = self.visual_projection(self.vision_model(pixel_values).pooler_output)
        return F.normalize(features, dim=-1) @ self.texts.T * self.scale + self.bias


@dataclass(frozen=True)
class Processed(Preprocessing):
    """The ``processor`` of another library, with the geometry that places masks and boxes to the pixel or so.

    ``squashes``: its own ``squash``. A copy with another one does without the processor."""

    processor: Any = field(default=None, repr=False)
    squashes: bool | int = False

    def __call__(self, image: Image.Image) -> Tensor:
        if self.squash != self.squashes:
            return super().__call__(image)
        return cast(Tensor, self.processor(image))


def preprocessing_of(processor: Any) -> tuple[Processor | None, tuple[int, ...] | None]:
    """What turns an image into (3, H, W) for ``wrap``'s ``processor``, and its shape; None where unknown."""
    if processor is None:
        return None, None
    if hasattr(processor, "resize_size") and hasattr(processor, "crop_size"):  # torchvision's presets
        sizes = processor.resize_size[0], processor.crop_size[0]
        colours = tuple(processor.mean), tuple(processor.std)
        processor = Preprocessing(*sizes, *colours, Resampling[processor.interpolation.name])
    if isinstance(processor, Preprocessing):
        return processor, (3, processor.crop, processor.crop)
    if comes_from(processor, "transformers"):
        processor = partial(pixel_values, getattr(processor, "image_processor", processor))
    return measured(processor)


def comes_from(thing: object, package: str) -> bool:
    """Whether the class of ``thing``, or one that it inherits from, is defined in ``package``."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(thing).__mro__)


def pixel_values(processor: Any, image: Image.Image) -> Tensor:
    """(3, H, W) from an image processor of Hugging Face."""
    return cast(Tensor, processor(images=image, return_tensors="pt")["pixel_values"][0])


def measured(processor: Processor) -> tuple[Processor, tuple[int, ...] | None]:
    """``processor`` as a ``Processed`` if it resizes, crops and normalises, else itself; and its shape.

    Measured on four images: the shape is None where the processor fails on them."""
    shape = None
    with suppress(Exception):  # whatever another library raises
        black, white = (processor(Image.new("RGB", SIZE, name)) for name in ("black", "white"))
        shape = tuple(black.shape)
        low, high = (pixels.double().flatten(1).mean(1) for pixels in (black, white))
        std = 1 / (high - low)
        colours = [tuple(round(value, 6) + 0.0 for value in v.tolist()) for v in (-low * std, std)]
        # In this image red rises by column and green by row: their slopes tell the size before the crop.
        columns, rows = np.meshgrid(*map(np.arange, SIZE))
        ramp = np.stack([columns // 2, rows, np.zeros_like(rows)], 2).astype(np.uint8)
        red, green, _ = (processor(Image.fromarray(ramp)) - low[:, None, None]) * std[:, None, None]
        edge = len(red) // 4  # left out, because it may be padding
        lines = np.stack([red.mean(0), green.mean(1)], 1)[edge : len(red) - edge]
        slopes = np.polyfit(np.arange(len(lines)), lines, 1)[0].tolist()
        width, height = (256 / 255 / slope for slope in slopes)
        side, squashes = round(height), abs(width / height - 1) < 0.1
        # One with details, where every filter and every shift by a pixel makes a difference.
        noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((300, 450), Resampling.BICUBIC)
        pixels = processor(image)[None]
        errors: dict[float, Processed] = {}
        filters = Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS
        for resize, interpolation in product((side - 1, side, side + 1), filters):
            squash = squashes and (resize == len(red) or resize)
            look: Any = (*colours, interpolation, squash, processor, squash)
            guess = Processed(resize, len(red), *look)
            own = Preprocessing.__call__(guess, image)[None]
            errors[float((guess.restore(own) - guess.restore(pixels)).abs().mean())] = guess
        if min(errors) < TOLERANCE:
            return errors[min(errors)], shape
    return processor, shape
