"""Each domain standardised by its own mean and deviation, feature by feature: batch normalisation with the target's statistics, on features."""

from __future__ import annotations

from typing import Any, ClassVar

from sklearn.base import ClassifierMixin, RegressorMixin

from headstart.methods.features.scaling import LiveScaler
from headstart.methods.relations.door import Domains
from headstart.methods.relations.relation import Mapped


class _Scaled(Mapped):
    """What both forms share: the two scalers."""

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def _align(self, domains: Domains) -> None:
        self.scalers_ = LiveScaler().fit(domains.xs), LiveScaler().fit(domains.xt)

    def _source(self, X: Any) -> Any:
        return self.scalers_[0].transform(X)

    def _seen(self, X: Any) -> Any:
        return self.scalers_[1].transform(X)


class ScaledByDomain(ClassifierMixin, _Scaled):
    """Classify the target by a head on source cases, both domains standardised apart (Li et al. 2018, of features instead of activations).

    Repairs what a shift and a factor of each feature make: other units, brightness, contrast, gain. The least that any method does which matches moments.

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out

    Attributes
    ----------
    scalers_ : of the source and of the target; a feature that hardly moves in its domain is 0 there

    Examples
    --------
    >>> source, labels = [[0.0], [1.0], [8.0], [9.0]], ["a", "a", "b", "b"]
    >>> ScaledByDomain().fit(source, labels, [[100.0], [110.0], [180.0], [190.0]]).predict([[105.0], [185.0]]).tolist()
    ['a', 'b']
    """

    name: ClassVar[str] = "scaled"
    paper: ClassVar[str] = "Li et al. 2018, Adaptive batch normalization for practical domain adaptation"
    limits: ClassVar[str] = "one feature at a time; harms where the classes' shares differ between the domains, for means and deviations follow them"


class ScaledByDomainRegressor(RegressorMixin, _Scaled):
    """:class:`ScaledByDomain` for numbers.

    Examples
    --------
    >>> x = [[0.0], [1.0], [2.0], [3.0]]
    >>> ScaledByDomainRegressor().fit(x, [0.0, 3.0, 6.0, 9.0], [[100.0], [110.0], [120.0], [130.0]]).predict([[110.0]]).round(1).tolist()
    [3.0]
    """

    name: ClassVar[str] = "scaled"
    paper: ClassVar[str] = ScaledByDomain.paper
    limits: ClassVar[str] = "one feature at a time; harms where the targets are spread differently in the two domains"
