"""The task view: written-out tables, linear programmes and autograd as witnesses; laws of every measure; real photographs and real names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from scipy.special import softmax
from skimage import data
from sklearn.datasets import load_digits, load_sample_images
from sklearn.decomposition import PCA
from sklearn.metrics import mutual_info_score
from torch import nn

from headstart import sources
from headstart.core import Backbone, InputError, Source
from headstart.modality import image
from headstart.similarity import sampling, task
from headstart.similarity.label_names import class_names, embedder, label_meaning, nearest, shared_names, shared_words, words
from headstart.similarity.measure import Evidence, Measure
from headstart.similarity.otdd import Labelled, beyond_chance, label_distances, otdd
from headstart.similarity.task import MEASURES, class_probabilities, leep, nce
from headstart.similarity.task_embedding import embedding, fisher, task_distance

EVERY = pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
BETWEEN = pytest.mark.parametrize("measure", [m for m in MEASURES if m.at_identity is not None], ids=lambda m: m.name)
ON_CLASSIFIER = [m for m in MEASURES if "theta" in m.needs]


def world(*, n: int = 130, m: int = 90, d: int = 6, z: int = 7, seed: int = 0) -> Evidence:
    """A target of three classes and a source of four, on correlated features, with a classifier that knows a little."""
    rng = np.random.default_rng(seed)
    y, ys = np.arange(n) % 3, np.arange(m) % 4
    mix, centres = rng.normal(size=(d, d)), rng.normal(size=(4, d))
    x = (centres[y] + rng.normal(size=(n, d))) @ mix
    xs = (centres[ys] + rng.normal(size=(m, d))) @ mix + 0.5
    theta = softmax(2 * (rng.normal(size=(3, z))[y] + rng.normal(size=(n, z))), axis=1)
    labels, others = ("tabby cats", "Timber_Wolf", "lorry"), ("tabby cat", "wolf", "grey whale, Eschrichtius robustus", "truck")
    return Evidence(x=x, y=y, xs=xs, ys=ys, theta=theta, labels=labels, source_labels=others, seed=3)


def same(one: Measure, a: Evidence, b: Evidence, tolerance: float = 1e-9) -> bool:
    first, second = one(a), one(b)
    assert first is not None
    assert second is not None
    return abs(first.value - second.value) <= tolerance * max(1.0, abs(first.value))


# what every measure promises


@EVERY
def test_shuffling_the_cases_of_both_sides_changes_nothing(measure: Measure) -> None:
    for e in (world(), world(n=1100, m=1050, d=4)):
        i, j = np.random.default_rng(1).permutation(len(e.x)), np.random.default_rng(2).permutation(len(e.xs))
        assert same(measure, e, replace(e, x=e.x[i], y=e.y[i], theta=e.theta[i], xs=e.xs[j], ys=e.ys[j]))


@EVERY
def test_renumbering_the_classes_of_target_and_source_changes_nothing(measure: Measure) -> None:
    e, new, other, z = world(), np.array([2, 0, 1]), np.array([3, 1, 0, 2]), np.array([6, 2, 0, 5, 1, 4, 3])
    moved = replace(e, y=new[e.y], ys=other[e.ys], theta=e.theta[:, z], labels=e.labels[::-1], source_labels=e.source_labels[::-1])
    assert same(measure, e, moved)
    assert same(measure, replace(e, y=e.y % 2), replace(e, y=1 - e.y % 2))


@EVERY
def test_copies_of_all_cases_change_nothing(measure: Measure) -> None:
    if measure.name == "OTDD beyond chance":
        pytest.skip("random halves of copies are other halves")
    e = world()
    twice = replace(e, **{name: np.concatenate([getattr(e, name)] * 2) for name in ("x", "y", "xs", "ys", "theta")})
    assert same(measure, e, twice)
    assert same(measure, e, replace(e, xs=np.repeat(e.xs, 3, axis=0), ys=np.repeat(e.ys, 3)))


@EVERY
def test_what_a_measure_ignores_changes_nothing(measure: Measure) -> None:
    e = world()
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(6, 6)))
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "rotation": lambda x: x @ turn,
        "scale": lambda x: 17 * x,
        "shift": lambda x: x + np.arange(6) * 9,
    }
    for what in measure.ignores:
        for some in (e, world(n=1100, m=1050)):
            assert same(measure, some, replace(some, x=changes[what](some.x), xs=changes[what](some.xs)), 1e-7)


@BETWEEN
def test_a_data_set_lies_at_the_declared_value_from_itself(measure: Measure) -> None:
    for e in (world(), world(n=1100)):
        assert measure(replace(e, xs=e.x, ys=e.y)).value == pytest.approx(measure.at_identity, abs=1e-9)


@EVERY
def test_without_what_it_needs_or_for_another_kind_of_target_there_is_no_score(measure: Measure) -> None:
    assert all(measure(replace(world(), **{what: () if "labels" in what else None})) is None for what in measure.needs)
    assert "y" not in measure.needs or measure(replace(world(), kind="regression")) is None


@EVERY
def test_a_score_says_its_unit_direction_cases_and_view_and_leaves_the_evidence_alone(measure: Measure) -> None:
    e = world()
    before = {name: getattr(e, name).copy() for name in ("x", "y", "xs", "ys", "theta")}
    score = measure(e)
    assert (score.name, score.view, measure.view) == (measure.name, "task", "task")
    assert score.unit
    assert score.n
    assert score.higher_is_closer == (measure.at_identity is None)
    assert all((getattr(e, name) == values).all() for name, values in before.items())
    assert measure(e) == score
    assert measure.paper
    assert measure.limits.endswith(".")


def test_measures_have_names_of_their_own() -> None:
    assert len({m.name for m in MEASURES}) == len(MEASURES)


# LEEP and NCE


def by_the_book(theta: np.ndarray, y: np.ndarray) -> float:
    """LEEP as the paper defines it, sum by sum."""
    n, z = theta.shape
    joint = {(k, s): sum(theta[i, s] for i in range(n) if y[i] == k) / n for k in set(y) for s in range(z)}
    mass = [sum(joint[k, s] for k in set(y)) for s in range(z)]
    return sum(np.log(sum(theta[i, s] * joint[y[i], s] / mass[s] for s in range(z) if mass[s])) for i in range(n)) / n


def entropy(y: np.ndarray) -> float:
    p = np.bincount(y) / len(y)
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def test_leep_of_a_table_equals_the_arithmetic_on_paper() -> None:
    """Source class 0 holds mass 0.8 + 0.6 = 1.4, of which label 0 has 0.8: P(0|0) = 4/7; source class 1 holds 0.6: P(0|1) = 1/3."""
    theta, y = np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([0, 1])
    first, second = 0.8 * 4 / 7 + 0.2 / 3, 0.6 * 3 / 7 + 0.4 * 2 / 3
    assert leep(theta, y) == pytest.approx((np.log(first) + np.log(second)) / 2)


def test_nce_of_a_table_equals_the_arithmetic_on_paper() -> None:
    """Of the four cases that the source calls 0, three have label 0; the two that it calls 1 have label 1."""
    theta, y = np.eye(2)[[0, 0, 0, 0, 1, 1]], np.array([0, 0, 0, 1, 1, 1])
    assert nce(theta, y) == pytest.approx((3 * np.log(3 / 4) + np.log(1 / 4)) / 6)


def test_leep_equals_the_papers_sums_and_nce_the_mutual_information_less_the_entropy() -> None:
    e = world(n=40)
    assert leep(e.theta, e.y) == pytest.approx(by_the_book(e.theta, e.y), abs=1e-12)
    assert nce(e.theta, e.y) == pytest.approx(mutual_info_score(e.y, e.theta.argmax(axis=1)) - entropy(e.y), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_leep_lies_between_its_bounds(seed: int) -> None:
    """-H(y) <= -H(y | z) <= LEEP <= 0 by Jensen, and LEEP >= NCE + mean log theta of the likeliest class (Nguyen et al. 2020)."""
    e = world(seed=seed)
    joint = np.eye(3)[e.y].T @ e.theta / len(e.y)
    conditional = float((joint * np.log(joint / joint.sum(axis=0))).sum())
    found = leep(e.theta, e.y)
    assert -entropy(e.y) <= conditional <= found <= 0
    assert found >= nce(e.theta, e.y) + np.log(e.theta.max(axis=1)).mean()
    assert -entropy(e.y) <= nce(e.theta, e.y) <= 0


def test_a_certain_classifier_makes_leep_and_nce_one_thing() -> None:
    theta = np.eye(5)[np.random.default_rng(0).integers(5, size=60)]
    y = np.random.default_rng(1).integers(3, size=60)
    assert leep(theta, y) == pytest.approx(nce(theta, y), abs=1e-12)


def test_what_knows_nothing_explains_nothing_and_what_tells_the_classes_apart_explains_all() -> None:
    y = np.array([0, 0, 0, 1, 1, 2])
    blind, sure = Evidence(theta=np.full((6, 4), 0.25), y=y), Evidence(theta=np.eye(4)[y], y=y)
    for measure in ON_CLASSIFIER:
        is_share = "explained" in measure.name
        assert measure(blind).value == pytest.approx(0.0 if is_share else -entropy(y), abs=1e-12)
        assert measure(sure).value == pytest.approx(1.0 if is_share else 0.0, abs=1e-12)


def test_source_classes_without_mass_are_dropped_and_the_smallest_probabilities_stay_finite() -> None:
    e = world()
    padded = np.hstack([e.theta, np.zeros((len(e.theta), 3))])
    assert leep(padded, e.y) == pytest.approx(leep(e.theta, e.y), abs=1e-12)
    assert np.isfinite(leep(np.array([[1.0, 1e-300], [1.0, 0.0]]), np.array([0, 1])))
    assert np.isfinite(leep(np.array([[1e-300, 1.0], [0.0, 1.0], [0.0, 1.0]]) * 1e-8, np.array([1, 0, 0])))


def test_a_target_of_one_class_has_nothing_to_explain() -> None:
    for measure in ON_CLASSIFIER:
        assert measure(Evidence(theta=world().theta, y=np.zeros(130, dtype=int))).value == pytest.approx(0.0, abs=1e-12)


def test_classes_that_do_not_occur_and_single_precision_make_no_difference() -> None:
    e = world()
    assert leep(e.theta, 5 * e.y + 2) == leep(e.theta, e.y)
    assert leep(e.theta.astype(np.float32), e.y) == pytest.approx(leep(e.theta, e.y), abs=1e-6)


@pytest.mark.parametrize("measure", ON_CLASSIFIER, ids=lambda m: m.name)
def test_the_interval_has_the_width_that_the_jackknife_finds(measure: Measure) -> None:
    """The standard error from leaving out one case at a time (Efron & Stein 1981), which knows nothing of derivatives."""
    e = world(n=400)
    left_out = [measure(replace(e, theta=np.delete(e.theta, i, axis=0), y=np.delete(e.y, i))).value for i in range(400)]
    error = np.sqrt(399 / 400 * np.square(left_out - np.mean(left_out)).sum())
    low, high = measure(e).interval
    assert (high - low) / 2 == pytest.approx(1.645 * error, rel=0.07)  # the jackknife errs upwards


@pytest.fixture(scope="module")
def lite() -> Source:
    return sources.get("efficientnet_lite0")


@pytest.fixture(scope="module")
def photographs(lite: Source) -> tuple[np.ndarray, np.ndarray]:
    """Features (60, 1280) of six pieces of each of ten photographs, and whether the photograph shows something alive."""
    china, flower = load_sample_images().images
    alive = [data.chelsea(), data.astronaut(), flower, data.grass(), data.retina()]
    lifeless = [china, data.coffee(), data.rocket(), data.brick(), data.coins()]
    pieces = [piece for picture in (*alive, *lifeless) for piece in six_pieces(picture)]
    body = lite.backbone
    with torch.inference_mode():
        features = body(image.collate([image.encode(piece, body) for piece in pieces], body)).numpy()
    return features, np.repeat([0, 1], 30)


def six_pieces(picture: np.ndarray) -> list[np.ndarray]:
    h, w = picture.shape[0] // 2, picture.shape[1] // 3
    return [picture[i * h : (i + 1) * h, j * w : (j + 1) * w] for i in range(2) for j in range(3)]


@pytest.mark.parametrize("score", [leep, nce])
def test_photographs_by_what_they_show_score_above_every_shuffle_of_the_labels(score: Callable[..., float], lite: Source, photographs) -> None:
    features, y = photographs
    theta, rng = class_probabilities(lite.backbone, features), np.random.default_rng(0)
    assert score(theta, y) > max(score(theta, rng.permutation(y)) for _ in range(30)) + 0.05


def test_the_source_says_of_photographs_what_its_whole_network_says(lite: Source) -> None:
    china, _ = load_sample_images().images
    body = lite.backbone
    with torch.inference_mode():
        x = body(image.collate([image.encode(china, body)] * 3, body))
        wanted = body.classifier(x).double().softmax(dim=1).numpy()
    theta = class_probabilities(body, x.numpy())
    assert theta.shape == (3, 1000)
    assert np.abs(theta - wanted).max() < 1e-12
    assert class_names(lite)[int(theta[0].argmax())] == "palace"


def test_a_source_without_a_classifier_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^This backbone has no classifier of its own\. LEEP and NCE need one; leave them out, or choose another source\.$"):
        class_probabilities(Backbone({}, dim=2), np.zeros((1, 2)))


# names


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Tabby_Cats", ("tabby", "cat")),
        ("berries", ("berry",)),
        ("ties", ("tie",)),
        ("boxes", ("box",)),
        ("GLASS", ("glass",)),
        ("bus", ("bus",)),
        ("iris", ("iris",)),
    ],
)
def test_names_are_read_without_case_underscores_and_plurals(name: str, found: tuple[str, ...]) -> None:
    assert words(name) == found


def test_shared_names_and_words_equal_the_count_by_hand() -> None:
    """tabby cats: equal, 1. Timber_Wolf: {wolf} of {timber, wolf}, 1/2. lorry: nothing."""
    e = world()
    assert shared_names(e.labels, e.source_labels) == pytest.approx(1 / 3)
    assert shared_words(e.labels, e.source_labels) == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_a_synonym_behind_a_comma_counts_as_a_name() -> None:
    assert shared_names(["grey whales"], ["grey whale, Eschrichtius robustus"]) == shared_words(["grey whales"], ["grey whale, Eschrichtius robustus"]) == 1


def test_meaning_is_the_mean_of_the_best_cosines() -> None:
    """Angles of 0 and 90 degrees in the target, of 30 and 120 in the source: best cosines cos 30 and cos 30."""
    angles = {"a": 0, "b": 90, "p": 30, "q": 120}

    def embed(names):
        return np.array([[np.cos(np.radians(angles[n])), np.sin(np.radians(angles[n]))] for n in names]) * [[len(names)]]

    e = Evidence(labels=("a", "b"), source_labels=("q", "p"))
    assert label_meaning(embed)(e).value == pytest.approx(np.cos(np.radians(30)))
    found = nearest(e.labels, e.source_labels, embed, count=2)
    assert [[name for name, _ in one.classes] for one in found] == [["p", "q"], ["q", "p"]]
    assert found[1].classes[1][1] == pytest.approx(np.cos(np.radians(60)))
    assert label_meaning(embed)(Evidence(labels=("a",))) is None


def test_a_sentence_encoder_knows_that_a_tabby_cat_is_nearer_to_a_kitten_than_to_a_truck() -> None:
    embed = embedder()
    cat, lorry = nearest(["tabby_cat", "lorry"], ["truck", "kitten", "teapot"], embed, count=3)
    assert cat.classes[0][0] == "kitten"
    assert lorry.classes[0][0] == "truck"
    assert dict(cat.classes)["kitten"] > dict(cat.classes)["truck"] + 0.2
    alike, unlike = (
        Evidence(labels=("lorry", "puppy"), source_labels=("truck", "dog")),
        Evidence(labels=("lorry", "puppy"), source_labels=("algebra", "teapot")),
    )
    assert label_meaning(embed)(alike).value > label_meaning(embed)(unlike).value + 0.2


def test_an_encoder_gives_a_name_the_same_vector_alone_and_in_company() -> None:
    embed = embedder(sources.get("all-MiniLM-L6-v2"))
    many = embed(["cat", "a very long name of a class with many words", *map(str, range(70))])
    assert many.shape == (72, 384)
    assert np.abs(many[0] - embed(["cat"])[0]).max() < 1e-5


def test_class_names_are_the_sources_own_or_those_of_imagenet(lite: Source) -> None:
    assert class_names(replace(lite, labels=("a", "b"))) == ("a", "b")
    assert class_names(lite)[:2] == ("tench", "goldfish")
    assert class_names(sources.get("all-MiniLM-L6-v2")) == ()


# optimal transport between labelled data sets


def test_moving_a_data_set_costs_the_move_twice_once_for_the_cases_and_once_for_their_label() -> None:
    """Transport of a shifted copy is |v|^2 whatever the cases, and so is W2^2 of two Gaussians with one covariance (closed form)."""
    x, v = world(d=4).x, np.array([3.0, 0.0, -4.0, 1.0])
    y = np.zeros(len(x), dtype=int)
    assert otdd(x, y, x + v, y, seed=0) == pytest.approx(2 * (v @ v) / x.var(axis=0).sum())


def test_in_one_dimension_transport_pairs_the_sorted_cases() -> None:
    rng = np.random.default_rng(0)
    x, xs, y = rng.normal(size=(50, 1)), 2 * rng.gumbel(size=(50, 1)), np.zeros(50, dtype=int)
    cases = np.square(np.sort(x[:, 0]) - np.sort(xs[:, 0])).mean()
    label = (x.mean() - xs.mean()) ** 2 + (x.std() - xs.std()) ** 2
    assert otdd(x, y, xs, y, seed=0) == pytest.approx((cases + label) / ((x.var() + xs.var()) / 2))


def test_transport_costs_what_a_linear_programme_finds() -> None:
    e = world(n=9, m=6, d=2)
    x, xs = e.x / np.sqrt((e.x.var(axis=0).sum() + e.xs.var(axis=0).sum()) / 2), e.xs / np.sqrt((e.x.var(axis=0).sum() + e.xs.var(axis=0).sum()) / 2)
    y, ys = np.arange(9) // 5, np.arange(6) // 3
    means, other = [x[y == k].mean(axis=0) for k in (0, 1)], [xs[ys == k].mean(axis=0) for k in (0, 1)]
    spread, others = [np.cov(x[y == k].T, bias=True) for k in (0, 1)], [np.cov(xs[ys == k].T, bias=True) for k in (0, 1)]
    label = np.array([[bures(means[i], spread[i], other[j], others[j]) for j in (0, 1)] for i in (0, 1)])
    cost = cdist(x, xs, "sqeuclidean") + label[np.ix_(y, ys)]
    rows, columns = np.kron(np.eye(9), np.ones(6)), np.kron(np.ones(9), np.eye(6))
    plan = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.r_[np.full(9, 1 / 9), np.full(6, 1 / 6)])
    assert otdd(e.x, y, e.xs, ys, seed=0) == pytest.approx(plan.fun)


def bures(m: np.ndarray, s: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    """W2^2 between Gaussians by matrix square roots (SciPy)."""
    root = sqrtm(s)
    return float(np.square(m - m2).sum() + np.trace(s + s2 - 2 * np.real(sqrtm(root @ s2 @ root))))


def test_distances_between_labels_are_those_between_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = Labelled(rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3)), np.r_[np.zeros(19, int), np.ones(19, int), 2, 2])
    b = Labelled(rng.normal(size=(30, 3)) @ rng.normal(size=(3, 3)) + 1, np.r_[np.zeros(28, int), 1, 1])
    found = label_distances(a.classes(), b.classes())
    for i, j in np.ndindex(found.shape):
        g, h = a.x[a.codes == i], b.x[b.codes == j]
        s, s2 = (np.cov(part.T, bias=True) if len(part) > 3 else np.diag(part.var(axis=0)) for part in (g, h))
        assert found[i, j] == pytest.approx(bures(g.mean(axis=0), s, h.mean(axis=0), s2), abs=1e-6)


def test_features_in_many_more_dimensions_than_cases_keep_their_distances() -> None:
    """An isometry into 300 dimensions, where the other Gram matrix is the smaller one."""
    e = world(n=60, m=50)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 6)))
    assert otdd(e.x @ turn.T, e.y, e.xs @ turn.T, e.ys, seed=0) == pytest.approx(otdd(e.x, e.y, e.xs, e.ys, seed=0))


def test_few_axes_are_those_on_which_the_even_mixture_of_both_sets_varies_most() -> None:
    """The witness is scikit-learn's principal axes of both sets, the smaller one repeated until it weighs as much."""
    e = world(n=120, m=60)
    axes = PCA(2).fit(np.vstack([e.x, e.xs, e.xs]))
    within = (e.x.var(axis=0).sum() + e.xs.var(axis=0).sum()) / 2
    on_axes = [axes.transform(part) for part in (e.x, e.xs)]
    on_all = (on_axes[0].var(axis=0).sum() + on_axes[1].var(axis=0).sum()) / 2
    wanted = otdd(on_axes[0], e.y, on_axes[1], e.ys, seed=0) * on_all / within  # on the two axes alone, another variance was the unit
    assert otdd(e.x, e.y, e.xs, e.ys, seed=0, dims=2) == pytest.approx(wanted)


def test_swapping_target_and_source_leaves_the_distances() -> None:
    e = world()
    for distance in (otdd, beyond_chance, task_distance):
        assert distance(e.x, e.y, e.xs, e.ys, seed=0) == pytest.approx(distance(e.xs, e.ys, e.x, e.y, seed=0))


def test_beyond_chance_is_about_zero_for_two_draws_of_one_distribution_where_transport_itself_is_not() -> None:
    x, y = load_digits(return_X_y=True)
    plain, beyond = [], []
    for seed in range(30):
        i = np.random.default_rng(100 + seed).permutation(len(x))[:300]
        drawn = x[i[:150]], y[i[:150]], x[i[150:]], y[i[150:]]
        plain.append(otdd(*drawn, seed=seed))
        beyond.append(beyond_chance(*drawn, seed=seed))
    assert abs(np.mean(beyond)) < 3 * np.std(beyond, ddof=1) / np.sqrt(30)
    assert min(plain) > 0.5
    assert beyond_chance(x[y < 5], y[y < 5], x[y > 4], y[y > 4], seed=0) > 1


def test_labels_count_the_same_digits_with_their_labels_shuffled_lie_farther_away() -> None:
    x, y = load_digits(return_X_y=True)
    right = otdd(x[:400], y[:400], x[400:800], y[400:800], seed=0)
    assert otdd(x[:400], y[:400], x[400:800], np.random.default_rng(0).permutation(y[400:800]), seed=0) > 1.3 * right


def test_constant_features_and_classes_of_one_case_are_at_no_distance_from_themselves() -> None:
    assert otdd(np.ones((4, 3)), np.arange(4), np.ones((5, 3)), np.arange(5), seed=0) == pytest.approx(0.0, abs=1e-12)


def test_fisher_information_equals_that_of_autograd_on_a_small_network() -> None:
    """Sum over labels of p_k times the squared derivative of log p_k by a shift of the last stage's output, one backward pass each."""
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(5, 4), nn.Tanh()).double(), nn.Linear(4, 3).double()
    x = torch.randn(11, 5, dtype=torch.float64)
    total = torch.zeros(4, dtype=torch.float64)
    for one in x:
        shift = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        log_p = head(body(one) + shift).log_softmax(dim=0)
        for k in range(3):
            (slope,) = torch.autograd.grad(log_p[k], shift, retain_graph=True)
            total += log_p[k].exp().detach() * slope**2 / len(x)
    with torch.no_grad():
        found = fisher(body(x).numpy(), head.weight.numpy(), head.bias.numpy())
    assert found == pytest.approx(total.numpy())


def leaning_on(features: range, *, seed: int, n: int = 800, d: int = 64, c: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Cases whose class depends on some of the features, by a rule of the seed's own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, (x[:, features] @ rng.normal(size=(len(features), c)) + 0.3 * rng.gumbel(size=(n, c))).argmax(axis=1)


def test_an_embedding_is_high_on_the_features_that_decide() -> None:
    found = embedding(*leaning_on(range(8), seed=0))
    assert found[:8].min() > 2 * found[8:].max()
    assert found.mean() == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(3))
def test_tasks_on_the_same_features_lie_nearer_than_tasks_on_others(seed: int) -> None:
    mine, alike, other = leaning_on(range(8), seed=seed), leaning_on(range(8), seed=seed + 10, c=5), leaning_on(range(30, 38), seed=seed + 20)
    assert 2 * task_distance(*mine, *alike, seed=0) < task_distance(*mine, *other, seed=0)


def test_two_labels_are_a_softmax_head_too_and_one_label_embeds_as_no_task() -> None:
    x, y = leaning_on(range(8), seed=0, c=2)
    assert embedding(x, y)[:8].mean() > 3 * embedding(x, y)[8:].max()
    assert embedding(x, np.zeros(len(x), dtype=int)).tolist() == [1.0] * 64


def test_more_classes_than_half_of_the_cases_raise_no_warning() -> None:
    rng = np.random.default_rng(0)
    assert 0 <= task_distance(rng.normal(size=(30, 4)), np.arange(30) % 20, rng.normal(size=(30, 4)), np.arange(30) % 2, seed=0) <= 1


# sub-samples


def test_a_sub_sample_depends_on_the_cases_not_on_their_order_also_where_many_lie_equally_far() -> None:
    bits = np.array([[i >> k & 1 for k in range(8)] for i in range(256)], dtype=float)  # all lie at one distance from the mean
    there, _ = sampling.at_most(bits, np.arange(256), most=50, seed=1)
    i = np.random.default_rng(0).permutation(256)
    back, codes = sampling.at_most(bits[i], np.arange(256)[i], most=50, seed=1)
    assert (there == back).all()
    assert (bits[codes] == back).all()
    assert not (sampling.at_most(bits, np.arange(256), most=50, seed=2)[0] == there).all()


def test_halves_share_no_case_and_leave_none_out() -> None:
    first, second = sampling.halves(world(n=101).x, seed=0)
    assert (len(first), len(second)) == (50, 51)
    assert sorted([*first, *second]) == list(range(101))


def test_the_task_view_lists_its_measures_once() -> None:
    assert {m.view for m in task.MEASURES} == {"task"}
