"""Random features of a Gaussian kernel and a ridge on them: a kernel machine whose time goes with the cases, not with their square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.methods.features.door import one_thread
from headstart.methods.features.head import Head
from headstart.methods.features.probe import ALPHAS
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.method import knob

PAPER = "Rahimi & Recht 2007, Random features for large-scale kernel machines"
LIMITS = "the kernel has one width for all features"
KINDS = ("fourier", "nystroem")


@dataclass(frozen=True)
class RandomFeatures(Head):
    """Random features and a ridge that finds its penalty by leave-one-out.

    Parameters
    ----------
    kind, components : as in :class:`KernelFeatures`

    Examples
    --------
    >>> X = [[0.0], [0.1], [5.0], [5.1], [10.0], [10.1]]
    >>> RandomFeatures().estimator(seed=0).fit(X, list("aabbaa")).predict([[5.0], [0.0]]).tolist()  # no line parts these
    ['b', 'a']
    """

    name: ClassVar[str] = "random-features"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = PAPER
    limits: ClassVar[str] = LIMITS

    kind: str = knob("fourier", choices=KINDS)
    components: int = knob(1024, choices=(256, 1024, 2048))

    def head(self, *, seed: int) -> Any:
        return make_pipeline(KernelFeatures(kind=self.kind, components=self.components, seed=seed), RidgeLOO(each=False))


@dataclass(frozen=True)
class RandomFeaturesRegressor(RandomFeatures):
    """The same for numbers.

    Parameters
    ----------
    kind, components : as in :class:`KernelFeatures`
    """

    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})

    def head(self, *, seed: int) -> Any:
        return make_pipeline(KernelFeatures(kind=self.kind, components=self.components, seed=seed), RidgeCV([a / self.components for a in ALPHAS]))


class KernelFeatures(TransformerMixin, BaseEstimator):
    """Features whose inner products are about exp(-gamma |a - b|^2), with gamma 1 / (d times the variance of the features).

    Parameters
    ----------
    kind : "fourier" (random cosines, Rahimi & Recht 2007) or "nystroem" (kernel with drawn cases, as many as there are at most; Williams & Seeger 2001)
    components : features
    seed : decides what is drawn

    Attributes
    ----------
    map_ : scikit-learn's ``RBFSampler`` or ``Nystroem``, fitted
    n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> Z = KernelFeatures(components=5000).fit_transform([[0.0], [2.0]])  # variance 1: exp(-4) = 0.018
    >>> bool(abs(Z[0] @ Z[1] - np.exp(-4.0)) < 0.05)
    True
    """

    def __init__(self, *, kind: str = "fourier", components: int = 1024, seed: int = 0) -> None:
        self.kind = kind
        self.components = components
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw features for X (n, d)."""
        X = validate_data(self, X, dtype=np.float64)
        gamma = 1.0 / (X.shape[1] * (float(X.var()) or 1.0))
        if self.kind == "fourier":
            self.map_ = RBFSampler(gamma=gamma, n_components=self.components, random_state=self.seed)
        else:
            self.map_ = Nystroem(gamma=gamma, n_components=min(self.components, len(X)), random_state=self.seed)
        with one_thread():
            self.map_.fit(X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the random features (n, components)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        with one_thread():
            features: np.ndarray = self.map_.transform(X)
        return features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
