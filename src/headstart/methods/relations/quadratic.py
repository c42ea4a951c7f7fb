"""The quadratic program of kernel mean matching: a box and one band on the sum, by a primal-dual interior-point method.

SciPy has no solver for quadratic programs, and general minimisers need minutes for 2,000 variables; this one needs some twenty Cholesky factors.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

STEPS = 100  # far above what is needed: some 20
CLOSE = 0.995  # share of the way to the nearest bound that one step goes


def box_program(K: np.ndarray, k: np.ndarray, *, upper: float, low: float, high: float, gap: float = 1e-9) -> np.ndarray:
    """Return the b (n,) that minimises b'Kb / 2 - k'b under 0 <= b <= upper and low <= sum b <= high.

    Mehrotra's centring without the second correction (Nocedal & Wright 2006, alg. 16.4, with one solve). K (n, n) is symmetric and positive semi-definite;
    a 1e-10th of its mean diagonal is added to it.

    Parameters
    ----------
    gap : mean of slack times multiplier at which it stops, as a share of the largest |k|

    >>> box_program(np.eye(2), np.array([3.0, 0.2]), upper=1.0, low=0.0, high=9.0).round(5).tolist()  # each alone: at its bound, and free
    [1.0, 0.2]
    >>> box_program(np.eye(2), np.array([3.0, 2.0]), upper=9.0, low=0.0, high=2.0).round(5).tolist()  # the sum is held: both less by 1.5
    [1.5, 0.5]
    """
    n = len(k)
    K = K + 1e-10 * np.trace(K) / n * np.eye(n)
    scale = np.abs(k).max() or 1.0
    b = np.full(n, min((low + high) / (2 * n), upper / 2))
    # constraints G b - h >= 0, in the order: b, upper - b, sum - low, high - sum
    slack = np.maximum(_slacks(b, upper, low, high), 1e-3 * max(high - low, 1e-3))
    dual = scale / slack
    for _ in range(STEPS):
        force = dual[:n] - dual[n : 2 * n] + dual[-2] - dual[-1]
        residual = K @ b - k - force
        missing = _slacks(b, upper, low, high) - slack
        mean = slack @ dual / len(slack)
        if mean < gap * scale and np.abs(residual).max() < 1e-8 * scale and np.abs(missing).max() < 1e-9 * max(upper, high):
            break
        curve = dual / slack
        H = K + (curve[-2] + curve[-1])
        H.flat[:: n + 1] += curve[:n] + curve[n : 2 * n]
        factor = cholesky(H)
        b_move, slack_move, dual_move = _move(factor, residual, missing, slack, dual, 0.0)
        far = min(reach(slack, slack_move), reach(dual, dual_move))
        after = (slack + far * slack_move) @ (dual + far * dual_move) / len(slack)
        b_move, slack_move, dual_move = _move(factor, residual, missing, slack, dual, mean * (after / mean) ** 3, slack_move * dual_move)
        far = CLOSE * min(reach(slack, slack_move), reach(dual, dual_move))
        b, slack, dual = b + far * b_move, slack + far * slack_move, dual + far * dual_move
    inside: np.ndarray = np.clip(b, 0.0, upper)
    return inside


def _slacks(b: np.ndarray, upper: float, low: float, high: float) -> np.ndarray:
    total = b.sum()
    return np.concatenate([b, upper - b, [total - low, high - total]])


def _move(
    factor: np.ndarray,
    residual: np.ndarray,
    missing: np.ndarray,
    slack: np.ndarray,
    dual: np.ndarray,
    centre: float,
    bend: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the Newton steps of b, slack and dual towards slack * dual = centre; ``bend`` is the product of the steps of the first guess."""
    n = len(residual)
    wanted = (centre - bend) / slack - dual  # of the dual, if slack stood still
    push = wanted - dual / slack * missing
    b_move = solved(factor, -residual + push[:n] - push[n : 2 * n] + push[-2] - push[-1])
    total = b_move.sum()
    slack_move = np.concatenate([b_move, -b_move, [total, -total]]) + missing
    return b_move, slack_move, wanted - dual / slack * slack_move


def cholesky(H: np.ndarray) -> np.ndarray:
    """Return the factor of a symmetric positive definite H (n, n), which is overwritten; LAPACK itself, for SciPy's checks take as long as n = 100.

    Raises
    ------
    numpy.linalg.LinAlgError
        H is not positive definite.
    """
    factor, failed = dpotrf(H.T, lower=0, clean=0, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError(f"the leading minor of order {failed} is not positive definite")
    return np.asarray(factor)


def solved(factor: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return H^-1 b for the :func:`cholesky` factor of H.

    >>> solved(cholesky(np.array([[4.0, 0.0], [0.0, 2.0]])), np.array([8.0, 8.0])).round(9).tolist()
    [2.0, 4.0]
    """
    return np.asarray(dpotrs(factor, b, lower=0)[0])


def reach(value: np.ndarray, move: np.ndarray) -> float:
    """Return the largest share of the move, at most 1, after which no value is negative.

    >>> reach(np.array([1.0, 1.0]), np.array([-2.0, 5.0]))
    0.5
    """
    falls = move < 0
    return min(1.0, float((-value[falls] / move[falls]).min(initial=np.inf)))
