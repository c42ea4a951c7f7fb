"""A user's own scikit-learn estimator as a head on frozen features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sklearn.base import clone, is_classifier, is_regressor

from headstart.core import InputError
from headstart.methods.features.head import Head
from headstart.methods.features.svm import Platt
from headstart.methods.features.transforms import TRANSFORMS, after
from headstart.methods.method import knob


@dataclass(frozen=True)
class OwnHead(Head):
    """Any scikit-learn classifier or regressor, a pipeline as well, on a frozen source's features.

    It is taken as it is: classes are balanced where its own parameters say so. A classifier without ``predict_proba`` gets Platt's sigmoid. Seeds that
    are left open (``random_state=None``) are set to that of the run, which would else not be repeatable.

    Parameters
    ----------
    given : the estimator, unfitted

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> OwnHead(given=GaussianNB(var_smoothing=1e-3)).name
    'GaussianNB(var_smoothing=0.001)'
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = "yours"
    limits: ClassVar[str] = "yours"

    transform: str = knob("none", choices=TRANSFORMS)
    given: Any = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The estimator as scikit-learn writes it: what tells it from other heads in a run's journal."""
        return re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(self.given).split()))

    def estimator(self, *, seed: int) -> Any:
        model = clone(self.given)
        model.set_params(**{key: seed for key, value in model.get_params().items() if key.split("__")[-1] == "random_state" and value is None})
        if is_classifier(model) and not hasattr(model, "predict_proba"):
            model = Platt(model, balanced=False, seed=seed)
        return after(self.transform, model)

    def head(self, *, seed: int) -> Any:
        return self.estimator(seed=seed)


def own_heads(estimators: Sequence[Any], *, classes: int) -> tuple[OwnHead, ...]:
    """Return the estimators as heads, in that order.

    Raises
    ------
    InputError
        what is given is no scikit-learn estimator, predicts classes where numbers are asked for or the other way round, or is there twice.
    """
    heads = tuple(OwnHead(given=estimator) for estimator in estimators)
    for head in heads:
        kind, wanted, such = ("classifier", is_classifier, "LogisticRegression") if classes else ("regressor", is_regressor, "Ridge")
        if isinstance(head.given, type) or not hasattr(head.given, "get_params") or not wanted(head.given):
            raise InputError(f"heads holds {head.name}, which is no scikit-learn {kind}. Give unfitted {kind}s, such as {such}().")
    names = [head.name for head in heads]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"heads holds {twice} twice. Give each once.")
    return heads


def classes_of(heads: Sequence[OwnHead]) -> list[str]:
    """Return the dotted names of the classes of all estimators in the heads, which whoever hands them over trusts.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> classes_of([OwnHead(given=GaussianNB())])
    ['sklearn.naive_bayes.GaussianNB']
    """
    parts = [part for head in heads for part in (head.given, *head.given.get_params().values()) if hasattr(part, "get_params")]
    return sorted({f"{type(part).__module__}.{type(part).__qualname__}" for part in parts})
