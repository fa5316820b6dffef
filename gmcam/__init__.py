"""gmcam: class activation maps, Grad-CAM and the global guidance map, step by step.

>>> import gmcam
>>> network = gmcam.load("collage-vgg")
>>> scene = gmcam.scene("cat", "cup", seed=3)
>>> result = gmcam.explain(network, scene.image, "cat")
>>> result.maps.shape
torch.Size([1, 128, 128])
"""

from gmcam.capture import Capture, capture
from gmcam.images import PHOTOS, Scene, open_picture, photo, scene
from gmcam.methods import METHODS, Result, explain
from gmcam.networks import EMBEDDED, Network, load
from gmcam.version import __version__
from gmcam.views import show

__all__ = [
    "EMBEDDED",
    "METHODS",
    "PHOTOS",
    "Capture",
    "Network",
    "Result",
    "Scene",
    "__version__",
    "capture",
    "explain",
    "load",
    "open_picture",
    "photo",
    "scene",
    "show",
]
