"""The photographs that scikit-image, scikit-learn and matplotlib carry in their wheels.

They are found on disk, never downloaded and never copied into this project, so everything built
from them works offline. Each entry of ``PHOTOS`` names its credit and its licence as the carrying
package states them; ``help(gmcam.lab.photo)`` ends with the list, and the book prints it.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_FOLDERS = {
    "skimage": "data",
    "sklearn": "datasets/images",
    "matplotlib": "mpl-data/sample_data",
}


@dataclass(frozen=True)
class Photo:
    """One photograph: where it lies, what it shows, who made it, under which licence."""

    package: str
    file: str
    title: str
    credit: str
    licence: str
    source: str

    @property
    def path(self) -> Path:
        """Where the carrying package installed the file (found without importing the package)."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                f"the photo {self.file} comes with the package {self.package}, which is not installed"
            )
        return Path(spec.submodule_search_locations[0]) / _FOLDERS[self.package] / self.file


PHOTOS = {
    name: Photo(**entry)
    for name, entry in json.loads(Path(__file__).with_name("photos.json").read_text("utf-8")).items()
}


def photo(name: str) -> Image.Image:
    """One of ``PHOTOS`` as an RGB picture of its full size.

    Raises ``ValueError`` for a name that is not in ``PHOTOS``.

    >>> gmcam.lab.photo("chelsea").size
    (451, 300)
    """
    if name not in PHOTOS:
        raise ValueError(f"no photo is called {name!r}; there are {', '.join(PHOTOS)}")
    with Image.open(PHOTOS[name].path) as picture:
        return picture.convert("RGB")


photo.__doc__ = f"{photo.__doc__}\n" + "\n".join(
    f"    - ``{name}``: {entry.title}; {entry.credit}; {entry.licence}" for name, entry in PHOTOS.items()
)
