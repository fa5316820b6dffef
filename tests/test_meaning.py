"""What an output means, wherever probabilities are used: one logit, findings, regression, own functions."""

import pytest
import torch
from PIL import Image
from torch import nn

import gmcam
from gmcam.evaluate.measuring import Case, Choices, measure

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(logits, **options):
    torch.manual_seed(1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, logits))
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *head).eval()
    return gmcam.Network(module, input_shape=(3, 8, 8), **options)


def test_one_logit_is_a_sigmoid():
    one = network(1)
    one.module[4].bias.data.fill_(-4.0)
    p = one.module(X).sigmoid()
    assert torch.allclose(one.probabilities(X), p)
    result = gmcam.explain(one, X, method="hires_cam", layer="1")
    assert torch.allclose(result.probability, p[:, 0])
    curves = gmcam.metrics.curves(one, X, 0, result.maps, steps=4)
    assert torch.allclose(curves.deletion[:, 0].double(), p[:, 0].double(), atol=1e-6)
    assert torch.allclose(curves.insertion[:, -1].double(), p[:, 0].double(), atol=1e-6)


def test_with_two_names_the_first_is_the_negative_of_one_logit():
    one = network(1, classes=["no", "yes"])
    z = one.module(X)
    both = gmcam.explain(one, X[:1], ["no", "yes"], method="hires_cam", layer="1")
    assert torch.allclose(both.raw[0], -both.raw[1])
    assert torch.allclose(both.score, torch.cat([-z[0], z[0]]))
    assert torch.allclose(both.probability, torch.cat([1 - z[0].sigmoid(), z[0].sigmoid()]))
    assert one.probabilities(X).sum(1).tolist() == pytest.approx([1, 1])
    assert gmcam.explain(one, X, layer="1").target.tolist() == (z[:, 0] > 0).long().tolist()
    maps = gmcam.compare(one, X, "no", methods=["cam", "hires_cam"], layer="1")  # linear after pooling: equal
    assert torch.allclose(maps[0].raw, maps[1].raw * 64, atol=1e-5)


def test_class_1_of_one_logit_is_refused_with_both_remedies():
    with pytest.raises(ValueError, match=r'classes=\["no", "yes"\], or a function such as lambda y: -y'):
        gmcam.explain(network(1), X, 1, layer="1")


def test_findings_have_a_sigmoid_each():
    several = network(3, output="sigmoid", classes=["a", "b", "c"])
    p = several.module(X).sigmoid()
    assert torch.allclose(several.probabilities(X), p)
    results = gmcam.compare(several, X, ["a", "c"], methods=["grad_cam", "score_cam"], layer="1")
    assert torch.allclose(results[0].probability, torch.stack([p[0, 0], p[1, 2]]))
    area = torch.ones(8, 8, dtype=torch.bool)
    case = Case("image", "b", (1,), X[0], area, area, area, torch.zeros(0, 4))
    (row,) = measure(several, [case], Choices(("grad_cam",), layer="1", steps=2))
    assert row["probability"] == pytest.approx(p[0, 1].item(), rel=1e-5)


def test_score_cam_weights_by_the_networks_own_probability():
    """Equal weights from a sigmoid and from the same function given by hand; other ones from the softmax."""

    def raw(output):
        return gmcam.explain(network(3, output=output), X, 1, method="score_cam", layer="1").raw

    assert torch.allclose(raw("sigmoid"), raw(lambda y: y.sigmoid()))
    assert not torch.allclose(raw("sigmoid"), raw("softmax"), atol=1e-3)


def test_an_output_of_probabilities_is_taken_as_it_is():
    inner = network(3).module
    module = nn.Sequential(inner, nn.Softmax(1))
    plain = gmcam.Network(module, input_shape=(3, 8, 8), output=lambda y: y)
    assert torch.allclose(plain.probabilities(X), inner(X).softmax(1))


def test_without_a_meaning_there_is_no_probability():
    regression = network(2, output=None)
    result = gmcam.explain(regression, X, 1, method="score_cam", layer="1")
    assert result.probability is None
    one = gmcam.explain(regression, X[:1], 1, layer="1")
    assert "%" not in gmcam.show(Image.new("RGB", (8, 8)), one).axes[1].get_title()
    with pytest.raises(ValueError, match="expected an output with probabilities, got output=None"):
        regression.probabilities(X)
    with pytest.raises(ValueError, match="expected an output with probabilities"):
        gmcam.metrics.curves(regression, X, 1, result.maps)


@pytest.mark.parametrize("output", ["logits", 3])
def test_an_unknown_meaning_is_refused(output):
    with pytest.raises(ValueError, match=r"expected output to be one of .'softmax', 'sigmoid', None"):
        network(2, output=output)


@pytest.mark.parametrize("function", [lambda y: y * 100, lambda y: y.sum(1)])
def test_a_function_that_gives_no_probabilities_is_refused(function):
    with pytest.raises(ValueError, match=r"expected output= to return probabilities \(N, classes\)"):
        network(2, output=function).probabilities(X)


class Detector(nn.Module):
    """(predictions, [maps]), as a detection head returns them; ``style`` "list": one dict per image."""

    def __init__(self, style="tuple"):
        super().__init__()
        torch.manual_seed(2)
        self.body, self.head, self.style = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 6, 1), style

    def forward(self, x):
        raw = self.head(self.body(x).relu())
        boxes = raw.flatten(2).sigmoid()
        return (boxes, [raw]) if self.style == "tuple" else [{"conf": image[3:]} for image in boxes]


def test_a_target_function_receives_the_networks_own_output():
    tuples = gmcam.explain(
        Detector(), X, lambda y: y[1][0][:, 2].mean((1, 2)), layer="body", method="hires_cam"
    )
    assert tuples.score.shape == (2,)
    dicts = gmcam.explain(
        Detector("list"), X[:1], lambda y: y[0]["conf"].max()[None], layer="body", method="hires_cam"
    )
    module = Detector("list")
    maps = module.body(X[:1]).detach().requires_grad_()
    module.head(maps.relu()).flatten(2).sigmoid()[0, 3:].max().backward()
    assert torch.allclose(dicts.raw, (maps * maps.grad).sum(1), atol=1e-6)


@pytest.mark.parametrize("style", ["tuple", "list"])
def test_eigen_cam_needs_no_target(style):
    result = gmcam.explain(Detector(style), X, method="EigenCAM", layer="body")
    assert (result.raw.shape, result.label(0), result.probability) == ((2, 3, 3), "no_target", None)
    with pytest.raises(ValueError, match=r"pass target as a function|name a class|one scalar"):
        gmcam.explain(Detector(style), X, method="grad_cam", layer="body")


def test_a_function_of_the_first_tensor_serves_too():
    module = Detector()
    of_tensor = gmcam.explain(module, X, lambda y: y[:, 4:].amax((1, 2)), layer="body")
    of_tuple = gmcam.explain(module, X, lambda y: y[0][:, 4:].amax((1, 2)), layer="body")
    assert torch.equal(of_tensor.raw, of_tuple.raw)


def test_the_error_of_a_function_that_fails_on_both_is_the_first_one():
    with pytest.raises(TypeError, match="tuple indices must be integers"):
        gmcam.explain(Detector(), X, lambda y: y["scores"], layer="body")
