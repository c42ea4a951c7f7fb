"""Tests between two samples: witnesses from SciPy, scikit-learn and POT, levels and power, and how cases are drawn, folded and relabelled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from headstart import distance
from headstart.similarity.comparison import compare
from headstart.similarity.data import frechet, frechet_test, kid
from headstart.similarity.label_shift import classes_shared, label_shift
from headstart.similarity.marginals import feature_tests, moment_shifts
from headstart.similarity.two_sample import FOLDS, RIDGE, Pool, Statistic, auc_interval, classifier, energy, mmd, permutation_test, pool, sliced_wasserstein


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices here are small; where other programs run beside, a second thread makes them many times as slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def samples(n: int, m: int, d: int, *, seed: int = 0, shift: float = 0.3, spread: float = 1.3) -> tuple[np.ndarray, np.ndarray]:
    """Skewed features of unequal spread."""
    dice = np.random.default_rng(seed)
    scale = np.linspace(1.0, 5.0, d)
    return scale * (dice.gamma(3.0, size=(n, d))), scale * (shift + spread * dice.gamma(3.0, size=(m, d)))


def both(n: int, m: int, d: int, *, most: int = 1000, seed: int = 0, **how: float) -> Pool:
    return pool(*samples(n, m, d, seed=seed, **how), seed=seed, most=most)


def of(statistic: Statistic, pooled: Pool) -> float:
    return float(statistic(pooled, pooled.labellings(0))[0])


# --- witnesses


def halves(pooled: Pool) -> tuple[np.ndarray, np.ndarray]:
    return pooled.z[: pooled.n], pooled.z[pooled.n :]


def test_features_are_standardised_over_both_samples_together():
    pooled = both(30, 50, 4)
    x, xs = samples(30, 50, 4)
    theirs = stats.zscore(np.vstack([x, xs]))
    assert np.allclose(np.sort(pooled.z[:30], axis=0), np.sort(theirs[:30], axis=0))
    assert np.allclose(np.sort(pooled.z, axis=0), np.sort(theirs, axis=0))


def test_mmd_is_that_of_scikit_learns_kernel_at_the_median_distance():
    pooled = both(30, 41, 4)
    z, zs = halves(pooled)
    gamma = 1.0 / (2.0 * np.median(pdist(pooled.z)) ** 2)
    theirs = rbf_kernel(z, z, gamma=gamma).mean() + rbf_kernel(zs, zs, gamma=gamma).mean() - 2.0 * rbf_kernel(z, zs, gamma=gamma).mean()
    assert of(mmd, pooled) == pytest.approx(theirs, rel=1e-9)


def test_energy_is_scipys_distances_within_and_across_over_twice_those_across():
    pooled = both(30, 41, 4)
    z, zs = halves(pooled)
    across = cdist(z, zs).mean()
    assert of(energy, pooled) == pytest.approx((2 * across - cdist(z, z).mean() - cdist(zs, zs).mean()) / (2 * across), rel=1e-9)


def test_energy_in_one_dimension_is_scipys():
    pooled = both(30, 41, 1)
    z, zs = halves(pooled)
    assert of(energy, pooled) == pytest.approx(stats.energy_distance(z[:, 0], zs[:, 0]) ** 2 / (2 * cdist(z, zs).mean()), rel=1e-9)


def test_sliced_wasserstein_is_pots_along_the_same_directions():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # POT warns of back ends that are not installed
        import ot

    pooled = both(30, 41, 4, seed=5)
    z, zs = halves(pooled)
    along = distance.directions(torch.from_numpy(z), projections=64, seed=5).numpy()
    assert of(sliced_wasserstein, pooled) == pytest.approx(ot.sliced_wasserstein_distance(z, zs, projections=along, p=2), rel=1e-9)


def test_the_classifiers_held_out_predictions_are_those_of_scikit_learn_refitted_without_the_fold():
    pooled = both(30, 41, 4)
    gamma = 1.0 / (2.0 * np.median(pdist(pooled.z)) ** 2)
    K = rbf_kernel(pooled.z, pooled.z, gamma=gamma)
    h = np.eye(71) - 1.0 / 71
    K = h @ K @ h
    K /= np.trace(K) / 71
    y = np.repeat([41 / 71, -30 / 71], [30, 41])
    won, pairs = 0.0, 0
    for fold in range(FOLDS):
        f = pooled.lots % FOLDS == fold
        scores = KernelRidge(alpha=RIDGE, kernel="precomputed").fit(K[~f][:, ~f], y[~f]).predict(K[f][:, ~f])
        count = int((y[f] > 0).sum() * (y[f] < 0).sum())
        won, pairs = won + count * roc_auc_score(y[f] > 0, scores), pairs + count
    assert of(classifier, pooled) == pytest.approx(won / pairs, abs=1e-12)


def test_ends_of_an_aucs_interval_are_where_hanleys_error_reaches_back():
    n, m, auc = 30, 50, 0.8
    for end in auc_interval(auc, n, m):
        more = (n + m) / 2 - 1
        variance = end * (1 - end) / (n * m) * (1 + more * (1 - end) / (2 - end) + more * end / (1 + end))
        assert abs(auc - end) == pytest.approx(stats.norm.isf(0.05) * math.sqrt(variance), rel=1e-6)


@pytest.mark.parametrize(("n", "m", "apart"), [(30, 50, 0.5), (20, 20, 2.0), (100, 15, 1.0)])
def test_intervals_of_an_auc_hold_the_truth_nine_times_in_ten(n: int, m: int, apart: float):
    truth = stats.norm.cdf(apart / math.sqrt(2))
    dice = np.random.default_rng(0)
    held = []
    for _ in range(500):
        u = stats.mannwhitneyu(dice.normal(apart, size=n), dice.normal(size=m)).statistic / (n * m)
        low, high = auc_interval(u, n, m)
        held.append(low <= truth <= high)
    assert 0.87 <= np.mean(held) <= 0.95


@pytest.mark.parametrize(("n", "m", "d", "shift"), [(30, 40, 2, 0.0), (30, 40, 2, 1.0), (60, 30, 10, 0.3)])
def test_intervals_of_the_cross_validated_auc_hold_its_mean_nine_times_in_ten(n: int, m: int, d: int, shift: float):
    dice = np.random.default_rng(0)
    pools = [pool(dice.normal(size=(n, d)), dice.normal(size=(m, d)) + shift, seed=seed, most=100) for seed in range(200)]
    aucs = [of(classifier, pooled) for pooled in pools]
    held = [low <= np.mean(aucs) <= high for low, high in (auc_interval(auc, n, m, folds=FOLDS) for auc in aucs)]
    assert 0.86 <= np.mean(held) <= 0.98


@pytest.mark.parametrize("integers", [False, True])
def test_kolmogorov_smirnov_is_scipys_also_where_values_tie(integers: bool):
    x, xs = samples(40, 55, 6, shift=0.0)
    if integers:
        x, xs = x.round(), xs.round()
    theirs = [stats.ks_2samp(a, b, method="asymp") for a, b in zip(x.T, xs.T, strict=True)]
    p = sorted(t.pvalue for t in theirs)
    found = feature_tests(pool(x, xs, seed=0, most=100))
    assert found.largest == pytest.approx(max(t.statistic for t in theirs), rel=1e-12)
    assert found.feature == max(range(6), key=lambda i: theirs[i].statistic)
    rejected = [all(p[j] * (6 - j) <= 0.05 for j in range(i + 1)) for i in range(6)]  # Holm steps down
    assert found.surely == pytest.approx(np.mean(rejected))
    below = [i + 1 for i in range(6) if p[i] <= 0.05 * (i + 1) / 6]  # Benjamini & Hochberg step up
    assert found.share == pytest.approx(max(below, default=0) / 6)


def test_the_interval_of_the_largest_distance_holds_the_truth():
    """Normals a shift s apart: the true distance is 2 Phi(s / 2) - 1, here in one feature of five."""
    truth = 2 * stats.norm.cdf(0.5) - 1
    dice = np.random.default_rng(0)
    held = []
    for _ in range(200):
        x, xs = dice.normal(size=(80, 5)), dice.normal(size=(60, 5))
        xs[:, 2] += 1.0
        low, high = feature_tests(pool(x, xs, seed=0, most=100)).interval
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.9


def test_moments_are_scipys():
    x, xs = samples(40, 55, 5)
    found = moment_shifts(pool(x, xs, seed=0, most=100))
    joint = (x.var(0) + xs.var(0)) / 2 + (x.mean(0) - xs.mean(0)) ** 2 / 4
    theirs = {
        "mean": np.abs(x.mean(0) - xs.mean(0)) / np.sqrt(joint),
        "variance": np.abs(x.var(0) - xs.var(0)) / joint,
        "skew": np.abs(stats.skew(x) - stats.skew(xs)),
        "kurtosis": np.abs(stats.kurtosis(x) - stats.kurtosis(xs)),
    }
    for name, differences in theirs.items():
        shift = getattr(found, name)
        assert shift.median == pytest.approx(np.median(differences), rel=1e-8)
        assert (shift.worst, shift.feature) == (pytest.approx(differences.max(), rel=1e-8), differences.argmax())


def test_kid_is_the_mean_over_blocks_of_scikit_learns_cubic_kernel():
    pooled = both(120, 150, 4)
    found = kid(pooled)
    assert (found.blocks, found.size, found.source_size) == (10, 12, 15)
    z, zs = halves(pooled)
    values = []
    for b in range(10):
        u, v = z[12 * b : 12 * b + 12], zs[15 * b : 15 * b + 15]
        own, other = (polynomial_kernel(t, t, degree=3, gamma=0.25, coef0=1.0) for t in (u, v))
        within = (own.sum() - np.trace(own)) / (12 * 11) + (other.sum() - np.trace(other)) / (15 * 14)
        values.append(within - 2 * polynomial_kernel(u, v, degree=3, gamma=0.25, coef0=1.0).mean())
    assert found.value == pytest.approx(np.mean(values))
    low, high = stats.t.interval(0.9, 9, np.mean(values), stats.sem(values))
    assert found.interval == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(("n", "m", "d", "dimensions"), [(200, 230, 5, 5), (90, 100, 12, 4), (50, 60, 300, 2)])
def test_frechet_is_that_of_scikit_learns_components(n: int, m: int, d: int, dimensions: int):
    pooled = both(n, m, d)
    statistic, found = frechet(pooled)
    assert found == dimensions
    z = PCA(dimensions, svd_solver="full").fit_transform(pooled.rows)
    ca, cb = (np.cov(t.T).reshape(dimensions, dimensions) for t in (z[:n], z[n:]))
    apart = np.square(z[:n].mean(0) - z[n:].mean(0)).sum()
    theirs = (apart + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)) / (np.trace(ca + cb) / 2 + apart / 4)
    assert of(statistic, pooled) == pytest.approx(theirs, rel=1e-7)


def test_label_shift_by_hand():
    y, ys = np.repeat([0, 1, 2], [5, 3, 2]), np.repeat([0, 1, 2], [2, 6, 2])  # ant .5, bee .3, cow .2; bee .2, cow .6, dog .2
    found = label_shift(y, ys, labels=("ant", "bee", "cow"), source_labels=("Bee", "cow", "dog"), seed=0)
    assert found.value == pytest.approx((0.5 + 0.1 + 0.4 + 0.2) / 2)
    assert found.shared == ("bee", "cow")
    assert classes_shared(("ant", "bee", "cow"), ("Bee", "cow", "dog")) == pytest.approx(2 / 3)


def test_label_shifts_p_value_is_the_hypergeometrics():
    """Two classes, 5 and 5 cases: of the 252 ways to label, 2 (all of one class together) reach a total variation of 1."""
    found = label_shift(np.zeros(5, int), np.ones(5, int), labels=("a", "b"), source_labels=("a", "b"), seed=0)
    assert found.value == 1.0
    assert found.p == pytest.approx(2 / 252, abs=0.006)


@pytest.mark.parametrize("q", [(0.5, 0.3, 0.2), (0.2, 0.3, 0.5)])
def test_the_interval_of_a_label_shift_holds_the_truth_at_least_nine_times_in_ten(q: tuple[float, ...]):
    p, names = (0.5, 0.3, 0.2), ("a", "b", "c")
    truth = np.abs(np.subtract(p, q)).sum() / 2
    dice = np.random.default_rng(0)
    held = []
    for seed in range(300):
        y, ys = dice.choice(3, 60, p=p), dice.choice(3, 90, p=q)
        low, high = label_shift(y, ys, labels=names, source_labels=names, seed=seed).interval
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.9


# --- levels and power


def p_classes(x: np.ndarray, xs: np.ndarray, seed: int) -> float:
    """Classes are the sign of the first feature and of the second."""
    y, ys = (2 * (a[:, 0] > 0) + (a[:, 1] > 0) for a in (x, xs))
    return label_shift(y, ys, labels="abcd", source_labels="abcd", seed=seed).p


def p_of(statistic: Statistic) -> Callable[[np.ndarray, np.ndarray, int], float]:
    return lambda x, xs, seed: permutation_test(statistic, pool(x, xs, seed=seed, most=100), permutations=39).p


TESTS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "mmd": p_of(mmd),
    "energy": p_of(energy),
    "sliced wasserstein": p_of(sliced_wasserstein),
    "classifier": p_of(classifier),
    "frechet": lambda x, xs, seed: frechet_test(pool(x, xs, seed=seed, most=100), permutations=39).test.p,
    "worst mean": lambda x, xs, seed: moment_shifts(pool(x, xs, seed=seed, most=100), permutations=39).mean.worst_p,
    "median mean": lambda x, xs, seed: moment_shifts(pool(x, xs, seed=seed, most=100), permutations=39).mean.median_p,
    "features": lambda x, xs, seed: 0.0 if feature_tests(pool(x, xs, seed=seed, most=100)).surely > 0.0 else 1.0,  # Holm: any at all
    "labels": p_classes,
}
FAST = ("mmd", "energy", "worst mean", "median mean", "features", "labels")  # benchmarks/two_sample.py has all, more often and larger


@pytest.mark.parametrize("name", FAST)
def test_a_test_finds_a_difference_in_five_of_a_hundred_pairs_that_are_alike(name: str):
    dice = np.random.default_rng(0)
    found = [TESTS[name](dice.normal(size=(40, 3)), dice.normal(size=(51, 3)), seed) <= 0.05 for seed in range(1000)]
    assert 0.035 <= np.mean(found) <= 0.065


@pytest.mark.parametrize("name", TESTS)
def test_a_test_finds_a_planted_shift(name: str):
    dice = np.random.default_rng(0)
    found = [TESTS[name](dice.normal(size=(40, 3)), dice.normal(size=(51, 3)) + 1.0, seed) <= 0.05 for seed in range(40)]
    assert np.mean(found) >= 0.9


@pytest.mark.parametrize("statistic", [mmd, energy, classifier])
def test_tests_of_whole_distributions_find_a_correlation_that_turned_which_no_feature_shows(statistic: Statistic):
    dice = np.random.default_rng(0)
    x = dice.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=100)
    xs = dice.multivariate_normal([0, 0], [[1, -0.9], [-0.9, 1]], size=100)
    pooled = pool(x, xs, seed=0, most=100)
    assert permutation_test(statistic, pooled, permutations=199).p <= 0.01
    assert feature_tests(pooled).share == 0.0


def test_what_chance_shows_is_the_mean_over_shuffled_labels():
    found = permutation_test(mmd, both(30, 41, 4, shift=0.0, spread=1.0), permutations=199)
    x, xs = samples(30, 41, 4, shift=0.0, spread=1.0)
    rows, dice, values = np.vstack([x, xs]), np.random.default_rng(8), []
    for _ in range(200):
        rows = dice.permutation(rows)
        values.append(of(mmd, pool(rows[:30], rows[30:], seed=0, most=100)))
    assert found.chance == pytest.approx(np.mean(values), rel=0.1)


# --- how cases are drawn, folded and relabelled


def test_the_order_of_cases_decides_no_draw_no_fold_and_no_p_value():
    x, xs = samples(300, 200, 5)
    dice = np.random.default_rng(0)
    first, second = pool(x, xs, seed=3, most=50), pool(dice.permutation(x), dice.permutation(xs), seed=3, most=50)
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.lots, second.lots)
    assert compare(x, xs, seed=3) == compare(dice.permutation(x), dice.permutation(xs), seed=3)


def test_draws_are_uniform_and_follow_the_seed():
    x = np.arange(100.0)[:, None]
    drawn = [pool(x, x + 1000.0, seed=s, most=30).rows[:30, 0] for s in range(400)]
    counts = np.bincount(np.concatenate(drawn).astype(int), minlength=100)
    assert counts.sum() == 400 * 30
    assert stats.chisquare(counts).pvalue > 0.001
    assert not np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], pool(x, x + 1000.0, seed=0, most=30).rows[:30, 0])


@pytest.mark.parametrize("statistic", [mmd, energy, sliced_wasserstein, classifier])
def test_the_same_cases_look_the_same_also_where_only_some_are_drawn(statistic: Statistic):
    x, _ = samples(200, 1, 5)
    pooled = pool(x, np.random.default_rng(0).permutation(x), seed=0, most=60)
    assert of(statistic, pooled) == pytest.approx(0.5 if statistic is classifier else 0.0, abs=1e-10)
    assert permutation_test(statistic, pooled, permutations=19).p > 0.2


def test_the_classifier_learns_from_equal_rows_and_keeps_its_level_on_them():
    """Rows of two zeros or ones: four kinds of cases."""
    dice = np.random.default_rng(0)

    def draw(share: float) -> np.ndarray:
        return (dice.random((80, 2)) < share).astype(float)

    apart = [TESTS["classifier"](draw(0.3), draw(0.7), seed) <= 0.05 for seed in range(20)]
    alike = [TESTS["classifier"](draw(0.3), draw(0.3), seed) <= 0.05 for seed in range(200)]
    assert np.mean(apart) >= 0.9
    assert np.mean(alike) <= 0.09  # 5 % and 2.6 standard errors
