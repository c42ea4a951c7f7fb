"""Near duplicates: pairs of cases that are one photograph, text or row, a little changed. They must not lie on both sides of a split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BLOCK = 1024
ALIKE = {"image": 0.97, "text": 0.90}  # least cosine of near duplicates; false rates: benchmarks/RESULTS.md
SIDE = 32


def near_pairs(rows: Any, *, least: float) -> list[tuple[int, int]]:
    """Return the pairs i < j of rows (n, d), dense or sparse, whose cosine is at least ``least``; rows of zeros are like nothing.

    >>> near_pairs(np.array([[1.0, 0.0], [2.0, 0.02], [0.0, 1.0]]), least=0.99)
    [(0, 1)]
    """
    from scipy.sparse import issparse
    from sklearn.preprocessing import normalize

    unit = normalize(rows)
    found: list[tuple[int, int]] = []
    for start in range(0, unit.shape[0], BLOCK):
        cosines = unit[start : start + BLOCK] @ unit.T
        dense = cosines.toarray() if issparse(cosines) else cosines
        a, b = np.nonzero(dense >= least)
        found += [(int(i) + start, int(j)) for i, j in zip(a, b, strict=True) if i + start < j]
    return found


def fingerprints(pixels: np.ndarray) -> np.ndarray:
    """Return (n, side^2) grey images of squares ``pixels`` (n, 3 side^2), 0..1, each standardised, less the mean of all.

    Standardising takes brightness and contrast out. The mean is taken off because images of one kind (faces, radiographs) look alike without being
    the same; with fewer than eight images it says nothing and stays. A flat image becomes zeros. Changes that are seen through: another size, JPEG,
    brightness, contrast, slight noise. Not: mirrored, turned or cropped images.

    >>> image = np.arange(12.0)[None] / 12
    >>> near_pairs(fingerprints(np.vstack([image, 0.5 * image + 0.2])), least=0.99)
    [(0, 1)]
    """
    grey = np.asarray(pixels, dtype=np.float64).reshape(len(pixels), -1, 3).mean(axis=2)
    grey -= grey.mean(axis=1, keepdims=True)
    spread = grey.std(axis=1, keepdims=True)
    shown = np.divide(grey, spread, out=np.zeros_like(grey), where=spread > 1e-3)
    centred: np.ndarray = shown - shown.mean(axis=0) * (spread > 1e-3)
    return centred if len(shown) >= 8 else shown


def normalised(text: str) -> str:
    """Return a text in lower case, without punctuation, with single spaces.

    >>> normalised("Good  film, really!")
    'good film really'
    """
    return " ".join(re.findall(r"\w+", text.lower()))


def shingles(texts: Sequence[str]) -> Any:
    """Return sparse (n, d) TF-IDF rows of runs of 3 to 5 letters within words, of the normalised texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=50_000).fit_transform([normalised(t) or "-" for t in texts])


def numbers(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return (n, d) float64 of rows of a table: categories one column each, missing numbers the median."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.impute import SimpleImputer

    return np.asarray(SimpleImputer(strategy="median", keep_empty_features=True).fit_transform(DictVectorizer(sparse=False).fit_transform(rows)))
