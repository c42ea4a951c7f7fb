"""Soft neighbourhood density: whether each target case has many others that the candidate sees alike."""

from __future__ import annotations

import numpy as np
from scipy.special import entr, softmax

from headstart.validators.outputs import Outputs
from headstart.validators.validator import Validator

TEMPERATURE = 0.05  # of Saito et al. 2021, sec. 3.2
ROWS = 1024  # of the similarity matrix held at once


def neighbourhood_density(outputs: Outputs) -> float:
    """Return the mean entropy, nats, of each target case's softmax over its cosines to all others, at temperature 0.05 (Saito et al. 2021, eq. 2-3).

    The cosines are those of the output probabilities, as in the paper, not of features. A case is no neighbour of itself. Of fewer than three target cases
    the density is 0.

    >>> x, p = np.zeros((4, 1)), np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> round(neighbourhood_density(Outputs(p, np.zeros(4, dtype=int), p, x, x, None)), 4)  # all alike: log 3
    1.0986
    """
    p = outputs.target / np.linalg.norm(outputs.target, axis=1, keepdims=True)
    if len(p) < 3:
        return 0.0
    total = 0.0
    for start in range(0, len(p), ROWS):
        cosines = p[start : start + ROWS] @ p.T / TEMPERATURE
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
        total += float(entr(softmax(cosines, axis=1)).sum())
    return total / len(p)


DENSITY = Validator(
    "neighbourhood",
    "Saito et al. 2021, Tune it the right way: unsupervised validation of domain adaptation via soft neighborhood density",
    "best, log(n - 1), for a candidate that says the same of every case; picks degenerate candidates",
    "0 to log(n - 1) of n target cases",
    neighbourhood_density,
)
