"""Cutting a vision network into stages: how a row of the table of families is read, and the pieces that networks write as functions."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Backbone, Preprocess, mean_over_positions


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


def tail(stages: nn.ModuleDict) -> int:
    """Return how many of the last stages do nothing but take the mean over positions, or hand on what they are given.

    >>> tail(nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}))
    2
    >>> tail(nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "act": nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1))}))
    0
    """
    last = list(stages.values())[:0:-1]  # why not the first: a network has one level at least
    return next((i for i, stage in enumerate(last) if not _merely_pools(stage)), len(last))


def _merely_pools(stage: nn.Module) -> bool:
    if isinstance(stage, nn.AdaptiveAvgPool2d):
        return stage.output_size in (1, (1, 1))
    if isinstance(stage, TimmEnd | TimmHead):
        parts = [part for part in stage.modules() if not any(True for _ in part.children())]
        return bool(parts) and all(_merely_pools(part) for part in parts)
    if isinstance(stage, nn.Sequential) or type(stage).__name__ == "SelectAdaptivePool2d":
        return all(_merely_pools(part) for part in stage.children())
    return isinstance(stage, Flat | Average | nn.Flatten | nn.Identity | nn.Dropout)


def cut(net: Any, family: Family, look: Preprocess) -> Backbone:
    """Return the stages of a network, as its family says."""
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


class Flat(nn.Module):
    """The mean over positions of (n, d, h, w) or (n, tokens, d); (n, d) as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return mean_over_positions(x)


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
