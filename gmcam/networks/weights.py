"""Weights on disk: float16 safetensors beside a card in JSON that carries their SHA-256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

FOLDER = Path(__file__).with_name("weights")


def save_weights(module: nn.Module, name: str, folder: Path, card: dict[str, Any]) -> None:
    """Write ``NAME.safetensors`` (floating-point entries as float16) and ``NAME.json``.

    The card gets two more entries: ``bytes`` and ``sha256`` of the weights file.
    """
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }
    data = save({key: value.contiguous() for key, value in state.items()})
    (folder / f"{name}.safetensors").write_bytes(data)
    full = {**card, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / f"{name}.json").write_text(json.dumps(full, indent=2) + "\n")


def load_card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The card of an embedded network: data, seed, accuracy, date, SHA-256.

    Raises ``ValueError`` where it is missing or cannot be read.

    >>> from gmcam.networks import load_card
    >>> load_card("collage-vgg")["seed"]
    0
    """
    path = folder / f"{name}.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); reinstall gmcam") from None
    return card


def load_weights(name: str, folder: Path = FOLDER) -> dict[str, Tensor]:
    """The state dict of an embedded network, in float32.

    Raises ``ValueError`` where the file is missing, its SHA-256 is not the one on its card, or it is none
    of safetensors.
    """
    path = folder / f"{name}.safetensors"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); reinstall gmcam") from None
    expected, found = load_card(name, folder).get("sha256", "nothing"), hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is damaged: its SHA-256 starts with {found[:12]}, the card says {expected[:12]}; "
            f"reinstall gmcam or train it again with 'python -m gmcam train {name}'"
        )
    try:
        state = load(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}); write it with save_weights") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
