"""Which layer is the default, and how it is arranged, in one tiny network per kind and in timm's."""

import pytest
import torch
from modules import Apply
from torch import nn

from gmcam import Network, explain, reshape, wrap
from gmcam.layers import discover


class Block(nn.Module):
    """A block of a transformer, with keys, values and queries from one layer or from three."""

    def __init__(self, split=None):
        super().__init__()
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 6)
        self.attention = Attention(split)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    def __init__(self, split):
        super().__init__()
        parts = [split(nn.Linear(6, 6)) for _ in range(3)] if split else [nn.Linear(6, 18)]
        self.parts = nn.ModuleList(parts)
        self.out = nn.Linear(6, 6)

    def forward(self, x):
        q, k, v = torch.cat([part(x) for part in self.parts], -1).chunk(3, -1)
        return self.out(torch.softmax(q @ k.transpose(1, 2), -1) @ v)


class Transformer(nn.Module):
    """(N, 3, 32, 48) → ``prefix`` tokens and 4 × 6 of 8 × 8 pixels → five logits from the first token, or
    from the mean of all."""

    def __init__(self, prefix=1, pool=False, split=None, convolution=True):
        super().__init__()
        self.cut = nn.Conv2d(3, 6, 8, 8) if convolution else nn.Linear(192, 6)
        self.convolution, self.pool = convolution, pool
        self.tokens = nn.Parameter(torch.randn(1, prefix, 6))
        self.blocks = nn.Sequential(Block(split), Block(split), Block(split))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        if self.convolution:
            x = self.cut(x).flatten(2).transpose(1, 2)
        else:
            x = self.cut(nn.functional.unfold(x, 8, stride=8).transpose(1, 2))
        x = self.norm(self.blocks(torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)))
        return self.head(x.mean(1) if self.pool else x[:, 0])


TRANSFORMERS = {  # arguments: the default layer
    "class token": ({}, "blocks.2.norm1"),
    "class token and registers": ({"prefix": 5}, "blocks.2.norm1"),
    "keys and values apart": ({"split": lambda layer: layer}, "blocks.2.norm1"),
    "keys and values in containers": ({"split": nn.Sequential}, "blocks.2.norm1"),
    "pooled": ({"prefix": 0, "pool": True}, "norm"),
    "pooled with registers": ({"prefix": 8, "pool": True}, "norm"),
    "patches without a convolution": ({"convolution": False}, "blocks.2.norm1"),
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_the_default_of_a_transformer_is_the_last_layer_whose_patches_count(kind):
    arguments, layer = TRANSFORMERS[kind]
    module, image = Transformer(**arguments).eval(), torch.rand(2, 3, 32, 48)
    network = Network(module, input_shape=(3, 32, 48))
    assert list(network.layers.items())[-1] == ("4x6", layer)
    if "pool" not in arguments:  # the class token reads this layer, and more than a tenth of them come later
        with pytest.raises(ValueError, match=f"the last with influence is '{layer}', before"):
            network.layer_path()
    assert network.map_shapes[layer] == (6, 4, 6)
    tokens = torch.rand(2, 24 + arguments.get("prefix", 1), 6)
    by_hand = reshape.tokens(arguments.get("prefix", 1), (4, 6))(tokens)
    assert torch.equal(network.as_maps(tokens, layer), by_hand)
    assert explain(network, image, 1, layer="4x6").raw.shape == (2, 4, 6)


def test_tokens_of_another_input_size_are_refused_with_the_shape():
    network = Network(Transformer().eval(), input_shape=(3, 32, 48))
    with pytest.raises(ValueError, match=r"maps at layer 'norm', got \(1, 50, 6\): .*reshape\.tokens\("):
        network.as_maps(torch.rand(1, 50, 6), "norm")


def test_depth_is_the_share_of_the_layers_with_weights_that_have_run():
    module = Transformer().eval()
    network = Network(module, input_shape=(3, 32, 48))
    layers = 1 + 3 * 5 + 2  # cut; norm1, qkv, out, norm2, mlp; norm, head
    assert network.depth("4x6") == (1 + 2 * 5 + 1) / layers
    assert network.depth("cut") == 1 / layers
    assert network.depth(module.blocks[0]) == 6 / layers
    assert (network.depth("head"), network.depth("<input>")) == (1, 0)


class ChannelsLast(nn.Module):
    """A convolution, then blocks on (N, h, w, K)."""

    def __init__(self):
        super().__init__()
        self.cut, self.block = nn.Conv2d(3, 6, 4, 4), nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.block(self.cut(x).permute(0, 2, 3, 1)).tanh().mean((1, 2)))


def test_channels_last_are_moved():
    network = Network(ChannelsLast().eval(), input_shape=(3, 32, 32))
    assert network.layers == {"8x8": "block"}
    output = torch.rand(2, 8, 8, 6)
    assert torch.equal(network.as_maps(output, "block"), output.permute(0, 3, 1, 2))
    assert network.as_maps(output, "cut") is output  # a convolution's output is what it is


class Windows(nn.Module):
    """A stem, then layers on windows (N, count, size, K), whose order no shape tells."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.blocks, self.head = nn.Sequential(*[nn.Linear(6, 6) for _ in range(12)]), nn.Linear(6, 5)

    def forward(self, x):
        x = nn.functional.unfold(self.stem(x), 2, stride=2).transpose(1, 2).reshape(len(x), 16, 6, 4)
        return self.head(self.blocks(x.transpose(2, 3)).mean((1, 2)))


def test_a_network_whose_maps_end_early_asks_for_a_name():
    network = Network(Windows().eval(), input_shape=(3, 32, 32))
    assert network.layers == {"8x8": "stem"}
    message = r"got 'stem' as the last, before 12 layers .*'blocks.11': name .*8x8 \(stem\), .*reshape="
    for ask in (network.layer_path, lambda: network.default_layer, network.depth):
        with pytest.raises(ValueError, match=message):
            ask()
    assert network.layer_path("8x8") == network.layer_path("stem") == "stem"
    with pytest.raises(ValueError, match=r"maps at layer 'blocks.3', got \(1, 16, 4, 6\)"):
        network.as_maps(torch.rand(1, 16, 4, 6), "blocks.3")


def test_a_position_code_and_a_wrapper_are_never_the_default():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.code = nn.Sequential(nn.Conv2d(3, 6, 4, 4)), nn.Conv2d(2, 6, 1)
            self.wrapper = Apply(self.pooled)
            self.head = nn.Linear(6, 5)

        def pooled(self, x):
            maps = self.body(x)
            return maps, maps.mean((2, 3)) + self.code(torch.ones(1, 2, 8, 8)).mean((2, 3))

        def forward(self, x):
            return self.head(self.wrapper(x)[1])

    found = discover(Odd().eval(), torch.rand(1, 3, 32, 32))
    assert found.stages == {"8x8": "body"}
    assert list(found.shapes) == ["body.0", "body"]


SPACES = {"250": (nn.Conv1d, (2, 500)), "6x8x8": (nn.Conv3d, (1, 12, 16, 16))}


@pytest.mark.parametrize("stage", SPACES)
def test_signals_and_volumes(stage):
    convolution, shape = SPACES[stage]
    body = [convolution(shape[0], 4, 2, stride=2), nn.ReLU(), nn.Dropout()]
    network = Network(nn.Sequential(*body, nn.Flatten(), nn.LazyLinear(3)).eval(), input_shape=shape)
    network.module(torch.rand(1, *shape))
    assert network.layers == {stage: "1"}
    maps = torch.rand(2, *network.map_shapes["1"])
    assert network.as_maps(maps, "1") is maps
    assert maps.shape[2:] == tuple(map(int, stage.split("x")))


def test_without_gradients_the_shape_alone_counts():
    class Detached(Transformer):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    found = discover(Detached().eval(), torch.rand(1, 3, 32, 48))
    assert found.stages == {"4x6": "norm"}


def failing(error):
    """A user's reshape for 4 × 6 patches, which raises ``error`` for other outputs."""

    def arrange(output):
        if output.shape[1] != 25:
            raise error
        return output[:, 1:].transpose(1, 2).reshape(len(output), -1, 4, 6)

    return arrange


@pytest.mark.parametrize("error", [AssertionError("not a square"), KeyError("x"), TypeError("no")])
def test_an_error_of_a_users_reshape_is_that_layers(error):
    network = Network(Transformer().eval(), input_shape=(3, 32, 48), reshape=failing(error))
    assert network.layers == {"4x6": "blocks.2.norm1"}
    with pytest.raises(
        ValueError, match=r"expected reshape to turn \(1, 6, 4, 6\) into .*name a layer other"
    ):
        network.as_maps(torch.rand(1, 6, 4, 6), "cut")


def test_tokens_first_by_reshape():
    class First(Transformer):
        def forward(self, x):
            x = self.blocks(self.cut(x).flatten(2).transpose(1, 2)).transpose(0, 1)
            return self.head(self.norm(x).mean(0))

    arrange = reshape.tokens_first(0, (4, 6))
    network = Network(First().eval(), input_shape=(3, 32, 48), reshape=arrange)
    assert network.layers == {"4x6": "norm"}
    assert network.as_maps(torch.rand(24, 2, 6), "norm").shape == (2, 6, 4, 6)


# Networks of timm. Their layers are known by name.

SMALL = {  # (options, default layer, cells)
    "test_convnext": ({}, "stages", (5, 5)),
    "test_vit": ({}, "blocks.5.norm1", (10, 10)),
    "test_efficientnet": ({}, "bn2", (5, 5)),
    "vit_tiny_patch16_224": ({"img_size": 64, "depth": 3}, "blocks.2.norm1", (4, 4)),
}
LARGE = {
    "deit_tiny_distilled_patch16_224": ("blocks.11.norm1", (14, 14)),
    "vit_tiny_r_s16_p8_224": ("blocks.11.norm1", (7, 7)),
    "eva02_tiny_patch14_224": ("blocks.11", (16, 16)),
    "cait_xxs24_224": ("blocks_token_only.1.norm1", (14, 14)),
    "xcit_nano_12_p16_224": ("cls_attn_blocks.1.norm1", (14, 14)),
    "levit_128s": ("stages", (4, 4)),
    "nest_tiny_jx": ("norm", (14, 14)),
    "davit_tiny": ("stages", (7, 7)),
    "swin_tiny_patch4_window7_224": ("norm", (7, 7)),
    "swinv2_tiny_window8_256": ("norm", (8, 8)),
    "pvt_v2_b0": ("stages", (7, 7)),
    "mobilevitv2_050": ("stages", (8, 8)),
    "tnt_s_patch16_224": ("blocks.11.norm_out", (14, 14)),
    "mixer_s32_224": ("norm", (7, 7)),
    "regnetx_002": ("s4", (7, 7)),
}


def of_timm(timm, name, **options):
    module = timm.create_model(name, num_classes=5, **options).eval()
    return wrap(module)


@pytest.mark.parametrize("name", SMALL)
def test_the_default_layer_of_timms_small_networks(name):
    options, layer, cells = SMALL[name]
    network = of_timm(pytest.importorskip("timm"), name, **options)
    assert (network.layer_path(), network.map_shapes[layer][1:]) == (layer, cells)
    image = torch.rand(1, *network.input_shape)
    raw = explain(network, image, 1, method="hires_cam").raw
    assert (raw.shape, bool(raw.any())) == ((1, *cells), True)


@pytest.mark.slow
def test_the_default_layers_of_timms_networks():
    timm = pytest.importorskip("timm")
    for name, (layer, cells) in LARGE.items():
        network = of_timm(timm, name)
        assert list(network.layers.values())[-1] == layer
        assert network.map_shapes[layer][1:] == cells
