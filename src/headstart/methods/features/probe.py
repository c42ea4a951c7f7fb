"""Frozen features and a head: the source's activations at a cut, averaged over positions, then a closed-form classifier.

Earlier stages are often the better features when the target looks unlike the source (Yosinski et al. 2014), so the cut is a hyperparameter,
and two cuts may be laid side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from headstart.core import Source
from headstart.methods.features.knn import KNN
from headstart.methods.features.logistic import LogisticPath
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.method import Arm, Closed, Level, View, knob


@dataclass(frozen=True)
class Probe(Closed):
    """Frozen features + head.

    Parameters
    ----------
    head : "ridge" (closed-form leave-one-out), "logistic" (whole L2 path, cross-validated) or "knn"
    back : how many stages before the last one the features come from; 0 is the final feature
    span : how many consecutive stages, counted back from there, are laid side by side

    Examples
    --------
    >>> Probe(back=1, span=2).view(Source("s", stages=("stem", "a", "b", "head"))).cuts
    (2, 3)
    """

    name: ClassVar[str] = "frozen + head"
    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "feature"

    head: str = knob("ridge", choices=("ridge", "logistic", "knn"))
    back: int = knob(0, choices=(0, 1, 2, 3))
    span: int = knob(1, choices=(1, 2, 4))

    def view(self, source: Source | None) -> View:
        if source is None:
            raise ValueError("a probe needs a source")
        last = max(1, len(source.stages) - self.back)
        return View("pooled", source.name, tuple(range(max(1, last - self.span + 1), last + 1)))

    def estimator(self, *, seed: int) -> Any:
        if self.head == "ridge":
            return RidgeLOO()
        if self.head == "knn":
            return KNN()
        return LogisticPath(seed=seed)
