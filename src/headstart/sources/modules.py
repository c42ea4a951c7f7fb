"""A network of one's own as a source: a list of its parts, in order, makes the stages.

    from_module(net, ["stem=conv1+bn1+relu()", "layer1", "layer2", "layer3"], name="ours", classifier="fc")

A part is a path ("blocks.0"), a slice of a ``Sequential`` ("features[0:5]"), or what a ``forward`` does between modules ("relu()"). Parts of one stage
are joined by "+"; "stem=" names a stage, which else is called like its first part.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError, Preprocess, Source
from headstart.modality.cutting import Flat, tail
from headstart.modality.families import tune_cuts
from headstart.modality.weights import Match, check, match, read_state


def from_module(
    module: nn.Module,
    stages: Sequence[str],
    *,
    name: str,
    preprocess: Preprocess | None = None,
    classifier: str = "",
    example: Tensor | None = None,
    weights: str | Path | None = None,
    factory: str = "",
    trained_on: str = "your own data",
    licence: str = "yours",
) -> Source:
    """Return a source of a module's parts; the module is shared, not copied.

    Parameters
    ----------
    module : the network
    stages : its parts in the order in which they run, see above. Where the last does not give (n, d), the mean over positions does
    name : what the source is called
    preprocess : how images were prepared in training; default: 224 pixels, ImageNet's mean and deviation
    classifier : path of the layer behind the feature, where there is one ("fc")
    example : an input; where it is given, the stages, with the classifier behind them where it is named, are checked to give what ``module`` itself
        gives, to 1e-5 of its largest value
    weights : file to load first: names are matched, and less than 90 % of the body's parameters is refused
    factory : "package.module:function" that makes the module with random weights; a model that is saved, and the baseline from scratch, need it

    Raises
    ------
    InputError
        a part that the module does not have (with the nearest); stages that do not follow on one another, or give something else than the module;
        weights that do not fit.

    Examples
    --------
    >>> net = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU(), last=nn.Conv2d(4, 5, 3)))
    >>> source = from_module(net, ["conv+act", "last"], name="mine", example=torch.ones(1, 3, 8, 8))
    >>> source.stages, source.dim
    (('conv', 'last', 'pool'), 5)
    """
    account = None if weights is None else _load(module, weights, classifier)
    look = asdict(preprocess or Preprocess())
    made = staged(module.eval(), stages, dim=0, preprocess=look, classifier=classifier)
    made.loaded = account
    mean, size = look["mean"], look["size"]
    made.dim = _check(made, module, torch.zeros(1, len(mean), size, size) if example is None else example, compared=example is not None, name=name)
    if factory:
        trust(factory)
    plain = {"library": "module", "factory": factory, "stages": list(stages), "dim": made.dim, "preprocess": look, "classifier": classifier}
    return Source(
        name=name,
        family=type(module).__name__,
        parameters=sum(p.numel() for p in made.stages.parameters()),
        dim=made.dim,
        stages=made.cuts[1:],
        trained_on=trained_on,
        licence=licence,
        origin="a module of yours",
        tune_cuts=tune_cuts(made.stages),
        opener=lambda: made,
        digest=partial(_sha256, made, f"{module}{list(stages)}"),
        recipe=plain if factory else {},
        tail=tail(made.stages),
    )


def trust(factory: str) -> None:
    """Let models that are saved from now on, or are loaded, call "package.module:function" to make their network.

    Whoever wrote a model's folder chooses that name, so that a name which this process has not heard from its own user is not called.
    """
    _TRUSTED.add(factory)


def is_trusted(factory: str) -> bool:
    """Whether this process may call it."""
    return factory in _TRUSTED


def build(factory: str, *, seed: int) -> nn.Module:
    """Return what a factory makes, with random weights from ``seed``. Raises ``InputError`` for one that is not trusted, or is not there."""
    if not is_trusted(factory):
        raise InputError(
            f"This model is made by {factory!r}, which is code outside Headstart, so it is not called. Where you trust it: hs.sources.trust({factory!r})."
        )
    place, _, function = factory.partition(":")
    try:
        call = getattr(import_module(place), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{factory!r} cannot be imported ({error}). Write package.module:function, and put the package on Python's path.") from None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network: nn.Module = call()
    return network


def staged(module: nn.Module, stages: Sequence[str], *, dim: int, preprocess: Mapping[str, Any], classifier: str = "") -> Backbone:
    """Return the module's parts as a backbone; a last stage "pool" makes (n, dim) of positions."""
    chain: OrderedDict[str, nn.Module] = OrderedDict()
    for written in stages:
        title, _, joined = written.rpartition("=")
        parts = [_part(module, path.strip()) for path in joined.split("+")]
        key = title.strip() or re.sub(r"\W+", "_", joined.split("+")[0].strip()).strip("_")
        if key in {*chain, "pool"}:
            raise InputError(f"Two stages are called {key!r}. Give one another name: 'NAME={joined}'.")
        chain[key] = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
    if not chain:
        raise InputError("The list of stages is empty. Name the module's parts in the order in which they run.")
    chain["pool"] = Flat()
    head = _part(module, classifier) if classifier else None
    return Backbone(chain, dim=dim, preprocess=Preprocess.of(preprocess), classifier=head).eval()


_TRUSTED: set[str] = set()  # why: what a user trusts is a matter of the process, not of any object in it
WORDS: Mapping[str, Callable[[], nn.Module]] = {
    "relu()": nn.ReLU,
    "gelu()": nn.GELU,
    "silu()": nn.SiLU,
    "tanh()": nn.Tanh,
    "flatten()": nn.Flatten,
    "mean()": Flat,
}
PART = re.compile(r"(?P<path>\w+(?:\.\w+)*)(?:\[(?P<low>-?\d*):(?P<high>-?\d*)\])?")


def _part(module: nn.Module, text: str) -> nn.Module:
    if text in WORDS:
        return WORDS[text]()
    found = PART.fullmatch(text)
    known: dict[str, nn.Module] = dict(module.named_modules())
    path = found["path"] if found else text
    if found is None or path not in known:
        children = ", ".join(name for name, _ in module.named_children())
        near = get_close_matches(path, [name for name in known if name], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{type(module).__name__} has no part {text!r}.{hint} Its children: {children}. Between parts there may be: {', '.join(WORDS)}.")
    part, low, high = known[path], found["low"], found["high"]
    if low is None:
        return part
    if not isinstance(part, nn.Sequential):
        raise InputError(f"{text!r}: {path} is a {type(part).__name__}, and only a Sequential can be sliced. Name its parts one by one.")
    return nn.Sequential(*list(part)[int(low) if low else None : int(high) if high else None])


def _load(module: nn.Module, file: str | Path, classifier: str) -> Match:
    fits, account = match(read_state(file), module.state_dict(), classifier=classifier)
    check(account, what=type(module).__name__)
    module.load_state_dict(fits, strict=False)
    return account


def _check(body: Backbone, module: nn.Module, example: Tensor, *, compared: bool, name: str) -> int:
    """Return the width of the feature, once the stages follow on one another and give what the module gives."""
    x = example
    before = x
    with torch.inference_mode():
        for key, stage in body.stages.items():
            before = x
            try:
                x = stage(x)
            except (RuntimeError, TypeError, ValueError) as error:
                shape, why = tuple(before.shape), str(error).splitlines()[0]
                raise InputError(f"Stage {key!r} of {name!r} does not take what comes before it, {shape} ({why}). Check the order.") from None
        if not isinstance(x, Tensor) or x.ndim != 2:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"The stages of {name!r} end in {got}; a feature (n, d) is needed. End with a part that gives one, or with '+mean()'.")
        if compared:
            ours = [x, before] if body.classifier is None else [body.classifier(x)]
            if not any(_same(one, module(example)) for one in ours):
                hint = "" if body.classifier is not None else " Where a layer makes class scores, name it: classifier='fc'."
                raise InputError(f"The stages of {name!r} do not give what the module gives for the example. List every part that runs, in order.{hint}")
    return int(x.shape[1])


def _same(ours: Tensor, theirs: Any) -> bool:
    if not isinstance(theirs, Tensor) or ours.shape != theirs.shape:
        return False
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


def _sha256(module: nn.Module, structure: str) -> str:
    """Hash the weights and the structure: two networks may share weights and differ in what runs between them."""
    whole = hashlib.sha256(structure.encode())
    for name, value in module.state_dict().items():
        whole.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        whole.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else value.numpy().tobytes())
    return whole.hexdigest()
