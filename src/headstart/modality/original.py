"""A library's own network beside the stages that were cut from it: which name of the one is which of the other, and the line that builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError
from headstart.modality import families, language, vision

LITE = {"stem.conv": "conv_stem", "stem.bn": "bn1", **{f"blocks{i}": f"blocks.{i}" for i in range(7)}, "head.conv": "conv_head", "head.bn": "bn2"}
FIRES = {"fire3": {1: 3, 2: 4}, "fire5": {1: 6, 2: 7}, "fire6": {1: 9}}  # of a stage's own numbers: the first is its pooling
SQUEEZE = {"stem.0": "features.0", **{f"{s}.{i}": f"features.{j}" for s, of in FIRES.items() for i, j in of.items()}}
SQUEEZE |= {f"fire{k}": f"features.{k + 3}" for k in (7, 8, 9)}


@dataclass(frozen=True)
class Original:
    """The network of a library, and the same as stages.

    ``line`` is the Python expression that builds it, of a transformer the arguments of its configuration; ``classifier`` names what is taken out of it so
    that it ends in features, and ``instead`` what is put there; ``layers`` lists for each stage prefixes of names among the stages, each with the same
    prefix in the network.
    """

    net: nn.Module
    backbone: Backbone
    library: str
    line: str
    classifier: str
    instead: str
    layers: tuple[tuple[str, str, str], ...]

    def place(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of stages by the network's own names."""
        return {own + name[len(kept) :]: value for name, value in state.items() for _, kept, own in self.layers if name.startswith(kept)}


def original(recipe: Mapping[str, Any], *, seed: int) -> Original:
    """Return the network that a recipe names, with random weights from ``seed``; see ``sources.twin``.

    Raises
    ------
    InputError
        no library builds it: it came as a graph, from a module of the user's own, or from a package of the wider pool.
    """
    library = str(recipe.get("library"))
    rest = {k: v for k, v in recipe.items() if k not in {"library", "preprocess"}}
    if library == "efficientnet_lite":
        name = f"tf_efficientnet_lite{rest['variant']}"
        net, body = vision.seeded(lambda: _timm(name), seed), vision.efficientnet_lite(rest["variant"], None, seed=seed)
        return Original(net, body, "timm", f"timm.create_model({name!r})", "classifier", "nn.Identity()", _listed(LITE))
    if library == "squeezenet":
        net, body = vision.seeded(_squeezenet, seed), vision.squeezenet(None, seed=seed)
        line = "torchvision.models.squeezenet1_1(weights=None)"
        return Original(net, body, "torchvision", line, "classifier", "nn.AdaptiveAvgPool2d(1)", _listed(SQUEEZE))
    if library in families.LIBRARIES and rest.get("channels", 3) == 3:
        return _of_library(library, rest, seed=seed)
    if library == "transformers":
        return _of_transformers(rest, seed=seed)
    raise InputError(f"eject cannot write a network of the kind {library!r}, only those that timm, torchvision and transformers build by name.")


def _of_library(library: str, rest: Mapping[str, Any], *, seed: int) -> Original:
    architecture = rest["architecture"]
    net, family, body = families.whole(library, architecture, num_classes=rest.get("num_classes"), seed=seed)
    call = "timm.create_model({}{})" if library == "timm" else "torchvision.models.get_model({}, weights=None{})"
    classes = f", num_classes={rest['num_classes']}" if rest.get("num_classes") else ""
    return Original(net, body, library, call.format(repr(architecture), classes), family.classifier, "nn.Identity()", _matched(net, body))


def _of_transformers(rest: Mapping[str, Any], *, seed: int) -> Original:
    transformers: Any = import_module("transformers")
    configs, models = transformers.AutoConfig, transformers.AutoModel
    said = {k: v for k, v in rest["config"].items() if k not in {"architectures", "transformers_version", "_name_or_path", "use_cache", "dtype"}}
    kind = said.pop("model_type")
    if rest.get("layers") is not None:
        said |= {"num_hidden_layers": rest["layers"]}
        said |= {"layer_types": said["layer_types"][: rest["layers"]]} if said.get("layer_types") else {}
    usual = configs.for_model(kind).to_dict()
    changed = {k: v for k, v in said.items() if k not in usual or usual[k] != v}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = models.from_config(configs.for_model(kind, **changed), dtype=torch.float32)
    body = language.staged(net, None, **{k: rest.get(k) for k in ("pooling", "max_length")}, normalise=bool(rest.get("normalise")))
    line = ", ".join([repr(kind), *(f"{k}={v!r}" for k, v in changed.items())])
    return Original(net, body, "transformers", line, "", "", _matched(net, body))


def cut_modules(found: Original, body: Backbone, cuts: tuple[int, ...], x: Tensor) -> list[str]:
    """Return the names of the network's modules that put out what ``body``, the same with weights, has at the cuts; "" is the network itself.

    Both run on ``x`` and the outputs are compared bit for bit, so that what is written down is what was measured. Raises ``InputError`` where no module
    has such an output.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str, out: object) -> None:
        if isinstance(out, Tensor):
            outputs[name] = out.detach().clone()

    hooks = [m.register_forward_hook(lambda _, given, out, name=n: keep(name, out)) for n, m in _filled(found, body).named_modules()]
    with torch.inference_mode():
        found.net.eval()(x)
        wanted = [body.below(cut).eval()(x) for cut in cuts]
    for hook in hooks:
        hook.remove()
    names = [next((n for n, out in outputs.items() if out.shape == w.shape and torch.equal(out, w)), None) for w in wanted]
    if None in names:
        raise InputError(f"eject finds no module of {found.line} whose output is that of stage {body.cuts[cuts[names.index(None)]]!r}.")
    return [str(n) for n in names]


def hidden_states(found: Original, body: Backbone, cuts: tuple[int, ...], x: Tensor) -> list[int]:
    """Return which of a transformer's ``hidden_states`` lie at the cuts, compared bit for bit on token ids and mask (n, t, 2); -1: its last state."""
    last = len(body.stages)
    with torch.inference_mode():
        out = _filled(found, body).eval()(input_ids=x[..., 0], attention_mask=x[..., 1], output_hidden_states=True)
        for cut in cuts:
            if cut < last and not torch.equal(out.hidden_states[cut - 1], body.below(cut)(x)[..., :-1]):
                raise InputError(f"eject finds no hidden state of this network that is the output of stage {body.cuts[cut]!r}.")
    return [cut - 1 if cut < last else -1 for cut in cuts]


def _filled(found: Original, body: Backbone) -> nn.Module:
    """Return the network without its classifier, with the weights of the stages: at random weights, stages that begin as identities look alike."""
    if found.classifier:
        found.net.set_submodule(found.classifier, nn.AdaptiveAvgPool2d(1) if "Pool" in found.instead else nn.Identity())
    found.net.load_state_dict(found.place(body.state_dict()))
    return found.net


def _timm(name: str) -> Any:
    import timm

    return timm.create_model(name)


def _squeezenet() -> Any:
    from torchvision.models import squeezenet1_1

    return squeezenet1_1(weights=None)


def _listed(names: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    return tuple((kept.split(".")[0], f"stages.{kept}.", f"{own}.") for kept, own in names.items())


def _matched(net: nn.Module, body: Backbone) -> tuple[tuple[str, str, str], ...]:
    """Match names by the tensors that they share, and say it with the longest prefixes that hold for all tensors of a layer."""
    own = {id(value): name for name, value in [*net.state_dict(keep_vars=True).items(), *_dropouts(net)]}
    rows: dict[tuple[str, str, str], list[str]] = {}
    for stage, module in body.stages.items():
        head = f"stages.{stage}."
        named = [*module.state_dict(keep_vars=True).items(), *_dropouts(module)]
        for kept, name in [(head + k, own[id(v)]) for k, v in named if id(v) in own]:
            common = _common_end(kept[len(head) :], name)
            rows.setdefault((stage, kept[: len(kept) - common], name[: len(name) - common]), []).append(name)
    return tuple(dict.fromkeys(row for (stage, kept, mine), names in rows.items() for row in _extended(stage, kept, mine, names)))


def _dropouts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules without tensors that behave otherwise in training."""
    drops = [(name, m) for name, m in module.named_modules() if "drop" in type(m).__name__.lower()]
    return [(f"{name}.", m) for name, m in drops if any(getattr(m, key, None) for key in ("p", "drop_prob"))]


def _common_end(kept: str, own: str) -> int:
    """Length of the common end of two names, in whole parts.

    >>> _common_end("0.part.conv.weight", "layer.conv.weight")
    11
    """
    a, b = kept.split("."), own.split(".")
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return len(".".join(a[len(a) - n :]))


def _extended(stage: str, kept: str, own: str, names: list[str]) -> list[tuple[str, str, str]]:
    """Split a row without a prefix of its own by the next part, and lengthen prefixes by parts that all names share."""
    rests = [name[len(own) :] for name in names]
    firsts = list(dict.fromkeys(rest.split(".")[0] for rest in rests))
    if own and (len(firsts) > 1 or own + firsts[0] in names):
        return [(stage, kept, own)]
    out = []
    for first in firsts:
        mine = [name for name, rest in zip(names, rests, strict=True) if rest.split(".")[0] == first]
        step = first if own + first in mine else f"{first}."
        deeper = step.endswith(".") and any(name != own + step for name in mine)
        out += _extended(stage, kept + step, own + step, mine) if deeper and len(firsts) == 1 else [(stage, kept + step, own + step)]
    return out
