"""The address of the published pages, derived from the repository's in ``_config.yml``.

Links to pages in messages show a title, a description and a card (Open Graph), which need full addresses.
The book's is ``html.baseurl``, or GitHub's pages of the repository where that is not set.
"""

from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.config import Config


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
    app.connect("config-inited", tell_address)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
