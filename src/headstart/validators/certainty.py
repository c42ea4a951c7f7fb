"""Validators that see target probabilities alone: how sure the candidate is, and whether it is sure of different things."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from headstart.validators.outputs import Outputs
from headstart.validators.validator import Validator


def negative_entropy(outputs: Outputs) -> float:
    """Return minus the mean entropy of the target's probabilities, nats.

    >>> x = np.zeros((2, 1))
    >>> round(negative_entropy(Outputs(np.eye(2), np.array([0, 1]), np.array([[0.5, 0.5], [1.0, 0.0]]), x, x, None)), 4)  # -(log 2 + 0) / 2
    -0.3466
    """
    return -float(entr(outputs.target).sum(axis=1).mean())


def mutual_information(outputs: Outputs) -> float:
    """Return the entropy of the mean probabilities less the mean entropy, nats: the information that a target case gives about its class.

    0 for a candidate that says the same of every case, however sure it is.

    >>> x = np.zeros((2, 1))
    >>> round(mutual_information(Outputs(np.eye(2), np.array([0, 1]), np.eye(2), x, x, None)), 4)  # log 2
    0.6931
    """
    return float(entr(outputs.target.mean(axis=0)).sum()) + negative_entropy(outputs)


def nuclear_norm(outputs: Outputs) -> float:
    """Return the nuclear norm of the target's probabilities P (n, c), over its bound sqrt(n min(n, c)) (Cui et al. 2020, eq. 8).

    1 only where every row is sure and the classes are predicted equally often. The published loss is computed on batches; here on all cases at once.

    >>> x = np.zeros((2, 1))
    >>> round(nuclear_norm(Outputs(np.eye(2), np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), x, x, None)), 4)  # sqrt 2 of 2
    0.7071
    """
    p = outputs.target
    return float(np.linalg.svd(p, compute_uv=False).sum() / np.sqrt(len(p) * min(p.shape)))


ENTROPY = Validator(
    "entropy",
    "Morerio et al. 2018, Minimal-entropy correlation alignment for unsupervised deep domain adaptation",
    "best for a candidate that is sure of one class for all cases; compares how candidates are calibrated",
    "-log c to 0",
    negative_entropy,
)
INFORMATION = Validator(
    "information",
    "Krause et al. 2010, Discriminative clustering by regularized information maximization; as a validator Musgrave et al. 2022",
    "prefers equal class shares, whatever those of the target are; sure and wrong is as good as sure and right",
    "0 to log c",
    mutual_information,
)
NUCLEAR_NORM = Validator(
    "nuclear-norm",
    "Cui et al. 2020, Towards discriminability and diversity: batch nuclear-norm maximization; as a validator Musgrave et al. 2022",
    "prefers equal class shares, whatever those of the target are; sure and wrong is as good as sure and right",
    "0 to 1",
    nuclear_norm,
)
