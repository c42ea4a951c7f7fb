"""Validators: closed forms, brute force, other libraries' sums, laws that hold for any outputs, and the failures that they are known for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from scipy.stats import norm
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from headstart.core import InputError
from headstart.validators import JOINT, VALIDATORS, Outputs, density_ratio, evaluate


def outputs(seed: int = 0, n: int = 60, m: int = 80, c: int = 4) -> Outputs:
    """Some candidate, with a known ratio and a nearest neighbour to train back."""
    dice = np.random.default_rng(seed)
    y = np.concatenate([np.arange(c), dice.integers(0, c, n - c)])
    source = softmax(dice.normal(0, 1, (n, c)) + 2.0 * np.eye(c)[y], axis=1)
    target = softmax(2.0 * dice.normal(0, 1, (m, c)), axis=1)
    xs, xt = dice.normal(0, 1, (n, 3)), dice.normal(0.5, 1, (m, 3))

    def back(codes: np.ndarray) -> np.ndarray:
        return np.asarray(KNeighborsClassifier(1).fit(xt, codes).predict(xs))

    return Outputs(source, y, target, xs, xt, dice.normal(0, 1, (n, 3)), ratio=dice.uniform(0.1, 3.0, n), refit=back)


def collapsed(one: Outputs) -> Outputs:
    """The same candidate, but sure that every target case is of class 0."""
    return dataclasses.replace(one, target=np.eye(one.classes)[np.zeros(len(one.target), dtype=int)])


def right(one: Outputs) -> Outputs:
    """The same candidate, sure of every target case, in equal shares."""
    return dataclasses.replace(one, target=np.eye(one.classes)[np.arange(len(one.target)) % one.classes])


EVERY = pytest.mark.parametrize("name", VALIDATORS)


@EVERY
def test_the_order_of_classes_and_of_cases_does_not_matter(name: str) -> None:
    one = outputs()
    dice = np.random.default_rng(1)
    classes, ns, nt = (dice.permutation(k) for k in (one.classes, len(one.source), len(one.target)))
    xs, xt = one.source_features[ns], one.target_features[nt]
    back = np.argsort(classes)

    def refit(codes: np.ndarray) -> np.ndarray:
        return np.asarray(KNeighborsClassifier(1).fit(xt, codes).predict(xs))

    assert one.ratio is not None
    source, target = one.source[:, classes], one.target[:, classes]
    turned = Outputs(source[ns], back[one.y][ns], target[nt], xs, xt, one.train_features, ratio=one.ratio[ns], refit=refit)
    assert VALIDATORS[name](turned) == pytest.approx(VALIDATORS[name](one), abs=1e-12)


@EVERY
def test_every_validator_is_finite_and_says_what_it_is(name: str) -> None:
    validator, one = VALIDATORS[name], outputs()
    assert all((validator.name == name, validator.paper, validator.limits, validator.range))
    for candidate in (one, collapsed(one), right(one)):
        assert math.isfinite(validator(candidate))


BOUNDS: dict[str, tuple[Callable[[Outputs], float], Callable[[Outputs], float]]] = {
    "entropy": (lambda o: -math.log(o.classes), lambda o: 0.0),
    "information": (lambda o: 0.0, lambda o: math.log(o.classes)),
    "nuclear-norm": (lambda o: 0.0, lambda o: 1.0),
    "class-confusion": (lambda o: 0.0, lambda o: 1.0),
    "class-correlation": (lambda o: 0.0, lambda o: 1.0),
    "neighbourhood": (lambda o: 0.0, lambda o: math.log(len(o.target) - 1)),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_stated_ranges_hold_and_their_upper_ends_are_reached(name: str) -> None:
    low, high = BOUNDS[name]
    for seed in range(10):
        one = outputs(seed)
        assert low(one) - 1e-12 <= VALIDATORS[name](one) <= high(one) + 1e-12
    shares = dataclasses.replace(outputs(), y=np.arange(60) % 4)
    best = collapsed(shares) if name == "neighbourhood" else right(shares)
    assert VALIDATORS[name](best) == pytest.approx(high(best), abs=1e-12)


@pytest.mark.parametrize(("name", "is_fooled"), [("entropy", True), ("neighbourhood", True), ("information", False), ("nuclear-norm", False)])
def test_who_prefers_a_candidate_that_says_one_class_of_everything(name: str, is_fooled: bool) -> None:
    """Known of entropy and soft neighbourhood density; the reason for the rule's guard."""
    one = outputs()
    assert (VALIDATORS[name](collapsed(one)) > VALIDATORS[name](one)) is is_fooled


@pytest.mark.parametrize("name", ["class-confusion", "class-correlation"])
def test_confusion_corrected_for_classes_is_not_fooled_by_one_class(name: str) -> None:
    one = outputs()
    gone = dataclasses.replace(one, target=softmax(np.full((80, 4), 0.0) + np.array([9.0, 0.0, 0.0, 0.0]), axis=1))
    assert VALIDATORS[name](gone) < VALIDATORS[name](one)


def test_information_is_the_mean_divergence_from_the_mean() -> None:
    one = outputs()
    assert VALIDATORS["information"](one) == pytest.approx(rel_entr(one.target, one.target.mean(axis=0)).sum(axis=1).mean())


def test_the_nuclear_norm_is_the_trace_of_the_root() -> None:
    one = outputs()
    roots = np.sqrt(np.linalg.eigvalsh(one.target.T @ one.target)).sum()
    assert VALIDATORS["nuclear-norm"](one) == pytest.approx(roots / math.sqrt(80 * 4))


def test_class_confusion_is_the_published_sum_written_out() -> None:
    p = outputs().target
    n, c = p.shape
    soft = np.array([[p[i, j] ** 0.4 / sum(p[i, k] ** 0.4 for k in range(c)) for j in range(c)] for i in range(n)])
    certain = [1.0 + math.exp(sum(v * math.log(v) for v in row)) for row in soft]
    C = [[sum(certain[i] * n / sum(certain) * soft[i, j] * soft[i, k] for i in range(n)) for k in range(c)] for j in range(c)]
    loss = sum(C[j][k] / sum(C[j]) for j in range(c) for k in range(c) if j != k) / c
    assert VALIDATORS["class-confusion"](outputs()) == pytest.approx(1.0 - loss)


def test_class_correlation_is_a_cosine_of_matrices() -> None:
    one = outputs()
    C, R = one.target.T @ one.target / 80, np.diag(np.bincount(one.y) / 60)
    assert VALIDATORS["class-correlation"](one) == pytest.approx((C * R).sum() / math.sqrt((C * C).sum() * (R * R).sum()))


def test_neighbourhood_density_written_out_case_by_case(monkeypatch: pytest.MonkeyPatch) -> None:
    one = outputs()
    total = 0.0
    for i, a in enumerate(one.target):
        near = [math.exp(float(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) / 0.05) for j, b in enumerate(one.target) if j != i]
        total -= sum(v / sum(near) * math.log(v / sum(near)) for v in near)
    assert VALIDATORS["neighbourhood"](one) == pytest.approx(total / 80)
    monkeypatch.setattr("headstart.validators.neighbourhood.ROWS", 7)
    assert VALIDATORS["neighbourhood"](one) == pytest.approx(total / 80)


def test_source_and_weighted_accuracy_are_those_of_scikit_learn() -> None:
    one = outputs()
    assert VALIDATORS["source-accuracy"](one) == pytest.approx(balanced_accuracy_score(one.y, one.source.argmax(axis=1)))
    assert VALIDATORS["importance-weighted"](one) == pytest.approx(accuracy_score(one.y, one.source.argmax(axis=1), sample_weight=one.ratio))


def test_deep_embedded_validation_is_the_regression_of_losses_on_weights_where_the_weight_is_one() -> None:
    """The control variate written as what it is: the fitted line at w = 1."""
    one = outputs()
    assert one.ratio is not None
    loss = one.ratio * (one.source.argmax(axis=1) != one.y)
    slope, intercept = np.polyfit(one.ratio, loss, 1)
    assert VALIDATORS["dev"](one) == pytest.approx(1.0 - (slope + intercept))


@pytest.mark.parametrize("trained", [True, False])
def test_the_ratio_of_two_gaussians_is_found_and_foretells_accuracy_on_the_target(trained: bool) -> None:
    """Covariate shift: x ~ N(0, 1) and N(1, 1), y = sign(x) turned over at random where x < 0, so that the source is harder."""
    dice = np.random.default_rng(0)
    xs, xt, train = (dice.normal(shift, 1, (3000, 1)) for shift in (0, 1, 0))
    y = ((xs[:, 0] > 0) ^ ((xs[:, 0] < 0) & (dice.random(3000) < 0.4))).astype(int)
    says = np.eye(2)[(xs[:, 0] > 0).astype(int)]
    one = Outputs(says, y, np.eye(2)[(xt[:, 0] > 0).astype(int)], xs, xt, train if trained else None)
    ratio = density_ratio(one)
    assert np.abs(np.log(ratio) - (xs[:, 0] - 0.5)).max() < 0.5
    truth = 1.0 - 0.4 * norm.cdf(-1)
    plain = accuracy_score(y, says.argmax(axis=1))
    for name in ("importance-weighted", "dev"):
        assert abs(VALIDATORS[name](one) - truth) < 0.02 < abs(plain - truth)


def test_foretold_accuracy_is_that_of_the_source_where_the_target_is_the_source() -> None:
    one = dataclasses.replace(outputs(), target=outputs().source, target_features=outputs().source_features)
    accuracy = accuracy_score(one.y, one.source.argmax(axis=1))
    assert VALIDATORS["thresholded-confidence"](one) == pytest.approx(accuracy)
    assert VALIDATORS["confidence-difference"](one) == pytest.approx(accuracy)


def test_thresholded_confidence_of_a_candidate_that_is_never_right_is_zero() -> None:
    one = Outputs(np.eye(2), np.array([1, 0]), np.eye(2), np.zeros((2, 1)), np.zeros((2, 1)), None)
    assert VALIDATORS["thresholded-confidence"](one) == 0.0


def test_reverse_validation_finds_labels_that_do_not_fit_the_features() -> None:
    dice = np.random.default_rng(0)
    y = np.arange(90) % 3
    xs = np.eye(3)[y] * 5.0 + dice.normal(0, 1, (90, 3))
    xt = xs + 0.3

    def back(codes: np.ndarray) -> np.ndarray:
        return np.asarray(KNeighborsClassifier(5).fit(xt, codes).predict(xs))

    good = Outputs(np.eye(3)[y], y, np.eye(3)[y], xs, xt, None, refit=back)
    random = dataclasses.replace(good, target=np.eye(3)[dice.permutation(y)])
    assert VALIDATORS["reverse"](good) > 0.95
    assert VALIDATORS["reverse"](random) < 0.6
    assert VALIDATORS["reverse"](collapsed(good)) == pytest.approx(1 / 3)
    # what it cannot see: labels swapped everywhere come back swapped, and only source labels tell; here they do
    assert VALIDATORS["reverse"](dataclasses.replace(good, target=np.eye(3)[(y + 1) % 3])) < 0.05


def test_agreement_is_the_mean_over_pairs_and_copies_confirm_each_other() -> None:
    some = {f"c{i}": outputs(i) for i in range(4)}
    labels = {name: one.target.argmax(axis=1) for name, one in some.items()}
    for name, value in JOINT["agreement"](some).items():
        assert value == pytest.approx(np.mean([accuracy_score(labels[name], labels[other]) for other in some if other != name]))
    assert JOINT["agreement"]({"alone": outputs()}) == {"alone": 1.0}
    copies = {"a": outputs(0), "b": outputs(0), "c": outputs(1)}
    assert JOINT["agreement"](copies)["a"] > JOINT["agreement"](copies)["c"]


def test_the_ensemble_is_the_mean_of_probabilities() -> None:
    some = {f"c{i}": outputs(i) for i in range(3)}
    vote = sum(one.target for one in some.values()).argmax(axis=1)  # type: ignore[union-attr]
    assert JOINT["ensemble"](some) == {name: pytest.approx(np.mean(one.target.argmax(axis=1) == vote)) for name, one in some.items()}


def test_evaluate_says_what_each_validator_says_and_leaves_out_what_lacks_its_needs() -> None:
    one = outputs()
    other = dataclasses.replace(outputs(1), refit=None)
    said = evaluate({"one": one, "other": other})
    assert set(said) == {*VALIDATORS, *JOINT}
    assert said["reverse"] == {"one": VALIDATORS["reverse"](one)}
    for name in set(VALIDATORS) - {"reverse"}:
        assert said[name] == {"one": VALIDATORS[name](one), "other": VALIDATORS[name](other)}


def test_candidates_with_the_same_features_share_one_ratio_and_others_get_their_own() -> None:
    one = dataclasses.replace(outputs(), ratio=None)
    moved = dataclasses.replace(one, source_features=one.source_features * np.array([1.0, -1.0, 1.0]))
    said = evaluate({"one": one, "same": one, "moved": moved})["importance-weighted"]
    assert said["one"] == said["same"] == VALIDATORS["importance-weighted"](one)
    assert said["moved"] == VALIDATORS["importance-weighted"](moved) != said["one"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": np.full((80, 3), 1 / 3)}, "source has 4 classes and target 3"),
        ({"y": np.full(60, 4)}, "60 class codes from 0 to 3"),
        ({"y": np.zeros(60)}, "60 class codes from 0 to 3"),
        ({"target": np.full((80, 4), 0.3)}, "target holds rows that are no probabilities"),
        ({"source": np.full((60, 4), np.nan)}, "source holds rows that are no probabilities"),
        ({"target": np.ones((80, 1))}, "two classes is needed"),
        ({"source_features": np.zeros((59, 3))}, "source_features has shape \\(59, 3\\); 60 rows of 3"),
        ({"target_features": np.zeros((80, 2))}, "80 rows of 3 features"),
        ({"train_features": np.zeros((5, 2))}, "any number of rows of 3 features"),
        ({"target_features": np.full((80, 3), np.inf)}, "not finite"),
        ({"ratio": np.full(60, -1.0)}, "60 finite numbers, none negative"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_in_one_line(change: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        dataclasses.replace(outputs(), **change)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_cannot_be_validated_is_refused() -> None:
    with pytest.raises(InputError, match="no candidates"):
        evaluate({})
    with pytest.raises(InputError, match="same cases and classes"):
        evaluate({"a": outputs(m=80), "b": outputs(m=70)})
    with pytest.raises(InputError, match="no refit"):
        VALIDATORS["reverse"](dataclasses.replace(outputs(), refit=None))
