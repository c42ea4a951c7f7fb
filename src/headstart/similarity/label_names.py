"""Names of classes: which of the target's names does the source know, by spelling, by words, or by meaning?

By meaning needs an ``embed`` that turns names into vectors, such as a sentence encoder's (:func:`embedder`); the rest needs the names alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from headstart.result import Score
from headstart.similarity.measure import Evidence, Ignores, Measure

if TYPE_CHECKING:
    from headstart.core import Source

Embed = Callable[[Sequence[str]], np.ndarray]
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
WORD = re.compile(r"[^\W_]+")
ENCODER = "all-MiniLM-L6-v2"
BATCH = 64  # names that pass an encoder at once


@dataclass(frozen=True)
class Nearest:
    """A class of the target, and the source's classes nearest to it in meaning, each with the cosine of their embeddings (-1..1), best first."""

    label: str
    classes: tuple[tuple[str, float], ...]


def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case and in the singular, by spelling alone; names in capitals and with underscores are cut, too.

    >>> words("Tabby_Cats"), words("sportsCar"), words("glasses"), words("bus")
    (('tabby', 'cat'), ('sport', 'car'), ('glass',), ('bus',))
    """
    return tuple(_singular(word) for word in WORD.findall(CAMEL.sub(" ", name).lower()))


def shared_names(labels: Sequence[str], source_labels: Sequence[str]) -> float:
    """Return the share of the target's names that the source has too, 0..1: equal words in any order. A source's name may list synonyms after commas.

    >>> shared_names(["Goldfish", "tiger cats", "lorry"], ["goldfish, Carassius auratus", "tiger_cat", "truck"])
    0.6666666666666666
    """
    known = {frozenset(words(synonym)) for name in source_labels for synonym in _synonyms(name)}
    return _mean(frozenset(words(name)) in known for name in labels)


def shared_words(labels: Sequence[str], source_labels: Sequence[str]) -> float:
    """Return the mean, over the target's names, of the best overlap of words with a source's name, 0..1: common words over all words of the two (Jaccard).

    >>> shared_words(["grey wolf", "sofa"], ["wolf", "grey whale shark"])  # 1/2 with the first, 1/4 with the second; "sofa" has none
    0.25
    """
    known = [frozenset(words(synonym)) for name in source_labels for synonym in _synonyms(name)]
    own = (frozenset(words(name)) for name in labels)
    return _mean(max((len(mine & other) / max(1, len(mine | other)) for other in known), default=0.0) for mine in own)


def nearest(labels: Sequence[str], source_labels: Sequence[str], embed: Embed, *, count: int = 3) -> tuple[Nearest, ...]:
    """Return, for each of the target's classes in order, the ``count`` source classes whose names are nearest in meaning.

    Names reach ``embed`` as written, but with underscores and capitals inside words as spaces; it returns one vector for each, of any length.

    >>> def on_axes(names):
    ...     return np.array([[1.0, 0.0] if "cat" in name else [0.0, 2.0] for name in names])
    >>> nearest(["cat"], ["truck", "tiger cat"], on_axes, count=1)
    (Nearest(label='cat', classes=(('tiger cat', 1.0),)),)
    """
    cosines = _cosines(labels, source_labels, embed)
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return tuple(Nearest(label, tuple((source_labels[j], float(cosines[i, j])) for j in best[i])) for i, label in enumerate(labels))


def label_meaning(embed: Embed) -> Measure:
    """Return the measure "label meaning": the mean, over the target's classes, of the best cosine between its name and one of the source's names."""

    def compute(evidence: Evidence) -> Score:
        best = _cosines(evidence.labels, evidence.source_labels, embed).max(axis=1)
        return Score("label meaning", float(best.mean()), None, len(best), "cosine, -1..1", "task")

    return Measure("label meaning", "task", compute, NAMES, "Reimers & Gurevych 2019, Sentence-BERT (the embeddings)", MEANING, ignores=ANY_FEATURES)


def embedder(source: Source | None = None) -> Embed:
    """Return an ``embed`` that runs names through a text source's network; ``None``: the packaged all-MiniLM-L6-v2, trained to put like meanings together.

    Raises
    ------
    InputError
        the source is not on this machine (with the line that gets it), or takes no texts.
    """
    import torch

    from headstart import sources
    from headstart.modality import text

    backbone = (source or sources.get(ENCODER)).backbone
    one_at_a_time = Lock()
    made: dict[str, np.ndarray] = {}  # why: measures ask again for the same thousand names, and so does every source that knows them

    def embed(names: Sequence[str]) -> np.ndarray:
        with one_at_a_time:
            new = [name for name in dict.fromkeys(names) if name not in made]
            encoded = [text.encode(name, backbone) for name in new]
            with torch.inference_mode():
                parts = [backbone(text.collate(encoded[i : i + BATCH], backbone)).numpy() for i in range(0, len(encoded), BATCH)]
            made.update(zip(new, (row for part in parts for row in part.astype(np.float64)), strict=True))
        return np.stack([made[name] for name in names])

    return embed


def class_names(source: Source) -> tuple[str, ...]:
    """Return the names of the classes that a source's classifier knows, in the order of its logits; empty where nobody says them.

    The catalogue lists packaged networks without them, since listing imports no model zoo; what was trained on ImageNet's 1,000 classes has theirs.
    """
    from headstart.modality import families
    from headstart.sources import packages

    if source.labels or source.trained_on != packages.IMAGENET:
        return source.labels
    return families.labels("torchvision", "resnet18")


def _synonyms(name: str) -> list[str]:
    return [name, *name.split(",")] if "," in name else [name]


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _cosines(labels: Sequence[str], source_labels: Sequence[str], embed: Embed) -> np.ndarray:
    """Return (c, z) cosines between the embeddings of the names."""
    own, other = (_unit(embed([CAMEL.sub(" ", name).replace("_", " ") for name in names])) for names in (labels, source_labels))
    cosines: np.ndarray = own @ other.T
    return cosines


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(float).tiny)
    return unit


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


NAMES = frozenset({"labels", "source_labels"})
ANY_FEATURES: frozenset[Ignores] = frozenset({"rotation", "scale", "shift"})  # no feature is read
SPELLING = "Compares spelling, not meaning: 'lorry' and 'truck' share nothing, and names that are numbers or codes share what means nothing."
MEANING = (
    "Says what classes are called, not what they look like; the best of many grows with their number: against ImageNet's 1,000 names"
    " 'A1' or 'yes' score 0.35 to 0.45, blood cells 0.40, vehicles 0.69, breeds of cats and dogs 0.89 (all-MiniLM-L6-v2)."
)

SHARED_NAMES = Measure(
    "label names shared",
    "task",
    lambda e: Score("label names shared", shared_names(e.labels, e.source_labels), None, len(e.labels), "0..1", "task"),
    NAMES,
    "no paper: equal names",
    SPELLING,
    ignores=ANY_FEATURES,
)
LABEL_WORDS = Measure(
    "label words shared",
    "task",
    lambda e: Score("label words shared", shared_words(e.labels, e.source_labels), None, len(e.labels), "0..1", "task"),
    NAMES,
    "Jaccard 1912, best match for each class of the target",
    SPELLING,
    ignores=ANY_FEATURES,
)
