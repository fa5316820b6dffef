"""Score-CAM and Ablation-CAM against arithmetic written out and plain loops; the memory slow methods hold."""

import math
import weakref

import pytest
import torch
from pytorch_grad_cam import ScoreCAM
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gmcam

HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Watch(nn.Module):
    """Passes on what it is given, and remembers how many images that were and whether a graph was built."""

    def __init__(self):
        super().__init__()
        self.counts, self.graphs = [], []

    def forward(self, x):
        self.counts.append(len(x))
        self.graphs.append(torch.is_grad_enabled() or x.requires_grad)
        return x


@pytest.fixture
def sparse():
    """(N, 3, 8, 8) → 3 logits; of the six maps of 4 × 4 at ``maps.1``, number 1 is zero and 4 is flat."""
    maps = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
    with torch.no_grad():
        maps[0].weight[[1, 4]] = 0
        maps[0].bias[[1, 4]] = torch.tensor([-1.0, 0.5])
    module = nn.Sequential()
    parts = {"maps": maps, "mix": nn.Conv2d(6, 4, 3), "act": nn.ReLU(), "end": nn.Sequential(*HEAD)}
    for name, part in (parts | {"fc": nn.Linear(4, 3)}).items():
        module.add_module(name, part)
    return module.double()


def explain(module, images, targets, method, layer="maps.1", **options):
    return gmcam.explain(module, images, targets, method=method, layer=layer, **options).raw


# Score-CAM


def every_channel(module, image, target, maps=None):
    """Σ_k w_k up(M_k) over all channels, one forward pass each; a flat one has a mask of zeros."""
    raw = torch.zeros(8, 8, dtype=torch.float64)
    with torch.no_grad():
        for channel in (maps or module.maps)(image)[0]:
            up = F.interpolate(channel[None, None], (8, 8), mode="bilinear")[0, 0]
            spread = up.max() - up.min()
            mask = (up - up.min()) / spread if spread > 0 else torch.zeros_like(up)
            raw += module(image * mask).softmax(1)[0, target] * up
    return raw


def test_score_cam_by_hand():
    # x = (0 1; 2 4), M₀ = x, M₁ = 4 − x; masks x/4 and 1 − x/4. Logits: 4 mean M₀ and 0, so of the masked
    # images ¼ + 1 + 4 = 5.25 and ¾ + 1 = 1.75; their probabilities are logistic.
    maps = nn.Conv2d(1, 2, 1)
    linear = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        maps.weight.copy_(torch.tensor([1.0, -1]).view(2, 1, 1, 1))
        maps.bias.copy_(torch.tensor([0, 4.0]))
        linear.weight.copy_(torch.tensor([[4.0, 0], [0, 0]]))
    x = torch.tensor([[[[0, 1], [2, 4]]]], dtype=torch.float64)
    saliency = explain(nn.Sequential(maps, *HEAD, linear).double(), x, 0, "score_cam", "0")
    first, second = (1 / (1 + math.exp(-logit)) for logit in (5.25, 1.75))
    assert torch.allclose(saliency[0], first * x[0, 0] + second * (4 - x[0, 0]), rtol=1e-12)


def test_score_cam_equals_the_loop_over_all_channels_cell_by_cell(sparse, images):
    watch = Watch()
    module = nn.Sequential(watch, sparse)
    result = gmcam.explain(module, images, [2, 0, 1], method="score_cam", layer="1.maps.1")
    assert sum(watch.counts) == 3 + 1 + 3 * 5  # the channel of zeros is not shown
    for n, target in enumerate([2, 0, 1]):
        full = every_channel(sparse, images[n : n + 1], target)
        assert full.min() > 0.01  # the flat channel lifts every cell
        assert torch.allclose(result.raw[n], full, rtol=1e-10)


def test_flat_channels_count_where_the_rectifier_cuts_elsewhere_for_them(sparse, images):
    with torch.no_grad():  # before the rectifier numbers 1, 2 and 4 are flat, and number 5 is zero
        sparse.maps[0].weight[[2, 5]] = 0
        sparse.maps[0].bias[[1, 2, 4, 5]] = torch.tensor([-1, 2, 0.25, 0]).double()
    watch = Watch()
    module = nn.Sequential(watch, sparse)
    saliency = explain(module, images, [2, 0, 1], "score_cam", "1.maps.0")
    assert sum(watch.counts) == 3 + 1 + 3 * (2 + 1)  # one empty image for the three
    for n, target in enumerate([2, 0, 1]):
        full = every_channel(sparse, images[n : n + 1], target, maps=sparse.maps[0])
        with torch.no_grad():
            lift = sparse(images[:1] * 0).softmax(1)[0, target] * (-1 + 2 + 0.25)
        assert (full > 0).sum() > ((full - lift) > 0).sum()  # without them other cells are cut
        assert torch.allclose(saliency[n], full.relu(), rtol=1e-10, atol=1e-14)
    together = explain(sparse, images[:1], [2, 0, 1], "score_cam", "maps.0")
    assert torch.allclose(together[0], saliency[0], rtol=1e-10, atol=1e-14)


def test_score_cam_without_flat_channels_equals_the_loop_cell_by_cell(sparse, images):
    with torch.no_grad():
        sparse.maps[0].bias[4] = -1  # two channels of zeros now
    watch = Watch()
    module = nn.Sequential(watch, sparse)
    for layer in ("1.maps.1", "1.maps"):
        watch.counts.clear()
        saliency = explain(module, images, 1, "score_cam", layer)
        assert sum(watch.counts) == 3 + 1 + 3 * 4
        for n in range(3):
            expected = every_channel(sparse, images[n : n + 1], 1)
            assert torch.allclose(saliency[n], expected, rtol=1e-10)


def test_score_cam_agrees_with_pytorch_grad_cam_up_to_the_softmax_over_channels(gap_network, images):
    # Softmax over channels undoes a logarithm: w_k / Σ w_k. The layer has the image's size, so that
    # nothing is enlarged (they align corners).
    def log_probability(logits):
        return logits.log_softmax(0)[2]

    with ScoreCAM(gap_network, [gap_network.relu]) as cam:
        theirs = torch.from_numpy(cam(images, [log_probability] * 3))
    result = gmcam.explain(gap_network, images, 2, method="score_cam", layer="relu", sigma=0)
    scaled = result.raw / result.raw.amax((1, 2), keepdim=True)
    theirs = theirs * (1 - scaled.amin((1, 2), keepdim=True)) + scaled.amin((1, 2), keepdim=True)
    assert torch.allclose(scaled, theirs.double(), atol=1e-5)


def test_score_cam_reads_the_first_tensor_of_a_networks_output(sparse, images):
    class Several(nn.Sequential):
        def forward(self, x):
            return super().forward(x), x

    saliency = explain(Several(sparse), images, 1, "score_cam", "0.maps.1")
    assert torch.allclose(saliency, explain(sparse, images, 1, "score_cam"), rtol=1e-10)


# Ablation-CAM


def without_each(after, maps, target):
    """ReLU(Σ_k (Y − Y_k) M_k) over all channels of one image; ``after``: from maps to logits."""
    raw = torch.zeros_like(maps[0, 0])
    with torch.no_grad():
        for k, channel in enumerate(maps[0]):
            removed = maps.clone()
            removed[0, k] = 0
            raw += (after(maps) - after(removed))[0, target] * channel
    return raw.relu()


def test_ablation_cam_by_hand():
    # Y = 2 mean M₀ − 3 mean M₁ + 7 with M₀ = x, M₁ = −2x, mean x = 3: w = 2·3 and −3·(−6).
    maps, linear = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, 1)
    with torch.no_grad():
        maps.weight.copy_(torch.tensor([1.0, -2]).view(2, 1, 1, 1))
        linear.weight.copy_(torch.tensor([[2.0, -3]]))
        linear.bias.fill_(7)
    x = torch.tensor([[[[1, 2], [-3, 12]]]], dtype=torch.float64)
    saliency = explain(nn.Sequential(maps, *HEAD, linear).double(), x, 0, "ablation_cam", "0")
    assert torch.allclose(saliency[0], (6 * x - 2 * 18 * x)[0, 0].relu(), rtol=1e-12)


def test_ablation_cam_equals_the_loop_over_all_channels(sparse, images):
    watch = Watch()
    sparse.act.add_module("watch", watch)
    sparse.act.register_forward_hook(lambda act, _inputs, output: act.watch(output))
    saliency = explain(sparse, images, [2, 0, 0], "ablation_cam")
    assert sum(watch.counts) == 3 + 1 + 3 * 5  # a flat channel counts, a channel of zeros does not
    for n, target in enumerate([2, 0, 0]):
        expected = without_each(sparse[1:], sparse.maps(images[n : n + 1]), target)
        assert expected.max() > 0
        assert torch.allclose(saliency[n], expected, rtol=1e-9, atol=1e-13)


class Meeting(nn.Module):
    """What lies before ``layer`` meets it again afterwards."""

    def __init__(self, meet, layer):
        super().__init__()
        self.stem, self.layer = nn.Sequential(Watch(), nn.Conv2d(3, 4, 3), nn.Tanh()), layer
        self.meet = meet
        self.head = nn.Sequential(nn.LazyConv2d(5, 3), nn.ReLU(), *HEAD, nn.Linear(5, 3))
        self.double()

    def after(self, stem, maps):
        return self.head(self.meet(stem, maps))

    def forward(self, x):
        stem = self.stem(x)
        return self.after(stem, self.layer(stem))


def checked_sum(stem, maps):
    assert stem.shape == maps.shape
    return stem + maps


MEETINGS = {
    "residual": (torch.add, [1]),
    "residual, in place": (lambda stem, maps: stem.clone().add_(maps), [1, 3]),
    "concatenating": (lambda stem, maps: torch.cat([stem, maps], 1), [1, 3]),
    "residual with a check of shapes": (checked_sum, [1, 3]),
}


@pytest.mark.parametrize("kind", MEETINGS)
def test_ablation_cam_where_the_layer_meets_what_lies_before_it(images, kind):
    meet, before = MEETINGS[kind]
    module = Meeting(meet, nn.Conv2d(4, 6 if kind == "concatenating" else 4, 3, padding=1))
    module(images)
    module.stem[0].counts.clear()
    saliency = explain(module, images[:1], [0, 1, 2], "ablation_cam", "layer", chunk_size=3)
    counts = module.stem[0].counts[1:]
    for target in range(3):
        stem = module.stem(images[:1])
        expected = without_each(lambda maps: module.after(stem, maps), module.layer(stem), target)  # noqa: B023
        assert torch.allclose(saliency[target], expected, rtol=1e-9, atol=1e-13)
    assert set(counts) <= {1, 2, 3}
    assert set(before) <= set(counts)


def test_ablation_cam_after_a_rectifier_in_place_whose_input_is_used_again(images):
    module = Meeting(torch.add, nn.ReLU(inplace=True))
    module(images)
    saliency = explain(module, images[:1], 1, "ablation_cam", "layer")
    rectified = module.stem(images[:1]).relu()  # the one tensor that both branches see
    expected = without_each(lambda maps: module.after(maps, maps), rectified, 1)
    assert torch.allclose(saliency[0], expected, rtol=1e-9, atol=1e-13)


class ByKeyword(nn.Module):
    """A rectifier in place whose input is given by keyword."""

    def __init__(self):
        super().__init__()
        self.rectifier = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.rectifier(input=x)


def test_ablation_cam_after_a_rectifier_in_place_whose_input_is_given_by_keyword(images):
    module = Meeting(torch.add, ByKeyword())
    module(images)
    saliency = explain(module, images[:1], 1, "ablation_cam", "layer.rectifier")
    rectified = module.stem(images[:1]).relu()
    expected = without_each(lambda maps: module.after(maps, maps), rectified, 1)
    assert torch.allclose(saliency[0], expected, rtol=1e-9, atol=1e-13)


# Both


BOTH = pytest.mark.parametrize("name", ["score_cam", "ablation_cam"])


@BOTH
@pytest.mark.parametrize("chunk_size", [1, 3, 1000])
def test_the_size_of_a_chunk_changes_nothing_and_is_never_exceeded(sparse, images, name, chunk_size):
    watch = Watch()
    sparse.maps.insert(0, watch)
    sparse.act = nn.Sequential(nn.ReLU(), watch)
    expected = explain(sparse, images[:1], [2, 0], name, "maps.2")
    watch.counts.clear()
    saliency = explain(sparse, images[:1], [2, 0], name, "maps.2", chunk_size=chunk_size)
    assert torch.allclose(saliency, expected, rtol=1e-10, atol=1e-13)
    assert max(watch.counts) == min(chunk_size, 5)


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam", "captum.occlusion"])
def test_no_graph_is_built(sparse, images, name):
    watch = Watch()
    module = nn.Sequential(watch, sparse, watch).train()
    explain(module, images, [2, 0, 1], name, "1.maps.1")
    assert len(watch.graphs) >= 8
    assert not any(watch.graphs)


@BOTH
def test_classes_of_one_image_equal_one_at_a_time(sparse, images, name):
    together = explain(sparse, images[:1], [2, 0, 2, 1], name)
    for saliency, target in zip(together, [2, 0, 2, 1], strict=True):
        assert torch.allclose(saliency, explain(sparse, images[:1], target, name)[0], rtol=1e-10)


def test_a_function_takes_the_place_of_the_classs_score(sparse, images):
    by_class = {name: explain(sparse, images, 1, name) for name in ("score_cam", "ablation_cam")}
    by_function = {
        "score_cam": explain(sparse, images, lambda logits: logits.softmax(1)[:, 1], "score_cam"),
        "ablation_cam": explain(sparse, images, lambda logits: logits[:, 1], "ablation_cam"),
    }
    for name, expected in by_class.items():
        assert torch.allclose(by_function[name], expected, rtol=1e-10)


# Memory


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside held at one time."""

    def __init__(self):
        super().__init__()
        self.live, self.most, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        old = {x.untyped_storage()._cdata for x in tree_leaves((arguments, options)) if torch.is_tensor(x)}
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor):
                self.note(tensor.untyped_storage(), old)
        return result

    def note(self, storage, old):
        if storage._cdata not in old and storage not in self.known:
            self.known.add(storage)
            self.live += storage.nbytes()
            self.most = max(self.most, self.live)
            weakref.finalize(storage, self.free, storage.nbytes())

    def free(self, size):
        self.live -= size


def peak(name, channels, chunk_size=8, **options):
    """For maps of 2 × 2 cells, small beside the images of 64 × 64."""
    layers = (nn.Conv2d(3, channels, 32, stride=32), nn.ReLU(), *HEAD, nn.Linear(channels, 3))
    module, image = nn.Sequential(*layers), torch.randn(1, 3, 64, 64)
    with Peak() as recorded:
        explain(module, image, 1, name, "1", chunk_size=chunk_size, **options)
    return recorded.most


def test_the_recorder_sees_what_is_alive_at_one_time():
    with Peak() as recorded:
        for _ in range(3):
            values = torch.zeros(1000) + 1
        (values.view(10, 100)[0] * 2).sum()
    assert recorded.most == 3 * 4000


# The numbers that a further channel takes: a chunk's maps of four cells, and copies of them. Of CAMERAS,
# maps and gradient maps at eight sizes (2, 2, 3, 4, 5, 6, 7 and 8 cells wide), and three more at the last.
OF_A_CHUNK = 8 * 4
NUMBERS = {
    "score_cam": 3 * OF_A_CHUNK,
    "ablation_cam": 3 * OF_A_CHUNK,
    "integrated_grad_cam": 7 * OF_A_CHUNK,
    "smooth_full_grad": 7 * OF_A_CHUNK,
    "captum.occlusion": 3 * OF_A_CHUNK,
    "cameras": 2 * 207 + 3 * 64,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_peak_memory_grows_with_the_number_of_channels_by_the_maps_themselves_only(name):
    options = {"share": 3} if name == "captum.occlusion" else {}  # fewer squares, less time
    bound = peak(name, 32, **options) + (128 - 32) * NUMBERS[name] * 4  # float32
    assert peak(name, 128, **options) <= bound
    assert peak(name, 128, chunk_size=128, **options) > 2 * bound


REPEATED = {
    "integrated_grad_cam": ("steps", 16, 64),
    "smooth_full_grad": ("samples", 16, 64),
    "captum.occlusion": ("share", 3, 6),
    "captum.integrated_gradients": ("steps", 16, 64),
}


@pytest.mark.parametrize("name", REPEATED)
def test_peak_memory_does_not_grow_with_the_number_of_steps(name):
    option, few, many = REPEATED[name]
    bound = 1.05 * peak(name, 4, **{option: few})
    assert peak(name, 4, **{option: many}) <= bound
    assert peak(name, 4, **{option: many}, chunk_size=64) > 4 * bound
