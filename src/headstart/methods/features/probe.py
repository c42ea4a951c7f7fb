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

ALPHAS = tuple(10.0**k for k in range(-3, 7))  # ridge penalties: from almost none to almost the mean, for standardised features

NEIGHBOURS = 10  # that a number is the mean of


@dataclass(frozen=True)
class Probe(Closed):
    """Frozen features + head.

    Parameters
    ----------
    head : "ridge" (closed-form leave-one-out), "logistic" (whole L2 path, cross-validated) or "knn"
    back : how many stages before the last one the features come from, a tail that merely pools not counted; 0 is the final feature
    span : how many consecutive stages, counted back from there, are laid side by side

    Examples
    --------
    >>> Probe(back=1, span=2).view(Source("s", stages=("stem", "a", "b", "head"))).cuts
    (2, 3)
    """

    name: ClassVar[str] = "frozen + head"
    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "feature"
    paper: ClassVar[str] = "Kornblith et al. 2019, Do better ImageNet models transfer better?"
    limits: ClassVar[str] = "cannot move the features towards the task"

    head: str = knob("ridge", choices=("ridge", "logistic", "knn"))
    back: int = knob(0, choices=(0, 1, 2, 3))
    span: int = knob(1, choices=(1, 2, 4))

    def view(self, source: Source | None) -> View:
        return view_of(source, back=self.back, span=self.span)

    def estimator(self, *, seed: int) -> Any:
        if self.head == "ridge":
            return RidgeLOO()
        if self.head == "knn":
            return KNN()
        return LogisticPath(seed=seed)


@dataclass(frozen=True)
class ProbeRegressor(Closed):
    """Frozen features + head for numbers.

    Parameters
    ----------
    head : "ridge" (closed-form leave-one-out over the whole penalty path) or "knn" (10 neighbours, nearer ones weigh more)
    back, span : as in :class:`Probe`

    Examples
    --------
    >>> ProbeRegressor().estimator(seed=0).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0]).predict([[1.5]]).round(2).tolist()
    [4.0]
    """

    name: ClassVar[str] = "frozen + head"
    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "feature"
    paper: ClassVar[str] = "Kornblith et al. 2019, Do better ImageNet models transfer better?"
    limits: ClassVar[str] = "cannot move the features towards the task"

    head: str = knob("ridge", choices=("ridge", "knn"))
    back: int = knob(0, choices=(0, 1, 2, 3))
    span: int = knob(1, choices=(1, 2, 4))

    def view(self, source: Source | None) -> View:
        return view_of(source, back=self.back, span=self.span)

    def estimator(self, *, seed: int) -> Any:
        from sklearn.linear_model import RidgeCV
        from sklearn.neighbors import KNeighborsRegressor
        from sklearn.pipeline import make_pipeline

        from headstart.methods.features.scaling import LiveScaler

        return make_pipeline(LiveScaler(), RidgeCV(ALPHAS) if self.head == "ridge" else KNeighborsRegressor(NEIGHBOURS, weights="distance"))


def view_of(source: Source | None, *, back: int, span: int) -> View:
    """Return the view of ``span`` consecutive stages of a source, pooled, that end ``back`` stages before its last."""
    if source is None:
        raise ValueError("a probe needs a source")
    last = max(1, len(source.levels) - back)
    return View("pooled", source.name, source.levels[max(0, last - span) : last])
