"""The catalogue: what can be transferred from, by name, by path, or from a module of one's own.

Listing is cheap: no network is built and no weight is read before a source's ``backbone`` is asked for.
"""

from __future__ import annotations

import difflib

from headstart.core import InputError, Source, Task
from headstart.sources.architectures import twin
from headstart.sources.files import from_path
from headstart.sources.hub import HUBS, from_hub
from headstart.sources.modules import from_module
from headstart.sources.packages import packaged
from headstart.sources.user import added

__all__ = ["available", "catalogue", "entry", "from_module", "get", "twin"]


def catalogue() -> list[Source]:
    """Return every source that is known by name: packaged ones, and those that the user added.

    One that is not on this machine has no ``opener``, and its ``origin`` says how to get it.
    """
    own = [*packaged()]
    return [*own, *(source for source in added(get) if source.name not in {s.name for s in own})]


def available(task: Task | None = None) -> list[Source]:
    """Return the sources that are on this machine, of the task's modality where one is given.

    >>> all(source.opener is not None for source in available())
    True
    """
    return [s for s in catalogue() if s.opener is not None and (task is None or s.modality == task.modality)]


def get(name: str) -> Source:
    """Return a source by name or place.

    ===============================================  ================================================================
    ``efficientnet_lite0``                           a name of the catalogue
    ``timm:resnet50.a1_in1k``                        a hub's name, downloaded once: ``timm:``, ``torchvision:``, ``hf:``
    ``timm:resnet50@weights/mine.safetensors``       an architecture with weights from a file (.safetensors, .pt, .pth)
    ``models/my-bert``                               a local Hugging Face folder
    ``models/body.onnx``                             an ONNX file, as a frozen extractor
    ===============================================  ================================================================

    Raises
    ------
    InputError
        no such source (with the nearest names); not on this machine (with the line that gets it); weights that do not fit or run code.
    """
    if "@" in name or name.split(":")[0] in HUBS:
        return from_hub(name)
    if (found := from_path(name)) is not None:
        return found
    source = entry(name)
    if source.opener is None:
        raise InputError(f"Source {name!r} is not on this machine. Install it: {source.origin}")
    return source


def entry(name: str) -> Source:
    """Return the catalogue's entry of that name, on this machine or not."""
    known = {s.name: s for s in catalogue()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"There is no source {name!r}.{hint} List them with: headstart sources")
    return known[name]
