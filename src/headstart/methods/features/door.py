"""The door of every head: check what comes in once, so that the heads can trust it, and weigh cases."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import ThreadpoolController

from headstart.core import InputError
from headstart.spectrum import class_weights


def enter_fit(head: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return X as float64 (n, d) and y as class codes (n,); set ``classes_`` and ``n_features_in_`` on the head.

    Raises
    ------
    ValueError
        what scikit-learn refuses: NaN, wrong shapes, continuous targets; and :class:`InputError` when y holds one class.
    """
    X, y = validate_data(head, X, y, dtype=np.float64)
    check_classification_targets(y)
    head.classes_, codes = np.unique(y, return_inverse=True)
    if len(head.classes_) < 2:
        raise InputError(f"y holds only one class, {str(head.classes_[0])!r}; {type(head).__name__} needs at least 2. Add cases of another class.")
    return X, codes


def enter_predict(head: Any, X: Any) -> np.ndarray:
    """Return X as float64 (n, d), after checking that the head is fitted and d is what it was fitted on."""
    check_is_fitted(head)
    checked: np.ndarray = validate_data(head, X, reset=False, dtype=np.float64)
    return checked


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which BLAS uses one thread.

    Matrices here are small: a second thread gains little on an idle machine and, where the other cores are busy, spins at every
    barrier (measured: 28 s instead of 0.3 s for a logistic path of 500 x 1280). One thread also gives the same bytes on any number of cores.
    """
    limits: AbstractContextManager[Any] = _blas().limit(limits=1)
    return limits


@cache
def _blas() -> ThreadpoolController:
    """Return the BLAS libraries of this process, found once: each search reads its whole memory map, 2 to 6 ms beside a head's 20."""
    import scipy.linalg  # noqa: F401  # why: it brings a BLAS of its own, which is found only when it is there

    return ThreadpoolController().select(user_api="blas")


def case_weights(codes: np.ndarray, *, balanced: bool, weights: np.ndarray | None = None) -> np.ndarray:
    """Return (n,) positive weights with mean 1: equal, or such that every class has the same total. Given ``weights`` (n,) are kept within a class.

    >>> case_weights(np.array([0, 0, 0, 1]), balanced=True).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    if weights is None:
        return class_weights(codes) if balanced else np.ones(len(codes))
    given = np.asarray(weights, dtype=np.float64)
    given = given / np.bincount(codes, given)[codes] if balanced else given
    scaled: np.ndarray = given / given.mean()
    return scaled
