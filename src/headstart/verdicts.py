"""What the guard says, as plain numbers: the verdict, each contender by itself, and what more labels would bring. Only the standard library is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """The guard's answer. ``gain`` is transfer minus no transfer in the metric's unit; ``interval`` has the stated ``level``."""

    decision: Literal["transfer", "do not transfer", "undecided"]
    ship: Literal["transfer", "baseline"]
    gain: float
    interval: tuple[float, float]
    p_gain: float
    margin: float
    folds: int
    level: float = 0.90

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.decision} (gain {self.gain:+.3f}, {self.level:.0%} interval {low:+.3f} to {high:+.3f}, P(gain > {self.margin:g}) = {self.p_gain:.2f})"


@dataclass(frozen=True)
class Contender:
    """One method on one source against no transfer, on ``folds`` fresh folds: the ``gain`` with its interval, each as if it alone had been tried.

    ``p`` is P(gain <= margin) of that one comparison; ``p_holm`` is adjusted for all contenders of the run (Holm 1979). ``helps`` where it is at
    most (1 - level) / 2, 5 % for intervals of 90 %: then the chance that any of the run's contenders is so called by mistake is that at most.
    """

    method: str
    source: str
    gain: float
    interval: tuple[float, float]
    p: float
    p_holm: float
    folds: int
    helps: bool


@dataclass(frozen=True)
class Corrected:
    """The verdict's gain, corrected by the learning curve from the cases that judging ``folds`` train on to those that the shipped model is ``trained`` on."""

    gain: float
    interval: tuple[float, float]
    folds: int
    trained: int


@dataclass(frozen=True)
class Outlook:
    """What more labels would bring: how many ``more`` should settle the verdict, and the gain that the learning curve foretells with ``n``, twice as many.

    ``more`` is 0 where the verdict is settled and ``None`` where no number can be told; ``gain`` and ``interval`` are ``None`` without a learning curve.
    ``corrected`` is the verdict's own gain at the shipped model's size; ``None`` where the curve is of another arm, too short or too noisy for that.
    """

    more: int | None
    n: int
    gain: float | None
    interval: tuple[float, float] | None
    level: float = 0.90
    corrected: Corrected | None = None

    def sentences(self) -> tuple[str, ...]:
        """Say it in words.

        >>> Outlook(340, 400, 0.03, (-0.01, 0.07)).sentences()[0]
        'About 340 more labels would settle it, if the gain stays what it is.'
        """
        said = []
        if self.corrected is not None:
            one = self.corrected
            low, high = one.interval
            less = f"Judging folds train on {one.folds} cases, the shipped model on {one.trained}"
            said.append(f"{less}: by the learning curve its gain is {one.gain:+.3f} ({low:+.3f} to {high:+.3f}, {self.level:.0%}).")
        if self.more is None:
            said.append("No number of labels within reach would settle it: the gain is too small, or too few folds were judged.")
        elif self.more:
            said.append(f"About {rounded(self.more)} more labels would settle it, if the gain stays what it is.")
        if self.gain is not None and self.interval is not None:
            low, high = self.interval
            said.append(f"With twice the labels the gain of frozen features is foretold {self.gain:+.3f} ({low:+.3f} to {high:+.3f}, {self.level:.0%}).")
        return tuple(said)


def rounded(count: int) -> int:
    """Return a forecast count with two digits, rounded up: more would pretend to know.

    >>> rounded(7), rounded(331), rounded(1100)
    (7, 340, 1100)
    """
    step = int(10.0 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step
