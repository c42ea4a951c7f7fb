"""The data view: what every measure promises, and the one call with its sentence for people."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from headstart.core import InputError
from headstart.similarity.comparison import compare
from headstart.similarity.data import MEASURES, drawn, paired
from headstart.similarity.measure import Evidence, Measure
from headstart.similarity.two_sample import PAIRED, pool

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
    assert "they share no class by name." in compare(x, xs, y=y, ys=ys, labels=("a", "b"), source_labels=("c", "d"), seed=0).in_words()
    assert "; the source knows 50% of the target's classes by name." in compare(x, xs, labels=("a", "b"), source_labels=("B", "c"), seed=0).in_words()


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


def test_measures_and_the_comparison_may_share_one_draw() -> None:
    x, xs = samples(60, 70, 3)
    seen = Evidence(x=x, xs=xs, seed=4)
    found = compare(x, xs, seed=4, pools=(seen.shared(drawn), seen.shared(paired)))
    assert asdict(found) == asdict(compare(x, xs, seed=4))
    assert all(measure(seen) == measure(replace(seen)) for measure in OF_FEATURES)  # the copy draws anew


def test_pairs_are_compared_of_the_cases_that_a_smaller_draw_would_take() -> None:
    x, xs = samples(PAIRED + 200, PAIRED + 100, 2)
    few = Evidence(x=x, xs=xs, seed=4).shared(paired)
    assert (few.n, few.m) == (PAIRED, PAIRED)
    assert np.array_equal(few.rows, pool(x, xs, seed=4, most=PAIRED).rows)
