"""Networks: the embedded ones, torchvision's, and a wrapper around any module."""

from gmcam.networks.loading import EMBEDDED, load, torchvision_names, weights_on_disk
from gmcam.networks.network import Network
from gmcam.networks.preprocessing import Preprocessing
from gmcam.networks.weights import load_card

__all__ = [
    "EMBEDDED",
    "Network",
    "Preprocessing",
    "load",
    "load_card",
    "torchvision_names",
    "weights_on_disk",
]
