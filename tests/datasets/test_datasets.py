"""Datasets of a few made-up files, and the real photographs, read against torchvision and by hand."""

import json
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CocoDetection, VOCDetection, VOCSegmentation

from gmcam.datasets import IMAGENET_CLASSES, VOC_CLASSES, Dataset, coco, imagenet, open_dataset, voc
from gmcam.datasets.imagenet import IMAGENET_SYNSETS
from gmcam.lab import CLASSES, collage, dual_class_scenes

WIDTH, HEIGHT = 6, 4
CAT, DOG, VOID = VOC_CLASSES.index("cat") + 1, VOC_CLASSES.index("dog") + 1, 255


def save_photo(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 60, 20)).save(path)
    return path


def region(left, upper, right, lower):
    """A rectangle as (HEIGHT, WIDTH) bool; right and lower exclusive."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[upper:lower, left:right] = True
    return mask


def refusal(call, *arguments, **options):
    """The message with which a call refuses its input."""
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def truths_of(record):
    return {truth.label: truth for truth in record.truths}


# PASCAL VOC


def voc_xml(*objects):
    """An annotation file; each object is a name, its four corners from 1, and the flag "difficult"."""
    entries = ""
    for name, (xmin, ymin, xmax, ymax), difficult in objects:
        corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
        head = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        entries += f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        entries += f"<bndbox>{corners}</bndbox>{head}</object>"
    return f"<annotation><filename>x.jpg</filename>{entries}</annotation>"


class Voc:
    """A tree of VOC: ``both``, ``halves`` (a class in the mask, another in the boxes), ``bare``."""

    def __init__(self, root):
        self.root, self.folder = root, root / "VOCdevkit" / "VOC2012"
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[0:2, 0:3], mask[3, 0], mask[:, 5], mask[1, 4] = CAT, CAT, VOID, DOG
        self.add(
            "both",
            mask,
            voc_xml(("dog", (5, 2, 5, 2), 1), ("cat", (1, 1, 3, 2), 0), ("cat", (1, 4, 1, 4), 1)),
        )
        self.add("halves", np.full((HEIGHT, WIDTH), DOG, np.uint8), voc_xml(("cat", (1.5, 1, 6, 4), 0)))
        self.add("bare", np.zeros((HEIGHT, WIDTH), np.uint8), voc_xml())
        self.list("both", "halves", "bare")

    def list(self, *stems, split="val"):
        path = self.folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{stem}\n" for stem in stems))

    def add(self, stem, values, annotation):
        save_photo(self.folder / "JPEGImages" / f"{stem}.jpg")
        for name in ("SegmentationClass", "Annotations"):
            (self.folder / name).mkdir(exist_ok=True)
        mask = Image.fromarray(values, mode="P")
        mask.putpalette([3 * value % 256 for value in range(768)])
        mask.save(self.mask(stem))
        self.annotation(stem).write_text(annotation)

    def mask(self, stem):
        return self.folder / "SegmentationClass" / f"{stem}.png"

    def annotation(self, stem):
        return self.folder / "Annotations" / f"{stem}.xml"


@pytest.fixture
def tiny_voc(tmp_path):
    return Voc(tmp_path)


def test_voc_has_its_classes_and_the_images_of_the_list_in_order(tiny_voc):
    tiny_voc.list("halves", "", "both", split="train")
    dataset = voc(tiny_voc.root, "train")
    assert (dataset.name, dataset.names, len(dataset)) == ("voc-train", ("halves", "both"), 2)
    assert dataset.classes[:2] == ("aeroplane", "bicycle")
    assert len(dataset.classes) == 20


def test_a_voc_class_is_the_union_of_its_objects(tiny_voc):
    record = voc(tiny_voc.root).read(0)
    assert record.name == "both"
    assert [truth.label for truth in record.truths] == ["cat", "dog"]
    cat, dog = record.truths
    assert np.array_equal(cat.mask, region(0, 0, 3, 2) | region(0, 3, 1, 4))
    assert np.array_equal(dog.mask, region(4, 1, 5, 2))
    assert np.array_equal(record.void, region(5, 0, 6, 4))


def test_voc_boxes_start_at_zero_and_end_before_the_next_pixel(tiny_voc):
    cat, dog = voc(tiny_voc.root).read(0).truths
    assert cat.boxes.tolist() == [[0, 0, 3, 2], [0, 3, 1, 4]]
    assert dog.boxes.tolist() == [[4, 1, 5, 2]]
    assert (cat.difficult.tolist(), dog.difficult.tolist()) == ([False, True], [True])


def test_a_voc_class_of_the_mask_or_the_boxes_alone_is_included(tiny_voc):
    record = voc(tiny_voc.root).read(1)
    cat, dog = record.truths
    assert not cat.mask.any()
    assert cat.boxes.tolist() == [[0.5, 0, 6, 4]]
    assert dog.mask.all()
    assert (dog.boxes.shape, dog.difficult.shape) == ((0, 4), (0,))
    assert record.void is None


def test_a_voc_image_without_objects_has_no_truth(tiny_voc):
    assert voc(tiny_voc.root).read(2).truths == ()


def test_voc_reads_a_grey_image_of_numbers_as_a_mask(tiny_voc):
    Image.fromarray(np.full((HEIGHT, WIDTH), CAT, np.uint8)).save(tiny_voc.mask("bare"))
    (cat,) = voc(tiny_voc.root).read(2).truths
    assert (cat.label, bool(cat.mask.all())) == ("cat", True)


def test_voc_without_the_flag_difficult_counts_every_object(tiny_voc):
    annotation = tiny_voc.annotation("both")
    annotation.write_text(re.sub("<difficult>.</difficult>", "", annotation.read_text()))
    assert not any(truth.difficult.any() for truth in voc(tiny_voc.root).read(0).truths)


@pytest.mark.parametrize("part", ["JPEGImages", "SegmentationClass", "Annotations"])
def test_a_missing_voc_folder_is_named(part, tiny_voc):
    (tiny_voc.folder / part).rename(tiny_voc.root / "elsewhere")
    message = refusal(voc, tiny_voc.root)
    assert message.startswith(f"expected {tiny_voc.folder / part}, got a folder with ")
    assert "the root holds VOCdevkit/VOC2012" in message and "download=True" in message


def damage_voc(tiny_voc, kind):
    mask, annotation = tiny_voc.mask("both"), tiny_voc.annotation("both")
    if kind == "photo":
        (tiny_voc.folder / "JPEGImages" / "both.jpg").unlink()
    elif kind == "mask":
        mask.unlink()
    elif kind == "cut mask":
        mask.write_bytes(mask.read_bytes()[:-40])
    elif kind == "colour mask":
        Image.open(mask).convert("RGB").save(mask)
    elif kind == "values":
        Image.fromarray(np.full((HEIGHT, WIDTH), 21, np.uint8)).save(mask)
    elif kind == "size":
        Image.new("L", (5, 4)).save(mask)
    elif kind == "annotation":
        annotation.unlink()
    elif kind == "corner":
        annotation.write_text(annotation.read_text().replace("<ymin>2</ymin>", ""))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("photo", "got .*both.jpg"),
        ("mask", "expected class numbers .* got .*both.png .*No such file"),
        ("cut mask", "expected class numbers .* got .*both.png"),
        ("colour mask", "got .*both.png .*mode RGB"),
        ("values", "0 to 20 and 255 .*both.png .*values up to 21"),
        ("size", r"for 6 × 4 pixels, got .*both.png .*size \(5, 4\)"),
        ("annotation", "No such file .*both.xml"),
        ("corner", "could not convert string to float"),
    ],
)
def test_a_damaged_voc_file_affects_its_image_alone(kind, message, tiny_voc):
    damage_voc(tiny_voc, kind)
    dataset = voc(tiny_voc.root)
    with pytest.raises((ValueError, OSError), match=message):
        dataset.read(0)
    assert [dataset.read(index).name for index in (1, 2)] == ["halves", "bare"]


def test_an_unknown_voc_split_is_named_with_those_that_exist(tiny_voc):
    tiny_voc.list("both", split="trainval")
    path = tiny_voc.folder / "ImageSets" / "Segmentation" / "test.txt"
    message = refusal(voc, tiny_voc.root, "test")
    assert message.startswith(
        f"expected {path}, got a folder with trainval.txt, val.txt: choose another split"
    )


def test_a_list_that_is_empty_or_names_an_image_twice_is_refused(tiny_voc):
    tiny_voc.list("")
    assert refusal(voc, tiny_voc.root).startswith("expected unique names in voc-val, got 'no name' 0 times")
    tiny_voc.list("both", "halves", "both")
    assert refusal(voc, tiny_voc.root).startswith("expected unique names in voc-val, got 'both' 2 times")


# COCO


def rle(mask):
    """Runs of zeros and ones down the columns, zeros first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


PERSON, CUP, BEAR = {"id": 1, "name": "person"}, {"id": 47, "name": "cup"}, {"id": 88, "name": "teddy bear"}


class Coco:
    """A tree of COCO with two photos: ``0007`` with three classes and two crowds, ``0009`` with nothing."""

    def __init__(self, root):
        self.root, self.path = root, root / "annotations" / "instances_val2017.json"
        for name in ("0007.jpg", "0009.jpg"):
            save_photo(root / "val2017" / name)
        self.path.parent.mkdir()
        self.contents = {
            "categories": [BEAR, PERSON, CUP],
            "images": [
                {"id": 9, "file_name": "0009.jpg", "width": WIDTH, "height": HEIGHT},
                {"id": 7, "file_name": "0007.jpg", "width": WIDTH, "height": HEIGHT},
            ],
            "annotations": [
                # cup: a polygon round 2 × 2 pixels, and a single pixel
                self.object(1, CUP, [[1, 1, 3, 1, 3, 3, 1, 3]], [1, 1, 2, 2]),
                self.object(2, CUP, rle(region(5, 3, 6, 4)), [4.75, 3.25, 1, 0.75]),
                # a person, and a crowd of persons over it, over a cup's pixel and beyond
                self.object(3, PERSON, rle(region(0, 0, 1, 4)), [0, 0, 1, 4]),
                self.object(4, PERSON, rle(region(0, 0, 3, 2)), [0, 0, 3, 2], iscrowd=1),
                # bears, only as a crowd
                self.object(5, BEAR, rle(region(5, 0, 6, 1)), [5, 0, 1, 1], iscrowd=1),
            ],
        }
        self.save()

    @staticmethod
    def object(number, category, segmentation, box, iscrowd=0):
        return {
            "id": number,
            "image_id": 7,
            "category_id": category["id"],
            "segmentation": segmentation,
            "bbox": box,
            "iscrowd": iscrowd,
            "area": 1,
        }

    def save(self):
        self.path.write_text(json.dumps(self.contents))


@pytest.fixture
def tiny_coco(tmp_path):
    return Coco(tmp_path)


def test_coco_has_its_classes_by_id_and_its_photos_by_id(tiny_coco):
    dataset = coco(tiny_coco.root)
    assert (dataset.name, dataset.names) == ("coco-val2017", ("0007", "0009"))
    assert dataset.classes == ("person", "cup", "teddy bear")


def test_a_coco_class_is_the_union_of_its_single_objects(tiny_coco):
    record = coco(tiny_coco.root).read(0)
    assert record.name == "0007"
    assert [truth.label for truth in record.truths] == ["person", "cup", "teddy bear"]
    person, cup, bear = record.truths
    assert np.array_equal(cup.mask, region(1, 1, 3, 3) | region(5, 3, 6, 4))
    assert np.array_equal(person.mask, region(0, 0, 1, 4))
    assert not bear.mask.any()


def test_coco_boxes_have_right_and_lower_ends_and_crowds_are_difficult(tiny_coco):
    person, cup, bear = coco(tiny_coco.root).read(0).truths
    assert cup.boxes.tolist() == [[1, 1, 3, 3], [4.75, 3.25, 5.75, 4]]
    assert person.boxes.tolist() == [[0, 0, 1, 4], [0, 0, 3, 2]]
    assert (cup.difficult.tolist(), person.difficult.tolist()) == ([False, False], [False, True])
    assert bear.difficult.tolist() == [True]


def test_coco_is_void_where_a_crowd_is_and_no_single_object_of_any_class(tiny_coco):
    record = coco(tiny_coco.root).read(0)
    of_persons = region(1, 0, 3, 1)  # without the person at the left and the cup below
    assert np.array_equal(record.void, of_persons | region(5, 0, 6, 1))


def test_a_coco_photo_without_objects_has_no_truth_and_no_void(tiny_coco):
    record = coco(tiny_coco.root).read(1)
    assert (record.truths, record.void) == ((), None)


def test_coco_without_the_flag_iscrowd_has_single_objects(tiny_coco):
    for entry in tiny_coco.contents["annotations"][:3]:
        del entry["iscrowd"]
    tiny_coco.save()
    assert truths_of(coco(tiny_coco.root).read(0))["cup"].difficult.tolist() == [False, False]


def test_coco_opens_and_reads_in_silence(tiny_coco, capsys):
    coco(tiny_coco.root).read(0)
    assert capsys.readouterr() == ("", "")


def test_coco_names_contain_the_folders_of_the_photos(tiny_coco):
    for folder, entry in zip("ab", tiny_coco.contents["images"], strict=True):
        entry["file_name"] = f"{folder}/same.jpg"
        save_photo(tiny_coco.root / "val2017" / folder / "same.jpg")
    tiny_coco.save()
    assert coco(tiny_coco.root).names == ("b/same", "a/same")


@pytest.mark.parametrize("part", ["annotations", "val2017"])
def test_a_missing_coco_folder_is_named(part, tiny_coco):
    (tiny_coco.root / part).rename(tiny_coco.root / "elsewhere")
    message = refusal(coco, tiny_coco.root)
    assert message.startswith(f"expected {tiny_coco.root / part}")
    assert "https://cocodataset.org" in message


def test_an_unknown_coco_split_is_named_with_those_that_exist(tiny_coco):
    assert refusal(coco, tiny_coco.root, "test2017").startswith(
        f"expected {tiny_coco.path.with_name('instances_test2017.json')}, got a folder with "
        "instances_val2017.json: choose another split"
    )


def test_coco_without_photos_is_refused(tiny_coco):
    tiny_coco.contents |= {"images": [], "annotations": []}
    tiny_coco.save()
    assert "expected unique names in coco-val2017, got 'no name' 0 times" in refusal(coco, tiny_coco.root)


def test_a_missing_coco_photo_affects_its_image_alone(tiny_coco):
    photo = tiny_coco.root / "val2017" / "0007.jpg"
    photo.unlink()
    dataset = coco(tiny_coco.root)
    assert str(photo) in refusal(dataset.read, 0)
    assert dataset.read(1).name == "0009"


def test_coco_without_pycocotools_says_how_to_get_it(tiny_coco, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match=r"pip install 'gmcam\[datasets\]'"):
        coco(tiny_coco.root)


# ImageNet

CARDIGAN_DOG, CARDIGAN_GARMENT, CRANE_BIRD = "n02113186", "n02963159", "n02012849"


@pytest.fixture
def tiny_imagenet(tmp_path):
    for path in (
        f"{CARDIGAN_GARMENT}/b.JPEG",
        f"{CARDIGAN_DOG}/b.JPEG",
        f"{CRANE_BIRD}/c.png",
        f"{CRANE_BIRD}/a.jpg",
    ):
        save_photo(tmp_path / "val" / path)
    return tmp_path


def test_imagenet_is_labelled_with_the_names_of_the_networks(tiny_imagenet):
    dataset = imagenet(tiny_imagenet)
    assert (dataset.name, dataset.classes) == ("imagenet-val", IMAGENET_CLASSES)
    names = (f"{CRANE_BIRD}/a", f"{CRANE_BIRD}/c", f"{CARDIGAN_DOG}/b", f"{CARDIGAN_GARMENT}/b")
    assert dataset.names == names
    records = [dataset.read(index) for index in range(4)]
    assert tuple(record.name for record in records) == names
    assert [record.truths[0].label for record in records] == [
        "crane bird",
        "crane bird",
        "Cardigan",
        "cardigan",
    ]


def test_imagenet_has_neither_masks_nor_boxes(tiny_imagenet):
    record = imagenet(tiny_imagenet).read(0)
    (truth,) = record.truths
    assert (truth.mask, truth.boxes, truth.difficult, record.void) == (None, None, None, None)


def test_an_imagenet_folder_of_another_name_is_refused(tiny_imagenet):
    save_photo(tiny_imagenet / "val" / "dogs" / "a.jpg")
    message = refusal(imagenet, tiny_imagenet)
    assert message.startswith(
        f"expected folders named by WordNet ids in {tiny_imagenet / 'val'}, got ['dogs'"
    )


def test_an_imagenet_class_may_be_empty_but_not_the_split(tiny_imagenet):
    (tiny_imagenet / "val" / "n01440764").mkdir()
    assert len(imagenet(tiny_imagenet)) == 4
    (tiny_imagenet / "train" / "n01440764").mkdir(parents=True)
    assert refusal(imagenet, tiny_imagenet, "train").startswith("expected unique names in imagenet-train")


def test_imagenet_photos_without_class_folders_are_refused(tmp_path):
    save_photo(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    message = refusal(imagenet, tmp_path)
    assert message.startswith(f"expected folders named by WordNet ids in {tmp_path / 'val'}, got []")
    assert "https://image-net.org" in message


def test_an_imagenet_split_is_a_folder_of_the_root(tiny_imagenet):
    assert refusal(imagenet, tiny_imagenet, "test").startswith(
        f"expected {tiny_imagenet / 'test'}, got a folder with val: choose another split"
    )
    assert "got a folder with nothing" in refusal(imagenet, tiny_imagenet / "none")


def test_a_damaged_imagenet_photo_affects_its_image_alone(tiny_imagenet):
    path = tiny_imagenet / "val" / CRANE_BIRD / "a.jpg"
    path.write_bytes(b"")
    dataset = imagenet(tiny_imagenet)
    assert str(path) in refusal(dataset.read, 0)
    assert dataset.read(1).name == f"{CRANE_BIRD}/c"


# Collage scenes


def test_collage_scenes_are_those_of_dual_class_scenes():
    dataset = collage(3)
    assert (dataset.name, dataset.classes) == ("collage", CLASSES)
    assert dataset.names == ("cat-cup-0", "cat-flower-1", "cat-pagoda-2")
    for index, drawn in enumerate(dual_class_scenes(3)):
        record = dataset.read(index)
        assert record.image.tobytes() == drawn.image.tobytes()
        assert tuple(truth.label for truth in record.truths) == drawn.labels
        for truth, box in zip(record.truths, drawn.boxes, strict=True):
            assert np.array_equal(truth.mask, drawn.mask(truth.label))
            assert truth.boxes.tolist() == [box.tolist()]
            assert truth.difficult.tolist() == [False]
        assert record.void is None


def test_collage_scenes_are_drawn_as_they_are_read(monkeypatch):
    drawn = []
    module = sys.modules["gmcam.lab.collage"]
    original = module.scene
    monkeypatch.setattr(
        module, "scene", lambda *labels, seed: drawn.append(seed) or original(*labels, seed=seed)
    )
    dataset = collage()
    assert (len(dataset), drawn) == (504, [])
    assert dataset.names[56] == "cat-cup-56"  # the second round of the 56 pairs
    assert dataset.names[503] == "coin-person-503"
    dataset.read(56)
    assert drawn == [56]


# All of them


@pytest.fixture
def tiny(request, tmp_path):
    """Name and root of each dataset on disk."""
    name = request.param
    request.getfixturevalue(f"tiny_{name}")
    return name, tmp_path


each_on_disk = pytest.mark.parametrize("tiny", ["voc", "coco", "imagenet"], indirect=True)


@each_on_disk
def test_open_dataset_opens_each_by_its_name(tiny):
    name, root = tiny
    opened, whole = (
        open_dataset(name, root),
        {"voc": voc, "coco": coco, "imagenet": imagenet}[name](str(root)),
    )
    assert (opened.name, opened.names, opened.classes) == (whole.name, whole.names, whole.classes)
    split = opened.name.removeprefix(f"{name}-")
    assert open_dataset(name, root, split=split, limit=1).names == whole.names[:1]
    assert open_dataset(name, root, limit=99).names == whole.names


def test_open_dataset_finds_registered_datasets():
    assert open_dataset("collage").names == collage().names
    assert open_dataset("collage", limit=5).names == collage(5).names


@each_on_disk
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(tiny, limit):
    message = refusal(open_dataset, *tiny, limit=limit)
    assert message == f"expected a limit of at least one image, got {limit}: raise it"
    assert refusal(open_dataset, "collage", limit=limit) == message
    assert "expected unique names in collage" in refusal(collage, limit)


@pytest.mark.parametrize(
    "arguments",
    [("cifar10",), ("voc",), ("coco", None, "val2017"), ("collage", "here"), ("collage", None, "train")],
)
def test_an_unknown_name_or_a_missing_or_superfluous_root_is_refused(arguments):
    message = refusal(open_dataset, *arguments)
    assert message.startswith(
        f"expected voc, coco, imagenet with a root, or collage without, got {arguments[0]!r}"
    )


@each_on_disk
def test_a_dataset_can_be_sent_to_another_process(tiny):
    dataset = pickle.loads(pickle.dumps(open_dataset(*tiny)))
    assert dataset.read(0).name == dataset.names[0]


def test_collage_can_be_sent_to_another_process():
    assert isinstance(pickle.loads(pickle.dumps(collage(2))), Dataset)


@each_on_disk
def test_threads_may_read_at_once(tiny):
    dataset = open_dataset(*tiny)
    order = [*range(len(dataset))] * 8
    with ThreadPoolExecutor(4) as threads:
        records = list(threads.map(dataset.read, order))
    for index, record in zip(order, records, strict=True):
        alone = dataset.read(index)
        assert record.name == alone.name == dataset.names[index]
        assert [t.label for t in record.truths] == [t.label for t in alone.truths]
        for truth, expected in zip(record.truths, alone.truths, strict=True):
            assert np.array_equal(truth.mask, expected.mask)
            assert np.array_equal(truth.boxes, expected.boxes)


# The real photographs


def enclosing(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def overlap(a, b):
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = sides.clip(0).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def test_real_voc_agrees_with_torchvision_and_its_masks_with_its_boxes(data_root):
    dataset = voc(data_root / "voc")
    masks = VOCSegmentation(data_root / "voc", image_set="val")
    boxes = VOCDetection(data_root / "voc", image_set="val")
    assert len(dataset) == len(masks) == 112
    overlaps = []
    for index in range(112):
        record = dataset.read(index)
        photo, values = masks[index]
        values = np.asarray(values)
        assert record.image.tobytes() == photo.tobytes()
        assert np.array_equal(record.void, values == 255)
        together = np.zeros(values.shape, int)
        for truth in record.truths:
            assert truth.mask.any()
            assert len(truth.boxes) > 0
            together += truth.mask * (VOC_CLASSES.index(truth.label) + 1)
        assert np.array_equal(together, np.where(values == 255, 0, values))
        objects = boxes[index][1]["annotation"]["object"]
        assert sum(len(truth.boxes) for truth in record.truths) == len(objects)
        for entry in objects:
            box = [int(entry["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
            box = [box[0] - 1, box[1] - 1, box[2], box[3]]
            assert box in truths_of(record)[entry["name"]].boxes.tolist()
            assert 0 <= box[0] < box[2] <= photo.width
            assert 0 <= box[1] < box[3] <= photo.height
        singles = [truth for truth in record.truths if len(truth.boxes) == 1]
        overlaps += [overlap(enclosing(truth.mask), truth.boxes[0]) for truth in singles]
    assert len(overlaps) == 134
    assert np.median(overlaps) == pytest.approx(0.935, abs=0.01)
    assert min(overlaps) > 0.6


def test_real_coco_has_526_objects_and_masks_decoded_by_numpy_agree(data_root):
    dataset = coco(data_root / "coco")
    path = data_root / "coco" / "annotations" / "instances_val2017.json"
    annotations = json.loads(path.read_text())["annotations"]
    plain = CocoDetection(data_root / "coco" / "val2017", path)
    assert (len(dataset), len(dataset.classes)) == (70, 80)
    labels = {number: entry["name"] for number, entry in plain.coco.cats.items()}
    objects = difficult = 0
    for index in range(70):
        record = dataset.read(index)
        assert int(record.name) == plain.ids[index]
        expected = {}
        for entry in annotations:
            if entry["image_id"] == plain.ids[index]:
                (height, width), counts = entry["segmentation"]["size"], entry["segmentation"]["counts"]
                mask = np.repeat(np.arange(len(counts)) % 2, counts).reshape(width, height).T.astype(bool)
                x, y, w, h = entry["bbox"]
                assert np.allclose(enclosing(mask), [x, y, x + w, y + h], atol=1)
                whole = expected.setdefault(labels[entry["category_id"]], np.zeros((height, width), bool))
                whole |= mask & (not entry["iscrowd"])
        assert set(truths_of(record)) == set(expected)
        for truth in record.truths:
            assert np.array_equal(truth.mask, expected[truth.label])
            objects, difficult = objects + len(truth.boxes), difficult + truth.difficult.sum()
    assert (objects, difficult) == (526, 3)


def test_real_imagenet_ids_and_names_agree_with_the_table_beside_the_photos(data_root):
    folder = data_root / "imagenet_sample"
    table = json.loads((folder / "wnid_to_imagenet_index.json").read_text())
    assert {wnid: i for i, wnid in enumerate(IMAGENET_SYNSETS)} == {wnid: i for wnid, (i, _) in table.items()}
    # Two names in the table lack the word by which torchvision tells them from another class.
    shortened = {"crane bird": "crane", "maillot tank suit": "maillot"}
    dataset = imagenet(folder)
    assert len(dataset) == 200
    for index, name in enumerate(dataset.names):
        (truth,) = dataset.read(index).truths
        number, label = table[name.split("/")[0]]
        assert IMAGENET_CLASSES.index(truth.label) == number
        assert shortened.get(truth.label, truth.label) == label.replace("_", " ")
