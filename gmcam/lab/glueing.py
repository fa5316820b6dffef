"""Numbers that a page's sentences show."""

from __future__ import annotations


def glue(name: str, value: str) -> None:
    """Store ``value`` for the page's text, which shows it by ``{glue:text}`` and its ``name``.

    Without MyST-NB, as in Colab, the value is printed instead.

    >>> gmcam.lab.glue("chance", "50 %")  # doctest: +SKIP
    """
    try:
        from myst_nb import glue as store
    except ImportError:
        print(f"{name}: {value}")
    else:
        store(name, value, display=False)
