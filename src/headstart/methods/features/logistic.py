"""Multinomial logistic regression, its L2 strength chosen from a path by inner cross-validation on log loss.

Ridge says where on the path to look, in closed form, and strengths that lose by more than chance are dropped before all folds are run (a race: Maron &
Moore 1994, "Hoeffding races"). With more features than cases the problem is first rotated into the row space of X, which is exact for an L2 penalty.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpstrf
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from headstart.methods.features import two_classes
from headstart.methods.features.door import case_weights, enter_fit, enter_predict, one_thread
from headstart.methods.features.ridge import ALPHAS, sharpness
from headstart.methods.features.scaling import column_moments, live_scale
from headstart.spectrum import Spectrum

Split = tuple[np.ndarray, np.ndarray]
Model = Any  # scikit-learn's LogisticRegression, or of two classes a TwoClasses
CS = tuple(10.0 ** (-5 + 7 * i / 9) for i in range(10))  # why: on standardised pooled activations the best C lies between 1e-4 and 1
MAX_ITER = 1000
HINT = 2048  # cases that ridge looks at: the strength is a matter of the features and the noise, not of how many cases there are
LEAST = 1e-12  # of the largest squared length of a case: what a product of the cases leaves of one that is a combination of others
FEW = 100  # held-out units up to which no strength is dropped, because their spread is hardly known
CLEARLY = 3.0  # standard errors of the paired difference


class LogisticPath(ClassifierMixin, BaseEstimator):
    """Fit a linear softmax classifier and choose its regularisation from a path.

    Features are standardised (mean and deviation of the rows given to ``fit``; no labels enter). Where on the path to begin, ridge says in closed form
    (:func:`hint`). From there neighbours are tried until the best has one on either side, each solution starting from the one beside it. After each fold,
    strengths that are worse by more than three standard errors of the paired difference are dropped, and the race ends when one is left: with many cases,
    after a fold. The final fit uses all rows and starts from that of a fold. All fits are made in float32, which takes half the time; the final one goes
    on in float64, mostly for no step more.

    Parameters
    ----------
    cs : inverse L2 strengths as in scikit-learn (C multiplies the summed log loss), positive
    inner_folds : stratified folds, fewer where the smallest class (or its number of groups) is smaller
    balanced : every class weighs the same, in the fit and in the choice of C; the metric of this package is balanced accuracy
    seed : shuffles the inner folds
    look : cases from which ridge says where on the path to begin; fewer are faster, and where it begins says hardly ever where it ends

    Attributes
    ----------
    C_ : the chosen C. With a class of one member (or one group) no inner fold can both hold and lack it: then the C of ``cs``
        nearest to 1/d is taken, because an L2 penalty is a normal prior of variance C on each weight, and C = 1/d gives a logit of
        d standardised features unit variance before any label is seen
    path_ : (len(cs),) mean inner log loss in nats on the folds that the strength ran, NaN where it was not tried; ``None`` where no inner fold was possible
    coef_, intercept_ : (c, d), (c,) weights of :meth:`linear`
    converged_ : whether every fit reached its tolerance within 1000 iterations. One that did not is a slightly more regularised
        solution (early stopping) and competes on its held-out log loss like any other, so no warning is raised
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]])
    >>> LogisticPath().fit(X, ["a", "a", "a", "b", "b", "b"]).predict([[1.5], [8.5]]).tolist()
    ['a', 'b']
    """

    def __init__(self, *, cs: tuple[float, ...] = CS, inner_folds: int = 4, balanced: bool = True, seed: int = 0, look: int = HINT) -> None:
        self.cs = cs
        self.inner_folds = inner_folds
        self.balanced = balanced
        self.seed = seed
        self.look = look

    def fit(self, X: Any, y: Any, groups: Any = None) -> LogisticPath:
        """Fit on X (n, d) and y (n,); rows that share a value of ``groups`` (n,) share an inner fold."""
        X, codes = enter_fit(self, X, y)
        with one_thread():
            mean, var = column_moments(X)
            self.mean_, self.scale_ = mean, live_scale(mean, var, len(X))
            Z, back = _row_space((X - self.mean_) / self.scale_)
            weights = case_weights(codes, balanced=self.balanced)
            cs = np.sort(np.asarray(self.cs, dtype=np.float64))
            units = _units(codes, groups)
            splits = inner_splits(codes, groups, folds=self.inner_folds, seed=self.seed)
            self.converged_ = True
            start, near = _nearest(cs, 1.0 / X.shape[1]), None
            if splits:
                race = self._race(Z, codes, weights, cs, splits, units, start=_nearest(cs, hint(Z, codes, weights, seed=self.seed, most=self.look)))
                start, near = race.best, race.models[0, race.best]
            self.path_ = race.path(len(cs)) if splits else None
            self.C_ = float(cs[start])
            near = self._fitted(near, self.C_, Z.astype(np.float32), codes, weights)
            coef, intercept = _of_every_class(self._fitted(near, self.C_, Z, codes, weights))
            self.coef_ = (coef if back is None else back(coef)) / self.scale_
            self.intercept_ = intercept - self.coef_ @ self.mean_
        return self

    def _race(self, Z: np.ndarray, codes: np.ndarray, weights: np.ndarray, cs: np.ndarray, folds: list[Split], units: np.ndarray, *, start: int) -> Race:
        """Return the race from ``start`` on."""
        race, small = Race(weights, units), Z.astype(np.float32)

        def run(i: int, fold: int, near: Model | None) -> Model:
            train, test = folds[fold]
            model = self._fitted(near, cs[i], small[train], codes[train], weights[train])
            coef, intercept = _of_every_class(model)
            with np.errstate(invalid="ignore"):  # why: see _fitted
                log_proba = log_softmax(small[test] @ coef.T + intercept, axis=1)
            race.add(i, fold, model, test, -log_proba[np.arange(len(test)), codes[test]])
            return model

        standing = [i for i in (start - 1, start) if i >= 0]
        for fold in range(len(folds)):
            near = None
            for i in standing:
                near = run(i, fold, near)
            for i in race.neighbours(len(cs)):
                for earlier in range(fold + 1):
                    run(i, earlier, race.models[earlier, race.best])
            standing = race.standing()
            if len(standing) == 1:
                break
        return race

    def _fitted(self, near: Model | None, c: float, Z: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> Model:
        """Return a new model, fitted from where ``near`` ended."""
        # why invalid: on some processors OpenBLAS raises that flag for lanes that hold no data (numpy issue 24067); inputs were checked to be finite
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported as converged_
            if len(self.classes_) == 2:
                model = two_classes.fitted(Z, codes, weights, C=float(c), most=MAX_ITER, near=near)
            else:
                model = LogisticRegression(warm_start=True, max_iter=MAX_ITER) if near is None else copy.copy(near)
                model.set_params(C=float(c)).fit(Z, codes, weights)
        self.converged_ &= bool(model.n_iter_.max() < MAX_ITER)
        return model

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """Return W (c, d) and b (c,) with ``X @ W.T + b`` the logits of unstandardised X; for two classes (-z/2, z/2)."""
        return self.coef_, self.intercept_

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits (n, c), or for two classes (n,) the logit of the second."""
        logits: np.ndarray = enter_predict(self, X) @ self.coef_.T + self.intercept_
        return logits if len(self.classes_) > 2 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        proba: np.ndarray = softmax(enter_predict(self, X) @ self.coef_.T + self.intercept_, axis=1)
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most


@dataclass
class Race:
    """Held-out losses of strengths, and the models that made them, by (fold, strength).

    Parameters
    ----------
    weights : (n,) of cases
    units : (n,) codes of what is independent: cases, or groups of them
    """

    weights: np.ndarray
    units: np.ndarray
    losses: dict[int, np.ndarray] = field(default_factory=dict)
    models: dict[tuple[int, int], Model] = field(default_factory=dict)

    def add(self, i: int, fold: int, model: Model, rows: np.ndarray, losses: np.ndarray) -> None:
        """Note that strength ``i`` had those losses on the fold's held-out rows."""
        self.losses.setdefault(i, np.full(len(self.weights), np.nan))[rows] = losses
        self.models[fold, i] = model

    @property
    def best(self) -> int:
        """The strength with the least mean loss, of those that ran all folds so far; of equals the smallest C."""
        return min(self._whole(), key=lambda i: (self._mean(i), i))

    def neighbours(self, count: int) -> Iterator[int]:
        """Yield strengths beside the best that were never tried, until it has one on either side; whoever asks runs each before asking for the next."""
        while free := [i for i in (self.best + 1, self.best - 1) if 0 <= i < count and i not in self.losses]:
            yield free[0]

    def standing(self) -> list[int]:
        """Return the strengths that ran all folds so far and are not clearly worse than the best, rising."""
        return [i for i in sorted(self._whole()) if not self._clearly_worse(i)]

    def path(self, count: int) -> np.ndarray:
        """Return (count,) mean losses, NaN where a strength was not tried."""
        return np.array([self._mean(i) if i in self.losses else np.nan for i in range(count)])

    def _whole(self) -> list[int]:
        ran = {i: int(np.isfinite(losses).sum()) for i, losses in self.losses.items()}
        return [i for i, cases in ran.items() if cases == max(ran.values())]

    def _mean(self, i: int) -> float:
        seen = np.isfinite(self.losses[i])
        return float(np.average(self.losses[i][seen], weights=self.weights[seen]))

    def _clearly_worse(self, i: int) -> bool:
        worse = self.weights * (self.losses[i] - self.losses[self.best])
        seen = np.isfinite(worse)
        who = np.unique(self.units[seen], return_inverse=True)[1]
        by_unit = np.bincount(who, worse[seen])
        return len(by_unit) > FEW and bool(by_unit.mean() > CLEARLY * by_unit.std(ddof=1) / np.sqrt(len(by_unit)))


def hint(Z: np.ndarray, codes: np.ndarray, weights: np.ndarray, *, seed: int, most: int = HINT) -> float:
    """Return the C at which logistic regression is about as smooth as the ridge regression with the least leave-one-out error.

    Along a direction of the features with s^2 in sum, ridge keeps s^2 / (s^2 + alpha) of a weight. Logistic regression, near its solution, has the curvature
    s^2 mean p (1 - p), and keeps s^2 / (s^2 + 1 / (C mean p (1 - p))): the same where C = 1 / (alpha mean p (1 - p)). p are ridge's left-out probabilities
    of every class. Of more than ``most`` cases, so many are drawn.
    """
    if len(Z) > most:
        rows = np.sort(np.random.default_rng(seed).choice(len(Z), most, replace=False))
        Z, codes, weights = Z[rows], codes[rows], weights[rows]
    Y = 2.0 * np.eye(codes.max() + 1)[codes] - 1.0
    residuals = Spectrum.of(Z, weights=weights).ridge(Y).left_out(ALPHAS)
    best = int(np.argmin([np.average(np.square(r).mean(axis=1), weights=weights) for r in residuals]))
    decision = Y - residuals[best]
    proba = softmax(sharpness(decision, codes, weights) * decision, axis=1)
    spread = float(np.average((proba * (1.0 - proba)).mean(axis=1), weights=weights))
    return float(1.0 / (ALPHAS[best] * spread))


def _nearest(cs: np.ndarray, c: float) -> int:
    return int(np.argmin(np.abs(np.log(cs) - np.log(c))))


def _of_every_class(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Return (c, d) and (c,): the weights of every class's logit."""
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    return np.vstack([-model.coef_, model.coef_]) / 2, np.concatenate([-model.intercept_, model.intercept_]) / 2


@dataclass(frozen=True)
class Back:
    """From coordinates in a row space to weights on features.

    Parameters
    ----------
    factor : (r, r) lower triangular
    rows : (r, d) of the features; factor^-1 rows is the orthonormal basis of the coordinates
    """

    factor: np.ndarray
    rows: np.ndarray

    def __call__(self, coef: np.ndarray) -> np.ndarray:
        """Return weights (c, d) for weights on coordinates (c, r)."""
        weights: np.ndarray = solve_triangular(self.factor, coef.T, lower=True, trans="T", check_finite=False).T @ self.rows
        return weights


def _row_space(Z: np.ndarray) -> tuple[np.ndarray, Back | None]:
    """Return Z in an orthonormal basis of its row space where d > n, and the way back.

    Exact: the L2 penalty is invariant to rotation, and weights orthogonal to every row only add penalty (representer theorem). It
    holds for every subset of rows, so one rotation serves all inner folds. The pivoted Cholesky factor of Z Z' gives such coordinates at a quarter of the
    cost of QR; a row that lies in the span of others but for a 1e-6th of the longest has none of its own.
    """
    if Z.shape[1] <= Z.shape[0]:
        return Z, None
    gram = Z @ Z.T
    factor, pivots, rank, _ = dpstrf(gram, tol=LEAST * gram.diagonal().max(), lower=1, overwrite_a=1)
    coordinates, pivots = np.empty((len(Z), rank)), pivots - 1
    coordinates[pivots] = np.tril(factor[:, :rank])
    return coordinates, Back(factor[:rank, :rank], Z[pivots[:rank]])


def _units(codes: np.ndarray, groups: Any) -> np.ndarray:
    """Return (n,) codes of the groups, or of the cases where there are none."""
    units = np.arange(len(codes)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(units) != len(codes):
        raise ValueError(f"groups has {len(units)} entries for {len(codes)} rows. Give one for each row.")
    return units


def inner_splits(codes: np.ndarray, groups: Any, *, folds: int, seed: int) -> list[Split]:
    """Return up to ``folds`` stratified splits whose training part holds every class; none where that cannot be."""
    units, classes = _units(codes, groups), np.unique(codes)
    k = min(folds, *(len(np.unique(units[codes == c])) for c in classes))
    if k < 2:
        return []
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    splits = splitter(k, shuffle=True, random_state=seed).split(codes[:, None], codes, None if groups is None else units)
    return [(train, test) for train, test in splits if len(test) and len(np.unique(codes[train])) == len(classes)]
