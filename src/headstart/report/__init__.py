"""The report: one self-contained HTML page. It draws what a result holds, and computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from headstart.adaptation import Adaptation
from headstart.fronts import bytes_told, chosen, seconds_told
from headstart.records import write_whole
from headstart.report import charts
from headstart.report.adapted import render_adaptation
from headstart.report.drawing import legend_mark
from headstart.report.front_charts import tradeoff
from headstart.report.page import filled, interval, matrix, settings
from headstart.result import Result, Score, Verdict, counted

NAMES = {"baseline": "No transfer", "frozen": "Frozen features + head", "fine-tuned": "Fine-tuned"}


def render(result: Result) -> str:
    """Return the page; equal results, with equal times, give equal text."""
    present = {a.name: a for a in result.arms}
    return filled(
        "page.html.j2",
        r=result,
        names=NAMES,
        colours=charts.COLOURS,
        level=f"{result.verdict.level:.0%}",
        because=_because(result.verdict, result.found.things, fits=_fits(result)),
        fits=_fits(result),
        tried=[t for t in result.trials if t.status != "excluded"],
        winner=present[result.shipped],
        baseline=present["baseline"],
        missing={name: _missing(result, name) for name in NAMES if name not in present},
        undominated=chosen(result.front),
        bytes_told=bytes_told,
        seconds_told=seconds_told,
        total=result.times.get("total"),
        interval=interval,
        settings=settings,
        things=result.found.things,
        counted=counted,
        seconds=partial(_seconds, result.times),
        key=legend_mark,
        confusion=matrix(result.confusion.labels, result.confusion.counts) if result.confusion is not None else [],
        **_drawings(result),
    )


def write(result: Result | Adaptation, path: Path) -> Path:
    """Write the page to ``path``, whole or not at all, and return the path."""
    return write_whole(render_adaptation(result) if isinstance(result, Adaptation) else render(result), path)


def _drawings(result: Result) -> dict[str, Markup]:
    v = result.verdict
    gain = charts.Whisker("transfer minus no transfer", v.gain, v.interval, "tone", f"{v.gain:+.3f}")
    timed = {t.number: result.times[f"trial.{t.number}"] for t in result.trials if f"trial.{t.number}" in result.times}
    trials = [t for t in result.trials if t.number in timed and t.folds]
    return {
        "gain": charts.whiskers([gain], unit=f"gain in {result.metric}", zero=v.margin, signed=True),
        "arms": charts.whiskers([_whisker(NAMES[a.name], a.test, charts.COLOURS[a.name]) for a in result.arms], unit=result.metric),
        "arms_cv": charts.whiskers([_whisker(NAMES[a.name], a.cv, charts.COLOURS[a.name]) for a in result.arms], unit=result.metric),
        "sources": charts.whiskers([_whisker(s.name, s.probe, "frozen") for s in result.sources], unit=result.metric) if result.sources else Markup(""),
        "cost": charts.cost(trials, timed, metric=result.metric) if trials else Markup("<p>Seconds were not kept with this result.</p>"),
        "curve": charts.curve(result.curve, metric=result.metric) if len(result.curve) > 1 else Markup(""),
        "scatter": charts.scatter(result.scatter, reach=result.coverage.reach if result.coverage else 0.0) if result.scatter is not None else Markup(""),
        "walk": _walk(result),
        "front_size": _front(result, "size"),
        "front_latency": _front(result, "latency"),
        "map": charts.feature_map(result.map) if result.map is not None else Markup(""),
    }


def _front(result: Result, side: Literal["size", "latency"]) -> Markup:
    trials = {t.number: t for t in result.trials}
    return tradeoff(result.front, trials, side=side, limit=result.bounds.get(side), metric=result.metric) if result.front else Markup("")


def _fits(result: Result) -> bool:
    """Whether a transfer was left to be measured by the bounds."""
    return not any(t.status == "excluded" and t.arm != "baseline" for t in result.trials) or any(t.folds and t.arm != "baseline" for t in result.trials)


def _missing(result: Result, name: str) -> str:
    """Say why an arm was not measured."""
    if any(t.arm == name and t.status == "excluded" for t in result.trials) and not any(t.arm == name and t.folds for t in result.trials):
        return "nothing of it fits the bounds"
    if not _fits(result):
        return "not tried, for no source fits the bounds"
    if name == "fine-tuned" and result.walk and not any(step.share and step.taken for step in result.walk):
        return "no step from random weights towards the source paid"
    return "not measured; the budget ended first"


def _walk(result: Result) -> Markup:
    """Draw what each step gained over the last one that was taken; steps that were not taken are hollow."""
    rows = []
    for step in result.walk:
        if step.gain is not None and step.interval is not None:
            words = f"{step.gain:+.3f} [{step.interval[0]:+.3f}, {step.interval[1]:+.3f}]"
            rows.append(charts.Whisker(f"a = {step.share:g}, behind {step.stage}", step.gain, step.interval, "tuned" if step.taken else "tuned hollow", words))
    return charts.whiskers(rows, unit=f"gain of the step in {result.metric}", zero=0.0, signed=True) if rows else Markup("")


def _whisker(label: str, score: Score, colour: str) -> charts.Whisker:
    return charts.Whisker(label, score.value, score.interval, colour, f"{score.value:.3f}{interval(score)}")


def _because(v: Verdict, things: str, *, fits: bool) -> str:
    worth = "0" if v.margin == 0 else f"the margin of {v.margin:g}"
    if v.folds == 0:
        return "No transfer was measured before the budget ended." if fits else "No transfer fits the bounds, so none was measured."
    if v.decision == "transfer":
        return f"The whole interval lies above {worth}: transfer beats the best model without it by more than chance."
    if v.decision == "do not transfer":
        return f"No part of the interval lies above {worth}: the model without transfer is as good or better, and is simpler."
    side = "above" if v.ship == "transfer" else "not above"
    return f"The interval has {worth} inside: these {things} cannot tell. The mean is {side} {worth}, and that alone decides what is shipped."


def _seconds(times: Mapping[str, float], number: int) -> str:
    return f"{times[f'trial.{number}']:.1f}" if f"trial.{number}" in times else "-"
