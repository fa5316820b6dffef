"""Processes that share a run, tested in a single one; ``test_runs.py`` starts several."""

import pytest
import torch
import torch.distributed as dist

from gmcam.evaluate.processes import device, is_first, join


def test_a_process_alone_is_the_first_of_one():
    with join(torch.device("cpu")) as alone:
        assert (alone.rank, alone.size) == (0, 1)
        assert alone.agree(lambda: "answer") == "answer"
    assert not dist.is_initialized() and is_first()


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda:1", "nccl")])
def test_the_backend_is_that_of_the_networks_device(monkeypatch, device, backend):
    """A network on the CPU needs no GPU, however many there are."""
    begun, chosen = [], []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(dist, "init_process_group", lambda name, **_: begun.append(name))
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: begun.append("left"))
    with join(torch.device(device)) as group:
        assert (group.rank, group.size) == (1, 2)
    assert begun == [backend, "left"]
    assert chosen == [torch.device(device)] * (backend == "nccl")


def test_without_a_gpu_the_device_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == torch.device("cpu")


def test_each_process_has_its_gpu(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device() == torch.device("cuda", 1)
    assert chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="expected a GPU for each process, got 2 for process 3"):
        device()
