"""Charts as inline SVG. Colours are classes of the page's style sheet, so that one file is right in light, in dark and on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from headstart.report.drawing import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Scale, draw_line, draw_text, linear, mark, nice_ticks, number, svg, x_axis, y_axis
from headstart.result import CurvePoint, FeatureMap, Scatter, Score, Trial

ROW = 46.0
COLOURS = {"baseline": "baseline", "frozen": "frozen", "fine-tuned": "tuned"}


@dataclass(frozen=True)
class Whisker:
    """One row of a dot-and-whisker chart: a value with its interval."""

    label: str
    value: float
    interval: tuple[float, float] | None
    colour: str
    text: str


def whiskers(rows: Sequence[Whisker], *, unit: str, zero: float | None = None, signed: bool = False) -> Markup:
    """Draw values with their intervals, one row each; ``zero`` draws a line to compare with."""
    ends = [v for r in rows for v in (r.value, *(r.interval or ()))] + ([] if zero is None else [zero])
    ticks = nice_ticks(min(ends), max(ends), limit=None if signed else (0.0, 1.0))
    x = linear(ticks[0], ticks[-1], 14.0, WIDTH - 14.0)
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [x_axis(ticks, x, TOP, height - BOTTOM, unit, signed=signed)]
    if zero is not None:
        parts.append(draw_line(x(zero), TOP, x(zero), height - BOTTOM, "zero"))
    for i, row in enumerate(rows):
        y = TOP + ROW * i + 32
        parts.append(draw_text(14, y - 14, row.label, "label"))
        parts.append(draw_text(WIDTH - 14, y - 14, row.text, "label number end"))
        if row.interval is not None:
            parts.append(draw_line(x(row.interval[0]), y, x(row.interval[1]), y, f"whisker {row.colour}"))
        parts.append(f'<circle class="dot {row.colour}" cx="{x(row.value):.1f}" cy="{y:.1f}" r="6"/>')
    return svg(parts, height, "; ".join(f"{r.label}: {r.text}" for r in rows))


def cost(trials: Sequence[Trial], seconds: dict[int, float], *, metric: str) -> Markup:
    """Draw every trial's score against the seconds that it took; stopped trials are hollow."""
    costs = {t.number: max(seconds[t.number], 0.01) for t in trials}
    decades = range(math.floor(math.log10(min(costs.values()))), math.ceil(math.log10(max(costs.values()))) + 1)
    low, high = 10.0 ** decades[0], 10.0 ** max(decades[-1], decades[0] + 1)
    ys = nice_ticks(min(t.score for t in trials), max(t.score for t in trials), limit=(0.0, 1.0))
    height = 300.0
    y = linear(ys[0], ys[-1], height - BOTTOM, TOP + 6)
    log = linear(math.log10(low), math.log10(high), LEFT + 8, WIDTH - RIGHT - 8)
    parts = [y_axis(ys, y), _decades(low, high, log, height)]
    for t in trials:
        place = f'cx="{log(math.log10(costs[t.number])):.1f}" cy="{y(t.score):.1f}"'
        hollow = " hollow" if t.status != "complete" else ""
        about = f"trial {t.number}: {t.method}{' on ' + t.source if t.source else ''}, {t.score:.3f}, {costs[t.number]:.1f} s{', stopped' if hollow else ''}"
        parts.append(f'<circle class="dot {COLOURS[t.arm]}{hollow}" {place} r="5"><title>{escape(about)}</title></circle>')
    return svg(parts, height, f"{metric} of {len(trials)} trials against the seconds that each took")


def curve(points: Sequence[CurvePoint], *, metric: str) -> Markup:
    """Draw both arms' scores against the number of labels, each with its interval as a band."""
    sides = {"frozen": [(p.n, p.transfer) for p in points], "baseline": [(p.n, p.baseline) for p in points]}
    ends = [v for side in sides.values() for _, s in side for v in (s.value, *(s.interval or ()))]
    ys = nice_ticks(min(ends), max(ends), limit=(0.0, 1.0))
    height = 300.0
    y = linear(ys[0], ys[-1], height - BOTTOM, TOP + 6)
    span = (math.log(points[0].n), math.log(max(points[-1].n, points[0].n + 1)))
    log = linear(*span, LEFT + 14, WIDTH - RIGHT - 14)
    parts = [y_axis(ys, y)]
    parts += [draw_text(log(math.log(p.n)), height - BOTTOM + 18, str(p.n), "tick middle") for p in points]
    parts.append(draw_text((LEFT + WIDTH) / 2, height - 6, "labelled cases to train on", "axis middle"))
    for colour, side in sides.items():
        parts.append(_band(side, colour, lambda n: log(math.log(n)), y))
    return svg(parts, height, f"{metric} against the number of labels, with transfer and without")


def feature_map(drawn: FeatureMap) -> Markup:
    """Draw the plane; each class has a colour, and a shape where there are more classes than colours."""
    height = WIDTH * 0.8
    x = linear(min(drawn.x), max(drawn.x), 12, WIDTH - 12)
    y = linear(min(drawn.y), max(drawn.y), height - 12, 12)
    size = 3.6 if len(drawn.x) <= 400 else 2.8
    marks = [mark(x(a), y(b), c, size, drawn.labels[c]) for a, b, c in zip(drawn.x, drawn.y, drawn.label, strict=True)]
    return svg(marks, height, f"{drawn.method}: {len(drawn.x)} cases in the plane, coloured by class or range")


def scatter(points: Scatter, *, reach: float) -> Markup:
    """Draw predicted against true numbers, the diagonal where they agree, and the band that should hold the truth."""
    both = [*points.truth, *points.predicted]
    ticks = nice_ticks(min(both), max(both))
    height = WIDTH * 0.8
    x, y = linear(ticks[0], ticks[-1], LEFT + 8, WIDTH - RIGHT - 8), linear(ticks[0], ticks[-1], height - BOTTOM, TOP + 6)
    low, high = ticks[0], ticks[-1]
    corners = [(low, low + reach), (high, high + reach), (high, high - reach), (low, low - reach)]
    band = " ".join(f"{x(a):.1f},{min(max(y(b), TOP), height - BOTTOM):.1f}" for a, b in corners)
    parts = [y_axis(ticks, y), f'<polygon class="band frozen" points="{band}"/>', draw_line(x(low), y(low), x(high), y(high), "zero")]
    parts += [draw_text(x(t), height - BOTTOM + 18, number(t), "tick middle") for t in ticks]
    parts.append(draw_text((LEFT + WIDTH) / 2, height - 6, "truth (predicted upwards)", "axis middle"))
    pairs = zip(points.truth, points.predicted, strict=True)
    parts += [f'<circle class="dot frozen" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"><title>{b:.4g}, truth {a:.4g}</title></circle>' for a, b in pairs]
    return svg(parts, height, f"predicted against true numbers of {len(points.truth)} held-out cases")


def _decades(low: float, high: float, log: Scale, height: float) -> str:
    powers = range(round(math.log10(low)), round(math.log10(high)) + 1)
    names = [draw_text(log(p), height - BOTTOM + 18, f"{10.0**p:g} s", "tick middle") for p in powers]
    return "".join([*names, draw_text((LEFT + WIDTH) / 2, height - 6, "seconds that the trial took", "axis middle")])


def _band(side: Sequence[tuple[int, Score]], colour: str, x: Scale, y: Scale) -> str:
    held = [(n, s) for n, s in side if s.interval is not None]
    upper = [f"{x(n):.1f},{y(s.interval[1]):.1f}" for n, s in held if s.interval is not None]
    lower = [f"{x(n):.1f},{y(s.interval[0]):.1f}" for n, s in reversed(held) if s.interval is not None]
    line = " ".join(f"{x(n):.1f},{y(s.value):.1f}" for n, s in side)
    dots = "".join(
        f'<circle class="dot {colour}" cx="{x(n):.1f}" cy="{y(s.value):.1f}" r="4"><title>{n} labels: {s.value:.3f}</title></circle>' for n, s in side
    )
    return f'<polygon class="band {colour}" points="{" ".join(upper + lower)}"/><polyline class="trend {colour}" points="{line}"/>{dots}'
