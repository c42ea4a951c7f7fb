"""Forecasts: quantiles over tasks by hand and by simulation, effects against dense algebra, and a history that survives what happens to files."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from headstart.core import InputError
from headstart.forecast import Anchor, Known, Past, forecast, past, published, quantile_over_tasks, record, share_below, shipped
from headstart.forecast.effects import COEFFICIENTS, NOISE, SOURCE, TASK, Group, angle, learn, score_at
from headstart.forecast.history import HISTORY_FILE

LITE = {"source": "efficientnet_lite0", "weights": "aa", "parameters": 3_371_008, "trained_on": "ImageNet-1k"}


# --- quantiles over tasks ---


def test_each_task_weighs_the_same_however_many_errors_it_has():
    """Weights by hand: 3 tasks, 1/4 each and 1/8 besides; the first holds a thousand errors of 1, so half the weight is reached at the second task's 2."""
    assert quantile_over_tasks([[1.0] * 1000, [2.0], [3.0]], level=0.5) == 2.0
    assert quantile_over_tasks([[1.0, 5.0], [2.0, 2.0], [3.0, 3.0]], level=0.375) == 2.0  # 1/8 at 1, then 1/4 at 2


@pytest.mark.parametrize(("tasks", "level", "finite"), [(8, 0.9, False), (9, 0.9, True), (0, 0.5, False), (1, 0.5, True), (3, 0.75, True)])
def test_an_interval_is_finite_from_the_number_of_tasks_that_the_level_needs(tasks, level, finite):
    """T / (T + 1) >= level."""
    assert math.isfinite(quantile_over_tasks([[1.0]] * tasks, level=level)) is finite


def test_one_error_a_task_gives_the_split_conformal_quantile():
    """Rank ceil(0.9 * 20) = 18 of 19 (Lei et al. 2018, sec. 2.2)."""
    values = np.random.default_rng(0).random(19)
    assert quantile_over_tasks([[v] for v in values], level=0.9) == np.sort(values)[17]


def worlds(repeats: int, *, tasks: int, cases: int) -> np.ndarray:
    """Errors (repeats, tasks + 1, cases): tasks differ in scale and offset, so that errors of one task are alike. The last task is the new one."""
    rng = np.random.default_rng(0)
    scale = np.exp(0.5 * rng.normal(size=(repeats, tasks + 1, 1)))
    return scale * (rng.normal(size=(repeats, tasks + 1, 1)) + 0.5 * rng.normal(size=(repeats, tasks + 1, cases)))


@pytest.mark.parametrize("tasks", [9, 12, 24])
def test_a_new_task_is_covered_at_the_stated_rate_over_exchangeable_worlds(tasks):
    """Within 1 / (2 (T + 1)) below and 3 / (2 (T + 1)) above: theorem 1 of Lee, Barber & Willett 2023 moved down by half a task; four standard errors."""
    errors = np.abs(worlds(2000, tasks=tasks, cases=5))
    held = np.array([np.mean(one[-1] <= quantile_over_tasks(list(one[:-1]), level=0.9)) for one in errors])
    error = 4 * held.std() / math.sqrt(len(held))
    assert 0.9 - 0.5 / (tasks + 1) - error <= held.mean() <= 0.9 + 1.5 / (tasks + 1) + error


def test_pooling_the_errors_of_few_tasks_would_cover_too_little():
    """What the weights are for: the plain quantile of all errors misses its rate by more than four standard errors."""
    errors = np.abs(worlds(2000, tasks=9, cases=50))
    held = np.array([np.mean(one[-1] <= np.quantile(one[:-1], 0.9)) for one in errors])
    assert held.mean() < 0.9 - 4 * held.std() / math.sqrt(len(held))


def test_the_share_below_is_complementary_and_blurs_like_a_normal():
    errors = [[-0.3, 0.1], [0.2], [0.7, 0.7, -1.0]]
    for bound, blur in ((0.05, 0.0), (0.1, 0.0), (0.3, 0.2)):
        mirrored = share_below([[-v for v in task] for task in errors], -bound, blur=blur)
        assert share_below(errors, bound, blur=blur) + mirrored == pytest.approx(1.0)
    assert share_below([[0.2]], 0.5, blur=0.1) == pytest.approx(0.5 * stats.norm.cdf(3.0) + 0.25)
    assert share_below([], 3.0) == 0.5


def test_the_share_below_is_uniform_over_exchangeable_worlds():
    """The probability integral transform: of 2,000 new tasks, a tenth of errors lies in each tenth, but for the 1/(T + 1) that is unknown."""
    errors = worlds(2000, tasks=19, cases=1)
    shares = np.array([share_below(list(one[:-1]), float(one[-1, 0])) for one in errors])
    for p in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert abs(np.mean(shares < p) - p) < 1 / 20 + 4 * math.sqrt(p * (1 - p) / len(shares))


# --- effects ---


def groups(rng: np.random.Generator, *, tasks: int, sources: int) -> list[Group]:
    size = len(COEFFICIENTS) + sources
    return [Group(f"task {t}", rng.normal(size=(4, size)), rng.normal(size=4), weight) for t in range(tasks) for weight in (0.5, 0.5)]


def by_dense_algebra(held: list[Group], sources: int) -> np.ndarray:
    prior = np.concatenate([COEFFICIENTS, np.full(sources, SOURCE)])
    gram, moment = np.diag(prior**-2), np.zeros(len(prior))
    for one in held:
        inverse = np.linalg.inv(NOISE**2 * np.eye(len(one.y)) + TASK**2)
        gram = gram + one.weight * one.x.T @ inverse @ one.x
        moment = moment + one.weight * one.x.T @ inverse @ one.y
    return np.linalg.solve(gram, moment)


def test_effects_equal_generalised_least_squares_written_out():
    held = groups(np.random.default_rng(0), tasks=3, sources=2)
    assert learn(held, sources=2).whole == pytest.approx(by_dense_algebra(held, 2), rel=1e-9)


def test_leaving_a_task_out_equals_learning_without_it():
    held = groups(np.random.default_rng(1), tasks=3, sources=2)
    found = learn(held, sources=2).without
    for task, coefficients in found.items():
        assert coefficients == pytest.approx(by_dense_algebra([g for g in held if g.task != task], 2), rel=1e-9)


def test_angles_make_the_error_of_a_score_the_same_everywhere():
    """Standard error 1 / (2 sqrt(m)), here m = 400: 0.025 (Anscombe 1948)."""
    rng = np.random.default_rng(0)
    for p in (0.3, 0.5, 0.9):
        assert np.std(angle(rng.binomial(400, p, 20_000) / 400)) == pytest.approx(0.025, rel=0.03)
    assert score_at(angle(np.linspace(0, 1, 5))) == pytest.approx(np.linspace(0, 1, 5))


# --- forecasts ---


def tasks_of(rng: np.random.Generator, count: int, gains: dict[str, float], *, n: int = 200, noise: float = 0.03) -> list[Past]:
    """Past tasks in which each source departs from its frozen score by its own gain, in radians, and all of a task by one more."""
    rows = []
    for t in range(count):
        shift, level = rng.normal(0, 0.05), rng.uniform(0.8, 1.2)
        for source, gain in gains.items():
            frozen = level + rng.normal(0, 0.08)
            truth = frozen + gain + shift + rng.normal(0, noise)
            scores = {"frozen": frozen, "fine_tuned": truth, "anchor": truth + rng.normal(0, noise), "baseline": level - 0.1}
            rows.append(Past(f"task {t}", source, f"w-{source}", n, 3, **{k: float(score_at(v)) for k, v in scores.items()}))
    return rows


def known(rows: list[Past]) -> list[Known]:
    return [Known(r.source, r.frozen, r.weights, r.parameters, r.family, r.trained_on) for r in rows]


def test_without_history_the_frozen_score_is_the_centre_and_it_is_said():
    (only,) = forecast([Known("a", 0.7)], n=200)
    assert only.value == pytest.approx(0.7)
    assert not only.is_calibrated
    assert not only.is_promised
    assert only.p_harm is None
    assert only.why == "Rests on its frozen score 0.700 on 200 cases; too few past tasks to measure how far that errs, so the interval is a guess."


def test_an_anchor_shifts_all_sources_by_how_far_it_departs_from_its_own_frozen_score():
    a, b = forecast([Known("a", 0.7), Known("b", 0.8)], n=200, anchor=Anchor("a", 0.8))
    assert a.value == pytest.approx(0.8)
    assert b.value == pytest.approx(float(score_at(2 * angle(0.8) - angle(0.7))))


def test_history_narrows_the_interval_and_makes_it_a_promise_where_there_is_an_anchor():
    history = tasks_of(np.random.default_rng(0), 12, {"a": 0.0, "b": 0.1})
    sources = [Known("a", 0.7, "w-a"), Known("b", 0.7, "w-b")]
    guessed, measured = forecast(sources, n=200)[0], forecast(sources, n=200, history=history)[0]
    promised = forecast(sources, n=200, history=history, anchor=Anchor("a", 0.7))[1]
    assert measured.interval[1] - measured.interval[0] < guessed.interval[1] - guessed.interval[0]
    assert (measured.is_calibrated, measured.is_promised) == (True, False)
    assert (promised.is_calibrated, promised.is_promised, promised.tasks) == (True, True, 12)
    assert promised.why == "Rests on its frozen score 0.700 on 200 cases, a fine-tuning run of a (0.700) and 12 past tasks, 12 of them with this source."
    assert "no promise" in measured.why


def test_a_source_that_always_gains_more_is_put_first_though_its_frozen_score_is_lower():
    history = tasks_of(np.random.default_rng(0), 20, {"plain": 0.0, "grows": 0.12}, noise=0.01)
    plain, grows = forecast([Known("plain", 0.75, "w-plain"), Known("grows", 0.72, "w-grows")], n=200, history=history, anchor=Anchor("plain", 0.75))
    assert grows.value > plain.value + 0.02


def test_an_unknown_source_takes_part_in_what_is_general():
    history = [
        dataclasses.replace(r, trained_on="ImageNet-1k" if r.source == "a" else "insects")
        for r in tasks_of(np.random.default_rng(0), 20, {"a": 0.15, "b": 0.0})
    ]
    photos, insects = forecast([Known("new", 0.7, trained_on="ImageNet-1k"), Known("other", 0.7, trained_on="insects")], n=200, history=history)
    assert photos.value > insects.value + 0.02
    assert "none of them with this source" in photos.why


def test_order_of_sources_and_of_history_does_not_matter_nor_do_other_sources():
    rng = np.random.default_rng(0)
    history = tasks_of(rng, 10, {"a": 0.0, "b": 0.1, "c": 0.05})
    sources = [Known(s, 0.6 + 0.1 * i, f"w-{s}") for i, s in enumerate("abc")]
    about = {"n": 150, "anchor": Anchor("b", 0.75), "baseline": 0.65}
    first = forecast(sources, history=history, **about)
    again = forecast(sources[::-1], history=[history[i] for i in rng.permutation(len(history))], **about)[::-1]
    fewer = forecast(sources[:2], history=history, **about)
    for one, other in [*zip(first, again, strict=True), *zip(first, fewer, strict=False)]:
        assert one.value == pytest.approx(other.value, abs=1e-12)
        assert one.interval == pytest.approx(other.interval, abs=1e-12)
        assert one.p_harm == pytest.approx(other.p_harm, abs=1e-12)


def test_the_task_itself_other_modalities_and_numbers_are_not_learnt_from():
    history = tasks_of(np.random.default_rng(0), 10, {"a": 0.3})
    foreign = [dataclasses.replace(r, modality="text") for r in history] + [dataclasses.replace(r, classes=0) for r in history]
    same = [dataclasses.replace(r, task="this") for r in history]
    (bare,) = forecast([Known("a", 0.7, "w-a")], n=200, task="this")
    assert forecast([Known("a", 0.7, "w-a")], n=200, task="this", history=foreign + same) == (bare,)


@pytest.mark.parametrize("anchored", [True, False])
def test_measured_scores_of_new_tasks_lie_within_at_the_stated_rate(anchored):
    """60 worlds of 14 past tasks and one new one, 4 sources: each world's share of sources within; four standard errors, and 2/15 above as theorem 1 allows."""
    rng, held = np.random.default_rng(3), []
    for _ in range(60):
        rows = tasks_of(rng, 15, {"a": 0.0, "b": 0.05, "c": 0.1, "d": -0.05})
        new = [r for r in rows if r.task == "task 14"]
        anchor = Anchor("a", new[0].anchor) if anchored else None
        found = forecast(known(new), n=200, history=[r for r in rows if r.task != "task 14"], anchor=anchor)
        held.append(np.mean([f.interval[0] <= r.fine_tuned <= f.interval[1] for f, r in zip(found, new, strict=True) if not anchored or r.source != "a"]))
    error = 4 * float(np.std(held)) / math.sqrt(len(held))
    assert 0.9 - error <= np.mean(held) <= min(1.0, 0.9 + 2 / 15 + error)


def test_harm_grows_with_the_baseline_and_is_even_where_both_are_equal():
    history = tasks_of(np.random.default_rng(0), 30, {"a": 0.0})
    values = [forecast([Known("a", 0.7, "w-a")], n=200, history=history, baseline=b)[0].p_harm for b in (0.4, 0.6, 0.7, 0.8, 0.95)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.5 / 31, abs=0.01)
    assert values[-1] == pytest.approx(1 - 0.5 / 31, abs=0.01)
    centre = forecast([Known("a", 0.7)], n=200)[0].value
    assert forecast([Known("a", 0.7)], n=200, baseline=centre)[0].p_harm == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": [Known("a", 1.2)]}, "The frozen score of a is 1.2; a score between 0 and 1 is needed."),
        ({"baseline": -0.1}, "The baseline's score is -0.1; a score between 0 and 1 is needed."),
        ({"n": 0}, "A forecast for 0 cases cannot be made; at least 1 is needed."),
        ({"anchor": Anchor("z", 0.5)}, "The anchor 'z' is none of the sources. Sources: a."),
    ],
)
def test_what_cannot_be_used_is_said(change, message):
    with pytest.raises(InputError) as error:
        forecast(**{"sources": [Known("a", 0.5)], "n": 10} | change)
    assert str(error.value) == message


# --- the static prior ---


def test_every_packaged_image_source_has_a_published_accuracy():
    from headstart.sources import catalogue

    found = {s.name: published(s.name, s.family, s.trained_on) for s in catalogue() if s.modality == "image"}
    known = {name: accuracy for name, accuracy in found.items() if accuracy is not None}
    assert known == {"efficientnet_lite0": 0.751, "efficientnet_lite1": 0.767, "efficientnet_lite2": 0.776, "squeezenet": 0.575}
    assert all(source.by_name for source in catalogue() if source.modality == "image" and source.name not in known)


def test_published_accuracies_are_those_that_torchvision_documents():
    from torchvision.models import get_model_weights

    from headstart.forecast.prior import TOP1

    theirs = (
        "alexnet",
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "inception_v3",
        "mobilenet_v2",
        "resnet18",
        "resnet50",
        "swin_t",
        "vgg16",
        "vit_b_16",
    )
    for name in theirs:
        first = next(iter(get_model_weights(name)))
        assert TOP1[name] == pytest.approx(first.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, abs=6e-4)


# --- the history ---


def test_what_is_recorded_comes_back_and_the_last_of_equal_task_and_source_counts(tmp_path):
    first, second = Past("t", n=10, classes=2, frozen=0.5, **LITE), Past("u", n=10, classes=0, frozen=0.25, fine_tuned=0.5, **LITE)
    newer = dataclasses.replace(first, frozen=0.75)
    assert record(tmp_path / "new", [first, second])
    assert record(tmp_path / "new", [newer])
    assert past(tmp_path / "new") == [second, newer]
    assert past(tmp_path / "absent") == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[1, 2]",
        "null",
        '{"task": "t"}',
        '{"task": "t", "source": "s", "weights": "", "n": 10, "classes": 2, "frozen": 0.5, "colour": "red"}',
        '{"task": "t", "source": "s", "weights": "", "n": 10, "classes": 2, "frozen": 1.5}',
        '{"task": "t", "source": "s", "weights": "", "n": 10, "classes": 2, "frozen": NaN}',
        '{"task": "t", "source": "s", "weights": "", "n": 0, "classes": 2, "frozen": 0.5}',
        '{"task": "t", "source": "s", "weights": "", "n": "10", "classes": 2, "frozen": 0.5}',
        '{"task": "t", "source": 7, "weights": "", "n": 10, "classes": 2, "frozen": 0.5}',
        '{"task": "t", "source": "s", "weights": "", "n": 10, "classes": 2, "frozen": true}',
        "\x00\x00\udcff",
    ],
)
def test_a_damaged_line_costs_itself_alone(tmp_path, line):
    good = [Past("t", n=10, classes=2, frozen=0.5, **LITE), Past("u", n=10, classes=2, frozen=0.5, **LITE)]
    record(tmp_path, good[:1])
    with (tmp_path / HISTORY_FILE).open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    record(tmp_path, good[1:])
    assert past(tmp_path) == good


def test_a_torn_line_does_not_swallow_the_next_one(tmp_path):
    rows = [Past(t, n=10, classes=2, frozen=0.5, **LITE) for t in "tuv"]
    record(tmp_path, rows[:2])
    whole = (tmp_path / HISTORY_FILE).read_bytes()
    (tmp_path / HISTORY_FILE).write_bytes(whole[:-20])
    record(tmp_path, rows[2:])
    assert past(tmp_path) == [rows[0], rows[2]]


def test_two_processes_that_append_at_once_lose_no_row(tmp_path):
    code = (
        "import sys; from pathlib import Path; from headstart.forecast import Past, record\n"
        "for i in range(300): record(Path(sys.argv[1]), [Past(sys.argv[2] + str(i), 's', 'w' * 64, 10, 2, 0.5)] * 2)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [one.wait() for one in both] == [0, 0]
    assert {row.task for row in past(tmp_path)} == {f"{name}{i}" for name in "ab" for i in range(300)}


def test_a_history_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    assert not record(tmp_path / "file" / "below", [Past("t", n=10, classes=2, frozen=0.5, **LITE)])
    assert past(tmp_path / "file" / "below") == []


def test_the_shipped_history_holds_enough_real_tasks_to_measure_an_interval():
    rows = shipped()
    assert len({r.task for r in rows}) >= 12
    assert all(r.fine_tuned is not None and r.anchor is not None and r.baseline is not None for r in rows)
    one, other = forecast(known(rows[:2]), n=200, history=rows, anchor=Anchor(rows[0].source, 0.8))
    assert one.is_promised
    assert other.is_promised


def test_shipped_rows_are_of_the_weights_that_packages_bring():
    from headstart.sources import available

    digests = {r.source: r.weights for r in shipped()}
    here = [s for s in available() if s.modality == "image"]
    assert here
    assert all(digests[s.name] == s.weights_sha256 for s in here)
