"""One space, many proposers: what a space holds, who proposes what, what is given up, and a whole run on tables by each word."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import headstart as hs
from headstart import plan
from headstart.bench import Bench, Silent
from headstart.bounds import Bounds, Refusal
from headstart.core import Domain, Inspection, Source, Task
from headstart.evaluate import folds
from headstart.joint import EVERYTHING, by_own_name, known_good, searched
from headstart.journal import Journal, best_of
from headstart.keeping import Settings
from headstart.learner import Candidate
from headstart.ledger import Ledger
from headstart.methods import AugmentImage, FineTune, Head2Toe, Probe, ProbeRegressor, Stages
from headstart.methods.method import View
from headstart.pretrain import source_from_table
from headstart.proposing import BLIND, WORDS, Proposal, Proposer
from headstart.result import RankedSource, Score, Trial
from headstart.search import Arena, Clock, Here, Piece, Search
from headstart.spaces import Space

NEVER = float("inf")
N = 300
Y = np.arange(N) % 2
STAGES = ("one", "two", "three", "four")
NAMES = ("good", "bad", "middling")


def source(name: str) -> Source:
    return Source(name, stages=STAGES, digest=lambda: name)


class Planted:
    """A view of every kind holds the labels themselves; what is made of them is planted too, see :func:`worth`."""

    digests = tuple(str(i) for i in range(N))

    def array(self, view: View) -> np.ndarray:
        return Y


@dataclass(frozen=True)
class Guess:
    """Says the truth as often as the candidate deserves, drawn from what was asked."""

    share: float
    dice: int

    def output(self, x: np.ndarray) -> np.ndarray:
        right = np.random.default_rng([self.dice, len(x)]).uniform(size=len(x)) < self.share
        return np.eye(2)[np.where(right, x, 1 - x)]


def worth(candidate: Candidate) -> float:
    """The share of cases that a candidate gets right: the good source is at its best two stages before its end."""
    assert candidate.source is not None
    params = candidate.params
    stage = {"good": (0.70, 0.75, 0.95, 0.72), "middling": (0.78, 0.72, 0.7, 0.7)}.get(candidate.source.name, (0.6, 0.6, 0.55, 0.5))
    if candidate.method.name == "head2toe":
        return 0.7 + 0.05 * params["keep"]
    return stage[params["back"]] - 0.02 * params["span"] + 0.03 * (params["head"] == "ridge")


def learnt(candidate: Candidate, views: Any, rows: np.ndarray, *args: Any, **how: Any) -> Guess:
    text = json.dumps([candidate.describe(), rows.tolist()], sort_keys=True)
    return Guess(worth(candidate), int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.search.learn", learnt)


def bench(
    folder: Path, *, seed: int = 0, k: int = 4, journal: bool = False, probed: Sequence[str] = NAMES, names: Sequence[str] = NAMES
) -> tuple[Bench, list[RankedSource]]:
    """A bench on which those sources were probed, and their ranking."""
    pool = {name: source(name) for name in names}
    task = Task("classification", "image", Domain("planted", list(range(N)), [str(c) for c in Y]), ("0", "1"))
    arena = Arena(Planted(), Y, 2, Ledger(folder / "folds"), seed)  # type: ignore[arg-type]
    search = Search(arena, folds(Y, k=k, seed=0), Journal.in_folder(folder, metric="balanced accuracy") if journal else None)
    rows = np.arange(N)
    one = Bench(task, Inspection(()), Y, None, rows, rows[:0], pool, arena, search, Clock(600.0), Silent(), seed, Y, ("0", "1"), None)  # type: ignore[arg-type]
    search.fixed([Candidate(Probe(), pool[name]) for name in probed], deadline=NEVER)
    ranked = sorted(search.trials, key=lambda t: -t.score)
    return one, [RankedSource(str(t.source), Score("balanced accuracy", t.score), 1, 4, "", "") for t in ranked]


def run(folder: Path, word: str, *, trials: int = 24, **how: Any) -> Bench:
    one, ranked = bench(folder, **how)
    searched(one, ranked, (Head2Toe,), hs.Terms(search=word, trials=trials))
    return one


def field(*, settings: Settings | None = None, classes: int = 2) -> Space:
    return Space(
        {"frozen + head": Probe(), "head2toe": Head2Toe(), "fine-tune": FineTune()},
        {"good": tuned("good"), "bad": tuned("bad")},
        settings or Settings(),
        classes,
    )


def tuned(name: str) -> Source:
    return Source(name, stages=STAGES, digest=lambda: name, tune_cuts=(0,), modality="tabular")


def test_parameters_and_candidates_undo_each_other_over_the_whole_grid() -> None:
    whole = field()
    rows = list(itertools.islice(whole.grid(), 400))
    assert len({str((c.method, c.source and c.source.name, c.settings)) for c in rows}) == 400
    for candidate in rows:
        params = whole.params(candidate)
        assert params is not None
        again = whole.candidate(params)
        assert again is not None
        assert again.describe() == candidate.describe()


def test_a_grid_cut_short_has_seen_every_method_on_every_source() -> None:
    seen = {(c.method.name, c.source.name) for c in itertools.islice(field().grid(), 6) if c.source}
    assert len(seen) == 6


def test_what_training_does_to_the_data_is_searched_unless_the_user_has_set_it() -> None:
    assert {"mixup", "balance"} <= set(field().knobs("fine-tune"))
    assert "mixup" not in field(settings=Settings(mixup=0.1)).knobs("fine-tune")
    assert "balance" not in field(classes=0).knobs("fine-tune")
    assert not {"mixup", "balance"} & set(field().knobs("head2toe"))
    params = {"method": "fine-tune", "source": "good"} | {
        f"fine-tune.{k}": getattr(FineTune(), k) for k in ("depth", "rate", "decay", "steps", "smoothing", "dropout")
    }
    mixed = field().candidate({**params, "fine-tune.mixup": 0.2, "fine-tune.balance": "weights"})
    plain = field().candidate({**params, "fine-tune.mixup": 0.0, "fine-tune.balance": "weights"})
    assert mixed is not None
    assert plain is not None
    assert mixed.params["mixup"] == 0.2
    assert plain.settings is None
    assert plain.describe() == Candidate(FineTune(), tuned("good")).describe() != mixed.describe()


def test_a_method_is_not_proposed_on_a_source_that_cannot_bear_it() -> None:
    whole = Space({"fine-tune": FineTune()}, {"bare": source("bare")}, Settings(), 2)
    assert whole.candidate({"method": "fine-tune", "source": "bare"}) is None
    assert list(whole.grid()) == []


@dataclass(frozen=True)
class NoRoom:
    """Leaves out the good source's widest features and all of the middling one, as bounds do that they break."""

    bounds: Bounds = field_of(default_factory=lambda: Bounds(size=1))

    def refusal(self, candidate: Candidate, *, deadline: float) -> Refusal | None:
        name = "" if candidate.source is None else candidate.source.name
        return Refusal(1.0, "too large") if name == "middling" or (name == "good" and candidate.params.get("span") == 4) else None


@pytest.mark.parametrize("word", WORDS)
def test_whoever_proposes_what_breaks_a_bound_is_left_out_and_counts_for_no_trial(tmp_path: Path, planted: None, word: str) -> None:
    one, ranked = bench(tmp_path, journal=True)
    one.search.sieve = NoRoom()
    searched(one, [r for r in ranked if r.name != "middling"], (Head2Toe,), hs.Terms(search=word, trials=24))
    probed, tried = one.search.trials[:3], one.search.trials[3:]
    run_, left = [t for t in tried if t.status != "excluded"], [t for t in tried if t.status == "excluded"]
    assert len(probed) + len(run_) == 24
    assert left
    assert all(t.reason == "too large" and not t.folds and t.params["span"] == 4 for t in left)
    assert all(NoRoom().refusal(one.search.candidates[t.number], deadline=NEVER) is None for t in run_)
    assert len({str(c.describe()) for c in one.search.candidates}) == len(one.search.candidates)
    assert not {t.number for t in left} & set(one.search.seconds)
    studies = [optuna.load_study(study_name=n, storage=one.search.journal.storage) for n in optuna.get_all_study_names(one.search.journal.storage)]  # type: ignore[union-attr]
    failed = {t.user_attrs["number"] for s in studies for t in s.trials if t.state is optuna.trial.TrialState.FAIL}
    assert failed == {t.number for t in left}


def test_tpe_keeps_away_from_what_breaks_a_bound(tmp_path: Path, planted: None) -> None:
    one, ranked = bench(tmp_path)
    one.search.sieve = NoRoom()
    searched(one, ranked, (), hs.Terms(search="bayes", trials=40))
    where = [t.source == "middling" for t in one.search.trials[8:]]  # behind probes and known-good settings
    assert sum(where) <= len(where) / 3  # blind draws from three sources meet it in a third of cases, and it has the best first probe


@pytest.mark.parametrize("word", WORDS)
def test_each_word_tries_as_many_settings_as_were_asked_and_none_twice(tmp_path: Path, planted: None, word: str) -> None:
    one = run(tmp_path / "a", word, trials=16)
    assert len(one.search.trials) == 16
    assert len({str(c.describe()) for c in one.search.candidates}) == 16
    again = run(tmp_path / "b", word, trials=16)
    assert again.search.trials == one.search.trials
    other = run(tmp_path / "c", word, trials=16, seed=1)
    same = [t.params for t in other.search.trials] == [t.params for t in one.search.trials]
    assert same == (word == "grid")


class Eager(Here):
    """A runner with room for nine folds, which computes whatever it is told of ahead."""

    width = 9

    def ahead(self, arena: Arena, pieces: Iterable[Piece], *, deadline: float) -> None:
        for piece in pieces:
            self.outcome(arena, piece, deadline=deadline, patience=0.0)


@pytest.mark.parametrize("word", ["random", "grid", "bayes", "halving"])
def test_what_is_computed_ahead_changes_no_trial(tmp_path: Path, planted: None, word: str) -> None:
    one, ranked = bench(tmp_path / "ahead")
    one.arena = one.search.arena = dataclasses.replace(one.arena, runner=Eager())
    searched(one, ranked, (Head2Toe,), hs.Terms(search=word, trials=16))
    alone = run(tmp_path / "alone", word, trials=16)
    assert one.search.trials == alone.search.trials
    computed = [len(list((tmp_path / name / "folds").iterdir())) for name in ("ahead", "alone")]
    assert computed[0] == computed[1] if word in BLIND else computed[0] >= computed[1]


def led(folder: Path, word: str, *, trials: int, others: Sequence[str] = ("bad", "middling"), width: type[Here] = Here) -> tuple[Bench, tuple[Candidate, ...]]:
    """A search that begins with the good source alone, and the probes of others that come in between."""
    one, ranked = bench(folder, probed=("good",), names=("good", *others))
    one.arena = one.search.arena = dataclasses.replace(one.arena, runner=width())
    probes = tuple(Candidate(Probe(), one.sources[name]) for name in others)
    searched(one, ranked, (Head2Toe,), hs.Terms(search=word, trials=trials), probes=probes)
    return one, probes


INFORMED = [word for word in WORDS if word not in BLIND]


@pytest.mark.parametrize("word", INFORMED)
def test_every_third_trial_is_the_next_probe_and_what_is_known_follows_the_source_that_leads(tmp_path: Path, planted: None, word: str) -> None:
    one, probes = led(tmp_path, word, trials=16)
    found = [one.search.tried(probe) for probe in probes]
    assert [t and (t.number, t.status, len(t.folds)) for t in found] == [(3, "complete", 4), (6, "complete", 4)]
    assert len(one.search.trials) == 16
    assert [t.source for t in one.search.trials[:9]] == ["good", "good", "good", "bad", "good", "good", "middling", "middling", "middling"]
    first, then = ([(t.method, dict(t.params)) for t in one.search.trials[a : a + 2]] for a in (1, 7))
    assert first == then == [(c.method.name, c.params) for c in known_good(one.search.space, one.sources["middling"])][:2]  # type: ignore[arg-type]


def test_many_sources_and_the_search_leave_each_other_room(tmp_path: Path, planted: None) -> None:
    names = [f"source {i}" for i in range(23)]
    one, probes = led(tmp_path, "bayes", trials=12, others=names)
    between = [one.search.tried(probe) is not None and one.search.tried(probe).number < 12 for probe in probes]  # type: ignore[union-attr]
    assert between == [True] * 3 + [False] * 20
    assert len(one.search.trials) == 12 + 20
    assert {r.name for r in plan.ranked(one, probes)} == set(names)
    assert not one.notes


def test_sources_that_no_time_was_left_for_are_named(tmp_path: Path, planted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(self: Search, *args: Any, **how: Any) -> bool:
        return len(self.trials) < 5 and enough(self, *args, **how)

    enough = Search.attempt
    monkeypatch.setattr(Search, "attempt", attempt)
    one, probes = led(tmp_path, "bayes", trials=12, others=("bad", "middling", "third"))
    assert one.notes == ["The search ended before these sources were probed, so they are not ranked: middling, third."]
    assert [r.name for r in plan.ranked(one, probes)] == ["bad"]


@pytest.mark.parametrize("word", INFORMED)
def test_probes_computed_ahead_change_no_trial(tmp_path: Path, planted: None, word: str) -> None:
    ahead, alone = (led(tmp_path / width.__name__, word, trials=14, width=width)[0] for width in (Eager, Here))
    assert ahead.search.trials == alone.search.trials


def test_a_search_that_is_run_again_repeats_no_fit(tmp_path: Path, planted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path, "hyperband")
    monkeypatch.setattr("headstart.search.learn", lambda *args, **how: pytest.fail("fitted twice"))
    assert run(tmp_path, "hyperband").search.trials == first.search.trials


def test_warm_starts_are_those_that_did_well_elsewhere_and_cheap_before_dear() -> None:
    """Training is cheap on a table; on images and texts two settings on stored features come before it."""
    whole = Space({"fine-tune": FineTune(), "head2toe": Head2Toe(), "stages": Stages(), "frozen + head": Probe()}, {"good": tuned("good")}, Settings(), 2)
    names = [c.method.name for c in known_good(whole, tuned("good"))]
    assert names == ["stages", "frozen + head", "head2toe", "frozen + head", "fine-tune", *["frozen + head"] * 4]
    names = [c.method.name for c in known_good(whole, dataclasses.replace(tuned("good"), modality="image"))]
    assert names == ["stages", "frozen + head", "fine-tune", "head2toe", *["frozen + head"] * 5]
    copies = Space({"augment": AugmentImage(), "stages": Stages(), "frozen + head": Probe()}, {"good": tuned("good")}, Settings(), 2)
    names = [c.method.name for c in known_good(copies, dataclasses.replace(tuned("good"), modality="image"))]
    assert names == ["stages", *["frozen + head"] * 6, "augment"]
    assert {c.source.name for c in known_good(field(), tuned("good")) if c.source} == {"good"}


def needed(folder: Path, word: str) -> float:
    """Mean number of the first trial that comes near the planted optimum, over five seeds; one more than all where none does."""
    found = []
    for seed in range(5):
        trials = run(folder / f"{word}{seed}", word, trials=30, seed=seed).search.trials
        found.append(next((t.number for t in trials if t.score >= 0.9), 31))
    return float(np.mean(found))


@pytest.mark.parametrize("word", ["bayes", "gp"])
def test_where_what_is_known_holds_a_search_needs_a_third_of_the_trials_of_blind_draws(
    tmp_path: Path, planted: None, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """The source whose probe leads is at its best one stage before its end, over four stages: one of the settings that did well elsewhere."""

    otherwise = worth

    def known(candidate: Candidate) -> float:
        assert candidate.source is not None
        place = candidate.source.name, candidate.params.get("back"), candidate.params.get("span")
        return 0.95 if place == ("middling", 1, 4) else min(0.8, otherwise(candidate))

    monkeypatch.setitem(learnt.__globals__, "worth", known)
    assert needed(tmp_path, word) <= needed(tmp_path, "random") / 3


@pytest.mark.parametrize("word", ["bayes", "gp"])
def test_every_third_proposal_is_drawn_blindly_while_known_good_settings_are_tried(word: str) -> None:
    one = field()
    proposer = Proposer(word, one, 0, 4)
    listed = list(known_good(one, tuned("good")))
    proposer.first(listed)
    asked = [proposer.propose(lambda candidate: False) for _ in range(9)]
    described = [p.candidate.describe() for p in asked if p is not None]
    assert [described[k] for k in (0, 1, 3, 4, 6, 7)] == [c.describe() for c in listed[:6]]
    assert all(described[k] not in [c.describe() for c in listed[:6]] for k in (2, 5, 8))


@pytest.mark.parametrize("word", ["halving", "hyperband"])
def test_what_goes_on_to_more_folds_was_in_the_best_third_of_its_rung(tmp_path: Path, planted: None, word: str) -> None:
    trials = run(tmp_path, word, trials=36).search.trials[len(NAMES) :]
    spent = Counter(len(t.folds) for t in trials)
    assert spent[4] == sum(t.status == "complete" for t in trials)
    assert spent[1] > 0
    if word == "halving":  # at the end of the search, those that went on are among the best third so far of those that reached the rung, or were when asked
        for k, t in enumerate(trials):
            earlier = sorted((x.folds[0] for x in trials[: k + 1]), reverse=True)
            goes_on = t.folds[0] >= earlier[max(1, len(earlier) // 3) - 1]
            assert (len(t.folds) > 1) == goes_on
    assert all("best third" in t.reason for t in trials if t.status == "stopped")


def test_giving_up_between_folds_needs_two() -> None:
    with pytest.raises(hs.InputError, match=r"--search halving gives up between folds, and there is one. Take --folds 5, or --search bayes."):
        Proposer("halving", field(), 0, 1)


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path, planted: None) -> None:
    one, ranked = bench(tmp_path)
    searched(one, ranked[:1], (), hs.Terms(search="bayes", trials=400))
    assert len([t for t in one.search.trials if t.source == ranked[0].name]) <= 3 * 4 * 3
    assert len(one.search.trials) < 400


def test_stopping_by_hand_keeps_the_best_so_far(tmp_path: Path, planted: None) -> None:
    one, ranked = bench(tmp_path)

    def enough(trial: object) -> None:
        if len(one.search.trials) == 9:
            raise KeyboardInterrupt

    one.search.on_trial = enough
    searched(one, ranked, (), hs.Terms(search="bayes", trials=30))
    assert len(one.search.trials) == 9
    assert one.search.best("frozen").score == max(t.score for t in one.search.trials)
    assert one.search.ran_out
    assert one.notes == ["The search was stopped by hand after 9 trials; the best of them was judged."]


def test_the_best_settings_of_a_past_run_are_tried_first(tmp_path: Path, planted: None) -> None:
    past = run(tmp_path / "past", "bayes", trials=30, journal=True)
    best = best_of(tmp_path / "past" / "journal.sqlite", count=5)
    assert len(best) == 5
    top = past.search.best("frozen")
    assert best[0][0] == top.method
    one, ranked = bench(tmp_path / "next")
    searched(one, ranked, (Head2Toe,), hs.Terms(search="bayes", trials=8, prior=tmp_path / "past"))
    probed = {(t.method, t.source, str(dict(t.params))) for t in one.search.trials[:3]}
    wanted = [(m, s, str(p)) for m, s, p in best if (m, s, str(p)) not in probed]
    assert [(t.method, t.source, str(dict(t.params))) for t in one.search.trials[3 : 3 + len(wanted)]] == wanted
    with pytest.raises(hs.InputError, match="holds no journal of a run"):
        searched(one, ranked, (), hs.Terms(search="bayes", trials=30, prior=tmp_path / "nothing"))


def test_one_study_holds_the_joint_space_for_a_dashboard(tmp_path: Path, planted: None) -> None:
    one = run(tmp_path, "bayes", journal=True)
    study = optuna.load_study(study_name="joint", storage=f"sqlite:///{tmp_path / 'journal.sqlite'}")
    assert len(study.trials) == len(one.search.trials) - len(NAMES)
    assert {t.params["method"] for t in study.trials} == {"frozen + head", "head2toe"}
    assert study.best_value == one.search.best("frozen").score
    assert "frozen + head.back" in optuna.importance.get_param_importances(study, params=["frozen + head.back", "source"])


def test_the_proposers_that_are_blind_hear_nothing() -> None:
    assert set(WORDS) >= BLIND
    drawn = []
    for told in (False, True):
        one = Proposer("random", field(), 0, 3)
        if told:
            one.hear(Candidate(Probe(), tuned("good")), _trial(0.9))
        proposal = one.propose(lambda candidate: False)
        assert isinstance(proposal, Proposal)
        drawn.append(proposal.candidate.describe())
    assert drawn[0] == drawn[1]


def _trial(value: float) -> Any:
    return Trial(0, "frozen", "frozen + head", "good", {}, (value,))


def test_without_methods_every_head_and_lp_ft_are_searched() -> None:
    assert FineTune in EVERYTHING
    assert {Probe, Head2Toe} <= set(EVERYTHING)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"search": "bayse"}, "There is no search 'bayse'. Did you mean bayes?"),
        ({"trials": 5}, "--trials is a term of a search. Name one, such as --search bayes."),
        ({"search": "gp", "trials": 0}, "--trials 0 tries nothing. Give 1 or more."),
        ({"folds": "1"}, "--folds 1 cannot be read. Write 5 for five folds, 3x5 for three times five, 0.2 for one split that validates on a fifth."),
        ({"folds": "1.5"}, "--folds 1.5 cannot be read. Write 5 for five folds, 3x5 for three times five, 0.2 for one split that validates on a fifth."),
    ],
)
def test_a_term_that_cannot_be_met_is_told_in_one_line(terms: dict[str, Any], words: str) -> None:
    with pytest.raises(hs.InputError) as told:
        hs.Terms(**terms)
    assert str(told.value) == words


@pytest.mark.parametrize(("text", "parts", "share"), [("5", 5, 0.2), ("3x5", 15, 0.2), ("0.25", 1, 0.25)])
def test_each_kind_of_division_tests_its_share_and_keeps_groups_whole(tmp_path: Path, planted: None, text: str, parts: int, share: float) -> None:
    one, _ = bench(tmp_path)
    one.groups = np.arange(N) // 4  # two of each class
    pairs = one.divided(*hs.Terms(folds=text).divisions)
    assert len(pairs) == parts
    for train, test in pairs:
        assert len(test) == pytest.approx(share * N, abs=4)
        assert not set(one.groups[train]) & set(one.groups[test])
        assert sorted([*train, *test]) == list(range(N))


def test_of_one_validation_split_parts_tell_settings_apart(tmp_path: Path, planted: None) -> None:
    one, _ = bench(tmp_path)
    one.search.folds, one.search.trials, one.search.candidates = one.divided(1, 0.5), [], []
    one.search.fixed([Candidate(Probe(), source("good"))], deadline=NEVER)
    trial = one.search.trials[0]
    parts = one.search.scores(trial, without=np.zeros(0, dtype=int))
    assert (len(trial.folds), len(parts)) == (1, 5)
    assert np.mean(parts) == pytest.approx(trial.score, abs=0.01)


# a whole run on tables, whose networks train in no time


@pytest.fixture(scope="module")
def tables() -> tuple[Task, list[Source]]:
    """A task, a source that learnt another rule, and one that learnt the same."""

    def table(name: str, n: int, seed: int, *, twist: float = 3.0) -> Task:
        rng = np.random.default_rng(seed)
        a, b = rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)
        label = np.sin(twist * a) * b > 0
        rows = [{"a": float(u), "b": float(v)} for u, v in zip(a, b, strict=True)]
        return Task("classification", "tabular", Domain(name, rows, [str(v) for v in label]), ("False", "True"))

    mine = table("mine", 90, 1)
    return mine, [source_from_table(table(name, 800, 2, twist=twist), mine, seed=0) for name, twist in (("odd", 40.0), ("other", 3.0))]


@pytest.mark.parametrize(("word", "divided"), [("bayes", "3"), ("random", "0.3")])
def test_a_run_by_a_word_ends_with_a_verdict_and_the_same_bytes_when_it_is_repeated(
    tables: tuple[Task, list[Source]], tmp_path: Path, short: None, word: str, divided: str
) -> None:
    task, others = tables
    others = others if word == "bayes" else others[1:]  # why: blind words take sources as before
    wanted = hs.Terms(search=word, trials=6, folds=divided)
    one = hs.transfer(task, others, budget="4m", seed=0, out=tmp_path / "one", search=wanted, methods=["head2toe", "bitfit"])
    again = hs.transfer(task, others, budget="4m", seed=0, search=wanted, methods=["head2toe", "bitfit"])
    assert one.to_json() == again.to_json()
    assert one.stopped_by == "plan"
    assert len([t for t in one.trials if t.source is not None]) == 6
    assert {len(t.folds) for t in one.trials if t.status == "complete"} == {{"3": 3, "0.3": 1}[divided]}
    assert one.arm("frozen") is not None
    assert {s.name for s in one.sources} == {s.name for s in others}
    if word == "bayes":
        assert [t.source for t in one.trials if t.source is not None][:4] == ["table other"] * 3 + ["table odd"]
    assert hs.load(tmp_path / "one") == one
    with pytest.raises(hs.InputError, match="holds another run"):
        hs.transfer(task, others, budget="4m", seed=0, out=tmp_path / "one", search="grid", methods=["head2toe", "bitfit"])


@pytest.mark.parametrize(("probe", "head"), [(Probe, "ridge"), (Probe, "logistic"), (Probe, "knn"), (ProbeRegressor, "ridge"), (ProbeRegressor, "knn")])
def test_a_probe_and_its_head_by_its_own_name_are_one_model_and_tried_once(probe: type[Probe | ProbeRegressor], head: str) -> None:
    rng = np.random.default_rng(0)
    x, numbers = rng.normal(size=(60, 5)) * [1, 9, 2, 3, 4], rng.normal(size=60)
    y = numbers if probe is ProbeRegressor else (x[:, 0] + numbers > 0).astype(int)
    asked = Candidate(probe(head=head, back=1, span=2), tuned("good"))
    named = by_own_name(asked)
    assert (named.method.name, named.view) == (head, asked.view)
    assert by_own_name(named) == named
    fitted = [one.method.estimator(seed=0).fit(x[:40], y[:40]) for one in (asked, named)]  # type: ignore[union-attr]
    said = [m.predict_proba(x[40:]) if probe is Probe else m.predict(x[40:]) for m in fitted]
    assert np.allclose(*said, rtol=1e-9)
