"""The faults of ``book/faults.md`` that no other test file covers.

Each ends in a result or in one sentence with the remedy, and leaves everything as it was.
"""

import ast
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from modules import Apply
from PIL import Image
from torch import nn

import gmcam
from gmcam import METHODS, Preprocessing
from gmcam.__main__ import main
from gmcam.capture import capture
from gmcam.datasets import Dataset, Record, Truth
from gmcam.evaluate import Choices, Run, evaluate, status
from gmcam.lab import networks

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book/faults.md").read_text()


@pytest.fixture
def everything(snapshot):
    """The state that a call must not change: the network's and torch's."""

    def take(module):
        programs = [sorted(vars(part)) for part in module.modules()]
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_rng_state().tolist()
        return snapshot(module), programs, modes

    return take


def refusal(call, kind=ValueError):
    """The one sentence with which a call is rejected."""
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The page.


def names_in(path):
    names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    return {name for name in names if name.startswith("test_")}


def test_every_fault_of_the_page_names_a_test_that_exists():
    rows = re.findall(r"^\| .+ \| .+ \| \{abbr\}`test \(tests/(.+)::(\w+)\)` \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 40
    assert len(rows) == len(re.findall(r"^\| (?!---|fault)", PAGE, re.MULTILINE))  # every row has one
    for path, name in rows:
        assert name in names_in(ROOT / "tests" / path), (path, name)


def test_every_test_here_is_on_the_page():
    of_the_page = {
        "test_every_fault_of_the_page_names_a_test_that_exists",
        "test_every_test_here_is_on_the_page",
    }
    named = set(re.findall(r"tests/test_faults\.py::(\w+)", PAGE))
    assert names_in(Path(__file__)) - of_the_page == named


# Images.


def png(share=1.0):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return io.BytesIO(buffer.getvalue()[: int(share * buffer.tell())])


def test_an_image_opened_by_the_caller_may_still_be_broken():
    cut = Image.open(png(0.5))  # Pillow reads only the header
    assert refusal(lambda: gmcam.open_image(cut)).startswith("expected a complete image, got the image (")
    closed = Image.open(png())
    closed.close()
    assert refusal(lambda: gmcam.open_image(closed)).startswith("expected a complete image, got the image (")


def test_an_image_of_one_pixel_is_enlarged():
    result = gmcam.explain(gmcam.load("collage-vgg"), Image.new("RGB", (1, 1), "red"))
    assert result.maps.shape == (1, 128, 128)
    assert result.maps.isfinite().all()


PREPROCESSED = {
    "array": (lambda image: np.zeros((3, 8, 8)), "ndarray"),
    "no channels": (lambda image: torch.zeros(8, 8), "(8, 8)"),
    "a batch": (lambda image: torch.zeros(1, 3, 8, 8), "(1, 3, 8, 8)"),
    "several sizes": (lambda image: torch.zeros(3, 8, image.width), "(3, 8, 4) and (3, 8, 5)"),
}


@pytest.mark.parametrize("kind", PREPROCESSED)
def test_a_preprocessing_whose_outputs_are_no_batch_is_refused(gap_network, kind):
    preprocess, shapes = PREPROCESSED[kind]
    network = gmcam.Network(gap_network, preprocess=preprocess)
    images = [Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))]
    sentence = refusal(lambda: network.prepare(images))
    assert sentence.startswith("expected tensors (3, H, W) of one size, got")
    assert f"{shapes}: " in sentence


# Networks.


@pytest.mark.parametrize("target", [None, 0])
def test_weights_that_are_not_finite_are_detected(gap_network, images, everything, target):
    with torch.no_grad():
        gap_network.conv.weight[0] = torch.nan
    before = everything(gap_network)[1:]
    sentence = refusal(lambda: gmcam.explain(gap_network, images, target))
    assert re.match(r"expected finite .+, got NaN or infinity: check the weights", sentence)
    assert everything(gap_network)[1:] == before


def test_a_head_of_zero_weights_gives_empty_maps(gap_network, images):
    with torch.no_grad():
        gap_network.fc.weight.zero_()
    result = gmcam.explain(gap_network, images, 0)
    assert result.empty.all()
    assert not result.maps.any()


def test_an_output_that_ignores_the_image_is_refused(gap_network, images):
    gap_network.append(Apply(lambda logits: torch.zeros_like(logits)))
    sentence = refusal(lambda: gmcam.explain(gap_network, images, 0))
    assert re.match("expected a gradient .*layer 'relu', got none: ", sentence)


@pytest.mark.parametrize("classes", [["cat"], ["cat", "cup", "dog", "hat"]])
def test_more_or_fewer_names_than_logits_are_refused(gap_network, images, classes):
    network = gmcam.Network(gap_network, classes=classes, input_shape=(3, 8, 8))
    sentence = refusal(lambda: gmcam.explain(network, images))
    assert sentence == f"expected 3 class names, got {len(classes)}: name each logit"


def test_an_error_of_the_network_is_raised_and_the_network_unchanged(flat_network, everything):
    too_large = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    before = everything(flat_network.train())
    for method in METHODS:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            gmcam.explain(flat_network, too_large, 0, method=method, layer="relu")
    assert everything(flat_network) == before


# Targets and options.


def test_a_class_named_twice_gets_its_map_twice(gap_network, images):
    result = gmcam.explain(gap_network, images[:1], [2, 0, 2])
    assert result.target.tolist() == [2, 0, 2]
    assert torch.equal(result.maps[0], result.maps[2])


@pytest.mark.parametrize("sigma", [1e9, float("inf"), None, "1"])
def test_a_sigma_that_is_not_a_width_is_refused(gap_network, images, sigma):
    sentence = refusal(lambda: gmcam.explain(gap_network, images, 0, sigma=sigma))
    assert sentence.startswith("expected sigma") and f"got {sigma!r}" in sentence


@pytest.mark.parametrize("method", [None, ["grad_cam", "gmcam"], "gmcamera"])
def test_an_unknown_method_is_refused_with_the_closest_names(gap_network, images, method):
    sentence = refusal(lambda: gmcam.explain(gap_network, images, 0, method=method))
    assert sentence.startswith(f"expected the name of a method, got {method!r}: the")
    assert "grad_cam" in sentence.partition(": ")[2] or "gmcam" in sentence.partition(": ")[2]


# Weights.


@pytest.mark.parametrize("lost", ["collage-vgg.safetensors", "collage-vgg.json"])
@pytest.mark.parametrize("content", [None, "", "{", "{}"])
def test_an_incomplete_installation_is_named(tmp_path, lost, content):
    for name in ("collage-vgg.safetensors", "collage-vgg.json"):
        (tmp_path / name).write_bytes((networks.FOLDER / name).read_bytes())
    (tmp_path / lost).unlink() if content is None else (tmp_path / lost).write_text(content)
    sentence = refusal(lambda: networks.load_weights("collage-vgg", tmp_path))
    assert str(tmp_path / "collage-vgg.") in sentence
    assert "reinstall gmcam" in sentence


# Runs.


class Colourist(nn.Module):
    """Three logits: the amounts of red, green and blue."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 3, 1, bias=False)
        self.maps.weight.data = torch.eye(3).view(3, 3, 1, 1)

    def forward(self, x):
        return self.maps(x).mean((2, 3))


COLOURS = ("red", "green", "blue")
CHOICES = Choices(("grad_cam",), layer="maps", pixels=0, batch=2)


@pytest.fixture
def colourist():
    plain = Preprocessing(8, 8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return gmcam.Network(Colourist(), preprocess=plain, classes=COLOURS, input_shape=(3, 8, 8))


@pytest.fixture
def patches():
    def read(index):
        truth = Truth(
            COLOURS[index % 3], np.ones((8, 8), bool), np.array([[0.0, 0, 8, 8]]), np.array([False])
        )
        return Record(f"patch {index}", Image.new("RGB", (8, 8), COLOURS[index % 3]), (truth,))

    return Dataset("patches", COLOURS, tuple(f"patch {i}" for i in range(6)), read)


@pytest.mark.parametrize("content", ["", "{", "[]", "5"])
def test_a_damaged_description_of_a_run_is_named(colourist, patches, tmp_path, content):
    run = evaluate(colourist, patches, CHOICES, tmp_path / "run")
    (run.folder / "run.json").write_text(content)
    for call in (lambda: evaluate(colourist, patches, CHOICES, run.folder), lambda: Run.open(run.folder)):
        assert refusal(call).startswith(f"expected a run in {run.folder}, got")
    assert len(list((run.folder / "records").iterdir())) == 3


HOLDS = """
import sys, time
from pathlib import Path
from gmcam.evaluate.runs import locked

with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_folder_in_use_is_refused_until_its_process_is_killed(colourist, patches, tmp_path):
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert other.stdout.readline() == b"locked\n"
        sentence = refusal(lambda: evaluate(colourist, patches, CHOICES, tmp_path / "run"))
        assert sentence.startswith(f"expected a free folder, got {tmp_path / 'run'}, which is in use")
    finally:
        other.kill()  # it has no time to unlock anything
        other.communicate()
    assert status(evaluate(colourist, patches, CHOICES, tmp_path / "run"))["measured"] == 6


# Interruptions and memory.


def interrupt(*_):
    """Ctrl-C, as the terminal sends it."""
    signal.raise_signal(signal.SIGINT)


def fail(*_):
    raise ZeroDivisionError("from the user's hook")


stops = pytest.mark.parametrize(
    ("stop", "kind"), [(interrupt, KeyboardInterrupt), (fail, ZeroDivisionError)], ids=["Ctrl-C", "error"]
)


@stops
@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_stopped_in_a_forward_pass_leaves_nothing(
    gap_network, images, everything, name, stop, kind
):
    passes, last = [], [10**9]

    def hook(*_):
        passes.append(1)
        if len(passes) >= last[0]:
            stop()

    gap_network.train().fc.register_forward_hook(hook)
    layer = None if METHODS[name].keeps else "relu"
    gmcam.explain(gap_network, images, [2, 0, 1], method=name, layer=layer)
    needed, before = len(passes), everything(gap_network)
    for number in {1, (needed + 1) // 2, needed}:
        last[0] = number
        passes.clear()
        with pytest.raises(kind):
            gmcam.explain(gap_network, images, [2, 0, 1], method=name, layer=layer)
        assert everything(gap_network) == before


# Methods without gradients, or that need a class index as target.
FORWARD_ONLY = {"eigen_cam", "score_cam", "ablation_cam", "captum.occlusion", "cam", "relevance_cam"}
FORWARD_ONLY |= {"feature_sum", "centred_blob", "edges", "area"}


@stops
@pytest.mark.parametrize("name", sorted({*METHODS} - FORWARD_ONLY))
def test_a_method_that_is_stopped_in_a_backward_pass_leaves_nothing(
    gap_network, images, everything, name, stop, kind
):
    before = everything(gap_network.train())

    def score(logits):
        if logits.requires_grad:
            logits.register_hook(stop)  # runs when the gradient arrives here
        return logits[:, 0]

    with pytest.raises(kind):
        gmcam.explain(gap_network, images, score, method=name)
    assert everything(gap_network) == before


@stops
@pytest.mark.parametrize("targets", [[0], [0, 1, 2]], ids=["one class", "three classes"])
@pytest.mark.parametrize("in_place", [False, True], ids=["plain", "compiled"])
def test_a_users_backward_hook_that_is_stopped_leaves_nothing(
    gap_network, images, everything, stop, kind, targets, in_place
):
    gap_network.pool.register_full_backward_hook(stop)
    if in_place:
        gap_network.compile(backend="eager")
    before = everything(gap_network.train())
    for caller in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with caller(), pytest.raises(kind):
            capture(gap_network, images[:1], targets, ["conv", "relu"])
        assert everything(gap_network) == before


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "gmcam: stopped\n"),
        (torch.OutOfMemoryError("CUDA out of memory."), 2, "gmcam: CUDA out of memory.\n"),
        (MemoryError("no room"), 2, "gmcam: no room\n"),
    ],
    ids=repr,
)
def test_a_command_that_is_stopped_reports_it_in_one_line_and_leaves_no_file(
    tmp_path, monkeypatch, capsys, error, code, says
):
    def stop(*_arguments, **_options):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gmcam, "explain", stop)
    Image.new("RGB", (8, 8)).save("red.png")
    assert main(["explain", "red.png", "--out", "out.png"]) == code
    assert capsys.readouterr().err == says
    assert os.listdir() == ["red.png"]


def test_an_error_of_the_network_keeps_its_traceback_on_the_command_line(tmp_path, monkeypatch):
    def broken(*_arguments, **_options):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gmcam, "explain", broken)
    Image.new("RGB", (8, 8)).save("red.png")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        main(["explain", "red.png"])
    assert os.listdir() == ["red.png"]


def test_a_batch_that_exceeds_the_memory_raises_torchs_error(gap_network, images, everything):
    def full(_module, inputs):
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    gap_network.train().conv.register_forward_pre_hook(full)
    before = everything(gap_network)
    assert "CUDA out of memory" in refusal(
        lambda: gmcam.explain(gap_network, images, 0), torch.OutOfMemoryError
    )
    assert everything(gap_network) == before
