"""The panel: four validators that look at different evidence, candidates that have collapsed, and whom the panel ranks first.

No one validator is right everywhere, and those of one kind err together: entropy, nuclear norm and confusion all take sure for right. So one of each kind
votes: does the candidate still know the source; is it sure of different things; do others confirm it; do its labels lead back? Each validator ranks the
candidates, and the mean rank counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr
from scipy.stats import rankdata

from headstart.core import InputError
from headstart.validators.outputs import Outputs

PANEL = ("source-accuracy", "class-correlation", "agreement", "reverse")
COLLAPSED = 0.5  # share of the classes of the source, and of what other candidates predict, under which a candidate predicts too few


@dataclass(frozen=True)
class Sight:
    """What the rule sees of all candidates; plain numbers, so that past ones can be kept.

    Parameters
    ----------
    baseline : the candidate that does not look at the target
    said : ``[validator][candidate]``, at least of the panel
    classes : of each candidate the effective number of classes that it predicts, exp of the entropy of their shares, 1..c
    prior : that number of the held-out source labels
    differs : of each candidate the share of target cases on which it says another class than the baseline
    """

    baseline: str
    said: Mapping[str, Mapping[str, float]]
    classes: Mapping[str, float]
    prior: float
    differs: Mapping[str, float]

    @property
    def panel(self) -> tuple[str, ...]:
        """The panel's validators that could look at every candidate."""
        return tuple(name for name in PANEL if set(self.classes) <= set(self.said.get(name, ())))


def sight(outputs: Mapping[str, Outputs], said: Mapping[str, Mapping[str, float]], baseline: str) -> Sight:
    """Return what the rule sees: ``said`` is what ``evaluate`` returned for these outputs.

    Raises
    ------
    InputError
        a baseline that is no candidate.
    """
    if baseline not in outputs:
        raise InputError(f"The baseline {baseline!r} is not among the candidates {', '.join(outputs)}. Give the outputs of source-only training, too.")
    guess = {name: one.target.argmax(axis=1) for name, one in outputs.items()}
    reference = outputs[baseline]
    classes = {name: effective(np.bincount(codes, minlength=reference.classes)) for name, codes in guess.items()}
    differs = {name: float(np.mean(codes != guess[baseline])) for name, codes in guess.items()}
    return Sight(baseline, said, classes, effective(np.bincount(reference.y)), differs)


def effective(counts: Sequence[float] | np.ndarray) -> float:
    """Return exp of the entropy of shares: how many equally frequent classes would be as varied.

    >>> effective([5, 5, 0]), effective([7, 0, 0])
    (2.0, 1.0)
    """
    shares = np.asarray(counts, dtype=np.float64)
    return round(float(np.exp(entr(shares / shares.sum()).sum())), 6)


def collapsed(seen: Sight) -> dict[str, str]:
    """Return the candidates that predict few classes, with the reason: fewer than half of what the source has and of what candidates predict in the middle.

    The second half of the rule is for targets that do have few of the classes. The baseline is never among them.

    >>> classes = {"source": 3.0, "good": 3.2, "gone": 1.1}
    >>> list(collapsed(Sight("source", {}, classes, 4.0, {})))
    ['gone']
    """
    middle = float(np.median(list(seen.classes.values())))
    bound = COLLAPSED * min(seen.prior, middle)
    return {
        name: f"predicts {n:.1f} classes (effective number) where the source has {seen.prior:.1f} and candidates predict {middle:.1f}"
        for name, n in seen.classes.items()
        if n < bound and name != seen.baseline
    }


def mean_ranks(seen: Sight, panel: Sequence[str]) -> dict[str, float]:
    """Return the mean rank, over the panel, of each candidate that has not collapsed, as a share of the candidates: near 0 last in all, 1 first in all.

    Equals share their ranks.

    >>> said = {"agreement": {"a": 0.9, "b": 0.8}, "reverse": {"a": 0.5, "b": 0.7}}
    >>> mean_ranks(Sight("a", said, {"a": 2.0, "b": 2.0}, 2.0, {}), ("agreement", "reverse"))
    {'a': 0.75, 'b': 0.75}
    """
    out = collapsed(seen)
    names = [name for name in seen.classes if name not in out]
    ranks = np.mean([rankdata([seen.said[validator][name] for name in names]) for validator in panel], axis=0) / len(names)
    return dict(zip(names, ranks.tolist(), strict=True))


def first(seen: Sight, panel: Sequence[str]) -> str:
    """Return the candidate of the best mean rank: of equals the baseline, else the one that differs least from it."""
    ranks = mean_ranks(seen, panel)
    return max(ranks, key=lambda name: (round(ranks[name], 9), name == seen.baseline, -seen.differs[name]))
