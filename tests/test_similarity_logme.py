"""LogME against the density of a multivariate normal, and against the published fixed point where that is right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import helmert
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from headstart.moments import moments
from headstart.similarity.logme import LogME, logme, logme_of_moments, logme_of_spectrum
from headstart.spectrum import Spectrum

SHAPES = [(60, 9), (25, 60), (12, 12), (13, 12), (9, 1)]


def features(n: int, d: int, *, c: int = 3, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * rng.uniform(0.2, 3.0, d) + 5.0
    return x, x[:, : min(d, 4)] @ rng.normal(size=(min(d, 4), c)) + noise * rng.normal(size=(n, c)) - 2.0


def density(F: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    return float(multivariate_normal(cov=F @ F.T / alpha + np.eye(len(F)) / beta).logpdf(y)) / len(F)


def ways(x: np.ndarray, y: np.ndarray) -> dict[str, LogME]:
    return {
        "tridiagonal": logme(x, y),
        "eigenvectors": logme_of_spectrum(Spectrum.of(x), y),
        "moments": logme_of_moments(moments((x[i : i + 7], y[i : i + 7]) for i in range(0, len(x), 7))),
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_the_evidence_is_the_normal_density_of_the_contrasts_at_its_optimum(shape: tuple[int, int]) -> None:
    """Contrasts H y with H of Helmert, orthonormal and orthogonal to ones: the intercept drops out. No other alpha and beta reach more."""
    x, y = features(*shape)
    H = helmert(len(x))
    for name, found in ways(x, y).items():
        for c in range(y.shape[1]):
            at = density(H @ x, H @ y[:, c], found.alpha[c], found.beta[c])
            assert found.evidence[c] == pytest.approx(at, rel=1e-9, abs=1e-9), name

            def loss(logs: np.ndarray, column: np.ndarray = y[:, c]) -> float:
                return -density(H @ x, H @ column, *np.exp(np.clip(logs, -15, 15)))

            for factor in ((1.1, 1.0), (1.0, 1.1), (0.7, 1.0), (1.0, 0.7)):
                assert (
                    density(H @ x, H @ y[:, c], found.alpha[c] * factor[0], found.beta[c] * factor[1]) < at + 1e-9
                )  # the optimum may lie at infinity, where the curve is flat
            if name == "tridiagonal":
                best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12, "maxiter": 800})
                assert found.evidence[c] >= -best.fun - 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_to_it_gives_the_same(shape: tuple[int, int]) -> None:
    found = list(ways(*features(*shape)).values())
    for other in found[1:]:
        assert np.allclose(found[0].evidence, other.evidence, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(60, 9), (25, 60)])
def test_without_an_intercept_it_is_the_density_of_the_cases(shape: tuple[int, int]) -> None:
    x, y = features(*shape)
    found = logme(x, y, intercept=False)
    for c in range(3):
        assert found.evidence[c] == pytest.approx(density(x, y[:, c], found.alpha[c], found.beta[c]), rel=1e-9)


def published(F: np.ndarray, y: np.ndarray) -> float:
    """The fixed point of You et al. 2021, algorithm 1, from its formulas, iterated to the end; right for n > d."""
    n, d = F.shape
    s, V = np.linalg.eigh(F.T @ F)
    total = 0.0
    for column in y.T:
        z2, a, b = np.square(V.T @ F.T @ column), 1.0, 1.0
        for _ in range(5000):
            gamma, m = np.sum(b * s / (a + b * s)), b**2 * z2 / (a + b * s) ** 2
            left = column @ column - 2 * np.sum(b * z2 / (a + b * s)) + np.sum(s * m)
            a, b = gamma / m.sum(), (n - gamma) / left
        m = b**2 * z2 / (a + b * s) ** 2
        left = column @ column - 2 * np.sum(b * z2 / (a + b * s)) + np.sum(s * m)
        logs = d * np.log(a) + n * np.log(b) - np.sum(np.log(a + b * s)) - n * np.log(2 * np.pi)
        total += 0.5 * (logs - b * left - a * m.sum()) / n
    return float(total / y.shape[1])


def test_it_equals_the_published_fixed_point_where_that_is_right() -> None:
    x, y = features(80, 9)
    assert logme(x, y, intercept=False).value == pytest.approx(published(x, y), rel=1e-9)


def test_features_without_a_trend_give_the_density_without_features() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    y = rng.normal(size=(50, 1))
    design = np.column_stack([x, np.ones(50)])
    y -= design @ np.linalg.lstsq(design, y, rcond=None)[0]
    found = logme(x, y)
    assert found.evidence[0] == pytest.approx(found.null[0], abs=1e-6)
    assert found.null[0] == pytest.approx(-0.5 * np.log(2 * np.pi * np.e * y.var(ddof=1)))


def test_more_noise_features_do_not_raise_it_where_cases_are_few() -> None:
    """The published formula gains 14 nats here from 300 columns of noise, and 100 from 1,900 (thuml/LogME, pull request 24)."""
    x, y = features(100, 20)
    noise = np.random.default_rng(1).normal(size=(100, 1900))
    values = [logme(np.column_stack([x, noise[:, :k]]), y).value for k in (0, 300, 1900)]
    assert values[0] > values[1] > values[2]


def test_what_features_tell_does_not_depend_on_the_unit_of_the_target() -> None:
    x, y = features(40, 6)
    metres, feet = logme(x, y), logme(x, 3.28 * y + 7.0)
    assert np.allclose(metres.evidence - metres.null, feet.evidence - feet.null, atol=1e-10)


def test_a_perfect_fit_is_finite() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    assert np.isfinite(logme(x, x[:, :1]).value)


def test_features_that_never_move_tell_nothing() -> None:
    y = np.random.default_rng(0).normal(size=(20, 2))
    found = logme(np.ones((20, 5)), y)
    assert np.allclose(found.evidence, found.null)
