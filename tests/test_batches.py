"""What belongs to each image goes with it into every batch that a method makes; what cannot is refused."""

import pytest
import torch
from torch import nn

import gmcam

X = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
META = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
TARGETS = [0, 2, 1, 2]
SHORT = {
    "integrated_grad_cam": {"steps": 4},
    "captum.integrated_gradients": {"steps": 4},
    "cameras": {"sizes": 2},
}
REMAKE = [
    "score_cam",
    "ablation_cam",
    "integrated_grad_cam",
    "captum.saliency",
    "captum.integrated_gradients",
]
REMAKE += ["captum.occlusion", "captum.deep_lift", "captum.guided_grad_cam"]
AS_IT_COMES = ["grad_cam", "gmcam", "layer_cam", "eigen_cam", "cameras"]


class Clinical(nn.Module):
    """Logits from an image and a row of metadata."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
        self.gate, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, image, meta):
        return self.head(self.body(image).mean((2, 3)) * self.gate(meta).tanh())


class Bound(nn.Module):
    """The metadata of a whole batch, hidden in the module."""

    def __init__(self, net, meta):
        super().__init__()
        self.net = net
        self.register_buffer("meta", meta)

    def forward(self, image):
        return self.net(image, self.meta)


def options(method, layer):
    return {
        "method": method,
        **SHORT.get(method, {}),
        **({} if "captum" in method and "cam" not in method else layer),
    }


@pytest.mark.parametrize("method", AS_IT_COMES + REMAKE)
@pytest.mark.parametrize("form", ["tuple", "dict", "tensor"])
def test_further_inputs_go_with_their_images(method, form):
    net = Clinical().eval()
    extra = {"tuple": lambda m: (m,), "dict": lambda m: {"meta": m}, "tensor": lambda m: m}[form]
    choices = options(method, {"layer": "body"})
    together = gmcam.explain(net, X, TARGETS, extra=extra(META), **choices).raw
    for i in range(len(X)):
        alone = gmcam.explain(net, X[i : i + 1], TARGETS[i], extra=extra(META[i : i + 1]), **choices).raw
        assert torch.allclose(together[i], alone[0], atol=1e-5)


@pytest.mark.parametrize("method", REMAKE)
def test_a_network_that_depends_on_its_batch_is_refused(method):
    with pytest.raises(ValueError, match=r"depends on its batch .*pass what belongs to each image as extra="):
        gmcam.explain(Bound(Clinical(), META), X, TARGETS, **options(method, {"layer": "net.body"}))


def test_a_gap_is_found_where_the_batch_runs_but_mixes_images():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x).relu().mean((2, 3))
            return y - y.mean(0)

    with pytest.raises(ValueError, match=r"for image 0 alone its output differs by \d"):
        gmcam.explain(Mixing(), X, 0, method="score_cam", layer="conv")


SEGMENT = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).eval()
MASKS = (torch.rand(4, 12, 12, generator=torch.Generator().manual_seed(2)) > 0.6).float()


@pytest.mark.parametrize("method", AS_IT_COMES[:-1] + REMAKE)  # larger images would need larger masks
def test_a_target_function_may_ask_for_the_images_of_its_rows(method):
    choices = options(method, {"layer": "1"})
    together = gmcam.explain(
        SEGMENT, X, lambda y, images: (y[:, 2] * MASKS[images]).sum((1, 2)), **choices
    ).raw
    for i in range(len(X)):
        alone = gmcam.explain(
            SEGMENT, X[i : i + 1], lambda y, i=i: (y[:, 2] * MASKS[i]).sum((1, 2)), **choices
        ).raw
        assert torch.allclose(together[i], alone[0], atol=1e-4)


@pytest.mark.parametrize("method", REMAKE)
def test_a_target_bound_to_the_batch_is_refused(method):
    with pytest.raises(ValueError, match="depends on its batch"):
        gmcam.explain(SEGMENT, X, lambda y: (y[:, 2] * MASKS).sum((1, 2)), **options(method, {"layer": "1"}))


def test_a_tuple_of_inputs_is_refused_with_the_way_to_pass_them():
    with pytest.raises(ValueError, match="pass further inputs of the network as extra="):
        gmcam.explain(Clinical(), (X, META), 0, layer="body")


class Siamese(nn.Module):
    """The distance of two images; ``left`` and ``right`` mark where each leaves the shared tower."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.tower = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.left, self.right = nn.Identity(), nn.Identity()

    def forward(self, a, b):
        a, b = self.left(self.tower(a)), self.right(self.tower(b))
        return (a.mean((2, 3)) - b.mean((2, 3))).pow(2).sum(1, keepdim=True)


@pytest.mark.parametrize("side", ["left", "right"])
def test_either_input_of_a_siamese_network_is_explained(side):
    net, a, b = Siamese(), X[:1], X[1:2]
    result = gmcam.explain(net, a, 0, extra=(b,), layer=side, method="hires_cam")
    maps = [net.tower(each).detach().requires_grad_() for each in (a, b)]
    (maps[0].mean((2, 3)) - maps[1].mean((2, 3))).pow(2).sum().backward()
    chosen = maps[side == "right"]
    assert torch.allclose(result.raw, (chosen * chosen.grad).sum(1), atol=1e-7)


def test_a_layer_that_runs_for_both_inputs_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"runs more than once.*nn\.Identity.*extra="):
        gmcam.explain(Siamese(), X[:1], 0, extra=(X[1:2],), layer="tower")


def test_layers_are_listed_with_the_first_images_further_inputs():
    result = gmcam.explain(Clinical(), X, TARGETS, extra=(META,))
    assert (result.layer, result.depth) == ("body", 1 / 3)
