"""What unlabelled features say of themselves: directions by their closed form, groups that were planted, none where there are none."""

import numpy as np
import pytest

from headstart.similarity.structure import CLEAR, LOOSE, structure


def blobs(k: int, *, d: int = 20, each: int = 40, apart: float = 12.0) -> np.ndarray:
    dice = np.random.default_rng(0)
    centres = np.eye(d)[:k] * apart
    return np.concatenate([centre + dice.normal(size=(each, d)) for centre in centres])


@pytest.mark.parametrize("k", [2, 3, 5])
def test_planted_groups_are_counted(k: int) -> None:
    found = structure(blobs(k), seed=0)
    assert found.groups == k
    assert found.silhouette > CLEAR
    assert f"{k} clear groups" in found.in_words("images", "net")


def test_noise_falls_into_no_groups() -> None:
    found = structure(np.random.default_rng(0).normal(size=(300, 50)), seed=0)
    assert found.silhouette < LOOSE
    assert "fall into no groups" in found.in_words("texts", "net")
    assert "labels" not in found.in_words("texts", "net")


@pytest.mark.parametrize(("n", "d"), [(400, 6), (30, 200)])
def test_directions_are_the_participation_ratio_of_the_covariance(n: int, d: int) -> None:
    x = np.random.default_rng(0).normal(size=(n, d)) * np.linspace(1, 3, d)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    assert structure(x, seed=0).directions == pytest.approx(values.sum() ** 2 / (values**2).sum())


@pytest.mark.parametrize("x", [np.zeros((12, 3)), np.repeat(np.eye(2), 6, axis=0)], ids=["one point", "two points"])
def test_data_of_one_or_two_points_are_no_trouble(x: np.ndarray) -> None:
    found = structure(x, seed=0)
    assert np.isfinite([found.directions, found.silhouette]).all()


def test_turning_the_features_changes_nothing() -> None:
    x = blobs(3)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0]
    one, two = structure(x, seed=0), structure(x @ turn, seed=0)
    assert (one.groups, one.directions) == (two.groups, pytest.approx(two.directions))
    assert one.silhouette == pytest.approx(two.silhouette)
