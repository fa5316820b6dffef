"""Chunks: every item once and in order, smaller ones where memory runs out, and the progress bar."""

import warnings
import weakref

import pytest
import torch
from torch.nn import functional as F
from tqdm import tqdm

import gmcam
from gmcam import METHODS
from gmcam.chunks import halving, in_chunks
from gmcam.metrics import curves

FULL = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 4.05 GB)."),
    "NumPy": MemoryError("Unable to allocate 8 EiB for an array"),
}
fails = pytest.mark.parametrize("error", FULL.values(), ids=FULL)


def room_for(most, error, seen):
    def run(items):
        seen.append(len(items))
        if len(items) > most:
            raise error
        return items.sum().item()

    return run


@pytest.mark.parametrize("size", [1, 3, 10, 1000])
def test_every_item_comes_once_and_in_order(size):
    seen = []
    chunks = list(in_chunks(room_for(1000, None, seen), torch.arange(10), size))
    assert torch.cat([chunk for chunk, _ in chunks]).tolist() == list(range(10))
    assert [total for _, total in chunks] == [chunk.sum().item() for chunk, _ in chunks]
    assert seen == [size] * (10 // size) + [10 % size] * (10 % size > 0)


def test_of_several_tensors_each_is_cut_by_itself():
    parts = (torch.arange(start, stop) for start, stop in ((0, 3), (3, 3), (3, 8)))
    assert [c.tolist() for c, _ in in_chunks(len, parts, 2)] == [[0, 1], [2], [3, 4], [5, 6], [7]]


@fails
def test_without_memory_halves_are_tried_and_later_chunks_are_no_longer(error):
    seen = []
    chunks = list(in_chunks(room_for(3, error, seen), [torch.arange(9), torch.arange(9, 13)], 8))
    assert torch.cat([chunk for chunk, _ in chunks]).tolist() == list(range(13))
    assert sum(total for _, total in chunks) == sum(range(13))
    assert seen == [8, 4, 2, 2, 2, 2, 1, 2, 2]


def test_a_short_rest_does_not_make_later_chunks_short():
    seen = []
    list(in_chunks(room_for(4, FULL["CUDA"], seen), [torch.arange(5), torch.arange(4)], 4))
    assert seen == [4, 1, 4]


@fails
def test_where_one_is_too_much_the_error_says_so(error):
    with pytest.raises(torch.OutOfMemoryError, match="memory for one at a time") as caught:
        list(in_chunks(room_for(0, error, []), torch.arange(9), 4))
    assert str(error) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_pass_at_once():
    seen = []
    with pytest.raises(RuntimeError, match="size mismatch"):
        list(in_chunks(room_for(0, RuntimeError("size mismatch"), seen), torch.arange(9), 4))
    assert seen == [4]


@pytest.mark.parametrize("size", [0, -3])
def test_chunks_have_at_least_one_item(size):
    with pytest.raises(ValueError, match=f"from 1 on for chunk_size, got {size}"):
        next(in_chunks(len, torch.arange(9), size))


def test_the_memory_of_a_failed_chunk_is_free_before_its_half_is_tried():
    references = []

    def run(count):
        assert all(reference() is None for reference in references)
        large = torch.ones(count)
        references.append(weakref.ref(large))
        if count > 1:
            raise torch.OutOfMemoryError
        return count

    assert halving(run, 8) == (1, 1)
    assert len(references) == 4


def test_the_bar_counts_items_and_ends_at_their_number(monkeypatch):
    bars = []

    def watched(*items, **how):
        bars.append(tqdm(*items, **{**how, "disable": False, "file": open("/dev/null", "w")}))  # noqa: SIM115
        return bars[-1]

    monkeypatch.setattr("gmcam.chunks.tqdm", watched)
    counts = [
        bars[0].n
        for _ in in_chunks(room_for(2, FULL["CUDA"], []), [torch.arange(5), torch.arange(3)], 4, "x")
    ]
    assert counts == [0, 2, 4, 5, 7]
    assert (bars[0].n, bars[0].total, bars[0].desc) == (8, 8, "x")


# Methods, on a network whose last layer has memory for a few images only.


def with_room_for(most, module):
    refused = []

    def check(_module, inputs):
        if len(inputs[0]) > most:
            refused.append(len(inputs[0]))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    module.fc.register_forward_pre_hook(check)
    return refused


IN_CHUNKS = {
    "score_cam": {},
    "ablation_cam": {},
    "integrated_grad_cam": {"steps": 9},
    "smooth_full_grad": {"samples": 9},
    "captum.integrated_gradients": {"steps": 9},
    "captum.occlusion": {"share": 4},
}
CAPTUM = [name for name in METHODS if name.startswith("captum.") and name not in IN_CHUNKS]


@pytest.mark.parametrize("name", [*IN_CHUNKS, *CAPTUM])
def test_a_method_continues_in_smaller_chunks_and_gives_the_same_maps(gap_network, images, snapshot, name):
    image, targets, options = images[:1], [2, 0, 1, 1, 2], IN_CHUNKS.get(name, {})
    expected = gmcam.explain(gap_network, image, targets, method=name, **options)
    refused = with_room_for(3, gap_network)
    before = snapshot(gap_network)
    result = gmcam.explain(gap_network, image, targets, method=name, **options)
    assert refused
    assert torch.allclose(result.raw, expected.raw, rtol=1e-9, atol=1e-12)
    assert snapshot(gap_network) == before


@pytest.mark.parametrize("name", IN_CHUNKS)
def test_a_method_without_memory_for_one_image_says_so(gap_network, images, snapshot, name):
    passes = []

    def fill(*_):
        passes.append(1)
        if len(passes) > 1:  # the first is that of the image itself
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    gap_network.fc.register_forward_pre_hook(fill)
    before = snapshot(gap_network)
    layer = None if METHODS[name].keeps else "relu"
    with pytest.raises(torch.OutOfMemoryError, match="memory for one at a time"):
        gmcam.explain(gap_network, images[:1], 0, method=name, layer=layer)
    assert snapshot(gap_network) == before


@pytest.mark.parametrize("method", ["gmcam", "full_grad", "eigen_cam"])
def test_fewer_classes_of_an_image_are_differentiated_at_a_time(flat_network, images, monkeypatch, method):
    targets = [2, 0, 1, 1, 2]
    expected = gmcam.explain(flat_network, images[:1], targets, method=method)
    differentiate, sizes = torch.autograd.grad, []

    def small(outputs, inputs, vectors=None, **options):
        count = 1 if vectors is None else len(vectors)
        sizes.append(count)
        if count > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return differentiate(outputs, inputs, vectors, **options)

    monkeypatch.setattr(torch.autograd, "grad", small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = gmcam.explain(flat_network, images[:1], targets, method=method, layer=expected.layer)
    assert sizes == ([] if method == "eigen_cam" else [5, 2, 2, 1])
    assert torch.allclose(result.maps, expected.maps, atol=1e-6)
    assert torch.equal(result.score, expected.score)
    assert result.target.tolist() == targets


def test_cameras_enlarges_fewer_channels_at_a_time(gap_network, images, monkeypatch):
    expected = gmcam.explain(gap_network, images, 0, method="cameras").raw
    enlarge, refused = F.interpolate, []

    def small(maps, *arguments, **options):
        if maps.shape[1] == 4:  # all channels of the layer
            refused.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return enlarge(maps, *arguments, **options)

    monkeypatch.setattr(F, "interpolate", small)
    raw = gmcam.explain(gap_network, images, 0, method="cameras").raw
    assert refused == [1]
    assert torch.allclose(raw, expected, rtol=1e-9)


def test_cameras_without_memory_for_the_largest_size_is_not_called_a_fault_of_the_network(
    gap_network, images
):
    def check(_module, inputs):
        if inputs[0].shape[2] > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    gap_network.register_forward_pre_hook(check)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        gmcam.explain(gap_network, images, 0, method="cameras")


def test_curves_continue_in_smaller_chunks(gap_network, images):
    network, maps = gmcam.Network(gap_network), torch.rand(3, 8, 8)
    expected = curves(network, images, [2, 0, 1], maps, pixels=5)
    refused = with_room_for(7, gap_network)
    result = curves(network, images, [2, 0, 1], maps, pixels=5)
    assert refused == [32, 16, 8]
    assert torch.allclose(result.insertion, expected.insertion, atol=1e-12)
    assert torch.allclose(result.deletion, expected.deletion, atol=1e-12)
