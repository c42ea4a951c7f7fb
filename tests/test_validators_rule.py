"""The rule that chooses among candidates without target labels: ranks, collapse, foretold gains, and planted worlds with hidden labels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from headstart.core import InputError
from headstart.validators import Outputs, evaluate
from headstart.validators.gains import GainModel, PastPair, fitted, read, shipped, written
from headstart.validators.panel import PANEL, Sight, collapsed, effective, first, mean_ranks, sight
from headstart.validators.rule import choose


def seen(seed: int, candidates: int = 8) -> Sight:
    """What a rule might see of the baseline c0 and others."""
    dice = np.random.default_rng(seed)
    names = [f"c{i}" for i in range(candidates)]
    said = {validator: dict(zip(names, dice.random(candidates).tolist(), strict=True)) for validator in PANEL}
    differs = {name: float(d) for name, d in zip(names, [0.0, *dice.uniform(0.05, 0.6, candidates - 1)], strict=True)}
    return Sight("c0", said, dict.fromkeys(names, 4.0), 4.0, differs)


def planted(pairs: int, *, slope: float, noise: float, seed: int = 0, benchmarks: int = 5) -> list[PastPair]:
    """Past pairs whose gains are slope x D x lead, and noise of so much in units of D."""
    dice = np.random.default_rng(seed)
    out = []
    for i in range(pairs):
        one = seen(1000 * seed + i)
        ranks = mean_ranks(one, PANEL)
        gains = {name: one.differs[name] * (slope * (ranks[name] - ranks["c0"]) + noise * dice.standard_normal()) for name in ranks}
        out.append(PastPair(f"b{i % benchmarks}", f"p{i}", 0, one, {name: 0.5 + gain for name, gain in gains.items()}))
    return out


def test_effective_classes_count_what_is_predicted_alike() -> None:
    assert effective([3, 3, 3, 0]) == pytest.approx(3.0)
    assert 1.0 < effective([90, 10]) < 2.0


def test_who_predicts_few_classes_is_out_unless_the_others_do_as_well_or_it_is_the_baseline() -> None:
    classes = {"base": 3.6, "good": 3.8, "other": 3.4, "gone": 1.2}
    one = Sight("base", {}, classes, 4.0, {})
    assert list(collapsed(one)) == ["gone"]
    assert "predicts 1.2 classes" in collapsed(one)["gone"]
    assert not collapsed(dataclasses.replace(one, classes={"base": 1.5, "good": 1.4, "other": 1.3, "gone": 1.2}))
    assert not collapsed(dataclasses.replace(one, baseline="gone"))


def test_mean_ranks_are_those_of_each_validator_among_candidates_that_stand() -> None:
    one = seen(0)
    gone = dataclasses.replace(one, classes={**one.classes, "c3": 1.0})
    names = [name for name in one.classes if name != "c3"]
    by_hand = np.mean([rankdata([one.said[v][name] for name in names]) for v in PANEL], axis=0) / 7
    assert list(mean_ranks(gone, PANEL)) == names
    assert list(mean_ranks(gone, PANEL).values()) == pytest.approx(by_hand.tolist())
    assert first(gone, PANEL) == names[int(by_hand.argmax())]


def test_of_equals_the_baseline_stays_and_else_the_smallest_change_wins() -> None:
    same = {v: {"b": 0.3, "a": 0.5, "c": 0.5} for v in PANEL}
    one = Sight("b", same, dict.fromkeys("bac", 3.0), 3.0, {"b": 0.0, "a": 0.4, "c": 0.1})
    assert first(one, PANEL) == "c"
    assert first(dataclasses.replace(one, said={v: dict.fromkeys("bac", 0.5) for v in PANEL}), PANEL) == "b"


def test_a_planted_slope_is_found_and_without_noise_the_interval_is_a_point() -> None:
    past = planted(30, slope=0.6, noise=0.0)
    model = fitted(past, PANEL)
    assert model.slope == pytest.approx(0.6)
    one = seen(77)
    name = first(one, PANEL)
    foretold = model.forecast(one, name)
    truth = 0.6 * one.differs[name] * (mean_ranks(one, PANEL)[name] - mean_ranks(one, PANEL)["c0"])
    assert foretold.gain == pytest.approx(truth)
    assert foretold.interval == pytest.approx((truth, truth))
    assert foretold.decision == "transfer"
    assert foretold.pairs == sum(first(one.seen, PANEL) != "c0" for one in past)
    assert foretold.p_gain > 0.95
    assert model.forecast(one, name, margin=truth + 0.01).decision == "do not transfer"


def test_the_interval_holds_nine_times_in_ten_on_new_pairs() -> None:
    """Conformal: 80 draws of 30 past pairs and one new one; the standard error of the coverage is 3.4 points."""
    held = []
    for seed in range(80):
        *past, new = planted(31, slope=0.5, noise=0.3, seed=seed)
        name = first(new.seen, PANEL)
        if name == "c0":
            continue
        low, high = fitted(past, PANEL).forecast(new.seen, name).interval
        held.append(low <= new.scores[name] - new.scores["c0"] <= high)
    assert 0.80 < np.mean(held) < 0.99


def test_errors_are_measured_on_benchmarks_that_the_slope_was_not_fitted_to() -> None:
    """One benchmark gains the other way round: its own errors are large, because the others do not foretell them."""
    past = planted(20, slope=0.5, noise=0.0)
    ranks = [mean_ranks(one.seen, PANEL) for one in past]
    odd = [
        dataclasses.replace(one, benchmark="odd", scores={n: 0.5 - 0.5 * one.seen.differs[n] * (r[n] - r["c0"]) for n in r})
        for one, r in zip(past[:4], ranks, strict=False)
    ]
    model = fitted([*past[4:], *odd], PANEL)
    for one, r in zip(odd, ranks, strict=False):
        name = first(one.seen, PANEL)
        assert model.errors[f"odd: {one.pair}"][0] == pytest.approx(-(r[name] - r["c0"]))


def test_with_too_few_past_pairs_nothing_is_claimed() -> None:
    one = seen(5)
    name = first(one, PANEL)
    for past in ([], planted(5, slope=0.5, noise=0.1)):
        foretold = fitted(past, PANEL).forecast(one, name)
        assert foretold.decision == "undecided"
        assert foretold.interval == (-one.differs[name], one.differs[name])
    assert fitted([], PANEL).forecast(one, name).gain == 0.0


def test_a_candidate_that_changes_nothing_gains_nothing() -> None:
    one = dataclasses.replace(seen(5), differs=dict.fromkeys(seen(5).classes, 0.0))
    foretold = fitted(planted(30, slope=0.5, noise=0.1), PANEL).forecast(one, "c1")
    assert (foretold.gain, foretold.interval, foretold.decision, foretold.p_gain) == (0.0, (0.0, 0.0), "do not transfer", 0.0)


def test_past_pairs_survive_json() -> None:
    past = planted(3, slope=0.5, noise=0.1)
    assert [read(json.loads(json.dumps(written(one)))) for one in past] == past


def test_shipped_pairs_can_be_read_and_their_intervals_hold_on_benchmarks_left_out() -> None:
    past = shipped()
    assert all(set(PANEL) == set(one.seen.said) and one.seen.baseline in one.scores for one in past)
    held = []
    for benchmark in dict.fromkeys(one.benchmark for one in past):
        model = fitted([one for one in past if one.benchmark != benchmark], PANEL)
        for one in past:
            name = first(one.seen, PANEL)
            if one.benchmark == benchmark and name != one.seen.baseline:
                low, high = model.forecast(one.seen, name).interval
                held.append(low <= one.scores[name] - one.scores[one.seen.baseline] <= high)
    assert np.mean(held) > 0.8


# --- planted worlds: three classes on a triangle; the target's labels are hidden from the rule

CORNERS = 4.0 * np.array([[0.0, 1.0], [0.9, -0.5], [-0.9, -0.5]])


def head(X: np.ndarray, y: np.ndarray) -> LogisticRegression:
    return LogisticRegression().fit(X, y)


class World:
    """A source, a target that was moved, and candidates; ``moved`` undoes the move in part or in whole."""

    def __init__(self, seed: int, offset: np.ndarray, *, hopeless: bool = False) -> None:
        dice = np.random.default_rng(seed)
        self.y, self.held, self.truth = (np.arange(n) % 3 for n in (150, 90, 150))
        self.xs, self.xh, self.xt = (CORNERS[codes] + dice.normal(0, 1, (len(codes), 2)) for codes in (self.y, self.held, self.truth))
        if hopeless:
            self.xt = dice.normal(0, 1, (150, 2))
        self.xt = self.xt + offset
        self.dice = dice

    def says(self, move: Callable[[np.ndarray], np.ndarray]) -> Outputs:
        model = head(self.xs, self.y)

        def back(codes: np.ndarray) -> np.ndarray:
            return np.asarray(head(move(self.xt), codes).predict(self.xh))

        return self.outputs(model.predict_proba(self.xh), model.predict_proba(move(self.xt)), back)

    def outputs(self, source: np.ndarray, target: np.ndarray, back: Callable[[np.ndarray], np.ndarray]) -> Outputs:
        return Outputs(source, self.held, target, self.xh, self.xt, self.xs, refit=back)

    def candidates(self) -> dict[str, Outputs]:
        centred = self.says(lambda x: x - x.mean(axis=0) + self.xs.mean(axis=0))
        half = self.says(lambda x: x - 0.5 * x.mean(axis=0) + 0.5 * self.xs.mean(axis=0))
        gone = dataclasses.replace(centred, target=np.tile([1.0, 0.0, 0.0], (150, 1)))
        random = dataclasses.replace(centred, target=self.dice.dirichlet([0.2] * 3, 150))
        return {"source only": self.says(lambda x: x), "centred": centred, "half way": half, "gone": gone, "random": random}

    def score(self, one: Outputs) -> float:
        return float(balanced_accuracy_score(self.truth, one.target.argmax(axis=1)))


@pytest.mark.parametrize("seed", range(3))
def test_a_moved_target_is_chosen_back_and_a_collapsed_candidate_never(seed: int) -> None:
    world = World(seed, np.array([3.0, 3.0]))
    candidates = world.candidates()
    choice = choose(candidates, "source only", past=planted(30, slope=0.5, noise=0.02))
    assert choice.candidate in {"centred", "half way"}
    assert world.score(candidates[choice.candidate]) > world.score(candidates["source only"]) + 0.1
    assert list(choice.collapsed) == ["gone"]
    assert choice.forecast.decision == "transfer"
    assert choice.panel == PANEL
    assert f"ranks {choice.candidate} first of 4" in str(choice)


def test_entropy_and_density_would_have_chosen_the_collapsed_one() -> None:
    said = evaluate(World(0, np.array([3.0, 3.0])).candidates())
    assert {max(said[name], key=lambda c: said[name][c]) for name in ("entropy", "neighbourhood")} == {"gone"}


def test_where_the_domains_are_the_same_nothing_changes() -> None:
    world = World(0, np.zeros(2))
    candidates = world.candidates()
    choice = choose({name: candidates[name] for name in ("source only", "gone", "random")}, "source only")
    assert choice.candidate == "source only"


def test_without_a_way_back_the_others_of_the_panel_vote() -> None:
    candidates = World(0, np.array([3.0, 3.0])).candidates()
    candidates["half way"] = dataclasses.replace(candidates["half way"], refit=None)
    choice = choose(candidates, "source only", past=planted(30, slope=0.5, noise=0.02))
    assert choice.panel == ("source-accuracy", "class-correlation", "agreement")
    assert choice.candidate in {"centred", "half way"}


def test_a_foretold_gain_within_the_margin_changes_nothing() -> None:
    candidates = World(0, np.array([3.0, 3.0])).candidates()
    choice = choose(candidates, "source only", past=planted(30, slope=0.5, noise=0.02), margin=0.9)
    assert (choice.first, choice.candidate, choice.forecast.decision) == ("centred", "source only", "do not transfer")


def test_sights_are_what_they_say() -> None:
    world = World(0, np.array([3.0, 3.0]))
    candidates = world.candidates()
    one = sight(candidates, evaluate(candidates), "source only")
    assert one.differs["source only"] == 0.0
    assert one.differs["centred"] == np.mean(candidates["centred"].target.argmax(axis=1) != candidates["source only"].target.argmax(axis=1))
    assert one.classes["gone"] == 1.0
    assert one.prior == pytest.approx(3.0)


def test_what_cannot_be_chosen_from_is_refused() -> None:
    candidates = World(0, np.zeros(2)).candidates()
    with pytest.raises(InputError, match="'plain' is not among the candidates source only, centred"):
        choose(candidates, "plain")
    with pytest.raises(InputError, match="no candidates"):
        choose({}, "source only")
    with pytest.raises(InputError, match="level is 90"):
        choose(candidates, "source only", level=90)
    with pytest.raises(InputError, match="No gain is foretold for 'gone'"):
        GainModel(PANEL, 0.5, {}).gain(sight(candidates, evaluate(candidates), "source only"), "gone")
