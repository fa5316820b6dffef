"""The default layer of networks from timm, as the table on the book's reference page.

    python benchmarks/architectures.py [--out FILE] [NAME …]

The smallest variant of each family, with random weights, on one image of noise. ``depth`` is the share of
the layers with weights that have run when the default layer returns; "all but convolutional ones" marks maps
that are arranged from tokens or channels last. A network that asks for a layer by name says why.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import timm
import torch

import gmcam

TABLE = Path(__file__).parents[1] / "book" / "architectures.csv"
COLUMNS = ("model", "family", "default layer", "cells", "depth", "methods", "note")
NETWORKS = {  # timm's name: family
    "resnet18": "ResNet",
    "resnetv2_50x1_bit": "BiT",
    "regnetx_002": "RegNet",
    "densenet121": "DenseNet",
    "vgg11": "VGG",
    "inception_v3": "Inception",
    "xception41": "Xception",
    "nfnet_l0": "NFNet",
    "efficientnet_b0": "EfficientNet",
    "mobilenetv2_050": "MobileNet v2",
    "mobilenetv3_small_050": "MobileNet v3",
    "mobilenetv4_conv_small_035": "MobileNet v4",
    "ghostnet_050": "GhostNet",
    "mnasnet_050": "MnasNet",
    "hrnet_w18_small": "HRNet",
    "repvgg_a0": "RepVGG",
    "convnext_atto": "ConvNeXt",
    "convnextv2_atto": "ConvNeXt v2",
    "fastvit_t8": "FastViT",
    "mobileone_s0": "MobileOne",
    "starnet_s050": "StarNet",
    "edgenext_xx_small": "EdgeNeXt",
    "inception_next_atto": "InceptionNeXt",
    "focalnet_tiny_srf": "FocalNet",
    "poolformer_s12": "PoolFormer",
    "convmixer_768_32": "ConvMixer",
    "mixer_s32_224": "MLP-Mixer",
    "resmlp_12_224": "ResMLP",
    "vit_tiny_patch16_224": "ViT",
    "vit_tiny_r_s16_p8_224": "ViT hybrid",
    "vit_small_patch14_reg4_dinov2": "DINOv2 with registers",
    "deit_tiny_distilled_patch16_224": "DeiT, distilled",
    "deit3_small_patch16_224": "DeiT III",
    "eva02_tiny_patch14_224": "EVA-02",
    "beit_base_patch16_224": "BEiT",
    "cait_xxs24_224": "CaiT",
    "xcit_nano_12_p16_224": "XCiT",
    "crossvit_tiny_240": "CrossViT",
    "volo_d1_224": "VOLO",
    "tnt_s_patch16_224": "TNT",
    "swin_tiny_patch4_window7_224": "Swin",
    "swinv2_tiny_window8_256": "Swin v2",
    "maxvit_tiny_tf_224": "MaxViT",
    "coatnet_pico_rw_224": "CoAtNet",
    "coat_tiny": "CoaT",
    "levit_128s": "LeViT",
    "nest_tiny_jx": "NesT",
    "pvt_v2_b0": "PVT v2",
    "pit_ti_224": "PiT",
    "twins_svt_small": "Twins",
    "gcvit_xxtiny": "GCViT",
    "davit_tiny": "DaViT",
    "mobilevit_xxs": "MobileViT",
    "mobilevitv2_050": "MobileViT v2",
    "efficientformer_l1": "EfficientFormer",
    "efficientvit_b0": "EfficientViT",
    "mvitv2_tiny": "MViT v2",
    "hiera_tiny_224": "Hiera",
    "visformer_tiny": "Visformer",
    "sequencer2d_s": "Sequencer",
}
NOTES = {
    "coat_tiny": "three class tokens; the map is of the coarsest of three branches",
    "crossvit_tiny_240": "two branches; the map is of one",
    "hiera_tiny_224": "before the last stage tokens are in another order: its finer stages are no maps",
    "vgg11": "three linear layers with most of the weights follow the flattened map",
}


def row(model: str, family: str) -> dict[str, str]:
    torch.manual_seed(0)
    module = timm.create_model(model).eval()
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():  # a head that starts at zero has no gradients
            torch.nn.init.normal_(parameter, std=0.02)
    network = gmcam.wrap(module, name=model)
    try:
        path = network.layer_path()
    except ValueError as error:
        return {"model": model, "family": family, "note": f"asks: {str(error).partition(': name it')[0]}"}
    image = torch.rand(1, *network.input_shape, generator=torch.Generator().manual_seed(0))
    result = gmcam.explain(network, image, 1, method="hires_cam", sigma=0)
    arranged = network._map_layers.arrangements[path] is not None
    return {
        "model": model,
        "family": family,
        "default layer": path,
        "cells": "×".join(map(str, result.cells)),
        "depth": f"{network.depth():.2f}",
        "methods": "all but convolutional ones" if arranged else "all",
        "note": NOTES.get(model, "") if result.raw.any() else "no influence on class 1",
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("names", nargs="*", default=NETWORKS)
    options.add_argument("--out", type=Path, default=TABLE)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with chosen.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for model in chosen.names:
            entry = row(model, NETWORKS.get(model, ""))
            print(*entry.values(), sep=" | ", flush=True)
            table.writerow(entry)
            file.flush()


if __name__ == "__main__":
    main()
