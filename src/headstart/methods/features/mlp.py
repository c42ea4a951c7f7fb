"""A small network of one hidden layer on frozen features (scikit-learn's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from headstart.methods.features.head import Head
from headstart.methods.features.weighing import Balanced, Standardised
from headstart.methods.method import knob

PAPER = "Hinton 1989, Connectionist learning procedures"
LIMITS = "as many weights as features times hidden units: few cases are learnt by heart"
STEPS = 200  # passes over the cases; training mostly ends before


@dataclass(frozen=True)
class SmallNet(Head):
    """One hidden layer of rectified units.

    Parameters
    ----------
    hidden : units
    decay : penalty on squared weights, scikit-learn's ``alpha``

    Examples
    --------
    >>> SmallNet().estimator(seed=0).fit([[0.0], [1.0], [8.0], [9.0]], ["a", "a", "b", "b"]).predict([[7.5]]).tolist()
    ['b']
    """

    name: ClassVar[str] = "mlp"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = PAPER
    limits: ClassVar[str] = LIMITS

    hidden: int = knob(64, choices=(32, 64, 256))
    decay: float = knob(1.0, low=1e-3, high=30.0, log=True)

    def head(self, *, seed: int) -> Any:
        from sklearn.neural_network import MLPClassifier

        return Balanced(MLPClassifier(hidden_layer_sizes=(self.hidden,), alpha=self.decay, max_iter=STEPS, random_state=seed))


@dataclass(frozen=True)
class SmallNetRegressor(SmallNet):
    """The same for numbers.

    Parameters
    ----------
    hidden, decay : as in :class:`SmallNet`
    """

    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})

    def head(self, *, seed: int) -> Any:
        from sklearn.neural_network import MLPRegressor

        return Standardised(MLPRegressor(hidden_layer_sizes=(self.hidden,), alpha=self.decay, max_iter=STEPS, random_state=seed))
