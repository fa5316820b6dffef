"""Every method on every network it is defined for: what a map is, batches, and nothing left behind.

The project's own networks and a plain one run as they are used, in float32; torchvision's, with random
weights, in float64: in float32 a batch adds up in another order than a single image, which turns
rectifiers and poolings over near their ties, and moves single pixels of a gradient by a hundredth.
"""

import functools

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import vgg

import gmcam
from gmcam import METHODS

FEW = {"steps": 3, "samples": 2, "sizes": 2, "share": 2, "chunk_size": 64}
# CAM needs pooling and a linear layer right behind the map (densenet121 rectifies in between).
WITHOUT_CAM = ("collage-vgg", "densenet121", "vgg16")
# Score-CAM and Ablation-CAM run once for each channel that is not flat. Of these convolutions only the
# first eight are left with weights.
BY_CHANNEL = ("score_cam", "ablation_cam")
FEW_CHANNELS = {
    "vgg16": "features.0",
    "resnet50": "layer1.0.conv1",
    "squeezenet1_0": "features.3.squeeze",
    "mobilenet_v2": "features.1.conv.1",
    "densenet121": "features.denseblock1.denselayer6.conv2",
}


def plain():
    """A network as a reader writes it."""
    features = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    features += [nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 8))


def narrow_vgg16():
    module = vgg.VGG(vgg.make_layers([c if c == "M" else c // 4 for c in vgg.cfgs["D"]]), num_classes=10)
    for at, sizes in {0: (128 * 7 * 7, 64), 3: (64, 64), 6: (64, 10)}.items():
        module.classifier[at] = nn.Linear(*sizes)
    return module


# torchvision's networks with fewer channels: the same modules in the same graph, in a quarter of the time.
NARROW = {
    "vgg16": narrow_vgg16,
    "resnet50": functools.partial(torchvision.models.resnet50, num_classes=10, width_per_group=16),
    "squeezenet1_0": functools.partial(torchvision.models.squeezenet1_0, num_classes=10),
    "mobilenet_v2": functools.partial(torchvision.models.mobilenet_v2, num_classes=10, width_mult=0.25),
    "densenet121": functools.partial(torchvision.models.DenseNet, 8, (6, 12, 24, 16), 16, num_classes=10),
}


def of_torchvision(name):
    module = NARROW[name]().double()
    convolution = module.get_submodule(FEW_CHANNELS[name])
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter[8:] = 0
    return module


@functools.lru_cache
def network_and_images(name):
    """A network, three images (3, 3, 64, 64), and for each the class it sees."""
    if name in gmcam.lab.EMBEDDED:
        network = gmcam.load(name)
        scenes = [
            gmcam.lab.scene(*classes, seed=3).image for classes in (["cat", "cup"], ["rocket"], ["coin"])
        ]
        images = network.prepare(scenes)[..., ::2, ::2]
    else:
        torch.manual_seed(1)
        module = plain() if name == "plain" else of_torchvision(name)
        network = gmcam.Network(module.eval(), name=name, input_shape=(3, 64, 64))
        images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    images = network.prepare(images)
    with torch.no_grad():
        return network, images, network.module(images).argmax(1).tolist()


def hooks(part):
    return {kind: list(table) for kind, table in vars(part).items() if "hooks" in kind and table}


def state(module):
    """What an explanation must leave as it was."""
    numbers = {
        name: (id(tensor), tensor._version, tensor.requires_grad, tensor.grad is None)
        for name, tensor in module.state_dict(keep_vars=True).items()
    }
    parts = {name: (part.training, sorted(vars(part)), hooks(part)) for name, part in module.named_modules()}
    return numbers, parts


def explained(name, method, chosen, trainable):
    """The result for some of the images, held against every promise."""
    network, images, targets = network_and_images(name)
    options = {option: few for option, few in FEW.items() if option in METHODS[method].options}
    if method in BY_CHANNEL:
        options["layer"] = FEW_CHANNELS.get(name)
    module = network.module.requires_grad_(trainable).train(trainable)
    before = state(module)
    result = gmcam.explain(network, images[chosen], [targets[n] for n in chosen], method=method, **options)
    assert state(module) == before
    assert result.maps.shape == (len(chosen), *images.shape[2:])
    assert result.maps.dtype == torch.float32
    assert result.maps.isfinite().all()
    assert result.raw.isfinite().all()
    assert result.maps.min() >= 0
    assert result.maps.max() <= 1
    assert (result.maps.amax((1, 2)) > 0).tolist() == [not empty for empty in result.empty]
    return result


RIVALS = {"grad_cam_squared", "feature_sum", "random_network", "centred_blob", "edges", "area"}


def served(*names, marks=(), methods=frozenset(METHODS)):
    return [
        pytest.param(name, method, marks=marks)
        for name in names
        for method in METHODS
        if method in methods and (method != "cam" or name not in WITHOUT_CAM)
    ]


@pytest.mark.parametrize(("name", "method"), served("plain", "collage-vgg", "collage-resnet"))
def test_own_networks_alone_and_in_batches_trainable_and_frozen(name, method):
    together = explained(name, method, [0, 1, 2], trainable=True)
    assert not together.empty.all()
    assert torch.equal(explained(name, method, [0, 1, 2], trainable=False).maps, together.maps)
    for n in range(3):
        alone = explained(name, method, [n], trainable=n == 0)
        assert torch.allclose(alone.maps[0], together.maps[n], atol=1e-5)


MEDIUM = served("squeezenet1_0", "mobilenet_v2", "densenet121")
# More than a minute together; rivals do little that depends on the network.
LARGE = served("resnet50", "vgg16", marks=pytest.mark.slow, methods={*METHODS} - RIVALS)


@pytest.mark.parametrize("other_half", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "method"), MEDIUM + LARGE)
def test_torchvisions_networks_alone_and_in_batches(name, method, other_half):
    trainable = (len(name + method) % 2 == 0) != other_half
    together = explained(name, method, [0, 1, 2], trainable)
    assert method == "random_network" or not together.empty.all()  # its weights may count against a class
    alone = explained(name, method, [1], not trainable)
    assert torch.allclose(alone.maps[0], together.maps[1], atol=1e-5)
    assert torch.allclose(alone.raw[0], together.raw[1], atol=1e-6 * together.raw.abs().max().item())


@pytest.mark.parametrize(
    "name", [pytest.param("vgg16", marks=pytest.mark.slow), "densenet121", "collage-vgg"]
)
def test_cam_is_refused_where_it_is_not_defined(name):
    network, images, _ = network_and_images(name)
    before = state(network.module)
    with pytest.raises(ValueError, match=r"use grad_cam$"):
        gmcam.explain(network, images, 0, method="cam")
    assert state(network.module) == before
