"""Built pages on a server of this machine, in a browser that may not leave it."""

import re
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

WIDTHS = (360, 390, 768, 1024, 1280, 1440)
OPEN = "document.querySelectorAll('.bd-article details').forEach(one => one.open = true)"
STILL = "*, ::before, ::after { transition: none !important; animation: none !important; }"
CUT = "[...document.querySelectorAll('.bd-article pre')].filter(one => one.scrollWidth > one.clientWidth + 1)"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def server(folder, handler=QuietHandler):
    """The address at which a folder is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


class Tab:
    """A page of the browser that may not leave this machine, and all that it complains of."""

    def __init__(self, browser, address, **context):
        self.complaints = []
        self.page = browser.new_page(**context)
        self.page.route(re.compile(r"^https?://(?!127\.0\.0\.1[:/])"), self.refuse)
        self.page.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.goto(address, wait_until="load")

    def refuse(self, route):
        self.complaints.append(f"from outside: {route.request.url}")
        route.abort()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.close()


# Waits for the end of all that moves from one state to another.
TRANSITIONS = """() => Promise.all(document.getAnimations()
    .filter((one) => one instanceof CSSTransition).map((one) => one.finished.catch(() => null)))
    .then(() => null)"""


def settle(page):
    """Wait until formulas and widgets stand, and the reader's photo has been explained."""
    page.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise !== undefined")
    page.evaluate("window.MathJax?.startup?.promise")
    if page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count():
        page.wait_for_selector(".jupyter-widgets", timeout=20_000)
    if page.locator("#own-photo").count():
        page.wait_for_selector('#own-photo:not([data-state="starting"], [data-state="busy"])')
    page.wait_for_timeout(100)


def resize(page, width):
    """Give the window a width; returns by how much the page is wider, and how many blocks of code are cut."""
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(50)
    page.evaluate(TRANSITIONS)  # the side bar slides
    wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider, page.evaluate(f"{CUT}.length")


def violations(page, scheme, rules=""):
    """Rule and element of each serious or critical violation in a colour scheme."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
    audit = page.evaluate(f"axe.run(document, {{{rules}resultTypes: ['violations']}})")
    grave = [v for v in audit["violations"] if v["impact"] in ("serious", "critical")]
    return [(scheme, v["id"], v["nodes"][0]["html"][:200]) for v in grave]
