"""The static prior: what is known of a source before it has seen the target.

Its own benchmark and its size alone order sources about as well as most scores that look at the target (see benchmarks/RESULTS.md).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

# top-1 on ImageNet-1k's validation images, 0..1. EfficientNet-Lite: its README in tensorflow/tpu. SqueezeNet: Iandola et al. 2016. MobileNet V1 half:
# TensorFlow Lite's hosted models, quantised. The rest: torchvision's documentation, the first set of weights
TOP1 = {
    "efficientnet_lite0": 0.751,
    "efficientnet_lite1": 0.767,
    "efficientnet_lite2": 0.776,
    "squeezenet": 0.575,
    "mobilenetv1 half": 0.572,
    "alexnet": 0.565,
    "convnext_base": 0.841,
    "convnext_small": 0.836,
    "convnext_tiny": 0.825,
    "densenet121": 0.744,
    "densenet169": 0.756,
    "densenet201": 0.769,
    "efficientnet_b0": 0.777,
    "efficientnet_b1": 0.786,
    "efficientnet_b2": 0.806,
    "googlenet": 0.698,
    "inception_v3": 0.773,
    "mnasnet1_0": 0.735,
    "mobilenet_v2": 0.719,
    "mobilenetv2": 0.719,
    "mobilenetv2_100": 0.719,
    "mobilenet_v3_large": 0.740,
    "mobilenetv3_large_100": 0.740,
    "mobilenet_v3_small": 0.677,
    "mobilenetv3_small_100": 0.677,
    "resnet18": 0.698,
    "resnet34": 0.733,
    "resnet50": 0.761,
    "resnet101": 0.774,
    "resnet152": 0.783,
    "resnext50_32x4d": 0.776,
    "swin_t": 0.815,
    "swin_s": 0.832,
    "vgg11": 0.690,
    "vgg16": 0.716,
    "vgg19": 0.724,
    "vit_b_16": 0.811,
    "vit_b_32": 0.759,
    "wide_resnet50_2": 0.785,
}
IMAGENET = re.compile(r"imagenet|.*\bin1k\b|.*_in1k\b|IMAGENET1K", re.IGNORECASE)
TYPICAL, TYPICAL_SIZE = 0.70, 3e6  # of the sources above, and of a body: where the scales below have their zero
PER_DECADE = 0.06  # the line through the table above: ten times the parameters, six points more


class Standing(NamedTuple):
    """Where a source stands before it has seen the target.

    ``imagenet`` is 1 where its weights come from ImageNet, else 0; ``top1`` its accuracy there, as the distance from .70 (0 where ``imagenet`` is 0);
    ``size`` the decades of parameters above 3 million.
    """

    imagenet: float
    top1: float
    size: float


def published(name: str, family: str = "", trained_on: str = "") -> float | None:
    """Return the published ImageNet top-1 accuracy of a source, 0..1; ``None`` where none is known, or where its weights come from elsewhere.

    Looked up by the source's name ("timm:resnet50.a1_in1k" counts as "resnet50"), then by its family. It is the architecture's number: other weights
    of the same architecture may be better or worse.

    >>> published("efficientnet_lite0", trained_on="ImageNet-1k"), published("ours", "resnet50", "40,000 radiographs")
    (0.751, None)
    """
    if not is_imagenet(trained_on):
        return None
    short = re.split(r"[.@ ]", name.rpartition(":")[2])[0].lower()
    return next((TOP1[key] for key in (name.lower(), short, family.lower()) if key in TOP1), None)


def is_imagenet(trained_on: str) -> bool:
    """Whether a description of training data, as sources carry it, begins with ImageNet or names it as the hubs do, and training ended there.

    >>> [is_imagenet(t) for t in ("ImageNet-1k (1.28 M photographs)", "a1_in1k (1,000 classes)", "IMAGENET1K_V1")]
    [True, True, True]
    >>> [is_imagenet(t) for t in ("ImageNet-1k, then edges", "iNaturalist, from ImageNet")]
    [False, False]
    """
    return IMAGENET.match(trained_on) is not None and ", then " not in trained_on


def standing(name: str, family: str, trained_on: str, parameters: int) -> Standing:
    """Return where a source stands; an accuracy that is not known is read off its size, and an unknown size counts as 3 million.

    >>> standing("squeezenet", "SqueezeNet", "ImageNet-1k", 3_000_000)
    Standing(imagenet=1.0, top1=-0.125, size=0.0)
    """
    size = math.log10(parameters / TYPICAL_SIZE) if parameters > 0 else 0.0
    if not is_imagenet(trained_on):
        return Standing(0.0, 0.0, size)
    known = published(name, family, trained_on)
    return Standing(1.0, round((known - TYPICAL), 6) if known is not None else PER_DECADE * size, size)
