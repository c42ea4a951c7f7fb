"""Methods that move features, against closed forms, SciPy's eigenproblems written out, numerical integrals, and POT."""

from __future__ import annotations

import numpy as np
import ot
import pytest
from scipy.integrate import quad_vec
from scipy.linalg import eigh, null_space, sqrtm
from sklearn.metrics.pairwise import rbf_kernel

from headstart.core import InputError
from headstart.methods.relations import BDA, GFK, JDA, JPDA, OT, TCA, ClassOT, EntropicOT, LinearOT, ScaledByDomain, ScaledByDomainRegressor, SubspaceAlignment
from headstart.methods.relations.components import median_gamma
from headstart.methods.relations.gaussian import coral, monge
from headstart.methods.relations.subspace import geodesic_factor, principal_directions
from headstart.methods.relations.transport import class_plan, costs, entropic_plan, exact_plan
from headstart.methods.relations.whitening import Whitened, leading, marginal, of_unit_norm


def two(n: int, m: int, d: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    return dice.normal(size=(n, d)) @ dice.normal(size=(d, d)) + 3.0, dice.normal(size=(m, d)) @ dice.normal(size=(d, d)) - 1.0


@pytest.mark.parametrize("scale", [True, False])
def test_coral_gives_the_source_the_target_s_mean_and_covariance(scale: bool) -> None:
    xs, xt = two(50, 30, 4)
    moved = coral(xs, xt, reg=0.0, scale=scale)(xs)
    assert np.allclose(moved.mean(axis=0), xt.mean(axis=0), atol=1e-10)
    assert np.allclose(np.cov(moved, rowvar=False), np.cov(xt, rowvar=False), atol=1e-10)


@pytest.mark.parametrize(("n", "m", "d"), [(50, 30, 4), (6, 9, 20), (30, 6, 12)])
def test_coral_is_its_formula_with_scipy_s_matrix_roots(n: int, m: int, d: int) -> None:
    xs, xt = two(n, m, d)
    Cs, Ct = (np.cov(x, rowvar=False) + 0.7 * np.eye(d) for x in (xs, xt))
    A = np.linalg.inv(sqrtm(Cs)) @ sqrtm(Ct)
    expected = (xs - xs.mean(axis=0)) @ A.real + xt.mean(axis=0)
    assert np.allclose(coral(xs, xt, reg=0.7, scale=False)(xs), expected, atol=1e-8)


def test_coral_with_standardising_is_the_paper_s_on_z_scores() -> None:
    xs, xt = two(40, 30, 3)
    z = [(x - x.mean(axis=0)) / x.std(axis=0, ddof=1) for x in (xs, xt)]
    Cs, Ct = (np.cov(x, rowvar=False) + np.eye(3) for x in z)
    paper = z[0] @ np.linalg.inv(sqrtm(Cs)).real @ sqrtm(Ct).real
    assert np.allclose((coral(xs, xt)(xs) - xt.mean(axis=0)) / xt.std(axis=0, ddof=1), paper, atol=1e-8)


def test_coral_of_a_domain_with_itself_moves_nothing() -> None:
    xs, _ = two(40, 30, 3)
    assert np.allclose(coral(xs, xs)(xs), xs, atol=1e-10)


def test_scaling_by_domain_gives_both_domains_means_of_0_and_deviations_of_1() -> None:
    xs, xt = two(50, 30, 4)
    xt[:, 3] = 7.0  # does not move there, and is 0 then
    model = ScaledByDomain().fit(xs, np.arange(50) % 2, xt)
    seen, moved = model.adapt_target(xt), model.adapt_source(xs)
    assert np.allclose(moved, (xs - xs.mean(axis=0)) / xs.std(axis=0), atol=1e-12)
    assert np.allclose(seen[:, :3], (xt - xt.mean(axis=0))[:, :3] / xt.std(axis=0)[:3], atol=1e-12)
    assert not seen[:, 3].any()


def test_a_domain_in_other_units_is_predicted_as_in_the_source_s() -> None:
    """The planted world of scaling by domain: each feature has a factor and a shift of its own, some turn nothing but their unit."""
    dice = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = dice.normal(size=(60, 4)) + 3.0 * np.eye(3, 4)[y]
    other = x * [100.0, 0.01, 3.0, 1.0] + [5.0, -40.0, 0.0, 1e3]
    assert np.array_equal(ScaledByDomain().fit(x, y, other).predict(other), ScaledByDomain().fit(x, y, x).predict(x))
    assert np.mean(ScaledByDomain().fit(x, y, other).predict(other) == y) > 0.9
    assert np.mean(ScaledByDomain().fit(x, y).predict(other) == y) < 0.5
    numbers = ScaledByDomainRegressor().fit(x, x @ np.arange(4.0), other)
    assert numbers.score(other, x @ np.arange(4.0)) > 0.99


@pytest.mark.parametrize("n", [60, 25])
def test_the_linear_transport_is_that_of_pot(n: int) -> None:
    xs, xt = two(n, 40, 5)
    Cs, Ct = (np.cov(x, rowvar=False, bias=True) for x in (xs, xt))
    Cs, Ct = (C + 1e-6 * np.trace(C) / 5 * np.eye(5) for C in (Cs, Ct))
    A, b = ot.gaussian.bures_wasserstein_mapping(xs.mean(axis=0), xt.mean(axis=0), Cs, Ct)
    ours = monge(xs, xt)
    assert np.allclose(ours.matrix, A, atol=1e-6)
    assert np.allclose(ours.shift, b.ravel(), atol=1e-6)


def test_the_linear_transport_matches_moments_at_the_closed_form_s_cost() -> None:
    """What it costs is the Wasserstein distance of the two Gaussians: |m_s - m_t|^2 + tr(S + T - 2 (S^1/2 T S^1/2)^1/2)."""
    xs, xt = two(200, 150, 3)
    found = monge(xs, xt, reg=0.0)
    moved = xs @ found.matrix + found.shift
    assert np.allclose(found(xs), moved, atol=1e-10)
    S, T = (np.cov(x, rowvar=False, bias=True) for x in (xs, xt))
    assert np.allclose(np.cov(moved, rowvar=False, bias=True), T, atol=1e-9)
    half = sqrtm(S).real
    bures = np.sum((xs.mean(axis=0) - xt.mean(axis=0)) ** 2) + np.trace(S + T - 2.0 * sqrtm(half @ T @ half).real)
    assert np.mean(np.sum((moved - xs) ** 2, axis=1)) == pytest.approx(bures, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(6, 9, 30), (6, 9, 12), (9, 6, 8), (40, 6, 12), (6, 40, 50)])
def test_the_linear_transport_of_few_cases_is_its_formula(n: int, m: int, d: int) -> None:
    """In the span of the cases, or with the source's directions alone: the same as with matrix roots of the whole covariances, on other cases too."""
    xs, xt = two(n, m, d)
    Cs, Ct = (np.cov(x, rowvar=False, bias=True) for x in (xs, xt))
    Cs, Ct = (C + 1e-2 * np.trace(C) / d * np.eye(d) for C in (Cs, Ct))
    half = sqrtm(Cs).real
    A = np.linalg.inv(half) @ sqrtm(half @ Ct @ half).real @ np.linalg.inv(half)
    found, other = monge(xs, xt, reg=1e-2), two(5, 5, d, seed=3)[0]
    expected = (other - xs.mean(axis=0)) @ A + xt.mean(axis=0)
    assert np.allclose(found(other), expected, atol=1e-7)
    assert np.allclose(other @ found.matrix + found.shift, expected, atol=1e-7)


def test_a_target_within_the_source_s_span_is_transported() -> None:
    xs, _ = two(6, 9, 40)
    moved = monge(xs, xs[:4] + 1.0, reg=1e-3)(xs)
    assert np.isfinite(moved).all()
    assert np.allclose(monge(xs, xs, reg=1e-3)(xs), xs, atol=1e-9)


def test_fewer_cases_than_features_can_be_transported() -> None:
    xs, xt = two(6, 7, 12)
    model = LinearOT().fit(xs, [0, 1] * 3, xt)
    assert np.isfinite(model.adapt_source(xs)).all()


def test_subspace_alignment_is_its_formula() -> None:
    xs, xt = two(30, 20, 6)
    Ps, Pt = (np.linalg.svd(x - x.mean(axis=0))[2][:3].T for x in (xs, xt))
    model = SubspaceAlignment(n_components=3).fit(xs, np.arange(30) % 2, xt)
    ours = model.adapt_source(xs) @ model.adapt_target(xt).T
    assert np.allclose(ours, (xs - xs.mean(axis=0)) @ Ps @ Ps.T @ Pt @ Pt.T @ (xt - xt.mean(axis=0)).T, atol=1e-9)


@pytest.mark.parametrize(("d", "k"), [(7, 2), (10, 5), (6, 4), (3, 3)])
def test_the_geodesic_flow_kernel_is_the_integral_along_its_geodesic(d: int, k: int) -> None:
    """Phi(t) as Gong et al. write it, with a basis of the source's orthogonal complement, integrated by quadrature."""
    dice = np.random.default_rng(d)
    Ps, Pt = (np.linalg.qr(dice.normal(size=(d, k)))[0] for _ in range(2))
    Rs = null_space(Ps.T)
    U1, gamma, Vt = np.linalg.svd(Ps.T @ Pt)
    theta = np.arccos(np.clip(gamma, -1.0, 1.0))
    across = Rs.T @ Pt @ Vt.T  # - U2 Sigma
    U2 = np.divide(-across, np.sin(theta), out=np.zeros_like(across), where=np.sin(theta) > 1e-7)

    def flow(t: float) -> np.ndarray:
        phi = Ps @ U1 * np.cos(t * theta) - Rs @ U2 * np.sin(t * theta)
        return phi @ phi.T

    F = geodesic_factor(Ps, Pt)
    assert np.allclose(F @ F.T, quad_vec(flow, 0.0, 1.0)[0], atol=1e-9)
    assert np.allclose(flow(1.0), Pt @ Pt.T, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(30, 6), (9, 40)])
@pytest.mark.parametrize("faint", [1.0, 1e-9])
def test_principal_directions_are_those_of_the_singular_value_decomposition(n: int, d: int, faint: float) -> None:
    """By a product where that loses nothing, by the decomposition itself where a wanted direction hardly varies; and no more than the rank."""
    x = two(n, 5, d)[0]
    x[:, 3:] *= faint
    V = np.linalg.svd(x - x.mean(axis=0))[2].T
    ours = principal_directions(x, 5)
    assert np.allclose(np.abs(np.sum(ours * V[:, :5], axis=0)), 1.0, atol=1e-10)
    assert np.allclose(ours.T @ ours, np.eye(5), atol=1e-9)
    flat = x[:, :2] @ V[:2]
    assert principal_directions(flat, 5).shape == (d, 2)


def test_the_flow_of_a_subspace_to_itself_is_its_projection() -> None:
    P = principal_directions(two(30, 20, 6)[0], 2)
    F = geodesic_factor(P, P)
    assert np.allclose(F @ F.T, P @ P.T, atol=1e-12)


def test_distances_after_gfk_are_those_under_its_kernel() -> None:
    xs, xt = two(30, 20, 6)
    model = GFK(n_components=2).fit(xs, np.arange(30) % 2, xt)
    F = geodesic_factor(principal_directions(xs, 2), principal_directions(xt, 2))
    gap = xs[3] - xt[4]
    moved = model.adapt_source(xs)[3] - model.adapt_target(xt)[4]
    assert moved @ moved == pytest.approx(gap @ F @ F.T @ gap)


def solves(A: np.ndarray, X: np.ndarray, M: np.ndarray, ridge: float, *, within: float = 1e-7) -> None:
    """Check that the columns of A are the leading solutions of X'HX a = mu (X'MX + lambda I) a, and of unit length."""
    n, d = X.shape
    S, B = X.T @ (np.eye(n) - 1.0 / n) @ X, X.T @ M @ X + ridge * np.mean(np.sum(X**2, axis=1)) * np.eye(d)
    mu = np.array([(a @ S @ a) / (a @ B @ a) for a in A.T])
    scale = np.abs(S).max()
    assert np.allclose(S @ A, B @ A * mu, atol=within * scale)
    assert np.allclose(mu, eigh(S, B, eigvals_only=True)[::-1][: A.shape[1]], rtol=1e-6)
    assert np.allclose(np.linalg.norm(A, axis=0), 1.0)


def marginal_matrix(n: int, m: int) -> np.ndarray:
    """L of Pan et al.: 1/n^2, 1/m^2, -1/nm."""
    e = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    return np.outer(e, e)


def class_matrix(ys: np.ndarray, pseudo: np.ndarray, c: int) -> np.ndarray:
    e = np.concatenate([(ys == c) / np.sum(ys == c), -1.0 * (pseudo == c) / np.sum(pseudo == c)])
    return np.outer(e, e)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_tca_solves_its_eigenproblem(kernel: str) -> None:
    xs, xt = two(30, 20, 5)
    X = np.vstack([xs, xt])
    model = TCA(n_components=3, ridge=0.2, kernel=kernel).fit(xs, np.arange(30) % 2, xt)
    lifted = X if kernel == "linear" else rbf_kernel(X, gamma=median_gamma(X))
    L = marginal_matrix(30, 20)
    solves(model.components_, lifted, L / np.linalg.norm(L), 0.2)
    assert np.allclose(model.adapt_target(xt), lifted[30:] @ model.components_)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 20, 6), (9, 6, 40)])
@pytest.mark.parametrize("pulls", [1, 3])
def test_one_decomposition_gives_the_components_that_two_give(n: int, m: int, d: int, pulls: int) -> None:
    X = np.vstack(two(n, m, d))
    more = np.random.default_rng(1).normal(size=(n + m, pulls - 1))
    pull = of_unit_norm(np.hstack([marginal(n, m)[:, None], more - more.mean(axis=0)]))
    ours, theirs = leading(X, pull, ridge=0.1, k=4), Whitened.of(X).directions(pull, ridge=0.1, k=4)
    assert np.allclose(ours, theirs, atol=1e-8)
    assert leading(X, pull, ridge=0.1, k=None).shape == Whitened.of(X).directions(pull, ridge=0.1, k=None).shape


def test_components_of_equal_cases_are_refused() -> None:
    with pytest.raises(InputError, match="no direction to keep"):
        leading(np.ones((4, 3)), marginal(2, 2)[:, None], ridge=0.1, k=None)


def last_matrix(model: object, ys: np.ndarray, pseudo: np.ndarray) -> np.ndarray:
    """M of the papers as an (n + m, n + m) matrix, from its definition."""
    n, m, classes = len(ys), len(pseudo), np.unique(ys)
    if isinstance(model, JPDA):
        S, T = (np.stack([(y == c) / len(y) for c in classes], axis=1) for y in (ys, pseudo))
        low = np.vstack([S, -T]) @ np.vstack([S, -T]).T
        pairs = [np.concatenate([S[:, i], -T[:, j]]) for i in range(len(classes)) for j in range(len(classes)) if i != j]
        high = sum(np.outer(e, e) for e in pairs)
        return low / np.linalg.norm(low) - model.apart * high / np.linalg.norm(high)
    if isinstance(model, BDA):
        M = (1 - model.balance) * marginal_matrix(n, m)
        for c in classes:
            share = np.concatenate([np.full(n, np.mean(ys == c)), np.full(m, np.mean(pseudo == c))]) if model.weighted else np.ones(n + m)
            M = M + model.balance * class_matrix(ys, pseudo, c) * np.sqrt(np.outer(share, share))
    else:
        M = len(classes) * marginal_matrix(n, m) + sum(class_matrix(ys, pseudo, c) for c in classes)
    return M / np.linalg.norm(M)


@pytest.mark.parametrize("model", [JDA(), BDA(balance=0.3), BDA(weighted=True), JPDA(), JDA(kernel="rbf")], ids=["jda", "bda", "w-bda", "jpda", "jda-rbf"])
def test_components_from_pseudo_labels_solve_their_eigenproblem(model: JDA) -> None:
    dice = np.random.default_rng(0)
    ys, yt = np.arange(33) % 3, np.arange(20) % 3
    middle = 4.0 * dice.normal(size=(3, 6))
    xs, xt = dice.normal(size=(33, 6)) + middle[ys], dice.normal(size=(20, 6)) + middle[yt] + 0.3
    model.set_params(n_components=3).fit(xs, ys, xt)
    assert model.steps_ < 10  # so that the last pseudo-labels are those that the last components were made of
    X = np.vstack([xs, xt])
    lifted = X if model.kernel == "linear" else rbf_kernel(X, gamma=median_gamma(X))
    if isinstance(model, JPDA):
        M, A = last_matrix(model, ys, model.pseudo_labels_), model.components_
        cost, S = lifted.T @ M @ lifted + 0.1 * np.mean(np.sum(X**2, axis=1)) * np.eye(6), lifted.T @ (np.eye(53) - 1 / 53) @ lifted
        ratio = np.array([(a @ cost @ a) / (a @ S @ a) for a in A.T])
        assert np.allclose(cost @ A, S @ A * ratio, atol=1e-7 * np.abs(cost).max())
        assert np.allclose(ratio, eigh(cost, S, eigvals_only=True)[:3], rtol=1e-6)
    else:
        # why less exactly: of kernel values, directions with less than a 1e-5th of the largest deviation are left out as rounding
        solves(model.components_, lifted, last_matrix(model, ys, model.pseudo_labels_), 0.1, within=1e-7 if model.kernel == "linear" else 1e-4)
    assert np.mean(model.pseudo_labels_ == yt) > 0.9


def test_labelled_target_cases_keep_their_label_among_the_pseudo_labels() -> None:
    xs, xt = two(30, 20, 5)
    wrong = [1] * 3 + [None] * 17
    assert JDA().fit(xs, np.arange(30) % 2, xt, wrong).pseudo_labels_[:3].tolist() == [1, 1, 1]


def test_units_of_all_features_together_change_no_components() -> None:
    xs, xt = two(30, 20, 5)
    one, other = (TCA(n_components=3).fit(f * xs, np.arange(30) % 2, f * xt).components_ for f in (1.0, 1e-3))
    assert np.allclose(one, other, atol=1e-8)


def test_exact_transport_in_one_dimension_pairs_ranks() -> None:
    dice = np.random.default_rng(0)
    xs, xt = dice.normal(size=(9, 1)), 5.0 + 3.0 * dice.normal(size=(9, 1))
    moved = OT().fit(xs, np.arange(9) % 2, xt).adapt_source(xs)
    assert np.allclose(moved[xs.ravel().argsort()].ravel(), np.sort(xt.ravel()))


def test_plans_are_those_of_pot_on_plain_costs() -> None:
    xs, xt = two(25, 18, 3)
    plain = ot.dist(xs, xt)
    unit = ot.dist(xs - xs.mean(axis=0), xt - xt.mean(axis=0)).mean()
    a, b, codes = ot.unif(25), ot.unif(18), np.arange(25) % 2
    M = costs(xs, xt)
    assert np.sum(exact_plan(M) * plain) == pytest.approx(ot.emd2(a, b, plain), rel=1e-9)
    assert np.allclose(entropic_plan(M, reg=0.1), ot.sinkhorn(a, b, plain, 0.1 * unit, method="sinkhorn_log", stopThr=1e-12, numItermax=20000), atol=1e-6)
    theirs = ot.da.sinkhorn_lpl1_mm(a, codes, b, M, 0.5, eta=0.2, numItermax=10, numInnerItermax=1000)
    assert np.allclose(class_plan(M, codes, reg=0.5, eta=0.2), theirs, atol=1e-6)


def test_small_entropy_goes_over_to_logarithms_and_nears_the_exact_plan() -> None:
    xs, xt = two(12, 12, 2)
    M = costs(xs, xt)
    assert np.sum(entropic_plan(M, reg=0.002) * M) == pytest.approx(np.sum(exact_plan(M) * M), rel=0.02)


def test_moving_a_domain_moves_the_plan_not() -> None:
    xs, xt = two(15, 12, 3)
    assert np.allclose(costs(xs, xt), costs(xs + 100.0, xt - 7.0), atol=1e-9)


@pytest.mark.parametrize("method", [OT, EntropicOT, ClassOT])
def test_no_mass_goes_to_a_labelled_target_case_of_another_class(method: type) -> None:
    xs, xt = two(20, 10, 3)
    ys = np.arange(20) % 2
    free, bound = method().fit(xs, ys, xt).plan_, method().fit(xs, ys, xt, [0] * 3 + [None] * 7).plan_
    assert free[ys == 1][:, :3].sum() > 0.01
    assert bound[ys == 1][:, :3].sum() < 1e-9
    assert np.allclose(bound.sum(axis=0), 0.1, atol=1e-6)


def test_new_source_cases_move_with_their_nearest_neighbour() -> None:
    xs, xt = two(10, 10, 2)
    model = OT().fit(xs, np.arange(10) % 2, xt)
    assert np.allclose(model.adapt_source(xs[3:4] + 1e-6), model.moved_[3] + 1e-6)


def test_too_many_pairs_are_refused_before_memory_runs_out() -> None:
    with pytest.raises(InputError, match=r"^20000 source and 6000 target cases make 120,000,000 pairs; 100,000,000 fit\."):
        costs(np.zeros((20000, 1)), np.zeros((6000, 1)))


@pytest.mark.parametrize("method", [TCA, JDA, OT, GFK, SubspaceAlignment])
def test_domains_that_do_not_vary_are_refused(method: type) -> None:
    with pytest.raises(InputError, match=r"^All cases of .* are equal"):
        method().fit(np.ones((4, 3)), [0, 1, 0, 1], np.ones((5, 3)))
