"""What a change from source-only is worth, foretold from past pairs of domains where the truth is known.

A candidate that says another class than the baseline on a share D of the target can gain or lose at most D of accuracy. So the gain is foretold as
slope x D x lead, with lead its mean rank less the baseline's, and errors are measured in units of D: where little changes, little is at stake. A line in what
the validators say, rather than in ranks, foretold worse on benchmarks that it was not fitted to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from headstart.core import InputError
from headstart.forecast.conformal import quantile_over_tasks, share_below
from headstart.validators.panel import PANEL, Sight, first, mean_ranks

SHIPPED_FILE = "past_pairs.jsonl"
LEAST_CHANGE = 0.01  # a change of fewer cases is counted as this share, so that errors stay finite


@dataclass(frozen=True)
class PastPair:
    """One past pair of domains: what the rule saw, and what each candidate then scored on the target (balanced accuracy, 0..1)."""

    benchmark: str
    pair: str
    seed: int
    seen: Sight
    scores: dict[str, float]


@dataclass(frozen=True)
class Forecast:
    """The gain of a candidate over the baseline, in balanced accuracy, before any target label is known.

    Parameters
    ----------
    decision : "transfer" where the whole interval lies above the margin, "do not transfer" where none of it does, else "undecided"
    gain, interval : foretold, with the interval of the stated level; the interval is -D..D where past pairs are too few to say
    p_gain : probability that the gain exceeds the margin
    differs : D, the share of target cases on which candidate and baseline say different classes
    pairs : past pairs of domains behind it
    """

    decision: Literal["transfer", "do not transfer", "undecided"]
    gain: float
    interval: tuple[float, float]
    p_gain: float
    margin: float
    differs: float
    pairs: int
    level: float = 0.90

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.decision} (foretold gain {self.gain:+.3f}, {self.level:.0%} interval {low:+.3f} to {high:+.3f}, from {self.pairs} past pairs of domains)"


@dataclass(frozen=True)
class GainModel:
    """The slope, and its errors on pairs of benchmarks that it was not fitted to, in units of D, by pair."""

    panel: tuple[str, ...]
    slope: float
    errors: dict[str, tuple[float, ...]]

    def gain(self, seen: Sight, name: str) -> float:
        """Return the foretold gain of a candidate over the baseline; 0 for the baseline.

        Raises
        ------
        InputError
            a candidate that has collapsed: the panel has not ranked it.
        """
        ranks = mean_ranks(seen, self.panel)
        if name not in ranks:
            raise InputError(f"No gain is foretold for {name!r}: it is no candidate, or predicts too few classes to be ranked.")
        return self.slope * seen.differs[name] * (ranks[name] - ranks[seen.baseline])

    def forecast(self, seen: Sight, name: str, *, margin: float = 0.0, level: float = 0.90) -> Forecast:
        """Return the gain with its interval, and the decision that follows from it.

        The interval holds on a new pair of domains as the past ones were (Lee, Barber & Willett 2023); it is cut to what can be gained or lost at most.
        """
        gain, most = self.gain(seen, name), seen.differs[name]
        scale, errors = max(most, LEAST_CHANGE), list(self.errors.values())
        tail = (1.0 + level) / 2.0
        low = gain - scale * quantile_over_tasks([[-e for e in one] for one in errors], level=tail)
        high = gain + scale * quantile_over_tasks(errors, level=tail)
        low, high = max(low, -most), min(high, most)
        p_gain = 1.0 - share_below(errors, (margin - gain) / scale) if most > 0.0 else float(margin < 0.0)
        decision: Literal["transfer", "do not transfer", "undecided"] = "undecided"
        if low > margin:
            decision = "transfer"
        elif high <= margin:
            decision = "do not transfer"
        return Forecast(decision, gain, (low, high), p_gain, margin, most, len(errors), level)


def fitted(past: Sequence[PastPair], panel: tuple[str, ...]) -> GainModel:
    """Return the slope fitted to all past pairs, and the errors of slopes that were fitted without the benchmark they are asked about.

    Every pair weighs alike. The errors are those of the candidate that the panel ranks first, since that one will be asked about; a pair where that is the
    baseline has none. Without past pairs the slope is 0.
    """
    looks = [_look(one, panel) for one in past]
    errors: dict[str, list[float]] = {}
    for one, own in zip(past, looks, strict=True):
        if own.differs is not None:
            slope = _slope(other for other, past_one in zip(looks, past, strict=True) if past_one.benchmark != one.benchmark)
            errors.setdefault(f"{one.benchmark}: {one.pair}", []).append((own.gain - slope * own.stake) / max(own.differs, LEAST_CHANGE))
    return GainModel(panel, _slope(looks), {pair: tuple(some) for pair, some in errors.items()})


@dataclass(frozen=True)
class _Look:
    """Sums over a pair's ranked candidates for the slope of gain on D x lead; D, D x lead and gain of the first, ``None`` where that is the baseline."""

    up: float
    down: float
    differs: float | None
    stake: float
    gain: float


def _look(one: PastPair, panel: tuple[str, ...]) -> _Look:
    seen, ranks = one.seen, mean_ranks(one.seen, panel)
    names = [name for name in ranks if name != seen.baseline]
    x = {name: seen.differs[name] * (ranks[name] - ranks[seen.baseline]) for name in ranks}
    y = {name: one.scores[name] - one.scores[seen.baseline] for name in ranks}
    n, leading = max(len(names), 1), first(seen, panel)
    up, down = (sum(x[name] * v[name] for name in names) / n for v in (y, x))
    return _Look(up, down, None if leading == seen.baseline else seen.differs[leading], x[leading], y[leading])


def _slope(looks: Iterable[_Look]) -> float:
    """Return the slope of gain on D x lead by least squares over all ranked candidates, every pair weighing alike."""
    up = down = 0.0
    for one in looks:
        up, down = up + one.up, down + one.down
    return up / down if down > 0.0 else 0.0


def shipped() -> list[PastPair]:
    """Return the pairs that come with the package, measured by ``benchmarks/validators.py``."""
    lines = files("headstart.validators").joinpath(SHIPPED_FILE).read_text(encoding="utf-8").splitlines()
    return [read(json.loads(line)) for line in lines[1:]]


def read(plain: dict[str, Any]) -> PastPair:
    """Return a past pair from plain numbers, as :func:`written` gives them."""
    return PastPair(**{**plain, "seen": Sight(**plain["seen"])})


def written(pair: PastPair) -> dict[str, Any]:
    """Return a past pair as plain numbers, with what the panel's validators said."""
    plain = dataclasses.asdict(pair)
    plain["seen"]["said"] = {name: row for name, row in plain["seen"]["said"].items() if name in PANEL}
    return plain
