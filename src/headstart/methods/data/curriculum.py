"""Borrow by curriculum: the source's easy cases first; what is easy is asked anew of a head that has learned from those before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import log_softmax

from headstart.methods.data.borrowed import Borrow, BorrowingRidge, most_useful
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.method import knob

ROUNDS = 3
BESIDE = 0.3  # how much a borrowed case counts beside an own one while it is asked what is easy


class CurriculumRidge(BorrowingRidge):
    """Borrow in three rounds, from the source's cases that the target's head finds easy to those that the head of the round before does (self-paced learning).

    A case is the easier the more probable its label is. Cases labelled wrong never become easy.

    Parameters
    ----------
    share : what is borrowed in the last round, 0..1; a third of it in the first
    alphas, seed : as in :class:`~headstart.methods.data.borrowed.BorrowingRidge`
    """

    def weigh(self, X: np.ndarray, y: np.ndarray, lent: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        head = RidgeLOO().fit(X, y)
        for step in range(1, ROUNDS):
            kept = most_useful(_ease(head, lent, codes), codes, share=self.share * step / ROUNDS)
            weights = np.concatenate([np.ones(len(X)), np.full(kept.sum(), BESIDE)])
            head = RidgeLOO().fit(np.vstack([X, lent[kept]]), np.concatenate([y, codes[kept]]), weights=weights)
        return _ease(head, lent, codes), np.ones(len(lent))


def _ease(head: RidgeLOO, lent: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return (m,) the log probability of each label."""
    W, b = head.linear()
    ease: np.ndarray = log_softmax(lent @ W.T + b, axis=1)[np.arange(len(codes)), codes]
    return ease


@dataclass(frozen=True)
class BorrowCurriculum(Borrow):
    """Learn from a source's labelled cases, the easy ones first.

    Parameters
    ----------
    share : of the source's cases of each class, those that are borrowed in the end, 0..1
    back, span : as in :class:`~headstart.methods.features.probe.Probe`
    """

    name: ClassVar[str] = "borrow-curriculum"
    paper: ClassVar[str] = "Kumar et al. 2010, Self-paced learning for latent variable models"
    limits: ClassVar[str] = "easy cases teach little that is new, and a head that errs finds its own errors easy"
    ridge: ClassVar[type[BorrowingRidge]] = CurriculumRidge

    share: float = knob(0.5, choices=(0.05, 0.2, 0.5, 1.0))
