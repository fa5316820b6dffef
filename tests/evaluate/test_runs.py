"""Runs that are stopped, torn, contested or misnamed, and the tables that come of them."""

import dataclasses
import errno
import functools
import io
import os
import resource
import shutil
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
    write_figures,
)
from gmcam.evaluate.charts import intervals
from gmcam.evaluate.runs import SCHEMA, locked
from gmcam.evaluate.totals import Totals
from gmcam.metrics import METRICS

TWO = Choices(methods=("grad_cam", "gmcam"), pixels=64, batch=4)
ROOT = Path(__file__).parents[2]


def records(run):
    return pd.concat([block.to_pandas() for block in run.blocks()], ignore_index=True)


def blocks(folder):
    return {path.name: path.stat().st_mtime_ns for path in (Path(folder) / "records").iterdir()}


@pytest.fixture
def whole(colour_network, squares_dataset, tmp_path):
    """A finished run over ten pictures, three blocks."""
    return evaluate(colour_network, squares_dataset(10), TWO, tmp_path / "whole")


def test_a_run_has_a_row_per_picture_class_and_method_in_order(whole):
    rows = records(whole)
    assert list(rows.columns) == SCHEMA.names
    assert rows["picture"].drop_duplicates().tolist() == [f"squares {i}" for i in range(10)]
    assert len(rows) == 10 * 2 * 2
    assert set(rows["status"]) == {"measured"}
    assert status(whole) == {"measured": 10, "unreadable": 0, "no class": 0, "failed": 0}


def test_the_description_says_what_was_chosen_and_with_what(whole):
    description = Run.open(whole.folder).description
    assert description["arguments"] == {**TWO.values(), "methods": ["grad_cam", "gmcam"], "layer": "relu"}
    assert description["options"] == {"grad_cam": {}, "gmcam": {}}
    assert description["dataset"]["pictures"] == 10
    assert len(description["network"]["sha256"]) == 64
    assert description["versions"]["gmcam"] == gmcam.__version__


def test_the_summary_is_the_mean_of_the_records(whole):
    rows = records(whole)
    for row in summary(whole).itertuples():
        values = rows.loc[rows["method"] == row.method, row.metric]
        assert row.value == pytest.approx(values.mean())
        assert row.count == values.notna().sum() == 20
        assert row.low <= row.value <= row.high
    assert list(dict.fromkeys(summary(whole)["metric"])) == list(METRICS)


def test_the_mean_of_classes_counts_each_class_once(whole):
    rows = records(whole)
    found = summary(whole, mean="class").set_index(["method", "metric"])["value"]
    expected = rows[rows["method"] == "gmcam"].groupby("label")["dice"].mean().mean()
    assert found["gmcam", "dice"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="micro or class, not 'macro'"):
        summary(whole, mean="macro")


def test_metrics_are_chosen_by_name(whole):
    assert set(summary(whole, metrics=["iou", "dice"])["metric"]) == {"dice", "iou"}
    with pytest.raises(ValueError, match="no metric is called 'jaccard'; there are salience_drop"):
        summary(whole, metrics=["jaccard"])


def test_differences_are_paired(whole):
    rows = records(whole).pivot(index=["picture", "label"], columns="method", values="inside")
    found = differences(whole, "gmcam").set_index(["method", "metric"]).loc[("grad_cam", "inside")]
    paired = rows["grad_cam"] - rows["gmcam"]
    assert found["value"] == pytest.approx(paired.mean())
    # The same picture weighs alike in both, so the interval is that of the differences, which vary little.
    apart = summary(whole).set_index(["method", "metric"]).loc[("gmcam", "inside")]
    assert found["high"] - found["low"] < 0.8 * (apart["high"] - apart["low"])
    with pytest.raises(ValueError, match="compares grad_cam, gmcam, not 'cam'"):
        differences(whole, "cam")


def test_differences_in_a_frame_are_over_what_both_methods_have():
    ours, theirs = (
        {"p1": 1.0, "p2": 0.0, "p3": 0.5, "p5": 1.0},
        {"p2": 0.25, "p3": np.nan, "p4": 0.75, "p5": 0.5},
    )
    frame = pd.DataFrame(
        [
            (picture, "cat", method, value)  # p1 and p4 have one row alone, p3 has no number in one
            for method, values in (("ours", ours), ("theirs", theirs))
            for picture, value in values.items()
        ],
        columns=["picture", "label", "method", "inside"],
    )
    for reference, expected in (("theirs", 0.125), ("ours", -0.125)):
        for mean in ("micro", "class"):
            found = differences(frame, reference, mean).iloc[0]
            assert (found["value"], found["count"]) == (expected, 2)


def test_pictures_may_be_numbers_as_a_file_is_read_again(whole):
    frame = records(whole).assign(picture=lambda rows: rows["picture"].astype("category").cat.codes)
    pd.testing.assert_frame_equal(summary(frame), summary(frame.assign(picture=frame["picture"].astype(str))))


def test_a_metric_of_the_callers_own_is_a_column_beside_the_others(whole):
    frame = records(whole)
    pd.testing.assert_frame_equal(summary(frame), summary(whole))
    pd.testing.assert_frame_equal(differences(frame, "gmcam"), differences(whole, "gmcam"))
    frame["Twice ↑"] = 2 * frame["inside"]
    frame.loc[frame["label"] == "red", "Twice ↑"] = np.nan  # not defined there
    found = summary(frame, metrics=["Twice ↑", "inside"])
    wide = table(found)
    assert wide.columns.tolist() == ["Share inside ↑", "Twice ↑"]
    row = found.query("method == 'gmcam' and metric == 'Twice ↑'").iloc[0]
    defined = frame.query("method == 'gmcam' and label != 'red'")
    assert row["count"] == len(defined) < 20
    assert row["value"] == pytest.approx(2 * defined["inside"].mean())
    assert row["low"] < row["value"] < row["high"]
    assert wide.loc["GMCAM", "Twice ↑"].startswith(f"{row['value']:.3f} [")
    by_class = summary(frame, "class", ["Twice ↑"]).set_index("method")["value"]
    assert by_class["gmcam"] == pytest.approx(defined.groupby("label")["Twice ↑"].mean().mean())
    paired = differences(frame, "grad_cam", metrics=["Twice ↑"])
    assert paired[["method", "metric"]].values.tolist() == [["gmcam", "Twice ↑"]]


def test_records_that_are_no_records_are_told_so(whole):
    frame = records(whole)
    with pytest.raises(ValueError, match=r"columns picture, label, method; here there is no 'label'"):
        summary(frame.drop(columns="label"))
    with pytest.raises(ValueError, match="no metric is called 'near'; there are salience_drop"):
        summary(frame, metrics=["near"])
    with pytest.raises(ValueError, match="the records compare grad_cam, gmcam, not 'cam'"):
        differences(frame, "cam")
    with pytest.raises(ValueError, match="micro or class, not 'macro'"):
        summary(frame, "macro")


def test_tables_are_written_to_be_read_by_people_and_programs(whole):
    folder = whole.folder / "tables"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.{kind}" for name in ("summary", "differences-from-gmcam") for kind in ("csv", "md", "tex")
    )
    read = pd.read_csv(folder / "summary.csv")
    pd.testing.assert_frame_equal(read, summary(whole), check_dtype=False)
    value = summary(whole).query("method == 'gmcam' and metric == 'dice'").iloc[0]
    words = f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
    for kind in ("md", "tex"):
        text = (folder / f"summary.{kind}").read_text()
        assert words in text and "Grad-CAM" in text and "Dice ↑" in text
    assert table(summary(whole)).loc["GMCAM", "Dice ↑"] == words


def test_the_figure_is_that_of_the_summary(whole, tmp_path):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    figures = write_figures(Run.open(folder))
    expected = io.BytesIO()
    intervals(summary(whole)).savefig(expected, format="png", bbox_inches="tight")
    assert [path.name for path in figures.iterdir()] == ["summary.png"]
    assert (figures / "summary.png").read_bytes() == expected.getvalue()


def test_a_figure_waits_for_no_other_process(whole, tmp_path):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    with locked(folder), pytest.raises(ValueError, match="another process works on"):
        write_figures(Run.open(folder))
    assert not (folder / "figures").exists()


def test_a_figure_that_cannot_be_written_is_refused(whole, tmp_path):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    (folder / "figures").write_text("in the way")
    with pytest.raises(
        ValueError, match=r"figures cannot be written \(File exists\); what is finished is kept"
    ):
        write_figures(Run.open(folder))


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
    pd.testing.assert_frame_equal(records(run), records(whole), check_exact=True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other pictures"])
def test_a_torn_block_is_told_of_and_computed_again(damage, whole, colour_network, squares_dataset, recwarn):
    expected = records(whole)
    path = sorted((whole.folder / "records").iterdir())[1]
    data = path.read_bytes()
    middle = data.index(b"squares 4") + 5
    damaged = {
        "cut": data[:-20],
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
        "other pictures": sorted((whole.folder / "records").iterdir())[0].read_bytes(),
    }
    path.write_bytes(damaged[damage])
    run = evaluate(colour_network, squares_dataset(10), TWO, whole.folder)
    told = [str(warning.message) for warning in recwarn if "computed again" in str(warning.message)]
    assert len(told) == 1
    pd.testing.assert_frame_equal(records(run), expected, check_exact=True)


def test_pictures_that_cannot_be_read_or_have_no_class_are_counted(colour_network, squares_dataset, tmp_path):
    plain = squares_dataset(1).read

    def read(index):
        if index == 1:
            raise ValueError("squares 1 is not a picture")
        if index == 2:
            raise RuntimeError("a decoder's own kind of error")
        record = plain(index)
        return gmcam.datasets.Record(record.name, record.image, ()) if index == 5 else record

    run = evaluate(colour_network, squares_dataset(6, read), TWO, tmp_path / "run")
    assert status(run) == {"measured": 3, "unreadable": 2, "no class": 1, "failed": 0}
    rows = records(run).set_index("picture")
    assert rows.loc["squares 1", "error"] == "squares 1 is not a picture"
    assert rows.loc["squares 2", "error"] == "a decoder's own kind of error"
    assert summary(run)["count"].unique().tolist() == [6]


def test_a_dataset_of_which_nothing_can_be_measured_is_no_success(colour_network, squares_dataset, tmp_path):
    def read(index):
        raise ValueError(f"there is no file {index}.jpg")

    says = r"no picture of squares could be measured; of the first, unreadable: there is no file 0\.jpg"
    with pytest.raises(ValueError, match=says):
        evaluate(colour_network, squares_dataset(3, read), TWO, tmp_path / "run")


def test_a_block_that_another_process_wrote_elsewhere_is_missed(
    colour_network, squares_dataset, tmp_path, monkeypatch
):
    write = runs.write_block
    monkeypatch.setattr(
        runs, "write_block", lambda folder, block, rows: block == 1 or write(folder, block, rows)
    )
    with pytest.raises(ValueError, match=r"1 blocks of .* are not there, such as .*block-000001\.parquet"):
        evaluate(colour_network, squares_dataset(10), TWO, tmp_path / "run")
    assert not (tmp_path / "run" / "tables").exists()


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, IndexError])
def test_a_picture_that_fails_alone_leaves_the_others_of_its_block(
    kind, colour_network, squares_dataset, tmp_path, monkeypatch
):
    measure = measuring.measure

    def failing(network, cases, choices):
        if any(case.picture == "squares 1" for case in cases):
            raise kind("the gradients at layer 'relu' are not finite")
        return measure(network, cases, choices)

    monkeypatch.setattr("gmcam.evaluate.evaluating.measure", failing)
    run = evaluate(colour_network, squares_dataset(4), TWO, tmp_path / "run")
    assert status(run) == {"measured": 3, "unreadable": 0, "no class": 0, "failed": 1}
    assert records(run).set_index("picture").loc["squares 1", "error"].endswith("not finite")


def test_a_mean_over_classes_holds_the_totals_of_two_methods_at_most(monkeypatch):
    rows = [(f"{n}", f"class {n}", method, n) for n in range(5) for method in ("a", "b", "c")]
    frame = pd.DataFrame(rows, columns=["picture", "label", "method", "own"])
    before = summary(frame, "class", ["own"])
    made, most, empty = [], [], Totals.empty

    def counted(count):
        totals = empty(count)
        made.append(weakref.ref(totals))
        most.append(sum(one() is not None for one in made))
        return totals

    monkeypatch.setattr(Totals, "empty", counted)
    pd.testing.assert_frame_equal(summary(frame, "class", ["own"]), before)
    assert len(made) == 15 and max(most) == 10


FAULTS = [
    MemoryError(),
    OSError(errno.EMFILE, "Too many open files"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("reading", [True, False])
def test_a_fault_of_the_machine_ends_the_run_and_is_no_pictures(
    reading, wrapped, fault, whole, colour_network, squares_dataset, tmp_path, monkeypatch
):
    """Its block is not there, and made when the same run is asked for again."""

    def break_down():
        if not wrapped:
            raise fault
        try:
            raise fault
        except Exception as error:
            raise ValueError(f"the picture cannot be read to its end ({error})") from None

    plain, measure = squares_dataset(1).read, measuring.measure

    def read(index):
        return break_down() if index == 5 else plain(index)

    def failing(network, cases, choices):
        return (
            break_down()
            if any(case.picture == "squares 5" for case in cases)
            else measure(network, cases, choices)
        )

    dataset = squares_dataset(10, read if reading else plain)
    if not reading:
        monkeypatch.setattr("gmcam.evaluate.evaluating.measure", failing)
    with pytest.raises((ValueError, type(fault))):
        evaluate(colour_network, dataset, TWO, tmp_path / "run")
    assert len(blocks(tmp_path / "run")) < len(blocks(whole.folder))
    monkeypatch.undo()
    run = evaluate(colour_network, squares_dataset(10), TWO, tmp_path / "run")
    pd.testing.assert_frame_equal(records(run), records(whole), check_exact=True)


def test_a_tuple_among_the_arguments_is_no_other_argument(squares_dataset, tmp_path):
    wanted = {"methods": {"mine": {"sizes": (1, 2)}}}
    for _ in range(2):
        assert runs.begin(tmp_path, wanted, squares_dataset(4), TWO)
    with pytest.raises(ValueError, match=r"mine {'sizes': \[1, 2\]}, not {'sizes': \[1, 3\]}"):
        runs.begin(tmp_path, {"methods": {"mine": {"sizes": (1, 3)}}}, squares_dataset(4), TWO)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"zone": "hard"}, "a run with arguments: zone 'soft', not 'hard'"),
        ({"threshold": 0.4}, "a run with arguments: threshold 0.5, not 0.4"),
        ({"methods": ("gmcam",)}, r"methods \['grad_cam', 'gmcam'\], not \['gmcam'\]"),
        ({"layer": "maps"}, "layer 'relu', not 'maps'"),
    ],
)
def test_other_arguments_on_the_same_folder_are_refused(change, says, whole, colour_network, squares_dataset):
    before = blocks(whole.folder)
    choices = Choices(**{**TWO.values(), **change})
    with pytest.raises(ValueError, match=says):
        evaluate(colour_network, squares_dataset(10), choices, whole.folder)
    assert blocks(whole.folder) == before


def test_another_seed_is_refused(colour_network, squares_dataset, tmp_path, monkeypatch):
    noisy = Choices(("smooth_full_grad",), pixels=0)
    run = evaluate(colour_network, squares_dataset(1), noisy, tmp_path / "run")
    assert run.description["options"]["smooth_full_grad"]["seed"] == 0
    entry = gmcam.METHODS["smooth_full_grad"]
    other = dataclasses.replace(entry, compute=functools.partial(entry.compute, seed=1))
    monkeypatch.setitem(gmcam.METHODS, "smooth_full_grad", other)
    with pytest.raises(ValueError, match="a run with options: smooth_full_grad"):
        evaluate(colour_network, squares_dataset(1), noisy, run.folder)


def test_other_pictures_and_other_weights_are_refused(whole, colour_network, squares_dataset):
    with pytest.raises(ValueError, match="a run with dataset: pictures 10, not 9"):
        evaluate(colour_network, squares_dataset(9), TWO, whole.folder)
    colour_network.module.fc.weight.data += 1
    with pytest.raises(ValueError, match="a run with network: sha256"):
        evaluate(colour_network, squares_dataset(10), TWO, whole.folder)
    colour_network.module.fc.weight.data -= 1
    colour_network.preprocess = dataclasses.replace(colour_network.preprocess, mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="a run with network: preprocessing"):
        evaluate(colour_network, squares_dataset(10), TWO, whole.folder)


def test_a_method_that_cannot_serve_is_refused_before_anything_is_written(
    colour_network, squares_dataset, tmp_path
):
    with pytest.raises(ValueError, match="without height and width"):
        evaluate(colour_network, squares_dataset(4), Choices(("grad_cam",), layer="fc"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] in ([], ["lock"])


def test_a_network_without_the_datasets_classes_is_refused(colour_network, squares_dataset, tmp_path):
    colour_network.classes = ("cyan", "magenta", "yellow")
    with pytest.raises(ValueError, match=r"none of the dataset's classes \(red, green, blue\)"):
        evaluate(colour_network, squares_dataset(4), TWO, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_left_alone(colour_network, squares_dataset, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds other files and no run"):
        evaluate(colour_network, squares_dataset(4), TWO, tmp_path)
    with pytest.raises(ValueError, match="holds no run"):
        Run.open(tmp_path)
    with pytest.raises(ValueError, match="squares holds no picture"):
        evaluate(colour_network, squares_dataset(0), TWO, tmp_path / "new")
    with pytest.raises(ValueError, match=r"letter\.txt/run cannot be written"):
        evaluate(colour_network, squares_dataset(4), TWO, tmp_path / "letter.txt" / "run")


def test_memory_does_not_grow_with_the_number_of_pictures(
    colour_network, squares_dataset, tmp_path, monkeypatch
):
    """Cases alive whenever one is made: those being read ahead and the block being computed."""
    made: list[weakref.ref] = []
    alive = []
    plain = measuring.cases_of

    def counted(*arguments):
        cases = plain(*arguments)
        made.extend(weakref.ref(case) for case in cases)
        alive.append(sum(case() is not None for case in made))
        return cases

    monkeypatch.setattr("gmcam.evaluate.evaluating.cases_of", counted)
    evaluate(colour_network, squares_dataset(80), TWO, tmp_path / "run")
    assert len(alive) == 80
    assert max(alive) <= (evaluating.AHEAD + 2) * TWO.batch * 2  # two classes in each picture


@pytest.mark.parametrize(("batch", "less"), [(4, "fewer at a time"), (1, "a smaller network")])
def test_too_little_memory_is_told(colour_network, squares_dataset, tmp_path, monkeypatch, batch, less):
    def full(*_):
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr("gmcam.evaluate.evaluating.measure", full)
    with pytest.raises(ValueError, match=f"pictures take too much memory, {batch} at a time: take {less}"):
        evaluate(colour_network, squares_dataset(4), dataclasses.replace(TWO, batch=batch), tmp_path / "run")


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
    with pytest.raises(ValueError, match="another process works on"):
        evaluate(colour_network, squares_dataset(4), TWO, tmp_path / "run")
    refused.set()
    work.join()
    assert status(Run.open(tmp_path / "run"))["measured"] == 4


def test_a_full_disk_keeps_what_is_finished(whole, colour_network, squares_dataset, tmp_path):
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
        with pytest.raises(ValueError, match=r"full cannot be written \(.*\); what is finished is kept"):
            evaluate(colour_network, squares_dataset(10), TWO, folder)
    finally:
        runs.write_block = write
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert written == [0, 1]
    assert sorted(blocks(folder)) == ["block-000000.parquet", "block-000001.parquet"]
    run = evaluate(colour_network, squares_dataset(10), TWO, folder)
    pd.testing.assert_frame_equal(records(run), records(whole), check_exact=True)


KILLED = textwrap.dedent("""
    import os, random, shutil, sys, time
    from pathlib import Path
    import torch
    import gmcam.evaluate, gmcam.lab.plots  # read once, so that kills fall into the work
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
    return ["evaluate", *dataset, "--methods", "grad_cam,gmcam", "--out", str(out), *arguments]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run by the command line that nobody disturbed."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    done = subprocess.run(
        [sys.executable, "-m", "gmcam", *command(out=out)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 measured, 0 unreadable") and f"wrote {out}" in done.stdout
    assert (out / "figures" / "summary.png").stat().st_size > 10_000
    return Run.open(out)


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_ends_as_one_that_was_not(uninterrupted, tmp_path):
    out = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "20", *command(out=out)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "20 kills, " in done.stdout
    pd.testing.assert_frame_equal(records(Run.open(out)), records(uninterrupted), check_exact=True)
    for name in ("summary.csv", "differences-from-gmcam.md"):
        assert (out / "tables" / name).read_text() == (uninterrupted.folder / "tables" / name).read_text()
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
    pd.testing.assert_frame_equal(records(Run.open(out)), records(uninterrupted), check_exact=True)
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
    return next((int(one.removeprefix(b"RANK=")) for one in variables if one.startswith(b"RANK=")), None)


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
    pd.testing.assert_frame_equal(records(Run.open(out)), records(uninterrupted), check_exact=True)


@pytest.mark.slow
def test_a_complaint_reaches_every_rank(tmp_path):
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
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    assert all(f"gmcam: {tmp_path} holds other files and no run" in one for one in said)
