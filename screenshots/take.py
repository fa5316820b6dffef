"""The README's two screenshots of the built book: ``make screenshots``.

python screenshots/take.py HTML INTO
"""

import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.sync_api import sync_playwright

SIZE = {"width": 1280, "height": 860}
# File → page, colour scheme, and the element to wait for.
SCREENSHOTS = {
    "landing.png": ("book/intro.html", "light", ".gm-figure.is-live"),
    "own_photo.png": ("book/own_photo.html", "dark", '#own-photo[data-state="ready"]'),
}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, *_: object) -> None:
        pass


def take(html: Path, into: Path) -> None:
    """Serve ``html``, a built book, and write the screenshots into a folder."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("expected chromium, got none: install Debian's package of that name")
    handler = partial(Quiet, directory=str(html))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as driver:
        Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (page, scheme, element) in SCREENSHOTS.items():
            tab = browser.new_page(color_scheme=scheme, viewport=SIZE)
            tab.goto(f"http://127.0.0.1:{server.server_port}/{page}")
            tab.wait_for_selector(element)
            tab.evaluate("window.MathJax?.startup?.promise")
            tab.wait_for_timeout(500)  # the theme's transitions
            tab.screenshot(path=into / name)
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
