"""Every vision family of torchvision and timm as a chain of named stages, by one table.

A row says which of the network's own modules make each stage; the last module, the classifier, is kept aside. So
``backbone.classifier(backbone(x))`` is the original's forward, bit for bit.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError, Preprocess
from headstart.modality import weights
from headstart.modality.cutting import Family, Positions, Tokens, cut

LIBRARIES = ("timm", "torchvision")


def whole(library: str, architecture: str, *, num_classes: int | None = None, seed: int = 0) -> tuple[Any, Family, Backbone]:
    """Return a library's network with random weights, how its family is cut, and the same network as stages, which share its tensors."""
    family = _family(library, architecture)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = _made(library, architecture, num_classes)
    return net, family, cut(net.eval(), family, _preprocess(library, architecture, net, 3))


def build(
    library: str, architecture: str, *, state: Mapping[str, Tensor] | None = None, num_classes: int | None = None, channels: int = 3, seed: int = 0
) -> Backbone:
    """Return a network of torchvision or timm as stages.

    Parameters
    ----------
    library, architecture : "torchvision" or "timm", and the name that the library gives, such as "resnet50"; a timm name may carry the tag of its
        weights ("resnet50.a1_in1k"), which then says how images are prepared
    state : the original network's weights, by its own names, perhaps prefixed or partial (see :func:`weights.match`; what is missing stays random);
        ``None``: random ones from ``seed``
    num_classes : of the classifier, where the weights have another number than 1000; a classifier that does not fit is left out
    channels : of the input. For 1, the first layer's kernels are summed over colours, so that grey equals the same grey in three channels where the
        weights' mean and deviation are alike in all, and nearly so elsewhere; for 4 and more they are repeated and scaled to keep the sum (timm's rule)

    Raises
    ------
    InputError
        no such library or architecture (with the nearest names), one whose family is not in the table, or weights that fit too little.
    """
    family = _family(library, architecture)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = _made(library, architecture, num_classes)
    account = None if state is None else _load(net, state, family, what=f"{library}:{architecture.split('.')[0]}")
    if channels != 3:
        _adapt_input(net, channels)
    body = cut(net.eval(), family, _preprocess(library, architecture, net, channels))
    if account is not None:
        body.loaded = account
        if any(name.startswith(f"{family.classifier}.") for name in account.misshapen):
            body.classifier = None
    return body


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


@dataclass(frozen=True)
class Published:
    """Weights that a library publishes: where they lie, the architecture as the library names it, and what they were trained on."""

    architecture: str
    trained_on: str
    licence: str
    repository: str = ""
    url: str = ""


def published(library: str, name: str) -> Published:
    """Return where a library's weights lie: timm by architecture and tag, torchvision by the name of its enumeration. Raises ``InputError``."""
    return _published_by_timm(name) if library == "timm" else _published_by_torchvision(name)


def _published_by_timm(name: str) -> Published:
    import timm

    _check_name("timm", name.split(".")[0])
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError:
        cfg = None
    if cfg is None or not cfg.hf_hub_id:
        tags = [m.split(".", 1)[1] for m in timm.list_pretrained(f"{name.split('.')[0]}.*")]
        raise InputError(f"timm has no weights {name!r} on its hub. Tags of {name.split('.')[0]}: {', '.join(tags) or 'none'}.")
    tagged = name if "." in name or not cfg.tag else f"{name}.{cfg.tag}"
    return Published(tagged, f"{cfg.tag or 'unnamed'} ({cfg.num_classes:,} classes)", str(cfg.license or "ask who made it"), repository=str(cfg.hf_hub_id))


def _published_by_torchvision(name: str) -> Published:
    from torchvision.models import get_weight

    try:
        preset = get_weight(name)
    except (ValueError, KeyError, AttributeError):
        example = "torchvision:ResNet50_Weights.IMAGENET1K_V2"
        raise InputError(f"torchvision has no weights {name!r}. Write the name of its enumeration, such as {example}.") from None
    short = type(preset).__name__.removesuffix("_Weights").lower().replace("_", "")
    architecture = next((a for a in names("torchvision") if a.replace("_", "") == short), short)
    return Published(architecture, f"{preset.name} ({len(preset.meta['categories']):,} classes)", "BSD-3-Clause", url=str(preset.url))


def tune_cuts(stages: nn.ModuleDict) -> tuple[int, ...]:
    """Return cuts that fine-tuning may start from: before the last stage of the body, and at six tenths of the chain.

    Nearer to the input the stored activations outgrow the images and the tail costs as much as the whole (measured: a gain under 1.4). Stages without
    parameters at the end (a mean, a flattening) count as one, or nothing could learn above the last cut.

    >>> learn = {f"block{i}": nn.Linear(2, 2) for i in range(6)}
    >>> tune_cuts(nn.ModuleDict({**learn, "pool": nn.Flatten()})), tune_cuts(nn.ModuleDict({**learn, "mean": nn.AvgPool1d(1), "pool": nn.Flatten()}))
    ((4, 5), (4, 5))
    """
    learning = max((i for i, stage in enumerate(stages.values(), 1) if any(True for _ in stage.parameters())), default=0)
    chain = min(len(stages), learning + 1)
    return tuple(sorted({max(1, round(0.6 * chain)), max(1, chain - 2)}))


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


def _family(library: str, architecture: str) -> Family:
    families = {"timm": TIMM, "torchvision": TORCHVISION}.get(library)
    if families is None:
        raise InputError(f"There is no library {library!r} of vision networks. Say {' or '.join(LIBRARIES)}.")
    name = architecture.split(".")[0] if library == "timm" else architecture
    _check_name(library, name)
    family = next((f for f in families if re.fullmatch(f.pattern, name)), None)
    if family is None:
        raise InputError(f"{library} has {name!r}, but its family cannot be cut into stages yet. Known: {', '.join(f.pattern for f in families)}.")
    return family


def _load(net: nn.Module, state: Mapping[str, Tensor], family: Family, *, what: str) -> weights.Match:
    own = net.state_dict()
    fits, account = weights.match(state, own, classifier=family.classifier)
    weights.check(account, what=what)
    net.load_state_dict({**own, **fits})
    return account


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
