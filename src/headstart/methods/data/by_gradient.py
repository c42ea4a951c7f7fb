"""Borrow by gradient: a source's cases along whose gradients the loss on unseen target cases falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import softmax

from headstart.methods.data.borrowed import Borrow, BorrowingRidge, standardised
from headstart.methods.features.logistic import inner_splits
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.method import knob

FOLDS = 3


class GradientRidge(BorrowingRidge):
    """Borrow the source's cases whose gradient agrees most with that of target cases that the head has not seen (as LESS does, with a head alone).

    In each of three inner folds a head is fitted on the others; the gradients of its softmax loss, (p - y) z' with respect to the weights, are those of
    every lent case and, averaged over classes, of the fold. Their inner product is the first-order fall of the fold's loss for a step on that case; their
    cosine, as LESS takes, keeps cases with large gradients, which are often the odd ones, from winning by size.

    Parameters
    ----------
    share, alphas, seed : as in :class:`~headstart.methods.data.borrowed.BorrowingRidge`
    """

    def weigh(self, X: np.ndarray, y: np.ndarray, lent: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Z, theirs = standardised(X, lent)
        usefulness = np.zeros(len(lent))
        for train, test in inner_splits(y, None, folds=FOLDS, seed=self.seed):
            head = RidgeLOO().fit(Z[train], y[train])
            weights = 1.0 / np.bincount(y[test])[y[test]]
            errors, lent_errors = _errors(head, Z[test], y[test]), _errors(head, theirs, codes)
            direction = (weights[:, None] * errors).T @ _with_one(Z[test])
            places = _with_one(theirs)
            lengths = np.linalg.norm(lent_errors, axis=1) * np.linalg.norm(places, axis=1) * np.linalg.norm(direction)
            usefulness += np.einsum("ij,ij->i", lent_errors, places @ direction.T) / np.maximum(lengths, np.finfo(float).tiny)
        return usefulness, np.ones(len(lent))


def _errors(head: RidgeLOO, Z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return p - y (n, c): the gradient of the softmax loss with respect to the logits."""
    W, b = head.linear()
    errors: np.ndarray = softmax(Z @ W.T + b, axis=1) - np.eye(len(b))[codes]
    return errors


def _with_one(Z: np.ndarray) -> np.ndarray:
    return np.hstack([Z, np.ones((len(Z), 1))])


@dataclass(frozen=True)
class BorrowGradient(Borrow):
    """Learn from those of a source's labelled cases along whose gradients the loss on unseen target cases falls most.

    Parameters
    ----------
    share : of the source's cases of each class, 0..1
    back, span : as in :class:`~headstart.methods.features.probe.Probe`
    """

    name: ClassVar[str] = "borrow-gradient"
    paper: ClassVar[str] = "Xia et al. 2024, LESS: selecting influential data for targeted instruction tuning"
    limits: ClassVar[str] = "of few target cases the gradient is mostly chance"
    ridge: ClassVar[type[BorrowingRidge]] = GradientRidge

    share: float = knob(0.5, choices=(0.05, 0.2, 0.5, 1.0))
