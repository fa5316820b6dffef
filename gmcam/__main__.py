"""The command line: ``python -m gmcam explain photo.jpg``, and what there is to name in it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gmcam.files import written_whole

TOP = 5
# The article's nine and its own.
ARTICLE = (
    "grad_cam",
    "grad_cam_pp",
    "x_grad_cam",
    "cameras",
    "full_grad",
    "smooth_full_grad",
    "integrated_grad_cam",
    "score_cam",
    "relevance_cam",
    "gmcam",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0 when it worked; 2, and one sentence on stderr, when the input is at fault or memory
    does not suffice; 130 when it was stopped from the keyboard."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has seen enough; what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("gmcam: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"gmcam: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        from gmcam.chunks import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print(f"gmcam: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gmcam", description="Class activation maps, step by step.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    explain = commands.add_parser("explain", help="explain a picture and write the maps as PNG")
    explain.set_defaults(command=_explain)
    explain.add_argument("image", type=Path, metavar="IMAGE")
    explain.add_argument("--network", default="collage-vgg", metavar="NAME")
    explain.add_argument("--weights", default="DEFAULT", help="name in torchvision's weights enum")
    explain.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="NAME_OR_INDEX",
        help="may be given several times; the top class without it",
    )
    explain.add_argument("--layer", metavar="L", help="see 'gmcam layers'; the last map without it")
    explain.add_argument("--method", default="gmcam", metavar="M", help="see 'gmcam methods'")
    explain.add_argument("--out", type=Path, metavar="FILE.png", help="IMAGE-METHOD.png without it")

    _add_evaluate(commands)

    commands.add_parser("methods", help="list the methods").set_defaults(command=_methods)
    commands.add_parser("networks", help="list the networks").set_defaults(command=_networks)

    layers = commands.add_parser("layers", help="list the layers of a network that give maps")
    layers.set_defaults(command=_layers)
    layers.add_argument("network", metavar="NETWORK")
    layers.add_argument("--weights", default="DEFAULT", help="name in torchvision's weights enum")

    train = commands.add_parser("train", help="train an embedded network again")
    train.set_defaults(command=_train)
    train.add_argument("name", metavar="NAME")
    train.add_argument("--out", type=Path, default=Path(), metavar="FOLDER")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--steps", type=int, help="batches; fewer for a quick trial")
    return parser


def _add_evaluate(commands: Any) -> None:
    add = commands.add_parser("evaluate", help="measure methods on pictures with ground truth")
    add.set_defaults(command=_evaluate)
    more = add.add_argument
    more("--dataset", required=True, metavar="NAME", help="collage, voc, coco or imagenet")
    more("--root", type=Path, metavar="DIR", help="where the dataset was unpacked; collage needs none")
    more("--split", metavar="S", help="the validation split without it")
    more("--limit", type=int, metavar="N", help="only the first N pictures")
    more("--network", default="collage-vgg", metavar="NAME")
    more("--weights", default="DEFAULT", help="name in torchvision's weights enum")
    more("--methods", default=",".join(ARTICLE), metavar="A,B,C", help="the article's ten without it")
    more("--readers", type=int, default=1, metavar="R", help="threads that decode pictures")
    more("--out", type=Path, required=True, metavar="RUN", help="folder; an unfinished run is continued")

    def choice(name: str, kind: Callable[[str], Any], letter: str, text: str) -> None:
        # Without a default here: the one in Choices is the only one.
        more(name, type=kind, metavar=letter, default=argparse.SUPPRESS, help=text)

    choice("--layer", str, "L", "see 'gmcam layers'; the last map without it")
    choice("--zone", str, "Z", "picture times map (soft), or its salient area (hard)")
    choice("--threshold", float, "T", "share of the maximum that is salient")
    choice("--tolerance", float, "P", "of the pointing game, in pixels")
    choice("--sigma", float, "S", "smoothing, in cells of the layer")
    choice("--fit", str, "F", "squash the whole picture, or crop its middle")
    choice("--pixels", int, "P", "per insertion or deletion step; 0: no curves")
    choice("--mean", str, "M", "over all cases (micro), or of the classes' (class)")
    choice("--batch", int, "B", "pictures at a time")


def _evaluate(options: argparse.Namespace) -> None:
    import gmcam
    from gmcam import datasets
    from gmcam import evaluate as evaluation
    from gmcam.evaluate.processes import device, is_first

    if options.readers < 1:
        raise ValueError(f"at least one thread reads pictures, not {options.readers}")
    known = {field.name for field in dataclasses.fields(evaluation.Choices)}
    given = {name: value for name, value in vars(options).items() if name in known}
    given["methods"] = tuple(name.strip() for name in options.methods.split(","))
    choices = evaluation.Choices(**given)
    dataset = datasets.open_dataset(options.dataset, options.root, options.split, options.limit)
    network = gmcam.load(options.network, options.weights)
    network.module.to(device())
    run = evaluation.evaluate(network, dataset, choices, options.out, readers=options.readers)
    if not is_first():
        return
    evaluation.write_figures(run)
    print(", ".join(f"{count} {name}" for name, count in evaluation.status(run).items()))
    print(evaluation.table(evaluation.summary(run)).T.to_string())
    print(f"wrote {run.folder}")


def _explain(options: argparse.Namespace) -> None:
    import gmcam

    out = options.out or Path(f"{options.image.stem}-{options.method}.png")
    if not out.name:
        raise ValueError(f"the output {out} has no name; call it {out}/FILE.png")
    if out.suffix.lower() != ".png":
        raise ValueError(f"the output is a PNG picture; call it {out.with_suffix('.png')}, not {out}")
    with written_whole(out) as unfinished:
        picture = gmcam.open_image(options.image)
        network = gmcam.load(options.network, options.weights)
        targets = [int(name) if name.isdecimal() else name for name in options.classes] or None
        result = gmcam.explain(network, picture, targets, method=options.method, layer=options.layer)
        assert result.probabilities is not None  # every network that load gives is a classifier
        probabilities, indices = result.probabilities[0].topk(min(TOP, len(network.classes)))
        for probability, index in zip(probabilities.tolist(), indices.tolist(), strict=True):
            print(f"{probability:7.2%}  {network.class_name(index)}")
        for index in result.empty.nonzero().flatten().tolist():
            print(f"the map for {result.label(index)} is empty: nothing at {result.layer} speaks for it")
        gmcam.show(picture, result).savefig(unfinished, format="png", bbox_inches="tight")
    print(f"wrote {out}")


def _methods(options: argparse.Namespace) -> None:
    from gmcam import METHODS

    for name, entry in METHODS.items():
        print(f"{name}\n    {entry.title}, {entry.source}\n    {entry.summary}")


def _networks(options: argparse.Namespace) -> None:
    from gmcam.lab import EMBEDDED, load_card
    from gmcam.loading import torchvision_names, weights_on_disk

    print("embedded, trained on collage scenes:")
    for name in EMBEDDED:
        card: dict[str, Any] = load_card(name)
        print(f"  {name:20} {card['test_accuracy']:.1%} on the test split, {card['bytes'] / 1e6:.1f} MB")
    print("torchvision's, trained on ImageNet (* for weights that are on this machine):")
    for name in torchvision_names():
        print(f"  {'*' if weights_on_disk(name) else ' '} {name}")


def _layers(options: argparse.Namespace) -> None:
    import gmcam

    network = gmcam.load(options.network, options.weights)
    stages = {path: name for name, path in network.layers.items()}
    default = network.layers[network.default_layer]
    for path, (channels, height, width) in network.found.shapes.items():
        note = " ".join([stages.get(path, ""), "(default)" * (path == default)]).strip()
        print(f"{path:32} {channels:5} x {height:3} x {width:3}  {note}".rstrip())


def _train(options: argparse.Namespace) -> None:
    from gmcam.lab.train import train

    card = train(options.name, options.out, options.seed, options.steps)
    print(f"{card['name']}: {card['test_accuracy']:.1%} of the test split, {card['minutes']} minutes")


if __name__ == "__main__":
    sys.exit(main())
