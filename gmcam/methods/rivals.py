"""Rivals: maps that use less of what the network learned. A method that does not beat them adds nothing."""

import copy
import hashlib
from functools import partial

import torch
from torch import Tensor

from gmcam import equations
from gmcam.registry import Query, method, no_layer

_FAHIM, _HERE = "Fahim et al., Sensors 22(17):6516, 2022", "gmcam, 2026"
_no_target = partial(method, gradients=False, needs_target=False)
_of_image = partial(_no_target, source=_HERE, keeps=no_layer, images_only=True)


@method("grad_cam_squared", title="Grad-CAM squared", source=_HERE)
def grad_cam_squared(query: Query) -> Tensor:
    """ReLU(Σ_k λ_k M_k)²: GMCAM with Grad-CAM in place of the guidance map, so sharpening alone."""
    return equations.grad_cam(query.M, query.C) ** 2


@_no_target("feature_sum", title="Feature sum", source=_FAHIM)
def feature_sum(query: Query) -> Tensor:
    """ReLU(Σ_k M_k), the aggregated feature map (Equation 1), rectified. The same for every class."""
    return equations.aggregated_map(query.M).relu()


@method("random_network", title="Random network", source="Adebayo et al., NeurIPS 2018")
def random_network(query: Query, seed: int = 0) -> Tensor:
    """ReLU(Σ_k C_k ⊙ M_k) of a copy of the network whose weights are all drawn again, from ``seed``.

    Every module draws by its own ``reset_parameters``. The map is empty where the random weights count
    against the class, at a pooled layer in about half of the cases."""
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = copy.deepcopy(query.network.module)
        drawn = copy.deepcopy(module).float().cpu()  # the same numbers on any device and in any precision
        for part in drawn.modules():
            getattr(part, "reset_parameters", lambda: None)()
        module.load_state_dict(drawn.state_dict())
    captured = query.again(query.inputs, query.captured.target, module=module)
    return equations.guidance_map(captured.maps[query.layer], captured.gradients[query.layer])


@_of_image("centred_blob", title="Centred blob")
def centred_blob(query: Query) -> Tensor:
    """exp(−(x² + y²) / 2σ²), x and y from the centre, σ a quarter of each side. The same for every image."""
    across, down = (torch.linspace(-2, 2, side) ** 2 for side in query.size[::-1])
    blob = torch.exp(-(across + down[:, None]) / 2).to(query.inputs.device)
    return blob.expand(len(query.captured.scores), -1, -1)


@_of_image("edges", title="Edges")
def edges(query: Query) -> Tensor:
    """|∇x|, the length of the gradient of the image's mean colour, by central differences."""
    down, across = torch.gradient(_images(query).float().mean(1), dim=(1, 2))
    return torch.hypot(down, across)


@_of_image("area", title="Area")
def area(query: Query) -> Tensor:
    """Uniform noise in every pixel, seeded by the image: on average, metrics show the object's area alone."""
    noise = []
    for image in _images(query):
        digest = hashlib.sha256(image.float().cpu().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
        noise.append(torch.rand(query.size, generator=generator))
    return torch.stack(noise).to(query.inputs.device)


def _images(query: Query) -> Tensor:
    """The image of each map, (T, C, H, W)."""
    rows = torch.arange(len(query.captured.scores))
    return query.inputs[query.images_at(rows).to(query.inputs.device)]
