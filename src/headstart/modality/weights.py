"""Weights from files, without running code, and how well they fit a network.

Checkpoints are written in many wrappings: nested under "state_dict", with "module." before every name, with a head of another size. What fits is
loaded and what does not is said; too little is refused, for a network that is half random looks like a source and is none.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.core import InputError

LEAST = 0.9  # of the body's parameters: a missing norm or position table is common and harmless, a missing stage is another network
NESTS = ("state_dict", "model", "model_state_dict", "net", "teacher", "ema", "state_dict_ema", "model_ema", "student")
UNREADABLE = (pickle.UnpicklingError, EOFError, OSError, RuntimeError, IndexError, TypeError, KeyError, ValueError, AttributeError, ImportError)
SHOWN = 3


@dataclass(frozen=True)
class Match:
    """How a checkpoint fits a network; ``share`` is of the body's parameters, 0..1, the classifier aside."""

    prefix: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    share: float

    @property
    def whole(self) -> bool:
        """Whether every weight of the body was found."""
        return self.share == 1.0 and not self.misshapen

    def __str__(self) -> str:
        parts = [f"{self.share:.1%} of the body's weights found" + (f" behind {self.prefix!r}" if self.prefix else "")]
        lists = (("missing", self.missing), ("of another shape", self.misshapen), ("not used", self.unexpected))
        parts += [f"{what}: {_some(names)}" for what, names in lists if names]
        return "; ".join(parts)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pt, .pth or .bin file by name, un-nested. Pickles are read as data only.

    Raises
    ------
    InputError
        the file cannot be read without running code, is damaged, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file. Give a file of weights: .safetensors, .pt or .pth.")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            plain = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # why: what torch finds odd in a file is followed by its error, or harmless
                plain = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *UNREADABLE):
        raise InputError(f"{path} does not hold weights that can be read without running code. Save them as .safetensors, or as a plain state_dict.") from None
    state = _unnested(plain)
    if not state:
        raise InputError(f"{path} holds no tensors by name. Save the network's state_dict().")
    return state


def match(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, classifier: str = "") -> tuple[dict[str, Tensor], Match]:
    """Return what of ``state`` fits ``own``, by own names, and the account of it; ``classifier`` is the name of the head that does not count.

    The prefix is the one, of all that names begin with, under which most parameters fit.

    >>> own = {"a.weight": torch.zeros(2), "fc.weight": torch.zeros(5, 2)}
    >>> fits, account = match({"module.a.weight": torch.ones(2), "module.fc.weight": torch.zeros(9, 2)}, own, classifier="fc")
    >>> list(fits), account.prefix, account.share
    (['a.weight'], 'module.', 1.0)
    """
    prefix = max(_prefixes(state), key=lambda p: (_fitting(state, own, p), -len(p)))
    stripped = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    fits = {name: value for name, value in stripped.items() if name in own and own[name].shape == value.shape}
    body = [name for name in own if not (classifier and name.startswith(f"{classifier}."))]
    total = sum(own[name].numel() for name in body)
    share = sum(own[name].numel() for name in body if name in fits) / max(1, total)
    missing = tuple(name for name in body if name not in stripped)
    unexpected = tuple(name for name in state if name[len(prefix) :] not in own or not name.startswith(prefix))
    misshapen = tuple(name for name in own if name in stripped and name not in fits)
    return fits, Match(prefix, tuple(fits), missing, unexpected, misshapen, share)


def check(account: Match, *, what: str, least: float = LEAST) -> None:
    """Raise ``InputError`` where less than ``least`` of the body fits."""
    if account.share < least:
        raise InputError(f"The weights do not fit {what}: {account}. At least {least:.0%} must. Name the architecture that they were trained with.")


def _unnested(plain: Any) -> dict[str, Tensor]:
    while isinstance(plain, Mapping):
        tensors = {str(k): v for k, v in plain.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
        inner = next((plain[name] for name in NESTS if isinstance(plain.get(name), Mapping)), None)
        if inner is None:
            return {}
        plain = inner
    return {}


def _prefixes(state: Mapping[str, Tensor]) -> set[str]:
    out = {""}
    for name in state:
        parts = name.split(".")
        out |= {".".join(parts[:i]) + "." for i in range(1, min(4, len(parts)))}
    return out


def _fitting(state: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str) -> int:
    n = len(prefix)
    return sum(v.numel() for k, v in state.items() if k.startswith(prefix) and k[n:] in own and own[k[n:]].shape == v.shape)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
