"""Real photographs with ground truth through the real loaders, on a network trained on ImageNet."""

import pytest

from gmcam.datasets import open_dataset
from gmcam.evaluate import Choices, evaluate, status, summary

CHEAP = Choices(methods=("grad_cam", "gmcam"), layer="27x27", steps=0, batch=8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
@pytest.mark.parametrize(
    ("name", "folder", "missing"),
    [
        ("voc", "voc", set()),
        ("coco", "coco", set()),
        ("imagenet", "imagenet_sample", {"pointing", "dice", "iou", "inside", "trace"}),
    ],
)
def test_a_dataset_is_measured(name, folder, missing, squeezenet, data_root, tmp_path):
    dataset = open_dataset(name, data_root / folder, limit=24)
    run = evaluate(squeezenet, dataset, CHEAP, tmp_path / "run")
    images = status(run)
    assert images["measured"] >= 20 and images["measured"] + images["no class"] == 24
    table = summary(run).pivot(index="metric", columns="method", values="value")
    assert (
        set(table.index)
        == {
            "salience_drop",
            "salience_increase",
            "context_drop",
            "context_increase",
            "pointing",
            "dice",
            "iou",
            "inside",
            "trace",
        }
        - missing
    )
    assert ((table >= 0) & (table <= 1)).all().all()
    if not missing:  # on real photographs guidance sharpens: more inside, less of the object covered
        assert table.loc["inside", "gmcam"] > table.loc["inside", "grad_cam"]
        assert table.loc["dice", "gmcam"] < table.loc["dice", "grad_cam"]
