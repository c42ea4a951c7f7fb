"""Label shift: the classes' shares differ between the domains, what a class looks like does not.

Two estimates of the target's shares, by the confusions of a classifier (BBSE, Lipton et al. 2018) and by maximum likelihood (EM, Saerens et al. 2002). Either
multiplies the classifier's probabilities by target share over source share.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedKFold
from torch import nn

from headstart.core import InputError
from headstart.methods.features.door import enter_predict
from headstart.methods.relations.door import Domains, codes_of, fit_head, proba_of
from headstart.methods.relations.relation import Relation

FOLDS = 5
CORRECTION = "correction"  # the buffer of a linear layer with the logarithms of its factors


def black_box_shares(confusion: np.ndarray, rates: np.ndarray, *, n: int) -> np.ndarray:
    """Return the target's class shares (c,) that explain how often each class is predicted there (Lipton et al. 2018, eq. 2-3), clipped at 0.

    Parameters
    ----------
    confusion : (c, c) joint shares: ``[i, j]`` of source cases predicted i that are j, held out from training
    rates : (c,) shares of target cases predicted as each class
    n : how many source cases the confusions were counted on

    Raises
    ------
    InputError
        predictions that tell some classes hardly apart: P(predicted | class) has a singular value no larger than the norm of its sampling error, so that
        what its inverse makes of the rates is chance.

    >>> black_box_shares(np.array([[0.4, 0.1], [0.1, 0.4]]), np.array([0.26, 0.74]), n=100).round(4).tolist()  # .8 p + .2 (1 - p) = .26
    [0.1, 0.9]
    """
    source = confusion.sum(axis=0)
    given = confusion / source
    least = float(np.linalg.svd(given, compute_uv=False)[-1])
    # a (c, c) matrix of independent errors has a largest singular value of about 2 / sqrt(c) of its Frobenius norm, and of no more than that norm
    error = min(1.0, 2.0 / np.sqrt(len(given))) * float(np.sqrt(np.sum(given * (1.0 - given) / (n * source))))
    if least <= max(error, 1e-9):
        raise InputError(
            f"The classifier tells some classes hardly apart (least singular value of its confusions {least:.3f}, their sampling error {error:.3f}), so its "
            "predictions do not tell their shares. Use em, or merge those classes."
        )
    shares = np.maximum(np.linalg.solve(given, rates), 0.0)
    found: np.ndarray = shares / shares.sum()
    return found


def likeliest_shares(proba: np.ndarray, source: np.ndarray, *, steps: int = 1000, tolerance: float = 1e-10) -> np.ndarray:
    """Return the target's class shares (c,) of the greatest likelihood, by EM (Saerens et al. 2002, eq. 2.9).

    Parameters
    ----------
    proba : (m, c) the source classifier's probabilities of target cases, calibrated
    source : (c,) class shares that the classifier was trained on, positive

    >>> likeliest_shares(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0.5, 0.5])).tolist()
    [0.75, 0.25]
    """
    shares = source
    for _ in range(steps):
        after: np.ndarray = reweighed(proba, shares / source).mean(axis=0)
        if np.abs(after - shares).max() < tolerance:
            return after
        shares = after
    return shares


def reweighed(proba: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return probabilities (n, c) times the factors (c,), scaled to sum to 1; a row that vanishes is left as it was.

    >>> reweighed(np.array([[0.5, 0.5]]), np.array([1.0, 3.0])).tolist()
    [[0.25, 0.75]]
    """
    scaled = proba * factors
    total = scaled.sum(axis=1, keepdims=True)
    out: np.ndarray = np.where(total > 0, scaled / np.where(total > 0, total, 1.0), proba)
    return out


def corrected(layer: nn.Linear, factors: np.ndarray) -> nn.Linear:
    """Return a net's classifier with its probabilities multiplied by the factors (c,), in place; it remembers them in a buffer, so that it is saved with them.

    >>> layer = corrected(corrected(nn.Linear(1, 2), np.array([2.0, 1.0])), np.array([2.0, 1.0]))
    >>> correction(layer).round(4).tolist()
    [4.0, 1.0]
    """
    more = torch.from_numpy(np.log(factors))
    with torch.no_grad():
        layer.bias.add_(more.to(layer.bias))
    layer.register_buffer(CORRECTION, torch.from_numpy(np.log(correction(layer))) + more)
    return layer


def correction(layer: nn.Linear) -> np.ndarray:
    """Return the factors (c,) by which a classifier's probabilities were multiplied; 1 where they never were."""
    held = dict(layer.named_buffers(recurse=False)).get(CORRECTION)
    return np.ones(layer.out_features) if held is None else np.exp(held.detach().cpu().double().numpy())


class LabelShift(Relation):
    """The interface of corrections for label shift: a method estimates the target's class shares.

    The head is trained on the source as it is. Labelled target cases count as known in the shares; they do not join the training.

    Attributes
    ----------
    shares_, source_shares_ : (c,) of the target, estimated, and of the source
    weights_ : (n,) of the source cases: share in the target over share in the source
    """

    def final(self) -> Any:
        """Return the head as it will be cloned: ``estimator``, or ridge with leave-one-out that is not balanced, for shares are the matter here."""
        from headstart.methods.features.ridge import RidgeLOO

        return RidgeLOO(balanced=False) if self.estimator is None else self.estimator

    def predict(self, X: Any) -> np.ndarray:
        """Return the class (n,) that is most probable under the target's shares."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) under the target's shares, in the order of ``classes_``."""
        X = enter_predict(self, X)
        proba = proba_of(self.head_, X, self.classes_)
        return reweighed(proba, self.shares_ / self.source_shares_) if self.related_ else proba

    def _learn_alone(self, xs: np.ndarray, ys: np.ndarray) -> None:
        super()._learn_alone(xs, ys)
        self._keep(ys, np.bincount(codes_of(self.classes_, ys)) / len(ys))

    def _learn(self, domains: Domains) -> None:
        self.head_ = fit_head(self.final(), domains.xs, domains.ys)
        self.source_shares_ = np.bincount(codes_of(self.classes_, domains.ys)) / len(domains.ys)
        shares = np.bincount(codes_of(self.classes_, domains.yt), minlength=len(self.classes_)).astype(float)
        unknown = domains.xt[~domains.known]
        if len(unknown):
            shares += len(unknown) * self._shares(domains, proba_of(self.head_, unknown, self.classes_))
        self._keep(domains.ys, shares / shares.sum())

    def _keep(self, ys: np.ndarray, shares: np.ndarray) -> None:
        codes = codes_of(self.classes_, ys)
        self.source_shares_ = np.bincount(codes) / len(ys)
        self.shares_ = shares
        self.weights_ = (shares / self.source_shares_)[codes]

    @abstractmethod
    def _shares(self, domains: Domains, proba: np.ndarray) -> np.ndarray:
        """Return the shares (c,) among target cases without a label, whose uncorrected probabilities (m, c) are given."""


class BBSE(ClassifierMixin, LabelShift):
    """Correct a classifier for the target's class shares, found from its confusions: black-box shift estimation (Lipton et al. 2018).

    Confusions are those of held-out source cases, in stratified folds, five or as many as the smallest class has cases. The classifier may be wrong as long as
    its confusions are the same in both domains.

    Parameters
    ----------
    estimator : the classifier, with ``predict_proba``; ``None``: ridge with leave-one-out, not balanced
    seed : shuffles the folds

    Attributes
    ----------
    shares_, source_shares_ : (c,) of the target, estimated, and of the source
    weights_ : (n,) of the source cases: share in the target over share in the source
    confusion_ : (c, c) ``[i, j]`` share of source cases predicted i that are j

    Examples
    --------
    >>> x, y = np.array([[0.0], [1.0], [0.5], [10.0], [11.0], [10.5]]), ["a", "a", "a", "b", "b", "b"]
    >>> BBSE().fit(x, y, [[0.1], [0.2], [0.3], [10.2]]).shares_.round(3).tolist()
    [0.75, 0.25]
    """

    name: ClassVar[str] = "bbse"
    paper: ClassVar[str] = "Lipton et al. 2018, Detecting and correcting for label shift with black box predictors"
    limits: ClassVar[str] = "label shift alone; refuses where the classifier tells classes hardly apart"

    def __init__(self, estimator: Any = None, *, seed: int = 0) -> None:
        self.estimator = estimator
        self.seed = seed

    def _shares(self, domains: Domains, proba: np.ndarray) -> np.ndarray:
        codes, c = codes_of(self.classes_, domains.ys), len(self.classes_)
        smallest = int(np.bincount(codes).argmin())
        folds = min(FOLDS, int(np.bincount(codes).min()))
        if folds < 2:
            raise InputError(f"Class {str(self.classes_[smallest])!r} has one source case, so that its confusions cannot be measured. Add a case, or use em.")
        self.confusion_ = np.zeros((c, c))
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=self.seed).split(codes[:, None], codes):
            found = codes_of(self.classes_, clone(self.final()).fit(domains.xs[train], domains.ys[train]).predict(domains.xs[test]))
            np.add.at(self.confusion_, (found, codes[test]), 1.0 / len(codes))
        return black_box_shares(self.confusion_, np.bincount(proba.argmax(axis=1), minlength=c) / len(proba), n=len(codes))


class LabelShiftEM(ClassifierMixin, LabelShift):
    """Correct a classifier for the target's class shares of the greatest likelihood, by EM (Saerens et al. 2002).

    More precise than :class:`BBSE` where the classifier's probabilities are right, misled where they are not.

    Parameters
    ----------
    estimator : the classifier, with ``predict_proba``; ``None``: ridge with leave-one-out, not balanced

    Attributes
    ----------
    shares_, source_shares_ : (c,) of the target, estimated, and of the source
    weights_ : (n,) of the source cases: share in the target over share in the source

    Examples
    --------
    >>> dice = np.random.default_rng(0)
    >>> x, y = np.concatenate([dice.normal(0, 1, 500), dice.normal(4, 1, 500)])[:, None], np.repeat([0, 1], 500)
    >>> target = np.concatenate([dice.normal(0, 1, 900), dice.normal(4, 1, 100)])[:, None]
    >>> LabelShiftEM().fit(x, y, target).shares_.round(1).tolist()
    [0.9, 0.1]
    """

    name: ClassVar[str] = "em"
    paper: ClassVar[str] = "Saerens et al. 2002, Adjusting the outputs of a classifier to new a priori probabilities"
    limits: ClassVar[str] = "label shift alone; needs calibrated probabilities"

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def _shares(self, domains: Domains, proba: np.ndarray) -> np.ndarray:
        return likeliest_shares(proba, self.source_shares_)


class Corrected(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose probabilities are multiplied by a factor for each class: what is left of a correction where no source case is there.

    Parameters
    ----------
    fitted : the classifier, fitted, with ``predict_proba``
    factors : (c,) in the order of its ``classes_``, positive

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> head = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    >>> Corrected(head, np.array([3.0, 1.0])).predict_proba([[0.5]]).round(3).tolist()
    [[0.75, 0.25]]
    """

    def __init__(self, fitted: Any, factors: Any) -> None:
        self.fitted = fitted
        self.factors = factors

    @property
    def classes_(self) -> np.ndarray:
        """(c,) the classes of the classifier."""
        classes: np.ndarray = self.fitted.classes_
        return classes

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c), in the order of ``classes_``."""
        return reweighed(self.fitted.predict_proba(X), np.asarray(self.factors))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each case (n,)."""
        most: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return most
