"""Adapters: small updates of frozen layers, learnt beside them by ``peft`` and merged into the weights when training ends.

What is served is the source's plain stages, so that an adapted net is saved, loaded and run like any other. ``peft`` is optional and loaded only when a net
is built.
"""

from __future__ import annotations

import importlib.util
import re
from abc import abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from headstart.core import InputError, Net, Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned, starts

INSTALL = "pip install 'headstart[adapters]'"


class Adapter(Tuned):
    """Freeze a copy of the stages above a cut, learn an update of each of its linear and convolutional layers, and a head.

    All of them, not those of attention alone: an update of every linear layer is what reaches full fine-tuning (Dettmers et al. 2023, QLoRA, sec. 4), and
    convolutional networks have no attention. Nothing of the source moves, norms, biases and statistics included, until the update is merged.

    Left out, because what is merged would not be what was trained (measured with peft 0.21): subclasses of PyTorch's layers, which may use a weight in a way
    of their own (standardised, padded, read without a call as in ``nn.MultiheadAttention``); layers that share a weight; convolutions over groups, dilated or
    with a padding other than zeros, which LoRA computes as if they were plain. Of peft's adapters OFT is left out, as it rotates the wrong numbers in
    convolutions larger than 1 x 1; AdaLoRA, which asks for a schedule of its own; BOFT, which compiles code; PiSSA and OLoRA, which move the source.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"plain layers"})

    @abstractmethod
    def config(self, **given: Any) -> Any:
        """Return peft's description of the adapter; ``given`` names the layers."""

    def takes(self, module: nn.Module) -> bool:
        """Whether a layer can be adapted and merged."""
        return is_plain(module)

    def cut(self, source: Source) -> int:
        """Return the cut that ``depth`` names, of those below at least one layer that can be adapted; where none is stored, the input."""
        cuts = [cut for cut in starts(source) if self.targets(source.backbone.above(cut))] or [0]
        return cuts[min(self.depth, len(cuts) - 1)]

    def targets(self, body: nn.Module) -> list[str]:
        """Return the names of the layers that are adapted: those that it takes and whose weight no other module has."""
        found = [(name, module) for name, module in body.named_modules(remove_duplicate=False) if self.takes(module)]
        weights = [id(module.weight) for _, module in found]
        return [name for name, module in found if weights.count(id(module.weight)) == 1]

    def body(self, source: Source, *, seed: int) -> nn.Sequential:
        installed()
        from peft import inject_adapter_in_model

        body = super().body(source, seed=seed)
        names = self.targets(body)
        gpt = all(is_gpt_layer(body.get_submodule(name)) for name in names)
        # why an expression: a list of names also matches every layer whose name ends in one of them
        given = {"target_modules": "|".join(re.escape(name) for name in names), **({"fan_in_fan_out": True} if gpt else {})}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            inject_adapter_in_model(self.config(**given), body)  # in place
        return body

    def learns(self, module: nn.Module, name: str) -> bool:
        """Whether the tensor is the adapter's: peft leaves a gradient to those alone."""
        return bool(module.get_parameter(name).requires_grad)

    def finish(self, net: Net) -> Net:
        return Net(merged(net.body), net.head, net.scaffold)


@dataclass(frozen=True)
class LoRA(Adapter):
    """Add a product of two thin matrices to each layer: W + alpha / r B A, B from zeros (Hu et al. 2022, sec. 4.1).

    Of a convolution, A has the kernel's size and r outputs, and B is 1 x 1. It learns r (inputs x kernel + outputs) numbers a layer.

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    r : rank of the update; 8, as in peft
    alpha : scale of the update, times r; 8, as in peft
    rate : peak learning rate of AdamW; 3e-3 is the middle of what is in use (peft's example for images has 5e-3). From 3e-4 to 1e-2 scores differ by less
        than folds do, on 450 cells and on 500 questions; at 1e-1 nothing is learnt (LOG.md)
    steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> LoRA().takes(nn.Linear(2, 2)), LoRA().takes(nn.Conv2d(2, 2, 3, groups=2))
    (True, False)
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "Hu et al. 2022, LoRA: low-rank adaptation of large language models"
    limits: ClassVar[str] = "depthwise convolutions stay as they are; hardly quicker than tuning the same layers whole"
    needs: ClassVar[frozenset[str]] = frozenset({"layers"})

    depth: int = knob(0, choices=(0, 1))
    r: int = knob(8, choices=(4, 8, 16))
    alpha: int = knob(8, choices=(8, 16, 32))
    rate: float = knob(3e-3, low=3e-4, high=1e-2, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def takes(self, module: nn.Module) -> bool:
        return is_plain(module) or is_gpt_layer(module)

    def config(self, **given: Any) -> Any:
        from peft import LoraConfig

        return LoraConfig(r=self.r, lora_alpha=self.alpha, **given)


@dataclass(frozen=True)
class RsLoRA(LoRA):
    """LoRA with the scale alpha / sqrt(r), with which a larger rank does not learn more slowly (Kalajdzievski 2023).

    Parameters
    ----------
    r : rank of the update
    alpha : scale of the update, times sqrt(r)
    depth, rate, steps, smoothing, dropout : as in :class:`LoRA`
    """

    name: ClassVar[str] = "rs-lora"
    paper: ClassVar[str] = "Kalajdzievski 2023, A rank stabilization scaling factor for fine-tuning with LoRA"
    limits: ClassVar[str] = "as LoRA; at rank 8 it is LoRA with a scale of 2.8"

    r: int = knob(8, choices=(8, 16, 32))
    alpha: int = knob(8, choices=(8, 16))
    rate: float = knob(3e-3, low=3e-4, high=5e-3, log=True)  # why: 1e-2 is too much at this scale (LOG.md)

    def config(self, **given: Any) -> Any:
        return super().config(**given, use_rslora=True)


@dataclass(frozen=True)
class DoRA(LoRA):
    """LoRA of a weight's direction, and a learnt length of each of its rows (Liu et al. 2024, eq. 5): m (W + BA) / |W + BA|.

    The gradient takes the length below as a constant, as in the paper's sec. 4.3.

    Parameters
    ----------
    depth, r, alpha, rate, steps, smoothing, dropout : as in :class:`LoRA`
    """

    name: ClassVar[str] = "dora"
    paper: ClassVar[str] = "Liu et al. 2024, DoRA: weight-decomposed low-rank adaptation"
    limits: ClassVar[str] = "as LoRA, and every step takes the norm of every weight"
    weight_decay: ClassVar[float] = 0.0  # why: a length that decays goes to 0, not to the source's

    def config(self, **given: Any) -> Any:
        return super().config(**given, use_dora=True)


@dataclass(frozen=True)
class LoHa(Adapter):
    """Add the elementwise product of two low-rank matrices, whose rank is up to r^2 (Hyeon-Woo et al. 2022, prop. 1).

    Parameters
    ----------
    r : rank of each of the two
    alpha : scale of the update, times r
    depth, rate, steps, smoothing, dropout : as in :class:`LoRA`
    """

    name: ClassVar[str] = "loha"
    paper: ClassVar[str] = "Hyeon-Woo et al. 2022, FedPara: low-rank Hadamard product"
    limits: ClassVar[str] = "twice LoRA's numbers at the same r; starts slowly, as one of four factors is 0 and the others are small"

    depth: int = knob(0, choices=(0, 1))
    r: int = knob(8, choices=(4, 8, 16))
    alpha: int = knob(8, choices=(8, 16, 32))
    rate: float = knob(3e-3, low=3e-4, high=1e-2, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def config(self, **given: Any) -> Any:
        from peft import LoHaConfig

        return LoHaConfig(r=self.r, alpha=self.alpha, **given)


@dataclass(frozen=True)
class LoKr(Adapter):
    """Add a Kronecker product of a small matrix and a larger one, of rank r where that is fewer numbers (Edalati et al. 2022, KronA; Yeh et al. 2024).

    Parameters
    ----------
    r : rank of the larger factor
    alpha : scale of the update, times r
    depth, rate, steps, smoothing, dropout : as in :class:`LoRA`
    """

    name: ClassVar[str] = "lokr"
    paper: ClassVar[str] = "Yeh et al. 2024, Navigating text-to-image customization (LyCORIS)"
    limits: ClassVar[str] = "blocks of a layer move alike"

    depth: int = knob(0, choices=(0, 1))
    r: int = knob(8, choices=(4, 8, 16))
    alpha: int = knob(8, choices=(8, 16, 32))
    rate: float = knob(3e-3, low=3e-4, high=1e-2, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def config(self, **given: Any) -> Any:
        from peft import LoKrConfig

        return LoKrConfig(r=self.r, alpha=self.alpha, **given)


@dataclass(frozen=True)
class IA3(Adapter):
    """Learn a factor for each output of each layer (Liu et al. 2022, sec. 3.3).

    The paper scales keys, values and the inner layer of a transformer's block, where they are known by name; here every layer has factors, so that it
    holds for any network. Convolutions over groups are taken as well.

    Parameters
    ----------
    depth, rate, steps, smoothing, dropout : as in :class:`LoRA`

    Examples
    --------
    >>> IA3().takes(nn.Conv2d(2, 2, 3, groups=2))
    True
    """

    name: ClassVar[str] = "ia3"
    paper: ClassVar[str] = "Liu et al. 2022, Few-shot parameter-efficient fine-tuning is better and cheaper (T-Few)"
    limits: ClassVar[str] = "scales what a layer tells apart, and adds nothing"
    needs: ClassVar[frozenset[str]] = frozenset({"layers"})
    weight_decay: ClassVar[float] = 0.0  # why: a factor that decays goes to 0, not to 1

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(3e-3, low=3e-4, high=1e-2, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def takes(self, module: nn.Module) -> bool:
        return type(module) in {nn.Linear, nn.Conv2d} or is_gpt_layer(module)

    def config(self, **given: Any) -> Any:
        from peft import IA3Config

        return IA3Config(feedforward_modules=[], **given)


@dataclass(frozen=True)
class HRA(Adapter):
    """Reflect each layer's inputs at r learnt hyperplanes, which turns its weights and keeps their lengths (Yuan et al. 2024).

    Reflections begin in equal pairs, which undo each other.

    Parameters
    ----------
    r : number of reflections, even
    depth, rate, steps, smoothing, dropout : as in :class:`LoRA`
    """

    name: ClassVar[str] = "hra"
    paper: ClassVar[str] = "Yuan et al. 2024, Bridging the gap between low-rank and orthogonal adaptation"
    limits: ClassVar[str] = "square kernels only; a pair of equal reflections is exact up to rounding alone"

    depth: int = knob(0, choices=(0, 1))
    r: int = knob(8, choices=(4, 8, 16))
    rate: float = knob(3e-3, low=3e-4, high=1e-2, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def takes(self, module: nn.Module) -> bool:
        return is_plain(module) and len(set(getattr(module, "kernel_size", ()))) <= 1

    def body(self, source: Source, *, seed: int) -> nn.Sequential:
        body = super().body(source, seed=seed)
        for module in body.modules():
            if isinstance(module, nn.Conv2d):  # why: peft turns a kernel as one matrix, which weights with channels last are not in memory
                module.weight.data = module.weight.data.contiguous()
        return body

    def config(self, **given: Any) -> Any:
        from peft import HRAConfig

        return HRAConfig(r=self.r, **given)


def installed() -> None:
    """Raise ``InputError`` with the install line where ``peft`` is missing."""
    if importlib.util.find_spec("peft") is None:
        raise InputError(f"Adapters need the package peft. Install it: {INSTALL}")


def is_plain(module: nn.Module) -> bool:
    """Whether a layer is PyTorch's own linear one, or its own convolution without groups, dilation or a padding other than zeros.

    >>> is_plain(nn.Conv2d(2, 2, 3)), is_plain(nn.Conv2d(2, 2, 3, dilation=2)), is_plain(nn.LayerNorm(2))
    (True, False, False)
    """
    if type(module) is nn.Conv2d:
        return module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def is_gpt_layer(module: nn.Module) -> bool:
    """Whether it is the linear layer of transformers' GPT-2, whose weight lies on its side."""
    return type(module).__name__ == "Conv1D"


def adaptable(source: Source, *, plain: bool) -> bool:
    """Whether a source has a layer to adapt; ``plain`` leaves GPT-2's out."""
    return any(is_plain(m) or (not plain and is_gpt_layer(m)) for m in source.backbone.stages.modules())


def merged(body: nn.Sequential) -> nn.Sequential:
    """Return the stages with every adapter merged into its layer's weights, and taken off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer) and not isinstance(parent, BaseTunerLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    return nn.Sequential(OrderedDict(body.named_children()))
