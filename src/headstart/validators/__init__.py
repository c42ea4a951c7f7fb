"""Choosing among domain-adaptation candidates without target labels: validators, each with its paper and its known failures.

``VALIDATORS`` is the one table of those that look at one candidate, ``JOINT`` of those that need all. Higher is better everywhere. ``evaluate`` computes all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from headstart.core import InputError
from headstart.validators.agreement import AGREEMENT, ENSEMBLE, JointValidator
from headstart.validators.certainty import ENTROPY, INFORMATION, NUCLEAR_NORM
from headstart.validators.confusion import CONFUSION, CORRELATION
from headstart.validators.neighbourhood import DENSITY
from headstart.validators.outputs import Outputs
from headstart.validators.ratio import density_ratio
from headstart.validators.reverse import REVERSE
from headstart.validators.source import EMBEDDED, SOURCE, WEIGHTED
from headstart.validators.thresholds import DIFFERENCE, THRESHOLDED
from headstart.validators.validator import Validator

VALIDATORS: Mapping[str, Validator] = {
    one.name: one
    for one in (
        SOURCE,
        WEIGHTED,
        EMBEDDED,
        ENTROPY,
        INFORMATION,
        NUCLEAR_NORM,
        CONFUSION,
        CORRELATION,
        DENSITY,
        THRESHOLDED,
        DIFFERENCE,
        REVERSE,
    )
}
JOINT: Mapping[str, JointValidator] = {one.name: one for one in (AGREEMENT, ENSEMBLE)}

__all__ = ["JOINT", "VALIDATORS", "JointValidator", "Outputs", "Validator", "density_ratio", "evaluate", "evaluate_alone"]


def evaluate(outputs: Mapping[str, Outputs]) -> dict[str, dict[str, float]]:
    """Return what every validator says of every candidate, ``[validator][candidate]``; one that lacks what it needs is left out for that candidate.

    Candidates that share their feature arrays share one estimate of the density ratio.

    Raises
    ------
    InputError
        no candidates; candidates that predict different numbers of target cases or classes.

    Examples
    --------
    >>> x, p = np.zeros((2, 1)), np.eye(2)
    >>> unsure = Outputs(p, np.array([0, 1]), np.full((2, 2), 0.5), x, x, None, ratio=np.ones(2))
    >>> said = evaluate({"sure": dataclasses.replace(unsure, target=p), "unsure": unsure})
    >>> said["class-confusion"], said["agreement"]
    ({'sure': 1.0, 'unsure': 0.5}, {'sure': 0.5, 'unsure': 0.5})
    >>> "reverse" in said
    False
    """
    if not outputs:
        raise InputError("There are no candidates to validate. Give the outputs of at least one.")
    weighed = _with_ratios(outputs)
    table = {name: {c: validator(one) for c, one in weighed.items() if validator.applies(one)} for name, validator in VALIDATORS.items()}
    table |= {name: joint(weighed) for name, joint in JOINT.items()}
    return {name: row for name, row in table.items() if row}


def evaluate_alone(targets: Mapping[str, np.ndarray], counts: Sequence[int] | np.ndarray) -> dict[str, dict[str, float]]:
    """Return what those validators say that need no case of the source, ``[validator][candidate]``.

    Parameters
    ----------
    targets : of each candidate the probabilities (m, c) of the target's cases
    counts : (c,) cases of each class that the source had

    Examples
    --------
    >>> said = evaluate_alone({"sure": np.eye(2), "unsure": np.full((2, 2), 0.5)}, [10, 10])
    >>> {name: round(value, 3) for name, value in said["class-correlation"].items()}, "source-accuracy" in said
    ({'sure': 1.0, 'unsure': 0.707}, False)
    """
    y = np.repeat(np.arange(len(counts)), np.maximum(counts, 0))
    nowhere = np.zeros((len(y), 1))
    outputs = {name: Outputs(np.eye(len(counts))[y], y, p, nowhere, np.zeros((len(p), 1)), None) for name, p in targets.items()}
    table = {name: {c: validator(one) for c, one in outputs.items()} for name, validator in VALIDATORS.items() if not validator.needs}
    return table | {name: joint(outputs) for name, joint in JOINT.items()}


def _with_ratios(outputs: Mapping[str, Outputs]) -> dict[str, Outputs]:
    known: dict[tuple[int, ...], np.ndarray] = {}
    weighed = {}
    for name, one in outputs.items():
        key = (id(one.source_features), id(one.target_features), id(one.train_features))
        ratio = one.ratio if one.ratio is not None else known.get(key)
        ratio = density_ratio(one) if ratio is None else ratio
        if one.ratio is None:
            known[key] = ratio
        weighed[name] = dataclasses.replace(one, ratio=ratio)
    return weighed
