"""From an image to a network's input, and from the input back to what the network sees."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

MAX_ASPECT = 50


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to ``resize``, crop the central ``crop`` × ``crop``, compute (x − mean)/std.

    Calling it takes an RGB image and returns float32 (3, crop, crop), bit for bit as torchvision's preset
    ``ImageClassification``. ``squash=True`` resizes the whole image to ``crop`` × ``crop``: proportions
    change; a number to a square of that side, before the crop. Raises ``ValueError`` for an image whose
    longer side exceeds ``MAX_ASPECT`` times the shorter.

    >>> gmcam.Preprocessing(resize=256, crop=224)(gmcam.lab.photo("chelsea")).shape
    torch.Size([3, 224, 224])
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Resampling = Resampling.BILINEAR
    squash: bool | int = False

    def __call__(self, image: Image.Image) -> Tensor:
        if max(image.size) > MAX_ASPECT * min(image.size):  # resizing would exhaust memory
            fault = f"expected a longer side of at most {MAX_ASPECT} times the shorter"
            raise ValueError(f"{fault}, got {image.width} × {image.height} pixels: crop the image first")
        placed = self._resized(image, self.interpolation).convert("RGB")
        colours = torch.from_numpy(np.array(placed)).float() / 255  # (crop, crop, 3)
        normalised = (colours - colours.new_tensor(self.mean)) / colours.new_tensor(self.std)
        return normalised.permute(2, 0, 1).contiguous()

    def _placement(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Width and height after resizing; left and upper edge of the crop, rounded as torchvision does."""
        square = self.crop if self.squash is True else self.squash
        width, height = (square or int(self.resize * side / min(size)) for side in size)
        # Where the crop is larger, its edge is negative: PIL fills the border with black.
        left, upper = (round(m / 2) if m > 0 else -(-m // 2) for m in (width - self.crop, height - self.crop))
        return width, height, left, upper

    def _resized(self, image: Image.Image, interpolation: Resampling) -> Image.Image:
        width, height, left, upper = self._placement(image.size)
        resized = image.resize((width, height), interpolation)
        return resized.crop((left, upper, left + self.crop, upper + self.crop))

    def place_mask(self, mask: np.ndarray) -> Tensor:
        """A mask (H, W) bool of an image, resized and cropped like the image: (crop, crop) bool."""
        placed = self._resized(Image.fromarray(mask.astype(np.uint8)), Resampling.NEAREST)
        return torch.from_numpy(np.array(placed, dtype=bool))

    def place_boxes(self, boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
        """Boxes (k, 4) of an image of ``size`` (W, H), placed like it and clipped, if need be to no area."""
        width, height, left, upper = self._placement(size)
        scale = torch.tensor([width / size[0], height / size[1]] * 2)
        placed = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4) * scale
        return (placed - torch.tensor([left, upper] * 2)).clamp(0, self.crop)

    def view(self, image: Image.Image) -> Image.Image:
        """The part of the image that the network sees, at the image's resolution."""
        if self.squash is True:
            return image
        share = self.crop / (self.squash or self.resize)
        sides = image.size if self.squash else [min(image.size)] * 2
        width, height = (max(1, round(side * share)) for side in sides)
        left, upper = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, upper, left + width, upper + height))

    def restore(self, inputs: Tensor) -> Tensor:
        """Undo the normalisation: (N, 3, H, W) inputs to colours in [0, 1]."""
        mean, std = (inputs.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (inputs * std + mean).clamp(0, 1)
