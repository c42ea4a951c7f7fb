"""Learn from a source's labelled cases beside the target's own: how useful each is to the target is read from the target's training cases.

The k most useful cases of every class are borrowed. How much a borrowed case counts beside an own one is chosen in inner folds of own cases, from not at all:
where a source is polluted or unrelated, the head is that of the target alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_array

from headstart.methods.data.enlarged import Cases, EnlargedClassifier, Splits, own
from headstart.methods.data.placed import OnFeatures
from headstart.methods.features.ridge import ALPHAS
from headstart.methods.features.scaling import LiveScaler
from headstart.methods.method import knob

TRUSTS = (0.0, 0.1, 1.0)  # how much a borrowed case counts beside an own one
FEWEST = 5  # of a class; fewer would be no sample of it
MOST = 2000  # cases of a source that are looked at; a head of 1,280 features gains little from more


class BorrowingRidge(EnlargedClassifier):
    """Ridge on the target's cases and on the most useful ones of a source; as it stands, all are equally useful.

    Parameters
    ----------
    share : of the source's cases of each class, those that are borrowed, the most useful first, 0..1; at least five
    alphas, seed : as in :class:`~headstart.methods.data.enlarged.EnlargedClassifier`

    Attributes
    ----------
    usefulness_ : (m,) of every case that was looked at, larger is more useful
    selected_ : (m,) whether it was borrowed, whatever it then counted
    trust_ : how much a borrowed case counts beside an own one, 0..1; 0: nothing is borrowed

    Without ``X_source`` in ``fit``, or without inner folds (a class of one case), this is the head of the target alone.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [7.0], [8.0]]), ["a", "a", "b", "b"]
    >>> model = BorrowingRidge().fit(X, y, X_source=np.array([[0.5], [7.5]]), y_source=[0, 1])
    >>> model.predict([[3.0], [5.0]]).tolist(), model.selected_.tolist()
    (['a', 'b'], [True, True])
    """

    def __init__(self, *, share: float = 1.0, alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> None:
        super().__init__(alphas=alphas, seed=seed)
        self.share = share

    def fit(self, X: Any, y: Any, groups: Any = None, X_source: Any = None, y_source: Any = None) -> Self:
        """Fit on X (n, d) and y (n,), and the source's X_source (m, d) with its codes into the target's sorted classes y_source (m,)."""
        self._lent = None
        if X_source is not None:
            lent = check_array(X_source, dtype=np.float64)
            codes = np.asarray(y_source)
            rows = np.sort(np.random.default_rng(self.seed).permutation(len(lent))[:MOST])
            self._lent = (lent[rows], codes[rows])
        self._weighed: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        fitted = super().fit(X, y, groups)
        self._lent, self._weighed = None, {}  # why: a saved model keeps none of the source's cases
        return fitted

    def look(self, X: np.ndarray, y: np.ndarray, splits: Splits) -> None:
        self.trust_ = 0.0
        if self._lent is None:
            return
        Y = 2.0 * np.eye(len(self.classes_))[y] - 1.0
        weights = 1.0 / np.bincount(y)[y]
        reached = {}
        for self.trust_ in TRUSTS:
            left_out = self._predicted(X, y, Y, splits) if splits else np.zeros((1, *Y.shape))
            reached[self.trust_] = min(np.average(np.square(Y - one).mean(axis=1), weights=weights) for one in left_out)
        self.trust_ = min(TRUSTS, key=lambda trust: (reached[trust], trust))

    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        X = own(X)
        if self._lent is None or self.trust_ == 0.0:
            return Cases(X, y)
        lent, codes = self._lent
        key = hashlib.sha256(X.tobytes()).digest()
        if key not in self._weighed:  # why: every trust asks the same of the same cases
            self._weighed[key] = self.weigh(X, y, lent, codes)
        self.usefulness_, weights = self._weighed[key]
        self.selected_ = most_useful(self.usefulness_, codes, share=self.share)
        kept = self.selected_
        trust = self.trust_ * weights[kept] / max(float(weights[kept].mean()), np.finfo(float).tiny)
        return Cases(np.vstack([X, lent[kept]]), np.concatenate([y, codes[kept]]), np.concatenate([np.ones(len(X)), trust]))

    def weigh(self, X: np.ndarray, y: np.ndarray, lent: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how useful each case of the source (m,) is, by which cases are picked, and how much it counts among those picked (m,), not negative."""
        return np.ones(len(lent)), np.ones(len(lent))


def most_useful(usefulness: np.ndarray, codes: np.ndarray, *, share: float) -> np.ndarray:
    """Return whether each case (m,) is among that share of its class that is most useful, at least five of a class; of equals the first.

    >>> most_useful(np.array([0.1, 0.9] * 10), np.repeat([0, 1], 10), share=0.5).sum()
    np.int64(10)
    """
    kept = np.zeros(len(codes), dtype=bool)
    for c in np.unique(codes):
        rows = np.flatnonzero(codes == c)
        count = max(min(FEWEST, len(rows)), round(share * len(rows)))
        kept[rows[np.argsort(-usefulness[rows], kind="stable")[:count]]] = True
    return kept


def standardised(X: np.ndarray, lent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both (n, d) and (m, d) on the scale of the target's cases and the source's together."""
    scaler = LiveScaler().fit(np.vstack([X, lent]))
    return scaler.transform(X), scaler.transform(lent)


@dataclass(frozen=True)
class Borrow(OnFeatures):
    """Learn from a source's labelled cases beside the target's own, all alike.

    Parameters
    ----------
    share : of the source's cases of each class, 0..1
    back, span : as in :class:`~headstart.methods.features.probe.Probe`

    Examples
    --------
    >>> sorted(Borrow.needs)
    ['classes', 'source.labels']
    """

    name: ClassVar[str] = "borrow"
    needs: ClassVar[frozenset[str]] = frozenset({"source.labels", "classes"})
    paper: ClassVar[str] = "Daumé & Marcu 2006, Domain adaptation for statistical classifiers"
    limits: ClassVar[str] = "labels must mean the same in both domains; how much a borrowed case counts is read from few own cases"

    ridge: ClassVar[type[BorrowingRidge]] = BorrowingRidge  # how it picks and weighs

    share: float = knob(1.0, choices=(0.05, 0.2, 0.5, 1.0))

    def estimator(self, *, seed: int) -> Any:
        return self.ridge(share=self.share, seed=seed)
