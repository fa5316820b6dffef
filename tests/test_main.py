import io
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torchvision
from PIL import Image

import gmcam
from gmcam import loading
from gmcam.__main__ import main
from gmcam.lab import train
from gmcam.lab.networks import FOLDER, load_weights

FIGURE_SIZE = 300  # pixels; a written figure is wider


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The working folder: a good picture, and everything that is not one."""
    monkeypatch.chdir(tmp_path)
    picture = gmcam.lab.scene("cat", "cup", seed=3).image
    picture.save("cat.png")
    Path("empty.png").touch()
    Path("text.png").write_text("not a picture")
    Path("folder.png").mkdir()
    whole = io.BytesIO()
    picture.save(whole, format="jpeg")
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
    printed, complaints = capsys.readouterr()
    *classes, last = printed.splitlines()
    network = gmcam.load("collage-vgg")
    probabilities = network.probabilities("cat.png")[0].sort(descending=True)
    for line, value, index in zip(classes, *probabilities, strict=False):
        assert line == f"{value:7.2%}  {network.classes[index]}"
    assert len(classes) == 5
    assert last == "wrote cat-gmcam.png"
    assert complaints == ""
    with Image.open("cat-gmcam.png") as written:
        assert written.format == "PNG"
        assert written.width > FIGURE_SIZE


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_the_output_is_named_after_picture_and_method(method, desk, capsys):
    assert main(["explain", "cat.png", "--method", method]) == 0
    assert (desk / f"cat-{method}.png").exists()


def test_classes_go_by_name_and_by_index_in_the_order_given(desk, capsys, monkeypatch):
    shown = []
    show = gmcam.show
    monkeypatch.setattr(gmcam, "show", lambda picture, result: shown.append(result) or show(picture, result))
    arguments = ["--class", "Cup", "--class", "0", "--class", "motorbike"]
    assert main(["explain", "cat.png", *arguments, "--layer", "32x32", "--out", "three.png"]) == 0
    assert [shown[0].label(index) for index in range(3)] == ["cup", "cat", "motorbike"]
    assert shown[0].layer == "stage3"
    assert (desk / "three.png").exists()


def test_an_empty_map_is_said_in_words(desk, capsys, monkeypatch):
    network = gmcam.load("collage-vgg")
    for parameter in network.module.stage4.parameters():
        parameter.data.zero_()
    monkeypatch.setattr(gmcam, "load", lambda *_: network)
    assert main(["explain", "cat.png", "--class", "cup"]) == 0
    assert "the map for cup is empty: nothing at stage4 speaks for it" in capsys.readouterr().out


def test_an_existing_output_is_replaced_and_nothing_else_is_left(desk, capsys):
    Path("out.png").write_text("old")
    assert main(["explain", "cat.png", "--out", "out.png"]) == 0
    with Image.open("out.png") as written:
        assert written.format == "PNG"
    assert not [path for path in desk.iterdir() if path.name.startswith(".")]


BAD_INPUT = {
    "missing file": (["missing.png"], "there is no file missing.png"),
    "folder": (["folder.png"], "folder.png is a folder"),
    "zero bytes": (["empty.png"], "empty.png is empty (zero bytes)"),
    "text file": (["text.png"], "text.png is not a picture that Pillow can read"),
    "truncated JPEG": (["cut.jpg"], "cut.jpg cannot be read to its end"),
    "decompression bomb": (["bomb.jpg"], "more than 120 megapixels"),
    "unknown network": (["cat.png", "--network", "resnet51"], "no network is called 'resnet51'"),
    "unknown weights": (
        ["cat.png", "--network", "resnet50", "--weights", "V9"],
        "resnet50 has weights IMAGENET1K_V1",
    ),
    "unknown class": (["cat.png", "--class", "rockett"], "no class called 'rockett'; closest: rocket"),
    "class out of range": (["cat.png", "--class", "99"], "class 99 is out of range"),
    "negative class": (["cat.png", "--class=-1"], "no class called '-1'"),
    "unknown layer": (
        ["cat.png", "--layer", "stage9"],
        "no layer is called 'stage9'; the nearest names are stage",
    ),
    "layer without height and width": (["cat.png", "--layer", "head.0"], "without height and width"),
    "unknown method": (
        ["cat.png", "--method", "gradcam"],
        "no method is called 'gradcam'; there are cam, grad_cam",
    ),
    "cam without pooling": (["cat.png", "--method", "cam"], "use grad_cam"),
    "missing output folder": (["cat.png", "--out", "no/out.png"], "the output folder no does not exist"),
    "output is a folder": (["cat.png", "--out", "folder.png"], "the output folder.png is a folder"),
    "output is no PNG": (["cat.png", "--out", "out.jpg"], "call it out.png, not out.jpg"),
    "output without a suffix": (["cat.png", "--out", "out"], "call it out.png, not out"),
    "output without a name": (["cat.png", "--out", ""], ".png"),
}


def assert_refused(code, capsys, message):
    complaints = capsys.readouterr().err
    assert code == 2
    assert complaints.startswith("gmcam: ")
    assert message in complaints
    assert complaints.count("\n") == 1 and complaints.endswith("\n")


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
    assert_refused(code, capsys, "the output folder . cannot be written (Permission denied)")
    assert files(desk) == before


def test_weights_with_a_wrong_hash_are_refused(desk, capsys, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed") / "weights"
    shutil.copytree(FOLDER, folder)
    path = folder / "collage-vgg.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    monkeypatch.setattr(loading, "load_weights", partial(load_weights, folder=folder))
    before = files(desk)
    assert_refused(main(["explain", "cat.png"]), capsys, f"{path} is damaged: its SHA-256 starts with")
    assert files(desk) == before


@pytest.mark.parametrize("content", [b"no weights", b""], ids=["text", "empty"])
def test_a_damaged_file_in_torchs_cache_is_refused(content, desk, capsys, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
    path = loading.checkpoint(torchvision.models.SqueezeNet1_1_Weights.DEFAULT)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    before = files(desk)
    code = main(["explain", "cat.png", "--network", "squeezenet1_1"])
    assert_refused(code, capsys, f"{path} cannot be loaded as weights of squeezenet1_1")
    assert files(desk) == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_failure_while_saving_leaves_the_old_output_as_it_was(failure, desk, capsys, monkeypatch):
    def broken(_figure, path, **_options):
        Path(path).write_bytes(b"half a picture")
        raise failure

    monkeypatch.setattr(Picture, "savefig", broken)
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


def test_networks_marks_those_whose_weights_are_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = loading.checkpoint(torchvision.models.SqueezeNet1_0_Weights.DEFAULT)
    path.parent.mkdir(parents=True)
    path.touch()
    assert main(["networks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  * squeezenet1_0" in lines
    assert "    squeezenet1_1" in lines
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in gmcam.lab.EMBEDDED)


def test_layers_lists_every_map_and_marks_the_default(capsys):
    assert main(["layers", "collage-vgg"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(gmcam.load("collage-vgg").found.shapes)
    assert [line.split() for line in lines if "(default)" in line] == [
        ["stage4", "128", "x", "16", "x", "16", "16x16", "(default)"]
    ]


def test_layers_of_an_unknown_network_are_refused(capsys):
    assert_refused(main(["layers", "resnet51"]), capsys, "no network is called 'resnet51'")


def test_train_writes_weights_and_says_how_good_they_are(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "BATCH", 4)
    monkeypatch.setattr(train, "TEST_SCENES", 8)
    assert main(["train", "collage-vgg", "--steps", "2", "--seed", "5", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("collage-vgg: ")
    assert load_weights("collage-vgg", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18"], "gmcam trains collage-resnet"),
        (["collage-vgg", "--out", "missing"], "the output folder missing does not exist"),
        (["collage-vgg", "--steps", "0"], "at least one step"),
    ],
)
def test_train_refuses_bad_input_in_one_line(arguments, message, desk, capsys):
    assert_refused(main(["train", *arguments]), capsys, message)


@pytest.mark.parametrize("arguments", [[], ["explain"], ["paint"], ["train", "collage-vgg", "--steps", "x"]])
def test_a_command_line_that_does_not_parse_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: gmcam")


def test_python_m_gmcam_explains_a_picture(desk):
    done = as_a_command("explain", "cat.png", "--class", "cat", cwd=desk)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("wrote cat-gmcam.png\n")
    assert (desk / "cat-gmcam.png").stat().st_mode & 0o777 == 0o644


def test_python_m_gmcam_refuses_bad_input(desk):
    done = as_a_command("explain", "missing.png", cwd=desk)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gmcam: there is no file missing.png\n"


def test_a_reader_of_a_pipe_who_has_seen_enough_hears_no_complaint(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = as_a_command("methods", cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_evaluate_prints_the_table_and_fills_the_folder(desk, capsys):
    arguments = ["--dataset", "collage", "--limit", "3", "--methods", "grad_cam,gmcam", "--pixels", "0"]
    assert main(["evaluate", *arguments, "--out", "run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 measured, 0 unreadable, 0 no class, 0 failed\n")
    assert printed.endswith("wrote run\n")
    assert "Pointing game ↑" in printed and "GMCAM" in printed
    with Image.open("run/figures/summary.png") as chart:
        assert chart.width > FIGURE_SIZE
    assert main(["evaluate", *arguments, "--out", "run"]) == 0  # continued, and done already
    assert capsys.readouterr().out == printed


BAD_EVALUATIONS = {
    "unknown dataset": (["--dataset", "cifar"], "no dataset is called 'cifar'"),
    "no root": (["--dataset", "voc"], "voc is read from disk, so give its root"),
    "missing root": (["--dataset", "coco", "--root", "no"], "there is no folder no/annotations"),
    "wrong layout": (["--dataset", "voc", "--root", "folder.png"], "VOCdevkit/VOC2012"),
    "no picture": (["--limit", "0"], "one picture or more, not to 0"),
    "unknown method": (["--methods", "grad_cam,gradcam"], "no method is called 'gradcam'"),
    "no method": (["--methods", ""], "no method is called ''"),
    "unknown zone": (["--zone", "firm"], "soft or hard, not 'firm'"),
    "threshold of nothing": (["--threshold", "0"], "above 0 and up to 1, not at 0.0"),
    "unknown layer": (["--layer", "stage9"], "no layer is called 'stage9'"),
    "unknown network": (["--network", "resnet51"], "no network is called 'resnet51'"),
    "no thread to read": (["--readers", "0"], "at least one thread reads pictures, not 0"),
    "output is a file": (["--out", "cat.png"], "cat.png cannot be written"),
    "output on a read-only disk": (["--out", "/sys/run"], "/sys/run cannot be written"),
    "output of something else": (["--out", "."], ". holds other files and no run"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_EVALUATIONS.values(), ids=BAD_EVALUATIONS)
def test_an_evaluation_that_cannot_be_is_refused_in_one_line(arguments, message, desk, capsys):
    plain = ["--dataset", "collage", "--limit", "2", "--methods", "grad_cam", "--out", "run"]
    assert_refused(main(["evaluate", *plain, *arguments]), capsys, message)
    assert not Path("run/run.json").exists()
