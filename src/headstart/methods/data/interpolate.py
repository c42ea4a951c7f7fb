"""Interpolate in feature space: rare classes are filled up with points between two of their cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from headstart.methods.data.enlarged import Cases, EnlargedClassifier
from headstart.methods.data.placed import OnFeatures
from headstart.methods.features.ridge import ALPHAS
from headstart.methods.method import knob


class InterpolatedRidge(EnlargedClassifier):
    """Ridge on cases and on points between cases of one class, as many as bring every class to the size of the largest.

    Within a class the mean stays and the scatter shrinks (to 2/3 of its square for the points between), so that a class of few cases, whose scatter is mostly
    chance, has less of a say in where classes are cut. Where all classes are of one size nothing is made.

    Parameters
    ----------
    reach : how far a point may lie from one case towards the other, 0..1; beyond 0.5 is the same from the other end, so 1 draws from the whole line
    alphas, seed : as in :class:`~headstart.methods.data.enlarged.EnlargedClassifier`

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0], [7.0], [9.0]]), ["a", "a", "a", "a", "b", "b"]
    >>> InterpolatedRidge().fit(X, y).made_
    2
    """

    def __init__(self, *, reach: float = 1.0, alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> None:
        super().__init__(alphas=alphas, seed=seed)
        self.reach = reach

    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        counts = np.bincount(y)
        made, codes = [X], [y]
        for c in np.flatnonzero(counts):
            rows, more = np.flatnonzero(y == c), int(counts.max() - counts[c])
            one, other = dice.choice(rows, more), dice.choice(rows, more)
            made.append(X[one] + self.reach * dice.random((more, 1)) * (X[other] - X[one]))
            codes.append(np.full(more, c))
        return Cases(np.vstack(made), np.concatenate(codes))


@dataclass(frozen=True)
class Interpolate(OnFeatures):
    """Fill rare classes up with points between two of their cases, in feature space.

    Parameters
    ----------
    reach : how far from the one case towards the other, 0..1
    back, span : as in :class:`~headstart.methods.features.probe.Probe`

    Examples
    --------
    >>> Interpolate().estimator(seed=0).reach
    1.0
    """

    name: ClassVar[str] = "interpolate"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = "DeVries & Taylor 2017, Dataset augmentation in feature space"
    limits: ClassVar[str] = "does nothing for classes of one size; to a head by least squares it is a change of scatter, most of which a penalty does as well"

    reach: float = knob(1.0, choices=(0.5, 1.0))

    def estimator(self, *, seed: int) -> Any:
        return InterpolatedRidge(reach=self.reach, seed=seed)
