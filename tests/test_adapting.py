"""From one domain to another: planted worlds of small tables, what may be read, what is repeated, what is shipped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import headstart as hs
from headstart.adaptation import SOURCE_ONLY, Adaptation
from headstart.adapting import differences, trying
from headstart.adapting.ground import Ground
from headstart.adapting.strangers import strangers
from headstart.methods.features import RidgeLOO
from headstart.terminal import write_report

BUDGET = "1h"  # why: on a busy machine a small one ends runs early, and the plan is cut short here anyhow
NAMES = ("ant", "bee", "cat")
MEANS = np.array([[0.0, 0.0, 0.0, 0.0], [4.0, 0.0, 1.0, 0.0], [0.0, 4.0, 0.0, 1.0]])


def table(name: str, y: np.ndarray, *, seed: int, turn: float = 0.0, move: float = 0.0, labels: bool = True) -> hs.Task:
    """Rows of four columns in three classes four deviations apart; a domain may be turned in the plane of the classes and moved."""
    x = np.random.default_rng(seed).normal(size=(len(y), 4)) + MEANS[y]
    c, s = np.cos(turn), np.sin(turn)
    x[:, :2] = x[:, :2] @ np.array([[c, -s], [s, c]])
    rows = [{f"c{i}": float(v) for i, v in enumerate(row)} for row in x + move]
    return hs.Task("classification", "tabular", hs.Domain(name, rows, [NAMES[k] for k in y] if labels else None), NAMES if labels else ())


@pytest.fixture(scope="module", autouse=True)
def short_plan() -> Iterator[None]:
    """Fewer candidates and a smaller map: what is tested here is the same for all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trying, "TIERS", ((0.0, ("scaled", "coral", "ot-linear", "subspace-alignment", "nn-weights", "em")),))
        patch.setattr(trying, "RAW", {"tabular": ()})
        patch.setattr(trying, "PER_DEEP", 1e9)
        patch.setattr(differences, "MAPPED", 30)
        yield


def even(n: int) -> np.ndarray:
    return np.arange(n) % 3


@pytest.fixture(scope="module")
def moved() -> tuple[hs.Task, hs.Task]:
    return table("here", even(120), seed=1), table("there", even(90), seed=2, move=2.0)


@pytest.fixture(scope="module")
def run(moved: tuple[hs.Task, hs.Task], tmp_path_factory: pytest.TempPathFactory) -> tuple[Adaptation, Path]:
    out = tmp_path_factory.mktemp("adapt") / "run"
    return hs.adapt(*moved, budget=BUDGET, seed=0, out=out, read_labels=True), out


def score_of(found: Adaptation, name: str) -> float:
    one = found.candidate(name)
    assert one is not None
    assert one.scored is not None
    return one.scored.value


def test_a_moved_domain_is_brought_back_by_what_moves_features(run: tuple[Adaptation, Path]) -> None:
    found, _ = run
    assert score_of(found, SOURCE_ONLY) < 0.75  # moved two deviations, cases fall across the borders
    assert min(score_of(found, name) for name in ("scaled", "coral", "ot-linear", "subspace-alignment")) > 0.95
    assert found.before is not None
    assert found.before.auc.value > 0.8


def test_what_is_found_goes_to_json_and_back(run: tuple[Adaptation, Path]) -> None:
    found, _ = run
    assert Adaptation.from_json(found.to_json()) == found
    assert found.scored
    assert {o.validator for o in found.candidates[0].said} <= set(found.choice.validators)


def test_a_saved_run_predicts_as_it_did(run: tuple[Adaptation, Path], moved: tuple[hs.Task, hs.Task]) -> None:
    found, out = run
    again = hs.load(out)
    assert again == found
    rows = list(moved[1].target.x)
    assert again.predict(rows) == found.predict(rows)
    assert {p.label for p in found.predict(rows)} <= set(NAMES)


def test_a_finished_run_is_read_and_not_repeated(run: tuple[Adaptation, Path], moved: tuple[hs.Task, hs.Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying.Trials, "run", None)
    found, out = run
    assert hs.adapt(*moved, budget=BUDGET, seed=0, out=out, read_labels=True) == found


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    run: tuple[Adaptation, Path], moved: tuple[hs.Task, hs.Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = run
    fits = []
    learn = trying.learn

    def counted(candidate: Any, *rest: Any, **more: Any) -> Any:
        if len(fits) == 5:
            raise KeyboardInterrupt
        fits.append(candidate)
        return learn(candidate, *rest, **more)

    monkeypatch.setattr(trying, "learn", counted)
    with pytest.raises(KeyboardInterrupt):
        hs.adapt(*moved, budget=BUDGET, seed=0, out=tmp_path / "killed", read_labels=True)
    monkeypatch.setattr(trying, "learn", learn)
    again = hs.adapt(*moved, budget=BUDGET, seed=0, out=tmp_path / "killed", read_labels=True)
    assert again.to_json() == found.to_json()


def test_labels_of_the_target_decide_nothing(run: tuple[Adaptation, Path], moved: tuple[hs.Task, hs.Task]) -> None:
    source, target = moved
    blind = hs.adapt(source, dataclasses.replace(target, target=dataclasses.replace(target.target, y=None)), budget=BUDGET, seed=0)
    wrong = dataclasses.replace(target, target=dataclasses.replace(target.target, y=list(target.target.y or ())[::-1]))
    unread = hs.adapt(source, wrong, budget=BUDGET, seed=0)
    assert not unread.scored
    assert unread.notes == ("there has 90 labels; they were not read. --target-labels some learns from them, --score reads them once at the end.",)
    assert dataclasses.replace(unread, notes=()) == blind
    assert unread.verdict == run[0].verdict
    strip = [dataclasses.replace(c, scored=None) for c in run[0].candidates]
    assert strip == list(blind.candidates)


def test_identical_domains_leave_nothing_to_do(moved: tuple[hs.Task, hs.Task]) -> None:
    source, _ = moved
    found = hs.adapt(source, source, budget=BUDGET, seed=0)
    assert found.verdict.decision == "nothing to do"
    assert found.shipped == SOURCE_ONLY
    assert found.verdict.why == "Every case of here (2) lies in the source, by its content: there is nothing to adapt to."
    assert {c.level for c in found.candidates} <= {"none", "feature"}
    another = hs.adapt(table("here", even(600), seed=1), table("there", even(600), seed=2), budget=BUDGET, seed=0)
    assert another.verdict.decision == "nothing to do"
    assert another.verdict.why.startswith("No test tells the domains apart")


def test_a_target_that_is_the_source_leaves_nothing_to_do_with_labels_too_unless_they_differ(moved: tuple[hs.Task, hs.Task]) -> None:
    source, _ = moved
    y = [label if i % 2 else None for i, label in enumerate(source.target.y or ())]
    some = dataclasses.replace(source, target=dataclasses.replace(source.target, y=y))
    found = hs.adapt(source, some, budget=BUDGET, seed=0, target_labels="some")
    assert (found.verdict.decision, found.shipped) == ("nothing to do", SOURCE_ONLY)
    assert found.verdict.why.endswith("with the same label where it has one: there is nothing to adapt to.")
    turned = [label and NAMES[(NAMES.index(str(label)) + 1) % 3] for label in y]
    other = hs.adapt(source, dataclasses.replace(some, target=dataclasses.replace(some.target, y=turned)), budget=BUDGET, seed=0, target_labels="some")
    assert other.verdict.method == "test"
    assert any(w.kind == "shared cases" and w.words.startswith("120 of 120 cases") for w in other.warned)


def test_some_target_labels_make_the_verdict_a_test(moved: tuple[hs.Task, hs.Task]) -> None:
    source, target = moved
    y = [label if i % 2 else None for i, label in enumerate(target.target.y or ())]
    some = dataclasses.replace(target, target=dataclasses.replace(target.target, y=y), labels=())
    found = hs.adapt(source, some, budget=BUDGET, seed=0, target_labels="some")
    assert found.verdict.method == "test"
    assert found.verdict.decision == "adapt"
    assert found.target.labelled == 45
    assert found.verdict.interval[0] > 0.1
    assert found.candidate("easyadapt") is not None
    assert all(c.measured for c in found.candidates if c.level == "relation" and c.status == "complete")


def test_how_far_a_class_lies_apart_is_told_by_known_labels_before_predicted_ones() -> None:
    y, task = np.array([0] * 12 + [1] * 12 + [0, 1, 1]), SimpleNamespace(labels=("ant", "bee"))
    domains = SimpleNamespace(y=y, classes=2, target=np.arange(24, 27), known=np.array([25]), task=task)
    x = np.random.default_rng(0).normal(size=(27, 2))
    features = differences.Features(x[:24], x[24:], np.arange(24), "as they are")
    predicted = np.zeros(3, dtype=np.intp)
    found = differences.distance(cast(Ground, SimpleNamespace(domains=domains, seed=0)), features, predicted)
    assert [c.n_target for c in found.classes] == [2, 1]
    assert predicted.tolist() == [0, 0, 0]


def refused(*given: Any, **more: Any) -> str:
    with pytest.raises(hs.InputError) as told:
        hs.adapt(*given, **{"budget": BUDGET, "seed": 0, **more})
    return str(told.value)


def test_what_cannot_be_adapted_is_refused_in_one_line(moved: tuple[hs.Task, hs.Task]) -> None:
    source, target = moved
    few = dataclasses.replace(target, target=target.target.take(range(9)))
    assert refused(source, few) == "there has 9 rows; a domain needs at least 10. Add some, or predict without adapting."
    assert refused(table("bare", even(20), seed=0, labels=False), target) == "bare has no labels, so nothing can be learned from it. Give a labelled source."
    blind = dataclasses.replace(target, target=dataclasses.replace(target.target, y=None))
    assert refused(source, blind, target_labels="some").startswith("there has no labelled case, and --target-labels some promises some.")
    other = hs.Task("classification", "tabular", hs.Domain("else", [{"z": 1.0}] * 20))
    assert refused(source, other) == "here and else share no column, so nothing carries over. Rename the columns that mean the same."
    dog = dataclasses.replace(target, target=dataclasses.replace(target.target, y=["dog"] * 90), labels=())
    assert refused(source, dog, target_labels="some").startswith("there has cases labelled 'dog', which no source has (it has ant, bee, cat).")


def test_findings_name_no_machine_and_no_time(run: tuple[Adaptation, Path]) -> None:
    _, out = run
    assert "seconds" not in json.loads((out / "adaptation.json").read_text())
    assert json.loads((out / "times.json").read_text())["total"] > 0


def test_the_report_of_a_run_is_drawn_and_drawn_again_alike(run: tuple[Adaptation, Path]) -> None:
    found, out = run
    first = write_report(out).read_text(encoding="utf-8")
    assert f"{found.task}: {found.verdict.decision} - Headstart" in first
    assert all(one.name in first for one in found.candidates)
    assert write_report(out).read_text(encoding="utf-8") == first


def test_other_shares_of_classes_and_an_absent_class_are_told() -> None:
    source = table("here", even(240), seed=1)
    target = table("there", np.repeat([0, 1], [150, 50]), seed=2)  # no cat
    found = hs.adapt(source, target, budget=BUDGET, seed=0)
    warned = {w.kind: w for w in found.warned}
    assert warned["partial"].labels == ("cat",)
    assert (warned["label shift"].p or 1.0) < 1e-6
    shares = {rate.label: rate for rate in found.rates}
    assert abs((shares["ant"].estimated or 0.0) - 0.75) < 0.05
    assert shares["cat"].interval is not None
    assert shares["cat"].interval[1] < 0.03
    assert "open set" not in warned


def test_a_class_that_the_source_lacks_is_told_and_a_mere_shift_is_not() -> None:
    y = even(240)
    whole = table("there", y, seed=2, move=1.0)
    source = table("here", even(240), seed=1)
    two = dataclasses.replace(source, target=source.target.take(np.flatnonzero(even(240) > 0)), labels=NAMES[1:])
    found = hs.adapt(two, whole, budget=BUDGET, seed=0)
    open_set = next(w for w in found.warned if w.kind == "open set")
    assert (open_set.p or 1.0) < 0.001
    named = [int(label.removeprefix("row ")) - 1 for label in open_set.labels]
    assert np.mean(y[named] == 0) >= 0.8
    assert "open set" not in {w.kind for w in hs.adapt(source, whole, budget=BUDGET, seed=0).warned}


def test_a_class_beyond_a_known_one_of_which_a_linear_head_is_sure_is_told_and_too_few_cases_are_not_tested() -> None:
    dice = np.random.default_rng(0)
    centre = np.vstack([0.75 * MEANS, [9.0, 3.0, -6.0, 5.0]])
    ys, yt = even(150), np.arange(160) % 4
    xs, xt = (centre[y] + dice.normal(size=(len(y), 4)) for y in (ys, yt))
    sure = RidgeLOO().fit(xs, ys).predict_proba(xt).max(axis=1)
    assert np.median(sure[yt == 3]) > np.median(sure[yt < 3])
    found = strangers(xs, ys, xt, sure, seed=0)
    assert found is not None
    assert (found.is_unknown, found.sign) == (True, "between")
    assert np.mean(yt[found.rows] == 3) > 0.9
    known = yt < 3
    nothing = strangers(xs, ys, xt[known] + 0.5, sure[known], seed=0)
    assert nothing is None or not nothing.is_unknown
    few = hs.adapt(table("here", even(60), seed=1), table("there", even(39), seed=2, move=1.0), budget=BUDGET, seed=0)
    words = "Whether there holds classes that the source lacks was not tested: that takes 40 cases of it. Any such case is given a class of the source."
    assert words in few.notes


def some(target: hs.Task, *, step: int = 2) -> hs.Task:
    """The same with every so many-th label."""
    y = [label if i % step == 0 else None for i, label in enumerate(target.target.y or ())]
    return dataclasses.replace(target, target=dataclasses.replace(target.target, y=y), labels=())


def test_a_concept_that_shifted_is_learned_from_a_few_labels(moved: tuple[hs.Task, hs.Task]) -> None:
    """The classes changed their names: nothing that aligns helps, what learns from target labels does."""
    swapped = table("there", even(90), seed=2)
    other = {"ant": "bee", "bee": "cat", "cat": "ant"}
    swapped = dataclasses.replace(swapped, target=dataclasses.replace(swapped.target, y=[other[str(v)] for v in swapped.target.y or ()]))
    found = hs.adapt(moved[0], some(swapped), budget=BUDGET, seed=0, target_labels="some")
    scores = {c.name: c.target_score.value for c in found.candidates if c.target_score is not None}
    assert scores[SOURCE_ONLY] < 0.1
    assert scores["em"] < 0.3
    assert scores["labelled target only"] > 0.9
    assert found.verdict.decision == "adapt"
    assert found.shipped in {"labelled target only", "easyadapt", "tradaboost"}


def test_a_hopeless_target_is_not_called_worth_adapting_to(moved: tuple[hs.Task, hs.Task]) -> None:
    """Labels that have nothing to do with the columns: no candidate is better than another, and none is claimed to be."""
    lost = table("there", even(90), seed=2, move=1.0)
    shuffled = [NAMES[k] for k in np.random.default_rng(5).permutation(even(90))]
    lost = dataclasses.replace(lost, target=dataclasses.replace(lost.target, y=shuffled))
    found = hs.adapt(moved[0], some(lost), budget=BUDGET, seed=0, target_labels="some")
    assert found.verdict.decision != "adapt"
    assert found.verdict.interval[0] < 0.0


def test_shares_that_shifted_are_corrected_by_what_estimates_them() -> None:
    """Classes that overlap, nine to one in the target: with the shares known, fewer of the rare class are named wrongly."""

    def near(name: str, y: np.ndarray, seed: int) -> hs.Task:
        x = np.random.default_rng(seed).normal(size=(len(y), 2)) + 1.2 * y[:, None]
        return hs.Task("classification", "tabular", hs.Domain(name, [{"a": float(a), "b": float(b)} for a, b in x], [NAMES[k] for k in y]), NAMES[:2])

    y = (np.arange(400) % 10 == 0).astype(int)
    target = near("there", y, 2)
    found = hs.adapt(near("here", np.arange(300) % 2, 1), target, budget=BUDGET, seed=0, read_labels=True)
    warned = {w.kind for w in found.warned}
    assert "label shift" in warned
    rate = {r.label: r for r in found.rates}["bee"]
    assert rate.estimated is not None
    assert abs(rate.estimated - 0.1) < 0.06


def test_a_trained_method_is_shipped_and_read_back(moved: tuple[hs.Task, hs.Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "TIERS", ())
    monkeypatch.setattr(trying, "PER_DEEP", 3600.0)
    monkeypatch.setattr(trying, "SAFEST", ("deep-coral",))
    found = hs.adapt(*moved, budget=BUDGET, seed=0, out=tmp_path / "run")
    assert [c.name for c in found.candidates if c.level == "relation"] == ["trained head", "deep-coral"]
    assert found.choice.candidate == "deep-coral" or found.shipped == SOURCE_ONLY
    assert found.after is not None
    rows = list(moved[1].target.x)[:5]
    assert hs.load(tmp_path / "run").predict(rows) == found.predict(rows)
