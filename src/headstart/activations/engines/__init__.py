"""Engines: what runs frozen stages. One function opens them all; each is handed a batch and returns the wanted activations in float32.

"torch" is always there and is what the others are measured and checked against. "-bf16" computes convolutions and matrix products in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.activations.engines.allocator import tune_allocator
from headstart.core import Backbone, InputError, Preprocess, Source, TextInput

if TYPE_CHECKING:
    from headstart.activations.store import Space

__all__ = ["ENGINES", "Engine", "Outputs", "Wanted", "available", "described", "forward", "open_engine", "require", "revision", "tune_allocator"]

Wanted = Sequence[tuple[Literal["pooled", "raw"], int]]
Engine = Callable[[Tensor], list[np.ndarray]]

# name: package that runs it, its name for people, precision
ENGINES: dict[str, tuple[str, str, str]] = {
    "torch": ("torch", "PyTorch", "float32"),
    "torch-bf16": ("torch", "PyTorch", "bfloat16"),
    "openvino": ("openvino", "OpenVINO", "float32"),
    "openvino-bf16": ("openvino", "OpenVINO", "bfloat16"),
    "onnxruntime": ("onnxruntime", "ONNX Runtime", "float32"),
    "cuda": ("torch", "PyTorch on CUDA", "float32"),
    "cuda-bf16": ("torch", "PyTorch on CUDA", "bfloat16"),
}
NEEDS = {"onnxruntime": ("onnxruntime", "onnx", "onnxscript")}
INSTALL = "pip install 'headstart[fast]'"
MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")


class Outputs(nn.Module):
    """A backbone as one network with several outputs: pooled or whole activations at the wanted cuts, in their order.

    >>> body = Backbone({"a": nn.Linear(3, 4), "b": nn.Linear(4, 2)}, dim=2)
    >>> [tuple(out.shape) for out in Outputs(body, [("raw", 1), ("pooled", 2)])(torch.ones(5, 3))]
    [(5, 4), (5, 2)]
    """

    def __init__(self, backbone: Backbone, wanted: Wanted) -> None:
        super().__init__()
        self.stages = nn.ModuleList(list(backbone.stages.values())[: max(cut for _, cut in wanted)])
        self.pooling = backbone.pooling
        self.wanted = tuple(wanted)
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out: dict[tuple[str, int], Tensor] = {}
        for cut, stage in enumerate(self.stages, 1):
            x = stage(x)
            out |= {key: self.pooling(x) if key[0] == "pooled" else x for key in self.wanted if key[1] == cut}
        return tuple(out[key] for key in self.wanted)


def available() -> tuple[str, ...]:
    """Return the engines that this machine has."""
    here = {name for name, (package, *_) in ENGINES.items() if all(find_spec(p) is not None for p in NEEDS.get(name, (package,)))}
    return tuple(name for name in ENGINES if name in here and (not name.startswith("cuda") or torch.cuda.is_available()))


def require(name: str) -> None:
    """Raise ``InputError`` for an engine that is not known, or that this machine lacks."""
    if name not in ENGINES:
        raise InputError(f"There is no engine {name!r}. Say auto, {', '.join(ENGINES)}.")
    if name not in available():
        what = "no GPU is visible to PyTorch" if name.startswith("cuda") else f"a package it needs is not installed; {INSTALL}"
        raise InputError(f"The engine {name} cannot be used here: {what}. These can: {', '.join(available())}.")


def revision(name: str) -> str:
    """Return what decides an engine's numbers besides the network: its name and the version of its package.

    >>> revision("torch").startswith("torch, BatchNorm folded, ")
    True
    """
    package = ENGINES[name][0]
    return f"{name}, {'BatchNorm folded, ' if package == 'torch' else ''}{_version(package)}"


def described(name: str) -> str:
    """Return an engine's name and version for people.

    >>> described("torch-bf16").startswith("PyTorch ")
    True
    """
    return f"{ENGINES[name][1]} {_version(ENGINES[name][0])}"


def open_engine(name: str, source: Source, wanted: Wanted, *, kept: Space | None = None) -> Engine:
    """Return what runs the source's frozen stages: a function of a batch at cut 0 that returns the wanted activations, float32, (n, ...) each.

    Parameters
    ----------
    name : one of ``ENGINES``
    wanted : which activations, such as ``[("pooled", 3), ("raw", 2)]``; text at an inner cut has its mask as the last channel
    kept : where the converted graph is kept, so that it is converted once; ``None`` keeps nothing

    Raises
    ------
    InputError
        the engine is not known or not installed, or cannot run this network.
    """
    require(name)
    tune_allocator()
    net = Outputs(source.backbone, wanted)
    if ENGINES[name][0] == "torch":
        from headstart.activations.engines.pytorch import PyTorch

        device = "cuda" if name.startswith("cuda") else "cpu"
        return PyTorch(net, sample(source.backbone, 1), device=device, reduced=name.endswith("-bf16"))
    if source.recipe.get("library") == "onnx":
        raise InputError(f"{source.name} is a graph of its own, which ONNX Runtime runs; {name} cannot. Use the engine torch, or auto.")
    from headstart.activations.engines import graphs

    opened = graphs.onnxruntime if name == "onnxruntime" else graphs.openvino
    longest = getattr(source.backbone.preprocess, "max_length", 0)
    return opened(net, sample(source.backbone, 2), longest=longest, name=name, what=source.name, kept=kept)


def forward(engine: Engine, x: Tensor) -> list[np.ndarray]:
    """Run a batch; where memory runs out, run its halves, and theirs, down to one input.

    Parts of a batch give what the whole gives, up to the last bits.

    Raises
    ------
    InputError
        memory is too small for one input.
    """
    try:
        return engine(x)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(word in str(error).lower() for word in MEMORY):
            raise
        if len(x) == 1:
            raise InputError("Memory ran out with a single input in the network. Close other programs, or choose a smaller source.") from None
    half = (len(x) + 1) // 2
    return [np.concatenate(both) for both in zip(forward(engine, x[:half]), forward(engine, x[half:]), strict=True)]


def sample(backbone: Backbone, n: int) -> Tensor:
    """Return a batch of n made-up inputs at cut 0: noise, or eight tokens."""
    look = backbone.preprocess
    if isinstance(look, Preprocess):
        return torch.randn(n, len(look.mean), look.size, look.size, generator=torch.Generator().manual_seed(0))
    if isinstance(look, TextInput):
        return torch.ones(n, min(8, look.max_length), 2, dtype=torch.int64)
    return torch.zeros(n, len(look.columns))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
