"""Distances between two samples, and likeness of two views of one sample: pure, differentiable functions of (n, d) tensors.

Devices and dtypes follow the input. Distances between cases come from one matrix product, never from an (n, m, d) broadcast: at 256 + 256 cases of
d = 512 that is 150 times as fast.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def squared_distances(xs: Tensor, xt: Tensor) -> Tensor:
    """Return (n, m) squared Euclidean distances between the rows of xs (n, d) and xt (m, d).

    |a|^2 + |b|^2 - 2ab after centring; what rounding cannot tell from 0 is 0, so that equal rows lie at distance 0 exactly.

    >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[25.0, 0.0]]
    """
    # why detached: distances do not depend on the centre, so neither does a gradient
    centre = ((xs.sum(dim=0) + xt.sum(dim=0)) / (len(xs) + len(xt))).detach()
    a, b = xs - centre, xt - centre
    a2, b2 = a.square().sum(dim=1), b.square().sum(dim=1)
    squared = a2[:, None] + b2 - 2.0 * a @ b.T
    rounding = 8.0 * torch.finfo(squared.dtype).eps * (a2[:, None] + b2).detach()
    return squared.masked_fill(squared <= rounding, 0.0)


def median_bandwidth(xs: Tensor, xt: Tensor) -> Tensor:
    """Return the median distance between two cases of the pooled samples: the usual bandwidth of a Gaussian kernel (Gretton et al. 2012, sec. 8).

    Pairs of equal cases say nothing of a scale and are left out; of two middles the lower counts. A scalar without gradient. Costs (n + m)^2 d.

    Raises
    ------
    ValueError
        all cases are equal.

    >>> median_bandwidth(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]]))  # distances 1, 2 and 3
    tensor(2.)
    """
    with torch.no_grad():
        both = torch.cat([xs, xt])
        return median_root(squared_distances(both, both))


def median_root(squared: Tensor) -> Tensor:
    """Return the root of the median of the squared distances (n, n) above the diagonal that are not 0: see :func:`median_bandwidth`."""
    above = squared[torch.triu(torch.ones_like(squared, dtype=torch.bool), diagonal=1)]
    apart = above[above > 0]
    if len(apart) == 0:
        raise ValueError("All cases are equal, so no distance between two of them can serve as a bandwidth. Give samples that vary, or a bandwidth.")
    return apart.median().sqrt()


def gaussian_kernel(squared: Tensor, *, bandwidth: float | Tensor) -> Tensor:
    """Return exp(-squared / (2 bandwidth^2)), 0..1; for a tensor of several bandwidths the mean of their kernels.

    >>> gaussian_kernel(torch.tensor([[0.0, 2.0]]), bandwidth=1.0)  # 1 and exp(-1)
    tensor([[1.0000, 0.3679]])
    """
    widths = torch.as_tensor(bandwidth, dtype=squared.dtype, device=squared.device).reshape(-1)
    kernels = [torch.exp(squared / (-2.0 * width.square())) for width in widths]
    return sum(kernels[1:], start=kernels[0]) / len(kernels)


def mmd2(xs: Tensor, xt: Tensor, *, bandwidth: float | Tensor, unbiased: bool = False) -> Tensor:
    """Return the squared maximum mean discrepancy under a Gaussian kernel (Gretton et al. 2012, eq. 5; with ``unbiased`` eq. 3).

    Biased, 0..2: 0 where the samples coincide, about (1 - mean kernel)(1/n + 1/m) where only their distributions do. Unbiased, it is 0 on average
    there, and negative half of the time; it needs two cases of each.

    Parameters
    ----------
    xs, xt : (n, d) and (m, d)
    bandwidth : of the kernel exp(-|a - b|^2 / (2 bandwidth^2)), positive; see :func:`median_bandwidth`. Several in a tensor: the mean of their kernels

    >>> mmd2(torch.tensor([[0.0]]), torch.tensor([[1.0]]), bandwidth=1.0)  # 2 - 2 exp(-1/2)
    tensor(0.7869)
    """

    def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
        return gaussian_kernel(squared_distances(a, b), bandwidth=bandwidth).mean()

    within_s, within_t = mean_kernel(xs, xs), mean_kernel(xt, xt)
    if unbiased:  # k(a, a) = 1, n times
        n, m = len(xs), len(xt)
        within_s, within_t = (n * within_s - 1.0) / (n - 1), (m * within_t - 1.0) / (m - 1)
    return within_s + within_t - 2.0 * mean_kernel(xs, xt)


def coral(xs: Tensor, xt: Tensor) -> Tensor:
    """Return the CORAL loss |C_s - C_t|_F^2 / (4 d^2) between covariances (Sun & Saenko 2016, "Deep CORAL", eq. 1).

    Covariances divide by n - 1, so two cases of each are needed. In the fourth power of the features' unit. Means do not matter.

    >>> coral(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]]))  # variances 2 and 8: 36 / 4
    tensor(9.)
    """
    return (_covariance(xs) - _covariance(xt)).square().sum() / (4.0 * xs.shape[1] ** 2)


def wasserstein_1d(xs: Tensor, xt: Tensor, *, p: Literal[1, 2] = 2) -> Tensor:
    """Return (l,) the p-th power of the Wasserstein distance of order p in each column of xs (n, l) and xt (m, l); n and m may differ.

    The integral of |F_s^-1 - F_t^-1|^p, exactly: quantile functions are steps, and both are constant between neighbours among i/n and j/m.

    >>> wasserstein_1d(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0]]))  # both halves move by 1
    tensor([1.])
    """
    n, m = len(xs), len(xt)
    ends_s, ends_t = (torch.arange(1, k + 1, device=xs.device) * other for k, other in ((n, m), (m, n)))  # i/n and j/m in units of 1/(n m)
    ends = torch.cat([ends_s, ends_t]).unique()
    mass = torch.diff(ends, prepend=ends.new_zeros(1)).to(xs.dtype) / (n * m)
    moved = xs.sort(dim=0).values[torch.searchsorted(ends_s, ends)] - xt.sort(dim=0).values[torch.searchsorted(ends_t, ends)]
    cost: Tensor = mass @ moved.abs().pow(p)
    return cost


def sliced_wasserstein(xs: Tensor, xt: Tensor, *, seed: int, projections: int = 128, p: Literal[1, 2] = 2) -> Tensor:
    """Return the sliced Wasserstein distance of order p: (mean of W_p^p over random directions)^(1/p) (Bonneel et al. 2015, "Sliced and Radon").

    In the features' unit. A shift by a vector v gives about |v| / sqrt(d). By chance alone it is of the order of deviation * sqrt(1/n + 1/m).

    Parameters
    ----------
    xs, xt : (n, d) and (m, d); n and m may differ
    seed : decides the directions; equal seeds give equal directions on any device. A loss takes another in each step
    projections : the more, the nearer to the mean over all directions; its relative error falls as 1 / sqrt(projections)
    p : 1 or 2

    >>> sliced_wasserstein(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [4.0]]), seed=0)  # in one dimension all directions agree
    tensor(3.)
    """
    along = directions(xs, projections=projections, seed=seed)
    mean: Tensor = wasserstein_1d(xs @ along, xt @ along, p=p).mean()
    return mean if p == 1 else _root(mean)


def directions(x: Tensor, *, projections: int, seed: int) -> Tensor:
    """Return (d, projections) unit vectors, uniform over the sphere, of the device and dtype of x (n, d)."""
    drawn = torch.randn(x.shape[1], projections, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (drawn / drawn.square().sum(dim=0).sqrt()).to(x)


def energy_distance(xs: Tensor, xt: Tensor) -> Tensor:
    """Return the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Székely & Rizzo 2013), expectations over all pairs (V-statistics).

    In the features' unit, at least 0, and 0 where the samples coincide. ``scipy.stats.energy_distance`` is its root, in one dimension.

    >>> energy_distance(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    tensor(2.)
    """

    def mean_distance(a: Tensor, b: Tensor) -> Tensor:
        return _root(squared_distances(a, b)).mean()

    return 2.0 * mean_distance(xs, xt) - mean_distance(xs, xs) - mean_distance(xt, xt)


def frechet(xs: Tensor, xt: Tensor) -> Tensor:
    """Return the squared Fréchet distance of the Gaussians with the samples' means and covariances (Dowson & Landau 1982).

    |mu_s - mu_t|^2 + tr(C_s + C_t - 2 (C_s C_t)^(1/2)), covariances dividing by n - 1: "FID" where the features are Inception's. In the square of the
    features' unit, at least 0. The trace of the root is the sum of singular values of C_s^(1/2) C_t^(1/2), so nothing is squared and rooted again.

    Samples of one distribution lie apart by about trace * d (1/n + 1/m) / 4 beside the means: where n is not many times d, that is all it shows.

    >>> round(frechet(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [4.0]])).item(), 4)  # means 0 and 2; (sqrt(8) - sqrt(2))^2 = 2
    6.0
    """
    mean_s, mean_t = xs.mean(dim=0), xt.mean(dim=0)
    a, b = (xs - mean_s) / math.sqrt(len(xs) - 1), (xt - mean_t) / math.sqrt(len(xt) - 1)
    # why detached: with a fixed basis of the columns of a and b, the gradient of the sum of singular values of a b' is exact, of any rank
    basis_a, basis_b = torch.linalg.qr(a.detach()).Q, torch.linalg.qr(b.detach()).Q
    root: Tensor = torch.linalg.svdvals((basis_a.T @ a) @ (basis_b.T @ b).T).sum()
    return (mean_s - mean_t).square().sum() + a.square().sum() + b.square().sum() - 2.0 * root


def cka(x: Tensor, z: Tensor, *, debiased: bool = False) -> Tensor:
    """Return the linear centred kernel alignment of two views x (n, d) and z (n, e) of the same n cases (Kornblith et al. 2019).

    0..1, 1 where one is the other up to rotation, scale and shift; 0 where one is constant. Plain, it is biased upwards: views that know nothing of each
    other come out near 1 where n is less than d. ``debiased`` puts the unbiased estimator of HSIC (Song et al. 2012) into the same ratio:
    about 0 there, -1..1, and n of at least 4. Costs n d e, or n^2 (d + e) where n is less than both.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [3.0, 1.0], [0.0, 5.0]])
    >>> round(cka(x, 2.0 * x.flip(1) + 7.0).item(), 5)
    1.0
    """
    x, z = x - x.mean(dim=0), z - z.mean(dim=0)
    hsic = _unbiased_hsic if debiased else _shared
    cross, of_x, of_z = hsic(x, z), hsic(x, x), hsic(z, z)
    return cross / (_root(of_x) * _root(of_z)).clamp_min(torch.finfo(x.dtype).tiny)


def _shared(x: Tensor, z: Tensor) -> Tensor:
    """Return |x' z|_F^2, from the smaller of the two products that give it."""
    n = len(x)
    return ((x @ x.T) * (z @ z.T)).sum() if n < min(x.shape[1], z.shape[1]) else (x.T @ z).square().sum()


def _unbiased_hsic(x: Tensor, z: Tensor) -> Tensor:
    """Return n (n - 3) times the unbiased HSIC of centred x and z under linear kernels K and L.

    Song et al. ask for K without its diagonal k; centred rows of K sum to 0, so that those of the rest sum to -k, and no n x n matrix is needed.
    """
    n = len(x)
    k, m = x.square().sum(dim=1), z.square().sum(dim=1)
    return _shared(x, z) - k @ m + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2.0 / (n - 2) * (k @ m)


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    return centred.T @ centred / (len(x) - 1)


def _root(squared: Tensor) -> Tensor:
    """Return the root, whose gradient at 0 is 0 in place of infinity."""
    zero = squared <= 0
    return squared.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)
