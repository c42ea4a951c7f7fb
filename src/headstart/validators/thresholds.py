"""Validators that foretell target accuracy from confidence, calibrated on held-out source cases."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from headstart.validators.outputs import Outputs
from headstart.validators.validator import Validator


def thresholded_confidence(outputs: Outputs) -> float:
    """Return the share of target cases above the confidence that as many held-out source cases exceed as are right (Garg et al. 2022, eq. 2-3).

    Confidence is minus the entropy, of the two forms published the better.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> x = np.zeros((4, 1))
    >>> thresholded_confidence(Outputs(p, np.array([0, 0, 0, 1]), p[[0, 3, 3, 3]], x, x, None))  # three of four are right: the threshold is .7
    0.25
    """
    right = int((outputs.source.argmax(axis=1) == outputs.y).sum())
    if right == 0:
        return 0.0
    threshold = np.sort(_sureness(outputs.source))[len(outputs.y) - right]
    return float(np.mean(_sureness(outputs.target) >= threshold))


def confidence_difference(outputs: Outputs) -> float:
    """Return the accuracy on held-out source cases less what the mean of the largest probability falls by on the target (Guillory et al. 2021).

    >>> p, x = np.array([[0.9, 0.1], [0.2, 0.8]]), np.zeros((2, 1))
    >>> round(confidence_difference(Outputs(p, np.array([0, 1]), np.full((2, 2), 0.5), x, x, None)), 4)  # 1 - (.85 - .5)
    0.65
    """
    accuracy = float(np.mean(outputs.source.argmax(axis=1) == outputs.y))
    return accuracy - float(outputs.source.max(axis=1).mean() - outputs.target.max(axis=1).mean())


def _sureness(p: np.ndarray) -> np.ndarray:
    sure: np.ndarray = -entr(p).sum(axis=1)
    return sure


THRESHOLDED = Validator(
    "thresholded-confidence",
    "Garg et al. 2022, Leveraging unlabeled data to predict out-of-distribution performance",
    "assumes that confidence means in the target what it means in the source; adaptation to the target makes it mean less",
    "0 to 1",
    thresholded_confidence,
    needs="source",
)
DIFFERENCE = Validator(
    "confidence-difference",
    "Guillory et al. 2021, Predicting with confidence on unseen distributions",
    "assumes that a fall of confidence is a fall of accuracy",
    "-1 to 2; about 0 to 1",
    confidence_difference,
    needs="source",
)
