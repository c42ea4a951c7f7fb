"""Reverse validation: does the candidate, trained back from its own target labels, know the source's?"""

from __future__ import annotations

import numpy as np

from headstart.core import InputError
from headstart.validators.outputs import Outputs
from headstart.validators.validator import Validator


def reverse_accuracy(outputs: Outputs) -> float:
    """Return the balanced accuracy on held-out source cases of the candidate trained back from the target with the labels it gave it, 0..1.

    Zhong et al. 2010; Ganin et al. 2016, sec. 5.1.2; Bruzzone & Marconcini 2010 call it circular validation. A candidate that gives every target case one
    class is not trained back: its reverse says that class of every source case.

    Raises
    ------
    InputError
        outputs without ``refit``.

    >>> x, p = np.array([[0.0], [1.0]]), np.eye(2)
    >>> def nearest(codes):
    ...     return codes[np.abs(x - x.T).argmin(axis=1)]
    >>> reverse_accuracy(Outputs(p, np.array([0, 1]), p, x, x, None, refit=nearest))
    1.0
    """
    if outputs.refit is None:
        raise InputError("Reverse validation trains the candidate back, and the outputs have no refit. Give one, or leave the validator out.")
    given = outputs.target.argmax(axis=1)
    found = outputs.refit(given) if len(np.unique(given)) > 1 else np.full(len(outputs.y), given[0])
    return float(np.mean([np.mean(found[outputs.y == c] == c) for c in np.unique(outputs.y)]))


REVERSE = Validator(
    "reverse",
    "Zhong et al. 2010, Cross validation framework to choose amongst models and datasets for transfer learning; Ganin et al. 2016",
    "classes that were swapped on the way there may be swapped back; costs a second training",
    "0 to 1",
    reverse_accuracy,
    needs="refit",
)
