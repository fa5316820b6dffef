"""Numbers that a page's sentences show."""

from __future__ import annotations


def glue(name: str, value: object) -> None:
    """Store ``value`` for the page, which shows a text or number by ``{glue:text}`` and its ``name``.

    A number and its per cent sign stay on one line. What displays itself, such as HTML, is shown by
    ``{glue:}``. Without MyST-NB, as in Colab, the value is printed.

    >>> gmcam.lab.glue("chance", "50 %")  # doctest: +SKIP
    """
    if isinstance(value, str | int | float):
        value = str(value).replace(" %", "\N{NO-BREAK SPACE}%")
    try:
        from myst_nb import glue as store
    except ImportError:
        print(f"{name}: {value}")
    else:
        store(name, value, display=False)
