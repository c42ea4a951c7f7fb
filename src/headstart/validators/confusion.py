"""Validators from the c x c matrix of classes that are probable for the same target case.

Entropy alone is best for a candidate that predicts one class. Both forms here correct for that: the one gives each class a row of its own to be sure in, the
other says which shares the classes should have.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr, softmax

from headstart.validators.outputs import Outputs
from headstart.validators.validator import Validator

TEMPERATURE = 2.5  # of Jin et al. 2020, sec. 4.1


def class_confusion(outputs: Outputs) -> float:
    """Return 1 less the minimum class confusion loss of Jin et al. 2020 (eq. 3 to 6).

    Target probabilities are softened to p^(1/T), T = 2.5; a case weighs 1 + exp(-H) of its entropy H, scaled to mean 1; C = sum_i w_i p_i p_i'; every row of C
    is divided by its sum; the value is the mean of the diagonal. A class without any mass, of which the published loss is 0 / 0, counts as wholly confused.

    >>> x = np.zeros((2, 1))
    >>> class_confusion(Outputs(np.eye(2), np.array([0, 1]), np.eye(2), x, x, None))
    1.0
    >>> class_confusion(Outputs(np.eye(2), np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), x, x, None))
    0.5
    """
    with np.errstate(divide="ignore"):
        p = softmax(np.log(outputs.target) / TEMPERATURE, axis=1)
    weights = 1.0 + np.exp(-entr(p).sum(axis=1))
    C = (p * (weights / weights.mean())[:, None]).T @ p
    mass = C.sum(axis=1)
    return float(np.divide(np.diag(C), mass, out=np.zeros(len(C)), where=mass > 0).mean())


def class_correlation(outputs: Outputs) -> float:
    """Return the cosine between P'P / n of the target's probabilities P and the diagonal matrix of the source's class shares (Tu et al. 2024, eq. 1-2).

    1 for a candidate that is sure of every case and predicts the classes in those shares; the first version of the paper (2022) has the identity instead.

    >>> x = np.zeros((4, 1))
    >>> sure = np.eye(2)[[0, 0, 0, 1]]
    >>> round(class_correlation(Outputs(sure, np.array([0, 0, 0, 1]), sure, x, x, None)), 4)
    1.0
    """
    p = outputs.target
    C = p.T @ p
    shares = np.bincount(outputs.y, minlength=outputs.classes)
    return float(np.diag(C) @ shares / (np.linalg.norm(C) * np.linalg.norm(shares)))


CONFUSION = Validator(
    "class-confusion",
    "Jin et al. 2020, Minimum class confusion for versatile domain adaptation",
    "sure and wrong is as good as sure and right; compares how candidates are calibrated",
    "0 to 1",
    class_confusion,
)
CORRELATION = Validator(
    "class-correlation",
    "Tu et al. 2024, What does softmax probability tell us about classifiers ranking across diverse test conditions?",
    "expects the source's class shares in the target; sure and wrong is as good as sure and right",
    "0 to 1",
    class_correlation,
)
