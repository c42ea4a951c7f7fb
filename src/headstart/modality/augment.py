"""Augmented views: the k-th copy of an input under a policy is always the same, so that frozen stages run on it once and K stored copies replace augmentation.

A policy is the names of its steps joined by "+", such as "crop+colour"; :data:`STEPS` has them by modality. Steps draw from the input's digest and the copy's
number alone, one after another in their own order, so that "crop+mirror" is the mirror image of "crop".
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.core import Backbone, ColumnInput, InputError, Preprocess, TextInput
from headstart.modality.edits import WORDS, masked, reworded
from headstart.modality.image import framed, ordered, read
from headstart.modality.style import STYLES, restyled
from headstart.modality.tabular import absent, noisy

AREA = (0.5, 1.0)  # share of the image that is kept; ImageNet's .08 loses what is small in medical and industrial images
RATIO = (3 / 4, 4 / 3)  # width over height, log-uniform (Szegedy et al. 2015, sec. 6)
TRIES = 10
COLOUR = 0.4  # brightness, contrast and saturation are multiplied by 0.6 to 1.4, the usual half of SimCLR's
HUE = 0.05  # of the colour wheel
STEPS: Mapping[str, tuple[str, ...]] = {
    "image": ("crop", "flip", "mirror", *STYLES, "colour", "trivial", "rand"),
    "text": ("delete", "swap", "mask"),
    "tabular": ("noise", "absent"),
}
POLICY = "crop+flip"
_TORCH = threading.Lock()  # torchvision's policies draw from PyTorch's own generator, which two decoding threads share


def encode_view(item: Any, backbone: Backbone, *, digest: str, view: int, policy: str = POLICY, palette: Sequence[Any] = ()) -> Tensor:
    """Return copy ``view`` >= 1 of an input as ``door(...).encode`` gives the input itself, drawn from digest and view.

    Images: "crop" (a random crop of half of the area or more, resized), "flip" (mirrored by chance), "mirror" (always), "fourier" and "tone" (the style of one
    of the images in ``palette``, see :mod:`headstart.modality.style`), "colour" (brightness, contrast, saturation, hue), "trivial" and "rand" (TrivialAugment,
    Müller & Hutter 2021, and RandAugment, Cubuk et al. 2020, as torchvision has them). Texts: "delete" and "swap" words (Wei & Zou 2019), "mask" tokens.
    Rows of tables: "noise" on numbers, "absent" values.

    Raises
    ------
    InputError
        the policy has a step that inputs of this kind do not have, or a style without images to take it from.
    """
    steps = steps_of(policy, backbone)
    dice = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{digest}/{view}".encode()).digest()[:8], "big"))
    look = backbone.preprocess
    if isinstance(look, Preprocess):
        drawn = _drawn(read(item, alpha=look.channels == "RGBA"), look, steps, dice)
        for style in (step for step in steps if step in STYLES):
            if not len(palette):
                raise InputError(f"A copy in another {style} needs images to take it from. Give --source-data.")
            other = framed(read(palette[int(dice.integers(len(palette)))]), look)
            drawn = torch.cat([restyled(drawn[:3], other, style, dice), drawn[3:]])
        return ordered(drawn, look)
    if isinstance(look, TextInput):
        from headstart.modality import text

        encoded = text.encode(reworded(str(item), [s for s in steps if s in WORDS], dice), backbone)
        return masked(encoded, backbone, dice) if "mask" in steps else encoded
    from headstart.modality import tabular

    row = tabular.encode(item, backbone)
    row = noisy(row, backbone, dice) if "noise" in steps else row
    return absent(row, backbone, dice) if "absent" in steps else row


def steps_of(policy: str, backbone: Backbone) -> tuple[str, ...]:
    """Return the steps of a policy in the order in which they are taken.

    >>> steps_of("flip+crop", Backbone({}, dim=1, preprocess=Preprocess()))
    ('crop', 'flip')

    Raises
    ------
    InputError
        a step that inputs of this kind do not have.
    """
    kind = {Preprocess: "image", TextInput: "text", ColumnInput: "tabular"}[type(backbone.preprocess)]
    wanted = policy.split("+")
    for step in wanted:
        if step not in STEPS[kind]:
            what = {"image": "images", "text": "texts", "tabular": "rows of a table"}[kind]
            raise InputError(f"There is no step {step!r} of augmentation for {what}. There are {', '.join(STEPS[kind])}, joined by '+'.")
    return tuple(step for step in STEPS[kind] if step in wanted)


def _drawn(image: np.ndarray, look: Preprocess, steps: tuple[str, ...], dice: np.random.Generator) -> Tensor:
    """Return uint8 (c, size, size), in colours as read."""
    from torchvision.transforms.v2 import InterpolationMode, functional

    if "crop" in steps:
        pixels = torch.tensor(image).permute(2, 0, 1)
        mode = InterpolationMode.BICUBIC if look.interpolation == "bicubic" else InterpolationMode.BILINEAR
        box = _box(int(pixels.shape[1]), int(pixels.shape[2]), dice)
        out = functional.resized_crop(pixels, *box, [look.size, look.size], interpolation=mode, antialias=True)
    else:
        out = framed(image, look)
    turned = "flip" in steps and dice.random() < 0.5
    if "mirror" in steps or turned:
        out = functional.horizontal_flip(out)
    seen, alpha = out[:3], out[3:]
    for step in steps:
        if step in PAINTED:
            seen = PAINTED[step](seen, dice)
    return torch.cat([torch.as_tensor(seen), torch.as_tensor(alpha)])


def _coloured(pixels: Tensor, dice: np.random.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional

    bright, contrast, colour = dice.uniform(1 - COLOUR, 1 + COLOUR, 3)
    out = functional.adjust_contrast(functional.adjust_brightness(pixels, bright), contrast)
    return torch.as_tensor(functional.adjust_hue(functional.adjust_saturation(out, colour), dice.uniform(-HUE, HUE)))


def _by_torchvision(name: str) -> Callable[[Tensor, np.random.Generator], Tensor]:
    def paint(pixels: Tensor, dice: np.random.Generator) -> Tensor:
        from torchvision.transforms import v2

        with _TORCH, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(dice.integers(2**63)))
            return torch.as_tensor(getattr(v2, name)()(pixels))

    return paint


PAINTED: Mapping[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "colour": _coloured,
    "trivial": _by_torchvision("TrivialAugmentWide"),
    "rand": _by_torchvision("RandAugment"),
}


def _box(height: int, width: int, dice: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a crop; the whole image where no draw fits."""
    for _ in range(TRIES):
        area = height * width * dice.uniform(*AREA)
        ratio = math.exp(dice.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(dice.integers(0, height - h + 1)), int(dice.integers(0, width - w + 1)), h, w
    return 0, 0, height, width
