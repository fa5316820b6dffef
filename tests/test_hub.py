"""Models of timm and Hugging Face with random weights, against plain autograd and their own forward."""

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from PIL import Image

import gmcam

NAMES = dict(enumerate(["cat", "cup", "dog", "fork", "rose"]))
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SQUARE = {"image_size": 64, "patch_size": 16, **TRANSFORMER}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 12, "depths": [1, 2], "num_heads": [2, 2]}
SQUASHED = {"size": {"height": 64, "width": 64}}
CROPPED = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}


def patches(prefix):
    """Tokens (N, prefix + 16, K) → (N, K, 4, 4), by hand."""

    def arranged(tokens):
        rows = [tokens[:, prefix + 4 * row : prefix + 4 * row + 4] for row in range(4)]
        return torch.stack(rows, 1).permute(0, 3, 1, 2)

    return arranged


def unchanged(maps):
    return maps


# Model, its configuration, its processor, the layer that is right, and its output as maps by hand.
FAMILIES = {
    "ViT": (
        hf.ViTForImageClassification,
        hf.ViTConfig(**SQUARE),
        hf.ViTImageProcessor(**SQUASHED),
        "vit.layers.1.layernorm_before",
        patches(1),
    ),
    "DeiT": (
        hf.DeiTForImageClassificationWithTeacher,
        hf.DeiTConfig(**SQUARE),
        hf.DeiTImageProcessor(size={"height": 72, "width": 72}, crop_size={"height": 64, "width": 64}),
        "deit.layers.1.layernorm_before",
        patches(2),
    ),
    "DINOv2": (
        hf.Dinov2ForImageClassification,
        hf.Dinov2Config(**SQUARE),
        hf.BitImageProcessor(**CROPPED),
        "dinov2.layernorm",
        patches(1),
    ),
    "DINOv2 with registers": (
        hf.Dinov2WithRegistersForImageClassification,
        hf.Dinov2WithRegistersConfig(**SQUARE, num_register_tokens=4),
        hf.BitImageProcessor(**CROPPED),
        "dinov2_with_registers.layernorm",
        patches(5),
    ),
    "ConvNeXt": (
        hf.ConvNextForImageClassification,
        hf.ConvNextConfig(**STAGES, image_size=64),
        hf.ConvNextImageProcessor(size={"shortest_edge": 64}),
        "convnext.encoder",
        unchanged,
    ),
    "ResNet": (
        hf.ResNetForImageClassification,
        hf.ResNetConfig(**STAGES, embedding_size=8, layer_type="basic"),
        hf.ConvNextImageProcessor(size={"shortest_edge": 64}),
        "resnet.encoder",
        unchanged,
    ),
    "Swin": (
        hf.SwinForImageClassification,
        hf.SwinConfig(**SWIN, window_size=4),
        hf.ViTImageProcessor(**SQUASHED),
        "swin.layernorm",
        lambda tokens: tokens.unflatten(1, (8, 8)).permute(0, 3, 1, 2),
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    kind, config, processor, layer, arrange = FAMILIES[request.param]
    config.id2label = NAMES
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that no token is like another, and no classifier zero
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model, processor, gmcam.wrap(model, processor), layer, arrange


@pytest.fixture
def image():
    noise = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((120, 180))


def test_a_model_of_hugging_face_brings_classes_and_input(family):
    model, _, network, _, _ = family
    assert network.module is model
    assert network.name == type(model).__name__
    assert network.classes == tuple(NAMES.values())
    assert network.input_shape == (3, 64, 64)
    assert network.output == "softmax"


def test_its_processor_gives_the_pixels_and_a_preprocessing_the_geometry(family, image):
    _, processor, network, _, _ = family
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    assert torch.equal(network.prepare(image), pixels)
    assert isinstance(network.preprocess, gmcam.Preprocessing)
    # A grey square, placed as a box, is where the pixels are grey.
    square = Image.new("RGB", image.size, "white")
    square.paste("black", (40, 60, 80, 120))
    seen = network.preprocess.restore(network.prepare(square))[0].mean(0) < 0.5
    placed = network.preprocess.place_boxes(np.array([[40, 60, 80, 120]]), image.size)[0]
    rows, columns = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
    ends = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert [float(end) for end in ends] == pytest.approx(placed.tolist(), abs=1)


def plain_autograd(model, layer, arrange, images, target):
    """HiResCAM without the library: a hook, a gradient, the maps arranged by hand."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    logits = model(pixel_values=images).logits
    handle.remove()
    tensor = kept[0] if isinstance(kept[0], torch.Tensor) else kept[0][0]
    (gradient,) = torch.autograd.grad(logits[:, target].sum(), tensor)
    return logits[:, target].detach(), (arrange(gradient) * arrange(tensor)).sum(1).detach()


def test_a_model_of_hugging_face_is_explained_as_by_plain_autograd(family):
    model, _, network, layer, arrange = family
    images = torch.rand(2, 3, 64, 64)
    scores, maps = plain_autograd(model, layer, arrange, images, 3)
    result = gmcam.explain(network, images, "fork", method="hires_cam", layer=layer)
    torch.testing.assert_close(result.score, scores)
    torch.testing.assert_close(result.raw, maps)
    assert result.raw.any()


def test_its_default_layer_is_the_last_that_counts(family):
    _, _, network, layer, _ = family
    result = gmcam.explain(network, torch.rand(1, 3, 64, 64), "cup", method="hires_cam")
    assert result.layer == layer
    assert result.raw.any()


def test_segformer_is_explained_for_a_function_of_its_logits():
    torch.manual_seed(0)
    config = hf.SegformerConfig(**STAGES, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16)
    config.id2label = NAMES
    model = hf.SegformerForSemanticSegmentation(config).eval()
    network = gmcam.wrap(model, hf.SegformerImageProcessor(**SQUASHED))
    assert (network.classes, network.input_shape) == (tuple(NAMES.values()), (3, 64, 64))
    images = torch.rand(1, 3, 64, 64)
    result = gmcam.explain(network, images, lambda y: y.logits[:, 2].mean((1, 2)), method="grad_cam")
    torch.testing.assert_close(result.score, model(images).logits[:, 2].mean((1, 2)).detach())
    assert (result.layer, result.cells) == ("decode_head.activation", (16, 16))
    with pytest.raises(ValueError, match="pass target as a function"):
        gmcam.explain(network, images, "cup")


def test_several_labels_are_sigmoids():
    config = hf.ViTConfig(**SQUARE, problem_type="multi_label_classification", num_labels=3)
    network = gmcam.wrap(hf.ViTForImageClassification(config))
    assert network.output == "sigmoid"
    assert gmcam.wrap(network.module, output=None).output is None


def test_a_model_without_a_classifier_has_no_class_names():
    assert gmcam.wrap(hf.ViTModel(hf.ViTConfig(**SQUARE))).classes == ()
    assert (
        gmcam.wrap(hf.PoolFormerModel(hf.PoolFormerConfig(hidden_sizes=[8] * 4, depths=[1] * 4))).classes
        == ()
    )


def test_patches_of_an_image_that_is_not_square_are_in_their_grid():
    config = hf.ViTConfig(**{**SQUARE, "image_size": (32, 64)}, num_labels=3)
    network = gmcam.wrap(hf.ViTForImageClassification(config))
    assert network.input_shape == (3, 32, 64)
    result = gmcam.explain(network, torch.rand(1, 3, 32, 64), 1, layer="vit.layers.1.layernorm_before")
    assert result.cells == (2, 4)


# CLIP


@pytest.fixture(scope="module")
def words():
    """A tokenizer of single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    entries = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(entries)}
    return hf.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=32)


TEXTS = ["a photo of a cat", "a photo of a cup", "a drawing"]


def clip(words, kind="clip"):
    configuration, model = {
        "clip": (hf.CLIPConfig, hf.CLIPModel),
        "siglip": (hf.SiglipConfig, hf.SiglipModel),
    }[kind]
    text = {**TRANSFORMER, "vocab_size": len(words), "max_position_embeddings": 32}
    text |= {"eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id}
    text |= {"pad_token_id": words.pad_token_id, "projection_size": 16}
    config = configuration(text_config=text, vision_config=SQUARE)
    if kind == "clip":
        config.projection_dim = 12
    torch.manual_seed(0)
    images = hf.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    return model(config).eval(), hf.CLIPProcessor(images, words)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_texts_of_a_clip_are_its_classes(kind, words):
    model, processor = clip(words, kind)
    network = gmcam.wrap(model, processor, TEXTS)
    images = torch.rand(2, 3, 64, 64)
    tokens = processor.tokenizer(TEXTS, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens, pixel_values=images).logits_per_image
    torch.testing.assert_close(network.module(images), expected)
    assert (network.classes, network.input_shape) == (tuple(TEXTS), (3, 64, 64))
    assert network.output == ("softmax" if kind == "clip" else "sigmoid")
    layer = "vision_model.encoder.layers.1.layer_norm1"  # as in the model
    result = gmcam.explain(network, images, "a drawing", method="hires_cam", layer=layer)
    torch.testing.assert_close(result.score, expected[:, 2])
    assert result.cells == (4, 4)
    assert result.raw.any()


def test_a_clip_is_explained_as_by_plain_autograd(words):
    model, processor = clip(words)
    images, layer = torch.rand(1, 3, 64, 64), "vision_model.encoder.layers.1.layer_norm1"
    kept = []
    model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    tokens = processor.tokenizer(TEXTS, padding="max_length", return_tensors="pt")
    logits = model(**tokens, pixel_values=images).logits_per_image
    (gradient,) = torch.autograd.grad(logits[0, 1], kept[0])
    network = gmcam.wrap(model, processor, TEXTS)
    result = gmcam.explain(network, images, TEXTS[1], method="hires_cam")
    assert result.layer == layer
    torch.testing.assert_close(result.raw, (patches(1)(gradient) * patches(1)(kept[0])).sum(1).detach())


def test_a_clip_without_texts_or_tokenizer_is_refused(words):
    model, processor = clip(words)
    with pytest.raises(
        ValueError, match="expected texts and their tokenizer for CLIPModel, got classes=None"
    ):
        gmcam.wrap(model, processor)
    with pytest.raises(ValueError, match="and a NoneType: pass its processor"):
        gmcam.wrap(model, None, TEXTS)


def test_given_text_embeddings_need_a_module_of_few_lines(words):
    class Similarity(torch.nn.Module):
        def __init__(self, clip, texts):
            super().__init__()
            self.clip, self.texts = clip.vision_model, torch.nn.functional.normalize(texts, dim=1)
            self.projection = clip.visual_projection

        def forward(self, images):
            embeddings = self.projection(self.clip(images).pooler_output)
            return 100 * torch.nn.functional.normalize(embeddings, dim=1) @ self.texts.T

    model, processor = clip(words)
    similarity, tokens = Similarity(model, torch.randn(3, 12)), gmcam.reshape.tokens(prefix=1)
    network = gmcam.wrap(similarity, processor, ["cat", "cup", "none"], reshape=tokens)
    assert network.input_shape == (3, 64, 64)
    result = gmcam.explain(network, Image.new("RGB", (100, 80), "red"), "cup", method="hires_cam")
    assert result.layer == "clip.encoder.layers.1.layer_norm1"
    assert result.cells == (4, 4)


# timm


def timm_model(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


@pytest.mark.parametrize(
    ("name", "resize", "crop"), [("resnet18", 235, 224), ("test_vit", 168, 160), ("test_convnext", 168, 160)]
)
def test_a_model_of_timm_brings_its_preprocessing(name, resize, crop, image):
    model = timm_model(name)
    network = gmcam.wrap(model)
    config = timm.data.resolve_data_config(model=model)
    assert (network.preprocess.resize, network.preprocess.crop) == (resize, crop)
    assert network.input_shape == (3, crop, crop)
    assert torch.equal(network.preprocess(image), timm.data.create_transform(**config)(image))
    assert (network.name, len(network.classes), network.classes[281]) == (name, 1000, "tabby")
    assert gmcam.wrap(torch.compile(model)).classes == network.classes


def test_classes_are_those_of_imagenet_only_where_there_are_a_thousand():
    assert gmcam.wrap(timm_model("test_vit", num_classes=7)).classes == ()
    named = gmcam.wrap(timm_model("test_vit", num_classes=2), classes=["no", "yes"])
    assert named.classes == ("no", "yes")


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_a_model_of_timm_that_does_not_crop_the_centre_gets_its_own_transform(mode, image):
    model = timm_model("test_vit", num_classes=3)
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": mode, "crop_pct": 1.0}
    network = gmcam.wrap(model)
    config = timm.data.resolve_data_config(model=model)
    assert torch.equal(network.preprocess(image), timm.data.create_transform(**config)(image))
    assert isinstance(network.preprocess, gmcam.Preprocessing) == (mode == "squash")


def test_a_model_of_timm_with_another_input_has_its_shape():
    assert gmcam.wrap(timm_model("test_vit", img_size=96, num_classes=3)).input_shape == (3, 96, 96)
    grey = gmcam.wrap(timm_model("test_resnet", in_chans=1, num_classes=3))
    assert (grey.input_shape[0], grey.preprocess) == (1, None)
    assert gmcam.wrap(timm_model("test_resnet"), input_shape=(3, 64, 64)).input_shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("name", "size", "prefix", "grid"),
    [
        ("vit_tiny_patch16_224", (64, 64), 1, (4, 4)),
        ("vit_tiny_patch16_224", (32, 64), 1, (2, 4)),
        ("deit_tiny_distilled_patch16_224", (64, 64), 2, (4, 4)),
        ("vit_small_patch14_reg4_dinov2", (28, 28), 5, (2, 2)),  # 9 tokens, which look like 3 × 3
    ],
)
def test_prefix_tokens_are_left_out_and_patches_are_in_their_cells(name, size, prefix, grid):
    model = timm_model(name, img_size=size, depth=2, num_classes=5)
    network = gmcam.wrap(model)
    images = torch.rand(1, 3, *size)
    kept = []
    handle = model.blocks[1].norm1.register_forward_hook(lambda _m, _i, output: kept.append(output))
    (gradient,) = torch.autograd.grad(model(images)[0, 2], kept)
    handle.remove()
    product = (gradient * kept[0]).sum(2)[:, prefix:].detach()
    result = gmcam.explain(network, images, 2, method="hires_cam", layer="blocks.1.norm1")
    torch.testing.assert_close(result.raw, product.reshape(1, *grid))


def test_a_model_that_timm_did_not_create_brings_its_input_and_tokens():
    model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=2)
    network = gmcam.wrap(model.eval())
    assert (network.input_shape, network.preprocess, network.classes) == ((3, 32, 32), None, ())
    assert network.as_maps(torch.rand(1, 17, 12), "blocks").shape == (1, 12, 4, 4)


def test_hybrids_and_late_class_tokens_are_left_to_their_shapes():
    for name in ("cait_xxs24_224", "vit_tiny_r_s16_p8_224"):
        model = timm_model(name, depth=1, img_size=64, num_classes=3)
        assert model.num_prefix_tokens == 1
        assert gmcam.wrap(model).reshape is None


def test_load_finds_a_model_of_timm_by_name(monkeypatch):
    model = timm_model("test_vit", num_classes=1000)
    calls = []
    monkeypatch.setattr(timm, "create_model", lambda *given, **more: calls.append((given, more)) or model)
    network = gmcam.load("timm:test_vit.r160_in1k")
    assert calls == [(("test_vit.r160_in1k",), {"pretrained": True})]
    assert (network.module, network.name) == (model, "timm:test_vit.r160_in1k")
    assert len(network.classes) == 1000
    with pytest.raises(ValueError, match="expected no weights for timm:test_vit, got 'V1'"):
        gmcam.load("timm:test_vit", "V1")


def test_an_unknown_model_of_timm_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match="expected the name of a timm model, got 'convnext_tinny': such as con"
    ):
        gmcam.load("timm:convnext_tinny")
    with pytest.raises(ValueError, match=r"resnet18\.no_tag, and it failed .*timm\.list_pretrained"):
        gmcam.load("timm:resnet18.no_tag")


def test_without_a_connection_timm_is_one_clear_sentence(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="expected to load timm's test_vit, and it failed") as caught:
        gmcam.load("timm:test_vit")
    assert "\n" not in str(caught.value)
    assert "go online once, or pass a model from timm.create_model to gmcam.wrap" in str(caught.value)


def test_without_timm_its_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ImportError, match=r"expected timm to be installed, and it is not: pip install 'gmcam\[hub\]'"
    ):
        gmcam.load("timm:convnext_tiny")


def test_neither_package_is_imported_for_another_network():
    code = (
        "import sys, torch, gmcam; gmcam.wrap(torch.nn.Conv2d(3, 2, 3), lambda image: torch.rand(3, 8, 8));"
    )
    code += "print({'timm', 'transformers', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
