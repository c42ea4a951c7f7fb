"""Every vision family of torchvision and timm as a chain of named stages, by one table.

A row says which of the network's own modules make each stage; the last module, the classifier, is kept aside. So
``backbone.classifier(backbone(x))`` is the original's forward, bit for bit.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Backbone, InputError, Preprocess, mean_over_positions

LIBRARIES = ("timm", "torchvision")


@dataclass(frozen=True)
class Family:
    """How networks whose name matches ``pattern`` are cut.

    ``stages`` are written ``name = module + module``; ``name.*`` is one stage per child, ``name.|`` one per resolution (a child that pools or
    strides begins it). ``head`` lists what turns the last stage into (n, dim): modules, or one of ``ENDS``. ``pool`` makes (n, d) of any stage.
    """

    pattern: str
    stages: tuple[str, ...]
    head: tuple[str, ...]
    classifier: str
    pool: Callable[[Any], Callable[[Tensor], Tensor]] = field(default=lambda net: mean_over_positions)


def build(
    library: str, architecture: str, *, state: Mapping[str, Tensor] | None = None, num_classes: int | None = None, channels: int = 3, seed: int = 0
) -> Backbone:
    """Return a network of torchvision or timm as stages.

    Parameters
    ----------
    library, architecture : "torchvision" or "timm", and the name that the library gives, such as "resnet50"; a timm name may carry the tag of its
        weights ("resnet50.a1_in1k"), which then says how images are prepared
    state : the original network's weights, by its own names; ``None``: random ones from ``seed``
    num_classes : of the classifier, where the weights have another number than 1000
    channels : of the input. For 1, the first layer's kernels are summed over colours, so that grey equals the same grey in three channels where the
        weights' mean and deviation are alike in all, and nearly so elsewhere; for 4 and more they are repeated and scaled to keep the sum (timm's rule)

    Raises
    ------
    InputError
        no such library or architecture (with the nearest names), or one whose family is not in the table.
    """
    families = {"timm": TIMM, "torchvision": TORCHVISION}.get(library)
    if families is None:
        raise InputError(f"There is no library {library!r} of vision networks. Say {' or '.join(LIBRARIES)}.")
    name = architecture.split(".")[0] if library == "timm" else architecture
    _check_name(library, name)
    family = next((f for f in families if re.fullmatch(f.pattern, name)), None)
    if family is None:
        raise InputError(f"{library} has {name!r}, but its family cannot be cut into stages yet. Known: {', '.join(f.pattern for f in families)}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = _made(library, architecture, num_classes)
    if state is not None:
        net.load_state_dict(dict(state))
    if channels != 3:
        _adapt_input(net, channels)
    return _cut(net.eval(), family, _preprocess(library, architecture, net, channels))


def names(library: str) -> list[str]:
    """Return the architectures of a library whose family can be cut."""
    table = TIMM if library == "timm" else TORCHVISION
    return [name for name in _known(library) if any(re.fullmatch(f.pattern, name) for f in table)]


def labels(library: str, architecture: str) -> tuple[str, ...]:
    """Return the names of the 1,000 ImageNet classes, in the order of the classifier's logits, where the weights are known to have them.

    >>> labels("torchvision", "resnet18")[:2]
    ('tench', 'goldfish')
    """
    tagged = architecture.split(".")[1] if library == "timm" and "." in architecture else "in1k"
    if "in1k" not in tagged and tagged not in {"untrained", "tv_in1k"}:
        return ()
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def tune_cuts(stages: int) -> tuple[int, ...]:
    """Return cuts that fine-tuning may start from: before the last stage of the body, and at six tenths of the chain.

    Nearer to the input the stored activations outgrow the images and the tail costs as much as the whole (measured: a gain under 1.4).

    >>> tune_cuts(9), tune_cuts(6)
    ((5, 7), (4,))
    """
    return tuple(sorted({max(1, round(0.6 * stages)), max(1, stages - 2)}))


class Positions(nn.Module):
    """Mean over the positions of (n, h, w, d): networks that keep channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2)) if x.ndim == 4 else x


class Tokens(nn.Module):
    """The class token of (n, tokens, d), or the mean over the tokens behind the first ``prefix``."""

    def __init__(self, prefix: int, *, first: bool) -> None:
        super().__init__()
        self.prefix = prefix
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 3:
            return x
        return x[:, 0] if self.first else x[:, self.prefix :].mean(dim=1)


class TimmEmbed(nn.Module):
    """A timm vision transformer up to its first block: patches, class tokens, positions."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.part = _only(net, ("patch_embed", "pos_drop", "patch_drop", "norm_pre"))

    def forward(self, x: Tensor) -> Tensor:
        part: Any = self.part
        out: Tensor = part.norm_pre(part.patch_drop(part._pos_embed(part.patch_embed(x))))
        return out


class TimmEnd(nn.Module):
    """What a timm network does behind its last stage, up to the classifier's input."""

    def __init__(self, net: Any, keep: Sequence[str]) -> None:
        super().__init__()
        self.part = _only(net, keep)
        self.norms = tuple(name for name in ("norm_pre", "norm", "final_conv") if name in keep and hasattr(net, name))

    def forward(self, x: Tensor) -> Tensor:
        part: Any = self.part
        for name in self.norms:
            x = getattr(part, name)(x)
        out: Tensor = part.forward_head(x, pre_logits=True)
        return out


class TimmHead(nn.Module):
    """A timm classifier head without its linear layer, in networks whose other last layers are stages."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.part = _without_classifier(copy.copy(_only(net, ("head",))))

    def forward(self, x: Tensor) -> Tensor:
        part: Any = self.part
        out: Tensor = part.head(x, pre_logits=True)
        return out


class TorchvisionEmbed(nn.Module):
    """A torchvision vision transformer up to its first block."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.part = _only(net, ("conv_proj",))
        self.positions = net.encoder.pos_embedding
        self.dropout = net.encoder.dropout

    def forward(self, x: Tensor) -> Tensor:
        part: Any = self.part
        tokens = part._process_input(x)
        first = part.class_token.expand(len(x), -1, -1)
        out: Tensor = self.dropout(torch.cat([first, tokens], dim=1) + self.positions)
        return out


class First(nn.Module):
    """The first token."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class Rectify(nn.Module):
    """ReLU, mean over positions, flat: DenseNet's own end, written there as functions."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(functional.adaptive_avg_pool2d(functional.relu(x), (1, 1)), 1)


class Average(nn.Module):
    """Mean over positions, flat."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1)


ENDS: dict[str, Callable[[Any], nn.Module]] = {
    "<flat>": lambda net: nn.Flatten(1),
    "<first>": lambda net: First(),
    "<rectify>": lambda net: Rectify(),
    "<average>": lambda net: Average(),
    "<timm>": lambda net: TimmEnd(net, ("norm_pre", "norm", "final_conv", "fc_norm", "head_drop", "global_pool", "head", "attn_pool", "pool")),
    "<timm head>": TimmHead,
    "<timm embed>": TimmEmbed,
    "<torchvision embed>": TorchvisionEmbed,
}


def _vit_pool(net: Any) -> Callable[[Tensor], Tensor]:
    return Tokens(net.num_prefix_tokens, first=net.global_pool == "token")


def _channels_last(net: Any) -> Callable[[Tensor], Tensor]:
    return Positions()


RESNET = tuple(f"layer{i} = layer{i}" for i in range(1, 5))
DENSE = (
    "stem = features.conv0 + features.norm0 + features.relu0 + features.pool0",
    *(f"denseblock{i} = features.denseblock{i} + features.transition{i}" for i in (1, 2, 3)),
    "denseblock4 = features.denseblock4 + features.norm5",
)
TIMM_DENSE = (DENSE[0].replace(" + features.relu0", ""), *DENSE[1:])

MLP = ("fc6 = pre_logits.fc1 + pre_logits.act1 + pre_logits.drop", "fc7 = pre_logits.fc2 + pre_logits.act2")
FC6 = "fc6 = avgpool + <flat> + classifier.0 + classifier.1 + classifier.2"
FC7 = ("classifier.3", "classifier.4", "classifier.5")

TIMM: tuple[Family, ...] = (
    Family(r"(seresnext|ecaresnet|resnext|wide_resnet|resnet)\d+.*", ("stem = conv1 + bn1 + act1 + maxpool", *RESNET), ("global_pool",), "fc"),
    Family(r"vgg\d+(_bn)?", ("features.|", *MLP), ("<timm head>",), "head.fc"),
    Family(r"densenet\d+", TIMM_DENSE, ("global_pool",), "classifier"),
    Family(r"mobilenet(v3|v4).*", ("stem = conv_stem + bn1", "blocks.*"), ("global_pool", "conv_head", "norm_head", "act2", "flatten"), "classifier"),
    Family(r"(tf_)?(efficientnet|mobilenetv[12]|efficientnetv2).*", ("stem = conv_stem + bn1", "blocks.*"), ("conv_head", "bn2", "global_pool"), "classifier"),
    Family(r"convnext.*", ("stem = stem", "stages.*"), ("<timm>",), "head.fc"),
    Family(r"regnet.*", ("stem = stem", "s1 = s1", "s2 = s2", "s3 = s3", "s4 = s4"), ("<timm>",), "head.fc"),
    Family(r"(vit|deit3?)_.*", ("embed = <timm embed>", "blocks.*"), ("<timm>",), "head", _vit_pool),
    Family(r"swinv2_cr.*", ("embed = patch_embed", "stages.*"), ("<timm>",), "head.fc"),
    Family(r"swin(v2)?_.*", ("embed = patch_embed", "layers.*"), ("<timm>",), "head.fc", _channels_last),
)
TORCHVISION: tuple[Family, ...] = (
    Family(r"alexnet", ("features.|", FC6), FC7, "classifier.6"),
    Family(r"vgg\d+(_bn)?", ("features.|", FC6), FC7, "classifier.6"),
    Family(r"(resnet|resnext|wide_resnet)\d+.*", ("stem = conv1 + bn1 + relu + maxpool", *RESNET), ("avgpool", "<flat>"), "fc"),
    Family(r"densenet\d+", DENSE, ("<rectify>",), "classifier"),
    Family(r"mobilenet_v2", ("features.|",), ("<average>",), "classifier.1"),
    Family(r"mobilenet_v3_(small|large)", ("features.|",), ("avgpool", "<flat>", "classifier.0", "classifier.1"), "classifier.3"),
    Family(r"efficientnet_.*", ("features.*",), ("avgpool", "<flat>"), "classifier.1"),
    Family(r"convnext_.*", ("features.*",), ("avgpool", "classifier.0", "classifier.1"), "classifier.2"),
    Family(r"regnet_.*", ("stem = stem", "trunk_output.*"), ("avgpool", "<flat>"), "fc"),
    Family(r"vit_.*", ("embed = <torchvision embed>", "encoder.layers.*"), ("encoder.ln", "<first>"), "heads.head", lambda net: Tokens(1, first=True)),
    Family(r"swin_.*", ("features.*",), ("norm", "permute", "avgpool", "flatten"), "head", _channels_last),
)


def _cut(net: Any, family: Family, look: Preprocess) -> Backbone:
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for written in family.stages:
        stages |= _expanded(net, written)
    stages["head"] = nn.Sequential(*(_found(net, part) for part in family.head))
    classifier = _found(net, family.classifier)
    if isinstance(getattr(net, "head_dist", None), nn.Module):
        classifier = None  # why: a distilled DeiT averages two classifiers of two tokens, which is no function of one feature
    dim = int(net.num_features if hasattr(net, "num_features") and classifier is None else getattr(classifier, "in_features", 0) or net.num_features)
    return Backbone(stages, dim=dim, preprocess=look, classifier=classifier, pooling=family.pool(net)).eval()


def _expanded(net: Any, written: str) -> dict[str, nn.Module]:
    if written.endswith(".*"):
        children = _found(net, written[:-2]).named_children()
        return {f"{written[:-2].split('.')[-1]}_{name}".replace("features_", "features"): child for name, child in children}
    if written.endswith(".|"):
        return {f"features{i}": nn.Sequential(*group) for i, group in enumerate(_by_resolution(_found(net, written[:-2])))}
    name, parts = written.split(" = ")
    found = [_found(net, part) for part in parts.split(" + ")]
    return {name: found[0] if len(found) == 1 else nn.Sequential(*found)}


def _by_resolution(sequence: nn.Module) -> list[list[nn.Module]]:
    """Group children; one that pools or strides begins a group, but for the very first."""
    groups: list[list[nn.Module]] = []
    for child in sequence.children():
        if not groups or (any(_shrinks(m) for m in child.modules()) and len(groups[-1]) > 0):
            groups.append([])
        groups[-1].append(child)
    return groups


def _shrinks(module: nn.Module) -> bool:
    stride = getattr(module, "stride", 1)
    return isinstance(module, nn.MaxPool2d | nn.Conv2d) and max(stride if isinstance(stride, tuple) else (stride,)) > 1


def _found(net: Any, path: str) -> Any:
    if path in ENDS:
        return ENDS[path](net)
    for name in path.split("."):
        net = net[int(name)] if isinstance(net, nn.Sequential) and name.isdigit() else getattr(net, name)
    return net


def _only(net: Any, keep: Sequence[str]) -> nn.Module:
    """Return a shallow copy of the network with those children alone; parameters of its own (tokens, positions) stay where they are used."""
    out = copy.copy(net)
    out.__dict__["_modules"] = {name: child for name, child in net._modules.items() if name in keep}
    own = net._parameters if "patch_embed" in keep or "conv_proj" in keep else {}
    out.__dict__["_parameters"] = dict(own)
    return _without_classifier(out)


def _without_classifier(part: Any) -> nn.Module:
    """Take the classifier's own weights out: a head that pools stays, a plain linear layer goes."""
    head = part._modules.get("head")
    if isinstance(head, nn.Linear):
        part._modules["head"] = nn.Identity()
    elif head is not None and isinstance(getattr(head, "fc", None), nn.Linear):
        part._modules["head"] = copy.copy(head)
        part._modules["head"].__dict__["_modules"] = {**head._modules, "fc": nn.Identity()}
    whole: nn.Module = part
    return whole


def _made(library: str, architecture: str, num_classes: int | None) -> Any:
    extra: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if library == "timm":
        import timm

        return timm.create_model(architecture, pretrained=False, **extra)
    import torchvision.models

    return torchvision.models.get_model(architecture, weights=None, **extra)


def _known(library: str) -> list[str]:
    if library == "timm":
        import timm

        return list(timm.list_models())
    import torchvision.models

    return list(torchvision.models.list_models(module=torchvision.models))


def _check_name(library: str, name: str) -> None:
    known = _known(library)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"{library} has no architecture {name!r}.{hint}")


def _adapt_input(net: nn.Module, channels: int) -> None:
    from timm.models import adapt_input_conv

    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    first.weight = nn.Parameter(adapt_input_conv(channels, first.weight.detach()))
    first.in_channels = channels
    for module in net.modules():
        if getattr(module, "in_chans", None) == 3:
            module.in_chans = channels  # type: ignore[assignment]


def _preprocess(library: str, architecture: str, net: Any, channels: int) -> Preprocess:
    if library == "timm":
        cfg = net.pretrained_cfg
        mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
        look = Preprocess(cfg["input_size"][1], cfg["crop_pct"], _interpolation(cfg["interpolation"]), mean, std)
    else:
        from torchvision.models import get_model_weights

        presets = list(get_model_weights(architecture))
        shown: Any = presets[0].transforms() if presets else None
        size, resize = int(shown.crop_size[0]), int(shown.resize_size[0])
        look = Preprocess(size, size / resize, _interpolation(shown.interpolation.value), tuple(shown.mean), tuple(shown.std))
    return look.with_channels(channels)


def _interpolation(name: str) -> Any:
    return name if name in {"bilinear", "bicubic"} else "bicubic"
