"""ImageNet (ILSVRC 2012)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gmcam.datasets.records import Dataset, Record, Root, Truth, existing
from gmcam.reading import open_image

# WordNet id → torchvision's name of the class, in the order of the logits.
_LINES = Path(__file__).with_name("imagenet.txt").read_text("utf-8").splitlines()
IMAGENET_SYNSETS = {line[:9]: line[10:] for line in _LINES}
IMAGENET_CLASSES = tuple(IMAGENET_SYNSETS.values())
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
_LAYOUT = "the root holds val/n01440764 and so on, made from the archives on https://image-net.org"


def imagenet(root: Root, split: str = "val") -> Dataset:
    """ImageNet's images in one folder per class, named by WordNet id; without masks and boxes.
    Labels are torchvision's names of the classes. Source: Russakovsky et al., *ImageNet Large Scale Visual
    Recognition Challenge*, 2015. Raises ``ValueError`` for a missing folder or one of another name."""
    folder = existing(Path(root, split), _LAYOUT)
    wnids = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not wnids or not IMAGENET_SYNSETS.keys() >= set(wnids):
        raise ValueError(f"expected folders named by WordNet ids in {folder}, got {wnids[:3]}: {_LAYOUT}")
    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in _SUFFIXES)
    names = tuple(file.relative_to(folder).with_suffix("").as_posix() for file in files)
    return Dataset(f"imagenet-{split}", IMAGENET_CLASSES, names, partial(_read, files, names))


def _read(files: Sequence[Path], names: Sequence[str], index: int) -> Record:
    truth = Truth(IMAGENET_SYNSETS[files[index].parent.name])
    return Record(names[index], open_image(files[index]), (truth,))
