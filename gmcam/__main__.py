"""The command line: ``python -m gmcam explain photo.jpg``, evaluation runs, and lists of valid names."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import gmcam
from gmcam.files import written_whole

# The nine methods that the article compares, and its own.
ARTICLE = "grad_cam,grad_cam_pp,x_grad_cam,cameras,full_grad,smooth_full_grad,integrated_grad_cam"
ARTICLE += ",score_cam,relevance_cam,gmcam"
# Fields of gmcam.evaluate.Choices, which holds their defaults: name, type, placeholder, help.
CHOICES: tuple[tuple[str, Callable[[str], Any], str, str], ...] = (
    ("layer", str, "L", "see 'gmcam layers'; default: the last map"),
    ("zone", lambda name: None if name == "none" else name, "Z", "image times map: soft, hard (area), none"),
    ("threshold", float, "T", "share of the maximum that counts as salient"),
    ("tolerance", float, "P", "of the pointing game, in pixels"),
    ("sigma", float, "S", "smoothing, in cells of the layer"),
    ("fit", str, "F", "squash the whole image, or crop its centre"),
    ("steps", int, "N", "of the insertion and deletion curves"),
    ("pixels", int, "P", "per step, instead of a number of steps; 0: no curves"),
    ("mean", str, "M", "over all cases (micro), or of the classes' means (class)"),
    ("batch", int, "B", "images at a time"),
)
OWN = ("size", "mean", "std")  # of a network of one's own; the defaults are those of gmcam.Preprocessing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0; 2, with a sentence on stderr, for bad input or lack of memory; 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe has closed it; discard what is still buffered
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("gmcam: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        expected = isinstance(error, ValueError | OSError | ImportError | MemoryError)
        if not (expected or import_module("gmcam.chunks").is_out_of_memory(error)):
            if not hasattr(options, "shape"):
                raise
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            error = ValueError(f"expected a network for inputs {options.shape}, got {reason}: see --size")
        print(f"gmcam: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gmcam", description="Class activation maps, step by step.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], None], text: str) -> Callable[..., Any]:
        added = commands.add_parser(run.__name__.removeprefix("_"), help=text)
        added.set_defaults(command=run)
        return added.add_argument

    def network(add: Callable[..., Any], flag: str = "--network", own: bool = True) -> None:
        text = "see 'gmcam networks'; timm:NAME; FILE.py:FUNCTION, which returns the torch.nn.Module"
        add(flag, default="efficientnet-lite0", metavar="NAME", help=f"{text}; default: %(default)s")
        files = "a .safetensors or .pt file"
        add("--weights", default="DEFAULT", help=f"{files}, or a name in torchvision's enum")
        add("--classes", type=Path, metavar="FILE", help="a text file, one name per line")
        add("--output", metavar="O", help="meaning of the logits: softmax, sigmoid (several labels) or none")
        if own:
            add("--size", help="in pixels, of the square input and the image's shorter side; default: 224")
            add("--mean", help="of each colour, to subtract, as 0.485,0.456,0.406; default: ImageNet's")
            add("--std", help="of each colour, to divide by, as 0.229,0.224,0.225; default: ImageNet's")

    add = command(_explain, "explain an image and write the maps as PNG")
    add("image", type=Path, metavar="IMAGE")
    network(add)
    add("--class", dest="target", action="append", help="name or index; repeat for more; default: top class")
    add("--layer", metavar="L", help="see 'gmcam layers'; default: the last map")
    add("--method", default="gmcam", metavar="M", help="see 'gmcam methods'")
    add("--out", type=Path, metavar="FILE.png", help="default: IMAGE-METHOD.png")
    add = command(_evaluate, "measure methods on images with ground truth")
    add("--dataset", required=True, metavar="NAME", help="voc, coco, imagenet, or registered like collage")
    add("--root", type=Path, metavar="DIR", help="folder of the unpacked dataset; collage needs none")
    add("--split", metavar="S", help="default: the validation split")
    add("--limit", type=int, metavar="N", help="only the first N images")
    network(add, own=False)
    add("--methods", default=ARTICLE, metavar="A,B,C", help="default: the ten methods of the article")
    add("--workers", type=int, default=0, metavar="W", help="processes that read images ahead")
    add("--out", type=Path, required=True, metavar="RUN", help="folder; an unfinished run is continued")
    for name, kind, letter, text in CHOICES:
        add(f"--{name}", type=kind, default=argparse.SUPPRESS, metavar=letter, help=text)
    command(_methods, "list the methods")
    command(_networks, "list the networks")
    network(command(_layers, "list the layers of a network that have maps"), "network")
    return parser


def _evaluate(options: argparse.Namespace) -> None:
    from gmcam.evaluate.processes import device, is_first

    if options.workers < 0:
        raise ValueError(f"expected at least 0 workers, got {options.workers}: raise the number")
    values = {name: getattr(options, name) for name, *_ in CHOICES if hasattr(options, name)}
    choices = gmcam.evaluate.Choices(tuple(map(str.strip, options.methods.split(","))), **values)
    dataset = gmcam.datasets.open_dataset(options.dataset, options.root, options.split, options.limit)
    network = _network(options)
    network.module.to(device())
    run = gmcam.evaluate.evaluate(network, dataset, choices, options.out, workers=options.workers)
    if is_first():
        print(", ".join(f"{count} {name}" for name, count in gmcam.evaluate.status(run).items()))
        print(gmcam.evaluate.table(gmcam.evaluate.summary(run)).T.to_string())
        print(f"wrote {run.folder}")


def _explain(options: argparse.Namespace) -> None:
    out = options.out or Path(f"{options.image.stem}-{options.method}.png")
    if out.suffix.lower() != ".png":
        raise ValueError(f"expected an output file that ends in .png, got {out}: name one")
    with written_whole(out) as unfinished:
        image, network = gmcam.open_image(options.image), _network(options)
        target = [int(name) if name.isdecimal() else name for name in options.target or ()] or None
        result = gmcam.explain(network, image, target, method=options.method, layer=options.layer)
        if network.output is None:
            for index, score in enumerate(result.score.tolist()):
                print(f"{score:9.3f}  {result.label(index)}")
        else:
            probabilities = network.probabilities(image)[0]
            for index in probabilities.argsort(descending=True, stable=True)[:5].tolist():
                print(f"{probabilities[index]:7.2%}  {network.class_name(index)}")
        for index in result.empty.nonzero().flatten().tolist():
            print(f"the map for {result.label(index)} is empty: no cell of {result.layer} raises its score")
        gmcam.show(image, result).savefig(unfinished, format="png", bbox_inches="tight")
    where = f": layer {result.layer}, after {result.depth:.0%} of the layers with weights"
    print(f"wrote {out}{where if result.depth else ''}")


def _network(options: argparse.Namespace) -> gmcam.Network:
    """What --network, --weights, --classes and --output describe; except in evaluations, and ``OWN``."""
    from gmcam.loading import build, read_weights, untrained

    path, _, function = options.network.rpartition(":")
    is_own, has_file = path.endswith(".py") or function.endswith(".py"), "." in options.weights
    classes = _class_names(options.classes) if options.classes else ()
    if is_own:
        network = gmcam.wrap(build(Path(path or function), function if path else ""))
    elif has_file:
        network = gmcam.wrap(untrained(options.network, classes), name=options.network)
    else:
        network = gmcam.load(options.network, options.weights)
    if has_file:
        read_weights(network.module, Path(options.weights))
    network.classes = classes or network.classes
    if options.output not in (None, "softmax", "sigmoid", "none"):
        raise ValueError(f"expected --output softmax, sigmoid or none, got {options.output}: choose one")
    if options.output:
        network.output = None if options.output == "none" else options.output
    given = {key: getattr(options, key) for key in OWN if "size" in options and getattr(options, key)}
    if given or network.preprocess is None:
        _prepare(network, given)
    if given or is_own or has_file:  # then whatever the network raises is bad input
        options.shape = network.input_shape
    return network


def _class_names(path: Path) -> tuple[str, ...]:
    with suppress(UnicodeDecodeError):
        if names := tuple(filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines()))):
            return names
    raise ValueError(f"expected class names in {path}, one per line, got none: write them in UTF-8")


def _prepare(network: gmcam.Network, given: dict[str, str]) -> None:
    """Change the network's preprocessing to what is given."""

    def numbers(key: str, kind: type, before: Sequence[float], least: float) -> Any:
        if key not in given:
            return before
        with suppress(ValueError):
            values = tuple(map(kind, given[key].split(",")))
            if len(values) in (1, len(before)) and min(values) >= least:
                return values * (len(before) // len(values))
        form = "one number" if key == "size" else "1 or 3 numbers with commas"
        raise ValueError(f"expected --{key} as {form}, got {given[key]}: see 'gmcam explain --help'")

    before, side = network.preprocess, network.input_shape[-1]
    if not isinstance(before, gmcam.Preprocessing):
        before = gmcam.Preprocessing(side, side)
    (crop,) = numbers("size", int, [before.crop], 1)
    mean, std = numbers("mean", float, before.mean, 0), numbers("std", float, before.std, 1e-9)
    resize, rest = round(before.resize * crop / before.crop), (before.interpolation, bool(before.squash))
    network.preprocess = gmcam.Preprocessing(resize, crop, mean, std, *rest)
    network.input_shape = (3, crop, crop)


def _methods(options: argparse.Namespace) -> None:
    for name, entry in gmcam.METHODS.items():
        print(f"{name}\n    {entry.title}, {entry.source}\n    {entry.summary}")


def _networks(options: argparse.Namespace) -> None:
    from gmcam.loading import torchvision_names, weights_on_disk

    print("registered:", *sorted(entry_points(group="gmcam.networks").names), sep="\n    ")
    print("torchvision's, trained on ImageNet (* if the weights are on this machine):")
    print(*(f"  {'*' if weights_on_disk(name) else ' '} {name}" for name in torchvision_names()), sep="\n")


def _layers(options: argparse.Namespace) -> None:
    network = _network(options)
    names = {path: name for name, path in network.layers.items()}
    for path, shape in network.map_shapes.items():
        note = f"{names.get(path, '')} {'(default)' * (path == network.layer_path())}".strip()
        print(f"{path:32} {' x '.join(f'{size:4}' for size in shape)}  {note}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
