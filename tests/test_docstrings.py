"""The examples in docstrings, run as they stand. They find ``gmcam``, ``np`` and ``torch`` imported."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch

import gmcam
from gmcam import equations, metrics, postprocess
from gmcam.lab.onnx import PACKAGES

MODULES = ["gmcam", *(module.name for module in pkgutil.walk_packages(gmcam.__path__, "gmcam."))]


def examples():
    find = doctest.DocTestFinder().find
    for name in MODULES:
        names = {"gmcam": gmcam, "np": np, "torch": torch}
        yield from (found for found in find(importlib.import_module(name), globs=names) if found.examples)


def functions(module):
    public = inspect.getmembers(module, inspect.isfunction)
    return [one for name, one in public if one.__module__ == module.__name__ and not name.startswith("_")]


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example):
    if example.name.endswith("export_onnx"):  # what it needs is an extra
        for package in PACKAGES:
            pytest.importorskip(package)
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


def test_what_a_reader_meets_first_has_an_example():
    face = [one for name in gmcam.__all__ if inspect.isfunction(one := getattr(gmcam, name))]
    for function in [*face, *functions(postprocess), *functions(metrics)]:
        assert ">>>" in function.__doc__, function.__name__
    for function in functions(equations):  # they share an example
        assert f">>> equations.{function.__name__}(" in equations.__doc__
