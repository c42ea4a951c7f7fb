"""The ratio of the domains' densities at held-out source cases, by a classifier of domains (Bickel et al. 2007).

A classifier that saw a case tells its domain too well in many dimensions, and all ratios go to 0. So it is never asked about cases that it was fitted to.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from headstart.methods.features.logistic import LogisticPath
from headstart.validators.outputs import Outputs

FOLDS = 4
SEED = 0  # shuffles the folds
LARGEST = 1e6


def density_ratio(outputs: Outputs) -> np.ndarray:
    """Return how many times likelier the target draws each held-out source case, (n_s,): the one given, or an estimate.

    Logistic regression tells ``train_features`` from ``target_features``, both domains weighing alike, its penalty chosen by cross-validation. Without
    ``train_features`` each quarter of the held-out cases is asked about by a classifier of the other three.

    >>> dice = np.random.default_rng(0)
    >>> at, train, target = dice.normal(0, 1, (500, 1)), dice.normal(0, 1, (2000, 1)), dice.normal(1, 1, (2000, 1))
    >>> p = np.full((500, 2), 0.5)
    >>> ratio = density_ratio(Outputs(p, np.zeros(500, dtype=int), np.full((2000, 2), 0.5), at, target, train))
    >>> bool(np.corrcoef(np.log(ratio), at.ravel() - 0.5)[0, 1] > 0.999)  # of two Gaussians: x - 1/2
    True
    """
    if outputs.ratio is not None:
        return outputs.ratio
    if outputs.train_features is not None:
        return _classified(outputs.train_features, outputs.target_features, outputs.source_features)
    n = len(outputs.source_features)
    folds = min(FOLDS, n)
    fold = np.random.default_rng(SEED).permutation(n) % folds
    ratio = np.ones(n)
    for k in range(folds if folds > 1 else 0):
        rest = outputs.source_features[fold != k]
        ratio[fold == k] = _classified(rest, outputs.target_features, outputs.source_features[fold == k])
    return ratio


def _classified(source: np.ndarray, target: np.ndarray, at: np.ndarray) -> np.ndarray:
    head = LogisticPath(balanced=True).fit(np.vstack([source, target]), np.repeat([0, 1], [len(source), len(target)]))
    p = expit(head.decision_function(at))
    ratio: np.ndarray = np.minimum(p / np.maximum(1.0 - p, np.finfo(float).tiny), LARGEST)
    return ratio
