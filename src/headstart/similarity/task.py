"""The task view: do the source's classes tell the target's classes apart, and are the two tasks alike in names, geometry and the features they use?

Here: what the source's own classifier says of the target's cases (LEEP and NCE). Neighbouring files hold label names, optimal transport between
labelled data sets, and task embeddings; ``MEASURES`` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from headstart.result import Score
from headstart.similarity.label_names import ANY_FEATURES, LABEL_WORDS, SHARED_NAMES
from headstart.similarity.measure import CLASSIFICATION, Evidence, Measure
from headstart.similarity.otdd import OTDD, OTDD_BEYOND_CHANCE, class_codes
from headstart.similarity.task_embedding import TASK_EMBEDDING

if TYPE_CHECKING:
    from headstart.core import Backbone

FLOOR = 1e-12  # of a probability, before its logarithm
NORMAL_90 = 1.6448536269514722  # standard errors on either side of a 90 % interval
ROWS = 4096  # features that pass a classifier at once


def leep(theta: np.ndarray, y: np.ndarray) -> float:
    """Return the log expected empirical prediction, in nats: -H(y)..0, higher is closer (Nguyen et al. 2020).

    The mean log probability of the target's labels under the predictor that draws a source class z from theta and then a label from P(y | z), where
    P(y, z) = sum_i theta_iz [y_i = y] / n. Where rows of theta sum to one, -H(y) <= -H(y | z) <= LEEP <= 0 (Jensen). Several published copies
    leave out the logarithm; this has it.

    Parameters
    ----------
    theta : (n, z) probabilities of the source's classes, taken as given; classes that none of the cases has mass in are dropped
    y : (n,) class codes

    >>> theta, y = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([0, 1, 0])  # P(0 | z) = 1, 1/3; probabilities 1, 2/3, 2/3
    >>> round(leep(theta, y), 4), round(2 / 3 * float(np.log(2 / 3)), 4)
    (-0.2703, -0.2703)
    """
    return float(_leep(theta, class_codes(y))[0].mean())


def nce(theta: np.ndarray, y: np.ndarray) -> float:
    """Return the negative conditional entropy -H(y | z) of the labels given the source's most probable class, in nats: -H(y)..0 (Tran et al. 2019).

    Counts as they are, nothing added to them. Of equal probabilities the first class counts.

    >>> theta = np.eye(2)[[0, 0, 1, 1]]
    >>> round(nce(theta, np.array([0, 1, 1, 1])), 4)  # half of the cases keep one bit, log(2) / 2 nats
    -0.3466
    """
    return float(_nce(theta, class_codes(y))[0].mean())


def class_probabilities(backbone: Backbone, features: np.ndarray) -> np.ndarray:
    """Return theta (n, z): the probabilities that a backbone's own classifier gives to the features (n, dim) of its last stage.

    Raises
    ------
    InputError
        the backbone has no classifier (a sentence encoder, self-supervised weights).
    """
    import torch
    from scipy.special import softmax

    from headstart.core import InputError

    if backbone.classifier is None:
        raise InputError("This backbone has no classifier of its own. LEEP and NCE need one; leave them out, or choose another source.")
    with torch.inference_mode():
        parts = [backbone.classifier(torch.as_tensor(part, dtype=torch.float32)) for part in np.array_split(features, -(-len(features) // ROWS))]
    theta: np.ndarray = softmax(torch.cat(parts).numpy().astype(np.float64), axis=1)
    return theta


def _leep(theta: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log probabilities of the cases (n,), and the influence of each case on their mean (n,), which counts that P(y | z) moves with it."""
    theta = theta.astype(np.float64)
    mass = theta.sum(axis=0)
    if not mass.all():
        theta, mass = theta[:, mass > 0], mass[mass > 0]
    rows, member = np.arange(len(codes)), np.eye(codes.max() + 1)[codes].T  # (c, n)
    given = member @ theta / mass  # (c, z) P(y | z)
    expected = np.maximum((theta @ given.T)[rows, codes], FLOOR)
    values = np.log(expected)
    pull = member @ (theta / expected[:, None])
    slope = (pull - (pull * given).sum(axis=0)) / mass
    return values, values - values.mean() + (theta @ slope.T)[rows, codes]


def _nce(theta: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log P(y_i | z_i) from counts (n,), and the influence of each case on their mean (n,)."""
    z = np.unique(theta.argmax(axis=1), return_inverse=True)[1]
    together = np.zeros((codes.max() + 1, z.max() + 1))
    np.add.at(together, (codes, z), 1.0)
    values = np.log((together / together.sum(axis=0))[codes, z])
    return values, values - values.mean()


def _measured(name: str, terms: tuple[np.ndarray, np.ndarray]) -> Score:
    values, influence = terms
    return Score(name, float(values.mean()), _interval(float(values.mean()), influence, high=0.0), len(values), "nats", "task")


def _explained(name: str, terms: tuple[np.ndarray, np.ndarray], codes: np.ndarray) -> Score:
    """Return 1 + mean / H(y), with 0 where the target has one class: there is nothing to explain."""
    values, influence = terms
    surprise = -np.log(np.bincount(codes) / len(codes))[codes]
    entropy, mean = float(surprise.mean()), float(values.mean())
    if entropy == 0:
        return Score(name, 0.0, None, len(codes), "0..1", "task")
    share = 1 + mean / entropy
    moved = influence / entropy - mean / entropy**2 * (surprise - entropy)
    return Score(name, share, _interval(share, moved, low=0.0, high=1.0), len(codes), "0..1", "task")


def _interval(value: float, influence: np.ndarray, *, low: float = -np.inf, high: float) -> tuple[float, float] | None:
    """Return what 90 % of samples of as many cases would give, by the delta method; ``None`` below two cases."""
    n = len(influence)
    if n < 2:
        return None
    reach = NORMAL_90 * float(influence.std(ddof=1)) / n**0.5
    return max(low, value - reach), min(high, value + reach)


def _of_classifier(name: str, terms: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], paper: str, *, explained: bool = False) -> Measure:
    def compute(evidence: Evidence) -> Score:
        codes = class_codes(np.asarray(evidence.y))
        found = terms(np.asarray(evidence.theta), codes)
        return _explained(name, found, codes) if explained else _measured(name, found)

    return Measure(name, "task", compute, frozenset({"theta", "y"}), paper, OPTIMISM, CLASSIFICATION, ANY_FEATURES)


NGUYEN = "Nguyen et al. 2020, LEEP: a new measure to evaluate transferability of learned representations"
TRAN = "Tran et al. 2019, Transferability and hardness of supervised classification tasks"
DIVIDED = "; here 1 + score / H(y), which the paper does not have: 0 is no better than the class shares, 1 is certain"
OPTIMISM = (
    "P(y | z) is fitted to the cases that it is scored on, so few cases and many source classes flatter every source"
    " (simulated: by 0.06 nats at 60 cases and 1,000 classes, by 0.02 at 1,000 and 50); the interval covers the draw of the cases, not that."
)

LEEP = _of_classifier("LEEP", _leep, NGUYEN)
LEEP_EXPLAINED = _of_classifier("LEEP, share explained", _leep, NGUYEN + DIVIDED, explained=True)
NCE = _of_classifier("NCE", _nce, TRAN)
NCE_EXPLAINED = _of_classifier("NCE, share explained", _nce, TRAN + DIVIDED + " (Theil's uncertainty coefficient)", explained=True)

MEASURES: tuple[Measure, ...] = (LEEP, LEEP_EXPLAINED, NCE, NCE_EXPLAINED, SHARED_NAMES, LABEL_WORDS, OTDD, OTDD_BEYOND_CHANCE, TASK_EMBEDDING)
