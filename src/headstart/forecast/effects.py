"""How fine-tuned scores depart from what is known beforehand, learnt on past tasks: a linear mixed model with fixed, stated scales.

Scores are compared as angles, asin(sqrt(score)): there an accuracy measured on m cases has the standard error 1 / (2 sqrt(m)) wherever it lies, and near 1,
where little is left to gain, sources differ little (Anscombe 1948). A task shifts all its sources together, so rows of one task share a random offset
(Henderson 1975). Scales were set beforehand, from what scores on 200 to 300 cases can show, and not fitted to any benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# standard deviations, in radians. .05 is about 4 points at a score of .8, what two measured scores of 250 cases differ by; a task's offset is twice that
NOISE, TASK = 0.05, 0.10
# of the coefficients about 0, in radians per unit: offset; distance of the frozen scores; distance of anchor and its frozen score; ImageNet; top-1; size
COEFFICIENTS = np.array([0.10, 0.5, 0.5, 0.10, 1.0, 0.10])
SOURCE = 0.02  # of a source's own mark: a dozen tasks say little of one source, and with .05 forecasts ordered sources worse than frozen scores alone


def angle(score: float | np.ndarray) -> np.ndarray:
    """Return asin(sqrt(score)), 0..pi/2, of scores 0..1."""
    out: np.ndarray = np.arcsin(np.sqrt(np.clip(np.asarray(score, dtype=np.float64), 0.0, 1.0)))
    return out


def score_at(angle: float | np.ndarray) -> np.ndarray:
    """Return the score 0..1 of an angle; angles beyond 0..pi/2 are cut off there.

    >>> float(score_at(angle(0.64)).round(12)), float(score_at(9.0))
    (0.64, 1.0)
    """
    out: np.ndarray = np.sin(np.clip(angle, 0.0, np.pi / 2)) ** 2
    return out


@dataclass(frozen=True)
class Group:
    """Rows of one task that share an offset: what was known, ``x`` (m, 6 + sources), and by how much the outcome departed, ``y`` (m,) in radians.

    ``weight`` is what the group counts, where one task has several that tell the same (one for each choice of the anchor).
    """

    task: str
    x: np.ndarray
    y: np.ndarray
    weight: float = 1.0

    def normal(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x' V^-1 x and x' V^-1 y with V = NOISE^2 I + TASK^2 11', by the formula of Sherman and Morrison."""
        each = 1.0 / NOISE**2
        shared = each**2 / (1.0 / TASK**2 + len(self.y) * each)
        total, sum_y = self.x.sum(axis=0), self.y.sum()
        gram = each * self.x.T @ self.x - shared * np.outer(total, total)
        moment = each * self.x.T @ self.y - shared * total * sum_y
        return self.weight * gram, self.weight * moment


@dataclass(frozen=True)
class Effects:
    """Coefficients on past tasks, all and with each left out."""

    whole: np.ndarray
    without: Mapping[str, np.ndarray] = field(default_factory=dict)

    def errors(self, groups: Sequence[Group]) -> dict[str, list[np.ndarray]]:
        """Return, by task, what the coefficients of all other tasks leave unexplained in each of its groups."""
        out: dict[str, list[np.ndarray]] = {}
        for one in groups:
            out.setdefault(one.task, []).append(one.y - one.x @ self.without[one.task])
        return out


def learn(groups: Sequence[Group], *, sources: int) -> Effects:
    """Return the posterior means of the coefficients; without groups they are 0.

    >>> one = Group("a", np.array([[1.0, 0, 0, 0, 0, 0]]), np.array([0.1]))
    >>> float(learn([one], sources=0).whole[0].round(4))  # 0.1 shrunk by 0.10^2 / (0.10^2 + 0.05^2 + 0.10^2)
    0.0444
    """
    penalty = np.diag(1.0 / np.concatenate([COEFFICIENTS, np.full(sources, SOURCE)]) ** 2)
    size = len(penalty)
    by_task: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for one in groups:
        gram, moment = one.normal()
        have = by_task.get(one.task, (np.zeros((size, size)), np.zeros(size)))
        by_task[one.task] = (have[0] + gram, have[1] + moment)
    gram = sum((g for g, _ in by_task.values()), penalty)
    moment = sum((m for _, m in by_task.values()), np.zeros(size))
    without = {task: np.linalg.solve(gram - g, moment - m) for task, (g, m) in by_task.items()}
    return Effects(np.linalg.solve(gram, moment), without)
