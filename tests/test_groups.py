"""Several classes as one target: against the logits, and against functions of them."""

import pytest
import torch

import gmcam
from gmcam import metrics
from gmcam.groups import Grouped

NAMES = ("cat", "tiger cat", "cup")


@pytest.fixture
def network(flat_network):
    return gmcam.Network(flat_network, classes=NAMES, input_shape=(3, 8, 8))


@pytest.fixture
def cats():
    return gmcam.group(["cat", "tiger cat"], "cats")


@pytest.fixture
def logits(flat_network, images):
    with torch.no_grad():
        return flat_network(images)


def test_score_and_probability_of_a_group(network, images, logits, cats):
    result = gmcam.explain(network, images, cats)
    assert torch.allclose(result.score, logits[:, :2].exp().sum(1).log(), rtol=1e-12)
    assert torch.allclose(result.probability, logits.softmax(1)[:, :2].sum(1), rtol=1e-12)
    assert torch.equal(result.rank, 1 + (result.probability < 0.5).long())  # of two: cats and cup
    assert [result.label(0), result.target.tolist()] == ["cats", [0, 0, 0]]


@pytest.mark.parametrize(
    "method",
    ["gmcam", "grad_cam", "hires_cam", "ablation_cam", "integrated_grad_cam", "captum.input_x_gradient"],
)
def test_the_map_of_a_group_is_the_map_of_its_log_sum_exp(network, flat_network, images, cats, method):
    def score(output):
        return torch.logsumexp(output[:, :2], 1)

    expected = gmcam.explain(flat_network, images, score, method=method)
    assert torch.allclose(
        gmcam.explain(network, images, cats, method=method).raw, expected.raw, rtol=1e-9, atol=1e-12
    )


def test_one_image_may_have_groups_and_classes(network, images, logits, cats):
    result = gmcam.explain(network, images[:1], ["cup", cats])
    assert torch.allclose(result.score, torch.stack([logits[0, 2], logits[0, :2].logsumexp(0)]), rtol=1e-12)
    assert [result.label(i) for i in (0, 1)] == ["cup", "cats"]
    assert result.target.tolist() == [1, 0]  # in a network of two classes
    by_index = gmcam.explain(network, images[:1], [2, cats])
    assert torch.equal(by_index.raw, result.raw)


def test_a_batch_may_have_a_group_for_an_image(network, images, cats):
    together = gmcam.explain(network, images, [cats, "cup", cats])
    for n, target in enumerate([cats, "cup", cats]):
        assert torch.allclose(together.raw[n], gmcam.explain(network, images[n], target).raw[0], rtol=1e-9)


@pytest.mark.parametrize("method", ["full_grad", "smooth_full_grad"])
def test_the_terms_of_full_grad_add_up_without_the_groups_entropy(
    network, flat_network, images, cats, method
):
    def linear(output):  # its gradient is that of the log-sum-exp, and the terms add up to it
        return (output[:, :2] * output[:, :2].softmax(1).detach()).sum(1)

    expected = gmcam.explain(flat_network, images, linear, method=method)
    result = gmcam.explain(network, images, cats, method=method)
    assert torch.allclose(result.raw, expected.raw, rtol=1e-9)


def test_relevance_starts_at_every_class_of_a_group(gap_network, images, cats):
    network = gmcam.Network(gap_network, classes=NAMES, input_shape=(3, 8, 8))
    result = gmcam.explain(network, images[:1], [cats, "cup"], method="relevance_cam")
    assert not result.empty.any()
    assert not torch.allclose(result.raw[0], result.raw[1])


def test_curves_follow_the_probability_of_a_group(network, images, logits, cats):
    maps = gmcam.explain(network, images, cats).maps
    curves = metrics.curves(network, images, cats, maps, steps=4)
    assert torch.allclose(curves.insertion[:, -1], logits.softmax(1)[:, :2].sum(1).to(curves.insertion))


def test_a_grouped_network_has_the_groups_first(network, images, logits, cats):
    grouped = Grouped(network, [gmcam.group(["cup", "cat"], "both")])
    assert (grouped.classes, grouped.columns) == (("both", "tiger cat"), ((2, 0), (1,)))
    probabilities = logits.softmax(1)
    expected = torch.stack([probabilities[:, [2, 0]].sum(1), probabilities[:, 1]], 1)
    assert torch.allclose(grouped.probabilities(images), expected.float())
    assert network.classes == NAMES  # the network itself is as it was


def test_a_group_without_a_name_is_called_by_its_classes():
    assert gmcam.group(["cat", 2]).name == "cat, 2"
    assert gmcam.group(["cat", 2], "pets").name == "pets"


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        (lambda cats: gmcam.group("cat"), "expected a list of two classes or more, got 'cat'"),
        (lambda cats: gmcam.group(["cat"]), r"two classes or more, got \['cat'\]"),
        (lambda cats: [cats, "cat"], "expected a class outside the groups, got 'cat'"),
        (lambda cats: [cats, gmcam.group(["cat", "cup"])], "each class in one group, got 'cat' twice"),
        (lambda cats: gmcam.group(["cat", "cat"]), "each class in one group, got 'cat' twice"),
        (lambda cats: gmcam.group(["cat", "dog"]), "expected a class of small, got 'dog'"),
        (lambda cats: gmcam.group([0, 7]), "expected a class of small from 0 to 2, got 7"),
    ],
)
def test_groups_that_do_not_fit_are_refused(network, images, cats, target, fault):
    network.name = "small"
    with pytest.raises(ValueError, match=fault):
        gmcam.explain(network, images[:1], target(cats))


def test_sigmoids_and_classes_without_names_are_not_grouped(flat_network, images, cats):
    findings = gmcam.Network(flat_network, classes=NAMES, input_shape=(3, 8, 8), output="sigmoid")
    with pytest.raises(ValueError, match="a softmax for a group, got sigmoids"):
        gmcam.explain(findings, images, cats)
    with pytest.raises(ValueError, match="class names and a softmax for a group, got no class names"):
        gmcam.explain(flat_network, images, gmcam.group([0, 1]))


def test_cam_is_defined_for_a_class_alone(gap_network, images, cats):
    network = gmcam.Network(gap_network, classes=NAMES, input_shape=(3, 8, 8))
    with pytest.raises(ValueError, match="expected a class as target of cam, got a function or a group"):
        gmcam.explain(network, images, cats, method="cam")


def test_an_unknown_class_names_those_that_have_the_word(flat_network):
    network = gmcam.Network(flat_network, classes=("tiger cat", "Persian cat", "catamaran"), name="small")
    with pytest.raises(ValueError, match=r"choose one of tiger cat, Persian cat, or several: gmcam.group"):
        network.class_index("cat")
