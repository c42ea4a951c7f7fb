"""Intervals that hold on a new task: quantiles of errors over tasks, each task counting once (Lee, Barber & Willett 2023, "Distribution-free inference
with hierarchical data", HCP).

Errors of one task are alike, so that a hundred pairs of ten tasks are ten pieces of evidence about an eleventh, not a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def quantile_over_tasks(errors: Sequence[Sequence[float] | np.ndarray], *, level: float) -> float:
    """Return the error that a new case of a new task stays within at that level; infinite where there are too few tasks to say.

    With T tasks, each error of task k weighs 1 / ((T + 1) n_k). Of the missing 1 / (T + 1), the new task's own, half counts as below: with all of it
    at infinity the level is sure to be held, but by up to 1 / (T + 1) too much, and 13 real targets were covered at .975 where .9 was said. So the
    level is held to within 1 / (2 (T + 1)), on average over tasks and their cases, where tasks are exchangeable. At 90 % nine tasks are the fewest.

    Parameters
    ----------
    errors : for each task its errors, 0 or more; an empty task counts as none
    level : between 0 and 1

    >>> quantile_over_tasks([[1.0], [2.0], [3.0]], level=0.5)  # weights 1/4 each, and 1/8 besides: two of them hold half
    2.0
    >>> quantile_over_tasks([[1.0], [2.0], [3.0]], level=0.9)
    inf
    """
    tasks = [np.asarray(task, dtype=np.float64) for task in errors if len(task)]
    if not tasks:
        return math.inf
    own = 1.0 / (len(tasks) + 1)
    if 1.0 - own < level - 1e-12:
        return math.inf
    values, weights = _pooled(tasks)
    reached = np.cumsum(weights) + own / 2.0 >= level - 1e-12
    return float(values[np.argmax(reached)])


def share_below(errors: Sequence[Sequence[float] | np.ndarray], bound: float, *, blur: float = 0.0) -> float:
    """Return the probability that a new error of a new task lies below the bound: the conformal predictive distribution of signed errors.

    Weights are those of :func:`quantile_over_tasks`, and half of what is missing is counted: nothing is known of it. 0.5 without tasks.

    Parameters
    ----------
    bound : in the unit of the errors
    blur : standard deviation of the bound itself, where it was measured with an error

    >>> share_below([[-1.0], [1.0], [3.0]], 0.0)  # one of three at 1/4, and half of the missing 1/4
    0.375
    """
    tasks = [np.asarray(task, dtype=np.float64) for task in errors if len(task)]
    if not tasks:
        return 0.5
    values, weights = _pooled(tasks)
    if blur > 0.0:
        from scipy.special import ndtr

        below = ndtr((bound - values) / blur)
    else:
        below = (values < bound) + 0.5 * (values == bound)
    return float(weights @ below) + 0.5 / (len(tasks) + 1)


def _pooled(tasks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate(tasks)
    weights = np.concatenate([np.full(len(task), 1.0 / ((len(tasks) + 1) * len(task))) for task in tasks])
    order = np.argsort(values, kind="stable")
    return values[order], weights[order]
