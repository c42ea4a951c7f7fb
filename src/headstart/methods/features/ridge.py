"""Ridge classification with exact leave-one-out over the whole path, from the one decomposition of :mod:`headstart.spectrum`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from headstart.methods.features.door import case_weights, enter_fit, enter_predict, one_thread
from headstart.methods.features.scaling import column_moments, live_scale, over_both
from headstart.spectrum import Spectrum

ALPHAS = tuple(10.0 ** (-1 + i / 2) for i in range(15))  # 0.1 .. 1e6; why: the Gram matrix of standardised features has trace n d
SHARPEST = 100.0  # largest factor on decisions; they lie about 2 apart


class RidgeLOO(ClassifierMixin, BaseEstimator):
    """Fit weighted least squares to +1/-1 one-hot targets and choose the ridge penalty by exact leave-one-out.

    Minimises sum_i w_i |y_i - b - W z_i|^2 + alpha |W|^2 on standardised features z; the intercept b is free. Leave-one-out is exact for
    the standardisation and the weights w of all n cases (with ``balanced`` a left-out case would change its class count by one).

    Parameters
    ----------
    alphas : penalties, positive
    balanced : every class weighs the same, in the fit and in the choice of alpha; the metric of this package is balanced accuracy
    each : divide each feature by its own deviation. ``False``: all by the root mean square of the deviations, for features whose deviations say how much
        they matter, such as principal components, of which the last would be rounding blown up
    smoothing : how much less than sure probabilities are asked to be, see :func:`sharpness`; 2 as in Platt 1999, with which they are right as often as they say

    Attributes
    ----------
    alpha_ : the penalty with the least weighted leave-one-out squared error; the largest of equals. Squared error is what is fitted and is
        smooth in alpha; the error rate moves in steps of 1/n and ties over decades
    path_ : (len(alphas),) mean leave-one-out squared error, weighted, per alpha
    loo_decision_ : (n, c) decision of each training case by the model fitted without it, about -1..1
    sharpness_ : inverse temperature of the softmax, fitted to ``loo_decision_`` (log loss, smoothed targets as in Platt 1999)
    coef_, intercept_ : (c, d), (c,) decisions of unstandardised X; :meth:`linear` gives logits
    mean_, scale_ : (d,) by which features were standardised; the scale of a dead one is infinite
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]])
    >>> RidgeLOO().fit(X, ["a", "a", "a", "b", "b", "b"]).predict([[1.5], [8.5]]).tolist()
    ['a', 'b']
    """

    def __init__(self, *, alphas: tuple[float, ...] = ALPHAS, balanced: bool = True, each: bool = True, smoothing: float = 2.0) -> None:
        self.alphas = alphas
        self.balanced = balanced
        self.each = each
        self.smoothing = smoothing

    def fit(self, X: Any, y: Any, weights: Any = None, beside: Any = None) -> RidgeLOO:
        """Fit on X (n, d) and y (n,); ``weights`` (n,) of cases, positive, enter the fit and the left-out error.

        ``beside`` (m, d) are cases of another domain that the head is to serve. Then ``each`` feature is divided by its deviation over both: by that in X
        alone, what hardly moves there and much in the other domain would be blown up, such as a pixel at the rim of a digit.

        With weights p_target(x) / p_source(x) that error is importance-weighted validation (Sugiyama et al. 2007) of each penalty. They are not called
        sample_weight because a case of weight 2 is not a case that is there twice: leave-one-out leaves out both halves of the one.
        """
        X, codes = enter_fit(self, X, y)
        with one_thread():
            self.mean_, self.scale_ = self._scaled_by(X, None if weights is None else np.asarray(weights, dtype=np.float64), beside)
            weights = case_weights(codes, balanced=self.balanced, weights=weights)
            Y = 2.0 * np.eye(len(self.classes_))[codes] - 1.0
            Z = X - self.mean_
            Z /= self.scale_
            path = Spectrum.of(Z, weights=weights).ridge(Y)
            residuals = path.left_out(self.alphas)
            self.path_ = np.array([np.average(np.square(r).mean(axis=1), weights=weights) for r in residuals])
            best = max(range(len(self.alphas)), key=lambda i: (-self.path_[i], self.alphas[i]))
            self.alpha_ = float(self.alphas[best])
            self.loo_decision_ = Y - residuals[best]
            self.sharpness_ = sharpness(self.loo_decision_, codes, weights, smoothing=self.smoothing)
            coef, intercept = path.solve(self.alpha_)
            self.coef_ = coef / self.scale_
            self.intercept_ = intercept - self.coef_ @ self.mean_
        return self

    def _scaled_by(self, X: np.ndarray, weights: np.ndarray | None, beside: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean (d,) and what features are divided by (d,)."""
        mean, var = column_moments(X, weights=weights)
        if not self.each:
            return mean, np.full(X.shape[1], np.sqrt(var.mean()) or 1.0)
        scale = live_scale(mean, var, len(X) if weights is None else weights.sum())
        if beside is None:
            return mean, scale
        return mean, over_both(scale, var, (mean, var) if weights is None else column_moments(X), len(X), np.asarray(beside, dtype=np.float64))

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """Return W (c, d) and b (c,) with ``X @ W.T + b`` the logits of unstandardised X; their softmax is ``predict_proba``."""
        return self.sharpness_ * self.coef_, self.sharpness_ * self.intercept_

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the fitted targets (n, c), about -1..1, or for two classes (n,) that of the second."""
        decision: np.ndarray = enter_predict(self, X) @ self.coef_.T + self.intercept_
        return decision if len(self.classes_) > 2 else decision[:, 1]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        X = enter_predict(self, X)
        W, b = self.linear()
        proba: np.ndarray = softmax(X @ W.T + b, axis=1)
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most


def sharpness(decision: np.ndarray, codes: np.ndarray, weights: np.ndarray, *, smoothing: float = 2.0) -> float:
    """Return the factor on decisions (n, c) that minimises log loss against smoothed targets.

    They are (n_k + 1) / (n_k + smoothing) for the own class of a case (Platt 1999, eq. 1.9, with 2) and the rest in equal parts for the others, which keeps the
    factor finite where leave-one-out made no mistake. With c in place of 2, as is often written for c classes, 20 classes of 7 cases would be .3 sure at most.
    """
    n_k = np.bincount(codes)[codes].astype(float)
    c = decision.shape[1]
    targets = np.repeat(((smoothing - 1.0) / ((n_k + smoothing) * max(1, c - 1)))[:, None], c, axis=1)
    targets[np.arange(len(codes)), codes] = (n_k + 1.0) / (n_k + smoothing)

    below = decision - decision.max(axis=1, keepdims=True)
    own = float(weights @ (targets * below).sum(axis=1))  # targets sum to 1, so that the log of the softmax's divisor counts once for each case

    def loss(log_factor: float) -> float:
        factor = float(np.exp(log_factor))
        return float(weights @ np.log(np.exp(factor * below).sum(axis=1))) - factor * own

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(1.0 / SHARPEST), np.log(SHARPEST)), method="bounded").x))
