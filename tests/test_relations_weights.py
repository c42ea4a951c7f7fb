"""Weights of cases: against known density ratios, SciPy's minimisers, brute force, and planted cases that mislead."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize
from scipy.spatial.distance import pdist
from scipy.stats import norm, spearmanr
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.tree import DecisionTreeClassifier

from headstart.core import InputError
from headstart.methods.features import RidgeLOO
from headstart.methods.relations import (
    KLIEP,
    KMM,
    DensityRatio,
    EasyAdapt,
    InstanceSelection,
    KMMRegressor,
    LabelPropagation,
    NearestNeighbourWeights,
    TrAdaBoost,
    TrAdaBoostR2,
)
from headstart.methods.relations.augmentation import augmented
from headstart.methods.relations.components import median_gamma
from headstart.methods.relations.propagation import neighbour_graph, spread
from headstart.methods.relations.quadratic import box_program
from headstart.methods.relations.ratios import WIDTHS, importance, kliep


def two_gaussians(n: int, m: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N(0, 1) and N(0.5, 0.8^2), and the ratio of their densities at the source's cases."""
    dice = np.random.default_rng(seed)
    xs, xt = dice.normal(size=(n, 1)), 0.5 + 0.8 * dice.normal(size=(m, 1))
    return xs, xt, (norm.pdf(xs, 0.5, 0.8) / norm.pdf(xs)).ravel()


@pytest.mark.parametrize("method", [KMM, KLIEP])
def test_weights_follow_the_known_ratio_of_two_gaussians(method: type) -> None:
    xs, xt, truth = two_gaussians(400, 300)
    weights = method(gamma=0.5).fit(xs, np.arange(400) % 2, xt).weights_
    near = np.abs(xs.ravel()) < 2.0  # beyond, a handful of cases
    assert spearmanr(weights[near], truth[near]).statistic > 0.9
    assert np.average(xs.ravel(), weights=weights) == pytest.approx(0.5, abs=0.12)
    assert weights.mean() == pytest.approx(1.0)


def test_the_log_ratio_of_two_gaussians_of_one_spread_is_the_known_line() -> None:
    dice = np.random.default_rng(0)
    xs, xt = dice.normal(size=(2000, 1)), dice.normal(size=(1000, 1)) + 1.0
    log = np.log(DensityRatio().fit(xs, np.arange(2000) % 2, xt).weights_)
    slope, start = np.polyfit(xs.ravel(), log, 1)
    assert slope == pytest.approx(1.0, abs=0.12)  # log ratio: x - 1/2
    assert start == pytest.approx(-0.5, abs=0.12)


@pytest.mark.parametrize("high", [4.0, 30.0])
def test_the_quadratic_program_is_solved_as_scipy_solves_it(high: float) -> None:
    dice = np.random.default_rng(1)
    x = dice.normal(size=(12, 2))
    K, k = rbf_kernel(x, gamma=0.7), 3.0 * dice.random(12)
    ours = box_program(K, k, upper=1.5, low=0.5, high=high)

    def loss(b: np.ndarray) -> float:
        return 0.5 * b @ K @ b - k @ b

    theirs = minimize(
        loss,
        np.full(12, 0.2),
        jac=lambda b: K @ b - k,
        bounds=[(0, 1.5)] * 12,
        constraints=LinearConstraint(np.ones((1, 12)), 0.5, high),
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert loss(ours) == pytest.approx(theirs.fun, abs=1e-7)
    assert 0.5 - 1e-7 <= ours.sum() <= high + 1e-7
    assert ours.min() >= 0
    assert ours.max() <= 1.5


def test_kernel_mean_matching_brings_the_kernel_means_together() -> None:
    xs, xt, _ = two_gaussians(200, 150)
    model = KMM(gamma=0.5).fit(xs, np.arange(200) % 2, xt)

    def gap(w: np.ndarray) -> float:
        w = w / w.sum()
        return float(w @ rbf_kernel(xs, gamma=0.5) @ w - 2 * w @ rbf_kernel(xs, xt, gamma=0.5).mean(axis=1) + rbf_kernel(xt, gamma=0.5).mean())

    assert gap(model.weights_) < 0.01 * gap(np.ones(200))
    assert model.effective_ == pytest.approx(200**2 / np.sum(model.weights_**2))


def test_kliep_is_the_constrained_maximum_of_its_paper() -> None:
    xs, xt, _ = two_gaussians(40, 30)
    centres = xt[:5]
    T, s = rbf_kernel(xt, centres, gamma=0.8), rbf_kernel(xs, centres, gamma=0.8).mean(axis=0)
    alpha = importance(T, s)
    assert s @ alpha == pytest.approx(1.0, abs=1e-6)
    theirs = minimize(
        lambda a: -np.log(T @ a).mean(),
        np.full(5, 1.0 / s.sum()),
        bounds=[(0, None)] * 5,
        constraints=LinearConstraint(s[None, :], 1.0, 1.0),
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert np.log(T @ alpha).mean() == pytest.approx(-theirs.fun, abs=1e-6)


def test_kliep_finds_the_shares_of_target_cases_that_no_kernel_shares() -> None:
    """Kernels apart: the likeliest alpha times the mean of each kernel is the share of target cases under it, however many powers of ten the means span."""
    T, s = np.repeat(np.eye(3), [1, 3, 6], axis=0), np.array([1e-6, 1.0, 1e3])
    assert np.allclose(importance(T, s) * s, [0.1, 0.3, 0.6], atol=1e-7)


def test_kliep_refuses_kernels_that_reach_no_source_case() -> None:
    with pytest.raises(InputError, match=r"No source case is near a target case at gamma = 1\. Give a smaller gamma"):
        KLIEP(gamma=1.0).fit([[0.0], [1.0]], ["a", "b"], [[100.0], [101.0]])


def test_what_hardly_moves_in_the_source_alone_does_not_lead_the_head_astray() -> None:
    """Sixty features of noise, a hundredth as wide in the source as in the target: on the source's own scale each would be worth as much as those that tell."""
    dice = np.random.default_rng(0)
    y = np.arange(60) % 2

    def draw(rim: float) -> np.ndarray:
        return np.hstack([(2.0 * y - 1.0)[:, None] + dice.normal(size=(60, 5)), rim * dice.normal(size=(60, 60))])

    xs, xt = draw(0.01), draw(1.0)
    alone, both = RidgeLOO().fit(xs, y), RidgeLOO().fit(xs, y, beside=xt)
    assert np.mean(alone.predict(xt) == y) < 0.7
    assert np.mean(both.predict(xt) == y) > 0.9
    assert np.allclose(RidgeLOO().fit(xs, y, beside=xs).coef_, alone.coef_)
    assert np.array_equal(NearestNeighbourWeights(prior=1e9).fit(xs, y, xt).predict(xt), both.predict(xt))


def test_kliep_chooses_the_width_that_is_likeliest_for_held_out_target_cases() -> None:
    """The target is a narrow part of the source: of five widths a narrow one, not the median distance's."""
    dice = np.random.default_rng(0)
    xs, xt = dice.normal(size=(60, 1)), 0.1 * dice.normal(size=(40, 1))
    model = KLIEP().fit(xs, np.arange(60) % 2, xt)
    assert model.gamma_ > median_gamma(np.vstack([xs, xt]))


def test_nearest_neighbour_weights_and_selection_count_as_brute_force_does() -> None:
    dice = np.random.default_rng(2)
    xs, xt, y = dice.normal(size=(20, 2)), dice.normal(size=(35, 2)) + 0.5, np.arange(20) % 2
    apart = np.linalg.norm(xs[:, None] - xt[None], axis=2)
    counts = np.bincount(apart.argmin(axis=0), minlength=20) + 1.0
    assert np.allclose(NearestNeighbourWeights().fit(xs, y, xt).weights_, counts / counts.mean())
    near = np.unique(np.argsort(apart, axis=0)[:2])
    assert np.array_equal(np.flatnonzero(InstanceSelection(k=2).fit(xs, y, xt).selected_), near)


def test_a_line_through_a_curve_fits_where_the_target_is() -> None:
    """Covariate shift under a wrong model: y = x^2, a line, source on -2..2, target about 1.5, where the best line has slope 3."""
    dice = np.random.default_rng(3)
    xs, xt = dice.uniform(-2, 2, size=(200, 1)), 1.5 + 0.2 * dice.normal(size=(100, 1))
    plain, weighed = (KMMRegressor(LinearRegression()).fit(xs, xs.ravel() ** 2, t) for t in (None, xt))
    error = [np.mean((model.predict(xt) - xt.ravel() ** 2) ** 2) for model in (plain, weighed)]
    assert error[1] < 0.1 * error[0]
    assert weighed.head_.coef_[0] == pytest.approx(3.0, abs=0.5)


def misled(*, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A source of which a third has the labels of the other class; a target without such."""
    dice = np.random.default_rng(seed)
    xs, xt = dice.normal(size=(120, 2)), dice.normal(size=(60, 2))
    bad = np.arange(120) % 3 == 0
    return xs, (xs[:, 0] > 0) ^ bad, xt, xt[:, 0] > 0, bad


def test_tradaboost_takes_weight_from_source_cases_with_the_wrong_label() -> None:
    xs, ys, xt, yt, bad = misled()
    model = TrAdaBoost(LogisticRegression()).fit(xs, ys, xt, yt.tolist())
    assert np.median(model.weights_[bad]) < 0.05 * np.median(model.weights_[~bad])
    assert model.score(xt, yt) > 0.95


def test_one_round_of_tradaboost_is_the_paper_s_arithmetic() -> None:
    xs, ys, xt, yt, _ = misled()
    model = TrAdaBoost(DecisionTreeClassifier(max_depth=1), rounds=1).fit(xs, ys, xt, yt.tolist())
    wrong = model.heads_[0].predict(xs) != ys
    beta = 1.0 / (1.0 + np.sqrt(2.0 * np.log(120) / 1))
    assert np.allclose(model.weights_, np.where(wrong, beta, 1.0))
    error = max(np.mean(model.heads_[0].predict(xt) != yt), 1e-3)
    assert model.votes_[0] == pytest.approx(np.log((1 - error) / error))


def test_two_classes_are_voted_on_as_published() -> None:
    """Dai et al. 2007, fig. 1: 1 where the product of beta_t^-h over the last half of the rounds is at least that of beta_t^-1/2."""
    xs, ys, xt, yt, _ = misled(seed=1)
    model = TrAdaBoost(DecisionTreeClassifier(max_depth=1), rounds=7).fit(xs, ys, xt, yt.tolist())
    said = np.stack([head.predict(xt) for head in model.heads_]).astype(float)
    assert np.array_equal(model.predict(xt), model.votes_ @ said > model.votes_.sum() / 2)


def test_tradaboost_for_numbers_takes_weight_from_wrong_source_cases() -> None:
    dice = np.random.default_rng(0)
    xs, xt, bad = dice.normal(size=(90, 2)), dice.normal(size=(40, 2)), np.arange(90) % 3 == 0
    ys, yt = np.where(bad, -3.0, 1.0) * xs[:, 0], xt[:, 0]
    model = TrAdaBoostR2().fit(xs, ys, xt, yt.tolist())
    assert np.median(model.weights_[bad]) < 0.5 * np.median(model.weights_[~bad])
    assert model.score(xt, yt) > 0.95


def test_the_median_of_rounds_is_weighted() -> None:
    model = TrAdaBoostR2().fit([[0.0], [1.0]], [0.0, 1.0])
    model.heads_ = [LinearRegression().fit([[0.0], [1.0]], [v, v]) for v in (1.0, 5.0, 9.0)]
    model.votes_ = np.array([1.0, 1.0, 3.0])
    assert model.predict([[0.3]]).tolist() == pytest.approx([9.0])


def test_augmented_features_have_twice_the_inner_product_within_a_domain() -> None:
    """Daumé 2007, sec. 3.2: the kernel within a domain is twice that between domains."""
    dice = np.random.default_rng(0)
    a, b = augmented(dice.normal(size=(4, 3)), target=False), augmented(dice.normal(size=(5, 3)), target=True)
    dice = np.random.default_rng(0)
    z, v = dice.normal(size=(4, 3)), dice.normal(size=(5, 3))
    assert np.allclose(a @ a.T, 2 * (z @ z.T + 1))
    assert np.allclose(b @ b.T, 2 * (v @ v.T + 1))
    assert np.allclose(a @ b.T, z @ v.T + 1)


def test_easyadapt_learns_what_is_the_target_s_own() -> None:
    """The second feature tells the classes the one way round in the source, the other in the target; few target labels."""
    dice = np.random.default_rng(0)
    xs, xt = dice.normal(size=(300, 2)), dice.normal(size=(300, 2))
    ys, yt = xs[:, 0] + 2 * xs[:, 1] > 0, xt[:, 0] - 2 * xt[:, 1] > 0
    few = [label if i < 30 else None for i, label in enumerate(yt.tolist())]
    pooled = LogisticRegression().fit(np.vstack([xs, xt[:30]]), np.concatenate([ys, yt[:30]]))
    assert EasyAdapt().fit(xs, ys, xt, few).score(xt[30:], yt[30:]) > pooled.score(xt[30:], yt[30:]) + 0.3


def test_labels_rest_where_the_dense_formula_puts_them() -> None:
    dice = np.random.default_rng(0)
    x, Y = dice.normal(size=(25, 2)), np.eye(2)[np.arange(25) % 2]
    W = neighbour_graph(x, 4)
    dense = W.toarray()
    assert np.array_equal(dense, dense.T)
    S = dense / np.sqrt(np.outer(dense.sum(axis=0), dense.sum(axis=0)))
    assert np.allclose(spread(W, Y, alpha=0.9), 0.1 * np.linalg.solve(np.eye(25) - 0.9 * S, Y))


def test_labels_follow_two_arcs_that_turn_away_from_the_source() -> None:
    """Two half circles, of which the source holds the beginning: a line through the source's cases fails, the path along the arcs does not."""
    dice = np.random.default_rng(0)
    angle = np.sort(dice.uniform(0, np.pi, 300))
    radius = np.where(np.arange(300) % 2, 1.0, 2.0) + 0.05 * dice.normal(size=300)
    x, y = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), np.arange(300) % 2
    source = angle < 0.5
    spreading = LabelPropagation(DecisionTreeClassifier(random_state=0)).fit(x[source], y[source], x[~source])
    plain = LogisticRegression().fit(x[source], y[source])
    assert np.mean(spreading.pseudo_labels_ == y[~source]) > 0.98
    assert plain.score(x[~source], y[~source]) < 0.7


@pytest.mark.parametrize("kind", ["apart", "some twice", "two tight clusters", "far from the origin", "one feature"])
def test_the_median_distance_is_that_of_pairs_measured_one_by_one(kind: str) -> None:
    """Distances by one product of the cases: equal cases are 0 apart, and near ones as far as they are, however large the features."""
    X = np.random.default_rng(0).normal(size=(60, 7))
    if kind == "some twice":
        X[:20], X[20:22] = X[40:], X[22:24] + 1e-9
    elif kind == "two tight clusters":
        X = 1e-7 * X + np.arange(60)[:, None] % 2
    elif kind == "far from the origin":
        X += 1e8
    elif kind == "one feature":
        X = X[:, :1]
    apart = pdist(X, "sqeuclidean")
    assert median_gamma(X) == pytest.approx(1.0 / (2.0 * np.median(apart[apart > 0])), rel=1e-11)


@pytest.mark.parametrize(("shift", "d"), [(0.3, 2), (1.0, 5), (0.2, 40)])
def test_the_width_of_kliep_is_the_likeliest_of_all_five(shift: float, d: int) -> None:
    """Widths that cannot win are given up half-way; what is found is the same as with every fold of every width."""
    dice = np.random.default_rng(d)
    xs, xt = dice.normal(size=(60, d)), shift + dice.normal(size=(47, d))
    dice = np.random.default_rng(3)
    centres = xt[np.sort(dice.permutation(47)[:20])]
    fold = dice.permutation(47) % 5
    scores = {}
    for width in WIDTHS:
        gamma = median_gamma(np.vstack([xs, xt])) / width**2
        T, s = rbf_kernel(xt, centres, gamma=gamma), rbf_kernel(xs, centres, gamma=gamma).mean(axis=0)
        held_out = [np.log(np.maximum(T[fold == k] @ importance(T[fold != k], s), np.finfo(float).tiny)).mean() for k in range(5)]
        scores[gamma] = np.mean(held_out)
    assert kliep(xs, xt, gamma=None, n_centres=20, seed=3)[1] == pytest.approx(max(scores, key=lambda gamma: scores[gamma]), rel=1e-12)
