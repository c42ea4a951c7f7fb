"""Agreement between candidates: those that most others confirm on the target. It needs the outputs of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from headstart.core import InputError
from headstart.validators.outputs import Outputs


@dataclass(frozen=True)
class JointValidator:
    """A validator of all candidates at once; called with their outputs it returns a float for each, and higher is better. Fields as in ``Validator``."""

    name: str
    paper: str
    limits: str
    range: str
    value: Callable[[Mapping[str, Outputs]], dict[str, float]]

    def __call__(self, outputs: Mapping[str, Outputs]) -> dict[str, float]:
        return self.value(outputs)


def mean_agreement(outputs: Mapping[str, Outputs]) -> dict[str, float]:
    """Return for each candidate the share of target cases on which another one says the same class, mean over the others; 1 where there is no other.

    >>> x = np.zeros((2, 1))
    >>> a, b = (Outputs(np.eye(2), np.array([0, 1]), p, x, x, None) for p in (np.eye(2), np.eye(2)[[0, 0]]))
    >>> mean_agreement({"a": a, "b": b, "c": a})
    {'a': 0.75, 'b': 0.5, 'c': 0.75}
    """
    labels = _labels(outputs)
    if len(labels) < 2:
        return dict.fromkeys(outputs, 1.0)
    same = (labels[:, None, :] == labels[None, :, :]).mean(axis=2)
    return dict(zip(outputs, ((same.sum(axis=1) - 1.0) / (len(labels) - 1)).tolist(), strict=True))


def ensemble_agreement(outputs: Mapping[str, Outputs]) -> dict[str, float]:
    """Return for each candidate the share of target cases on which it says what the mean of all candidates' probabilities says (Hu et al. 2024).

    >>> x = np.zeros((2, 1))
    >>> a, b = (Outputs(np.eye(2), np.array([0, 1]), p, x, x, None) for p in (np.eye(2), np.eye(2)[[0, 0]]))
    >>> ensemble_agreement({"a": a, "b": b, "c": a})
    {'a': 1.0, 'b': 0.5, 'c': 1.0}
    """
    labels = _labels(outputs)
    vote = np.mean([one.target for one in outputs.values()], axis=0).argmax(axis=1)
    return dict(zip(outputs, (labels == vote).mean(axis=1).tolist(), strict=True))


def _labels(outputs: Mapping[str, Outputs]) -> np.ndarray:
    """Return (candidates, n_t): the classes that the candidates say."""
    shapes = {one.target.shape for one in outputs.values()}
    if len(shapes) != 1:
        raise InputError(f"Target probabilities have shapes {sorted(shapes)}; candidates agree on the same cases and classes only. Predict the same for all.")
    return np.array([one.target.argmax(axis=1) for one in outputs.values()])


AGREEMENT = JointValidator(
    "agreement",
    "Platanios et al. 2014, Estimating accuracy from unlabeled data",
    "what most candidates share may be their error; near copies confirm each other",
    "0 to 1",
    mean_agreement,
)
ENSEMBLE = JointValidator(
    "ensemble",
    "Hu et al. 2024, Towards reliable model selection for unsupervised domain adaptation: an empirical study and a certified baseline",
    "as agreement; the surest candidates weigh most",
    "0 to 1",
    ensemble_agreement,
)
