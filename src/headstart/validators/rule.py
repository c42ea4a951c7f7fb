"""The rule that chooses: the panel's first, if past pairs of domains foretell that it gains; else source-only training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.core import InputError
from headstart.validators import evaluate
from headstart.validators.gains import Forecast, PastPair, fitted, shipped
from headstart.validators.outputs import Outputs
from headstart.validators.panel import collapsed, first, mean_ranks, sight


@dataclass(frozen=True)
class Choice:
    """What was chosen among candidates, and why.

    Parameters
    ----------
    candidate : the chosen one; the baseline where nothing speaks for a change
    baseline : source-only training
    first : whom the panel ranks first, whether or not it was chosen
    forecast : gain of ``first`` over the baseline, with its interval and the verdict
    ranks : mean rank of each candidate over the panel, as a share of the candidates: 1 is first in all
    collapsed : candidates that predict too few classes, with the reason; they have no rank
    said : ``[validator][candidate]`` of all validators, not of the panel alone
    panel : the validators that voted
    """

    candidate: str
    baseline: str
    first: str
    forecast: Forecast
    ranks: Mapping[str, float]
    collapsed: Mapping[str, str]
    said: Mapping[str, Mapping[str, float]]
    panel: tuple[str, ...]

    def __str__(self) -> str:
        if self.first == self.baseline:
            return f"{self.baseline}: the panel ({', '.join(self.panel)}) ranks no candidate above it."
        led = f"the panel ({', '.join(self.panel)}) ranks {self.first} first of {len(self.ranks)}; {self.forecast}"
        return f"{self.candidate}: {led}."


def choose(outputs: Mapping[str, Outputs], baseline: str, *, past: Sequence[PastPair] | None = None, margin: float = 0.0, level: float = 0.90) -> Choice:
    """Choose among fitted candidates without target labels.

    Candidates that predict far fewer classes than the source has, and than the others do, are out. The rest are ranked by each validator of the panel, and
    the best mean rank is first. It is chosen if its foretold gain exceeds the margin. The forecast rests on past pairs of domains where the truth is known.

    Parameters
    ----------
    outputs : what each candidate says, ``baseline`` among them; of the same target cases
    baseline : the name of source-only training, as well tuned as the others
    past : pairs to learn the forecast from; ``None``: those that come with the package
    margin : gain in balanced accuracy that would matter, 0..1
    level : of the forecast's interval

    Raises
    ------
    InputError
        no candidates, a baseline that is not among them, candidates that predict different cases, a level outside 0..1.

    Examples
    --------
    >>> import numpy as np
    >>> dice = np.random.default_rng(0)
    >>> y, truth = np.arange(200) % 4, np.arange(120) % 4
    >>> def says(codes, right):
    ...     known = np.where(dice.random(len(codes)) < right, codes, dice.integers(0, 4, len(codes)))
    ...     return 0.9 * np.eye(4)[known] + 0.025
    >>> x = dice.normal(size=(320, 5))
    >>> held, target = x[:200], x[200:]
    >>> plain = Outputs(says(y, 0.9), y, says(truth, 0.4), held, target, None)
    >>> gone = Outputs(says(y, 0.9), y, says(0 * truth, 1.0), held, target, None)
    >>> choice = choose({"source only": plain, "gone": gone}, "source only")
    >>> choice.candidate, list(choice.collapsed)
    ('source only', ['gone'])
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"level is {level}; it lies between 0 and 1. An interval of 90 % has the level 0.9.")
    said = evaluate(outputs)
    seen = sight(outputs, said, baseline)
    panel = seen.panel
    leading = first(seen, panel)
    forecast = fitted(shipped() if past is None else past, panel).forecast(seen, leading, margin=margin, level=level)
    chosen = leading if forecast.gain > margin else baseline
    return Choice(chosen, baseline, leading, forecast, mean_ranks(seen, panel), collapsed(seen), said, panel)
