"""On a GPU: the same maps as on the CPU, nothing left behind, and chunks that fit its memory."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

import gmcam
from gmcam import METHODS
from gmcam.datasets import open_dataset
from gmcam.evaluate import Choices, evaluate
from gmcam.evaluate.processes import Processes, device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
FEW = {"steps": 8, "samples": 4, "sizes": 2}


@pytest.fixture(scope="module", autouse=True)
def exact_convolutions():
    """cuDNN may round the factors of a product to ten bits; a comparison with the CPU must not."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def few_options(name: str) -> dict[str, int]:
    return {key: value for key, value in FEW.items() if key in METHODS[name].options}


@pytest.mark.parametrize("network", ["collage-vgg", "collage-resnet"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_the_maps_of_the_cpu(name, network):
    if name == "cam" and network == "collage-vgg":
        pytest.skip("CAM is not defined on collage-vgg")
    scene = gmcam.lab.scene("cat", "cup", seed=3)
    on_cpu, on_gpu = gmcam.load(network), gmcam.load(network)
    on_gpu.module.cuda()
    expected = gmcam.explain(on_cpu, scene.image, ["cat", "cup"], method=name, **few_options(name))
    result = gmcam.explain(on_gpu, scene.image, ["cat", "cup"], method=name, **few_options(name))
    assert result.maps.is_cuda and result.raw.is_cuda
    assert torch.allclose(result.score.cpu(), expected.score, atol=1e-3)
    assert torch.allclose(result.probability.cpu(), expected.probability, atol=1e-3)
    # A rectifier at zero may open on one device alone, which single pixels show.
    assert (result.maps.cpu() - expected.maps).abs().mean() < 1e-3


@pytest.mark.parametrize("method", ["gmcam", "eigen_cam", "score_cam"])
def test_a_batch_on_the_gpu_gives_the_maps_of_the_cpu(method):
    on_cpu, on_gpu = gmcam.load("collage-resnet"), gmcam.load("collage-resnet")
    on_gpu.module.cuda()
    scenes = [gmcam.lab.scene("cat", "cup", seed=seed).image for seed in (3, 4)]
    for normalise in ("rectified", "batch"):
        options = {"method": method, "normalise": normalise}
        expected = gmcam.explain(on_cpu, scenes, ["cat", "cup"], **options)
        result = gmcam.explain(on_gpu, scenes, ["cat", "cup"], **options)
        assert torch.allclose(result.probability.cpu(), expected.probability, atol=1e-3)
        assert (result.maps.cpu() - expected.maps).abs().mean() < 1e-3


def test_full_grad_tolerates_the_rounding_of_a_gpu():
    scene = gmcam.lab.scene("cat", "cup", seed=3)
    network = gmcam.load("collage-resnet")
    network.module.cuda()
    with torch.backends.cudnn.flags(allow_tf32=True):
        result = gmcam.explain(network, scene.image, "cat", method="full_grad")
    assert result.maps.max() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_maps_near_those_of_float32(dtype):
    scene = gmcam.lab.scene("cat", "cup", seed=3)
    network = gmcam.load("collage-resnet")
    network.module.cuda()
    expected = gmcam.explain(network, scene.image, "cat", method="grad_cam")
    network.module.to(dtype)
    result = gmcam.explain(network, scene.image, "cat", method="grad_cam")
    assert result.maps.dtype == torch.float32
    assert (result.maps - expected.maps).abs().mean() < 0.02


def test_where_the_gpus_memory_runs_out_a_chunk_is_halved():
    class Hungry(nn.Sequential):
        """Needs a gigabyte for each image."""

        def forward(self, inputs):
            torch.empty(len(inputs), 2**30, dtype=torch.uint8, device=inputs.device)
            sizes.append(len(inputs))
            return super().forward(inputs)

    sizes: list[int] = []
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    module = Hungry(*parts).eval().cuda()
    inputs = torch.rand(1, 3, 16, 16, device="cuda")
    expected = gmcam.explain(module, inputs, 1, method="score_cam", layer="1", chunk_size=1)
    _, total = torch.cuda.mem_get_info()
    try:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, 4.5 * 2**30 / total))
        sizes.clear()
        result = gmcam.explain(module, inputs, 1, method="score_cam", layer="1", chunk_size=8)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert max(sizes) == 4
    assert torch.allclose(result.maps, expected.maps, atol=1e-5)


def test_an_evaluation_on_the_gpu_measures_what_the_cpu_measures(tmp_path):
    scenes = open_dataset("collage", limit=4)
    choices = Choices(("grad_cam", "gmcam"), steps=8)
    values = []
    for where in ("cpu", "cuda"):
        network = gmcam.load("collage-resnet")
        network.module.to(where)
        run = evaluate(network, scenes, choices, tmp_path / where)
        values.append(run.records().to_dict("records"))
    assert len(values[0]) == len(values[1]) > 0
    for on_cpu, on_gpu in zip(*values, strict=True):
        for name, value in on_cpu.items():
            close = pytest.approx(value, abs=2e-2, nan_ok=True) if isinstance(value, float) else value
            assert on_gpu[name] == close, name


def test_nccl_carries_what_ranks_agree_on(monkeypatch, tmp_path):
    """One process with one GPU: the messages go through NCCL, but reach no other process."""
    if not dist.is_nccl_available():
        pytest.skip("torch was built without NCCL")
    monkeypatch.setenv("LOCAL_RANK", "0")
    torch.cuda.set_device(device())
    dist.init_process_group("nccl", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        ranks = Processes(0, 2)  # as if there were two, so that both calls go out
        assert ranks.agree(lambda: [1, 2, 3]) == [1, 2, 3]
        with pytest.raises(ValueError, match="another run"):
            ranks.agree(lambda: (_ for _ in ()).throw(ValueError("another run")))
    finally:
        dist.destroy_process_group()
