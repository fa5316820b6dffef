"""The photographs in the wheels of scikit-image, scikit-learn and matplotlib.

They are read from those packages, never downloaded and never copied into this project, so everything built
from them works offline. Each entry of ``PHOTOS`` states credit and licence as the package does;
``help(gmcam.lab.photo)`` ends with the list, and the book prints it.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gmcam._extras import require

_FOLDERS = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}


@dataclass(frozen=True)
class Photo:
    """A photograph: its package and file, its title, credit, licence and source."""

    package: str
    file: str
    title: str
    credit: str
    licence: str
    source: str

    @property
    def path(self) -> Path:
        """The installed file, found without importing its package. Raises ``ImportError`` without it."""
        spec = importlib.util.find_spec(self.package)
        folders = spec.submodule_search_locations if spec else None
        folder = Path((folders or require(self.package, "lab").__path__)[0])
        return folder / _FOLDERS[self.package] / self.file


PHOTOS = {
    name: Photo(**entry)
    for name, entry in json.loads(Path(__file__).with_name("photos.json").read_text("utf-8")).items()
}


def photo(name: str) -> Image.Image:
    """Open one of ``PHOTOS`` as an RGB image of its full size.

    Raises ``ValueError`` for an unknown name, and ``ImportError`` if the photo's package is not installed.

    >>> gmcam.lab.photo("chelsea").size
    (451, 300)
    """
    if name not in PHOTOS:
        raise ValueError(f"expected a photo among {', '.join(PHOTOS)}, got {name!r}")
    with Image.open(PHOTOS[name].path) as image:
        return image.convert("RGB")


photo.__doc__ = f"{photo.__doc__}\n" + "\n".join(
    f"    - ``{name}``: {entry.title}; {entry.credit}; {entry.licence}" for name, entry in PHOTOS.items()
)
