import sys

from IPython.display import HTML
from IPython.utils.capture import capture_output

from gmcam.lab import glue


def test_a_number_is_stored_for_the_page(monkeypatch):
    stored = []
    monkeypatch.setattr("myst_nb.glue", lambda *arguments, **options: stored.append((arguments, options)))
    glue("share", "12 %")
    glue("scenes", 56)
    glue("figure", figure := HTML("<i></i>"))
    values = [("share", "12\xa0%"), ("scenes", "56"), ("figure", figure)]
    assert [arguments for arguments, _ in stored] == values
    assert [options for _, options in stored] == [{"display": False}] * 3


def test_without_myst_nb_it_is_printed(monkeypatch):
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    with capture_output() as captured:
        glue("share", "12 %")
    assert captured.stdout == "share: 12\xa0%\n"
