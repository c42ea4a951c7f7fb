"""Feature augmentation (EasyAdapt, Daumé 2007): every feature thrice, once for both domains, once for the source, once for the target."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from headstart.methods.features.scaling import LiveScaler
from headstart.methods.relations.door import Domains
from headstart.methods.relations.relation import Mapped


def augmented(z: np.ndarray, *, target: bool) -> np.ndarray:
    """Return (n, 3 (d + 1)): z with a constant 1, for both domains, then for the source, then for the target, with zeros in the other's place.

    The constant lets each domain have its own intercept.

    >>> augmented(np.array([[7.0]]), target=True).tolist()
    [[7.0, 1.0, 0.0, 0.0, 7.0, 1.0]]
    """
    own = np.column_stack([z, np.ones(len(z))])
    none = np.zeros_like(own)
    return np.hstack([own, none, own] if target else [own, own, none])


class _Augmented(Mapped):
    needs_target_labels: ClassVar[bool] = True
    scales_over_both: ClassVar[bool] = False  # why: features of one domain are 0 in the other by construction
    gives_components: ClassVar[bool] = True  # why: divided by its own deviation, a copy that is mostly 0 would pay less for its weights than the shared one

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def _align(self, domains: Domains) -> None:
        self.scaler_ = LiveScaler().fit(np.vstack([domains.xs, domains.xt[domains.known]]))

    def _source(self, X: np.ndarray) -> np.ndarray:
        return augmented(self.scaler_.transform(X), target=False)

    def _seen(self, X: np.ndarray) -> np.ndarray:
        return augmented(self.scaler_.transform(X), target=True)


class EasyAdapt(ClassifierMixin, _Augmented):
    """Classify by a head on features that are there thrice, so that it learns what the domains share and what is their own (Daumé 2007).

    Features are first standardised over the cases that are trained on, so that a 0 in another domain's place is the mean. Needs labels of some target cases.

    Parameters
    ----------
    estimator : the head, linear and with an L2 penalty, on 3 (d + 1) features; ``None``: ridge with leave-one-out

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [8.0], [9.0]]), ["a", "a", "b", "b"]
    >>> EasyAdapt().fit(source, labels, source, ["a", None, None, "b"]).predict([[0.5], [8.5]]).tolist()
    ['a', 'b']
    """

    name: ClassVar[str] = "easyadapt"
    paper: ClassVar[str] = "Daumé III 2007, Frustratingly easy domain adaptation"
    limits: ClassVar[str] = "needs labelled target cases; linear heads"


class EasyAdaptRegressor(RegressorMixin, _Augmented):
    """:class:`EasyAdapt` for numbers.

    Examples
    --------
    >>> x = np.arange(6.0)[:, None]
    >>> EasyAdaptRegressor().fit(x, x.ravel(), x, [0.0, None, 2.0, None, 4.0, None]).predict([[3.0]]).round(1).tolist()
    [3.0]
    """

    name: ClassVar[str] = "easyadapt"
    paper: ClassVar[str] = EasyAdapt.paper
    limits: ClassVar[str] = EasyAdapt.limits
