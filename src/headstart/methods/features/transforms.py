"""What is done to features before a head sees them, fitted on its training cases alone: scaling, unit length, signed roots, principal components.

A frozen network's features were made for its own classifier; few cases often do better on fewer, evener or shorter ones.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.core import InputError
from headstart.methods.features.door import one_thread
from headstart.methods.features.scaling import LiveScaler

MOST = 128  # components: more than a head can use of a few hundred cases, and trees and Gaussian processes take their time by them
NOTHING = 1e-10  # of the largest variance: below it a component is rounding, and whitening would blow it up


class SignedRoot(TransformerMixin, BaseEstimator):
    """Take the root of every feature's size and keep its sign: long tails of rectified features become shorter (Perronnin et al. 2010, sec. 3).

    >>> SignedRoot().fit_transform([[4.0, -9.0]]).tolist()
    [[2.0, -3.0]]
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check X (n, d); there is nothing to learn."""
        validate_data(self, X, dtype=np.float64)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the roots (n, d)."""
        check_is_fitted(self, "n_features_in_")
        X = validate_data(self, X, reset=False, dtype=np.float64)
        root: np.ndarray = np.sign(X) * np.sqrt(np.abs(X))
        return root


class Components(TransformerMixin, BaseEstimator):
    """Turn features into their first principal components: at most so many, and no more than cases and features allow.

    Parameters
    ----------
    most : components
    whiten : divide each by its deviation, so that all count alike

    Attributes
    ----------
    pca_ : scikit-learn's ``PCA``, fitted
    n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> Components(most=1).fit_transform([[0.0, 0.0], [2.0, 0.0], [4.0, 0.1]]).round(1).ravel().tolist()
    [-2.0, -0.0, 2.0]
    """

    def __init__(self, *, most: int = MOST, whiten: bool = False) -> None:
        self.most = most
        self.whiten = whiten

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the components of X (n, d)."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        with one_thread():
            pca = PCA(min(self.most, len(X) - 1, X.shape[1]), whiten=self.whiten, svd_solver="full").fit(X)
            live = max(1, int(np.sum(pca.explained_variance_ > NOTHING * pca.explained_variance_[0])))
            self.pca_ = pca if live == pca.n_components_ else PCA(live, whiten=self.whiten, svd_solver="full").fit(X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the components (n, k) of X (n, d)."""
        check_is_fitted(self)
        with one_thread():
            parts: np.ndarray = self.pca_.transform(validate_data(self, X, reset=False, dtype=np.float64))
        return parts

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


TRANSFORMS = ("none", "standard", "unit", "root", "pca", "whiten")


def steps(transform: str) -> list[Any]:
    """Return the scikit-learn transformers of that name, unfitted.

    - "none": features as they come
    - "standard": mean 0 and deviation 1
    - "unit": mean 0, then length 1 in each case (Wang et al. 2019, SimpleShot, "CL2N")
    - "root": signed roots, then as "standard"
    - "pca": as "standard", then the first 128 principal components
    - "whiten": the same, each divided by its deviation

    Raises
    ------
    InputError
        no transform of that name.

    >>> [type(step).__name__ for step in steps("whiten")]
    ['LiveScaler', 'Components']
    """
    if transform not in TRANSFORMS:
        raise InputError(f"transform={transform!r} is unknown. Choose one of {', '.join(TRANSFORMS)}.")
    if transform == "unit":
        return [StandardScaler(with_std=False), Normalizer()]
    first: list[Any] = [] if transform == "none" else [SignedRoot(), LiveScaler()] if transform == "root" else [LiveScaler()]
    return [*first, *([Components(whiten=transform == "whiten")] if transform in ("pca", "whiten") else [])]


def after(transform: str, head: Any) -> Any:
    """Return the head behind that transform: one estimator, so that both are fitted on the same cases, a fold's training part.

    >>> from sklearn.neighbors import NearestCentroid
    >>> after("pca", NearestCentroid()).fit([[0.0, 1.0], [1.0, 0.0], [9.0, 9.0]], [0, 0, 1]).predict([[8.0, 8.0]]).tolist()
    [1]
    """
    before = steps(transform)
    return make_pipeline(*before, head) if before else head
