"""From a picture to a network's input, and back to what the network saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_ASPECT = 50


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to ``resize`` pixels, central ``crop`` × ``crop``, to [0, 1], (x − mean)/std.

    The same steps as torchvision's ``ImageClassification`` preset. ``__call__`` takes an RGB
    picture and gives float32 (3, crop, crop).
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def __call__(self, picture: Image.Image) -> Tensor:
        if max(picture.size) > MAX_ASPECT * min(picture.size):  # resizing would take all memory
            raise ValueError(
                f"a picture of {picture.width} × {picture.height} pixels is too slender; "
                f"its longer side is at most {MAX_ASPECT} times the shorter one"
            )
        resized = F.resize(picture, [self.resize], interpolation=self.interpolation, antialias=True)
        tensor = F.to_tensor(F.center_crop(resized, [self.crop, self.crop]))
        normalised: Tensor = F.normalize(tensor, list(self.mean), list(self.std))
        return normalised

    def view(self, picture: Image.Image) -> Image.Image:
        """The part of the picture that the network sees, at the picture's own resolution."""
        side = min(picture.size) * self.crop / self.resize
        whole = max(1, round(side))
        left, upper = (picture.width - whole) // 2, (picture.height - whole) // 2
        return picture.crop((left, upper, left + whole, upper + whole))

    def restore(self, inputs: Tensor) -> Tensor:
        """Undo the normalisation: (N, 3, H, W) input back to colours in [0, 1]."""
        mean = torch.tensor(self.mean, dtype=inputs.dtype, device=inputs.device)[:, None, None]
        std = torch.tensor(self.std, dtype=inputs.dtype, device=inputs.device)[:, None, None]
        return (inputs * std + mean).clamp(0, 1)
