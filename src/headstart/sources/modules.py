"""A network of one's own as a source: a list of its parts, in order, makes the stages."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError, Preprocess, Source
from headstart.modality.families import tune_cuts


def from_module(
    module: nn.Module,
    stages: Sequence[str],
    *,
    name: str,
    preprocess: Preprocess | None = None,
    example: Tensor | None = None,
    factory: str = "",
    trained_on: str = "your own data",
    licence: str = "yours",
) -> Source:
    """Return a source of a module's parts.

    Parameters
    ----------
    module : the trained network
    stages : paths of sub-modules in the order in which they run; parts of one stage are joined by "+", such as ``["conv1+bn1+relu", "layer1"]``. Where the
        last does not give (n, d), the mean over positions does
    name : what the source is called
    preprocess : how images were prepared in training; default: 224 pixels, ImageNet's mean and deviation
    example : an input; where it is given, the stages are checked to give what ``module`` itself gives, bit for bit
    factory : "package.module:function" that makes the module with random weights; a model that is saved needs it

    Raises
    ------
    InputError
        a path that the module does not have (with its children), or stages that give something else than the module.

    Examples
    --------
    >>> net = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU(), last=nn.Conv2d(4, 5, 3)))
    >>> source = from_module(net, ["conv+act", "last"], name="mine", example=torch.ones(1, 3, 8, 8))
    >>> source.stages, source.dim
    (('conv', 'last', 'pool'), 5)
    """
    module = module.eval()
    look = preprocess or Preprocess()
    body, whole = _chain(module, stages), None
    probe = example if example is not None else torch.zeros(1, len(look.mean), look.size, look.size)
    with torch.inference_mode():
        out = nn.Sequential(body)(probe)
        if example is not None:
            whole = module(example)
    if whole is not None and not torch.equal(out, whole):
        raise InputError(f"The stages of {name!r} do not give what the module gives for the example. List every part that runs, in order.")
    dim = int(out.shape[1] if out.ndim in (2, 4) else out.shape[-1])
    about = dataclasses.asdict(look)
    recipe = {"library": "module", "factory": factory, "stages": list(stages), "dim": dim, "preprocess": about} if factory else {}
    made = staged(module, stages, dim=dim, preprocess=about)
    return Source(
        name=name,
        family=type(module).__name__,
        parameters=sum(p.numel() for p in made.parameters()),
        dim=dim,
        stages=made.cuts[1:],
        trained_on=trained_on,
        licence=licence,
        origin="a module of yours",
        tune_cuts=tune_cuts(len(made.stages)),
        opener=lambda: made,
        digest=partial(_sha256, made),
        recipe=recipe,
    )


def staged(module: nn.Module, stages: Sequence[str], *, dim: int, preprocess: Mapping[str, Any]) -> Backbone:
    """Return the module's parts as a backbone; a last stage "pool" makes (n, dim) of positions."""
    chain = _chain(module, stages)
    chain["pool"] = Flat()
    return Backbone(chain, dim=dim, preprocess=Preprocess.of(preprocess)).eval()


class Flat(nn.Module):
    """The mean over positions of (n, d, h, w) or (n, tokens, d); (n, d) as it is."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return x.mean(dim=(2, 3))
        return x.mean(dim=1) if x.ndim == 3 else x


def _chain(module: nn.Module, stages: Sequence[str]) -> OrderedDict[str, nn.Module]:
    out: OrderedDict[str, nn.Module] = OrderedDict()
    for written in stages:
        parts = [_part(module, path.strip()) for path in written.split("+")]
        out[written.split("+")[0].strip().replace(".", "_")] = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
    if not out:
        raise InputError("The list of stages is empty. Name the module's parts in the order in which they run.")
    return out


def _part(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in module.named_children())
        raise InputError(f"{type(module).__name__} has no part {path!r}. Its children: {children}.") from None


def _sha256(module: nn.Module) -> str:
    whole = hashlib.sha256()
    for name, value in module.state_dict().items():
        whole.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        whole.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else value.numpy().tobytes())
    return whole.hexdigest()
