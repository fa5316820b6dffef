"""Addresses derived from the repository's in ``_config.yml``: of its files, and of the published pages.

The role ``{source}`a test <tests/test_show.py>``` links a file of the repository.

Links to pages in messages show a title, a description and a card (Open Graph), which need full addresses.
The book's is ``html.baseurl``, or GitHub's pages of the repository where that is not set.
"""

from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import ReferenceRole


class Source(ReferenceRole):
    """A link to a file of the repository, by its path."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        theme = self.config.html_theme_options
        address = f"{theme['repository_url']}/blob/{theme['repository_branch']}/{self.target}"
        return [nodes.reference(self.rawtext, self.title, refuri=address)], []


def pages_of(repository: str) -> str:
    """The address of a repository's GitHub pages. Raises ``ValueError`` for a repository on another host.

    >>> pages_of("https://github.com/owner/name")
    'https://owner.github.io/name/'
    """
    host, path = urlsplit(repository)[1:3]
    if host != "github.com" or path.strip("/").count("/") != 1:
        raise ValueError(
            f"expected a repository on GitHub, got {repository}: set html.baseurl in _config.yml"
        )
    owner, name = path.strip("/").split("/")
    site = f"{owner}.github.io"
    return f"https://{site}/" if name.lower() == site.lower() else f"https://{site}/{name}/"


def tell_address(_app: Sphinx, config: Config) -> None:
    """Set the address for the extension that writes the tags."""
    config.html_baseurl = config.html_baseurl or pages_of(config.html_theme_options["repository_url"])
    config.ogp_site_url = config.html_baseurl
    config.ogp_site_name = config.html_title
    config.ogp_social_cards = {"image": "book/_static/logo.png"}


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("source", Source())
    app.connect("config-inited", tell_address)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
