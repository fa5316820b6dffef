"""Runs that are stopped, damaged, contested or misnamed, and the tables made from them."""

import dataclasses
import errno
import functools
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import gmcam
from gmcam.evaluate import (
    Choices,
    Run,
    differences,
    evaluate,
    evaluating,
    measuring,
    runs,
    status,
    summary,
    table,
)
from gmcam.evaluate.runs import COLUMNS
from gmcam.metrics import METRICS

TWO = Choices(methods=("grad_cam", "gmcam"), pixels=64, batch=4)
ROOT = Path(__file__).parents[2]


def blocks(folder):
    return {path.name: path.stat().st_mtime_ns for path in (Path(folder) / "records").iterdir()}


@pytest.fixture
def whole(colour_network, squares_dataset, tmp_path):
    """A finished run over ten images, three blocks."""
    return evaluate(colour_network, squares_dataset(10), TWO, tmp_path / "whole")


def test_a_run_has_a_row_per_image_class_and_method_in_order(whole):
    rows = whole.records()
    assert list(rows.columns) == list(COLUMNS)
    assert rows["image"].drop_duplicates().tolist() == [f"squares {i}" for i in range(10)]
    assert len(rows) == 10 * 2 * 2
    assert set(rows["status"]) == {"measured"}
    assert status(whole) == {"measured": 10, "unreadable": 0, "no class": 0, "failed": 0}


def test_the_description_says_what_was_chosen_and_with_what(whole):
    description = Run.open(whole.folder).description
    assert description["arguments"] == {
        **dataclasses.asdict(TWO),
        "methods": ["grad_cam", "gmcam"],
        "layer": "relu",
    }
    assert description["options"] == {"grad_cam": {}, "gmcam": {}}
    assert description["dataset"]["images"] == 10
    assert len(description["network"]["sha256"]) == 64
    assert description["versions"]["gmcam"] == gmcam.__version__


def test_the_summary_is_the_mean_of_the_records(whole):
    rows = whole.records()
    averages = summary(whole, clusters=None)
    for row in averages.itertuples():
        values = rows.loc[rows["method"] == row.method, row.metric]
        assert row.value == pytest.approx(values.mean())
        assert row.count == values.notna().sum() == 20
        assert row.units == 10
        assert row.low <= row.value <= row.high
    # Without images without an object, there is no effect to compare with.
    assert [*dict.fromkeys(averages["metric"])] == [
        m for m in METRICS if m not in ("fidelity", "inside_error")
    ]


def test_the_mean_of_classes_counts_each_class_once(whole):
    rows = whole.records()
    averages = summary(whole, mean="class").set_index(["method", "metric"])["value"]
    expected = rows[rows["method"] == "gmcam"].groupby("label")["dice"].mean().mean()
    assert averages["gmcam", "dice"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="expected mean to be micro or class, got 'macro'"):
        summary(whole, mean="macro")


def test_metrics_are_chosen_by_name(whole):
    assert set(summary(whole, metrics=["iou", "dice"])["metric"]) == {"dice", "iou"}
    with pytest.raises(ValueError, match="expected a column 'jaccard' in the records"):
        summary(whole, metrics=["jaccard"])


def test_differences_are_paired(whole):
    rows = whole.records().pivot(index=["image", "label"], columns="method", values="inside")
    apart = summary(whole, clusters=None).set_index(["method", "metric"]).loc[("gmcam", "inside")]
    compared = differences(whole, "gmcam", clusters=None).set_index(["method", "metric"])
    difference = compared.loc[("grad_cam", "inside")]
    paired = rows["grad_cam"] - rows["gmcam"]
    assert difference["value"] == pytest.approx(paired.mean())
    # An image has the same weight in both, so the interval is that of the differences, which vary little.
    assert difference["high"] - difference["low"] < 0.8 * (apart["high"] - apart["low"])
    with pytest.raises(ValueError, match="expected a method among grad_cam, gmcam, got 'cam'"):
        differences(whole, "cam")


def test_differences_are_over_pairs_that_both_methods_have():
    ours, theirs = (
        {"p1": 1.0, "p2": 0.0, "p3": 0.5, "p5": 1.0},
        {"p2": 0.25, "p3": np.nan, "p4": 0.75, "p5": 0.5},
    )
    frame = pd.DataFrame(
        [
            (image, "cat", method, value)  # p1 and p4 have a single row, p3 has no number in one
            for method, values in (("ours", ours), ("theirs", theirs))
            for image, value in values.items()
        ],
        columns=["image", "label", "method", "inside"],
    )
    for reference, expected in (("theirs", 0.125), ("ours", -0.125)):
        for mean in ("micro", "class"):
            row = differences(frame, reference, mean).iloc[0]
            assert (row["value"], row["count"]) == (expected, 2)


def test_images_may_be_numbers(whole):
    frame = whole.records().assign(image=lambda rows: rows["image"].astype("category").cat.codes)
    pd.testing.assert_frame_equal(summary(frame), summary(frame.assign(image=frame["image"].astype(str))))


def test_other_metrics_are_columns_of_a_frame(whole):
    frame = whole.records()
    pd.testing.assert_frame_equal(summary(frame), summary(whole))
    pd.testing.assert_frame_equal(differences(frame, "gmcam"), differences(whole, "gmcam"))
    frame["Twice ↑"] = 2 * frame["inside"]
    frame.loc[frame["label"] == "red", "Twice ↑"] = np.nan  # not defined there
    averages = summary(frame, metrics=["Twice ↑", "inside"], clusters=None)
    wide = table(averages)
    assert wide.columns.tolist() == ["Share inside ↑", "Twice ↑"]
    row = averages.query("method == 'gmcam' and metric == 'Twice ↑'").iloc[0]
    defined = frame.query("method == 'gmcam' and label != 'red'")
    assert row["count"] == len(defined) < 20
    assert row["value"] == pytest.approx(2 * defined["inside"].mean())
    assert row["low"] < row["value"] < row["high"]
    assert wide.loc["GMCAM", "Twice ↑"].startswith(f"{row['value']:.3f} [")
    by_class = summary(frame, "class", ["Twice ↑"]).set_index("method")["value"]
    assert by_class["gmcam"] == pytest.approx(defined.groupby("label")["Twice ↑"].mean().mean())
    paired = differences(frame, "grad_cam", metrics=["Twice ↑"])
    assert paired[["method", "metric"]].values.tolist() == [["gmcam", "Twice ↑"]]


def test_a_frame_of_other_columns_is_refused(whole):
    frame = whole.records()
    with pytest.raises(ValueError, match="expected a column 'label' in the records"):
        summary(frame.drop(columns="label"))
    with pytest.raises(ValueError, match="expected a column 'near' in the records"):
        summary(frame, metrics=["near"])
    with pytest.raises(ValueError, match="expected a method among grad_cam, gmcam, got 'cam'"):
        differences(frame, "cam")
    with pytest.raises(ValueError, match="expected mean to be micro or class, got 'macro'"):
        summary(frame, "macro")


def test_tables_are_written_to_be_read_by_people_and_programs(whole):
    folder = whole.folder / "tables"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}{suffix}.{kind}"
        for name in ("summary", "differences-from-gmcam")
        for suffix in ("", "-recognised")
        for kind in ("csv", "md", "tex")
    )
    read = pd.read_csv(folder / "summary.csv")
    pd.testing.assert_frame_equal(read, summary(whole), check_dtype=False)
    value = summary(whole).query("method == 'gmcam' and metric == 'dice'").iloc[0]
    words = f"{value.value:.3f} (few images: no interval)"  # three classes, two in an image
    for kind in ("md", "tex"):
        text = (folder / f"summary.{kind}").read_text()
        assert words in text and "Grad-CAM" in text and "Dice ↑" in text
    assert table(summary(whole)).loc["GMCAM", "Dice ↑"] == words


def test_a_finished_run_is_not_computed_again(whole, colour_network, squares_dataset, monkeypatch):
    before = blocks(whole.folder)

    def never(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr("gmcam.evaluate.evaluating.measure", never)
    evaluate(colour_network, squares_dataset(10), TWO, whole.folder)
    assert blocks(whole.folder) == before


def test_an_interrupted_run_is_continued_where_it_stopped(whole, colour_network, squares_dataset, tmp_path):
    plain = squares_dataset(1).read

    def interrupted(index):
        if index == 8:
            raise KeyboardInterrupt
        return plain(index)

    with pytest.raises(KeyboardInterrupt):
        evaluate(colour_network, squares_dataset(10, interrupted), TWO, tmp_path / "stopped")
    finished = blocks(tmp_path / "stopped")
    assert 0 < len(finished) < 3
    run = evaluate(colour_network, squares_dataset(10), TWO, tmp_path / "stopped")
    assert {name: blocks(run.folder)[name] for name in finished} == finished
    pd.testing.assert_frame_equal(run.records(), whole.records(), check_exact=True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_block_is_refused_and_computed_again_once_deleted(
    damage, whole, colour_network, squares_dataset
):
    expected = whole.records()
    path = sorted((whole.folder / "records").iterdir())[1]
    data = path.read_bytes()
    middle = data.index(b"squares 4") + 5
    damaged = {
        "cut": data[:-20],
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises((OSError, ValueError)):
        evaluate(colour_network, squares_dataset(10), TWO, whole.folder)
    path.unlink()
    run = evaluate(colour_network, squares_dataset(10), TWO, whole.folder)
    pd.testing.assert_frame_equal(run.records(), expected, check_exact=True)


def test_images_that_cannot_be_read_or_have_no_class_are_counted(colour_network, squares_dataset, tmp_path):
    plain = squares_dataset(1).read

    def read(index):
        if index == 1:
            raise ValueError("squares 1 is not an image")
        if index == 2:
            raise RuntimeError("a decoder failed")
        record = plain(index)
        return gmcam.datasets.Record(record.name, None, ()) if index == 5 else record  # not preprocessed

    run = evaluate(colour_network, squares_dataset(6, read), TWO, tmp_path / "run")
    assert status(run) == {"measured": 3, "unreadable": 2, "no class": 1, "failed": 0}
    rows = run.records().set_index("image")
    assert rows.loc["squares 1", "error"] == "squares 1 is not an image"
    assert rows.loc["squares 2", "error"] == "a decoder failed"
    assert rows.loc["squares 5", "error"] == "the network has none of its classes"
    assert summary(run)["count"].unique().tolist() == [6]


def test_a_dataset_without_measurable_images_is_refused(colour_network, squares_dataset, tmp_path):
    def read(index):
        raise ValueError(f"there is no file {index}.jpg")

    message = r"expected images that can be measured, got none; the first failed: there is no file 0\.jpg"
    with pytest.raises(ValueError, match=message):
        evaluate(colour_network, squares_dataset(3, read), TWO, tmp_path / "run")


def test_a_block_that_another_process_wrote_elsewhere_is_missing(
    colour_network, squares_dataset, tmp_path, monkeypatch
):
    write = runs.write_block
    monkeypatch.setattr(
        runs, "write_block", lambda folder, block, rows: block == 1 or write(folder, block, rows)
    )
    with pytest.raises(ValueError, match="got some: let all processes share it"):
        evaluate(colour_network, squares_dataset(10), TWO, tmp_path / "run")
    assert not (tmp_path / "run" / "tables").exists()


@pytest.mark.parametrize("kind", evaluating.IMAGE_ERRORS)
def test_an_image_that_fails_alone_leaves_the_others_of_its_block(
    kind, colour_network, squares_dataset, tmp_path, monkeypatch
):
    def failing(network, cases, choices):
        if any(case.image == "squares 1" for case in cases):
            raise kind("the gradients at layer 'relu' are not finite")
        return measuring.measure(network, cases, choices)

    monkeypatch.setattr("gmcam.evaluate.evaluating.measure", failing)
    run = evaluate(colour_network, squares_dataset(4), TWO, tmp_path / "run")
    assert status(run) == {"measured": 3, "unreadable": 0, "no class": 0, "failed": 1}
    assert run.records().set_index("image").loc["squares 1", "error"].strip("'\"").endswith("not finite")


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_an_error_without_words(workers, whole, colour_network, squares_dataset, tmp_path):
    plain = squares_dataset(1).read

    def read(index):
        if index == 9:
            raise AssertionError
        return plain(index)

    run = evaluate(colour_network, squares_dataset(10, read), TWO, tmp_path / "run", workers=workers)
    rows, expected = run.records(), whole.records()
    assert rows["error"].iloc[-1] == "AssertionError"
    pd.testing.assert_frame_equal(
        rows[rows["status"] == "measured"].reset_index(drop=True)[["image", *METRICS]],
        expected[expected["image"] != "squares 9"][["image", *METRICS]],
        check_exact=True,
    )


def test_reading_leaves_the_random_state_alone(colour_network, squares_dataset, tmp_path):
    before = torch.get_rng_state()
    evaluate(colour_network, squares_dataset(2), TWO, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


FAULTS = [
    MemoryError("no room"),
    torch.OutOfMemoryError("tried to allocate 80 GiB"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    OSError(errno.EIO, "Input/output error"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_fault_of_the_machine_ends_the_run_and_is_not_recorded(
    fault, whole, colour_network, squares_dataset, tmp_path, monkeypatch
):
    """The unfinished block has no file, and the same command computes it."""

    def failing(network, cases, choices):
        if any(case.image == "squares 5" for case in cases):
            raise fault
        return measuring.measure(network, cases, choices)

    monkeypatch.setattr("gmcam.evaluate.evaluating.measure", failing)
    with pytest.raises(type(fault), match=str(fault).replace("[", r"\[")):
        evaluate(colour_network, squares_dataset(10), TWO, tmp_path / "run")
    assert list(blocks(tmp_path / "run")) == ["block-000000.parquet"]
    monkeypatch.undo()
    run = evaluate(colour_network, squares_dataset(10), TWO, tmp_path / "run")
    pd.testing.assert_frame_equal(run.records(), whole.records(), check_exact=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_little_memory_to_read_ends_the_run(workers, colour_network, squares_dataset, tmp_path):
    plain = squares_dataset(1).read

    def read(index):
        if index == 5:
            raise MemoryError("no room")
        return plain(index)

    with pytest.raises(MemoryError, match="no room"):
        evaluate(colour_network, squares_dataset(10, read), TWO, tmp_path / "run", workers=workers)
    assert "block-000001.parquet" not in blocks(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zone": "hard"}, "expected arguments: zone 'soft' as in the run in .*, got 'hard'"),
        ({"threshold": 0.4}, "expected arguments: threshold 0.5 .*, got 0.4"),
        ({"methods": ("gmcam",)}, r"methods \['grad_cam', 'gmcam'\] .*, got \['gmcam'\]"),
        ({"layer": "maps"}, "layer 'relu' .*, got 'maps'"),
    ],
)
def test_other_arguments_on_the_same_folder_are_refused(
    change, message, whole, colour_network, squares_dataset
):
    before = blocks(whole.folder)
    choices = dataclasses.replace(TWO, **change)
    with pytest.raises(ValueError, match=message):
        evaluate(colour_network, squares_dataset(10), choices, whole.folder)
    assert blocks(whole.folder) == before


def test_another_seed_is_refused(colour_network, squares_dataset, tmp_path, monkeypatch):
    noisy = Choices(("smooth_full_grad",), steps=0)
    run = evaluate(colour_network, squares_dataset(1), noisy, tmp_path / "run")
    assert run.description["options"]["smooth_full_grad"]["seed"] == 0
    entry = gmcam.METHODS["smooth_full_grad"]
    other = dataclasses.replace(entry, compute=functools.partial(entry.compute, seed=1))
    monkeypatch.setitem(gmcam.METHODS, "smooth_full_grad", other)
    with pytest.raises(ValueError, match="expected options: smooth_full_grad"):
        evaluate(colour_network, squares_dataset(1), noisy, run.folder)


def test_other_images_and_other_weights_are_refused(whole, colour_network, squares_dataset):
    with pytest.raises(ValueError, match=r"expected dataset: images 10 .*, got 9"):
        evaluate(colour_network, squares_dataset(9), TWO, whole.folder)
    colour_network.module.fc.weight.data += 1
    with pytest.raises(ValueError, match="expected network: sha256"):
        evaluate(colour_network, squares_dataset(10), TWO, whole.folder)
    colour_network.module.fc.weight.data -= 1
    colour_network.preprocess = dataclasses.replace(colour_network.preprocess, mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="expected network: preprocessing"):
        evaluate(colour_network, squares_dataset(10), TWO, whole.folder)


def test_a_method_that_cannot_serve_is_refused_before_anything_is_written(
    colour_network, squares_dataset, tmp_path
):
    with pytest.raises(ValueError, match="has height and width"):
        evaluate(colour_network, squares_dataset(4), Choices(("grad_cam",), layer="fc"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] in ([], ["lock"])


def test_a_network_without_the_datasets_classes_is_refused(colour_network, squares_dataset, tmp_path):
    colour_network.classes = ("cyan", "magenta", "yellow")
    with pytest.raises(ValueError, match="expected classes such as red, green, blue, got cyan"):
        evaluate(colour_network, squares_dataset(4), TWO, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_left_alone(colour_network, squares_dataset, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="expected an empty folder or a run, got other files"):
        evaluate(colour_network, squares_dataset(4), TWO, tmp_path)
    with pytest.raises(ValueError, match="expected a run in"):
        Run.open(tmp_path)
    with pytest.raises(ValueError, match=r"letter\.txt/run \(Not a directory\): name another"):
        evaluate(colour_network, squares_dataset(4), TWO, tmp_path / "letter.txt" / "run")


def test_memory_does_not_grow_with_the_number_of_images(
    colour_network, squares_dataset, tmp_path, monkeypatch
):
    """Cases alive whenever one is created: those of the block being read and of the one before."""
    created: list[weakref.ref] = []
    alive = []

    def counted(*arguments):
        cases = measuring.cases_of(*arguments)
        created.extend(weakref.ref(case) for case in cases)
        alive.append(sum(case() is not None for case in created))
        return cases

    monkeypatch.setattr("gmcam.evaluate.evaluating.cases_of", counted)
    evaluate(colour_network, squares_dataset(80), TWO, tmp_path / "run")
    assert len(alive) == 80
    assert max(alive) <= 2 * TWO.batch * 2  # two classes in each image


def test_two_runs_at_once_on_one_folder_one_is_refused(colour_network, squares_dataset, tmp_path):
    started, refused = threading.Event(), threading.Event()
    plain = squares_dataset(1).read

    def slow(index):
        started.set()
        refused.wait(20)
        return plain(index)

    work = threading.Thread(
        target=evaluate, args=(colour_network, squares_dataset(4, slow), TWO, tmp_path / "run")
    )
    work.start()
    assert started.wait(20)
    with pytest.raises(ValueError, match="which is in use"):
        evaluate(colour_network, squares_dataset(4), TWO, tmp_path / "run")
    refused.set()
    work.join()
    assert status(Run.open(tmp_path / "run"))["measured"] == 4


def test_a_full_disk_ends_the_run_and_keeps_finished_blocks(whole, colour_network, squares_dataset, tmp_path):
    """The kernel itself cuts the third block's file short: no file may grow beyond the limit."""
    sizes = sorted(path.stat().st_size for path in (whole.folder / "records").iterdir())
    written = []
    write = runs.write_block

    def limited(folder, block, rows):
        if block == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[0] // 2, before[1]))
        write(folder, block, rows)
        written.append(block)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    folder = tmp_path / "full"
    try:
        runs.write_block = limited
        with pytest.raises(OSError, match="File too large"):
            evaluate(colour_network, squares_dataset(10), TWO, folder)
    finally:
        runs.write_block = write
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert written == [0, 1]
    assert sorted(blocks(folder)) == ["block-000000.parquet", "block-000001.parquet"]
    run = evaluate(colour_network, squares_dataset(10), TWO, folder)
    pd.testing.assert_frame_equal(run.records(), whole.records(), check_exact=True)


KILLED = textwrap.dedent("""
    import os, random, shutil, sys, time
    from pathlib import Path
    import torch
    import pyarrow.parquet  # imported once, so that kills fall into the work
    from gmcam.__main__ import main

    torch.set_num_threads(1)
    times, arguments = int(sys.argv[1]), sys.argv[2:]
    out = Path(arguments[-1])

    def begun():
        child = os.fork()
        return child or os._exit(main(arguments))

    start = time.monotonic()
    os.waitpid(begun(), 0)
    whole = time.monotonic() - start
    shutil.rmtree(out)
    chance = random.Random(0)
    kills = 0
    while kills < times:
        child = begun()
        end = time.monotonic() + chance.uniform(0, whole)
        ended = 0
        while time.monotonic() < end and not ended:
            ended, _ = os.waitpid(child, os.WNOHANG)
            time.sleep(0.005)
        if ended:  # it was done before it could be killed: from the start
            shutil.rmtree(out)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            kills += 1
    print(kills, "kills,", len(list(out.glob("records/*.parquet"))), "blocks", flush=True)
    sys.exit(main(arguments))
""")


def command(*arguments, out, limit=12):
    dataset = ["--dataset", "collage", "--limit", str(limit), "--batch", "2", "--pixels", "4096"]
    network = ["--network", "collage-resnet", "--methods", "grad_cam,gmcam"]
    return ["evaluate", *dataset, *network, "--out", str(out), *arguments]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def undisturbed(out, limit):
    """A run by the command line that nobody disturbed."""
    done = subprocess.run(
        [sys.executable, "-m", "gmcam", *command(out=out, limit=limit)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{limit} measured, 0 unreadable") and f"wrote {out}" in done.stdout
    return Run.open(out)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("runs") / "uninterrupted", 12)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.nightly)])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(kills, tmp_path):
    whole, out = undisturbed(tmp_path / "whole", 4), tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(kills), *command(out=out, limit=4)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{kills} kills, " in done.stdout
    pd.testing.assert_frame_equal(Run.open(out).records(), whole.records(), check_exact=True)
    for name in ("summary.csv", "differences-from-gmcam.md"):
        assert (out / "tables" / name).read_text() == (whole.folder / "tables" / name).read_text()
    assert not [path for path in out.rglob("*") if path.name.startswith(".unfinished")]


def torchrun(*arguments, ranks=2):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.run(
        [*launch, "-m", "gmcam", *arguments], env=environment(), capture_output=True, text=True
    )


@pytest.mark.slow
def test_two_ranks_give_the_records_and_tables_of_one(uninterrupted, tmp_path):
    out = tmp_path / "shared"
    done = torchrun(*command(out=out))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("wrote ") == 1  # rank 0 alone speaks
    pd.testing.assert_frame_equal(Run.open(out).records(), uninterrupted.records(), check_exact=True)
    assert (out / "tables" / "summary.csv").read_text() == (
        uninterrupted.folder / "tables" / "summary.csv"
    ).read_text()


def rank_of(process):
    """The RANK of a process of this machine that evaluates, None for another."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    if b"evaluate" not in words or b"torch.distributed.run" in words:
        return None
    return next((int(v.removeprefix(b"RANK=")) for v in variables if v.startswith(b"RANK=")), None)


@pytest.mark.slow
def test_what_a_dead_rank_left_is_done_by_the_next_run(uninterrupted, tmp_path):
    out = tmp_path / "dead"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    running = subprocess.Popen(
        [*launch, "-m", "gmcam", *command(out=out)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (out / "records").exists() or not list((out / "records").glob("block-*")):
        assert running.poll() is None
        time.sleep(0.02)
    (second,) = [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if rank_of(process) == 1 and str(out) in (process / "cmdline").read_text()
    ]
    os.kill(second, signal.SIGKILL)
    assert running.wait(120) != 0  # the launcher ends the others
    assert len(list((out / "records").glob("block-*"))) < 6
    assert not (out / "tables").exists()
    done = subprocess.run(
        [sys.executable, "-m", "gmcam", *command(out=out)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pd.testing.assert_frame_equal(Run.open(out).records(), uninterrupted.records(), check_exact=True)


@pytest.mark.slow
def test_a_refusal_reaches_every_rank(tmp_path):
    """Started by hand: torchrun would end the second one itself."""
    (tmp_path / "letter.txt").write_text("dear")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "gmcam", *command(out=tmp_path)],
            env={**environment(), **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], errors
    assert all("gmcam: expected an empty folder or a run" in text for text in errors)
