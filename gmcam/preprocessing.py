"""From a picture to a network's input, and back to what the network saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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
    picture and gives float32 (3, crop, crop). With ``squash`` the whole picture is brought to
    ``crop`` × ``crop`` instead, its sides out of proportion: nothing of it is cut off.

    >>> from gmcam import Preprocessing
    >>> Preprocessing(resize=256, crop=224)(gmcam.lab.photo("chelsea")).shape
    torch.Size([3, 224, 224])
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: InterpolationMode = InterpolationMode.BILINEAR
    squash: bool = False

    def __call__(self, picture: Image.Image) -> Tensor:
        if max(picture.size) > MAX_ASPECT * min(picture.size):  # resizing would take all memory
            raise ValueError(
                f"a picture of {picture.width} × {picture.height} pixels is too slender; "
                f"its longer side is at most {MAX_ASPECT} times the shorter one"
            )
        tensor = F.to_tensor(self._resized(picture, self.interpolation))
        normalised: Tensor = F.normalize(tensor, list(self.mean), list(self.std))
        return normalised

    def _resized(self, picture: Image.Image, interpolation: InterpolationMode) -> Image.Image:
        sides = [self.crop, self.crop] if self.squash else [self.resize]
        placed: Image.Image = F.resize(picture, sides, interpolation=interpolation, antialias=True)
        if not self.squash:
            placed = F.center_crop(placed, [self.crop, self.crop])
        return placed

    def place_mask(self, mask: np.ndarray) -> Tensor:
        """A mask (H, W) bool of a picture, where its input has it: (crop, crop) bool, nearest pixel."""
        placed = self._resized(Image.fromarray(mask.astype(np.uint8)), InterpolationMode.NEAREST)
        return torch.from_numpy(np.array(placed, dtype=bool))

    def place_boxes(self, boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
        """Boxes (k, 4) of a picture of ``size`` (W, H), where its input has them: (k, 4) float32.

        They are cut at the input's border; one that lies outside becomes empty, its right side no
        further right than its left or its lower no lower than its upper.
        """
        if self.squash:
            width, height = self.crop, self.crop
        else:
            width, height = (max(self.resize, int(self.resize * side / min(size))) for side in size)
        left, upper = (round((side - self.crop) / 2.0) for side in (width, height))
        scale = torch.tensor([width / size[0], height / size[1]] * 2)
        placed = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4) * scale
        return (placed - torch.tensor([left, upper] * 2)).clamp(0, self.crop)

    def view(self, picture: Image.Image) -> Image.Image:
        """The part of the picture that the network sees, at the picture's own resolution."""
        if self.squash:
            return picture
        side = min(picture.size) * self.crop / self.resize
        whole = max(1, round(side))
        left, upper = (picture.width - whole) // 2, (picture.height - whole) // 2
        return picture.crop((left, upper, left + whole, upper + whole))

    def restore(self, inputs: Tensor) -> Tensor:
        """Undo the normalisation: (N, 3, H, W) input back to colours in [0, 1]."""
        mean = torch.tensor(self.mean, dtype=inputs.dtype, device=inputs.device)[:, None, None]
        std = torch.tensor(self.std, dtype=inputs.dtype, device=inputs.device)[:, None, None]
        return (inputs * std + mean).clamp(0, 1)
