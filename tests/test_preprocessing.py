import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights, ResNet50_Weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification

import gmcam
from gmcam import Preprocessing

SIZES = [(320, 200), (200, 320), (256, 256), (301, 223), (97, 640), (40, 30), (1, 1), (3, 149)]
PIL_MODES = {
    InterpolationMode.BILINEAR: Image.Resampling.BILINEAR,
    InterpolationMode.BICUBIC: Image.Resampling.BICUBIC,
}


def noise(size):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def gradient(size):
    """Red increases to the right and green downwards: a colour encodes its position."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([across, down, 0 * down], 2).round().astype(np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("resize", "crop", "interpolation"),
    [
        (256, 224, InterpolationMode.BILINEAR),
        (232, 224, InterpolationMode.BILINEAR),
        (342, 299, InterpolationMode.BILINEAR),
        (384, 384, InterpolationMode.BICUBIC),
        (128, 128, InterpolationMode.BILINEAR),
        (61, 64, InterpolationMode.BILINEAR),  # the crop is larger: torchvision pads with black
        (63, 64, InterpolationMode.BICUBIC),
    ],
)
def test_preprocessing_equals_torchvisions_preset_bit_for_bit(resize, crop, interpolation, size):
    preset = ImageClassification(resize_size=resize, crop_size=crop, interpolation=interpolation)
    inputs = Preprocessing(resize, crop, interpolation=PIL_MODES[interpolation])(noise(size))
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, preset(noise(size)))


@pytest.mark.parametrize("name", ["chelsea", "china", "rocket"])
@pytest.mark.parametrize(
    "weights", [ResNet50_Weights.IMAGENET1K_V2, EfficientNet_B0_Weights.DEFAULT], ids=str
)
def test_a_photograph_gives_the_inputs_of_torchvisions_weights(name, weights):
    photo, preset = gmcam.lab.photo(name), weights.transforms()
    preprocess = Preprocessing(
        preset.resize_size[0], preset.crop_size[0], interpolation=PIL_MODES[preset.interpolation]
    )
    assert torch.equal(preprocess(photo), preset(photo))


def test_a_grey_image_is_read_as_rgb():
    grey = noise((30, 20)).convert("L")
    assert torch.equal(Preprocessing(16, 16)(grey), Preprocessing(16, 16)(grey.convert("RGB")))


def test_another_mean_and_deviation_are_used():
    grey = Image.new("RGB", (8, 8), (51, 102, 204))
    inputs = Preprocessing(8, 8, mean=(0.2, 0.3, 0.4), std=(1.0, 0.5, 0.25))(grey)
    assert inputs[:, 0, 0].tolist() == pytest.approx([0.0, 0.2, 1.6])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (128, 128), (232, 224)])
def test_the_view_shows_the_part_that_the_network_sees(resize, crop, size):
    preprocess = Preprocessing(resize, crop)
    seen = preprocess.restore(preprocess(gradient(size))[None])[0]
    view = F.to_tensor(preprocess.view(gradient(size)).resize((crop, crop), Image.Resampling.BILINEAR))
    # Both are rounded to whole pixels, so colours may differ by the step of two pixels.
    assert (seen - view).abs().max() < 2.5 / min(size)


@pytest.mark.parametrize("size", [(320, 200), (200, 320), (4, 1), (1, 4), (1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (128, 128)])
def test_the_view_is_as_large_as_the_crop_and_never_empty(resize, crop, size):
    side = min(size) * crop / resize
    for length in Preprocessing(resize, crop).view(noise(size)).size:
        assert max(1, side - 1) <= length <= side + 1


def test_the_view_keeps_the_pixels_of_the_image():
    image = noise((300, 200))
    view = Preprocessing(200, 100).view(image)
    assert np.array_equal(np.asarray(view), np.asarray(image)[50:150, 100:200])


def test_restoring_undoes_the_normalisation():
    preprocess = Preprocessing(64, 64)
    inputs = preprocess(noise((64, 64)))[None]
    assert torch.allclose(preprocess.restore(inputs)[0], F.to_tensor(noise((64, 64))), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_restored_colours_keep_their_type_and_stay_between_zero_and_one(dtype):
    restored = Preprocessing(8, 8).restore(torch.linspace(-9, 9, 192, dtype=dtype).view(1, 3, 8, 8))
    assert restored.dtype == dtype
    assert (restored.min(), restored.max()) == (0, 1)


def test_an_image_with_extreme_proportions_is_refused():
    with pytest.raises(ValueError, match="at most 50 times the shorter, got 30000 × 1 pixels: crop"):
        Preprocessing(256, 224)(Image.new("RGB", (30000, 1)))


def test_crop_and_squash_place_images_masks_and_boxes_alike():
    mask = np.zeros((40, 80), bool)
    mask[10:30, 20:30] = True  # rows 10 to 30, columns 20 to 30
    boxes = np.array([[20.0, 10, 30, 30], [0, 0, 10, 40]])
    squash = Preprocessing(20, 20, squash=True)
    assert squash.place_boxes(boxes, (80, 40)).tolist() == [[5, 5, 7.5, 15], [0, 0, 2.5, 20]]
    crop = Preprocessing(20, 10)  # 80 × 40 becomes 40 × 20; columns 15 to 25 and rows 5 to 15 remain
    assert crop.place_boxes(boxes, (80, 40)).tolist() == [[0, 0, 0, 10], [0, 0, 0, 10]]
    for preprocess in (squash, Preprocessing(20, 20)):
        placed = preprocess.place_mask(mask)
        shown = preprocess(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"))[0] > 0
        assert placed.shape == (20, 20)
        assert (placed != shown).float().mean() < 0.06  # at most the border of the mask differs


@pytest.mark.parametrize(
    "preprocess",
    [Preprocessing(64, 48), Preprocessing(64, 48, squash=True), Preprocessing(45, 48)],
    ids=["crop", "squash", "padded"],
)
@pytest.mark.parametrize("size", SIZES[:6], ids=str)
def test_a_box_is_where_its_mask_is(size, preprocess):
    box = np.array([size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4])
    mask = np.zeros(size[::-1], bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    rows, columns = torch.where(preprocess.place_mask(mask))
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # Nearest-pixel rounding is within half a pixel of the input, or of the image if that is coarser.
    step = max(1.0, 48 / min(size)) / 2 + 1e-4
    placed = preprocess.place_boxes(box[None], size)[0]
    assert (placed - torch.tensor(edges)).abs().max() <= step


def test_a_squashed_image_is_seen_whole():
    preprocess = Preprocessing(64, 48, squash=True)
    image = gradient((97, 40))
    assert preprocess.view(image) is image
    seen = preprocess.restore(preprocess(image)[None])[0]
    assert seen.shape == (3, 48, 48)
    assert seen[0, :, 0].max() < 0.05 and seen[0, :, -1].min() > 0.95
