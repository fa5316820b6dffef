import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification

from gmcam import Preprocessing

SIZES = [(320, 200), (200, 320), (256, 256), (301, 223), (97, 640), (40, 30)]


def noise(size):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def gradient(size):
    """Red grows to the right and green downwards, so a colour tells where it comes from."""
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
    ],
)
def test_preprocessing_equals_torchvisions_preset_bit_for_bit(resize, crop, interpolation, size):
    preset = ImageClassification(resize_size=resize, crop_size=crop, interpolation=interpolation)
    ours = Preprocessing(resize, crop, interpolation=interpolation)(noise(size))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, preset(noise(size)))


def test_another_mean_and_deviation_are_used():
    grey = Image.new("RGB", (8, 8), (51, 102, 204))
    inputs = Preprocessing(8, 8, mean=(0.2, 0.3, 0.4), std=(1.0, 0.5, 0.25))(grey)
    assert inputs[:, 0, 0].tolist() == pytest.approx([0.0, 0.2, 1.6])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (128, 128), (232, 224)])
def test_the_view_shows_what_the_network_sees(resize, crop, size):
    preprocess = Preprocessing(resize, crop)
    seen = preprocess.restore(preprocess(gradient(size))[None])[0]
    view = F.to_tensor(preprocess.view(gradient(size)).resize((crop, crop), Image.Resampling.BILINEAR))
    # Both end at whole pixels, so colours may be off by two pixels' step.
    assert (seen - view).abs().max() < 2.5 / min(size)


@pytest.mark.parametrize("size", [(320, 200), (200, 320), (4, 1), (1, 4), (1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (128, 128)])
def test_the_view_is_as_large_as_the_crop_and_never_empty(resize, crop, size):
    side = min(size) * crop / resize
    for found in Preprocessing(resize, crop).view(noise(size)).size:
        assert max(1, side - 1) <= found <= side + 1


def test_the_view_keeps_the_pictures_own_pixels():
    picture = noise((300, 200))
    view = Preprocessing(200, 100).view(picture)
    assert np.array_equal(np.asarray(view), np.asarray(picture)[50:150, 100:200])


def test_restoring_undoes_the_normalisation():
    preprocess = Preprocessing(64, 64)
    inputs = preprocess(noise((64, 64)))[None]
    assert torch.allclose(preprocess.restore(inputs)[0], F.to_tensor(noise((64, 64))), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_restored_colours_keep_their_type_and_stay_between_zero_and_one(dtype):
    restored = Preprocessing(8, 8).restore(torch.linspace(-9, 9, 192, dtype=dtype).view(1, 3, 8, 8))
    assert restored.dtype == dtype
    assert (restored.min(), restored.max()) == (0, 1)


def test_a_picture_too_slender_to_be_resized_is_refused():
    with pytest.raises(ValueError, match="30000 × 1 pixels is too slender"):
        Preprocessing(256, 224)(Image.new("RGB", (30000, 1)))


def test_crop_and_squash_place_pictures_masks_and_boxes_alike():
    mask = np.zeros((40, 80), bool)
    mask[10:30, 20:30] = True  # rows 10 to 30, columns 20 to 30
    boxes = np.array([[20.0, 10, 30, 30], [0, 0, 10, 40]])
    squash = Preprocessing(20, 20, squash=True)
    assert squash.place_boxes(boxes, (80, 40)).tolist() == [[5, 5, 7.5, 15], [0, 0, 2.5, 20]]
    crop = Preprocessing(20, 10)  # 80 × 40 becomes 40 × 20, of which columns 15 to 25 and rows 5 to 15 stay
    assert crop.place_boxes(boxes, (80, 40)).tolist() == [[0, 0, 0, 10], [0, 0, 0, 10]]
    for preprocess in (squash, Preprocessing(20, 20)):
        placed = preprocess.place_mask(mask)
        shown = preprocess(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"))[0] > 0
        assert placed.shape == (20, 20)
        assert (placed != shown).float().mean() < 0.06  # at most the border of the mask differs


@pytest.mark.parametrize("squash", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_box_lies_where_its_mask_lies(size, squash):
    preprocess = Preprocessing(64, 48, squash=squash)
    box = np.array([size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4])
    mask = np.zeros(size[::-1], bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    rows, columns = torch.where(preprocess.place_mask(mask))
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # The nearest pixel is within half a pixel of the input, or of the picture where that is coarser.
    step = max(1.0, 48 / min(size)) / 2 + 1e-4
    placed = preprocess.place_boxes(box[None], size)[0]
    assert (placed - torch.tensor(found)).abs().max() <= step


def test_a_squashed_picture_is_seen_whole():
    preprocess = Preprocessing(64, 48, squash=True)
    picture = gradient((97, 40))
    assert preprocess.view(picture) is picture
    seen = preprocess.restore(preprocess(picture)[None])[0]
    assert seen.shape == (3, 48, 48)
    assert seen[0, :, 0].max() < 0.05 and seen[0, :, -1].min() > 0.95
