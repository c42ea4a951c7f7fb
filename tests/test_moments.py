"""Moments from blocks, against sums over all rows at once; and the decomposition, against refitting without each case."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import headstart.moments
from headstart.moments import moments
from headstart.similarity.logme import logme
from headstart.spectrum import Spectrum


def rows(n: int, d: int, c: int, *, offset: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * rng.uniform(0.1, 5.0, d) + offset, rng.normal(size=(n, c)), rng.uniform(0.2, 3.0, n)


def cut(a: np.ndarray, size: int) -> list[np.ndarray]:
    return [a[i : i + size] for i in range(0, len(a), size)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_moments_equal_the_sums_over_all_rows_however_they_are_cut(size: int, weighted: bool) -> None:
    x, y, w = rows(100, 5, 3)
    w = w if weighted else np.ones(100)
    found = moments(zip(cut(x, size), cut(y, size), strict=True), weights=cut(w, size) if weighted else None)
    z, v = x - np.average(x, axis=0, weights=w), y - np.average(y, axis=0, weights=w)
    expected = (w.sum(), x.T @ w / w.sum(), y.T @ w / w.sum(), z.T * w @ z, z.T * w @ v, v.T * w @ v, np.sum(w * np.sum(z**2, axis=1) ** 2))
    for ours, theirs in zip((found.n, found.mean, found.y_mean, found.scatter, found.cross, found.y_scatter, found.quartic), expected, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_blocks_sorted_by_class_far_from_zero_lose_no_digits() -> None:
    """Raw second moments about zero would be 1e12 here, and lose twelve of sixteen digits."""
    x, y, _ = rows(400, 4, 2, offset=1e6)
    x[200:] += 3.0
    found = moments(zip(cut(x, 50), cut(y, 50), strict=True))
    z = x - x.mean(axis=0)
    assert np.allclose(found.scatter, z.T @ z, rtol=1e-9)


def test_float32_rows_are_summed_in_float64() -> None:
    x = np.full((4096, 1), 0.1, dtype=np.float32)
    x[::2] += 1.0
    found = moments([(x, np.zeros((4096, 0)))])
    assert found.scatter[0, 0] == pytest.approx(float(np.var(x.astype(np.float64)) * 4096), rel=1e-12)


@pytest.mark.parametrize("shape", [(50, 8), (20, 45)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_spectrum_in_small_blocks_equals_the_one_at_once(shape: tuple[int, int], weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, w = rows(*shape, 3)
    w = w if weighted else None
    alphas = (0.1, 10.0)
    found = []
    for size in (1000, 7):
        monkeypatch.setattr(headstart.moments, "ROWS", size)
        spectrum = Spectrum.of(x, weights=w)
        found.append((spectrum.values, spectrum.lengths, spectrum.ridge(y).left_out(alphas), spectrum.ridge(y).solve(0.3)[0], spectrum.coordinates(y) ** 2))
    for whole, blocks in zip(*found, strict=True):
        assert np.allclose(whole, blocks, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(30, 6), (15, 40)])
@pytest.mark.parametrize("weighted", [False, True])
def test_leaving_a_case_out_equals_refitting_without_it(shape: tuple[int, int], weighted: bool) -> None:
    x, y, w = rows(*shape, 2)
    w = w if weighted else np.ones(len(x))
    centre = np.average(x, axis=0, weights=w)
    for alpha in (0.01, 3.0):
        left_out = Spectrum.of(x, weights=w).ridge(y).left_out([alpha])[0]
        for i in range(len(x)):
            keep = np.arange(len(x)) != i
            design = np.column_stack([x[keep] - centre, np.ones(len(x) - 1)])
            penalty = np.diag([alpha] * x.shape[1] + [0.0])
            coef = np.linalg.solve(design.T * w[keep] @ design + penalty, design.T * w[keep] @ y[keep])
            assert np.allclose(y[i] - np.append(x[i] - centre, 1.0) @ coef, left_out[i], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shape", [(30, 6), (15, 40)])
def test_coordinates_hold_what_features_can_tell_of_the_targets(shape: tuple[int, int]) -> None:
    """The squared length of U'T is the sum of squares that least squares explains; with n <= d it is all of it."""
    x, y, _ = rows(*shape, 2)
    T = y - y.mean(axis=0)
    design = x - x.mean(axis=0)
    explained = np.sum((design @ np.linalg.lstsq(design, T, rcond=None)[0]) ** 2, axis=0)
    assert np.allclose(np.sum(Spectrum.of(x).coordinates(y) ** 2, axis=0), explained, rtol=1e-9)


def test_rows_on_disk_are_read_in_blocks_and_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60,000 rows of 32 features are 15 MiB in float64; blocks of 1,000 need a fifteenth of that, a few times over."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60_000, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    stored, y = np.load(tmp_path / "x.npy", mmap_mode="r"), (x[:, :1] > 0).astype(float)
    expected = logme(x, y).value
    monkeypatch.setattr(headstart.moments, "ROWS", 1000)
    tracemalloc.start()
    found = logme(stored, y).value
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == pytest.approx(expected, rel=1e-10)
    assert most < 4 * 2**20
    assert np.array_equal(Spectrum.of(stored).ridge(y).left_out([1.0]).argmax(), Spectrum.of(x).ridge(y).left_out([1.0]).argmax())
