"""Distances against closed forms, SciPy, scikit-learn and POT; their laws; and their gradients."""

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
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor

from headstart.distance import (
    cka,
    coral,
    directions,
    energy_distance,
    frechet,
    gaussian_kernel,
    median_bandwidth,
    mmd2,
    sliced_wasserstein,
    squared_distances,
    wasserstein_1d,
)

Distance = Callable[[Tensor, Tensor], Tensor]

BETWEEN: dict[str, Distance] = {  # two samples, 0 where they coincide
    "mmd2": lambda a, b: mmd2(a, b, bandwidth=3.0),
    "mmd2 of two bandwidths": lambda a, b: mmd2(a, b, bandwidth=torch.tensor([1.0, 3.0])),
    "coral": coral,
    "sliced_wasserstein": lambda a, b: sliced_wasserstein(a, b, seed=0),
    "sliced_wasserstein of order 1": lambda a, b: sliced_wasserstein(a, b, seed=0, p=1),
    "energy_distance": energy_distance,
    "frechet": frechet,
}
ROTATION = ("mmd2", "coral", "energy_distance", "frechet")  # sliced distances keep their few directions
EVERY = pytest.mark.parametrize("name", BETWEEN)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices here are tiny; where other programs run beside, a second thread makes them eighty times as slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def samples(n: int, m: int, d: int, *, seed: int = 0, shift: float = 0.5) -> tuple[Tensor, Tensor]:
    dice = np.random.default_rng(seed)
    return torch.from_numpy(dice.standard_normal((n, d))), torch.from_numpy(shift + 1.5 * dice.standard_normal((m, d)))


def close(a: Tensor, b: object, *, rel: float = 1e-10, abs: float = 1e-12) -> bool:
    return a.item() == pytest.approx(float(b), rel=rel, abs=abs)  # type: ignore[arg-type]


def test_squared_distances_are_scipys_also_far_from_the_origin():
    a, b = samples(20, 30, 7)
    assert np.allclose(squared_distances(a, b), cdist(a, b, "sqeuclidean"), rtol=1e-12)
    assert np.allclose(squared_distances(a + 1e6, b + 1e6), cdist(a, b, "sqeuclidean"), rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_lie_at_distance_zero_exactly(dtype: torch.dtype):
    a = samples(40, 1, 300)[0].to(dtype)
    assert torch.equal(squared_distances(a, a + 0.0).diagonal(), torch.zeros(40, dtype=dtype))


def test_mmd_agrees_with_scikit_learns_kernel_biased_and_unbiased():
    a, b = samples(12, 17, 5)
    kaa, kbb, kab = (rbf_kernel(u, v, gamma=1.0 / (2.0 * 1.7**2)) for u, v in ((a, a), (b, b), (a, b)))
    assert close(mmd2(a, b, bandwidth=1.7), kaa.mean() + kbb.mean() - 2.0 * kab.mean())
    within = sum((k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in (kaa, kbb))
    assert close(mmd2(a, b, bandwidth=1.7, unbiased=True), within - 2.0 * kab.mean())


def test_mmd_of_two_normals_is_its_closed_form():
    """E k(x, y) for x - y ~ N(mu, v) is s / sqrt(s^2 + v) exp(-mu^2 / (2 (s^2 + v))); here v = 2, mu = 1 and s = 1."""
    a = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    grid = torch.from_numpy(a)[:, None]
    same, across = 1.0 / math.sqrt(3.0), math.exp(-1.0 / 6.0) / math.sqrt(3.0)
    assert close(mmd2(grid, grid + 1.0, bandwidth=1.0), 2.0 * same - 2.0 * across, rel=3e-3)


def test_unbiased_mmd_of_one_distribution_is_zero_on_average_and_biased_is_not():
    dice = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 10, 3, generator=dice, dtype=torch.float64) for _ in range(1000)]
    unbiased = np.array([mmd2(a, b, bandwidth=2.0, unbiased=True).item() for a, b in draws])
    assert abs(unbiased.mean()) < 3.0 * unbiased.std() / math.sqrt(1000)
    assert np.mean([mmd2(a, b, bandwidth=2.0).item() for a, b in draws[:100]]) > 0.05


def test_a_tensor_of_bandwidths_gives_the_mean_of_their_kernels():
    squared = torch.tensor([[0.0, 1.0, 9.0]])
    mean = (gaussian_kernel(squared, bandwidth=1.0) + gaussian_kernel(squared, bandwidth=4.0)) / 2.0
    assert torch.allclose(gaussian_kernel(squared, bandwidth=torch.tensor([1.0, 4.0])), mean)


def test_median_bandwidth_is_the_median_of_scipys_pairwise_distances():
    a, b = samples(7, 8, 3)  # 105 pairs: one middle
    assert close(median_bandwidth(a, b), np.median(pdist(np.vstack([a, b]))))


def test_median_bandwidth_leaves_out_pairs_of_equal_cases():
    a = torch.tensor([[0.0], [0.0], [0.0], [0.0], [5.0]])
    assert median_bandwidth(a, a).item() == 5.0
    with pytest.raises(ValueError, match="All cases are equal"):
        median_bandwidth(a[:2], a[:3])


def test_coral_agrees_with_numpys_covariances():
    a, b = samples(12, 17, 5)
    assert close(coral(a, b), np.square(np.cov(a.T) - np.cov(b.T)).sum() / (4 * 25))


@pytest.mark.parametrize(("n", "m"), [(12, 12), (12, 17), (1, 9), (30, 20)])
def test_in_one_dimension_distances_are_scipys(n: int, m: int):
    a, b = samples(n, m, 1)
    u, v = a[:, 0].numpy(), b[:, 0].numpy()
    assert close(sliced_wasserstein(a, b, seed=0, p=1), stats.wasserstein_distance(u, v))
    assert close(energy_distance(a, b), stats.energy_distance(u, v) ** 2, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 45), (7, 20)])
def test_wasserstein_of_order_two_is_the_optimal_plans_of_pot(n: int, m: int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # POT warns of back ends that are not installed
        import ot

    a, b = samples(n, m, 6)
    assert close(wasserstein_1d(a, b)[2], ot.emd2_1d(a[:, 2].numpy(), b[:, 2].numpy()), rel=1e-9)
    along = directions(a, projections=50, seed=3)
    theirs = ot.sliced_wasserstein_distance(a.numpy(), b.numpy(), projections=along.numpy(), p=2)
    assert close(sliced_wasserstein(a, b, seed=3, projections=50), theirs, rel=1e-9)


def test_a_shift_moves_every_slice_by_its_part_along_it():
    a = samples(20, 1, 4)[0]
    v = torch.tensor([1.0, 2.0, 0.0, -2.0], dtype=torch.float64)
    along = directions(a, projections=2000, seed=1)
    assert torch.allclose(along.norm(dim=0), torch.ones(2000, dtype=torch.float64))
    assert close(sliced_wasserstein(a, a + v, seed=1, projections=2000), (v @ along).square().mean().sqrt())
    assert close(sliced_wasserstein(a, a + v, seed=1, projections=2000), v.norm() / 2.0, rel=0.05)  # |v| / sqrt(d)


def test_energy_distance_agrees_with_scipys_pairwise_distances():
    a, b = samples(9, 14, 5)
    assert close(energy_distance(a, b), 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean(), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 60, 5), (60, 40, 30)])
def test_frechet_agrees_with_the_root_of_scipy(n: int, m: int, d: int):
    a, b = samples(n, m, d)
    ca, cb = np.cov(a.T), np.cov(b.T)
    theirs = np.square((a.mean(0) - b.mean(0)).numpy()).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert close(frechet(a, b), theirs, rel=1e-9)


def test_frechet_of_commuting_covariances_is_the_distance_of_their_roots():
    a = samples(50, 1, 3)[0]
    factor = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    a = (a - a.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(a.T)).T)  # covariance I
    assert close(frechet(a, factor * a + 2.0), ((factor - 1.0).square() + 4.0).sum())


def test_frechet_of_one_distribution_is_the_documented_error_of_covariances():
    a, b = (torch.randn(1000, 50, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    assert close(frechet(a, b), 50 * 50 * 0.002 / 4 + 50 * 0.002, rel=0.15)


@EVERY
@pytest.mark.parametrize(("n", "d"), [(12, 4), (6, 20)])
def test_distances_are_zero_between_equal_samples_and_positive_elsewhere(name: str, n: int, d: int):
    a, b = samples(n, n + 3, d)
    assert abs(BETWEEN[name](a, a.clone()).item()) < 1e-12
    assert BETWEEN[name](a, b).item() > 1e-3


@EVERY
def test_distances_do_not_know_which_sample_comes_first_nor_the_order_of_rows(name: str):
    a, b = samples(11, 16, 4)
    d = BETWEEN[name](a, b)
    assert close(BETWEEN[name](b, a), d)
    assert close(BETWEEN[name](a[torch.randperm(11)], b[torch.randperm(16)]), d)


@EVERY
def test_distances_ignore_a_common_shift_and_grow_with_a_planted_one(name: str):
    a, b = samples(40, 50, 3, shift=0.0)
    assert close(BETWEEN[name](a + 100.0, b + 100.0), BETWEEN[name](a, b), rel=1e-8)
    if name != "coral":  # which knows no means
        grown = [BETWEEN[name](a, b + shift).item() for shift in (0.5, 1.0, 2.0)]
        assert grown == sorted(grown)


@pytest.mark.parametrize("name", ROTATION)
def test_distances_ignore_a_rotation(name: str):
    a, b = samples(11, 16, 5)
    q = torch.linalg.qr(torch.from_numpy(np.random.default_rng(1).standard_normal((5, 5)))).Q
    assert close(BETWEEN[name](a @ q, b @ q), BETWEEN[name](a, b), rel=1e-9)


@pytest.mark.parametrize(("name", "power"), [("coral", 4), ("sliced_wasserstein", 1), ("energy_distance", 1), ("frechet", 2)])
def test_distances_have_the_unit_that_they_state(name: str, power: int):
    a, b = samples(11, 16, 5)
    assert close(BETWEEN[name](3.0 * a, 3.0 * b), 3.0**power * BETWEEN[name](a, b))


@EVERY
@pytest.mark.parametrize("d", [3, 12])
def test_gradients_are_those_of_finite_differences(name: str, d: int):
    a, b = samples(7, 9, d)
    assert torch.autograd.gradcheck(BETWEEN[name], (a.requires_grad_(), b.requires_grad_()))


@EVERY
def test_gradients_are_finite_where_the_samples_coincide(name: str):
    a = samples(8, 1, 4)[0].requires_grad_()
    BETWEEN[name](a, a.detach().clone()).backward()
    assert torch.isfinite(a.grad).all()


@EVERY
def test_dtype_and_device_follow_the_input(name: str):
    a, b = (t.float() for t in samples(7, 9, 4))
    assert BETWEEN[name](a, b).dtype == torch.float32
    assert close(BETWEEN[name](a, b), BETWEEN[name](a.double(), b.double()), rel=1e-4)
    if torch.cuda.is_available():
        there = BETWEEN[name](a.cuda(), b.cuda())
        assert there.is_cuda
        assert close(there, BETWEEN[name](a, b), rel=1e-4)


@pytest.mark.parametrize(("n", "d", "e"), [(30, 5, 8), (10, 40, 20)])
def test_cka_is_the_alignment_of_centred_kernels(n: int, d: int, e: int):
    x, z = samples(n, 1, d)[0], samples(n, 1, e, seed=1)[0]
    h = np.eye(n) - 1.0 / n
    k, m = (h @ (t @ t.T).numpy() @ h for t in (x, z))
    assert close(cka(x, z), (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum()))


@pytest.mark.parametrize(("n", "d", "e"), [(9, 3, 2), (8, 20, 30)])
def test_debiased_cka_is_the_mean_over_all_quadruples(n: int, d: int, e: int):
    """HSIC is E k l over pairs + E k E l over quadruples - 2 E k l over triples (Gretton et al. 2005); unbiased, indices all differ."""
    x, z = samples(n, 1, d)[0].numpy(), samples(n, 1, e, seed=1)[0].numpy()

    def hsic(u: np.ndarray, v: np.ndarray) -> float:
        k, m = u @ u.T, v @ v.T
        i, j, q, r = (t.ravel() for t in np.indices((n, n, n, n)))
        apart = np.array([len({*four}) == 4 for four in zip(i, j, q, r, strict=True)])
        i, j, q, r = i[apart], j[apart], q[apart], r[apart]
        return float(np.mean(k[i, j] * (m[i, j] + m[q, r] - 2.0 * m[i, q])))

    theirs = hsic(x, z) / math.sqrt(hsic(x, x) * hsic(z, z))
    assert close(cka(torch.from_numpy(x), torch.from_numpy(z), debiased=True), theirs, rel=1e-8)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("d", [4, 30])
def test_cka_is_one_for_the_same_view_rotated_scaled_and_shifted_and_ignores_the_order_of_cases(debiased: bool, d: int):
    x, z = samples(12, 1, d)[0], samples(12, 1, 6, seed=2)[0]
    q = torch.linalg.qr(samples(d, 1, d, seed=3)[0]).Q
    order = torch.randperm(12)
    assert close(cka(x, 3.0 * x @ q + 5.0, debiased=debiased), 1.0)
    assert close(cka(x[order], z[order], debiased=debiased), cka(x, z, debiased=debiased))


def test_views_that_know_nothing_of_each_other_look_alike_to_cka_unless_debiased():
    x, z = samples(50, 1, 1000)[0], samples(50, 1, 1000, seed=1)[0]
    assert cka(x, z).item() > 0.9
    assert abs(cka(x, z, debiased=True).item()) < 0.05


@pytest.mark.parametrize("debiased", [False, True])
def test_gradients_of_cka_are_those_of_finite_differences(debiased: bool):
    for d, e in ((3, 4), (12, 9)):
        x, z = samples(7, 1, d)[0].requires_grad_(), samples(7, 1, e, seed=1)[0].requires_grad_()
        assert torch.autograd.gradcheck(lambda u, v: cka(u, v, debiased=debiased), (x, z))


def test_a_constant_view_shares_nothing():
    x = samples(8, 1, 3)[0]
    assert cka(x, torch.ones(8, 2, dtype=torch.float64)).item() == 0.0
