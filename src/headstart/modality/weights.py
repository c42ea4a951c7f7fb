"""Weights from files, without running code, and how well they fit a network.

Checkpoints are written in many wrappings: nested under "state_dict", with "module." before every name, with a head of another size. What fits is
loaded and what does not is said; too little is refused, for a network that is half random looks like a source and is none.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.core import InputError

LEAST = 0.9  # of the body's parameters: a missing norm or position table is common and harmless, a missing stage is another network
# why: where a file keeps both, the averaged weights are the ones that its authors evaluated (timm chooses so, too)
NESTS = ("state_dict_ema", "model_ema", "ema", "teacher", "state_dict", "model_state_dict", "model", "net", "network", "student")
DEEP = 3  # wrappings that may lie in one another, in a file and before a name: "module.model.encoder."
COUNTER = "num_batches_tracked"  # of a BatchNorm; no number of a frozen or fine-tuned network depends on it, and many files leave it out
UNREADABLE = (pickle.UnpicklingError, EOFError, OSError, RuntimeError, IndexError, TypeError, KeyError, ValueError, AttributeError, ImportError)
SHOWN = 3


@dataclass(frozen=True)
class Match:
    """How a checkpoint fits a network; ``share`` is of the body's parameters, 0..1, the classifier aside."""

    prefix: str  # what stands before the file's names, and is left out
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    share: float
    added: str = ""  # what stands before the network's names, and not before the file's

    @property
    def whole(self) -> bool:
        """Whether every weight of the body was found."""
        return self.share == 1.0

    def __str__(self) -> str:
        parts = [f"{self.share:.1%} of the body's weights found" + (f" behind {self.prefix!r}" if self.prefix else "")]
        parts += [f"{self.added!r} was put before its names"] if self.added else []
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
    except (SafetensorError, *UNREADABLE) as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))  # why: torch names what a pickle wanted to call, which tells "args" of a trainer from malice
        what = f" (it asks for {asked[1]})" if asked else ""
        hint = "Save them as .safetensors, or as a plain state_dict."
        raise InputError(f"{path} does not hold weights that can be read without running code{what}. {hint}") from None
    state = _unnested(plain)
    if not state:
        raise InputError(f"{path} holds no tensors by name. Save the network's state_dict().")
    return state


def match(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, classifier: str = "") -> tuple[dict[str, Tensor], Match]:
    """Return what of ``state`` fits ``own``, by own names, and the account of it; ``classifier`` is the name of the head that does not count.

    Of all wrappings of names that occur, those are taken under which most parameters fit: what stands before the file's names ("module.") is
    left out, what stands before the network's own ("model.") is added. Of equals the shortest, then the first in the file.

    >>> own = {"a.weight": torch.zeros(2), "fc.weight": torch.zeros(5, 2)}
    >>> fits, account = match({"module.a.weight": torch.ones(2), "module.fc.weight": torch.zeros(9, 2)}, own, classifier="fc")
    >>> list(fits), account.prefix, account.share
    (['a.weight'], 'module.', 1.0)
    """
    body = {k: v for k, v in own.items() if not (classifier and k.startswith(f"{classifier}.")) and not k.endswith(COUNTER)}
    pairs = [(p, a) for p in _prefixes(state, len(body)) for a in _prefixes(own, len(body))]
    prefix, added = max(pairs, key=lambda pair: (_fitting(state, body, *pair), -len("".join(pair))))
    renamed = {added + name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    fits = {name: value for name, value in renamed.items() if name in own and own[name].shape == value.shape}
    share = sum(body[name].numel() for name in body if name in fits) / max(1, sum(value.numel() for value in body.values()))
    missing = tuple(name for name in body if name not in renamed)
    unexpected = tuple(name for name in state if not name.startswith(prefix) or added + name[len(prefix) :] not in own)
    misshapen = tuple(name for name in own if name in renamed and name not in fits)
    return fits, Match(prefix, tuple(fits), missing, unexpected, misshapen, share, added)


def check(account: Match, *, what: str, least: float = LEAST) -> None:
    """Raise ``InputError`` where less than ``least`` of the body fits."""
    if account.share < least:
        raise InputError(f"The weights do not fit {what}: {account}. At least {least:.0%} must. Name the architecture that they were trained with.")


def _unnested(plain: Any) -> dict[str, Tensor]:
    """Open what wraps the tensors; a wrapping comes before tensors beside it, for trainers keep a best score as a tensor."""
    for _ in range(DEEP + 1):
        if not isinstance(plain, Mapping):
            return {}
        inner = next((plain[name] for name in NESTS if isinstance(plain.get(name), Mapping) and plain[name]), None)
        if inner is None:
            return {str(k): v.detach() for k, v in plain.items() if isinstance(v, Tensor)}
        plain = inner
    return {}


def _prefixes(state: Mapping[str, Tensor], wanted: int) -> list[str]:
    """Return "" and what stands before enough names that a network of ``wanted`` tensors may lie there, in the file's order."""
    parts = [name.split(".") for name in state]
    found = Counter(".".join(one[:i]) + "." for one in parts for i in range(1, min(DEEP + 1, len(one))))
    return ["", *(prefix for prefix, n in found.items() if n >= max(1, wanted // 4))]


def _fitting(state: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str, added: str) -> int:
    theirs = ((added + name[len(prefix) :], value) for name, value in state.items() if name.startswith(prefix))
    return sum(value.numel() for name, value in theirs if name in own and own[name].shape == value.shape)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
