"""Search: the clock, the ledger of folds, and trials that a killed run replays without computing anything twice."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
import pytest
from sklearn.naive_bayes import GaussianNB

from headstart.evaluate import folds
from headstart.journal import Journal
from headstart.learner import Candidate, learn
from headstart.ledger import Ledger
from headstart.methods.method import Arm, Closed, Level, View, knob
from headstart.result import Trial
from headstart.search import Arena, Clock, Search

Y = np.arange(60) % 2
SIGNAL = (0.0, 0.5, 1.0, 1.0, 9.0, 9.0)  # distance of the two classes in each column, in standard deviations
NEVER = float("inf")


@dataclass(frozen=True)
class Column(Closed):
    """Learns from one column; ``smoothing`` changes probabilities, hardly labels."""

    name: ClassVar[str] = "column"
    arm: ClassVar[Arm] = "baseline"
    level: ClassVar[Level] = "none"
    column: int = knob(0, choices=tuple(range(len(SIGNAL))))
    smoothing: float = knob(1e-3, low=1e-4, high=1e-1, log=True)

    def view(self, source: object) -> View:
        return View("pooled", cuts=(self.column,))

    def estimator(self, *, seed: int) -> GaussianNB:
        return GaussianNB(var_smoothing=self.smoothing)


@dataclass(frozen=True)
class Planted:
    """Views of a world whose columns are known: 2 and 3 are equal, 4 and 5 separate the classes."""

    digests: tuple[str, ...] = tuple(f"d{i}" for i in range(len(Y)))

    def array(self, view: View) -> np.ndarray:
        x = np.random.default_rng(0).standard_normal((len(Y), len(SIGNAL))) + np.outer(Y, SIGNAL)
        x[:, 3] = x[:, 2]
        return x[:, list(view.cuts)]


def search(folder: Path, *, seed: int = 0) -> Search:
    arena = Arena(Planted(), Y, 2, Ledger(folder / "folds"), seed)
    return Search(arena, folds(Y, k=3, repeats=1, seed=0), Journal.in_folder(folder, metric="balanced accuracy"))


def columns(*which: int) -> list[Candidate]:
    return [Candidate(Column(i)) for i in which]


def plan(one: Search) -> Search:
    one.fixed(columns(0, 1), deadline=NEVER)
    one.propose(Column(), [None], count=4, deadline=NEVER, rival=one.trials[1])
    return one


def journalled(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="column", storage=f"sqlite:///{folder / 'journal.sqlite'}").trials


class Counted(list):
    """Every candidate that is fitted, in order; a kill comes when ``kill`` of them are done."""

    kill = -1

    def learn(self, candidate: Candidate, *args: Any, **how: Any) -> Any:
        if len(self) == self.kill:
            raise KeyboardInterrupt
        self.append(candidate)
        return learn(candidate, *args, **how)


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr("headstart.search.learn", counted.learn)
    return counted


def test_the_clock_counts_what_earlier_calls_used() -> None:
    clock = Clock(100.0, spent=40.0, began=time.monotonic() - 10.0)
    assert clock.used() == pytest.approx(50.0, abs=0.5)
    assert clock.deadline(0.6) == pytest.approx(time.monotonic() + 10.0, abs=0.5)
    assert [clock.late(share) for share in (0.4, 0.6)] == [True, False]
    assert [clock.late(0.6, need=seconds) for seconds in (5.0, 15.0)] == [False, True]


def test_a_fold_is_made_once_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "folds")
    values = np.array([[0.1, 0.9], [1 / 3, 2 / 3]])
    first, seconds = ledger.outcome({"a": 1, "b": [2]}, lambda: (time.sleep(0.02), values)[1])
    again, same = Ledger(tmp_path / "folds").outcome({"b": [2], "a": 1}, lambda: pytest.fail("made twice"))
    assert first.tobytes() == again.tobytes() == values.tobytes()
    assert seconds == same == ledger.seconds() >= 0.02
    assert ledger.outcome({"a": 2, "b": [2]}, lambda: values + 1)[0].tolist() == (values + 1).tolist()
    assert [p.suffix for p in ledger.folder.iterdir()] == [".npz", ".npz"]


def test_what_a_killed_run_left_in_the_ledger_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".f9d86028c6e0d64e225186f96acb6933.npz.4711").write_bytes(b"PK")
    assert Ledger(tmp_path).seconds() == 0
    assert Ledger(tmp_path).outcome({"a": 1}, lambda: np.ones((1, 2)))[0].tolist() == [[1, 1]]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_fold_is_made_again(tmp_path: Path, share: float) -> None:
    ledger = Ledger(tmp_path)
    ledger.outcome({"a": 1}, lambda: np.zeros((50, 2)))
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert ledger.seconds() >= 0
    assert ledger.outcome({"a": 1}, lambda: np.ones((50, 2)))[0].tolist() == np.ones((50, 2)).tolist()
    assert ledger.outcome({"a": 1}, lambda: pytest.fail("made twice"))[0].tolist() == np.ones((50, 2)).tolist()


def test_the_best_trial_has_the_highest_mean_and_of_equals_came_first(tmp_path: Path) -> None:
    one = search(tmp_path)
    one.fixed(columns(0, 3, 2), deadline=NEVER)
    assert one.best("baseline").params["column"] == 3
    one.fixed(columns(5, 4, 1), deadline=NEVER)
    assert [t.params["column"] for t in one.trials] == [0, 3, 2, 5, 4, 1]
    assert one.trials[1].folds == one.trials[2].folds
    assert one.best("baseline") is one.trials[3]
    assert one.best("baseline").folds == (1.0, 1.0, 1.0)
    assert one.best("frozen") is None


def test_a_setting_that_was_tried_is_passed_over(tmp_path: Path, learnt: Counted) -> None:
    one = search(tmp_path)
    one.fixed([*columns(1, 2, 1), Candidate(Column(1, smoothing=1e-2))], deadline=NEVER)
    one.fixed(columns(2, 1), deadline=NEVER)
    assert [tuple(t.params.values()) for t in one.trials] == [(1, 1e-3), (2, 1e-3), (1, 1e-2)]
    assert len(learnt) == 3 * len(one.folds)


def test_proposals_follow_from_the_seed(tmp_path: Path) -> None:
    a, b, c = (search(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    for one in (a, b, c):
        one.propose(Column(), [None], count=5, deadline=NEVER)
    assert a.trials == b.trials
    assert len({str(t.params) for t in a.trials + c.trials}) == 10


@pytest.mark.parametrize("kill", [0, 2, 3, 7, -1])
def test_a_killed_search_goes_on_with_the_same_trials_and_repeats_no_fold(tmp_path: Path, learnt: Counted, kill: int) -> None:
    right = plan(search(tmp_path / "whole"))
    needed = learnt.copy()
    learnt.clear()
    learnt.kill = kill % len(needed)
    with pytest.raises(KeyboardInterrupt):
        plan(search(tmp_path / "killed"))
    learnt.kill = -1
    again = plan(search(tmp_path / "killed"))
    assert again.trials == right.trials
    assert learnt == needed
    assert [(t.params, t.value) for t in journalled(tmp_path / "killed")] == [(t.params, t.value) for t in journalled(tmp_path / "whole")]


def test_a_trial_far_behind_its_rival_is_stopped_and_says_so(tmp_path: Path) -> None:
    one = search(tmp_path)
    one.fixed(columns(1), deadline=NEVER)
    right = np.array(one.trials[0].folds)
    for gap, ran, status in ((0.02, 3, "complete"), (0.05, 2, "stopped"), (0.2, 1, "stopped")):
        rival = Trial(7, "baseline", "other", None, {}, tuple(right + gap))
        one.fixed([Candidate(Column(1, smoothing=1e-3 * (1 + gap)))], deadline=NEVER, rival=rival)
        last = one.trials[-1]
        assert (len(last.folds), last.status) == (ran, status)
        assert last.reason == ("" if status == "complete" else f"{gap:.3f} behind trial 7 after {ran} of its folds")
    assert one.best("baseline") is one.trials[0]


def test_the_journal_holds_each_trial_once_and_opens_in_optuna(tmp_path: Path) -> None:
    for one in (search(tmp_path), search(tmp_path)):
        one.fixed(columns(0, 1, 4), deadline=NEVER)
    recorded = journalled(tmp_path)
    assert [(t.params, t.user_attrs["number"], tuple(t.user_attrs["folds"])) for t in recorded] == [(t.params, t.number, t.folds) for t in one.trials]
    assert [t.value for t in recorded] == [t.score for t in one.trials]


def test_no_time_is_no_trial_and_finished_folds_need_none(tmp_path: Path, learnt: Counted) -> None:
    late = time.monotonic() - 1
    one, two, three = (search(tmp_path) for _ in range(3))
    one.fixed(columns(0, 1), deadline=late)
    assert (one.trials, one.ran_out, learnt, one.best("baseline")) == ([], True, [], None)
    two.fixed(columns(0, 1), deadline=NEVER)
    assert (two.ran_out, all(two.seconds.values())) == (False, True)
    three.fixed(columns(0, 1, 2), deadline=late)
    assert (three.trials, three.seconds, three.ran_out) == (two.trials, two.seconds, True)
