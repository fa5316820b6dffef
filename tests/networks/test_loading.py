import functools
import hashlib
import io
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import gmcam
from gmcam.networks import loading, torchvision_names

SMALL = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
CLASSIFIERS = [
    (name, weights)
    for name in torchvision_names()
    for weights in torchvision.models.get_model_weights(name)
    if weights.meta["categories"]
]


@functools.cache
def small_state():
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(weights=None).state_dict()


@functools.cache
def small_file():
    """Random weights of the network as torch writes them."""
    buffer = io.BytesIO()
    torch.save(small_state(), buffer)
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder where torch looks for weights, and no network behind it."""

    def refuse(*_arguments, **_options):
        raise URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def served(cache, monkeypatch):
    """Serve bytes at the address of the small network's weights, under their own hash or another."""
    servers = []

    def serve(content, sha256=None, claimed=None):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(claimed or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        name = f"small-{(sha256 or hashlib.sha256(content).hexdigest())[:8]}.pth"
        monkeypatch.setattr(SMALL.value, "url", f"http://127.0.0.1:{server.server_port}/{name}")
        return cache / name

    monkeypatch.undo()  # the real urlopen again
    monkeypatch.setenv("TORCH_HOME", str(cache.parents[1]))
    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def failure(name="squeezenet1_1"):
    """The one sentence with which a network cannot be loaded."""
    with pytest.raises(ValueError) as caught:
        gmcam.load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_small(network):
    assert network.module.state_dict().keys() == small_state().keys()
    assert all(torch.equal(value, small_state()[key]) for key, value in network.module.state_dict().items())


def test_weights_in_the_cache_load_without_a_network(cache):
    loading.checkpoint(SMALL).write_bytes(small_file())
    network = gmcam.load("squeezenet1_1")
    assert_small(network)
    assert network.name == "squeezenet1_1"
    assert len(network.classes) == 1000
    assert network.layers[network.default_layer] == "features"
    assert not network.module.training


def test_the_checkpoint_lies_where_torch_looks_for_it(cache):
    assert loading.checkpoint(SMALL) == cache / "squeezenet1_1-b8a52dc0.pth"


@pytest.mark.parametrize(("name", "weights"), CLASSIFIERS, ids=lambda value: getattr(value, "name", value))
def test_every_network_of_torchvision_gets_its_own_preprocessing_and_classes(name, weights, monkeypatch):
    monkeypatch.setattr(loading, "_pretrained", lambda *_: torch.nn.Identity())
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    network = gmcam.load(name, weights.name)
    assert torch.equal(network.preprocess(picture), weights.transforms()(picture))
    assert list(network.classes) == weights.meta["categories"]


def test_an_unknown_network_is_answered_with_all_there_are():
    with pytest.raises(ValueError, match="no network is called 'resnet51'") as caught:
        gmcam.load("resnet51")
    assert all(name in str(caught.value) for name in [*gmcam.EMBEDDED, "resnet50", "squeezenet1_0"])


def test_networks_for_other_tasks_are_not_offered():
    assert "resnet50" in torchvision_names()
    assert not {"fcn_resnet50", "fasterrcnn_resnet50_fpn", "raft_small"} & set(torchvision_names())


def test_unknown_weights_are_answered_with_those_there_are():
    with pytest.raises(
        ValueError, match="resnet50 has weights IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, not 'V3'"
    ):
        gmcam.load("resnet50", "V3")


def test_weights_without_a_classifier_are_refused_before_a_download(cache):
    with pytest.raises(ValueError, match="IMAGENET1K_FEATURES"):
        gmcam.load("vgg16", "IMAGENET1K_FEATURES")


def test_embedded_networks_have_one_set_of_weights():
    with pytest.raises(ValueError, match="IMAGENET1K_V1"):
        gmcam.load("collage-vgg", "IMAGENET1K_V1")


def assert_says_what_to_put_where(sentence, path, url):
    assert "could not be downloaded" in sentence
    assert f"put {path.name} from {url} into {path.parent}" in sentence


def test_without_a_network_the_error_says_which_file_to_put_where(cache):
    sentence = failure()
    assert_says_what_to_put_where(sentence, loading.checkpoint(SMALL), SMALL.url)
    assert "no network in this test" in sentence
    assert not list(cache.iterdir())


def test_a_refused_connection_says_which_file_to_put_where(served, cache, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/small-00000000.pth"
    monkeypatch.setattr(SMALL.value, "url", url)
    assert_says_what_to_put_where(failure(), cache / "small-00000000.pth", url)
    assert not list(cache.iterdir())


def test_a_download_with_the_right_hash_loads_and_stays(served):
    path = served(small_file())
    assert_small(gmcam.load("squeezenet1_1"))
    assert path.read_bytes() == small_file()


@pytest.mark.parametrize(
    "content", [b"another file", small_file()[:-1], small_file()[:-1] + b"\1"], ids=["other", "short", "bit"]
)
def test_a_download_with_another_hash_is_refused_and_not_kept(content, served, cache):
    path = served(content, sha256=hashlib.sha256(small_file()).hexdigest())
    sentence = failure()
    assert_says_what_to_put_where(sentence, path, SMALL.url)
    assert "invalid hash value" in sentence
    assert not list(cache.iterdir())


def test_half_a_download_is_refused_and_not_kept(served, cache):
    digest = hashlib.sha256(small_file()).hexdigest()
    path = served(small_file()[:100_000], sha256=digest, claimed=len(small_file()))
    assert_says_what_to_put_where(failure(), path, SMALL.url)
    assert not list(cache.iterdir())


def other_network():
    buffer = io.BytesIO()
    torch.save(torch.nn.Linear(3, 2).state_dict(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", small_file()[: len(small_file()) // 2], other_network()],
    ids=["empty", "text", "cut short", "of another network"],
)
def test_a_damaged_file_in_the_cache_is_named(content, cache):
    path = loading.checkpoint(SMALL)
    path.write_bytes(content)
    sentence = failure()
    assert re.search(f"{re.escape(str(path))} cannot be loaded as weights of squeezenet1_1", sentence)
    assert sentence.endswith("delete it and try again")
    assert path.read_bytes() == content  # it is the reader's to delete


def test_a_trained_squeezenet_knows_the_dog(squeezenet, data_root):
    probabilities = squeezenet.probabilities(data_root / "dual_class" / "both.png")[0]
    assert squeezenet.class_name(int(probabilities.argmax())) == "bull mastiff"
    assert probabilities.max() > 0.8
