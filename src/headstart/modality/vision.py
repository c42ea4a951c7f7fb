"""Pretrained vision networks as chains of named stages.

The weights' own preprocessing goes with them: a wrong one raises no error and ruins the features.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError, Preprocess

CAFFE_MEAN = (104 / 255, 117 / 255, 123 / 255)  # BGR; the blobs that Caffe's ImageNet models were trained with
UNREADABLE = (pickle.UnpicklingError, EOFError, OSError, RuntimeError, IndexError, TypeError, KeyError, ValueError, AttributeError, ImportError)
PARTS = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
FIRE = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}  # SqueezeNet 1.1: fire module -> index in torchvision's features


def efficientnet_lite(variant: int, weights: Path | None, *, seed: int = 0) -> Backbone:
    """Return EfficientNet-Lite 0, 1 or 2 in stages stem, blocks0 to blocks6, head; output (n, 1280).

    ``weights`` is the packaged checkpoint; its names differ from timm's, but order and shapes are those of timm's ``tf_efficientnet_lite``,
    which pads as TensorFlow did. ``None``: random weights from ``seed``.
    """
    import timm

    net = seeded(lambda: timm.create_model(f"tf_efficientnet_lite{variant}"), seed)
    if weights is not None:
        with _read_safely(weights):
            state = dict(torch.load(weights, map_location="cpu", weights_only=True))
        net.load_state_dict(_by_position(state, net.state_dict(), weights))
    stages = OrderedDict(stem=nn.Sequential(OrderedDict(conv=net.conv_stem, bn=net.bn1)))
    stages |= {f"blocks{i}": block for i, block in enumerate(net.blocks)}
    stages["head"] = nn.Sequential(OrderedDict(conv=net.conv_head, bn=net.bn2, pool=net.global_pool))
    cfg = net.default_cfg
    look = Preprocess(cfg["input_size"][1], cfg["crop_pct"], cfg["interpolation"], tuple(cfg["mean"]), tuple(cfg["std"]))
    return Backbone(stages, dim=net.num_features, preprocess=look, classifier=net.classifier).eval()


def squeezenet(weights: Path | None, *, seed: int = 0) -> Backbone:
    """Return SqueezeNet 1.1 in stages stem, fire3 (with fire2), fire5, fire6 to fire9, head; pooling begins a stage; output (n, 512).

    The classifier is the convolution on the pooled feature, without the ReLU that torchvision puts between: its logits may be negative.
    ``weights`` is a pickle of arrays in Caffe's layout; it is read by an unpickler that can build arrays and nothing else.
    """
    from torchvision.models import squeezenet1_1

    net = seeded(lambda: squeezenet1_1(weights=None), seed)
    if weights is not None:
        state = _from_caffe(_numpy_pickle(weights), weights)
        net.load_state_dict(_by_position({name: state[name] for name in net.state_dict()}, net.state_dict(), weights))
    parts = list(net.features)
    stages = OrderedDict(stem=nn.Sequential(*parts[:2]), fire3=nn.Sequential(*parts[2:5]), fire5=nn.Sequential(*parts[5:8]))
    stages |= {"fire6": nn.Sequential(*parts[8:10]), "fire7": parts[10], "fire8": parts[11], "fire9": parts[12]}
    stages["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = nn.Sequential(OrderedDict(unfold=nn.Unflatten(1, (512, 1, 1)), conv=net.classifier[1], flat=nn.Flatten()))
    look = Preprocess(224, 0.875, "bilinear", CAFFE_MEAN, (1 / 255,) * 3, "BGR")
    return Backbone(stages, dim=512, preprocess=look, classifier=classifier).eval()


def seeded(make: Callable[[], Any], seed: int) -> Any:
    """Return what ``make`` builds with random weights from ``seed``; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


@contextmanager
def _read_safely(path: Path) -> Iterator[None]:
    """Turn every way in which a damaged, foreign or malicious file of weights fails into one line."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE:
        raise InputError(f"{path} does not hold weights that can be read without running code. Install its package again.") from None


def _by_position(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    same = len(state) == len(own) and all(isinstance(a, Tensor) and a.shape == b.shape for a, b in zip(state.values(), own.values(), strict=True))
    if not same:
        raise InputError(
            f"{path} does not hold the weights of this network ({len(state)} tensors, {len(own)} expected, of its shapes). Install the package again."
        )
    return dict(zip(own, state.values(), strict=True))


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays and refuses everything else, so that no code in the file runs."""

    ALLOWED = frozenset({"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise InputError(f"The pickle asks for {module}.{name}, which is not an array, so it is not read. Use weights in safetensors.")


def _numpy_pickle(path: Path) -> dict[str, Any]:
    with _read_safely(path), path.open("rb") as file:
        return dict(_ArraysOnly(file, encoding="latin1").load())


def _from_caffe(arrays: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Map Caffe's names, and kernels (h, w, in, out), to torchvision's names and (out, in, h, w)."""
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    names |= {f"fire{i}/{part}": f"features.{at}.{own}" for i, at in FIRE.items() for part, own in PARTS.items()}
    if set(names) != set(arrays):
        raise InputError(f"{path} does not hold SqueezeNet 1.1 ({', '.join(sorted(set(names) ^ set(arrays)))} differ). Install its package again.")
    state = {}
    for name, own in names.items():
        kernel, bias = arrays[name]
        state[f"{own}.weight"] = torch.from_numpy(np.ascontiguousarray(np.transpose(kernel, (3, 2, 0, 1)))).float()
        state[f"{own}.bias"] = torch.from_numpy(np.ascontiguousarray(bias)).float()
    return state
