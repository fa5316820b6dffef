"""The photographs that scikit-image, scikit-learn and matplotlib carry in their wheels.

They are found on disk, never downloaded and never copied into this project, so everything built
from them works offline. Each entry of ``PHOTOS`` names its credit and its licence as the carrying
package states them; the book prints the same table.
"""

from __future__ import annotations

import importlib.util
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


_SKIMAGE_DOCS = "https://scikit-image.org/docs/stable/api/skimage.data.html"
_CC0 = "CC0 1.0"
_NO_KNOWN = "no known copyright restrictions"

PHOTOS: dict[str, Photo] = {
    "chelsea": Photo("skimage", "chelsea.png", "Chelsea the cat", "Stéfan van der Walt", _CC0, _SKIMAGE_DOCS),
    "coffee": Photo(
        "skimage",
        "coffee.png",
        "Espresso at Pikolo Espresso Bar",
        "Rachel Michetti",
        _CC0,
        _SKIMAGE_DOCS,
    ),
    "motorcycle": Photo(
        "skimage",
        "motorcycle_left.png",
        "Motorcycle, left picture of a stereo pair",
        "D. Scharstein, H. Hirschmüller, Y. Kitajima, G. Krathwohl, N. Nešić, X. Wang, P. Westling:"
        " Middlebury 2014 stereo benchmark",
        "research benchmark, cited as its authors ask",
        "https://vision.middlebury.edu/stereo/data/scenes2014/",
    ),
    "rocket": Photo(
        "skimage",
        "rocket.jpg",
        "Falcon 9 with DSCOVR on the launch pad",
        "SpaceX",
        "public domain",
        "https://www.flickr.com/photos/spacexphotos/16511594820/",
    ),
    "astronaut": Photo(
        "skimage",
        "astronaut.png",
        "Eileen Collins beside a Space Shuttle model",
        "NASA",
        "public domain",
        "https://flic.kr/p/r9qvLn",
    ),
    "camera": Photo("skimage", "camera.png", "Man with a camera", "Lav Varshney", _CC0, _SKIMAGE_DOCS),
    "coins": Photo(
        "skimage",
        "coins.png",
        "Greek coins from Pompeii",
        "Brooklyn Museum",
        _NO_KNOWN,
        "https://www.brooklynmuseum.org/opencollection/archives/image/51611",
    ),
    "flower": Photo(
        "sklearn",
        "flower.jpg",
        "Dahlia",
        "vultilion, by the address in scikit-learn's credits (whose text says danielbuechele)",
        "CC BY 2.0",
        "https://www.flickr.com/photos/vultilion/6056698931/",
    ),
    "china": Photo(
        "sklearn",
        "china.jpg",
        "Pagoda at the Summer Palace, Beijing",
        "danielbuechele",
        "CC BY 2.0",
        "https://www.flickr.com/photos/danielbuechele/6061409035/",
    ),
    "grace_hopper": Photo(
        "matplotlib",
        "grace_hopper.jpg",
        "Commodore Grace M. Hopper",
        "James S. Davis, United States Navy",
        "public domain",
        "https://commons.wikimedia.org/wiki/File:Commodore_Grace_M._Hopper,_USN_(covered).jpg",
    ),
    "grass": Photo(
        "skimage",
        "grass.png",
        "Grass",
        "linolafett",
        _CC0,
        "https://www.deviantart.com/linolafett/art/Grass-01-434853879",
    ),
    "gravel": Photo(
        "skimage",
        "gravel.png",
        "Gravel",
        "CC0 Textures, Gravel04",
        _CC0,
        "https://cc0textures.com/view.php?tex=Gravel04",
    ),
    "brick": Photo(
        "skimage",
        "brick.png",
        "Brick wall",
        "CC0 Textures, Bricks25",
        _CC0,
        "https://cc0textures.com/view.php?tex=Bricks25",
    ),
    "hubble_deep_field": Photo(
        "skimage",
        "hubble_deep_field.jpg",
        "Hubble eXtreme Deep Field",
        "NASA",
        "public domain",
        "http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
    ),
    "moon": Photo(
        "skimage",
        "moon.png",
        "Surface of the Moon",
        "distributed with scikit-image",
        "none stated",
        _SKIMAGE_DOCS,
    ),
}


def photo(name: str) -> Image.Image:
    """One of ``PHOTOS`` as an RGB picture of its full size.

    Raises ``ValueError`` for a name that is not in ``PHOTOS``.
    """
    if name not in PHOTOS:
        raise ValueError(f"no photo is called {name!r}; there are {', '.join(PHOTOS)}")
    with Image.open(PHOTOS[name].path) as picture:
        return picture.convert("RGB")
