"""Charts as inline SVG. Colours are classes of the page's style sheet, so that one file is right in light, in dark and on paper.

Every chart is 440 units wide: side by side on a desktop, one below the other and still legible on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from headstart.result import CurvePoint, FeatureMap, Scatter, Score, Trial

WIDTH = 440.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 10.0, 42.0
ROW = 46.0
SHAPES = 8  # colours of classes before they repeat; a second round has squares, a third diamonds

Scale = Callable[[float], float]


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
    x = _linear(ticks[0], ticks[-1], 14.0, WIDTH - 14.0)
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [_x_axis(ticks, x, TOP, height - BOTTOM, unit, signed=signed)]
    if zero is not None:
        parts.append(_line(x(zero), TOP, x(zero), height - BOTTOM, "zero"))
    for i, row in enumerate(rows):
        y = TOP + ROW * i + 32
        parts.append(_text(14, y - 14, row.label, "label"))
        parts.append(_text(WIDTH - 14, y - 14, row.text, "label number end"))
        if row.interval is not None:
            parts.append(_line(x(row.interval[0]), y, x(row.interval[1]), y, f"whisker {row.colour}"))
        parts.append(f'<circle class="dot {row.colour}" cx="{x(row.value):.1f}" cy="{y:.1f}" r="6"/>')
    return _svg(parts, height, "; ".join(f"{r.label}: {r.text}" for r in rows))


def cost(trials: Sequence[Trial], seconds: dict[int, float], *, metric: str) -> Markup:
    """Draw every trial's score against the seconds that it took; stopped trials are hollow."""
    costs = {t.number: max(seconds[t.number], 0.01) for t in trials}
    decades = range(math.floor(math.log10(min(costs.values()))), math.ceil(math.log10(max(costs.values()))) + 1)
    low, high = 10.0 ** decades[0], 10.0 ** max(decades[-1], decades[0] + 1)
    ys = nice_ticks(min(t.score for t in trials), max(t.score for t in trials), limit=(0.0, 1.0))
    height = 300.0
    y = _linear(ys[0], ys[-1], height - BOTTOM, TOP + 6)
    log = _linear(math.log10(low), math.log10(high), LEFT + 8, WIDTH - RIGHT - 8)
    parts = [_y_axis(ys, y), _decades(low, high, log, height)]
    for t in trials:
        place = f'cx="{log(math.log10(costs[t.number])):.1f}" cy="{y(t.score):.1f}"'
        hollow = " hollow" if t.status != "complete" else ""
        about = f"trial {t.number}: {t.method}{' on ' + t.source if t.source else ''}, {t.score:.3f}, {costs[t.number]:.1f} s{', stopped' if hollow else ''}"
        parts.append(f'<circle class="dot {COLOURS[t.arm]}{hollow}" {place} r="5"><title>{escape(about)}</title></circle>')
    return _svg(parts, height, f"{metric} of {len(trials)} trials against the seconds that each took")


def curve(points: Sequence[CurvePoint], *, metric: str) -> Markup:
    """Draw both arms' scores against the number of labels, each with its interval as a band."""
    sides = {"frozen": [(p.n, p.transfer) for p in points], "baseline": [(p.n, p.baseline) for p in points]}
    ends = [v for side in sides.values() for _, s in side for v in (s.value, *(s.interval or ()))]
    ys = nice_ticks(min(ends), max(ends), limit=(0.0, 1.0))
    height = 300.0
    y = _linear(ys[0], ys[-1], height - BOTTOM, TOP + 6)
    span = (math.log(points[0].n), math.log(max(points[-1].n, points[0].n + 1)))
    log = _linear(*span, LEFT + 14, WIDTH - RIGHT - 14)
    parts = [_y_axis(ys, y)]
    parts += [_text(log(math.log(p.n)), height - BOTTOM + 18, str(p.n), "tick middle") for p in points]
    parts.append(_text((LEFT + WIDTH) / 2, height - 6, "labelled cases to train on", "axis middle"))
    for colour, side in sides.items():
        parts.append(_band(side, colour, lambda n: log(math.log(n)), y))
    return _svg(parts, height, f"{metric} against the number of labels, with transfer and without")


def feature_map(drawn: FeatureMap) -> Markup:
    """Draw the plane; each class has a colour, and a shape where there are more classes than colours."""
    height = WIDTH * 0.8
    x = _linear(min(drawn.x), max(drawn.x), 12, WIDTH - 12)
    y = _linear(min(drawn.y), max(drawn.y), height - 12, 12)
    size = 3.6 if len(drawn.x) <= 400 else 2.8
    marks = [mark(x(a), y(b), c, size, drawn.labels[c]) for a, b, c in zip(drawn.x, drawn.y, drawn.label, strict=True)]
    return _svg(marks, height, f"{drawn.method}: {len(drawn.x)} cases in the plane, coloured by class or range")


def scatter(points: Scatter, *, reach: float) -> Markup:
    """Draw predicted against true numbers, the diagonal where they agree, and the band that should hold the truth."""
    both = [*points.truth, *points.predicted]
    ticks = nice_ticks(min(both), max(both))
    height = WIDTH * 0.8
    x, y = _linear(ticks[0], ticks[-1], LEFT + 8, WIDTH - RIGHT - 8), _linear(ticks[0], ticks[-1], height - BOTTOM, TOP + 6)
    low, high = ticks[0], ticks[-1]
    corners = [(low, low + reach), (high, high + reach), (high, high - reach), (low, low - reach)]
    band = " ".join(f"{x(a):.1f},{min(max(y(b), TOP), height - BOTTOM):.1f}" for a, b in corners)
    parts = [_y_axis(ticks, y), f'<polygon class="band frozen" points="{band}"/>', _line(x(low), y(low), x(high), y(high), "zero")]
    parts += [_text(x(t), height - BOTTOM + 18, _number(t), "tick middle") for t in ticks]
    parts.append(_text((LEFT + WIDTH) / 2, height - 6, "truth (predicted upwards)", "axis middle"))
    pairs = zip(points.truth, points.predicted, strict=True)
    parts += [f'<circle class="dot frozen" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"><title>{b:.4g}, truth {a:.4g}</title></circle>' for a, b in pairs]
    return _svg(parts, height, f"predicted against true numbers of {len(points.truth)} held-out cases")


def mark(x: float, y: float, code: int, size: float, title: str = "") -> str:
    """Return one class mark: a circle, then a square, then a diamond, each in eight colours."""
    colour = f"c{code % SHAPES}"
    about = f"<title>{escape(title)}</title>" if title else ""
    if code < SHAPES:
        return f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{size}">{about}</circle>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if (code // SHAPES) % 2 == 0 else ""
    return f'<rect class="{colour}" x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:g}" height="{2 * size:g}"{turn}>{about}</rect>'


def legend_mark(code: int) -> Markup:
    """Return a class mark for a legend."""
    return Markup(f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{mark(7, 7, code, 5)}</svg>')


def nice_ticks(low: float, high: float, *, limit: tuple[float, float] | None = None, count: int = 5) -> list[float]:
    """Return round numbers that enclose low..high, within ``limit``.

    >>> nice_ticks(0.62, 0.91)
    [0.6, 0.7, 0.8, 0.9, 1.0]
    >>> nice_ticks(0.5, 0.5, limit=(0.0, 1.0))
    [0.48, 0.49, 0.5, 0.51, 0.52]
    """
    if high - low < 0.02:
        low, high = low - 0.02, high + 0.02
    step = next(s for e in range(-6, 13) for s in (1 * 10.0**e, 2 * 10.0**e, 5 * 10.0**e) if (high - low) / s <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(k * step, 6) for k in range(first, last + 1)]
    return [t for t in ticks if limit is None or limit[0] <= t <= limit[1]]


COLOURS = {"baseline": "baseline", "frozen": "frozen", "fine-tuned": "tuned"}


def _linear(low: float, high: float, a: float, b: float) -> Scale:
    span = high - low or 1.0
    return lambda v: a + (v - low) / span * (b - a)


def _svg(parts: Sequence[str], height: float, about: str) -> Markup:
    return Markup(f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(about)}">{"".join(parts)}</svg>')


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _number(v: float, *, signed: bool = False) -> str:
    return f"{v:+g}" if signed and v else f"{v:g}"


def _x_axis(ticks: Sequence[float], x: Scale, top: float, bottom: float, unit: str, *, signed: bool) -> str:
    lines = [_line(x(t), top, x(t), bottom, "grid") for t in ticks]
    names = [_text(x(t), bottom + 18, _number(t, signed=signed), "tick middle") for t in ticks]
    return "".join([*lines, *names, _text(WIDTH / 2, bottom + 36, unit, "axis middle")])


def _y_axis(ticks: Sequence[float], y: Scale) -> str:
    lines = [_line(LEFT, y(t), WIDTH - RIGHT, y(t), "grid") for t in ticks]
    names = [_text(LEFT - 8, y(t) + 4, _number(t), "tick end") for t in ticks]
    return "".join(lines + names)


def _decades(low: float, high: float, log: Scale, height: float) -> str:
    powers = range(round(math.log10(low)), round(math.log10(high)) + 1)
    names = [_text(log(p), height - BOTTOM + 18, f"{10.0**p:g} s", "tick middle") for p in powers]
    return "".join([*names, _text((LEFT + WIDTH) / 2, height - 6, "seconds that the trial took", "axis middle")])


def _band(side: Sequence[tuple[int, Score]], colour: str, x: Scale, y: Scale) -> str:
    held = [(n, s) for n, s in side if s.interval is not None]
    upper = [f"{x(n):.1f},{y(s.interval[1]):.1f}" for n, s in held if s.interval is not None]
    lower = [f"{x(n):.1f},{y(s.interval[0]):.1f}" for n, s in reversed(held) if s.interval is not None]
    line = " ".join(f"{x(n):.1f},{y(s.value):.1f}" for n, s in side)
    dots = "".join(
        f'<circle class="dot {colour}" cx="{x(n):.1f}" cy="{y(s.value):.1f}" r="4"><title>{n} labels: {s.value:.3f}</title></circle>' for n, s in side
    )
    return f'<polygon class="band {colour}" points="{" ".join(upper + lower)}"/><polyline class="trend {colour}" points="{line}"/>{dots}'
