"""Which weights are randomised, and how similar maps are: by hand, and with methods of known behaviour."""

import gc
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import gmcam
from gmcam import METHODS, Method, Preprocessing
from gmcam.metrics.sanity import layers_from_logits, randomised, sanity_check

LAYERS = {"fc": ["fc"], "second": ["second"], "first": ["first", "norm"]}


@pytest.fixture
def network():
    """Two convolutions, one with a batch norm, and a linear layer; the first one registered runs last."""
    torch.manual_seed(1)
    parts = OrderedDict(fc=nn.Linear(5, 3), first=nn.Conv2d(3, 4, 3, bias=False), norm=nn.BatchNorm2d(4))

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in parts.items():
                self.add_module(name, part)
            self.second, self.unused = nn.Conv2d(4, 5, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(self.second(self.norm(self.first(x)).relu()).relu().mean((2, 3)))

    module = Small()
    module(torch.randn(8, 3, 12, 12))  # the batch norm has statistics to lose
    return gmcam.Network(
        module.eval(),
        name="small",
        preprocess=Preprocessing(12, 12),
        classes=("cat", "cup", "coin"),
        input_shape=(3, 12, 12),
        layer="second",
    )


@pytest.fixture
def inputs():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))


def state(network):
    return {name: value.clone() for name, value in network.module.state_dict().items()}


def changed(network, twin):
    """The modules of which at least one weight differs."""
    other = twin.module.state_dict()
    return {
        name.rpartition(".")[0]
        for name, value in state(network).items()
        if not torch.equal(value, other[name])
    }


# Layers


def test_layers_go_from_the_logits_down_in_the_order_in_which_they_run(network):
    assert layers_from_logits(network) == LAYERS
    assert list(layers_from_logits(network)) == list(LAYERS)


def test_layers_of_the_embedded_networks():
    vgg = layers_from_logits(gmcam.load("collage-vgg"))
    assert list(vgg)[:3] == ["head.3", "head.0", "stage4.3"] and list(vgg)[-1] == "stage1.0"
    resnet = layers_from_logits(gmcam.load("collage-resnet"))
    assert list(resnet)[:2] == ["fc", "stage4.conv2"] and list(resnet)[-1] == "stem.0"
    assert resnet["stage3.shortcut.0"] == ["stage3.shortcut.0", "stage3.shortcut.1"]
    assert sum(len(modules) for modules in resnet.values()) == 12 + 11  # batch norms after all but the last


def test_the_parts_of_an_attention_belong_together():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.attention = nn.Conv2d(3, 4, 4, 4), nn.MultiheadAttention(4, 2, batch_first=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            tokens = self.stem(x).flatten(2).transpose(1, 2)
            return self.fc(self.attention(tokens, tokens, tokens)[0].mean(1))

    network = gmcam.Network(Attentive().eval(), input_shape=(3, 8, 8))
    assert list(layers_from_logits(network).values()) == [
        ["fc"],
        ["attention", "attention.out_proj"],
        ["stem"],
    ]
    alone = dict(randomised(network, cascading=False))
    assert changed(network, alone["attention"]) == {"attention", "attention.out_proj"}


# Randomising


@pytest.mark.parametrize("name", LAYERS)
def test_independently_one_layer_changes_and_no_other(network, name):
    twins = dict(randomised(network, cascading=False))
    assert list(twins) == list(LAYERS)
    assert changed(network, twins[name]) == set(LAYERS[name])


def test_cascading_changes_all_from_the_logits_down_to_the_layer(network):
    so_far = set()
    for name, twin in randomised(network, cascading=True):
        so_far |= set(LAYERS[name])
        assert changed(network, twin) == so_far
    assert so_far == {"fc", "second", "first", "norm"}


def test_both_ways_and_all_choices_of_stages_give_a_layer_the_same_weights(network):
    alone = {name: state(twin) for name, twin in randomised(network, cascading=False)}
    chosen = dict(randomised(network, cascading=True, stages=["first"]))
    assert list(chosen) == ["first"]
    for name, modules in LAYERS.items():
        for key, value in state(chosen["first"]).items():
            if key.rpartition(".")[0] in modules:
                assert torch.equal(value, alone[name][key])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(network):
    first, same, different = (state(dict(randomised(network, True, seed))["first"]) for seed in (4, 4, 5))
    for key in first:
        assert torch.equal(first[key], same[key])
    for key in ("fc.weight", "fc.bias", "first.weight", "second.weight"):
        assert not torch.equal(first[key], different[key])


def test_weights_are_those_of_a_new_layer(network):
    # A uniform distribution up to 1/√(fan in), and a batch norm that changes nothing.
    twin = dict(randomised(network, cascading=True))["first"].module
    for part, inputs in ((twin.fc, 5), (twin.second, 4 * 9), (twin.first, 3 * 9)):
        assert 0.8 / inputs**0.5 < part.weight.abs().max() <= 1 / inputs**0.5
    assert twin.norm.weight.tolist() == twin.norm.running_var.tolist() == [1, 1, 1, 1]
    assert twin.norm.bias.tolist() == twin.norm.running_mean.tolist() == [0, 0, 0, 0]


def test_the_network_and_the_random_state_are_left_as_found(network, inputs, snapshot):
    network.module.second.weight.requires_grad_(False)
    network.module.train()
    before, random_state, probabilities = (
        snapshot(network.module),
        torch.get_rng_state(),
        network.probabilities(inputs),
    )
    with torch.inference_mode():
        twins = list(randomised(network, cascading=True))
    sanity_check(network, inputs, "cup", "grad_cam")
    assert snapshot(network.module) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(network.probabilities(inputs), probabilities)
    for _, twin in twins:
        assert not twin.module.second.weight.requires_grad and twin.module.fc.weight.requires_grad
        assert twin.module.training
        assert gmcam.explain(twin, inputs, "cat").maps.shape == (2, 12, 12)  # created outside inference mode


def test_copies_differ_in_their_weights_alone(network):
    network.reshape = torch.clone
    for _, twin in randomised(network, cascading=False):
        assert type(twin) is gmcam.Network and twin is not network
        assert vars(twin).keys() == vars(network).keys()
        for key in ("name", "preprocess", "classes", "input_shape", "reshape", "layer"):
            assert getattr(twin, key) is getattr(network, key)


class Counted(nn.Sequential):
    """Counts the copies that are alive, and the most that ever were."""

    alive, most = weakref.WeakSet(), 0

    def __setstate__(self, state):
        super().__setstate__(state)
        Counted.alive.add(self)
        Counted.most = max(Counted.most, len(Counted.alive))


def test_one_copy_exists_at_a_time(inputs):
    parts = [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
        nn.Linear(4, 3),
    ]
    network = gmcam.Network(Counted(*parts), input_shape=(3, 12, 12))
    gc.disable()
    try:
        assert len(sanity_check(network, inputs, 1, "grad_cam")) == 3
    finally:
        gc.enable()
    assert Counted.most == 1 and not Counted.alive


# Comparing


def method_of(monkeypatch, trained, otherwise):
    """A method ``test`` that gives one map for the trained network, another one for the others."""
    network = gmcam.Network(
        nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), input_shape=(3, 8, 9)
    )

    def compute(query):
        return (trained if query.network is network else otherwise).expand(len(query.inputs), -1, -1)

    entry = Method("test", "Test", "", compute, None, gradients=False, convolutional=False, signed=True)
    monkeypatch.setitem(METHODS, "test", entry)
    return network


def compare(network, count=1):
    options = {"sigma": 0, "normalise": "minmax"}
    (stage,) = sanity_check(network, torch.zeros(count, 3, 8, 9), 0, "test", "0", **options)
    assert stage.layer == "0" and len(stage.rank_correlation) == len(stage.similarity) == count
    return stage.rank_correlation[0], stage.similarity[0]


def test_a_rising_function_has_rank_correlation_one_and_a_falling_one_minus_one(monkeypatch):
    map_ = torch.rand(8, 9)
    ranks, similarity = compare(method_of(monkeypatch, map_, map_**3), count=3)
    assert ranks == pytest.approx(1) and similarity < 0.95
    ranks, similarity = compare(method_of(monkeypatch, map_, 1 - map_**3))
    assert ranks == pytest.approx(-1) and similarity < 0
    assert compare(method_of(monkeypatch, map_, 5 * map_ + 2)) == pytest.approx((1, 1))


def test_rank_correlation_by_the_formula_for_maps_without_ties(monkeypatch):
    a, b = torch.randperm(72).float(), torch.randperm(72).float()
    correlation, _ = compare(method_of(monkeypatch, a.view(8, 9), b.view(8, 9)))
    assert correlation == pytest.approx(1 - 6 * ((a - b) ** 2).sum().item() / (72 * (72**2 - 1)))


@pytest.mark.parametrize("flat", ["trained", "otherwise", "both"])
def test_a_flat_map_ranks_nothing_but_can_be_compared(monkeypatch, flat):
    map_, zeros = torch.rand(8, 9), torch.zeros(8, 9)
    maps = {"trained": (zeros, map_), "otherwise": (map_, zeros), "both": (zeros, zeros + 3)}[flat]
    ranks, similarity = compare(method_of(monkeypatch, *maps))
    assert np.isnan(ranks)
    assert similarity == pytest.approx(1) if flat == "both" else similarity < 0.2


def test_without_a_target_the_trained_networks_top_class_is_explained_throughout(network, inputs):
    top = network.probabilities(inputs).argmax(1)
    twins = [twin.probabilities(inputs).argmax(1) for _, twin in randomised(network, True)]
    assert any(not torch.equal(top, changed_top) for changed_top in twins)
    by_default, expected = (sanity_check(network, inputs, target, "grad_cam") for target in (None, top))
    for stage, same in zip(by_default, expected, strict=True):
        assert np.array_equal(stage.rank_correlation, same.rank_correlation, equal_nan=True)


def test_a_layer_may_be_a_module(network, inputs):
    by_module, by_path = (
        sanity_check(network, inputs, 0, "grad_cam", layer) for layer in (network.module.first, "first")
    )
    for stage, same in zip(by_module, by_path, strict=True):
        assert np.array_equal(stage.rank_correlation, same.rank_correlation, equal_nan=True)


def test_stages_compare_the_maps_of_the_copies(network, inputs):
    records = sanity_check(network, inputs, [0, 2], "gmcam", "first", cascading=False, seed=7, sigma=1.0)
    assert [record.layer for record in records] == list(LAYERS)
    options = {"method": "gmcam", "layer": "first", "sigma": 1.0}
    trained = gmcam.explain(network, inputs, [0, 2], **options).maps.flatten(1)
    for record, (_, twin) in zip(records, randomised(network, False, seed=7), strict=True):
        maps = gmcam.explain(twin, inputs, [0, 2], **options).maps.flatten(1)
        for n in range(2):
            places = torch.stack([average_ranks(trained[n]), average_ranks(maps[n])])
            assert record.rank_correlation[n] == pytest.approx(torch.corrcoef(places)[0, 1].item())


def average_ranks(values):
    """Equal values share the mean of their places."""
    below = (values[:, None] > values).sum(1)
    return (below + (values[:, None] == values).sum(1) / 2).double()


def test_each_class_of_an_image_is_compared(network, inputs):
    for record in sanity_check(network, inputs[:1], ["cat", "cup", "coin"], "grad_cam", stages=["fc"]):
        assert record.rank_correlation.shape == record.similarity.shape == (3,)


def scenes(count=2):
    drawn = gmcam.lab.dual_class_scenes(count)
    return [scene.image for scene in drawn], [scene.labels[0] for scene in drawn]


def test_a_method_without_the_head_is_constant_while_the_head_is_randomised():
    network = gmcam.load("collage-vgg")
    stages = list(layers_from_logits(network))[:3]
    records = sanity_check(network, *scenes(), "eigen_cam", cascading=False, stages=stages)
    for record in records[:2]:
        assert record.layer.startswith("head")
        assert record.rank_correlation == pytest.approx(1) and record.similarity == pytest.approx(1)
    assert records[2].layer == "stage4.3" and records[2].rank_correlation.max() < 0.99


def test_guided_backpropagation_changes_little_where_grad_cam_changes():
    network = gmcam.load("collage-vgg")
    stages = list(layers_from_logits(network))[:4]
    guided = sanity_check(network, *scenes(), "captum.guided_backprop", stages=stages)
    grad_cam = sanity_check(network, *scenes(), "grad_cam", stages=stages)
    for stage, reference in zip(guided, grad_cam, strict=True):
        assert stage.rank_correlation.min() > 0.75
        assert np.nanmean(reference.rank_correlation) < 0.7


# Errors


def test_a_network_that_cannot_be_randomised_is_refused():
    plain = gmcam.Network(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="plain", input_shape=(3, 8, 8)
    )
    with pytest.raises(ValueError, match="expected layers with reset_parameters, got none in plain"):
        randomised(plain, cascading=True)

    class WithoutReset(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 2))

        def forward(self, x):
            return x.mean((2, 3)) @ self.weight

    with pytest.raises(ValueError, match="expected layers with reset_parameters, got none in own"):
        sanity_check(
            gmcam.Network(WithoutReset(), name="own", input_shape=(3, 8, 8)),
            torch.ones(1, 3, 8, 8),
            0,
            "captum.saliency",
        )


def test_an_unknown_stage_is_named(network):
    with pytest.raises(ValueError, match="expected stages among fc, second, first, got 'third'"):
        randomised(network, cascading=True, stages=["fc", "third"])
