import dataclasses
import functools
import hashlib
import io
import socket
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

import gmcam
from gmcam import loading
from gmcam.capture import capture
from gmcam.loading import torchvision_names, weights_on_disk

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
    """An empty folder where torch looks for weights, and no connection."""

    def refuse(*_arguments, **_options):
        raise URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def served(cache, monkeypatch):
    """Serve bytes at the address of the small network's weights, under their hash or another."""
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


def test_the_checkpoint_is_where_torch_looks_for_it(cache):
    assert loading.checkpoint(SMALL) == cache / "squeezenet1_1-b8a52dc0.pth"


@pytest.mark.parametrize(("name", "weights"), CLASSIFIERS, ids=lambda value: getattr(value, "name", value))
def test_every_network_of_torchvision_has_its_preprocessing_and_classes(name, weights, monkeypatch):
    monkeypatch.setattr(loading, "_pretrained", lambda *_: torch.nn.Identity())
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    network = gmcam.load(name, weights.name)
    assert torch.equal(network.preprocess(image), weights.transforms()(image))
    assert list(network.classes) == weights.meta["categories"]


def test_an_unknown_network_raises_with_all_there_are():
    with pytest.raises(ValueError, match="name of a network, got 'resnet51'") as caught:
        gmcam.load("resnet51")
    assert all(name in str(caught.value) for name in [*gmcam.lab.EMBEDDED, "resnet50", "squeezenet1_0"])


def test_networks_for_other_tasks_are_not_offered():
    assert "resnet50" in torchvision_names()
    assert not {"fcn_resnet50", "fasterrcnn_resnet50_fpn", "raft_small"} & set(torchvision_names())


def test_unknown_weights_raise_with_those_there_are():
    with pytest.raises(ValueError, match="got 'V3': there are IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"):
        gmcam.load("resnet50", "V3")


def test_weights_without_a_classifier_are_refused_before_a_download(cache):
    with pytest.raises(ValueError, match="IMAGENET1K_FEATURES"):
        gmcam.load("vgg16", "IMAGENET1K_FEATURES")


def test_embedded_networks_have_one_set_of_weights():
    with pytest.raises(ValueError, match="IMAGENET1K_V1"):
        gmcam.load("collage-vgg", "IMAGENET1K_V1")


def assert_says_what_to_put_where(sentence, path, url):
    assert "expected to download the weights of squeezenet1_1" in sentence
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


def test_weights_on_disk_are_listed_the_default_ones_first(cache):
    everything = torchvision.models.get_model_weights("resnet50")
    assert weights_on_disk("resnet50") == []
    loading.checkpoint(everything.IMAGENET1K_V1).touch()
    assert weights_on_disk("resnet50") == ["IMAGENET1K_V1"]
    loading.checkpoint(everything.DEFAULT).touch()
    assert weights_on_disk("resnet50") == ["IMAGENET1K_V2", "IMAGENET1K_V1"]
    assert weights_on_disk("resnet18") == []


def test_weights_without_a_classifier_are_not_listed(cache):
    for weights in torchvision.models.get_model_weights("vgg16"):
        loading.checkpoint(weights).touch()
    assert weights_on_disk("vgg16") == ["IMAGENET1K_V1"]


def test_weights_of_an_unknown_network_are_refused():
    with pytest.raises(ValueError, match="name of a torchvision network, got 'resnet51'"):
        weights_on_disk("resnet51")


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
    assert f"weights of squeezenet1_1 in {path}" in sentence
    assert "delete" in sentence
    assert path.read_bytes() == content  # the user decides


# Modules of one's own.


def tiny():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))


def test_wrap_turns_a_preset_of_torchvision_into_a_preprocessing():
    preset = SMALL.transforms()
    network = gmcam.wrap(torchvision.models.squeezenet1_1(weights=None), preset)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    assert isinstance(network.preprocess, gmcam.Preprocessing)
    assert network.input_shape == (3, 224, 224)
    assert torch.equal(network.preprocess(image), preset(image))
    mask = np.zeros((60, 90), dtype=bool)
    mask[:, :45] = True  # the left half
    assert network.preprocess.place_mask(mask).float().mean() == pytest.approx(0.5, abs=0.01)


def preset(*last):
    transforms = torchvision.transforms
    steps = transforms.Resize(48), transforms.CenterCrop(32), transforms.ToTensor()
    return transforms.Compose([*steps, *last])


def test_wrap_measures_the_geometry_of_a_transform():
    transform = preset(torchvision.transforms.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    network = gmcam.wrap(tiny(), transform)
    measured = network.preprocess
    assert (measured.resize, measured.crop, measured.squash) == (48, 32, False)
    assert (measured.mean, measured.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert measured.interpolation == Image.Resampling.BILINEAR
    assert network.input_shape == (3, 32, 32)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 91, 3), dtype=np.uint8))
    assert torch.equal(measured(image), transform(image))
    assert network.view(image).size == (40, 40)
    # What evaluation does to squash the whole image.
    squashed = dataclasses.replace(measured, squash=True)
    plain = gmcam.Preprocessing(48, 32, measured.mean, measured.std, squash=True)
    assert torch.equal(squashed(image), plain(image))
    assert squashed.view(image) is image


@pytest.mark.parametrize(("resize", "crop"), [(342, 299), (518, 518)])
def test_a_size_that_the_slopes_miss_by_a_pixel_is_found(resize, crop):
    transforms = torchvision.transforms
    steps = transforms.Resize(resize), transforms.CenterCrop(crop), transforms.ToTensor()
    measured = gmcam.wrap(tiny(), transforms.Compose(steps)).preprocess
    assert (measured.resize, measured.crop, measured.squash) == (resize, crop, False)


def test_a_transform_that_squashes_before_it_crops_shows_what_the_network_sees():
    transforms = torchvision.transforms
    steps = transforms.Resize((64, 64)), transforms.CenterCrop(48), transforms.ToTensor()
    network = gmcam.wrap(tiny(), transforms.Compose(steps))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8))
    view = network.view(image)
    assert view.size == (192, 96)
    mask = np.zeros((128, 256), dtype=bool)
    mask[16:112, 32:224] = True  # all that is seen
    assert network.preprocess.place_mask(mask).all()
    mask[:, 128:] = False
    assert network.preprocess.place_mask(mask).float().mean() == 0.5


@pytest.mark.parametrize(
    "last",
    [
        torchvision.transforms.Grayscale(),
        torchvision.transforms.RandomCrop(24),
        torch.sqrt,
        lambda x: x[[2, 0, 1]],
    ],
    ids=["one channel", "random", "other colours", "other channels"],
)
def test_a_transform_that_does_anything_else_stays_as_it_is(last):
    transform = preset(last)
    network = gmcam.wrap(tiny(), transform)
    assert network.preprocess is transform
    assert network.input_shape == tuple(transform(Image.new("RGB", (50, 50))).shape)


def test_a_processor_that_fails_on_other_images_stays_as_it_is():
    def processor(image):
        raise RuntimeError("only my images")

    network = gmcam.wrap(tiny(), processor)
    assert (network.preprocess, network.input_shape) == (processor, (3, 224, 224))


def test_what_is_given_to_wrap_overrides_what_a_model_knows():
    network = gmcam.wrap(torchvision.models.squeezenet1_1(weights=None), output="sigmoid", name="mine")
    assert (network.output, network.name, network.classes, network.reshape) == ("sigmoid", "mine", (), None)


def test_wrap_keeps_any_other_processor_and_its_arguments():
    def processor(image):
        return torch.full((3, 8, 8), image.size[0] / 100)

    module = tiny()
    network = gmcam.wrap(
        module, processor, ["cat", "cup"], name="mine", input_shape=(3, 8, 8), layer=module[0]
    )
    assert (network.preprocess, network.classes, network.name) == (processor, ("cat", "cup"), "mine")
    assert network.layer_path() == "0"
    assert network.prepare(Image.new("RGB", (50, 20))).unique().tolist() == [0.5]


def test_wrap_takes_its_input_shape_from_a_preprocessing():
    network = gmcam.wrap(tiny(), gmcam.Preprocessing(8, 8))
    assert network.input_shape == (3, 8, 8)
    assert network.layers == {"6x6": "0"}
    assert gmcam.wrap(tiny(), input_shape=(3, 8, 8)).layers == {"6x6": "0"}


def test_wrap_refuses_what_is_not_a_module_or_not_its_layer():
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module, got a function"):
        gmcam.wrap(tiny)
    with pytest.raises(ValueError, match="got 'features'"):
        gmcam.wrap(tiny(), layer="features")


def test_networks_of_other_packages_are_loaded_by_name():
    for name in gmcam.lab.EMBEDDED:
        network = gmcam.load(name)
        assert (network.name, len(network.classes)) == (name, 8)


# Files of one's own.


def write(path, text):
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.parametrize("name", ["build", "Model", "model"])
def test_a_module_comes_from_a_function_a_class_or_is_there(name, tmp_path):
    write(tmp_path / "neighbour.py", "SIZE = 7")
    text = """
        import torch
        from neighbour import SIZE
        class Model(torch.nn.Conv2d):
            def __init__(self):
                super().__init__(3, SIZE, 3)
        def build():
            return Model().train()
        model = Model()
    """
    before = list(sys.path)
    module = loading.build(write(tmp_path / "mine.py", text), name)
    assert (module.out_channels, module.training) == (7, False)
    assert sys.path == before


BROKEN = {
    "syntax": ("def build(:", "got SyntaxError: invalid syntax"),
    "error": ("def build():\n    raise KeyError('a')", "got KeyError: 'a'"),
    "argument": ("def build(size): ...", r"got TypeError: build\(\) missing 1 required"),
    "no function": ("", "got KeyError: 'build'"),
    "no module": ("def build(): return 3", "to return a torch.nn.Module, got a int: return the model"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_without_a_module_is_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=rf"expected build in \S+mine.py .*{message}"):
        loading.build(write(tmp_path / "mine.py", text), "build")


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "checkpoint of DataParallel"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
def test_weights_are_read_from_a_file(suffix, wrapped, tmp_path):
    source, module, path = tiny(), tiny(), tmp_path / f"weights{suffix}"
    state = source.state_dict()
    if wrapped:
        state = {f"module.{key}": value for key, value in state.items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if wrapped else state, path)
    loading.read_weights(module, path)
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in source.state_dict().items())


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    other, pickled, text = (tmp_path / name for name in ("other.pt", "pickled.pt", "text.safetensors"))
    torch.save(torch.nn.Linear(3, 2).state_dict(), other)
    torch.save(tiny(), pickled)
    text.write_text("no weights")
    for path in (other, pickled, text, tmp_path / "missing.pt"):
        with pytest.raises(ValueError, match="expected weights of Sequential in") as caught:
            loading.read_weights(tiny(), path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_untrained_modules_have_a_logit_per_class():
    assert loading.untrained("squeezenet1_1", ["no", "yes"]).num_classes == 2
    assert loading.untrained("timm:test_vit", ["a", "b", "c"]).num_classes == 3
    with pytest.raises(ValueError, match="for a file of weights, got 'collage-vgg': choose one"):
        loading.untrained("collage-vgg")


# Transformers, with random weights.

STAGES = {
    "vit_b_16": {"14x14": "encoder.layers.encoder_layer_11.ln_1"},
    "swin_t": {"56x56": "features.1", "28x28": "features.3", "14x14": "features.5", "7x7": "permute"},
}
METHODS_OF_TOKENS = ["grad_cam", "gmcam", "layer_cam", "eigen_cam", "integrated_grad_cam", "score_cam"]
SIZE = (3, 224, 224)


def small_transformer(name):
    """Torchvision's classes with few numbers, for tests that run often."""
    if name == "vit_b_16":
        return torchvision.models.VisionTransformer(224, 16, 3, 2, 8, 8)
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 2, 1, 1], [1, 1, 1, 1], [7, 7])


def loaded(name, module):
    torch.manual_seed(0)
    module = module()
    # Torchvision's vision transformers start with a classifier of zeros.
    classifier = [part for part in module.modules() if isinstance(part, torch.nn.Linear)][-1]
    torch.nn.init.normal_(classifier.weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_pretrained", lambda *_: module)
        return gmcam.load(name)


@pytest.fixture(scope="module", params=STAGES)
def transformer(request):
    return loaded(request.param, lambda: torchvision.models.get_model(request.param, weights=None))


@pytest.fixture(scope="module", params=STAGES)
def small(request):
    return loaded(request.param, lambda: small_transformer(request.param))


def test_the_layers_of_a_transformer_are_named_by_resolution(transformer):
    assert transformer.layers == STAGES[transformer.name]
    assert transformer.default_layer == list(STAGES[transformer.name])[-1]
    assert transformer.layer_path() == STAGES[transformer.name][transformer.default_layer]


@pytest.mark.parametrize("method", METHODS_OF_TOKENS[:3])
def test_a_transformer_of_torchvision_is_explained_at_its_default_layer(transformer, method):
    side = int(transformer.default_layer.split("x")[0])
    images = torch.rand(2, *SIZE)
    result = gmcam.explain(transformer, images, [5, 7], method=method, layer=transformer.default_layer)
    assert result.raw.shape == (2, side, side)
    assert result.maps.shape == (2, 224, 224)
    assert result.maps.isfinite().all()
    assert result.raw.any()


@pytest.mark.parametrize("method", METHODS_OF_TOKENS)
def test_the_methods_that_take_tokens(small, method):
    more = {"steps": 3} if method == "integrated_grad_cam" else {}
    if method == "eigen_cam":  # negative everywhere on these random features
        more = {"normalise": "minmax"}
    image = torch.rand(1, *SIZE)
    result = gmcam.explain(small, image, [5, 7, 9], method=method, **more)
    assert result.layer in STAGES["swin_t"].values() or result.layer.endswith("encoder_layer_2.ln_1")
    assert result.maps.shape == (3, 224, 224)
    assert result.maps.isfinite().all()
    assert 0.9 < result.maps.amax() <= 1
    if method != "score_cam":  # its maps have the image's size
        assert f"{result.raw.shape[1]}x{result.raw.shape[2]}" == small.default_layer


@pytest.fixture(scope="module")
def small_vit():
    return loaded("vit_b_16", lambda: small_transformer("vit_b_16"))


@pytest.mark.parametrize("method", ["cam", "full_grad", "ablation_cam", "relevance_cam", "captum.deep_lift"])
def test_a_method_that_needs_a_convolutional_map_refuses_a_vision_transformer(small_vit, method):
    with pytest.raises(
        ValueError, match=f"convolutional maps for {method}, got the tokens of {small_vit.name}"
    ):
        gmcam.explain(small_vit, torch.rand(1, *SIZE), 0, method=method)


def test_a_vision_transformer_has_one_input_size(small_vit):
    with pytest.raises(ValueError, match="vit_b_16, which fails at 324 x 324"):
        gmcam.explain(small_vit, torch.rand(1, *SIZE), 0, method="cameras")


def test_each_token_of_a_vision_transformer_is_in_its_cell_and_the_class_token_in_none(small_vit):
    tokens = torch.arange(197.0)[None, :, None].expand(1, 197, 8)
    assert small_vit.as_maps(tokens, "encoder.dropout")[0, 3].tolist() == [
        [1 + 14 * i + j for j in range(14)] for i in range(14)
    ]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (13, 0)])
def test_a_change_in_a_corner_of_the_image_changes_the_map_there(small, row, column):
    # Before any attention, a cell depends on its patch alone.
    layer, cells = ("encoder.dropout", 14) if small.name == "vit_b_16" else ("features.0", 56)
    side = 224 // cells
    images = torch.zeros(2, *SIZE)
    images[1, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = torch.rand(
        3, side, side
    )
    tokens = capture(small.module, images, 0, layer, gradients=False, any_shape=True).maps[layer]
    before, after = small.as_maps(tokens, layer)
    changed = (before != after).any(0)
    assert changed.shape == (cells, cells)
    assert changed.nonzero().tolist() == [[row, column]]


def test_in_the_last_block_of_a_vision_transformer_only_the_class_token_counts(small_vit):
    layers = ["encoder.layers.encoder_layer_2.ln_1", "encoder.layers.encoder_layer_2"]
    gradients = capture(small_vit.module, torch.rand(1, *SIZE), 5, layers, any_shape=True).gradients
    default, after = (gradients[layer][0].abs().sum(1) for layer in layers)
    assert small_vit.layer_path() == layers[0]
    assert (default > 0).all()
    assert after.nonzero().flatten().tolist() == [0]


def test_a_trained_squeezenet_recognises_the_dog(squeezenet, data_root):
    probabilities = squeezenet.probabilities(data_root / "dual_class" / "both.png")[0]
    assert squeezenet.class_name(int(probabilities.argmax())) == "bull mastiff"
    assert probabilities.max() > 0.8
