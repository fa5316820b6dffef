"""gmcam: class activation maps, Grad-CAM and the global guidance map, step by step.

>>> import gmcam
>>> network = gmcam.load("collage-vgg")
>>> scene = gmcam.lab.scene("cat", "cup", seed=3)
>>> result = gmcam.explain(network, scene.image, "cat")
>>> result.maps.shape
torch.Size([1, 128, 128])
"""

import lazy_loader

# The names stand in __init__.pyi; each is imported when it is first used, and torch with it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
