"""Linear probes whose score is of cases left out: ridge regression, every penalty from one decomposition, and the same at every stage of a backbone.

Scores are accuracies or R2 with an interval, so that a reader can tell a difference from chance; the errors left out are exact (Allen 1974). The curve
over stages is that of Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from headstart.result import Score
from headstart.similarity.intervals import LEVEL, Interval, explained, mean_share
from headstart.similarity.measure import Kind
from headstart.similarity.neighbours import credit
from headstart.spectrum import Spectrum, class_weights

STRENGTHS = np.logspace(-6.0, 3.0, 19)  # of the mean eigenvalue: from interpolation to the class means
BALANCED, R2 = "balanced accuracy, 0..1", "R2, 0..1"


def ridge_credit(spectrum: Spectrum, codes: np.ndarray) -> np.ndarray:
    """Return (n,) whether ridge regression to one-hot classes names the class of a left-out case: 1, 0, or a share where classes tie.

    Slopes are refitted without the case; the intercept keeps the weights of all classes, equal ones if balanced. Refitted, it would know whose
    class has one case less, and features that tell nothing would score 0 instead of chance. The penalty is the one with the least squared error of
    left-out cases, weighted as the decomposition is; the largest of equals.
    """
    Y = np.eye(int(codes.max()) + 1)[codes]
    weights = (spectrum.root**2)[:, None]
    moved = (Y - np.average(Y, axis=0, weights=weights[:, 0])) * weights / (weights.sum() - weights)  # the intercept, from the case itself

    def outcome(residuals: np.ndarray, rows: slice) -> np.ndarray:
        return np.stack([credit(Y[rows] - each + moved[rows], codes[rows]) for each in residuals])

    return _at_least_error(spectrum, Y, outcome)


def ridge_errors(spectrum: Spectrum, y: np.ndarray) -> np.ndarray:
    """Return (n, c) errors of ridge regression of y (n, c) for left-out cases, at the penalty with the least sum over standardised columns."""
    spread = np.std(y, axis=0)
    spread = np.where(spread > 0.0, spread, 1.0)
    return _at_least_error(spectrum, y / spread, lambda residuals, rows: residuals) * spread


def left_out(x: np.ndarray, y: np.ndarray, kind: Kind) -> np.ndarray:
    """Return what ridge regression on x (n, d) makes of left-out cases: (n,) credit for classes, which weigh the same, else errors (n, c)."""
    if kind == "classification":
        return ridge_credit(Spectrum.of(x, weights=class_weights(y)), y)
    return ridge_errors(Spectrum.of(x), _columns(y))


def rated(outcome: np.ndarray, y: np.ndarray, kind: Kind, *, level: float = LEVEL) -> tuple[float, Interval]:
    """Return the score of a :func:`left_out` outcome with its interval: balanced accuracy of classes, else R2.

    >>> x, y = np.array([[0.0], [0.1], [0.3], [2.0], [2.1], [2.3]]), np.array([0, 0, 0, 1, 1, 1])
    >>> rated(left_out(x, y, "classification"), y, "classification")[0]
    1.0
    """
    return mean_share(outcome, y, level=level) if kind == "classification" else explained(outcome, _columns(y), level=level)


def stage_curve(
    stages: Mapping[str, np.ndarray], y: np.ndarray, kind: Kind, *, level: float = LEVEL, known: Mapping[str, np.ndarray] | None = None
) -> dict[str, Score]:
    """Return the score of a ridge probe on each stage's features (n, d_k), in the order of the stages: where in a network the target can be read.

    Each interval holds its own stage's score at ``level``; of all K at once, ask for ``1 - (1 - level) / K`` (Bonferroni).

    Parameters
    ----------
    stages : by name, from the input on
    y : class codes (n,) without gaps, zeros and ones (n, c), or numbers (n,), as ``kind`` says
    known : outcomes of :func:`left_out` by stage that are there already

    Examples
    --------
    >>> y = np.array([0, 0, 0, 1, 1, 1])
    >>> curve = stage_curve({"stem": np.ones((6, 2)), "top": np.array([[0.0], [0.1], [0.3], [2.0], [2.1], [2.3]])}, y, "classification")
    >>> {name: score.value for name, score in curve.items()}
    {'stem': 0.5, 'top': 1.0}
    """
    unit = BALANCED if kind == "classification" else R2
    out = {}
    for name, x in stages.items():
        outcome = left_out(x, y, kind) if known is None or name not in known else known[name]
        value, interval = rated(outcome, y, kind, level=level)
        out[name] = Score(name, value, interval=interval, n=len(y), unit=unit, view="feature")
    return out


def _columns(y: np.ndarray) -> np.ndarray:
    columns: np.ndarray = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    return columns


def _at_least_error(spectrum: Spectrum, Y: np.ndarray, outcome: Callable[[np.ndarray, slice], np.ndarray]) -> np.ndarray:
    """Return the outcome (n, ...) at the penalty with the least weighted squared error; ``outcome`` turns residuals (a, b, c) of rows into (a, b, ...)."""
    alphas = STRENGTHS * (float(spectrum.values.mean()) or 1.0)
    error, kept = np.zeros(len(alphas)), []
    for rows, residuals in spectrum.ridge(Y).blocks([float(alpha) for alpha in alphas]):
        error += np.einsum("abc,b->a", np.square(residuals), spectrum.root[rows] ** 2)
        kept.append(outcome(residuals, rows))
    best = len(alphas) - 1 - int(np.argmin(error[::-1]))
    return np.concatenate([each[best] for each in kept])
