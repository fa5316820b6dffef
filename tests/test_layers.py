import copy

import pytest
import torch
import torchvision
from modules import Apply, network
from torch import nn

from gmcam import Network, capture, wrap
from gmcam.layers import discover, trace
from gmcam.reshape import tokens

NOISE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

# Path of the last stage: the last convolutional map, before the pooling and the classifier.
LAST_STAGES = {
    "resnet18": ("2x2", "layer4"),
    "vgg11": ("4x4", "features.19"),
    "squeezenet1_1": ("3x3", "features"),
    "mobilenet_v2": ("2x2", "features"),
    "densenet121": ("2x2", "features"),
    "alexnet": ("3x3", "features.11"),
    "shufflenet_v2_x0_5": ("2x2", "conv5"),
}


def flags(module):
    return (
        [part.training for part in module.modules()],
        [p.requires_grad for p in module.parameters()],
        [len(part._forward_hooks) for part in module.modules()],
    )


@pytest.mark.parametrize("name", LAST_STAGES)
def test_the_last_stage_of_torchvisions_networks_is_the_last_convolutional_map(name):
    module = torchvision.models.get_model(name, weights=None)
    shapes, stages = discover(module, NOISE)[:2]
    stage, path = LAST_STAGES[name]
    assert list(stages.items())[-1] == (stage, path)
    maps = capture(module, NOISE, 0, path).maps[path]
    assert tuple(maps.shape[1:]) == shapes[path]
    assert f"{maps.shape[2]}x{maps.shape[3]}" == stage


def test_the_stages_of_a_resnet_run_from_fine_to_coarse():
    shapes, stages = discover(torchvision.models.resnet18(weights=None), torch.rand(1, 3, 224, 224))[:2]
    assert stages == {
        "112x112": "relu",
        "56x56": "layer1",
        "28x28": "layer2",
        "14x14": "layer3",
        "7x7": "layer4",
    }
    assert list(stages) == ["112x112", "56x56", "28x28", "14x14", "7x7"]
    assert shapes["layer2.0.conv1"] == (128, 28, 28)


def test_maps_are_listed_in_the_order_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 2)
            self.second = nn.Conv2d(4, 6, 3)
            self.first = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.fc(self.second(self.first(x)).mean((2, 3)))

    assert list(discover(Backwards(), NOISE)[0]) == ["first", "second"]


def test_a_plain_network():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout2d(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    shapes, stages = discover(module, NOISE)[:2]
    assert stages == {"64x64": "1", "32x32": "4"}
    assert shapes == {
        "0": (4, 64, 64),
        "1": (4, 64, 64),
        "2": (4, 32, 32),
        "3": (8, 32, 32),
        "4": (8, 32, 32),
    }


@pytest.mark.parametrize("after", [[], [nn.ReLU()]], ids=["bare", "rectified"])
def test_a_convolution_to_one_map_per_class_is_not_a_stage(after):
    body = [nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU()]
    head = [nn.Conv2d(6, 5, 1), *after, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    shapes, stages = discover(nn.Sequential(*body, *head), NOISE)[:2]
    assert stages == {"32x32": "1"}
    assert "2" not in shapes


def test_the_default_layer_may_be_another_than_the_last_map():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 2, stride=2), nn.ReLU())
    module.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)))
    assert list(discover(module, NOISE)[1].items()) == [("64x64", "1"), ("32x32", "3")]
    assert list(discover(module, NOISE, last="0")[1].items()) == [("32x32", "3"), ("64x64", "0")]
    assert list(discover(module, NOISE, last="2")[1].items()) == [("64x64", "1"), ("32x32", "2")]


class Tokens(nn.Module):
    """64 × 64 pixels → a class token and 4 × 4 tokens of 6 numbers → 5 classes."""

    def __init__(self):
        super().__init__()
        self.cut, self.token = nn.Conv2d(3, 6, 16, stride=16), nn.Parameter(torch.ones(1, 1, 6))
        self.block, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        tokens = self.cut(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.norm(self.block(tokens)).mean(1))


def test_a_default_layer_may_be_the_convolution_that_looks_like_class_scores():
    # An embedding of five numbers, or five classes: the structure is the same.
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 2, stride=2), nn.ReLU())
    module += nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert list(discover(module, NOISE)[1].items()) == [("64x64", "1")]
    shapes, stages = discover(module, NOISE, last="3")[:2]
    assert list(stages.items()) == [("64x64", "1"), ("32x32", "3")]
    assert shapes["3"] == (5, 32, 32)


def test_layers_that_reshape_turns_into_maps_count():
    shapes, stages = discover(Tokens(), NOISE, lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (4, 4)))[:2]
    assert shapes == {"block": (6, 4, 4), "norm": (6, 4, 4)}
    assert stages == {"4x4": "norm"}


def swin():
    return torchvision.models.SwinTransformer(
        [4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4]
    )


def vit():
    torch.manual_seed(0)
    module = torchvision.models.VisionTransformer(64, 16, 2, 2, hidden_dim=8, mlp_dim=16)
    nn.init.normal_(module.heads.head.weight)  # it starts at zero, and nothing would have influence
    return module


# The class token alone is used after the last attention; Swin's maps have channels last.
LAST_NORM = "encoder.layers.encoder_layer_1.ln_1"
TRANSFORMERS = [(Tokens, None, (6, 4, 4), "norm"), (vit, tokens(1), (8, 4, 4), LAST_NORM)]
TRANSFORMERS += [(swin, None, (16, 8, 8), "permute")]


@pytest.mark.parametrize(("make", "reshape", "shape", "layer"), TRANSFORMERS)
def test_a_transformers_default_layer_is_the_last_whose_cells_count(make, reshape, shape, layer):
    found = discover(make().eval(), NOISE, reshape)
    assert list(found.stages.values())[-1] == layer
    assert (found.shapes[layer], found.fault) == (shape, "")


def test_a_default_layer_before_more_than_a_tenth_of_the_layers_is_asked_for():
    """After it only the class token counts. With a reshape, the reader has said what the tokens are."""
    found = discover(vit().eval(), NOISE)
    assert list(found.stages.values())[-1] == LAST_NORM
    assert found.fault.startswith("expected a layer by name for tokens without a reshape, as the last with")
    assert f"{LAST_NORM!r}, before " in found.fault


def test_the_cut_into_patches_may_still_be_named():
    assert discover(Tokens(), NOISE, last="cut")[1] == {"4x4": "cut"}


class Rows(nn.Module):
    """A linear layer for each cell, their mean, and the classifier."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.mix(x.flatten(2).transpose(1, 2)).mean(1))


AFTER_ONE_MAP = {
    "flattened": [nn.Flatten(), nn.Linear(4 * 32 * 32, 2)],
    "flattened cell by cell": [nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)],
    "pooled": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)],
    "convolved along rows": [nn.Flatten(2), nn.Conv1d(4, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten()],
    "deep, with attention at its end": [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), Rows()],
}


@pytest.mark.parametrize("kind", AFTER_ONE_MAP)
def test_a_convolutional_network_that_flattens_its_maps_is_not_a_transformer(kind):
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())
    _, stages = discover(nn.Sequential(body, *AFTER_ONE_MAP[kind]), NOISE)[:2]
    assert stages == {"32x32": "2" if kind.startswith("deep") else "0"}


def test_a_decoders_last_convolution_is_its_last_stage():
    class HourGlass(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Conv2d(3, 4, 3, stride=4, padding=1)
            self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
            self.last = nn.Conv2d(4, 6, 3, padding=1)
            self.fc = nn.Linear(6, 2)

        def forward(self, x):
            return self.fc(self.last(self.up(self.down(x))).mean((2, 3)))

    _, stages = discover(HourGlass(), NOISE)[:2]
    assert list(stages.items()) == [("16x16", "down"), ("32x32", "last")]


def test_a_module_that_runs_twice_has_no_single_map():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.step, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.step(self.step(self.stem(x))).mean((2, 3)))

    assert list(discover(Recurrent(), NOISE)[0]) == ["stem"]


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8, 2)),
        nn.Sequential(nn.AvgPool2d(32), nn.Flatten()),
    ],
    ids=["perceptron", "convolution of one cell", "without weights"],
)
def test_a_network_without_maps_is_refused(module):
    network = Network(module, input_shape=(3, 64, 64))
    for what in ("layers", "map_shapes", "default_layer"):
        with pytest.raises(ValueError, match="a convolutional layer with height and width, got none"):
            getattr(network, what)


def test_discovering_leaves_the_network_and_the_random_state_alone():
    module = torchvision.models.mobilenet_v2(weights=None).train()
    module.features[3].eval()
    next(module.parameters()).requires_grad_(False)
    module.features[0].register_forward_hook(lambda *_: None)
    before, state, chance = flags(module), copy.deepcopy(module.state_dict()), torch.get_rng_state()
    discover(module, NOISE)
    assert flags(module) == before
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)


def test_a_network_that_fails_is_left_as_it_was_too():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(5))
    before = flags(module)
    with pytest.raises(RuntimeError):
        discover(module, NOISE)
    assert flags(module) == before


# The pass that lists the modules.


def test_trace_lists_the_modules_in_the_order_they_finish(images, snapshot):
    module = network(norm=nn.BatchNorm2d(4), drop=nn.Dropout(0.5), pool=nn.MaxPool2d(2)).train()
    before = snapshot(module)
    visits, logits = trace(module, images)
    assert snapshot(module) == before
    assert [visit.name for visit in visits] == ["conv", "norm", "drop", "pool", "out", "tanh", "mean"]
    assert [visit.shape for visit in visits][2:4] == [(3, 4, 6, 6), (3, 4, 3, 3)]
    assert [visit.kind for visit in visits][2:4] == [nn.Dropout, nn.MaxPool2d]
    assert {visit.calls for visit in visits} == {1}
    assert torch.equal(logits, module.eval()(images))
    assert not logits.requires_grad


def test_trace_counts_calls_and_omits_outputs_without_a_tensor(images):
    relu = nn.ReLU()
    module = network(relu=relu, text=Apply(lambda x: str(len(x))), again=nn.Sequential(relu))
    module.again.register_forward_pre_hook(lambda *_: images)
    module.out = Apply(lambda x: (x, "note"))
    module.tanh = Apply(lambda pair: pair[0])
    visits, _ = trace(module, images)
    assert [visit.name for visit in visits] == ["conv", "relu", "again", "out", "tanh", "mean"]
    assert [visit.calls for visit in visits] == [1, 2, 1, 1, 1, 1]


def test_trace_leaves_no_hook_when_the_network_fails(gap_network, snapshot):
    before = snapshot(gap_network)
    with pytest.raises(RuntimeError):
        trace(gap_network, torch.zeros(1, 5, 8, 8, dtype=torch.float64))
    assert snapshot(gap_network) == before


class TwoHeads(nn.Module):
    """Segmentation from a fine and a coarse map, a layer with one map per class on each."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.low, self.high = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        fine = self.fine(x).relu()
        coarse = self.coarse(fine).relu()
        return self.low(fine) + nn.functional.interpolate(self.high(coarse), fine.shape[2:])


def test_no_layer_of_scores_is_the_default_of_a_segmentation_network_with_two_heads():
    assert list(discover(TwoHeads().eval(), NOISE).stages.values())[-1] == "coarse"


def test_torchvisions_vision_transformer_needs_no_reshape_of_the_readers():
    network = wrap(vit().eval(), input_shape=(3, 64, 64))
    assert network.layer_path() == LAST_NORM
