"""What the book's build adds to Sphinx, without a build."""

import base64
import hashlib
import io
import subprocess
import tarfile
from types import SimpleNamespace

import pytest
import served
import shared_pages

FILES = {
    "package/dist/a.js": b"a",
    "package/dist/b.woff2": b"b",
    "package/dist/c.css": b"c",
    "package/d.js": b"d",
}


def archive(names=FILES):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def registry(monkeypatch):
    """An npm that answers with an archive of the test's, or fails."""
    content = SimpleNamespace(value=archive())

    def run(command, cwd, **_):
        if content.value is None:
            raise subprocess.CalledProcessError(1, command)
        name = f"{command[2].replace('/', '-')}.tgz"
        with open(f"{cwd}/{name}", "wb") as file:
            file.write(content.value)
        return SimpleNamespace(stdout=f"{name}\n")

    monkeypatch.setattr(served.subprocess, "run", run)
    return content


def package(content):
    checksum = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return served.Package("thing", "1.0", checksum, "package/dist/", ("*.js", "*.woff2"), "thing")


def test_the_files_asked_for_are_unpacked(registry, tmp_path):
    served.fetch(package(registry.value), tmp_path / "thing-1.0", "npm")
    contents = {path.name: path.read_bytes() for path in (tmp_path / "thing-1.0").iterdir()}
    assert contents == {"a.js": b"a", "b.woff2": b"b"}


def test_another_checksum_is_refused_and_nothing_is_left(registry, tmp_path):
    pinned = package(registry.value)
    registry.value = archive({"package/dist/a.js": b"evil"})
    with pytest.raises(ValueError, match=r"thing 1.0 has the checksum .*, not the pinned one"):
        served.fetch(pinned, tmp_path / "thing-1.0", "npm")
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_put_in_place_leave_nothing_behind(registry, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(served.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        served.fetch(package(registry.value), tmp_path / "thing-1.0", "npm")
    assert list(tmp_path.iterdir()) == []


def test_what_a_stopped_fetch_left_is_not_taken_for_the_package(registry, tmp_path):
    (tmp_path / ".thing-1.0.part").mkdir()
    (tmp_path / ".thing-1.0.part" / "half.js").write_text("")
    served.fetch(package(registry.value), tmp_path / "thing-1.0", "npm")
    assert sorted(path.name for path in (tmp_path / "thing-1.0").iterdir()) == ["a.js", "b.woff2"]


def config():
    return SimpleNamespace(html_static_path=[], mathjax_path="usual", nb_ipywidgets_js={"usual": {}})


@pytest.mark.parametrize("missing", ["npm", "registry"])
def test_without_npm_or_its_registry_the_build_goes_on_and_says_so(registry, missing, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(served.LOGGER, "info", lambda text, *more: messages.append(text % more))
    if missing == "npm":
        monkeypatch.setattr(served.shutil, "which", lambda *_, **__: None)
    else:
        registry.value = None
        monkeypatch.setattr(served, "npm", lambda: "npm")
    settings = config()
    served.serve(SimpleNamespace(srcdir=tmp_path), settings)
    assert vars(settings) == vars(config())
    assert len(messages) == 1 and messages[0].startswith("Pages load widgets and MathJax from the internet: ")
    assert missing == "registry" or "install Node.js" in messages[0]


def test_pages_are_pointed_to_what_was_fetched(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(served, "npm", lambda: "npm")
    monkeypatch.setattr(served, "fetch", lambda package, into, _npm: into.mkdir(parents=True))
    settings = config()
    served.serve(SimpleNamespace(srcdir=tmp_path), settings)
    assert settings.html_static_path == [str(tmp_path / "_build" / "served")]
    assert settings.mathjax_path == "mathjax-3.2.2/tex-mml-chtml.js"
    assert list(settings.nb_ipywidgets_js) == ["widgets_shim.js", "widgets-1.0.15/embed.js"]


def test_the_address_of_the_pages_follows_from_that_of_the_repository():
    assert shared_pages.pages_of("https://github.com/owner/name") == "https://owner.github.io/name/"
    assert shared_pages.pages_of("https://github.com/Me/me.github.io") == "https://Me.github.io/"
    theme = {"repository_url": "https://github.com/owner/name"}
    settings = SimpleNamespace(html_baseurl="", html_theme_options=theme, html_title="title")
    shared_pages.tell_address(None, settings)
    assert settings.ogp_site_url == "https://owner.github.io/name/"
    settings.html_baseurl = "https://book.example/"
    shared_pages.tell_address(None, settings)
    assert settings.ogp_site_url == "https://book.example/"


@pytest.mark.parametrize("address", ["https://gitlab.com/owner/name", "https://github.com/a/b/c", "name"])
def test_a_repository_elsewhere_needs_the_address_of_its_pages(address):
    with pytest.raises(ValueError, match=f"got {address}: set html.baseurl"):
        shared_pages.pages_of(address)
