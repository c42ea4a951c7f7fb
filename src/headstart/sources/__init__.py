"""The catalogue: what can be transferred from, by name, by path, or from a module of one's own.

Listing is cheap: no network is built and no weight is read before a source's ``backbone`` is asked for.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from headstart.core import InputError, Preprocess, Source, Task
from headstart.sources import user
from headstart.sources.architectures import twin
from headstart.sources.files import from_onnx, from_path, is_path
from headstart.sources.hub import from_hub, is_hub, lies_at
from headstart.sources.modules import from_module, trust
from headstart.sources.packages import POOL, packaged
from headstart.sources.wider import WIDER, wider

__all__ = ["available", "catalogue", "entry", "from_module", "from_onnx", "get", "trust", "twin"]


def catalogue() -> list[Source]:
    """Return every source that is known by name: packaged ones, the wider pool, and those that the user added.

    One that is not on this machine has no ``opener``, and its ``origin`` says how to get it. Of one in a user's file, width and stages are known
    once it is opened: :func:`get` and :func:`available` do.

    Raises
    ------
    InputError
        a user's file or a package's offer is damaged, or two sources have one name.
    """
    known = [*packaged(), *wider(), *(one.listed(_found, _here) for one in user.entries()), *user.offered()]
    names = [source.name for source in known]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        origins = " and ".join(s.origin or "a package of yours" for s in known if s.name == twice)
        raise InputError(f"Two sources are called {twice!r}: {origins}. Give your own another name.")
    return known


def available(task: Task | None = None) -> list[Source]:
    """Return the sources that are on this machine, of the task's modality where one is given: what a run tries that names none.

    Sources that are ``by_name``, the wider pool, are left out even where their packages are installed: some are slow, the licence of some is unclear,
    and a run should not change because another program brought a package along. :func:`get` returns them, and ``--source`` takes them.

    >>> all(source.opener is not None for source in available())
    True
    """
    own = {one.name: one for one in user.entries()}
    here = [s for s in catalogue() if s.opener is not None and not s.by_name and (task is None or s.modality == task.modality)]
    return [own[s.name].open(_found) if s.name in own else s for s in here]


def get(name: str, *, preprocess: Preprocess | None = None) -> Source:
    """Return a source by name or place.

    ===============================================  ================================================================
    ``efficientnet_lite0``                           a name of the catalogue
    ``timm:resnet50.a1_in1k``                        a hub's name, downloaded once: ``timm:``, ``torchvision:``, ``hf:``
    ``timm:resnet50@weights/mine.safetensors``       an architecture with weights from a file (.safetensors, .pt, .pth)
    ``hf:OWNER/NAME@REVISION``                       the same of a text network, at a tag or commit
    ``models/my-bert``                               a local Hugging Face folder; a .gguf file
    ``models/body.onnx``                             an ONNX file, as a frozen extractor
    ===============================================  ================================================================

    ``preprocess`` is how images are prepared, where a file of weights or an ONNX file does not say it itself, or wrongly.

    Raises
    ------
    InputError
        no such source (with the nearest names); not on this machine (with the line that gets it); weights that do not fit or run code.
    """
    own = next((one for one in user.entries() if one.name == name), None)
    if own is not None and preprocess is None:
        return own.open(_found)
    return _found(name, preprocess=preprocess)


def entry(name: str) -> Source:
    """Return the catalogue's entry of that name, on this machine or not."""
    known = {s.name: s for s in catalogue()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"There is no source {name!r}.{hint} List them with: headstart sources")
    return known[name]


def _found(name: str, *, preprocess: Preprocess | None = None) -> Source:
    known = {source.name for source, _ in (*POOL, *WIDER)}
    if name not in known and is_path(name):
        return from_path(name, preprocess=preprocess)
    if name not in known and is_hub(name):
        return from_hub(name, preprocess=preprocess)
    source = entry(name)
    if source.opener is None:
        raise InputError(f"Source {name!r} is not on this machine. Install it: {source.origin}")
    if preprocess is not None:
        raise InputError(f"Source {name!r} knows how its inputs are prepared. Leave out preprocess.")
    return source


def _here(network: str) -> Path | None:
    """Where a network lies on this machine, without asking any other."""
    if is_hub(network):
        return lies_at(network)
    return Path(network) if is_path(network) and Path(network).exists() else None
