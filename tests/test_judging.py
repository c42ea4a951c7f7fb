"""Judging: what is chosen for a fold has not seen the fold's cases, and the best of many that are alike is no gain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from headstart.bench import Bench, Silent
from headstart.core import Domain, Inspection, Source, Task
from headstart.evaluate import balanced_accuracy, folds, holdout
from headstart.judging import fit_chosen, judge_arms, verdict
from headstart.learner import Candidate
from headstart.methods.method import Closed, View, knob
from headstart.search import Arena, Clock, Ledger, Search

N = 60


@dataclass(frozen=True)
class Own(Closed):
    """No transfer, on the first view."""

    name: ClassVar[str] = "simple"
    arm: ClassVar[Any] = "baseline"
    level: ClassVar[Any] = "none"
    which: int = knob(0, choices=(0,))

    def view(self, source: Source | None) -> View:
        return View("pooled", "views", (self.which,))

    def estimator(self, *, seed: int) -> Any:
        return GaussianNB()


@dataclass(frozen=True)
class Other(Own):
    """Transfer, on any other view."""

    name: ClassVar[str] = "frozen + head"
    arm: ClassVar[Any] = "frozen"


class Noise:
    """Views of random numbers: none knows the label."""

    def __init__(self, *, views: int, seed: int) -> None:
        self.x = np.random.default_rng(seed).normal(size=(views, N, 2))
        self.digests = [str(i) for i in range(N)]

    def array(self, view: View) -> np.ndarray:
        return self.x[view.cuts[0]]


def searched(folder: Any, *, views: int, seed: int) -> Bench:
    """A bench on which one baseline and all other views were tried."""
    y = np.random.default_rng(seed + 1000).permutation(np.arange(N) % 2)
    train, test = holdout(y, seed=seed)
    task = Task("classification", "tabular", Domain("noise", list(range(N)), [str(c) for c in y]), ("0", "1"))
    arena = Arena(Noise(views=views, seed=seed), y, 2, Ledger(folder / str(seed)), seed)  # type: ignore[arg-type]
    search = Search(arena, [(train[a], train[b]) for a, b in folds(y[train], seed=seed)], "")
    bench = Bench(task, Inspection(()), y, None, train, test, {}, arena, search, Clock(60.0), Silent(), seed, y, ("0", "1"), None)  # type: ignore[arg-type]
    search.fixed([Candidate(Own(0))], deadline=np.inf)
    search.fixed([Candidate(Other(k), Source("s")) for k in range(1, views)], deadline=np.inf)
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


def test_the_best_of_many_sources_of_noise_is_judged_to_gain_nothing(tmp_path):
    """24 views against one, labels at random, 12 worlds: the winner's search score lies far above the baseline's, its judged gain about 0."""
    searched_gain, judged = [], []
    for seed in range(12):
        bench = searched(tmp_path, views=25, seed=seed)
        best, baseline = bench.search.best("frozen"), bench.search.best("baseline")
        searched_gain.append(best.score - baseline.score)
        judged.append(verdict(bench, judge_arms(bench, fit_chosen(bench)), margin=0.0)[0].gain)
    error = np.std(judged, ddof=1) / np.sqrt(len(judged))
    assert np.mean(searched_gain) > 0.10
    assert abs(np.mean(judged)) < 3 * error < 0.10
