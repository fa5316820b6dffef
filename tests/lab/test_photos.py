import sys

import pytest
from PIL import Image

from gmcam.lab import PHOTOS, photo


@pytest.mark.parametrize("name", PHOTOS)
def test_every_photo_opens_as_rgb_at_its_full_size(name):
    image = photo(name)
    with Image.open(PHOTOS[name].path) as original:
        assert image.size == original.size
    assert image.mode == "RGB"


@pytest.mark.parametrize("name", PHOTOS)
def test_every_photo_states_credit_licence_and_source(name):
    entry = PHOTOS[name]
    assert entry.title and entry.credit and entry.licence
    assert entry.source.startswith(("http://", "https://"))


def test_no_file_is_listed_twice():
    assert len({(entry.package, entry.file) for entry in PHOTOS.values()}) == len(PHOTOS)


def test_the_error_for_an_unknown_photo_lists_all_names():
    with pytest.raises(ValueError, match=r"expected a photo among .*, got 'lenna'") as caught:
        photo("lenna")
    assert all(name in str(caught.value) for name in PHOTOS)


@pytest.mark.parametrize(
    ("package", "name"),
    [("skimage", "scikit-image"), ("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")],
)
def test_the_error_for_a_missing_package_names_the_extra(package, name, monkeypatch):
    photo_name = next(key for key, entry in PHOTOS.items() if entry.package == package)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ImportError, match=rf"expected {name} to be installed.*pip install 'gmcam\[lab\]'"):
        photo(photo_name)


def test_a_photo_is_found_without_importing_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    assert PHOTOS["flower"].path.is_file()
    assert "sklearn" not in sys.modules


def test_help_lists_every_photo_with_its_credit_and_licence():
    lines = photo.__doc__.splitlines()
    for name, entry in PHOTOS.items():
        assert f"    - ``{name}``: {entry.title}; {entry.credit}; {entry.licence}" in lines
