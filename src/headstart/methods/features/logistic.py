"""Multinomial logistic regression over a whole L2 path, the strength chosen by inner cross-validation on log loss.

With more features than cases the problem is first rotated into the row space of X, which is exact for an L2 penalty and as small as n.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.linalg import qr
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from headstart.methods.features.door import case_weights, enter_fit, enter_predict, one_thread
from headstart.methods.features.scaling import LiveScaler

CS = tuple(10.0 ** (-5 + 7 * i / 9) for i in range(10))  # why: on standardised pooled activations the best C lies between 1e-4 and 1
MAX_ITER = 1000


class LogisticPath(ClassifierMixin, BaseEstimator):
    """Fit a linear softmax classifier and choose its regularisation from a path.

    Features are standardised (mean and deviation of the rows given to ``fit``; no labels enter). The path is fitted in rising C, each
    solution starting from the last. C is the one with the least mean log loss on the inner folds; the final fit uses all rows.

    Parameters
    ----------
    cs : inverse L2 strengths as in scikit-learn (C multiplies the summed log loss), positive
    inner_folds : stratified folds, fewer where the smallest class (or its number of groups) is smaller
    balanced : every class weighs the same, in the fit and in the choice of C; the metric of this package is balanced accuracy
    seed : shuffles the inner folds

    Attributes
    ----------
    C_ : the chosen C. With a class of one member (or one group) no inner fold can both hold and lack it: then the C of ``cs``
        nearest to 1/d is taken, because an L2 penalty is a normal prior of variance C on each weight, and C = 1/d gives a logit of
        d standardised features unit variance before any label is seen
    path_ : (len(cs),) mean inner log loss in nats, or ``None`` where no inner fold was possible
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

    def __init__(self, *, cs: tuple[float, ...] = CS, inner_folds: int = 4, balanced: bool = True, seed: int = 0) -> None:
        self.cs = cs
        self.inner_folds = inner_folds
        self.balanced = balanced
        self.seed = seed

    def fit(self, X: Any, y: Any, groups: Any = None) -> LogisticPath:
        """Fit on X (n, d) and y (n,); rows that share a value of ``groups`` (n,) share an inner fold."""
        X, codes = enter_fit(self, X, y)
        with one_thread():
            scaler = LiveScaler().fit(X)
            Z, basis = _row_space(scaler.transform(X))
            weights = case_weights(codes, balanced=self.balanced)
            cs = np.sort(np.asarray(self.cs, dtype=np.float64))
            splits = inner_splits(codes, groups, folds=self.inner_folds, seed=self.seed)
            self.converged_ = True
            self.path_ = self._path(Z, codes, weights, cs, splits) if splits else None
            best = int(np.argmin(self.path_)) if self.path_ is not None else int(np.argmin(np.abs(np.log(cs * X.shape[1]))))
            self.C_ = float(cs[best])
            coef, intercept = self._solve(_model(), self.C_, Z, codes, weights)
            coef = coef if basis is None else coef @ basis.T
            self.coef_ = coef / scaler.scale_
            self.intercept_ = intercept - self.coef_ @ scaler.mean_
        return self

    def _path(self, Z: np.ndarray, codes: np.ndarray, weights: np.ndarray, cs: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return (len(cs),) weighted mean log loss on the held-out rows."""
        loss = np.zeros(len(cs))
        for train, test in splits:
            model = _model()
            for i, c in enumerate(cs):
                coef, intercept = self._solve(model, c, Z[train], codes[train], weights[train])
                log_proba = log_softmax(Z[test] @ coef.T + intercept, axis=1)
                loss[i] -= weights[test] @ log_proba[np.arange(len(test)), codes[test]]
        loss /= sum(weights[test].sum() for _, test in splits)
        return loss

    def _solve(self, model: LogisticRegression, c: float, Z: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (c, d) and (c,): logits of every class; the model keeps its solution for the next, larger C."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported as converged_
            model.set_params(C=float(c)).fit(Z, codes, weights)
        self.converged_ &= bool(model.n_iter_.max() < MAX_ITER)
        if len(self.classes_) > 2:
            return model.coef_, model.intercept_
        return np.vstack([-model.coef_, model.coef_]) / 2, np.concatenate([-model.intercept_, model.intercept_]) / 2

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


def _model() -> LogisticRegression:
    return LogisticRegression(warm_start=True, max_iter=MAX_ITER)


def _row_space(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return Z in an orthonormal basis (d, r) of its row space where d > n, so that Z = rotated @ basis.T.

    Exact: the L2 penalty is invariant to rotation, and weights orthogonal to every row only add penalty (representer theorem). It
    holds for every subset of rows, so one rotation serves all inner folds. QR gives such a basis at a fraction of the cost of an SVD.
    """
    if Z.shape[1] <= Z.shape[0]:
        return Z, None
    basis, coordinates = qr(Z.T, mode="economic")
    return np.ascontiguousarray(coordinates.T), basis


def inner_splits(codes: np.ndarray, groups: Any, *, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return up to ``folds`` stratified splits whose training part holds every class; none where that cannot be."""
    units = np.arange(len(codes)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(units) != len(codes):
        raise ValueError(f"groups has {len(units)} entries for {len(codes)} rows. Give one for each row.")
    classes = np.unique(codes)
    k = min(folds, *(len(np.unique(units[codes == c])) for c in classes))
    if k < 2:
        return []
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    splits = splitter(k, shuffle=True, random_state=seed).split(codes[:, None], codes, None if groups is None else units)
    return [(train, test) for train, test in splits if len(test) and len(np.unique(codes[train])) == len(classes)]
