"""What a fitted candidate says on both domains: all that a validator may see. Target labels have no place in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.core import InputError

SUM_ERROR = 1e-3  # probabilities of one case may miss 1 by this much: those of networks are float32 or less


@dataclass(frozen=True)
class Outputs:
    """Predictions of one candidate for c classes, and the features in which the domains are compared.

    Parameters
    ----------
    source : (n_s, c) probabilities of source cases that it was not trained on, in 0..1, each row summing to 1
    y : (n_s,) their class codes, 0 .. c - 1
    target : (n_t, c) probabilities of the target cases
    source_features, target_features : (n_s, d), (n_t, d) of the same cases: where the ratio of the domains' densities is estimated
    train_features : (n, d) of the source cases that it was trained on; ``None``: the ratio is cross-fitted on the held-out ones
    ratio : (n_s,) how many times likelier the target draws each held-out source case, where it is known; else it is estimated
    refit : trains the candidate back. It takes class codes (n_t,) for the target cases, learns from them as it learned from the source (the source's
        training cases without labels, if it uses a second domain), and returns class codes (n_s,) for the held-out source cases. ``None``: there is no reverse
        validation

    Raises
    ------
    InputError
        shapes that do not fit, fewer than two classes, no cases, numbers that are not finite, rows that are no probabilities.

    Examples
    --------
    >>> sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> Outputs(sure, np.array([0, 1]), sure, np.zeros((2, 3)), np.zeros((2, 3)), None).classes
    2
    """

    source: np.ndarray
    y: np.ndarray
    target: np.ndarray
    source_features: np.ndarray
    target_features: np.ndarray
    train_features: np.ndarray | None
    ratio: np.ndarray | None = None
    refit: Callable[[np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            _check_probabilities(name, getattr(self, name))
        if self.source.shape[1] != self.target.shape[1]:
            raise InputError(f"source has {self.source.shape[1]} classes and target {self.target.shape[1]}. Give both the columns of one model.")
        if self.y.shape != (len(self.source),) or not np.issubdtype(self.y.dtype, np.integer) or self.y.min() < 0 or self.y.max() >= self.classes:
            raise InputError(f"y has shape {self.y.shape}; {len(self.source)} class codes from 0 to {self.classes - 1} are needed. Give the columns' numbers.")
        for name, features, n in (
            ("source_features", self.source_features, len(self.source)),
            ("target_features", self.target_features, len(self.target)),
            ("train_features", self.train_features, None),
        ):
            if features is not None:
                _check_features(name, features, n, self.source_features.shape[-1])
        if self.ratio is not None and (self.ratio.shape != self.y.shape or not np.isfinite(self.ratio).all() or self.ratio.min() < 0):
            raise InputError(f"ratio has shape {self.ratio.shape}; {len(self.y)} finite numbers, none negative, are needed. Leave it out to have it estimated.")

    @property
    def classes(self) -> int:
        """How many classes the candidate knows."""
        return int(self.source.shape[1])


def _check_probabilities(name: str, p: np.ndarray) -> None:
    if p.ndim != 2 or not len(p) or p.shape[1] < 2:
        raise InputError(f"{name} has shape {p.shape}; (cases, classes) with at least one case and two classes is needed.")
    if not np.isfinite(p).all() or p.min() < 0.0 or np.abs(p.sum(axis=1) - 1.0).max() > SUM_ERROR:
        raise InputError(f"{name} holds rows that are no probabilities: not finite, negative, or not summing to 1. Give a softmax of the scores.")


def _check_features(name: str, x: np.ndarray, n: int | None, d: int) -> None:
    if x.ndim != 2 or x.shape[1] != d or (n is not None and len(x) != n):
        raise InputError(f"{name} has shape {x.shape}; {('any number of' if n is None else n)} rows of {d} features are needed. Give those of the same cases.")
    if not np.isfinite(x).all():
        raise InputError(f"{name} holds numbers that are not finite. Take out or fill in those cases.")
