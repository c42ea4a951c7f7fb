"""Plain PyTorch: channels last, BatchNorm folded into the convolutions before it, in float32 or under bfloat16 autocast; on a GPU where there is one."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

SAME = 1e-4  # of the largest output: rounding of float32 through a hundred layers; another wiring is wrong by far more


class PyTorch:
    """Runs a network of several outputs (see :class:`~headstart.activations.engines.Outputs`).

    Parameters
    ----------
    net : in evaluation mode; it is not changed, apart from the memory layout of its weights
    sample : (1, ...) an input, to find out which BatchNorm reads which convolution
    device : "cpu" or "cuda"
    reduced : convolutions and matrix products in bfloat16
    """

    def __init__(self, net: nn.Module, sample: Tensor, *, device: str = "cpu", reduced: bool = False) -> None:
        self.device, self.reduced = device, reduced
        self.images = sample.ndim == 4
        net = folded(net, sample) if self.images else net
        if reduced:
            net = _replaced(net, {m: _in_bfloat16(m) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)})
        if device != "cpu":
            net = copy.deepcopy(net).to(device)  # why a copy: heads are fitted and nets saved from the one on the processor
        self.net = net.to(memory_format=torch.channels_last) if self.images else net

    def __call__(self, x: Tensor) -> list[np.ndarray]:
        """Return the outputs, float32, for a batch (n, ...)."""
        x = x.to(self.device)
        x = x.contiguous(memory_format=torch.channels_last) if self.images else x
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.reduced):
            return [out.float().cpu().contiguous().numpy() for out in self.net(x)]


def folded(net: nn.Module, sample: Tensor) -> nn.Module:
    """Return the network with each BatchNorm that reads a convolution's output multiplied into that convolution; weights of the rest are shared.

    Which one reads which is seen in a pass over ``sample`` (1, ...). Where the folded network then gives another output (a network may call its parts
    in ways that a pass does not show), the original is returned.

    >>> body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    >>> [type(m).__name__ for m in folded(nn.Sequential(body), torch.randn(1, 3, 2, 2))[0]]
    ['Conv2d', 'Identity']
    """
    pairs = _pairs(net, sample)
    if not pairs:
        return net
    changes: dict[nn.Module, nn.Module] = {conv: fuse_conv_bn_eval(conv, norm) for norm, conv in pairs.items()}
    changes |= {norm: _behind(norm) for norm in pairs}
    out = _replaced(net, changes)
    with torch.inference_mode():
        return out if _agree(net(sample), out(sample)) else net


def _pairs(net: nn.Module, sample: Tensor) -> dict[_BatchNorm, nn.Conv2d]:
    """Which BatchNorm reads exactly what a convolution wrote, where both are called once."""
    wrote: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # why the tensor is kept: a freed one's id may be given to another
    read: dict[_BatchNorm, nn.Conv2d] = {}
    calls: dict[nn.Module, int] = {}

    def after(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            wrote[id(out)] = (module, out)
        elif isinstance(module, _BatchNorm) and id(given[0]) in wrote:
            read[module] = wrote[id(given[0])][0]

    hooks = [m.register_forward_hook(after) for m in net.modules() if isinstance(m, nn.Conv2d | _BatchNorm)]
    try:
        with torch.inference_mode():
            net(sample)
    finally:
        for hook in hooks:
            hook.remove()
    shared = {conv for conv in read.values() if list(read.values()).count(conv) > 1}
    return {norm: conv for norm, conv in read.items() if calls[norm] == calls[conv] == 1 and conv not in shared and norm.running_mean is not None}


def _behind(norm: nn.Module) -> nn.Module:
    """What a BatchNorm does besides: timm's carry the activation with them."""
    parts = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module) and not isinstance(part, nn.Identity)]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts) if parts else nn.Identity()


def _replaced(net: nn.Module, changes: dict[nn.Module, nn.Module]) -> nn.Module:
    """Return a copy of the network's structure with those parts exchanged; all weights of other parts are shared with the original."""
    if net in changes:
        return changes[net]
    out = copy.copy(net)
    out.__dict__["_modules"] = {name: child if child is None else _replaced(child, changes) for name, child in net._modules.items()}
    return out


def _in_bfloat16(module: nn.Module) -> nn.Module:
    """Return the layer with its weights already rounded, so that autocast does not round them again for every batch."""
    out = copy.copy(module)
    out.__dict__["_parameters"] = {n: p if p is None else nn.Parameter(p.detach().bfloat16(), requires_grad=False) for n, p in module._parameters.items()}
    return out


def _agree(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> bool:
    return all(bool((a - b).abs().max() <= SAME * a.abs().max().clamp(min=1e-6)) for a, b in zip(ours, theirs, strict=True))
