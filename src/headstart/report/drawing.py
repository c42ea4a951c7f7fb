"""What every chart is drawn with: marks, lines, words and axes as inline SVG.

Every chart is 440 units wide: side by side on a desktop, one below the other and still legible on a phone. Colours are classes of the page's style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

WIDTH = 440.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 10.0, 42.0
SHAPES = 8  # colours of classes before they repeat; a second round has squares, a third diamonds

Scale = Callable[[float], float]


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


def linear(low: float, high: float, a: float, b: float) -> Scale:
    """Return the map that takes low..high to a..b."""
    span = high - low or 1.0
    return lambda v: a + (v - low) / span * (b - a)


def svg(parts: Sequence[str], height: float, about: str) -> Markup:
    """Return the drawing; ``about`` says in words what it shows."""
    return Markup(f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(about)}">{"".join(parts)}</svg>')


def draw_line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Return a line of the style sheet's classes ``css``."""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def draw_text(x: float, y: float, words: str, css: str) -> str:
    """Return words that begin, end or lie about (x, y), as ``css`` says."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def number(v: float, *, signed: bool = False) -> str:
    """Return a number as axes write it.

    >>> number(0.5, signed=True)
    '+0.5'
    """
    return f"{v:+g}" if signed and v else f"{v:g}"


def x_axis(ticks: Sequence[float], x: Scale, top: float, bottom: float, unit: str, *, signed: bool) -> str:
    """Return grid lines from ``top`` to ``bottom``, with their numbers and the unit below."""
    lines = [draw_line(x(t), top, x(t), bottom, "grid") for t in ticks]
    names = [draw_text(x(t), bottom + 18, number(t, signed=signed), "tick middle") for t in ticks]
    return "".join([*lines, *names, draw_text(WIDTH / 2, bottom + 36, unit, "axis middle")])


def y_axis(ticks: Sequence[float], y: Scale) -> str:
    """Return grid lines over the whole width, with their numbers on the left."""
    lines = [draw_line(LEFT, y(t), WIDTH - RIGHT, y(t), "grid") for t in ticks]
    names = [draw_text(LEFT - 8, y(t) + 4, number(t), "tick end") for t in ticks]
    return "".join(lines + names)
