"""The embedded networks: small enough to read, to train and to ship with the book.

Both take (N, 3, 128, 128) and output eight logits. They differ between the last feature map (``stage4``,
128 × 16 × 16) and the logits, which is what matters for class activation maps: ``CollageResNet`` has global
average pooling and one linear layer; ``CollageVGG`` has max pooling, flattening and two linear layers.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor, nn

from gmcam.lab.scenes import CLASSES
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing

INPUT_SIZE = 128
PREPROCESSING = Preprocessing(resize=INPUT_SIZE, crop=INPUT_SIZE)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions with batch norm, added to their input, then a rectifier."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class CollageResNet(nn.Module):
    """Residual blocks, global average pooling, one linear layer."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.stage1 = ResidualBlock(32, 32, stride=1)  # 64 × 64
        self.stage2 = ResidualBlock(32, 64, stride=2)  # 32 × 32
        self.stage3 = ResidualBlock(64, 128, stride=2)  # 16 × 16
        self.stage4 = ResidualBlock(128, 128, stride=1)  # 16 × 16
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU()]


class CollageVGG(nn.Module):
    """Plain convolutions and max pooling, then a flattened map and two linear layers."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(*_convolution(3, 32))  # 128 × 128
        self.stage2 = nn.Sequential(nn.MaxPool2d(2), *_convolution(32, 48))  # 64 × 64
        self.stage3 = nn.Sequential(nn.MaxPool2d(2), *_convolution(48, 96), *_convolution(96, 96))
        self.stage4 = nn.Sequential(nn.MaxPool2d(2), *_convolution(96, 128), *_convolution(128, 128))
        # 8 × 8. The average changes nothing at 128; as in torchvision's VGG it allows other input sizes.
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(8))
        self.head = nn.Sequential(
            nn.Linear(128 * 8 * 8, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


ARCHITECTURES: dict[str, type[nn.Module]] = {
    "collage-resnet": CollageResNet,
    "collage-vgg": CollageVGG,
    "collage-vgg-biased": CollageVGG,
}
EMBEDDED = tuple(ARCHITECTURES)
FOLDER = Path(__file__).with_name("weights")


def save_weights(module: nn.Module, name: str, folder: Path, card: dict[str, Any]) -> None:
    """Write ``NAME.safetensors`` (floating-point entries as float16) and ``NAME.json``.

    The JSON file contains the card plus ``bytes`` and ``sha256`` of the weights file.
    """
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }
    data = save({key: value.contiguous() for key, value in state.items()})
    (folder / f"{name}.safetensors").write_bytes(data)
    full = {**card, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / f"{name}.json").write_text(json.dumps(full, indent=2) + "\n")


def load_card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Read the card of an embedded network: data, seed, accuracy, date, SHA-256.

    Raises ``ValueError`` if it is missing or cannot be read.

    >>> from gmcam.lab import load_card
    >>> load_card("collage-vgg")["seed"]
    0
    """
    path = folder / f"{name}.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"expected a readable {path}, got {error}: reinstall gmcam") from None
    return card


def load_weights(name: str, folder: Path = FOLDER) -> dict[str, Tensor]:
    """Read the state dict of an embedded network, in float32.

    Raises ``ValueError`` if the file is missing, differs from the SHA-256 on its card, or is not a
    safetensors file.
    """
    path = folder / f"{name}.safetensors"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a readable {path}, got {error}: reinstall gmcam") from None
    expected, actual = load_card(name, folder).get("sha256", "nothing"), hashlib.sha256(data).hexdigest()
    if actual != expected:
        recipe = "random_labels" if name.startswith("small-") else f"train {name}"
        raise ValueError(
            f"expected {path} with a SHA-256 of {expected[:12]}…, got {actual[:12]}…: reinstall gmcam, or "
            f"train the network again with 'python -m gmcam.lab.{recipe}'"
        )
    try:
        state = load_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"expected {path} in safetensors format, got {error}: use save_weights") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def load(name: str) -> Network:
    """Load an embedded network, one of ``EMBEDDED``; ``gmcam.load`` calls this."""
    module = ARCHITECTURES[name]()
    module.load_state_dict(load_weights(name))
    return Network(
        module.eval(),
        name=name,
        preprocess=PREPROCESSING,
        classes=CLASSES,
        input_shape=(3, INPUT_SIZE, INPUT_SIZE),
    )
