"""Borrowing: what is useful is found in planted sources, a harmful source is not borrowed from, and nothing that would betray a held-out case is lent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.utils.estimator_checks import parametrize_with_checks

import headstart as hs
from headstart.activations.store import Store
from headstart.core import Domain, InputError, Source, Task
from headstart.evaluate import balanced_accuracy
from headstart.export import _head
from headstart.learner import Candidate, learn
from headstart.lending import lend, named
from headstart.methods import METHODS, Borrow, Calibrated
from headstart.methods.data import BorrowingRidge, CalibratedRidge, CurriculumRidge, GradientRidge, RatioRidge, SimilarRidge
from headstart.methods.data.borrowed import most_useful
from headstart.methods.features import RidgeLOO
from headstart.methods.needs import unmet
from headstart.modality import tabular
from headstart.pretrain import source_from_table
from headstart.views import Views

BORROWERS = (BorrowingRidge, RatioRidge, SimilarRidge, GradientRidge, CurriculumRidge)
D = 30
RULE = np.random.default_rng(7).normal(size=D) / np.sqrt(D)
Cloud = tuple[np.ndarray, np.ndarray]


@parametrize_with_checks([BorrowingRidge(), CalibratedRidge(times=2)])
def test_without_a_source_the_estimators_are_scikit_learns(estimator, check):
    check(estimator)


def cloud(n: int, *, seed: int, centre: float = 0.0, rule: np.ndarray = RULE, wrong: float = 0.0) -> Cloud:
    """Cases around a centre, their class told by a linear rule; a share of the labels is drawn anew."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)) + centre
    y = ((X - centre) @ rule > 0).astype(int)
    drawn = rng.random(n) < wrong
    return X, np.where(drawn, rng.integers(0, 2, n), y)


def reached(model: RidgeLOO | BorrowingRidge, own: Cloud, lent: Cloud | None = None, *, seed: int = 0) -> float:
    given = {} if lent is None else {"X_source": lent[0], "y_source": lent[1]}
    X, y = cloud(1500, seed=900 + seed)
    return balanced_accuracy(y, model.fit(*own, **given).predict(X))


def joined(*parts: Cloud) -> Cloud:
    return np.vstack([X for X, _ in parts]), np.concatenate([y for _, y in parts])


@pytest.mark.parametrize("kind", BORROWERS)
def test_a_clean_source_helps_few_cases(kind: type[BorrowingRidge]) -> None:
    gains = [reached(kind(), cloud(24, seed=s), cloud(300, seed=100 + s), seed=s) - reached(RidgeLOO(), cloud(24, seed=s), seed=s) for s in range(3)]
    assert np.mean(gains) > 0.10


def test_the_scatter_of_a_source_is_worth_more_than_any_penalty_where_features_hang_together() -> None:
    axes = np.random.default_rng(3).normal(size=(D, D))
    root = np.linalg.cholesky(0.05 * np.eye(D) + 0.95 * axes @ axes.T / D)

    def classes(sizes: list[int], seed: int) -> Cloud:
        y = np.repeat(np.arange(len(sizes)), sizes)
        means = np.random.default_rng(11).normal(size=(len(sizes), D)) * 2.0 / np.sqrt(D)
        return means[y] + np.random.default_rng(seed).normal(size=(len(y), D)) @ root.T, y

    gains = []
    for s in range(6):
        own, (X, y), (lent, groups) = classes([5, 5], s), classes([800, 800], 500 + s), classes([0, 0, 300, 300], 200 + s)  # the source has other classes
        with_ = CalibratedRidge().fit(*own, X_source=lent, y_source=groups)
        gains.append(balanced_accuracy(y, with_.predict(X)) - balanced_accuracy(y, RidgeLOO().fit(*own).predict(X)))
    assert np.mean(gains) > 0.10
    assert min(gains) > 0.0


def odd(seed: int) -> Cloud:
    """Three hundred clean cases, and sixty far out whose labels say the opposite."""
    far, wrong = cloud(60, seed=seed + 9)
    return joined(cloud(300, seed=seed), (8.0 * far, 1 - wrong))


@pytest.mark.parametrize("kind", [SimilarRidge, GradientRidge, CurriculumRidge])
def test_in_a_polluted_source_what_is_good_is_found_and_pays(kind: type[BorrowingRidge]) -> None:
    """All of it alike is worth nothing, and nothing is borrowed; selected, it helps."""
    shares, gains = [], []
    for s in range(3):
        own, lent = cloud(40, seed=s), odd(100 + s)
        model = kind(share=0.4).fit(*own, X_source=lent[0], y_source=lent[1])
        shares.append(model.selected_[:300].sum() / model.selected_.sum())
        gains.append(reached(model, own, lent, seed=s) - reached(BorrowingRidge(), own, lent, seed=s))
    assert np.mean(shares) > 300 / 360
    assert np.mean(gains) > 0.0


def test_the_ratio_finds_the_part_of_a_source_that_looks_like_the_target() -> None:
    found = []
    for s in range(2):
        own, lent = cloud(60, seed=s), joined(cloud(200, seed=100 + s), cloud(200, seed=200 + s, centre=1.0, rule=-RULE))
        model = RatioRidge(share=0.5).fit(*own, X_source=lent[0], y_source=lent[1])
        found.append(np.mean(model.selected_[:200]) / max(np.mean(model.selected_), 1e-9) / 2)
        assert reached(model, own, lent, seed=s) > reached(BorrowingRidge(), own, lent, seed=s)
    assert np.mean(found) > 0.9  # of what is borrowed


@pytest.mark.parametrize("kind", BORROWERS)
def test_from_a_source_whose_labels_say_the_opposite_nothing_is_borrowed(kind: type[BorrowingRidge]) -> None:
    own, lent = cloud(80, seed=0), cloud(400, seed=100, rule=-RULE)
    model = kind(share=1.0).fit(*own, X_source=lent[0], y_source=lent[1])
    assert model.trust_ == 0.0
    assert model.coef_.tobytes() == kind().fit(*own).coef_.tobytes()


@pytest.mark.parametrize("kind", BORROWERS)
def test_the_same_seed_gives_the_same_bits_and_nothing_of_the_source_is_kept(kind: type[BorrowingRidge], tmp_path: Path) -> None:
    own, lent = cloud(20, seed=0), cloud(2200, seed=1)  # more than are looked at
    one, two = (kind().fit(*own, X_source=lent[0], y_source=lent[1]) for _ in range(2))
    assert one.coef_.tobytes() == two.coef_.tobytes()
    assert len(one.selected_) == 2000
    skops.io.dump(one, tmp_path / "head.skops")
    assert (tmp_path / "head.skops").stat().st_size < lent[0].nbytes / 4
    np.testing.assert_array_equal(_head(tmp_path / "head.skops").predict_proba(own[0]), one.predict_proba(own[0]))


def test_the_most_useful_of_every_class_are_taken() -> None:
    usefulness, codes = np.arange(40.0), np.repeat([0, 1], [30, 10])
    assert np.flatnonzero(most_useful(usefulness, codes, share=0.2)).tolist() == [*range(24, 30), *range(35, 40)]  # six, and five at the least


def texts(words: list[str], labels: list[str], name: str, groups: list[str] | None = None) -> Task:
    return Task("classification", "text", Domain(name, words, labels, groups), tuple(sorted(set(labels))))


def test_what_would_betray_a_case_is_not_lent() -> None:
    mine = texts(["a fine film with a good end", "a dull film with a bad end", "one", "two"], ["yes", "no", "yes", "no"], "mine", ["p", "q", "r", "s"])
    other = texts(
        ["a fine film with a good end", "A fine film, with a good end!", "quite another story", "quite another story", "of a patient we know", "never heard"],
        ["no", "no", "yes", "yes", "no", "other"],
        "other",
        ["x", "x", "x", "x", "q", "x"],
    )
    (one,) = lend([Source("s", modality="text")], other, mine)
    assert (one.data.x, one.data.y) == (["quite another story"], [1])  # no copy, near copy, repeat, patient of ours, or label that we lack
    assert one.data_sha256
    assert named(one) == f"s with other {one.data_sha256[:12]}"
    unlabelled = Task("classification", "text", Domain("loose", ["quite another story"]))
    assert lend([Source("s", modality="text")], unlabelled, mine)[0].data.y is None


def test_what_cannot_be_lent_is_said_in_one_line() -> None:
    mine = texts(["a b c", "d e f"], ["yes", "no"], "mine")
    with pytest.raises(InputError, match=r"other and mine share no label \(maybe; no, yes\)\. Name classes alike\."):
        lend([], texts(["x y z"], ["maybe"], "other"), mine)
    with pytest.raises(InputError, match=r"Every case of other is one of mine already, so there is nothing to borrow\. Give data of another domain\."):
        lend([], texts(["a b c"], ["yes"], "other"), mine)
    with pytest.raises(InputError, match=r"table holds tabular classification and mine text classification\. Give data of one kind\."):
        lend([], Task("classification", "tabular", Domain("table", [{"a": 1.0}], ["yes"]), ("yes",)), mine)
    assert unmet(Borrow, Source("s"), classes=2) == (
        "Method 'borrow' needs labelled cases of a neighbouring domain (--source-data); 's' lends none. Choose another method: headstart methods."
    )


def test_images_of_another_folder_are_lent_by_every_source_with_labels_or_without(tmp_path: Path) -> None:
    from PIL import Image

    from headstart.terminal import Asked, pool_of, task_of

    rng = np.random.default_rng(0)
    for folder, label in [(f, label) for f in ("mine", "other") for label in ("cat", "dog")] + [("loose", "")]:
        (tmp_path / folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(tmp_path / folder / label / f"{i}.png")
    (tmp_path / "other" / "cat" / "copy.png").write_bytes((tmp_path / "mine" / "dog" / "0.png").read_bytes())
    asked = Asked(tmp_path / "mine", tmp_path / "out", "5m", 0, ["squeezenet"], source_data=tmp_path / "other")
    (source,) = pool_of(asked, task_of(asked))
    assert source.data.y == [0] * 5 + [1] * 5  # and not the copy of a dog of ours that is called a cat there
    (source,) = pool_of(dataclasses.replace(asked, source_data=tmp_path / "loose"), task_of(asked))
    assert (len(source.data), source.data.y) == (5, None)


def table(n: int, *, seed: int, name: str) -> Task:
    rng = np.random.default_rng(seed)
    x = [{"a": float(a), "b": float(b), "c": float(c)} for a, b, c in rng.normal(size=(n, 3))]
    return Task("classification", "tabular", Domain(name, x, ["high" if row["a"] + row["b"] > 0 else "low" for row in x]), ("high", "low"))


def test_a_table_lends_its_rows_and_no_case_of_the_other_side_takes_part(tmp_path: Path) -> None:
    """The spy: whatever stands in the rows that are not trained on, the model is the same to the bit; what another lends gives another, and another ledger."""
    mine, other = table(60, seed=0, name="mine"), table(200, seed=1, name="other")
    lender = source_from_table(other, mine, seed=0)
    assert (len(lender.data), lender.data.y[:3]) == (200, [other.labels.index(v) for v in other.target.y[:3]])
    body = tabular.network([["a"], ["b"], ["c"]], seed=0)
    plain = Source("net", dim=body.dim, stages=tuple(body.stages), opener=lambda: body, digest=lambda: "net", modality="tabular")
    (source,), (less,) = lend([plain], other, mine), lend([plain], table(50, seed=2, name="less"), mine)
    y, rows = np.asarray(mine.codes), np.arange(40)

    def fitted(method: Borrow | Calibrated, source: Source, *, poisoned: bool = False) -> np.ndarray:
        views = Views(mine.target.x, [tabular.digest(row) for row in mine.target.x], {source.name: source}, Store(tmp_path), "tabular")
        candidate = Candidate(method, source)
        whole = np.array(views.array(candidate.view))
        if poisoned:
            whole[40:] = np.nan
        views._made[candidate.view] = whole
        return learn(candidate, views, rows, y, classes=2, seed=0).model.coef_

    for method in (Borrow(), Calibrated()):
        assert fitted(method, source).tobytes() == fitted(method, source, poisoned=True).tobytes()
        assert fitted(method, less).tobytes() != fitted(method, source).tobytes()
        assert json.dumps(Candidate(method, less).describe()) != json.dumps(Candidate(method, source).describe())
    assert {name for name, kinds in METHODS.items() if "source.labels" in kinds[0].needs} >= {"borrow", "calibrated"}


@pytest.mark.parametrize(("name", "what"), [("borrow", "labelled cases"), ("borrow-curriculum", "labelled cases"), ("restyle", "cases")])
def test_a_method_that_borrows_is_refused_before_an_input_is_read_where_no_source_lends(name: str, what: str) -> None:
    task = Task("classification", "image", Domain("d", ["nowhere/a.png", "nowhere/b.png"], ["a", "b"]), ("a", "b"))
    source = Source("s", recipe={"library": "squeezenet"})
    with pytest.raises(InputError) as told:
        hs.transfer(task, [source], budget="1m", seed=0, methods=["lp-ft", name])
    hint = "Give them with --source-data (in Python: hs.lend)."
    assert str(told.value) == f"Method {name!r} needs {what} of a neighbouring domain, and no source lends any. {hint}"
    with pytest.raises(InputError, match="A table lends none"):
        hs.transfer(dataclasses.replace(task, modality="tabular"), [Source("t", modality="tabular")], budget="1m", seed=0, methods=[name])
