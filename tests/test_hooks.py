"""What ``capture`` leans on: layers by name, a network left as found, compiled networks, threads."""

import copy
import sys
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from modules import Apply, network, stop_with
from torch import fx, nn

import gmcam
from gmcam import METHODS
from gmcam._hooks import find_layer, forward, hooked, left_as_found, without_gradients
from gmcam.capture import capture
from gmcam.layers import trace
from gmcam.methods.perturbing import rerun

# Layers by name.


def test_find_layer_returns_the_path_and_the_module():
    module = network(block=nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()))
    assert find_layer(module, "block.1") == ("block.1", module.block[1])
    assert find_layer(module, module.block[1]) == ("block.1", module.block[1])


def test_find_layer_accepts_every_path_of_a_shared_module(gap_network):
    module = nn.ModuleDict({"body": gap_network, "features": gap_network.relu})
    assert find_layer(module, "body.relu") == ("body.relu", gap_network.relu)
    assert find_layer(module, "features") == ("features", gap_network.relu)


def test_an_unknown_layer_raises_with_the_nearest_names():
    module = nn.Sequential(OrderedDict((f"layer{i}", nn.ReLU()) for i in range(7)))
    with pytest.raises(ValueError, match="got 'layer': the nearest are ") as error:
        find_layer(module, "layer")
    assert len(str(error.value).split(" are ")[1].split(", ")) == 5
    with pytest.raises(ValueError, match=r"are layer0, layer1, layer2, layer3, layer4$"):
        find_layer(module, "x")  # near to none
    module = nn.Sequential(OrderedDict(conv=nn.ReLU(), relu=nn.ReLU()))
    with pytest.raises(ValueError, match=r"are relu$"):
        find_layer(module, "rope")  # half of its letters


def test_the_nearest_names_include_every_path_of_a_shared_module(gap_network):
    module = nn.ModuleDict({"body": gap_network, "features": gap_network.relu})
    with pytest.raises(ValueError, match="the nearest are features"):
        find_layer(module, "feature")


@pytest.mark.parametrize("layer", [nn.ReLU(), 5, None, ("conv",), ["conv"]], ids=repr)
def test_what_is_not_a_layer_of_the_network_is_refused(layer):
    with pytest.raises(ValueError, match="got"):
        find_layer(network(), layer)


def test_the_whole_network_is_not_a_layer_of_it(gap_network):
    with pytest.raises(ValueError, match="got Sequential: the nearest are "):
        find_layer(gap_network, gap_network)


# The network is left as found.


def test_left_as_found_freezes_inside_and_restores_outside(gap_network, snapshot):
    gap_network.conv.weight.requires_grad_(False)
    gap_network.train().relu.eval()
    before = snapshot(gap_network)
    with pytest.raises(KeyboardInterrupt), left_as_found(gap_network):
        assert not any(part.training for part in gap_network.modules())
        assert not any(parameter.requires_grad for parameter in gap_network.parameters())
        raise KeyboardInterrupt
    assert snapshot(gap_network) == before


def test_left_as_found_may_be_nested(gap_network, snapshot):
    before = snapshot(gap_network.train())
    with left_as_found(gap_network):
        inside = snapshot(gap_network)
        with left_as_found(gap_network):
            assert snapshot(gap_network) == inside
        assert snapshot(gap_network) == inside
    assert snapshot(gap_network) == before


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("part", ["the whole", "one part"])
@pytest.mark.parametrize("run", [lambda *args: capture(*args, 0, "conv"), trace], ids=["capture", "trace"])
def test_a_network_created_in_inference_mode_is_refused(images, caller, part, run, snapshot):
    module = network().train()
    with torch.inference_mode():  # no gradient can pass through tensors created here
        if part == "the whole":
            module = network().train()
        else:
            module.out = nn.Conv2d(4, 4, 3, padding=1).double()
    before = snapshot(module)
    with caller(), pytest.raises(ValueError, match=r"created under torch\.inference_mode"):
        run(module, images)
    assert snapshot(module) == before


def test_a_network_created_in_inference_mode_still_runs_forward(images, snapshot):
    with torch.inference_mode():
        module = network().train()
    before = snapshot(module)
    with without_gradients(module):
        assert forward(module, images).shape == (3, 4)
    assert snapshot(module) == before


def test_a_tensor_cached_without_gradients_serves_a_later_pass_with_gradients(images):
    class Caches(nn.Module):
        """Computes its positions in the first pass, as rotary embeddings do."""

        positions = None

        def forward(self, x):
            if self.positions is None:
                self.positions = torch.linspace(0, 1, x.shape[3], dtype=x.dtype) * 1
            return x * self.positions

    module = network(caches=Caches())
    with without_gradients(module):
        forward(module, images)
    assert capture(module, images, 0, "conv").gradients["conv"].abs().max() > 0


# Hooks.


def test_hooked_says_whether_a_module_works_in_place(images):
    flags = []
    modules = {
        "new tensor": nn.Conv2d(3, 3, 1).double(),
        "in place": nn.ReLU(inplace=True),
        "its input": nn.Identity(),
        "in place, in a tuple": Apply(lambda x: (x.mul_(2), "note")),
    }
    for module in modules.values():
        with hooked(module, lambda output, in_place: flags.append(in_place)):
            module(images * 1)
    assert dict(zip(modules, flags, strict=True)) == {
        "new tensor": False,
        "in place": True,
        "its input": False,
        "in place, in a tuple": True,
    }


def test_hooked_receives_and_replaces_what_the_users_hooks_return(images):
    module, seen = nn.Conv2d(3, 4, 3).double(), []
    expected = module(images)
    module.register_forward_hook(lambda _, inputs, output: output * 2)
    with hooked(module, lambda output, in_place: seen.append(output) or output * 0):
        assert not module(images).any()
    assert torch.equal(seen[0], 2 * expected)
    assert torch.equal(module(images), 2 * expected)


def test_hooked_removes_its_hooks_after_an_error(gap_network, images, snapshot):
    before = snapshot(gap_network)
    with pytest.raises(KeyError, match="no"), hooked(gap_network.relu, stop_with(KeyError("no"))):
        gap_network(images)
    assert snapshot(gap_network) == before


def test_a_pass_that_failed_inside_a_layer_does_not_mislead_the_next_pass(images):
    """The ids of its tensors may be in use again."""
    flags, fails = [], iter([True, False, True, False])

    def run(x):
        if next(fails):
            raise KeyError
        return torch.cat([x, x])

    module = Apply(run)
    with hooked(module, lambda output, in_place: flags.append(in_place)):
        for _ in range(2):
            with pytest.raises(KeyError):
                module(images * 1)
            module(images * 1)
    assert flags == [False, False]


# Compiled networks. The backend counts the runs of the compiled code.


def counting_backend():
    runs = []

    def backend(graph, _inputs):
        def run(*arguments):
            runs.append(1)
            return graph.forward(*arguments)

        return run

    return backend, runs


class Wrapped(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x * 1)


def compile_in_place(module, backend):
    module.compile(backend=backend)
    return module


def compile_part(module, backend):
    """The rectifier alone, with ``Module.compile``."""
    module.relu.compile(backend=backend)
    return module


COMPILED = {  # how, and what comes before the names of the layers
    "wrapped": (lambda module, backend: torch.compile(module, backend=backend), "_orig_mod."),
    "wrapped, any name": (lambda module, backend: torch.compile(module, backend=backend), ""),
    "in place": (compile_in_place, ""),
    "inside": (lambda module, backend: Wrapped(torch.compile(module, backend=backend)), "body._orig_mod."),
    "a part in place": (compile_part, ""),
    "a part in place, inside": (lambda module, backend: Wrapped(compile_part(module, backend)), "body."),
}


@pytest.fixture
def compiled(request, gap_network, images):
    """A network whose compiled code has run before any hook was there, its names' prefix, and its runs."""
    how, prefix = COMPILED[request.param]
    backend, runs = counting_backend()
    torch.compiler.reset()
    module = how(copy.deepcopy(gap_network).requires_grad_(False), backend)
    with torch.no_grad():
        module(images)
    if not runs:
        pytest.skip("torch.compile does not compile here")
    return module, prefix, runs


every_kind = pytest.mark.parametrize("compiled", COMPILED, indirect=True)


def assert_still_compiled(module, images, runs):
    before = len(runs)
    with torch.no_grad():
        module(images)
    assert len(runs) == before + 1


@every_kind
def test_a_compiled_network_is_captured_as_the_plain_one(compiled, gap_network, images, snapshot):
    module, prefix, runs = compiled
    before, count = snapshot(module), len(runs)
    captured = capture(module, images, 0, prefix + "relu")
    expected = capture(gap_network, images, 0, "relu")
    assert torch.equal(captured.maps[prefix + "relu"], expected.maps["relu"])
    assert torch.equal(captured.gradients[prefix + "relu"], expected.gradients["relu"])
    classes = capture(module, images[:1], [2, 0], prefix + "relu")
    expected = capture(gap_network, images[:1], [2, 0], "relu")
    assert torch.equal(classes.gradients[prefix + "relu"], expected.gradients["relu"])
    maps = torch.rand(5, 4, 8, 8, dtype=torch.float64)
    output = rerun(module, images[:1], prefix + "relu", maps)
    assert torch.equal(output, rerun(gap_network, images[:1], "relu", maps))
    visits, _ = trace(module, images)
    assert {"conv", "relu", "fc"} <= {visit.name.rpartition(".")[2] for visit in visits}
    assert len(runs) == count
    assert snapshot(module) == before
    assert_still_compiled(module, images, runs)


@every_kind
def test_a_compiled_network_is_explained_as_the_plain_one(compiled, gap_network, images):
    module, _, runs = compiled
    for method in ("gmcam", "score_cam", "full_grad"):
        result = gmcam.explain(module, images, [2, 0, 1], method=method)
        expected = gmcam.explain(gap_network, images, [2, 0, 1], method=method)
        assert result.layer.endswith(expected.layer)
        assert torch.equal(result.raw, expected.raw)
        assert torch.equal(result.probability, expected.probability)
    assert_still_compiled(module, images, runs)


@every_kind
def test_a_compiled_network_that_fails_stays_compiled(compiled, images):
    module, prefix, runs = compiled
    with pytest.raises(RuntimeError):
        capture(module, images[:, :2], 0, prefix + "relu")
    assert_still_compiled(module, images, runs)


def test_compiled_networks_in_several_threads_stay_compiled(gap_network, images):
    """How torch is told to run eagerly is one setting for all threads."""
    expected = capture(gap_network, images, 0, "relu").gradients["relu"]
    backend, runs = counting_backend()
    torch.compiler.reset()
    modules = [compile_in_place(copy.deepcopy(gap_network).requires_grad_(False), backend) for _ in range(4)]
    with torch.no_grad():
        for module in modules:
            module(images)
    if not runs:
        pytest.skip("torch.compile does not compile here")

    def explain(module):
        return [capture(module, images, 0, "relu").gradients["relu"] for _ in range(25)]

    with frequent_switches(), ThreadPoolExecutor(4) as pool:
        gradients = [each for part in pool.map(explain, modules) for each in part]
    assert all(torch.equal(each, expected) for each in gradients)
    for module in modules:
        assert_still_compiled(module, images, runs)


# Threads.


class frequent_switches:  # noqa: N801
    """Python switches threads two hundred times as often."""

    def __enter__(self):
        self.interval = sys.getswitchinterval()
        sys.setswitchinterval(self.interval / 200)

    def __exit__(self, *_):
        sys.setswitchinterval(self.interval)


@pytest.fixture
def sensitive():
    """A network whose output depends on its training flags, in training mode, with mixed flags."""
    torch.manual_seed(0)
    parts = OrderedDict(
        conv=nn.Conv2d(3, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
        relu=nn.ReLU(inplace=True),
        deep=nn.Conv2d(4, 4, 3, padding=1),
        relu2=nn.ReLU(),
        drop=nn.Dropout(0.5),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        fc=nn.Linear(4, 3),
    )
    module = nn.Sequential(parts).double().train()
    module.norm.eval().running_var.mul_(2)
    module.conv.weight.requires_grad_(False)
    return module


JOBS = [
    *({"method": method} for method in ("grad_cam", "gmcam", "eigen_cam", "layer_cam")),
    {"method": "hires_cam", "layer": "relu"},
    {"method": "score_cam", "layer": "relu2", "chunk_size": 2},
    {"method": "ablation_cam", "layer": "relu"},
    {"method": "full_grad"},
    {"method": "integrated_grad_cam", "steps": 3},
    {"method": "relevance_cam", "layer": "relu2"},
    {"method": "captum.saliency"},
    {"method": "captum.guided_backprop"},
]


def test_explanations_from_several_threads_equal_those_of_one(sensitive, images, snapshot):
    pytest.importorskip("captum")
    pytest.importorskip("zennit")
    image, before = images[:1], snapshot(sensitive)
    network = gmcam.Network(sensitive, input_shape=(3, 8, 8))
    calls = [
        lambda job=job, target=target: gmcam.explain(network, image, target, **job).raw
        for job in JOBS
        for target in (0, [2, 1])
    ]
    calls += [
        lambda: network.probabilities(images),
        lambda: capture(sensitive, images, [2, 0, 1], ["relu", "deep"]).gradients["relu"],
        lambda: capture(sensitive, image, [1, 2], sensitive.deep).gradients["deep"],
        lambda: gmcam.compare(network, images, 1, methods=["gmcam", "cam"])[1].maps,
        lambda: gmcam.explain_layers(network, images, 0, layers=["relu", "relu2"])[0].maps,
    ]
    expected = [call() for call in calls]
    jobs = [(number + start) % len(calls) for start in range(6) for number in range(len(calls))]
    with frequent_switches(), ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda job: calls[job](), jobs))
    for job, result in zip(jobs, results, strict=True):
        assert torch.equal(result, expected[job]), f"call {job}"
    assert snapshot(sensitive) == before


def test_no_method_computes_while_another_thread_traces_the_network(gap_network, images):
    """torch.fx replaces the access to parameters for the whole process while it traces."""
    pytest.importorskip("zennit")
    tracing, captured, kinds = Event(), Event(), []

    class Slow(nn.Module):
        def forward(self, x):
            if isinstance(x, fx.Proxy):
                tracing.set()
                time.sleep(0.3)
            return x

    def reads_weights(query):
        """0."""
        captured.set()
        tracing.wait(0.5)  # in vain, where the other thread waits for this call
        kinds.append(type(query.network.module.fc.weight))
        return torch.zeros_like(query.M[:, 0])

    module = nn.Sequential(OrderedDict([*gap_network.named_children(), ("slow", Slow())]))
    before = dict(METHODS)
    gmcam.method("reads_weights", title="Reads weights", source="a test")(reads_weights)
    try:
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(gmcam.explain, module, images, 0, method="reads_weights", layer="relu")
            captured.wait()
            gmcam.explain(module, images, 0, method="relevance_cam", layer="relu")
            result.result()
    finally:
        METHODS.clear()
        METHODS.update(before)
    assert kinds == [nn.Parameter]


def test_threads_with_networks_that_share_modules_leave_them_as_found(sensitive, images, snapshot):
    body = sensitive[:5]
    head = nn.Sequential(body, nn.AdaptiveMaxPool2d(1), nn.Flatten()).double().train()
    sensitive.norm.eval()
    before = snapshot(sensitive)
    expected = [
        capture(module, images, 0, layer).gradients[layer]
        for module, layer in ((sensitive, "deep"), (head, "0.deep"))
    ]
    with frequent_switches(), ThreadPoolExecutor(4) as pool:
        jobs = [(sensitive, "deep"), (head, "0.deep")] * 40
        gradients = list(pool.map(lambda job: capture(job[0], images, 0, job[1]).gradients[job[1]], jobs))
    for number, gradient in enumerate(gradients):
        assert torch.equal(gradient, expected[number % 2])
    assert snapshot(sensitive) == before
