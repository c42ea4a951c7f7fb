"""Who learns, and what is frozen bit for bit: the tensors of a net by stage, and the modes of its modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from headstart.core import Net
from headstart.methods.method import Method


@dataclass(frozen=True)
class Learner:
    """A tensor that may learn: its name in the net, its stage (the last is the head), and its weight decay."""

    name: str
    tensor: nn.Parameter
    stage: int
    decay: float
    allowed: bool


def learners(net: Net, method: Method) -> list[Learner]:
    """List every tensor of the body and the head once, in the stage that holds it first, and what learns of the scaffold with the head."""
    parts: list[tuple[str, nn.Module]] = [*((f"body.{name}", stage) for name, stage in net.body.named_children()), ("head", net.head)]
    head = len(parts) - 1
    if net.scaffold is not None:
        parts.append(("scaffold", net.scaffold))
    found: dict[nn.Parameter, Learner] = {}
    for i, (prefix, part) in enumerate(parts):
        for path, module in part.named_modules(prefix=prefix):
            for name, tensor in module.named_parameters(recurse=False):
                if tensor not in found and (i <= head or tensor.requires_grad):
                    allowed = (i >= head or method.learns(module, name)) and not f"{path}.{name}".startswith(method.fixed)
                    decay = method.weight_decay if tensor.ndim > 1 else 0.0
                    found[tensor] = Learner(f"{path}.{name}", tensor, min(i, head), decay, allowed)
    return list(found.values())


def set_modes(net: Net, who: Sequence[Learner], factors: Sequence[float], multiples: dict[str, float], method: Method) -> None:
    """Put every module into the mode, and every tensor into the state, that the rates of this step ask for; a rate or a multiple of 0 freezes."""
    net.train()
    for stage, factor in zip([*net.body.children(), net.head], factors, strict=True):
        if factor == 0:
            stage.eval()  # why: a frozen BatchNorm would still move its running statistics, and the stage would drift without a gradient
    for one in who:
        one.tensor.requires_grad_(one.allowed and factors[one.stage] > 0 and multiples.get(one.name, 1.0) > 0)
    for part in () if net.scaffold is None else net.scaffold.values():
        part.train(any(p.requires_grad for p in part.parameters()))
    if method.freezes_statistics:
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
