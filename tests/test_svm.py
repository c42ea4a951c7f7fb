"""The kernel made once gives scikit-learn's own machine, and its probabilities keep the balance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from headstart.methods import SimpleText
from headstart.methods.features import KernelSVM
from headstart.methods.features.svm import TOLERANCE, Platt


def clouds(sizes: list[int], *, d: int = 6, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.vstack([rng.normal(k, spread, (n, d)) for k, n in enumerate(sizes)]), np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize("sizes", [[40, 40], [60, 20, 30]])
def test_decisions_are_those_of_scikit_learn_on_the_same_features(sizes: list[int]) -> None:
    X, y = clouds(sizes)
    new, _ = clouds(sizes, seed=1)
    ours = KernelSVM(C=2.0).fit(X, y)
    scaler = StandardScaler().fit(X)
    weights = len(y) / (len(sizes) * np.asarray(sizes)[y])
    theirs = SVC(C=2.0, gamma="scale", tol=TOLERANCE).fit(scaler.transform(X), y, sample_weight=weights)
    decision = ours._model.fitted.decision_function(ours._kernel(scaler.transform(new)))
    assert np.allclose(decision, theirs.decision_function(scaler.transform(new)), atol=1e-4)
    assert ours.gamma_ == pytest.approx(theirs._gamma)


def test_the_rare_class_of_sixteen_is_still_predicted() -> None:
    X, y = clouds([300, 20], d=2)
    heeded, ignored = (np.mean(KernelSVM(balanced=b).fit(X, y).predict(X)[300:] == 1) for b in (True, False))
    assert heeded > ignored + 0.2


def test_the_text_machine_predicts_the_rare_class_as_well() -> None:
    rng = np.random.default_rng(0)
    words = ["pump", "valve", "seal", "motor", "leak", "noise", "shaft"]
    common = [" ".join(rng.choice(words, 8)) for _ in range(150)]
    rare = [" ".join([*rng.choice(words, 7), "fire"]) if i % 2 else " ".join(rng.choice(["leak", "noise"], 8)) for i in range(12)]
    model = SimpleText("words", "svm").estimator(seed=0).fit(common + rare, [0] * 150 + [1] * 12)
    assert np.mean(model.predict(rare) == 1) > 0.6


def test_platt_hands_over_the_machine_that_saw_all_cases() -> None:
    X, y = clouds([50, 50])
    model = Platt(LinearSVC(random_state=0), seed=0).fit(X, y)
    alone = LinearSVC(random_state=0).fit(X, y, sample_weight=np.ones(100))
    assert np.allclose(model.fitted.coef_, alone.coef_)
    assert np.allclose(model.predict_proba(X).sum(axis=1), 1.0)


def test_only_support_vectors_are_kept_and_others_are_not_missed() -> None:
    X, y = clouds([80, 80], spread=0.3)
    model = KernelSVM().fit(X, y)
    assert len(model._vectors) < 80
    whole = np.exp(-model.gamma_ * np.square(model._scaler.transform(X)[:, None] - model._scaler.transform(X)[None]).sum(axis=2))
    assert np.allclose(model._model.predict_proba(whole), model.predict_proba(X), atol=1e-9)
