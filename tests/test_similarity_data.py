"""The data view: witnesses from SciPy, scikit-learn and POT, levels and power of every test, the laws of every measure, and the sentence for people."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

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
from headstart.core import InputError
from headstart.similarity.comparison import compare
from headstart.similarity.data import MEASURES, frechet, frechet_test, kid
from headstart.similarity.label_shift import classes_shared, label_shift
from headstart.similarity.marginals import feature_tests, moment_shifts
from headstart.similarity.measure import Evidence, Measure
from headstart.similarity.two_sample import FOLDS, RIDGE, Pool, Statistic, auc_interval, classifier, energy, mmd, permutation_test, pool, sliced_wasserstein

EVERY = pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
OF_FEATURES = [m for m in MEASURES if "x" in m.needs]
EVERY_OF_FEATURES = pytest.mark.parametrize("measure", OF_FEATURES, ids=lambda m: m.name)


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


def evidence(n: int = 40, m: int = 55, d: int = 6, *, seed: int = 0) -> Evidence:
    x, xs = samples(n, m, d)
    dice = np.random.default_rng(1)
    return Evidence(
        x, dice.integers(3, size=n), xs=xs, ys=dice.integers(4, size=m), labels=("ant", "bee", "cow"), source_labels=("bee", "cow", "dog", "eel"), seed=seed
    )


def value(measure: Measure, given: Evidence) -> float:
    score = measure(given)
    assert score is not None
    return score.value


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


# --- laws


@EVERY
@pytest.mark.parametrize(("n", "m", "d"), [(40, 55, 6), (55, 40, 60), (30, 12, 1)])
def test_a_score_is_finite_inside_its_interval_and_says_how_many_cases_it_used(measure: Measure, n: int, m: int, d: int):
    score = measure(evidence(n, m, d))
    low, high = score.interval or (score.value, score.value)
    assert -math.inf < low <= score.value <= high < math.inf
    assert score.n == (3 if measure.name == "classes shared" else n + m)
    assert (score.name, score.view, score.higher_is_closer) == (measure.name, "data", measure.name == "classes shared")


@EVERY
def test_the_order_of_cases_decides_nothing(measure: Measure):
    given = evidence()
    a, b = np.random.default_rng(2).permutation(40), np.random.default_rng(3).permutation(55)
    shuffled = replace(given, x=given.x[a], y=given.y[a], xs=given.xs[b], ys=given.ys[b])
    assert value(measure, shuffled) == pytest.approx(value(measure, given), rel=1e-10, abs=1e-12)


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


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rotation": lambda a: a @ np.linalg.qr(np.random.default_rng(7).normal(size=(a.shape[1], a.shape[1])))[0],
    "scale": lambda a: 37.0 * a,
    "shift": lambda a: a + 10.0 * np.random.default_rng(8).normal(size=a.shape[1]),
}


@EVERY_OF_FEATURES
@pytest.mark.parametrize("change", CHANGES)
def test_a_measure_ignores_exactly_what_it_declares(measure: Measure, change: str):
    given = evidence()
    changed = replace(given, x=CHANGES[change](given.x), xs=CHANGES[change](given.xs))
    same = value(measure, changed) == pytest.approx(value(measure, given), rel=1e-7, abs=1e-10)
    assert same == (change in measure.ignores)


@pytest.mark.parametrize("measure", [m for m in MEASURES if m.at_identity is not None], ids=lambda m: m.name)
def test_a_source_of_the_same_cases_in_another_order_gives_the_declared_value(measure: Measure):
    given = evidence()
    rows = np.random.default_rng(5).permutation(40)
    twin = replace(given, xs=given.x[rows], ys=given.y[rows], source_labels=given.labels)
    assert value(measure, twin) == pytest.approx(measure.at_identity, abs=1e-10)


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


@pytest.mark.parametrize("measure", [m for m in OF_FEATURES if m.name not in {"variance shift", "skew shift", "kurtosis shift"}], ids=lambda m: m.name)
def test_a_measure_rises_with_a_planted_shift(measure: Measure):
    dice = np.random.default_rng(0)
    x, xs = dice.normal(size=(150, 5)), dice.normal(size=(120, 5))
    values = [value(measure, Evidence(x, xs=xs + shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)
    assert values[-1] > values[0]


@EVERY_OF_FEATURES
def test_dead_channels_change_nothing(measure: Measure):
    given, dice = evidence(), np.random.default_rng(0)
    dead = [np.column_stack([a, 1e-33 * dice.normal(size=len(a)), 3.0 + 1e-9 * dice.normal(size=len(a)), np.zeros(len(a))]) for a in (given.x, given.xs)]
    assert value(measure, replace(given, x=dead[0], xs=dead[1])) == pytest.approx(value(measure, given), rel=1e-6)


@EVERY_OF_FEATURES
def test_samples_that_stand_still_are_told_apart_only_where_they_stand_apart(measure: Measure):
    still = np.full((20, 3), 0.1)
    alike = value(measure, Evidence(still, xs=still[:15]))
    assert alike == pytest.approx(0.5 if measure.name == "domain classifier" else 0.0, abs=1e-12)
    apart = value(measure, Evidence(still, xs=still[:15] + 1.0))
    assert math.isfinite(apart)
    if measure.name not in {"variance shift", "skew shift", "kurtosis shift"}:
        assert apart > alike + 0.4


@EVERY
def test_renumbering_classes_changes_nothing(measure: Measure):
    given = evidence()
    order = np.array([2, 0, 3, 1])
    renumbered = replace(given, ys=order[given.ys], source_labels=tuple(given.source_labels[i] for i in np.argsort(order)))
    assert value(measure, renumbered) == pytest.approx(value(measure, given), rel=1e-12)


@EVERY
def test_a_measure_without_its_needs_gives_none(measure: Measure):
    for what in measure.needs:
        assert measure(replace(evidence(), **{what: getattr(Evidence(), what)})) is None


def test_label_shift_is_defined_for_classes_only():
    shift = next(m for m in MEASURES if m.name == "label shift")
    assert shift(replace(evidence(), kind="regression")) is None


# --- the one call


def apart(**more: object) -> dict[str, object]:
    x, xs = samples(60, 80, 4, shift=2.0)
    return {"x": x, "xs": xs, **more}


def test_a_comparison_goes_to_json_and_names_the_sizes_of_everything():
    x, xs = apart().values()
    found = compare(x, xs, y=np.arange(60) % 2, ys=np.arange(80) % 2, labels=("a", "b"), source_labels=("b", "c"), seed=0)
    plain = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert (plain["n"], plain["m"], plain["features"]) == (60, 80, 4)
    assert (plain["classifier"]["n"], plain["classifier"]["m"]) == (60, 80)
    assert (plain["frechet"]["dimensions"], plain["frechet"]["features"]) == (3, 4)
    assert plain["classes_shared"] == 0.5
    assert compare(x, xs, seed=0).labels is None


def test_many_cases_are_drawn_down_to_the_stated_bounds():
    dice = np.random.default_rng(0)
    found = compare(dice.normal(size=(5000, 2)), dice.normal(size=(1500, 2)), seed=0)
    assert (found.n, found.m) == (5000, 1500)
    assert (found.classifier.n, found.classifier.m) == (1000, 1000)
    assert (found.tests.n, found.tests.m) == (2000, 1500)


def test_words_say_how_well_a_classifier_tells_two_that_differ():
    dice = np.random.default_rng(0)
    words = compare(dice.normal(size=(200, 3)), dice.normal(size=(200, 3)) + 3.0, seed=0).in_words()
    assert words.startswith("A classifier tells the two apart in 100% of pairs (chance: 50%, p = 0.001): they differ very strongly, which need not matter")
    assert words.endswith("100% of 3 features differ by themselves.")


def test_words_claim_no_likeness_where_nothing_was_found():
    dice = np.random.default_rng(0)
    y, ys = dice.integers(2, size=60), dice.integers(2, size=70)
    words = compare(dice.normal(size=(60, 3)), dice.normal(size=(70, 3)), y=y, ys=ys, labels=("a", "b"), seed=0).in_words()
    assert "A classifier on 60 and 70 cases does not tell the two apart beyond chance" in words
    assert "which does not prove that they are alike" in words
    assert "none of 3 features differs by itself, as far as 60 and 70 cases can tell" in words
    assert "class frequencies differ by no more than chance may do" in words


def test_words_tell_of_labels():
    dice = np.random.default_rng(0)
    x, xs = dice.normal(size=(100, 2)), dice.normal(size=(100, 2))
    y, ys = np.repeat([0, 1], [90, 10]), np.repeat([0, 1], [20, 80])
    shifted = compare(x, xs, y=y, ys=ys, labels=("a", "b"), seed=0)
    assert "class frequencies differ by 70% (90% interval " in shifted.in_words()
    assert "they share no class by name" in compare(x, xs, y=y, ys=ys, labels=("a", "b"), source_labels=("c", "d"), seed=0).in_words()


@pytest.mark.parametrize(("share", "words"), [(0.0, "none of 3"), (0.004, "under 1% of 3"), (0.4, "40% of 3"), (0.996, "over 99% of 3"), (1.0, "100% of 3")])
def test_words_round_no_share_to_none_or_all(share: float, words: str):
    dice = np.random.default_rng(0)
    found = compare(dice.normal(size=(20, 3)), dice.normal(size=(20, 3)), seed=0)
    assert words in replace(found, tests=replace(found.tests, share=share)).in_words()


def test_words_of_a_difference_that_only_the_other_tests_find_say_so():
    dice = np.random.default_rng(0)
    found = compare(dice.normal(size=(50, 2)), dice.normal(size=(50, 2)), seed=0)
    seen = replace(found, classifier=replace(found.classifier, value=0.53, p=0.2), mmd=replace(found.mmd, p=0.01), energy=replace(found.energy, p=0.3))
    assert "does not tell the two apart beyond chance, in 53% of pairs (chance: 50%, p = 0.200), but they do differ by MMD (p = 0.010);" in seen.in_words()


X = np.zeros((12, 3))
NAN = np.vstack([X, [[0.0, np.nan, 0.0]]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"xs": X[:, :2]}, "x has 3 features and xs 2; they must be the same features. Make both with the same extractor."),
        ({"xs": X[:4]}, "xs has 4 rows; at least 10 are needed to compare two data sets. Add cases."),
        ({"x": NAN}, "x holds NaN or infinity in 1 rows (first: row 12). Fill them in, or drop the rows."),
        ({"x": X[None]}, "x is an array of float64 of shape (1, 12, 3); numbers of shape (cases, features) are needed. Flatten or encode the inputs."),
        ({"y": np.zeros(5, int)}, "y has 5 labels for 12 rows. Give one for each."),
        ({"y": np.full(12, 2), "labels": ("a", "b")}, "y holds int64 from 2 to 2; codes from 0 into the 2 names of its classes are needed."),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(given: dict[str, object], message: str):
    with pytest.raises(InputError) as error:
        compare(**{"x": X, "xs": X, "seed": 0, **given})  # type: ignore[arg-type]
    assert str(error.value) == message
