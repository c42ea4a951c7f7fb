"""What a measure of similarity is: a pure function of the evidence about one source and one target, which says what it needs and what it ignores.

No measure sees two sources, so that adding one never changes another's score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from headstart.result import Score

View = Literal["data", "feature", "task", "architecture"]
Kind = Literal["classification", "multilabel", "regression"]
Ignores = Literal["rotation", "scale", "shift"]
T = TypeVar("T")
CLASSIFICATION: frozenset[Kind] = frozenset({"classification"})
LABELLED: frozenset[Kind] = frozenset({"classification", "multilabel", "regression"})


@dataclass(frozen=True)
class Evidence:
    """What is known about a target (n cases) and one source (m cases, where it is a dataset). Whatever is not known is ``None`` or empty.

    Parameters
    ----------
    x : (n, d) features of the target: a backbone's, hand-made ones, or the raw numbers
    y : (n,) class codes 0..c-1; (n, c) zeros and ones (multilabel); (n,) numbers (regression)
    kind : what ``y`` is
    xs : (m, d) the same features of the source's data
    ys : (m,) class codes or numbers of the source's data
    theta : (n, z) probabilities that the source's own classifier gives to the target's cases
    labels, source_labels : names of the c classes of the target and of the z classes of the source
    stages : (n, d_k) pooled activations of the target by name of the stage, in the order of the stages
    seed : decides permutations, projections and sub-samples
    """

    x: np.ndarray | None = None
    y: np.ndarray | None = None
    kind: Kind = "classification"
    xs: np.ndarray | None = None
    ys: np.ndarray | None = None
    theta: np.ndarray | None = None
    labels: tuple[str, ...] = ()
    source_labels: tuple[str, ...] = ()
    stages: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int = 0
    _made: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def shared(self, make: Callable[[Evidence], T]) -> T:
        """Return ``make(self)``, made once however many measures ask: a decomposition, a table of neighbours. A replaced copy starts anew.

        >>> def total(evidence):
        ...     print("adding")
        ...     return float(evidence.x.sum())
        >>> evidence = Evidence(x=np.ones((2, 2)))
        >>> evidence.shared(total) == evidence.shared(total)
        adding
        True
        """
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made

    def holds(self, what: str) -> bool:
        """Whether that field is known."""
        value = getattr(self, what)
        return value is not None and len(value) > 0


@dataclass(frozen=True)
class Measure:
    """A named measure of how near a source is to a target, of one of the four views.

    Parameters
    ----------
    compute : the function; it gets evidence that holds all of ``needs``
    needs : names of the fields of :class:`Evidence` that it reads
    kinds : kinds of target that it is defined for
    ignores : what may be done to all features without changing the score, up to rounding: "rotation" (an orthogonal matrix), "scale" (one positive
        factor), "shift" (one constant vector). The order of cases and the numbering of classes never matter
    at_identity : the value where the source's data are the target's, for measures between two samples; ``None`` where none is declared
    paper : where it comes from
    limits : what it cannot tell, in one sentence, for the report
    """

    name: str
    view: View
    compute: Callable[[Evidence], Score]
    needs: frozenset[str]
    paper: str
    limits: str
    kinds: frozenset[Kind] = LABELLED
    ignores: frozenset[Ignores] = frozenset()
    at_identity: float | None = None

    def __call__(self, evidence: Evidence) -> Score | None:
        """Return the score; ``None`` where the evidence lacks what the measure needs, or the target is of a kind that it is not defined for.

        >>> count = Measure("cases", "data", lambda e: Score("cases", float(len(e.x)), unit="cases"), frozenset({"x"}), paper="-", limits="-")
        >>> count(Evidence(x=np.zeros((3, 2)))).value, count(Evidence())
        (3.0, None)
        """
        if not all(evidence.holds(what) for what in self.needs):
            return None
        if "y" in self.needs and evidence.kind not in self.kinds:
            return None
        return self.compute(evidence)
