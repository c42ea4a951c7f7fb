"""The interface of a validator: a number that should be higher for the candidate that does better on the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headstart.validators.outputs import Outputs


@dataclass(frozen=True)
class Validator:
    """A named validator; called with a candidate's outputs it returns a float, and higher is better.

    Parameters
    ----------
    name : what tables call it
    paper : who proposed it
    limits : where it is known to be wrong
    range : the least and the largest value, in words; c is the number of classes
    value : what computes it
    needs : "source" where it looks at source cases, "refit" where it also trains the candidate back; nothing where it sees no more of the source than the
        shares of its classes
    """

    name: str
    paper: str
    limits: str
    range: str
    value: Callable[[Outputs], float]
    needs: str = ""

    def __call__(self, outputs: Outputs) -> float:
        return float(self.value(outputs))

    def applies(self, outputs: Outputs) -> bool:
        """Whether the outputs hold what it needs."""
        return self.needs != "refit" or outputs.refit is not None
