"""Task embeddings: which features does each of two tasks lean on, and are they the same?

After Achille et al. 2019, "Task2Vec: task embedding for meta-learning": a task is the diagonal of the Fisher information of a fixed network with a
head fitted to the task. Here it is that of the last stage's outputs, which a softmax head gives in closed form, without a backward pass.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.special import softmax

from headstart.result import Score
from headstart.similarity.measure import CLASSIFICATION, Evidence, Measure
from headstart.similarity.sampling import at_most

MOST = 1000  # cases of each set that its head is fitted to
PENALTY = 0.1  # lambda of mean log loss + lambda |W|^2 / 2 on standardised features; why: of the mean, so that the number of cases does not matter
PRIOR = 1.0  # mean Fisher informations that every feature starts with
STOP = 1e-6  # gradient at which the fit stops; Newton's steps from zero do not depend on the order of cases or classes


def task_distance(x: np.ndarray, y: np.ndarray, xs: np.ndarray, ys: np.ndarray, *, seed: int, most: int = MOST) -> float:
    """Return 1 - cos(a / (a + b), b / (a + b)), with a and b the embeddings of the two tasks, 0..1: 0 for equal sets, lower is closer (Achille et al. 2019).

    Both heads are fitted to at most ``most`` cases, on features that are centred by set and divided by one common deviation each. An embedding is
    the Fisher information of :func:`fisher`, divided by its mean, plus a prior of 1. The prior stands for the paper's prior precision: without it
    every feature that neither task uses counts as much as one that both do, and noise decides (planted: 8 of 256 features matter, 1,000 cases; the
    same task lies at 0.36, one on other features at 0.40; with the prior at 0.02 and 0.10).

    Parameters
    ----------
    x, xs : (n, d), (m, d) features of the target and of the source's data, by the same network
    y, ys : (n,), (m,) class codes
    """
    (xa, ya), (xb, yb) = at_most(x, y, most=most, seed=seed), at_most(xs, ys, most=most, seed=seed)
    xa, xb = (part - part.mean(axis=0, dtype=np.float64) for part in (xa, xb))
    deviation = np.sqrt((xa.var(axis=0) + xb.var(axis=0)) / 2)
    scale = np.where(deviation > 0, deviation, 1.0)
    a, b = embedding(xa / scale, ya), embedding(xb / scale, yb)
    u, v = a / (a + b), b / (a + b)
    return max(0.0, 1.0 - float(u @ v / np.sqrt((u @ u) * (v @ v))))


def embedding(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (d,) the embedding of a task: Fisher information of a head fitted to standardised x (n, d) and codes y (n,), over its mean, plus 1."""
    W, b = _head(x, y)
    information = fisher(x, W, b)
    mean = float(information.mean())
    return PRIOR + (information / mean if mean > 0 else information)


def fisher(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (d,) the diagonal Fisher information about a shift of each feature under p = softmax(W x + b), averaged over the cases.

    The derivative of log p_k by feature j is w_kj - sum_l p_l w_lj; under labels drawn from p its square has the mean
    sum_k p_k w_kj^2 - (sum_k p_k w_kj)^2, the variance of the weights. It is what a backward pass through the head gives to the last stage's output.

    >>> fisher(np.zeros((1, 1)), np.array([[-1.0], [1.0]]), np.zeros(2))  # p = 1/2, 1/2: the weights have variance 1
    array([1.])
    """
    p = softmax(x @ W.T + b, axis=1)
    information: np.ndarray = np.maximum((p @ W**2 - (p @ W) ** 2).mean(axis=0), 0.0)
    return information


def _head(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (c, d) and intercepts (c,) of a softmax head; zeros for a task of one class."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(y)) < 2:
        return np.zeros((1, x.shape[1])), np.zeros(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")  # why: hundreds of classes in a sample of 1,000 are no mistake here
        fitted = LogisticRegression(C=1.0 / (PENALTY * len(x)), solver="newton-cg", tol=STOP, max_iter=1000).fit(x, y)
    W, b = fitted.coef_, fitted.intercept_
    return (np.vstack([-W, W]) / 2, np.concatenate([-b, b]) / 2) if len(W) == 1 else (W, b)


def _compute(evidence: Evidence) -> Score:
    x, y, xs, ys = (np.asarray(part) for part in (evidence.x, evidence.y, evidence.xs, evidence.ys))
    n = min(MOST, len(x)) + min(MOST, len(xs))
    return Score("task embedding distance", task_distance(x, y, xs, ys, seed=evidence.seed), None, n, "0..1", "task", higher_is_closer=False)


TASK_EMBEDDING = Measure(
    "task embedding distance",
    "task",
    _compute,
    frozenset({"x", "y", "xs", "ys"}),
    "Achille et al. 2019, Task2Vec; the last stage alone, in closed form, with a prior of the mean",
    "Sees which features decide, not how: two opposite rules on the same features lie at 0; of few cases the embeddings are noise, and the distance grows.",
    CLASSIFICATION,
    frozenset({"scale", "shift"}),
    at_identity=0.0,
)
