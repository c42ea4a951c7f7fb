"""Judging: what is chosen for a fold has not seen the fold's cases, and the best of many that are alike is no gain."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from headstart.bench import Bench, Silent
from headstart.contenders import contest
from headstart.core import Domain, Inspection, Source, Task
from headstart.evaluate import balanced_accuracy, folds, holdout
from headstart.guard import holm
from headstart.judging import fit_chosen, fresh_folds, judge_arms, kind_inside, verdict
from headstart.learner import Candidate
from headstart.ledger import Ledger
from headstart.methods.method import Closed, View, knob
from headstart.search import Arena, Clock, Search

N = 60


@dataclass(frozen=True)
class Own(Closed):
    """No transfer, on the first view."""

    name: ClassVar[str] = "simple"
    arm: ClassVar[Any] = "baseline"
    level: ClassVar[Any] = "none"
    features: int = knob(0, choices=(0,))

    def view(self, source: Source | None) -> View:
        return View("pooled", "views", (self.features,))

    def estimator(self, *, seed: int) -> Any:
        return GaussianNB()


@dataclass(frozen=True)
class Other(Own):
    """Transfer, on any other view."""

    name: ClassVar[str] = "frozen + head"
    arm: ClassVar[Any] = "frozen"


@dataclass(frozen=True)
class Deep(Own):
    """Transfer that counts as fine-tuning."""

    name: ClassVar[str] = "deep"
    arm: ClassVar[Any] = "fine-tuned"


class Noise:
    """Views of random numbers: none knows the label."""

    def __init__(self, *, views: int, seed: int) -> None:
        self.x = np.random.default_rng(seed).normal(size=(views, N, 2))
        self.digests = [str(i) for i in range(N)]

    def array(self, view: View) -> np.ndarray:
        return self.x[view.cuts[0]]


@dataclass(frozen=True)
class Remembered(Ledger):
    """A ledger without a disk, for tests of thousands of folds."""

    held: dict[str, np.ndarray] = field(default_factory=dict)

    def outcome(self, key, make, *, patience=-1.0):
        name = json.dumps(key, sort_keys=True)
        if name not in self.held:
            self.held[name] = make()
        return self.held[name], 0.0


def searched(folder: Any, *, views: int, seed: int, own: int = 1, apart: bool = False, tell: int | None = None) -> Bench:
    """A bench on which ``own`` baselines, and all views after the first as sources, ``apart`` or one, were tried; the view ``tell`` knows the label."""
    y = np.random.default_rng(seed + 1000).permutation(np.arange(N) % 2)
    train, test = holdout(y, seed=seed)
    task = Task("classification", "tabular", Domain("noise", list(range(N)), [str(c) for c in y]), ("0", "1"))
    noise = Noise(views=views, seed=seed)
    if tell is not None:
        noise.x[tell, :, 0] += 6.0 * y
    arena = Arena(noise, y, 2, Remembered(folder), seed)  # type: ignore[arg-type]
    search = Search(arena, [(train[a], train[b]) for a, b in folds(y[train], seed=seed)], None)
    bench = Bench(task, Inspection(()), y, None, train, test, {}, arena, search, Clock(60.0), Silent(), seed, y, ("0", "1"), None)  # type: ignore[arg-type]
    search.fixed([Candidate(Own(k)) for k in range(own)], deadline=np.inf)
    search.fixed([Candidate(Other(k), Source(f"s{k}" if apart else "s")) for k in range(1, views)], deadline=np.inf)
    return bench


def test_scores_without_no_case_are_those_of_the_search(tmp_path):
    search = searched(tmp_path, views=4, seed=0).search
    for trial in search.trials:
        assert search.scores(trial, without=np.zeros(0, dtype=int)) == pytest.approx(trial.folds)
    assert search.best("frozen", without=np.zeros(0, dtype=int)) == search.best("frozen")


def test_scores_without_some_cases_equal_those_of_the_other_rows_alone(tmp_path):
    bench = searched(tmp_path, views=3, seed=1)
    search, out = bench.search, bench.train[::3]
    for trial, candidate in zip(search.trials, search.candidates, strict=True):
        X = bench.arena.views.array(candidate.view)
        expected = []
        for a, b in search.folds:
            kept = np.setdiff1d(b, out)
            expected.append(balanced_accuracy(bench.y[kept], GaussianNB().fit(X[a], bench.y[a]).predict(X[kept])))
        assert search.scores(trial, without=out) == pytest.approx(expected)


def test_targets_of_a_folds_own_cases_have_no_say_in_what_is_chosen_for_it(tmp_path):
    bench = searched(tmp_path, views=12, seed=2)
    out = bench.train[:20]
    before = bench.search.best("frozen", without=out)
    bench.y[out] = 1 - bench.y[out]
    assert bench.search.best("frozen", without=out) == before


def test_a_search_fold_whose_cases_are_all_left_out_is_left_out(tmp_path):
    search = searched(tmp_path, views=2, seed=3).search
    assert len(search.scores(search.trials[0], without=search.folds[0][1])) == len(search.folds) - 1


@pytest.mark.parametrize(
    ("tell", "modality", "stands"),
    [(None, "image", "fine-tuned"), (None, "tabular", "frozen"), (None, "text", "frozen"), (1, "image", "frozen"), (2, "tabular", "fine-tuned")],
)
def test_where_folds_cannot_tell_images_take_fine_tuning_and_what_is_clearly_better_stands_in_any_case(tmp_path, tell, modality, stands):
    """Views 1 and 2 are frozen features and fine-tuning: both noise, or one of them knows the label."""
    bench = searched(tmp_path, views=3, seed=0, tell=tell)
    bench.search.trials, bench.search.candidates = bench.search.trials[:2], bench.search.candidates[:2]
    bench.search.fixed([Candidate(Deep(1 if tell is None else 2), Source("s"))], deadline=np.inf)
    bench.task = dataclasses.replace(bench.task, modality=modality)
    assert verdict(bench, judge_arms(bench, fit_chosen(bench)), margin=0.0).stands.name == stands


def test_the_best_of_many_sources_of_noise_is_judged_to_gain_nothing(tmp_path):
    """24 views against one, labels at random, 12 worlds: the winner's search score lies far above the baseline's, its judged gain about 0."""
    searched_gain, judged = [], []
    for seed in range(12):
        bench = searched(tmp_path, views=25, seed=seed)
        best, baseline = bench.search.best("frozen"), bench.search.best("baseline")
        searched_gain.append(best.score - baseline.score)
        judged.append(verdict(bench, judge_arms(bench, fit_chosen(bench)), margin=0.0).verdict.gain)
    error = np.std(judged, ddof=1) / np.sqrt(len(judged))
    assert np.mean(searched_gain) > 0.10
    assert abs(np.mean(judged)) < 3 * error < 0.10


def test_the_best_of_many_baselines_of_noise_is_judged_at_chance(tmp_path):
    """12 kinds of baseline that know nothing, 8 worlds: the winner's search score lies far above chance, its judged score at chance."""
    searched_score, judged = [], []
    for seed in range(8):
        bench = searched(tmp_path, views=12, seed=seed, own=12)
        searched_score.append(bench.search.best("baseline").score)
        judged.append(next(a for a in judge_arms(bench, fit_chosen(bench)) if a.name == "baseline").cv.value)
    error = np.std(judged, ddof=1) / np.sqrt(len(judged))
    assert np.mean(searched_score) > 0.57
    assert abs(np.mean(judged) - 0.5) < 2.5 * error < 0.10


def test_a_baseline_that_trails_far_is_not_fitted_again_inside_a_fold(tmp_path):
    bench = searched(tmp_path, views=4, seed=4, own=4, tell=2)
    kept = {kind_inside(bench, "baseline", fold, deadline=-np.inf) for fold in fresh_folds(bench)}
    assert kept == {("simple", 2, None)}  # nothing was fitted, for there was no time


def test_the_source_that_knows_the_label_alone_is_said_to_help(tmp_path):
    bench = searched(tmp_path, views=7, seed=5, apart=True, tell=3)
    arms = judge_arms(bench, fit_chosen(bench))
    found = contest(bench, arms, margin=0.0)
    assert {c.source for c in found} == {f"s{k}" for k in range(1, 7)}
    assert [c.source for c in found if c.helps] == ["s3"] == [found[0].source]
    assert [c.gain for c in found] == sorted((c.gain for c in found), reverse=True)
    assert [c.p_holm for c in found] == pytest.approx(holm([c.p for c in found]))
    X, base = bench.arena.views.array(View("pooled", "views", (3,))), next(a for a in arms if a.name == "baseline").folds
    own = [balanced_accuracy(bench.y[b], GaussianNB().fit(X[a], bench.y[a]).predict(X[b])) for a, b in fresh_folds(bench)]
    assert found[0].gain == pytest.approx(np.mean(own) - np.mean(base))


def test_a_contender_for_which_no_time_is_left_is_left_out(tmp_path):
    bench = searched(tmp_path, views=7, seed=5, apart=True, tell=3)
    arms = judge_arms(bench, fit_chosen(bench))
    bench.clock.budget = -1.0
    assert [c.source for c in contest(bench, arms, margin=0.0)] == ["s3"]  # the arm's own folds are at hand
    assert bench.search.ran_out
