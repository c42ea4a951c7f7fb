"""H-score, alignment of networks and intervals, each against another way to the same number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import binomtest
from sklearn.covariance import LedoitWolf

from headstart.moments import moments
from headstart.similarity.cka import cka_map, debiased_cka
from headstart.similarity.hscore import h_score, h_score_of_moments
from headstart.similarity.intervals import explained, mean_share, share
from headstart.spectrum import Spectrum

SHAPES = [(60, 8), (24, 70)]


def case(n: int, d: int, *, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * rng.uniform(0.3, 3.0, d) + 2.0
    codes = np.argmax(x[:, :3] + rng.normal(size=(n, 3)), axis=1)
    return x, {"classes": np.eye(3)[codes], "labels": (x[:, :2] > 2.0).astype(float), "numbers": x[:, :1] + rng.normal(size=(n, 1))}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_h_score_of_classes_is_the_trace_of_its_definition(shape: tuple[int, int]) -> None:
    """(1 - a) tr(S_a^-1 S_b), with scikit-learn's S_a and a, and S_b the covariance of each case's class mean."""
    x, targets = case(*shape)
    Y = targets["classes"]
    shrunk = LedoitWolf().fit(x)
    means = Y @ (Y.T @ x / Y.sum(axis=0)[:, None])
    between = np.cov(means.T, bias=True)
    expected = (1 - shrunk.shrinkage_) * np.trace(np.linalg.solve(shrunk.covariance_, between))
    found = h_score(Spectrum.of(x), Y)
    assert found.plain == pytest.approx(expected, rel=1e-9)
    assert found.bound == 2


@pytest.mark.parametrize("target", ["classes", "labels", "numbers"])
def test_unshrunk_it_is_the_sum_of_squared_canonical_correlations(target: str) -> None:
    """Those are the cosines of the angles between the spaces that centred features and targets span (SciPy)."""
    x, targets = case(60, 8)
    Y = targets[target]
    basis = (Y - Y.mean(axis=0))[:, : 2 if target == "classes" else None]  # the last class is the rest
    expected = np.sum(np.cos(subspace_angles(x - x.mean(axis=0), basis)) ** 2)
    assert h_score(Spectrum.of(x), Y, shrinkage=0.0).plain == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("target", ["classes", "labels", "numbers"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_h_score_of_streamed_moments_is_the_same(shape: tuple[int, int], target: str) -> None:
    x, targets = case(*shape)
    streamed = h_score_of_moments(moments((x[i : i + 9], targets[target][i : i + 9]) for i in range(0, len(x), 9)))
    at_once = h_score(Spectrum.of(x), targets[target])
    assert (streamed.plain, streamed.chance, streamed.bound) == (pytest.approx(at_once.plain), pytest.approx(at_once.chance), at_once.bound)


@pytest.mark.parametrize("shape", SHAPES)
def test_chance_is_the_mean_over_targets_in_random_order(shape: tuple[int, int]) -> None:
    """400 orders: within 4 standard errors of their mean."""
    x, targets = case(*shape)
    spectrum, rng = Spectrum.of(x), np.random.default_rng(0)
    for Y in targets.values():
        dealt = [h_score(spectrum, rng.permutation(Y)).plain for _ in range(400)]
        assert h_score(spectrum, Y).chance == pytest.approx(np.mean(dealt), abs=4 * np.std(dealt) / 20)


def test_noise_reaches_the_bound_unless_shrunk_and_most_of_it_unless_adjusted() -> None:
    rng = np.random.default_rng(0)
    x, Y = rng.normal(size=(200, 1024)), np.eye(10)[np.arange(200) % 10]
    assert h_score(Spectrum.of(x), Y, shrinkage=0.0).plain == pytest.approx(9.0)
    assert h_score(Spectrum.of(x), Y).plain < 0.9
    decaying = Spectrum.of(x / np.sqrt(np.arange(1, 1025)))
    assert h_score(decaying, Y).plain > 6.0
    assert h_score(decaying, Y).value < 0.9


def test_where_chance_reaches_the_bound_nothing_is_told() -> None:
    x, targets = case(24, 70)
    assert h_score(Spectrum.of(x), targets["classes"], shrinkage=0.0).value == 0.0


def plain_cka(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return float(np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b))


def written_out(a: np.ndarray, b: np.ndarray) -> float:
    """Song et al. 2012, eq. 4, with n x n kernels of uncentred features."""

    def hsic(K: np.ndarray, L: np.ndarray) -> float:
        n = len(K)
        K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
        return (np.trace(K @ L) + K.sum() * L.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * (K @ L).sum()) / (n * (n - 3))

    K, L = a @ a.T, b @ b.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def related(n: int, d: int, e: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 3))
    return hidden @ rng.normal(size=(3, d)) + rng.normal(size=(n, d)) + 1.0, hidden @ rng.normal(size=(3, e)) + rng.normal(size=(n, e))


def test_alignment_equals_the_published_formula() -> None:
    for n, d, e in ((30, 5, 8), (20, 50, 4)):
        a, b = related(n, d, e)
        assert debiased_cka(a, b) == pytest.approx(written_out(a, b), rel=1e-10)


def test_unrelated_wide_features_are_not_aligned_where_the_plain_one_says_they_are() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(40, 500)), rng.normal(size=(40, 500))) for _ in range(10)]
    assert np.mean([plain_cka(a, b) for a, b in pairs]) > 0.9
    assert abs(np.mean([debiased_cka(a, b) for a, b in pairs])) < 0.02


def test_alignment_ignores_rotation_scale_shift_and_the_order_of_inputs() -> None:
    a, b = related(30, 6, 9)
    rng = np.random.default_rng(1)
    turn, rows = np.linalg.qr(rng.normal(size=(6, 6)))[0], rng.permutation(30)
    assert debiased_cka(7.0 * a @ turn - 3.0, b) == pytest.approx(debiased_cka(a, b), rel=1e-10)
    assert debiased_cka(a[rows], b[rows]) == pytest.approx(debiased_cka(a, b), rel=1e-10)
    assert debiased_cka(b, a) == pytest.approx(debiased_cka(a, b), rel=1e-12)


def test_the_map_of_stages_holds_the_alignment_of_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = related(30, 6, 50)
    first, second = {"stem": a[:, :3], "top": a, "still": np.ones((30, 4))}, {"one": b, "two": b[:, :4]}
    monkeypatch.setattr("headstart.similarity.cka.HELD", 30 * 5 * 7)  # blocks of seven rows
    expected = [[debiased_cka(x, y) for y in second.values()] for x in first.values()]
    assert np.allclose(cka_map(first, second), expected, rtol=1e-9, atol=1e-12)
    assert cka_map(first, first).diagonal().tolist() == pytest.approx([1.0, 1.0, 0.0])


@pytest.mark.parametrize(("right", "n"), [(0, 7), (5, 20), (40, 40), (300, 301)])
def test_the_interval_of_a_share_is_wilsons(right: int, n: int) -> None:
    value, interval = share(np.r_[np.ones(right), np.zeros(n - right)])
    witness = binomtest(right, n).proportion_ci(0.90, method="wilson")
    assert value == right / n
    assert interval == pytest.approx((witness.low, witness.high), abs=1e-12)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """800 worlds each, 90 %: no less than 87 %, which is 3 standard errors below."""
    rng = np.random.default_rng(0)
    recalls, sizes = np.array([0.95, 0.7, 0.5]), np.array([12, 30, 60])
    codes = np.arange(3).repeat(sizes)
    held = []
    for _ in range(800):
        low, high = mean_share((rng.uniform(size=len(codes)) < recalls[codes]).astype(float), codes)[1]
        held.append(low <= recalls.mean() <= high)
    assert np.mean(held) > 0.87
    held = []
    for _ in range(800):
        y = rng.normal(size=(80, 1))
        low, high = explained(np.sqrt(0.4) * rng.normal(size=(80, 1)), y)[1]
        held.append(low <= 0.6 <= high)
    assert np.mean(held) > 0.87


def test_predicting_the_mean_of_the_others_explains_nothing() -> None:
    y = np.array([[1.0], [2.0], [6.0]])
    others = (y.sum() - y) / 2.0
    assert explained(y - others, y) == (0.0, (0.0, 0.0))


def test_columns_that_do_not_vary_are_left_out() -> None:
    rng = np.random.default_rng(0)
    y, errors = rng.normal(size=(30, 1)), rng.normal(size=(30, 1))
    assert explained(np.column_stack([errors, errors]), np.column_stack([y, np.ones(30)])) == explained(errors, y)
