"""Exported graphs, computed by onnxruntime, against autograd's maps and gradient maps."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from modules import Apply
from torch import nn
from torch.nn import functional as F
from torchvision import models

import gmcam
from gmcam import Network
from gmcam.lab import export_onnx
from gmcam.lab import onnx as export

onnx, _, onnxruntime = map(pytest.importorskip, export.PACKAGES)


class Residual(nn.Module):
    """A module, added to its input."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x) + x


class Branches(nn.Module):
    """One branch per operation, between a convolution and a linear layer; logits are added.

    So one export tests many operations, and the gradient at a branch's convolution tests one of them.
    """

    def __init__(self, operations):
        super().__init__()
        parts = {
            name: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), operation, nn.Flatten(), nn.LazyLinear(3))
            for name, operation in operations.items()
        }
        self.branches = nn.ModuleDict(parts)

    def forward(self, x):
        return sum(branch(x) for branch in self.branches.values())


OPERATIONS = {
    "activations": {
        "relu": nn.ReLU(),
        "relu_in_place": nn.ReLU(inplace=True),
        "relu6": nn.ReLU6(),
        "leaky": nn.LeakyReLU(0.2),
        "prelu": nn.PReLU(4),
        "elu": nn.ELU(),
        "selu": nn.SELU(),
        "gelu": nn.GELU(),
        "silu": nn.SiLU(),
        "mish": nn.Mish(),
        "hardswish": nn.Hardswish(),
        "hardsigmoid": nn.Hardsigmoid(),
        "sigmoid": nn.Sigmoid(),
        "tanh": nn.Tanh(),
        "softplus": nn.Softplus(),
        "softmax": nn.Softmax2d(),
        "dropout": nn.Dropout(),
    },
    "convolutions": {
        "strided": nn.Conv2d(4, 6, 3, stride=2),
        "left_over": nn.Conv2d(4, 6, 2, stride=3),
        "grouped": nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, groups=2),
        "depthwise": nn.Conv2d(4, 4, 3, padding="same", groups=4),
        "slender": nn.Conv2d(4, 5, (3, 1), stride=(1, 2), padding=(1, 0)),
        "even": nn.Conv2d(4, 4, 4, padding="same", bias=False),
        "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        "batch_norm": nn.BatchNorm2d(4),
        "group_norm": nn.GroupNorm(2, 4),
        "residual": Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())),
        "concatenated": Apply(lambda x: torch.cat([x[:, 1:], F.relu(x), x[:, :2]], 1)),
        "gated": Apply(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()),
        "padded": nn.ZeroPad2d((1, 2, 0, -1)),
        "shuffled": nn.ChannelShuffle(2),
    },
    "pooling": {
        "max": nn.MaxPool2d(2),
        "max_overlapping": nn.MaxPool2d(3, 2, padding=1),
        "max_ceil": nn.MaxPool2d(2, ceil_mode=True),
        "max_dilated": nn.MaxPool2d(3, 1, padding=1, dilation=2),
        "average": nn.AvgPool2d(2),
        "average_of_a_function": Apply(lambda x: F.avg_pool2d(x, 3)),
        "average_padded": nn.AvgPool2d((3, 2), 2, padding=1),
        "average_without_padding": nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        "average_ceil": nn.AvgPool2d(2, ceil_mode=True),
        "average_ceil_padded": nn.AvgPool2d((3, 2), (2, 3), padding=1, ceil_mode=True),
        "global": nn.AdaptiveAvgPool2d(1),
        "adaptive": nn.AdaptiveAvgPool2d((4, 2)),
        "adaptive_enlarging": nn.AdaptiveAvgPool2d(11),
        "adaptive_max": nn.AdaptiveMaxPool2d((3, 1)),
        "global_max": Apply(lambda x: x.amax((2, 3))),
        "mean": Apply(lambda x: x.mean((2, 3))),
        "p_norm": nn.LPPool2d(2, 2),
    },
}
EACH = [(kind, name) for kind, operations in OPERATIONS.items() for name in operations]


def seeded(*size, seed=1):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def truth(module, image, weights, layers):
    """Logits, maps and gradient maps by the test's hooks and autograd."""
    maps = {}

    def keep(name):
        def hook(_module, _arguments, output):
            maps[name] = output
            return output.clone()

        return hook

    hooks = [module.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    logits = module(image)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad((logits * weights).sum(), [maps[name] for name in layers])
    outputs = {"logits": logits}
    for name, gradient in zip(layers, gradients, strict=True):
        outputs |= {f"maps:{name}": maps[name], f"gradients:{name}": gradient}
    return {name: value.detach() for name, value in outputs.items()}


def computed(path, image, weights):
    """The graph's outputs by name."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    values = session.run(None, {"image": image.numpy(), "weights": weights.numpy()})
    names = [output.name for output in session.get_outputs()]
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def agree(value, expected):
    assert value.shape == expected.shape
    assert expected.abs().max() > 0
    assert (value - expected).abs().max() <= 1e-5 * expected.abs().max()


def all_agree(path, module, image, weights, layers):
    values, expected = computed(path, image, weights), truth(module, image, weights, layers)
    assert list(values) == list(expected)
    for name in expected:
        agree(values[name], expected[name])


def small(*parts, size=8):
    """Parts between a convolution ``0`` and a linear layer, for images of ``size``; float32."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *parts, nn.Flatten(), nn.LazyLinear(3)).eval()
    module(torch.zeros(1, 3, size, size))
    return module


def network(*parts, name="small"):
    return Network(small(*parts), name=name, input_shape=(3, 8, 8))


@pytest.fixture(scope="module")
def branches(tmp_path_factory):
    """A function from a kind of operations to the outputs of their graph, and those expected."""
    outputs = {}

    def of(kind):
        if kind not in outputs:
            torch.manual_seed(0)
            module = Branches(OPERATIONS[kind])
            module.eval()(torch.zeros(1, 3, 9, 9))
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.running_mean.normal_()
                    part.running_var.uniform_(0.5, 2)
            layers = [f"branches.{name}.0" for name in OPERATIONS[kind]]
            path = tmp_path_factory.mktemp(kind) / "branches.onnx"
            export_onnx(Network(module, input_shape=(3, 9, 9)), layers, path)
            image, weights = 2 * seeded(1, 3, 9, 9), seeded(1, 3, seed=2)
            outputs[kind] = computed(path, image, weights), truth(module, image, weights, layers)
        return outputs[kind]

    return of


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), EACH)
def test_an_operation_is_differentiated_as_autograd_does_it(branches, kind, name):
    values, expected = branches(kind)
    agree(values[f"gradients:branches.{name}.0"], expected[f"gradients:branches.{name}.0"])
    agree(values["logits"], expected["logits"])


SHALLOW = {  # torchvision's networks with fewer repetitions of the same blocks
    "squeezenet": models.squeezenet1_1,
    "mobilenet": lambda: models.MobileNetV2(inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]]),
    "resnet": models.resnet18,
    "shufflenet": lambda: models.ShuffleNetV2([2, 1, 1], [24, 48, 96, 192, 1024]),
    "densenet": lambda: models.DenseNet(8, (2, 2), 16),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_torchvisions_networks(tmp_path, name):
    module = SHALLOW[name]().eval()
    wrapped = Network(module, input_shape=(3, 96, 96))
    layers = list(wrapped.layers.values())[-2:]
    assert export_onnx(wrapped, layers, tmp_path / "n.onnx") <= 1e-5
    all_agree(tmp_path / "n.onnx", module, seeded(1, 3, 96, 96), seeded(1, 1000), layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["collage-vgg", "collage-resnet"])
def test_the_embedded_networks_and_what_their_files_hold(tmp_path, name):
    trained, path = gmcam.load(name), tmp_path / "n.onnx"
    scene = gmcam.lab.scene("cat", "cup", seed=3).image
    assert export_onnx(trained, ["32x32", "stage4", "16x16"], path, scene) <= 1e-5  # two names of one layer
    layers = [trained.layers["32x32"], "stage4"]
    image = trained.prepare(scene)
    all_agree(path, trained.module, image, F.one_hot(torch.tensor([1]), 8).float(), layers)
    model = onnx.load(path)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert (model.producer_name, model.producer_version) == ("gmcam", gmcam.__version__)
    assert model.graph.name == name
    shapes = {
        node.name: [side.dim_value for side in node.type.tensor_type.shape.dim] for node in model.graph.input
    }
    assert shapes == {"image": [1, 3, 128, 128], "weights": [1, 8]}
    size = sum(weight.numel() * 4 for weight in trained.module.parameters())
    assert path.stat().st_size < 1.15 * size
    assert b"site-packages" not in path.read_bytes() and b"torch.export" not in path.read_bytes()


@pytest.mark.slow
def test_the_same_network_gives_the_same_file(tmp_path):
    """In another process, too, where strings hash otherwise."""
    script = (
        "import gmcam, sys; gmcam.lab.export_onnx(gmcam.load('collage-resnet'), ['32x32', None], sys.argv[1])"
    )
    root = os.path.dirname(os.path.dirname(gmcam.__file__))
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", script, tmp_path / "there"], env=environment, check=True)
    export_onnx(gmcam.load("collage-resnet"), ["32x32", None], tmp_path / "here")
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


def test_the_network_and_torch_are_left_as_they_were(tmp_path, snapshot):
    module = small(nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout()).train()
    module[0].weight.requires_grad_(False)
    module[0].register_forward_hook(lambda _module, _arguments, output: output * 2)
    before, random = snapshot(module), torch.get_rng_state()
    with torch.no_grad():
        export_onnx(Network(module, input_shape=(3, 8, 8)), "0", tmp_path / "n.onnx")
        assert not torch.is_grad_enabled()
    assert snapshot(module) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    image, weights = seeded(1, 3, 8, 8), seeded(1, 3)
    all_agree(tmp_path / "n.onnx", module.eval(), image, weights, ["0"])


def test_maps_with_channels_last(tmp_path):
    module = small(Residual(nn.Conv2d(4, 4, 1)), nn.AdaptiveAvgPool2d(1)).to(
        memory_format=torch.channels_last
    )
    export_onnx(module, "0", tmp_path / "n.onnx", seeded(2, 3, 8, 8, seed=5))
    all_agree(tmp_path / "n.onnx", module, seeded(1, 3, 8, 8), seeded(1, 3), ["0"])


def test_a_module_that_refuses_channels_last_and_a_caller_in_inference_mode(tmp_path):
    module = small(nn.Conv2d(4, 4, 1), Apply(lambda x: x.view(len(x), -1)))
    with torch.inference_mode():
        export_onnx(module, "0", tmp_path / "n.onnx", seeded(2, 3, 8, 8, seed=5))
        assert torch.is_inference_mode_enabled()
    all_agree(tmp_path / "n.onnx", module, seeded(1, 3, 8, 8), seeded(1, 3), ["0"])


def test_the_graph_takes_the_size_of_the_image_and_by_default_the_last_map(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
    image, weights = seeded(1, 3, 7, 10), seeded(1, 3)
    export_onnx(module, None, tmp_path / "n.onnx", image)
    last = Network(module, input_shape=(3, 7, 10)).layer_path()
    all_agree(tmp_path / "n.onnx", module, image, weights, [last])


def test_a_network_and_a_layer_may_return_a_structure_and_a_layer_may_work_in_place(tmp_path):
    module = small(
        Apply(lambda x: (x, None)), Apply(lambda pair: pair[0]), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )
    whole = nn.Sequential(module, Apply(lambda logits: {"logits": logits, "more": None})).eval()
    export_onnx(whole, ["0.1", module[3]], tmp_path / "n.onnx", seeded(1, 3, 8, 8))
    image, weights = seeded(1, 3, 8, 8, seed=4), seeded(1, 3)
    values = computed(tmp_path / "n.onnx", image, weights)
    expected = truth(module, image, weights, ["0", "3"])
    for name, same in (("0.1", "0"), ("0.3", "3")):
        agree(values[f"maps:{name}"], expected[f"maps:{same}"])
        agree(values[f"gradients:{name}"], expected[f"gradients:{same}"])


def test_of_equal_values_the_first_is_the_maximum(tmp_path):
    module = small(nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    nn.init.zeros_(module[0].weight)  # the maps are the same everywhere
    nn.init.ones_(module[0].bias)
    export_onnx(Network(module, input_shape=(3, 8, 8)), "0", tmp_path / "n.onnx")
    all_agree(tmp_path / "n.onnx", module, seeded(1, 3, 8, 8), seeded(1, 3), ["0"])


def test_a_graph_that_is_wrong_is_refused_with_the_numbers_and_the_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "n.onnx"
    path.write_text("an earlier file")
    rule = export._RULES[torch.ops.aten.convolution_backward.default]
    wrong = {torch.ops.aten.convolution_backward.default: lambda *all: (1.001 * rule(*all)[0], None, None)}
    monkeypatch.setattr(export, "_RULES", {**export._RULES, **wrong})
    message = r"agree on small within 1e-05 of the largest value, got differences in gradients:0 of 1.0e-03$"
    with pytest.raises(ValueError, match=message):
        export_onnx(network(nn.Conv2d(4, 4, 3)), ["0", "1"], path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["an earlier file"]


def test_a_graph_that_gives_no_number_is_refused(tmp_path, monkeypatch):
    none = {torch.ops.aten.convolution_backward.default: lambda G, x, *_: (x * torch.nan, None, None)}
    monkeypatch.setattr(export, "_RULES", {**export._RULES, **none})
    with pytest.raises(ValueError, match="gradients:0 of inf"):
        export_onnx(network(nn.Conv2d(4, 4, 3)), "0", tmp_path / "n.onnx")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            nn.Upsample(scale_factor=2),
            "aten.upsample_nearest2d_backward, .*: use another operation, or name layers after it$",
        ),
        (nn.AdaptiveMaxPool2d(3), "got aten.adaptive_max_pool2d, .*: use another operation$"),
        (nn.AvgPool2d(2, divisor_override=3), "ONNX's average pooling has no divisor_override"),
        (Apply(lambda x: x if x.mean() > 0 else -x), "got the error: .*control flow"),
    ],
)
def test_an_operation_without_a_counterpart_is_named(tmp_path, part, message):
    with pytest.raises(ValueError, match=f"^expected small to become an ONNX graph, .*{message}") as raised:
        export_onnx(network(part), "0", tmp_path / "n.onnx")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_layers_before_the_one_exported_need_no_gradient(tmp_path):
    module = small(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3))
    export_onnx(Network(module, input_shape=(3, 8, 8)), "2", tmp_path / "n.onnx")
    all_agree(tmp_path / "n.onnx", module, seeded(1, 3, 8, 8), seeded(1, 3), ["2"])


def test_what_explain_refuses_is_refused_before_anything_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "make_fx", None)
    good, path = network(), tmp_path / "n.onnx"
    maps_for_logits = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), input_shape=(3, 8, 8))
    for message, use in {
        "'features'": lambda: export_onnx(good, "features", path),
        "at layer '2'": lambda: export_onnx(good, "2", path),
        "expected the name of a layer, got none": lambda: export_onnx(good, [], path),
        "a torch.nn.Module, got a str": lambda: export_onnx("collage-vgg", None, path),
        "expected an output of shape": lambda: export_onnx(maps_for_logits, "0", path),
        "expected at least one image": lambda: export_onnx(good, "0", path, torch.zeros(0, 3, 8, 8)),
        "float32 on the CPU, got small in torch.float64 on cpu": lambda: export_onnx(
            Network(copy.deepcopy(good.module).double(), name="small", input_shape=(3, 8, 8)), "0", path
        ),
        "output folder, got .*none": lambda: export_onnx(good, "0", tmp_path / "none" / "n.onnx"),
        "got the folder": lambda: export_onnx(good, "0", tmp_path),
    }.items():
        with pytest.raises(ValueError, match=message):
            use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", export.PACKAGES)
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package} .*pip install 'gmcam\[onnx\]'$"):
        export_onnx(network(), "0", tmp_path / "n.onnx")


def test_a_random_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected onnxruntime and torch to agree"):
        export_onnx(network(Apply(lambda x: x * torch.rand_like(x))), "0", tmp_path / "n.onnx")


@pytest.mark.parametrize(("wrong", "fine"), [(1, True), (7, False)])
def test_images_on_which_rounding_decides_are_passed_over(tmp_path, monkeypatch, wrong, fine):
    """Two of eight images of noise must agree in every value."""
    session = export._session

    def disturbed(model):
        compute, calls = session(model), []

        def other(image, weights):
            calls.append(image)
            logits, maps, gradients = compute(image, weights)
            first = len(calls) <= 2 * wrong  # each image is computed for two classes
            return [logits, maps, gradients * (1 + 1e-4 * first)]

        return other

    monkeypatch.setattr(export, "_session", disturbed)
    if fine:
        assert export_onnx(network(), "0", tmp_path / "n.onnx") <= 1e-5
    else:
        with pytest.raises(ValueError, match=r"in gradients:0 of 1.0e-04$"):
            export_onnx(network(), "0", tmp_path / "n.onnx")
