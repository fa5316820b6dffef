"""A tiny dataset and a network that runs at once."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gmcam
from gmcam import Preprocessing
from gmcam.datasets import Dataset, Record, Truth

COLOURS = ("red", "green", "blue")


class ColourSeer(nn.Module):
    """Logit c is how much of colour c there is, through a map of one channel per colour."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 3, 1, bias=False)
        self.maps.weight.data = 4 * torch.eye(3).view(3, 3, 1, 1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(3, 3, bias=False)
        self.fc.weight.data = torch.eye(3)

    def forward(self, x):
        return self.fc(self.relu(self.maps(x)).mean((2, 3)))


@pytest.fixture
def colour_network():
    plain = Preprocessing(16, 16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return gmcam.Network(
        ColourSeer(), name="colours", preprocess=plain, classes=COLOURS, input_shape=(3, 16, 16), layer="relu"
    )


def squares(index):
    """A 16 × 16 image with a square of one colour upper left and one of another lower right."""
    first, second = index % 3, (index + 1 + index // 3 % 2) % 3
    side = 4 + index % 3
    pixels = np.zeros((16, 16, 3), np.uint8)
    truths = []
    for colour, rows in ((first, slice(1, 1 + side)), (second, slice(10, 14))):
        pixels[rows, rows, colour] = 255 - 7 * (index % 5)
        mask = np.zeros((16, 16), bool)
        mask[rows, rows] = True
        box = [[rows.start, rows.start, rows.stop, rows.stop]]
        truths.append(Truth(COLOURS[colour], mask, np.array(box, float), np.array([False])))
    return Record(f"squares {index}", Image.fromarray(pixels), tuple(truths))


@pytest.fixture
def squares_dataset():
    def make(count, read=squares):
        return Dataset("squares", COLOURS, tuple(f"squares {i}" for i in range(count)), read)

    return make
