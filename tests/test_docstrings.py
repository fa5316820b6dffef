"""Run the examples in docstrings. They assume that ``gmcam``, ``np`` and ``torch`` are imported."""

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
        yield from (test for test in find(importlib.import_module(name), globs=names) if test.examples)


def functions(module):
    public = inspect.getmembers(module, inspect.isfunction)
    return [f for name, f in public if f.__module__ == module.__name__ and not name.startswith("_")]


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_an_example_gives_the_output_that_it_shows(example):
    if example.name.endswith("export_onnx"):  # needs packages that the book does not require
        for package in PACKAGES:
            pytest.importorskip(package)
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


def test_every_public_function_has_an_example():
    # An example of @method would register one for all other tests; the chapter own_method has it.
    names = [name for name in gmcam.__all__ if name != "method"]
    face = [f for name in names if inspect.isfunction(f := getattr(gmcam, name))]
    files = ("gmcam.metrics.localisation", "gmcam.metrics.zones")
    public = [getattr(metrics, name) for name in metrics.__all__]
    measures = [f for f in public if getattr(f, "__module__", "") in files]
    assert len(measures) == 8
    for function in [*face, *functions(postprocess), *measures]:
        assert ">>>" in function.__doc__, function.__name__
    for function in functions(equations):  # they share an example
        assert f">>> equations.{function.__name__}(" in equations.__doc__
