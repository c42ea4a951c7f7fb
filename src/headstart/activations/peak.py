"""How many bytes of activations are alive at once while a network predicts: counted, not sampled, so that the same network and input give the same number."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


def weights_bytes(*modules: nn.Module) -> int:
    """Return the bytes of the modules' parameters and buffers in memory, each storage once.

    >>> weights_bytes(nn.Linear(3, 2))
    32
    """
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    return sum({_place(t): t.untyped_storage().nbytes() for t in tensors}.values())


def peak_bytes(net: nn.Module, x: Tensor) -> int:
    """Return the most bytes alive at once in ``net(x)`` beside its weights: the input, every result that something still refers to, the output.

    Counted at PyTorch's own operations as each returns: what one takes for itself while it runs (a convolution's workspace) is not seen. Two views of one
    storage count once. ``net`` is in evaluation mode.

    >>> peak_bytes(nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 5)), torch.ones(1, 10))  # input, what the first layer gave, and its ReLU
    840
    """
    weights = {_place(t) for t in (*net.parameters(), *net.buffers())}
    alive = _Alive(weights)
    with torch.no_grad(), alive:
        alive.keep(x)
        net(x)
    return alive.most


class _Alive(TorchDispatchMode):
    """Adds a storage where an operation returns a tensor on it, and takes it off when the last reference goes."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = weights
        self.now: int = 0
        self.most: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.keep, out)
        return out

    def keep(self, tensor: Tensor) -> None:
        """Count the tensor's storage, unless it is a weight's or counted already."""
        storage, place = tensor.untyped_storage(), _place(tensor)
        if place in self.weights or place in self._known:
            return
        self._known.add(place)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, place, storage.nbytes()).atexit = False

    def _drop(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
