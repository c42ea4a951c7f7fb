"""A relation-level method on a network's pooled features, as a candidate that the same few lines fit, search and save as any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from headstart.core import Source
from headstart.methods.features.probe import view_of
from headstart.methods.method import Arm, Closed, Level, View, knob
from headstart.methods.relations import REGRESSIONS, RELATIONS, Relation


@dataclass(frozen=True)
class Related(Closed):
    """Frozen features, moved or weighed from source to target, + head.

    Parameters
    ----------
    relation : a name of ``RELATIONS``, or for numbers of ``REGRESSIONS``
    head : "ridge" (closed-form leave-one-out; the relation's own default) or "boosting" (histogram gradient boosting, for tables)
    back, span : which stages the features come from, as in :class:`headstart.methods.Probe`
    kind : whether classes or numbers are predicted

    Examples
    --------
    >>> Related("coral").estimator(seed=0).fit([[0.0], [1.0], [4.0], [5.0]], [0, 0, 1, 1], X_target=[[10.0], [15.0]]).predict([[10.0], [15.0]]).tolist()
    [0, 1]
    """

    name: ClassVar[str] = "related"
    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "relation"
    paper: ClassVar[str] = "Pan & Yang 2010, A survey on transfer learning"
    limits: ClassVar[str] = "assumes that the domains differ in the way that the relation mends"

    relation: str = knob("coral", choices=tuple(RELATIONS))
    head: str = knob("ridge", choices=("ridge", "boosting"))
    back: int = knob(0, choices=(0, 1, 2, 3))
    span: int = knob(1, choices=(1, 2, 4))
    kind: Literal["classification", "regression"] = "classification"

    def view(self, source: Source | None) -> View:
        return view_of(source, back=self.back, span=self.span)

    def estimator(self, *, seed: int) -> Any:
        made = self._made()
        return made.set_params(seed=seed) if "seed" in made.get_params() else made

    def _made(self) -> Relation:
        kinds = RELATIONS if self.kind == "classification" else REGRESSIONS
        return kinds[self.relation](None if self.head == "ridge" else self._boosting())

    def _boosting(self) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        return HistGradientBoostingClassifier(random_state=0) if self.kind == "classification" else HistGradientBoostingRegressor(random_state=0)


def weighs(relation: str, *, kind: Literal["classification", "regression"] = "classification") -> bool:
    """Whether the relation leaves features where they are, so that any head that takes weights may follow it.

    >>> weighs("kmm"), weighs("coral")
    (True, False)
    """
    from headstart.methods.relations.relation import Weighted

    return issubclass((RELATIONS if kind == "classification" else REGRESSIONS)[relation], Weighted)
