"""The door of every relation-level method: check two domains once, and train the final head with weights.

Domain adaptation learns from labelled source cases and target cases that have few labels or none. Missing labels are ``None``, never a sentinel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, has_fit_parameter, validate_data

from headstart.core import InputError

WEIGHTS = ("sample_weight", "weights")  # scikit-learn's word, and that of this package's heads


@dataclass(frozen=True)
class Domains:
    """Two samples that came through the door.

    Parameters
    ----------
    xs, ys : (n, d) and (n,) source cases and targets, as they were given
    xt : (m, d) target cases
    known : (m,) whether a target case has a label
    yt : (number known,) their labels, in order
    """

    xs: np.ndarray
    ys: np.ndarray
    xt: np.ndarray
    known: np.ndarray
    yt: np.ndarray

    @property
    def both(self) -> np.ndarray:
        """(n + m, d): source cases, then target cases."""
        both: np.ndarray = np.vstack([self.xs, self.xt])
        return both


def enter_domains(method: Any, X: Any, y: Any, X_target: Any, y_target: Any) -> Domains | None:
    """Return the two domains in float64, or ``None`` after plain training's checks where there is no ``X_target`` (then ``xs`` is all there is).

    Sets ``n_features_in_``, and ``classes_`` of a classifier.

    Raises
    ------
    ValueError
        what scikit-learn refuses: NaN, wrong shapes, numbers as classes; and :class:`InputError` for one class, a target of another width,
        of fewer than two cases, with labels of another number or of a class that the source lacks, or labels without cases.
    """
    if X_target is None:
        if y_target is not None:
            raise InputError("y_target came without X_target. Give the target's cases, too.")
        return None
    xs, ys = enter_source(method, X, y)
    xt = check_array(X_target, dtype=np.float64, ensure_min_samples=1, input_name="X_target")
    if xt.shape[1] != xs.shape[1]:
        raise InputError(f"X has {xs.shape[1]} columns but X_target has {xt.shape[1]}. Give both domains the same features, in the same order.")
    for name, x in (("X", xs), ("X_target", xt)):
        if len(x) < 2:
            raise InputError(f"{name} holds {len(x)} case; a domain needs at least 2. Add cases.")
    known, yt = _labels(method, y_target, len(xt), ys)
    return Domains(xs, ys, xt, known, yt)


def enter_source(method: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return X as float64 (n, d) and y (n,): classes as they are, or numbers; set ``n_features_in_``, and ``classes_`` of a classifier."""
    if not is_classifier(method):
        xs, ys = validate_data(method, X, y, dtype=np.float64, y_numeric=True)
        return xs, np.asarray(ys, dtype=np.float64)
    xs, ys = validate_data(method, X, y, dtype=np.float64)
    check_classification_targets(ys)
    method.classes_ = np.unique(ys)
    if len(method.classes_) < 2:
        raise InputError(f"y holds only one class, {str(method.classes_[0])!r}; {type(method).__name__} needs at least 2. Add cases of another class.")
    return xs, ys


def need_labels(method: Any, domains: Domains) -> None:
    """Refuse a target without labels, for methods that learn from them."""
    if not domains.known.any():
        raise InputError(f"{type(method).__name__} learns from labelled target cases, and there are none. Give y_target, with None for cases without a label.")


def codes_of(classes: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the place of each label of y among ``classes``, which are sorted.

    >>> codes_of(np.array(["a", "b"]), np.array(["b", "a", "b"])).tolist()
    [1, 0, 1]
    """
    return np.searchsorted(classes, y)


def fit_head(head: Any, X: np.ndarray, y: np.ndarray, *, weights: np.ndarray | None = None, beside: np.ndarray | None = None) -> Any:
    """Return a fitted clone of the head; weights (n,) are not negative. Cases of weight 0 are left out; where the others weigh alike, no weights are passed.

    ``beside`` (m, d), target cases as the head will see them, reach a head that takes them (ridge, for its scale).

    Raises
    ------
    InputError
        a head that takes no weights; weights that leave one class.
    """
    head = clone(head)
    given = {"beside": beside} if beside is not None and has_fit_parameter(head, "beside") else {}
    if weights is None:
        return head.fit(X, y, **given)
    alive = weights > 0
    X, y, weights = X[alive], y[alive], weights[alive]
    if is_classifier(head) and len(np.unique(y)) < 2:
        raise InputError("The weights leave source cases of one class only: the domains hardly overlap. Use a method that moves features, such as CORAL.")
    if weights.min() == weights.max():
        return head.fit(X, y, **given)
    return head.fit(X, y, **{_weight_name(head): weights / weights.mean()}, **given)


def proba_of(head: Any, X: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the head's probabilities (n, c) in the order of ``classes``; a class that it was not trained on has 0."""
    own = head.predict_proba(X)
    out = np.zeros((len(X), len(classes)))
    out[:, codes_of(classes, head.classes_)] = own
    return out


def _weight_name(head: Any) -> str:
    last = head.steps[-1][1] if isinstance(head, Pipeline) else head
    for name in WEIGHTS:
        if has_fit_parameter(last, name):
            return f"{head.steps[-1][0]}__{name}" if isinstance(head, Pipeline) else name
    raise InputError(f"{type(last).__name__} takes no weights of cases, so this method cannot train it. Give an estimator whose fit takes sample_weight.")


def _labels(method: Any, y_target: Any, m: int, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which target cases have a label, and their labels in the type of the source's."""
    if y_target is None:
        return np.zeros(m, dtype=bool), ys[:0]
    given = list(y_target)
    if len(given) != m:
        raise InputError(f"X_target holds {m} cases but y_target {len(given)} labels. Give one for each, None where it is not known.")
    known = np.array([label is not None for label in given], dtype=bool)
    labels = [label for label in given if label is not None]
    if not labels:
        return known, ys[:0]
    if not is_classifier(method):
        yt = check_array(np.asarray(labels, dtype=np.float64), ensure_2d=False, input_name="y_target")
        return known, yt
    unknown = sorted({str(label) for label in labels} - {str(label) for label in method.classes_})
    if unknown:
        raise InputError(f"y_target holds class {unknown[0]!r}, which y lacks. Add source cases of it, or leave those target cases out.")
    return known, np.asarray(labels).astype(method.classes_.dtype)
