"""The same seed gives the same images, maps and tables; the same sources give the same pages."""

import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_book import build, small_book

import gmcam

ROOT = Path(__file__).parents[1]
COMPUTE = """
import sys
import numpy as np, torch
import gmcam
from gmcam import datasets, evaluate

threads, out = int(sys.argv[1]), sys.argv[2]
few = {"seed": 5, "steps": 3, "samples": 2, "sizes": 2, "share": 2}  # the same code, run less often
torch.set_num_threads(threads)
arrays = {}
scene = gmcam.lab.scene("cat", "cup", seed=3)
arrays["scene"] = np.asarray(scene.image)
arrays["masks"] = scene.masks
network = gmcam.load("collage-resnet")
for name, method in gmcam.METHODS.items():
    options = {option: few[option] for option in few.keys() & method.options}
    result = gmcam.explain(network, scene.image, ["cat", "cup"], method=name, **options)
    arrays["map " + name] = result.raw.numpy()
choices = evaluate.Choices(methods=("grad_cam", "gmcam"), steps=2)
run = evaluate.evaluate(network, datasets.open_dataset("collage", limit=4), choices, out + "-run")
arrays["table"] = evaluate.summary(run)[["value", "low", "high", "count"]].to_numpy(float)
np.savez(out, **arrays)
"""
# What may differ between two builds of the same pages.
VARIABLE = {
    "ids that Jupyter gives widgets": r"[0-9a-f]{32}",
    "ids that Jupyter gives outputs": r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    "milliseconds that a cell has measured": r" *\d+ ms",
    "the same milliseconds in the index of all words": r'"\d+": (\d+|\[[\d, ]+\]),? ?',
}


def computed(folder, name, threads):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    environment["OMP_WAIT_POLICY"] = "passive"  # threads that wait leave the processor to others
    command = [sys.executable, "-c", COMPUTE, str(threads), str(folder / name)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    with np.load(folder / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """From two processes at the same time."""
    folder = tmp_path_factory.mktemp("twice")
    with ThreadPoolExecutor() as processes:
        return list(processes.map(lambda name: computed(folder, name, 1), ("once", "again")))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(twice):
    once, again = twice
    assert again.keys() == once.keys()
    assert len([name for name in once if name.startswith("map ")]) == len(gmcam.METHODS)
    assert [name for name in once if once[name].tobytes() != again[name].tobytes()] == []


@pytest.mark.slow
def test_more_threads_change_no_more_than_rounding(twice, tmp_path):
    """Differences are at most 1e-5 of each array's largest value."""
    once = twice[0]
    threaded = computed(tmp_path, "threaded", 2)
    assert np.array_equal(once["scene"], threaded["scene"]) and np.array_equal(
        once["masks"], threaded["masks"]
    )
    off = {
        name: np.abs(threaded[name] - once[name]).max() / np.abs(once[name]).max()
        for name in once
        if name not in ("scene", "masks")
    }
    assert {name: value for name, value in off.items() if value > 1e-5} == {}


def pages(source, out):
    """The files of a build into ``out``, without what may differ."""
    files = sorted(path for path in build(source, out).rglob("*") if path.is_file())
    return {str(path.relative_to(out)): without_variable(path) for path in files}


def without_variable(path):
    if path.suffix not in (".html", ".js"):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    text = path.read_text("utf-8")
    for pattern in VARIABLE.values():
        text = re.sub(pattern, "", text)
    return text


@pytest.mark.nightly
@pytest.mark.slow
def test_two_builds_from_clean_give_the_same_pages(tmp_path):
    source = small_book(tmp_path / "source", "own_photo", "photo_credits")
    first, second = (pages(source, tmp_path / name) for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
