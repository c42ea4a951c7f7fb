"""Augmented views of images: the k-th view of an image is always the same, so that frozen stages run on it once and K views replace augmentation."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.core import Backbone, InputError, Preprocess
from headstart.modality.image import grey, read

AREA = (0.5, 1.0)  # share of the image that is kept; ImageNet's .08 loses what is small in medical and industrial images
RATIO = (3 / 4, 4 / 3)  # width over height, log-uniform (Szegedy et al. 2015, sec. 6)
TRIES = 10


def encode_view(item: Any, backbone: Backbone, *, digest: str, view: int) -> Tensor:
    """Return uint8 (c, size, size): view ``view`` >= 1 of an image, a random crop that is resized and flipped by chance, drawn from digest and view.

    Raises
    ------
    InputError
        the backbone takes no images.
    """
    look = backbone.preprocess
    if not isinstance(look, Preprocess):
        raise InputError(f"Only images have augmented views; this backbone takes {type(look).__name__}. Use view 0.")
    pixels = torch.tensor(read(item, alpha=look.channels == "RGBA")).permute(2, 0, 1)
    return _drawn(pixels, look, np.random.default_rng(int.from_bytes(hashlib.sha256(f"{digest}/{view}".encode()).digest()[:8], "big")))


def _drawn(pixels: Tensor, look: Preprocess, dice: np.random.Generator) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode, functional

    mode = InterpolationMode.BICUBIC if look.interpolation == "bicubic" else InterpolationMode.BILINEAR
    top, left, height, width = _box(int(pixels.shape[1]), int(pixels.shape[2]), dice)
    out = functional.resized_crop(pixels, top, left, height, width, [look.size, look.size], interpolation=mode, antialias=True)
    if dice.random() < 0.5:
        out = functional.horizontal_flip(out)
    if look.channels == "L":
        return grey(torch.as_tensor(out))
    return torch.flip(out, (0,)) if look.channels == "BGR" else torch.as_tensor(out)


def _box(height: int, width: int, dice: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a crop; the whole image where no draw fits."""
    for _ in range(TRIES):
        area = height * width * dice.uniform(*AREA)
        ratio = math.exp(dice.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(dice.integers(0, height - h + 1)), int(dice.integers(0, width - w + 1)), h, w
    return 0, 0, height, width
