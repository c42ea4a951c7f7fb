"""Validators that see source labels: accuracy on held-out source cases, as they are, and weighed by how likely the target draws them."""

from __future__ import annotations

import numpy as np

from headstart.validators.outputs import Outputs
from headstart.validators.ratio import density_ratio
from headstart.validators.validator import Validator


def source_accuracy(outputs: Outputs) -> float:
    """Return the balanced accuracy on held-out source cases, 0..1.

    >>> x = np.zeros((3, 1))
    >>> source_accuracy(Outputs(np.eye(2)[[0, 0, 0]], np.array([0, 0, 1]), np.eye(2)[[0, 0, 1]], x, x, None))
    0.5
    """
    right = outputs.source.argmax(axis=1) == outputs.y
    return float(np.mean([right[outputs.y == c].mean() for c in np.unique(outputs.y)]))


def weighted_accuracy(outputs: Outputs) -> float:
    """Return sum w right / sum w over held-out source cases with w = p_target(x) / p_source(x), 0..1 (Sugiyama et al. 2007).

    Published is mean w times the loss. Divided by the sum of w it is biased a little, keeps its range, and does not depend on the scale of an estimated w.

    >>> x, sure = np.zeros((3, 1)), np.eye(2)
    >>> weighted_accuracy(Outputs(sure[[0, 0, 0]], np.array([0, 0, 1]), sure, x, x[:2], None, ratio=np.array([1.0, 1.0, 6.0])))
    0.25
    """
    w = density_ratio(outputs)
    if not w.any():
        return float(np.mean(outputs.source.argmax(axis=1) == outputs.y))
    return float(np.average(outputs.source.argmax(axis=1) == outputs.y, weights=w))


def embedded_validation(outputs: Outputs) -> float:
    """Return 1 less the risk of deep embedded validation (You et al. 2019, alg. 1), of the error 0 or 1.

    With w = p_target(x) / p_source(x) and L = w error: risk = mean L + eta mean w - eta, eta = -cov(L, w) / var(w). The control variate uses that the mean of
    w is 1, as it is for the true ratio; an estimated one can miss 1 by far, and the value then leaves 0..1.

    >>> x, sure = np.zeros((3, 1)), np.eye(2)
    >>> embedded_validation(Outputs(sure[[0, 0, 0]], np.array([0, 0, 1]), sure, x, x[:2], None, ratio=np.array([1.0, 1.0, 1.0]))).__round__(4)
    0.6667
    """
    w = density_ratio(outputs)
    loss = w * (outputs.source.argmax(axis=1) != outputs.y)
    spread = float(w.var())
    eta = -float(np.mean((loss - loss.mean()) * (w - w.mean()))) / spread if spread > 0.0 else 0.0
    return 1.0 - float(loss.mean() + eta * w.mean() - eta)


SOURCE = Validator(
    "source-accuracy",
    "cross-validation on the source; Gulrajani & Lopez-Paz 2021, In search of lost domain generalization",
    "does not see the target",
    "0 to 1",
    source_accuracy,
    needs="source",
)
WEIGHTED = Validator(
    "importance-weighted",
    "Sugiyama et al. 2007, Covariate shift adaptation by importance weighted cross validation",
    "covariate shift on overlapping domains; in many dimensions a few cases carry all the weight",
    "0 to 1",
    weighted_accuracy,
    needs="source",
)
EMBEDDED = Validator(
    "dev",
    "You et al. 2019, Towards accurate model selection in deep unsupervised domain adaptation",
    "as importance-weighted; its control variate can turn the order round where the estimated ratio's mean is far from 1",
    "unbounded; about 0 to 1",
    embedded_validation,
    needs="source",
)
