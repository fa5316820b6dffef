"""Figures for narrow pages: a cell's JPEG, whose panels are below each other, in place of its PNG.

``gmcam.show.InlineFigure`` draws both, and a ``picture`` element lets the browser choose."""

import posixpath
from pathlib import Path
from typing import Any

from docutils import nodes
from page_layout import TEXT, own_width
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.osutil import relative_uri

NARROW = {False: 767, True: 1239}  # pixels of the last window too narrow for the PNG, by whether it is wide


class Pictures(SphinxPostTransform):
    """Wraps a cell's PNG and the address of its JPEG in a ``picture``, before MyST-NB drops the JPEG."""

    default_priority = 3  # MyST-NB selects with 4
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for bundle in self.document.findall(lambda node: is_bundle(node)):
            images = {part["mime_type"]: part[0] for part in bundle.children if is_image(part)}
            if {"image/png", "image/jpeg"} <= images.keys():
                self.wrap(images["image/png"], images["image/jpeg"]["uri"])

    def wrap(self, image: nodes.image, stacked: str) -> None:
        builder, name = self.app.builder, self.env.images[stacked][1]
        builder.images[stacked] = name  # so that it is copied
        folder = relative_uri(builder.get_target_uri(self.env.docname), builder.imagedir)
        wide = (own_width(Path(self.env.srcdir, image["uri"])) or 0) > TEXT
        opening = f'<picture class="gmcam-stacked{" gmcam-wide" * wide}"><source media="(max-width: '
        opening += f'{NARROW[wide]}px)" srcset="{posixpath.join(folder, name)}">'
        image["stacked"] = stacked  # page_layout asks
        at = image.parent.index(image)
        image.parent.insert(at, nodes.raw("", opening, format="html"))
        image.parent.insert(at + 2, nodes.raw("", "</picture>", format="html"))


def is_bundle(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "mime_bundle"


def is_image(part: nodes.Element) -> bool:
    return len(part) == 1 and isinstance(part[0], nodes.image)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(Pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
