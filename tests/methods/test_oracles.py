"""Our maps against independent implementations (Captum, pytorch-grad-cam), and what the equations imply.

Everything runs in float64 on copies of the networks, so agreement is to rounding, and what an oracle
leaves behind in a network (gradients, hooks) stays in the copy.
"""

import copy

import pytest
import torch
import torchvision
from captum.attr import LayerGradCam, LayerGradientXActivation
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import gmcam
from gmcam import equations
from gmcam.capture import capture


def exact(network):
    """A copy in float64."""
    network = copy.deepcopy(network)
    network.module.double()
    return network


@pytest.fixture(scope="module", params=[*gmcam.lab.EMBEDDED, "squeezenet1_0"])
def network(request):
    if request.param == "squeezenet1_0":
        return exact(request.getfixturevalue("squeezenet"))
    return exact(gmcam.load(request.param))


@pytest.fixture(scope="module")
def inputs(network):
    images = (gmcam.lab.scene("cat", "cup", seed=3).image, gmcam.lab.photo("chelsea"))
    return torch.cat([network.prepare(image) for image in images])


@pytest.fixture(scope="module")
def targets(network, inputs):
    return network.probabilities(inputs).argmax(1).tolist()


@pytest.fixture(params=[-1, -2], ids=["last map", "map before"])
def layer(request, network):
    return list(network.layers.values())[request.param]


def raw(network, inputs, targets, method, layer):
    return gmcam.explain(network, inputs, targets, method=method, layer=layer).raw


def assert_agree(ours, oracle):
    assert oracle.abs().amax((1, 2)).min() > 0
    assert torch.allclose(ours, oracle, rtol=1e-9, atol=1e-10 * oracle.abs().max().item())


def test_grad_cam_agrees_with_captum(network, inputs, targets, layer):
    oracle = LayerGradCam(network.module, network.module.get_submodule(layer))
    signed = oracle.attribute(inputs, target=targets).detach()[:, 0]  # Captum does not rectify by default
    assert_agree(raw(network, inputs, targets, "grad_cam", layer), signed.relu())


def test_hires_cam_and_guidance_map_agree_with_captum(network, inputs, targets, layer):
    oracle = LayerGradientXActivation(network.module, network.module.get_submodule(layer))
    summed = oracle.attribute(inputs, target=targets).detach().sum(1)
    assert_agree(raw(network, inputs, targets, "hires_cam", layer), summed)
    assert_agree(raw(network, inputs, targets, "guidance_map", layer), summed.relu())


@pytest.mark.parametrize(("name", "oracle"), [("grad_cam", GradCAM), ("hires_cam", HiResCAM)])
def test_grad_cam_and_hires_cam_agree_with_pytorch_grad_cam(network, inputs, targets, layer, name, oracle):
    module = network.module.get_submodule(layer)
    scores = [ClassifierOutputTarget(target) for target in targets]
    with oracle(network.module, [module]) as cam:
        cam(inputs, scores)
        pair = cam.activations_and_grads
        # `cam(…)` gives this, rectified, scaled to [0, 1] and resized; here it is before all that.
        maps, gradients = pair.activations[0].numpy(), pair.gradients[0].numpy()
        signed = torch.from_numpy(cam.get_cam_image(inputs, module, scores, maps, gradients, False))
    assert_agree(raw(network, inputs, targets, name, layer), signed.relu() if name == "grad_cam" else signed)


def test_gmcam_is_guidance_map_times_grad_cam(network, inputs, targets, layer):
    product = raw(network, inputs, targets, "guidance_map", layer) * raw(
        network, inputs, targets, "grad_cam", layer
    )
    ours = raw(network, inputs, targets, "gmcam", layer)
    assert (ours - product).abs().max() <= 1e-12 * product.max()


# Global average pooling and one linear layer: everything collapses to CAM.


@pytest.fixture(params=["gap_network", "collage-resnet", "resnet18"])
def collapsing(request, images):
    """A module with inputs, the layer before its pooling, and its linear layer."""
    if request.param == "gap_network":
        module = request.getfixturevalue("gap_network")
        return module, images, "relu", module.fc
    torch.manual_seed(0)
    if request.param == "resnet18":  # the argument needs no trained weights
        module = torchvision.models.resnet18(weights=None, num_classes=8).double()
        return module, torch.randn(3, 3, 96, 96, dtype=torch.float64), "layer4", module.fc
    module = exact(gmcam.load("collage-resnet")).module
    return module, torch.randn(3, 3, 128, 128, dtype=torch.float64), "stage4", module.fc


def test_collapse_of_all_methods_before_global_average_pooling(collapsing):
    module, inputs, layer, _ = collapsing
    pass_ = capture(module, inputs, [0, 1, 2], [layer])
    maps, gradients = pass_.maps[layer], pass_.gradients[layer]
    assert gradients.std((2, 3)).max() <= 1e-12 * gradients.abs().max()
    grad_cam = equations.grad_cam(maps, gradients)
    tolerance = 1e-12 * (maps * gradients).abs().sum(1).max()
    assert (equations.guidance_map(maps, gradients) - grad_cam).abs().max() <= tolerance
    ours = equations.gmcam(maps, gradients)
    assert (ours - grad_cam**2).abs().max() <= tolerance * (grad_cam.max() + tolerance)
    peak = ours.flatten(1).argmax(1, keepdim=True)  # squaring leaves it where it was
    assert (grad_cam.flatten(1).gather(1, peak)[:, 0] >= grad_cam.amax((1, 2)) - tolerance).all()


def test_cam_is_grad_cam_times_the_number_of_cells(collapsing):
    module, inputs, layer, _ = collapsing
    cam = gmcam.explain(module, inputs, [0, 1, 2], method="cam", layer=layer).raw
    grad_cam = gmcam.explain(module, inputs, [0, 1, 2], method="grad_cam", layer=layer).raw
    cells = cam.shape[1] * cam.shape[2]
    assert torch.allclose(cam.relu(), cells * grad_cam, rtol=1e-9, atol=1e-12)


def test_mean_of_cam_and_bias_make_the_logit(collapsing):
    module, inputs, layer, linear = collapsing
    result = gmcam.explain(module, inputs, [0, 1, 2], method="cam", layer=layer)
    assert torch.allclose(result.raw.mean((1, 2)) + linear.bias[:3], result.score, rtol=1e-10)


def test_no_collapse_before_the_last_addition_of_a_residual_block():
    torch.manual_seed(0)
    module = torchvision.models.resnet18(weights=None, num_classes=8).double()
    inputs = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    gradients = capture(module, inputs, 0, ["layer4.1.bn2"]).gradients["layer4.1.bn2"]
    assert gradients.std((2, 3)).max() > 0.1 * gradients.abs().max()


def cosine(first, second):
    return torch.cosine_similarity(first.flatten(), second.flatten(), 0).item()


def test_no_collapse_with_a_flattened_head(flat_network, images):
    maps = {
        name: gmcam.explain(flat_network, images[:1], 2, method=name, layer="relu").raw
        for name in ("grad_cam", "guidance_map", "gmcam")
    }
    assert cosine(maps["guidance_map"], maps["grad_cam"]) < 0.9
    assert cosine(maps["gmcam"], maps["grad_cam"] ** 2) < 0.9


def test_a_rectified_class_map_before_pooling_is_cam_in_disguise(squeezenet):
    """Only cells of a positive class map reach the logit, each with the same weight (SqueezeNet's head).

    So the gradients vary over the map, but on those cells guidance map and Grad-CAM differ by a factor:
    the share of such cells. Elsewhere the guidance map is zero.
    """
    network, image = exact(squeezenet), gmcam.lab.photo("chelsea")
    cat = network.class_index("Egyptian cat")
    cam = gmcam.explain(network, image, cat, method="cam")
    with_bias = cam.raw + network.module.classifier[1].bias[cat]
    assert torch.allclose(with_bias.relu().mean((1, 2)), cam.score, rtol=1e-9)
    active = with_bias > 0
    share = active.double().mean()
    assert 0.1 < share < 0.9
    grad_cam = gmcam.explain(network, image, cat, method="grad_cam").raw
    guidance = gmcam.explain(network, image, cat, method="guidance_map").raw
    assert torch.allclose(guidance, active * grad_cam / share, rtol=1e-9, atol=1e-12)


def test_no_collapse_on_an_earlier_map_of_squeezenet(squeezenet):
    image, cat = gmcam.lab.photo("chelsea"), squeezenet.class_index("Egyptian cat")
    grad_cam = gmcam.explain(squeezenet, image, cat, method="grad_cam", layer="27x27").raw
    guidance = gmcam.explain(squeezenet, image, cat, method="guidance_map", layer="27x27").raw
    assert cosine(guidance, grad_cam) < 0.9
