"""Charts of two domains: the plane with both in it, the confidence of predictions, and the classes' shares, before and after adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from markupsafe import Markup, escape

from headstart.adaptation import ClassRate, Confidence, DomainMap
from headstart.report.drawing import BOTTOM, LEFT, RIGHT, TOP, WIDTH, draw_line, draw_text, linear, mark, nice_ticks, svg, x_axis, y_axis

BEFORE, AFTER = "baseline", "tuned"  # the style sheet's colours of source only, and of the chosen candidate
ROW = 34.0


def domain_map(drawn: DomainMap, *, when: Literal["before", "after"], by: Literal["domain", "class"]) -> Markup:
    """Draw both domains in the plane, the target on top; by class, source cases are faint, so that one sees whether the target's fall on their like."""
    xs, ys, labels = (drawn.x_before, drawn.y_before, drawn.label_before) if when == "before" else (drawn.x_after, drawn.y_after, drawn.label_after)
    height = WIDTH * 0.8
    x, y = linear(min(xs), max(xs), 12, WIDTH - 12), linear(min(ys), max(ys), height - 12, 12)
    target = len(drawn.domains) - 1
    size = 3.4 if len(xs) <= 400 else 2.6
    parts = []
    for i in sorted(range(len(xs)), key=lambda i: drawn.domain[i] == target):
        domain, label = drawn.domain[i], labels[i]
        code = label if by == "class" else domain
        about = f"{drawn.domains[domain]}, row {drawn.row[i]}: {drawn.labels[label]}{' (predicted)' if domain == target else ''}"
        one = mark(x(xs[i]), y(ys[i]), code, size, about)
        parts.append(f'<g class="faint">{one}</g>' if by == "class" and domain != target else one)
    return svg(parts, height, f"{len(xs)} cases of {' and '.join(drawn.domains)} in the plane, {when} adaptation, coloured by {by}")


def confidence(counted: Confidence, *, alike: bool = False) -> Markup:
    """Draw how many target cases are predicted with which probability, as two rows of bars; as one where before and after are ``alike``."""
    most = max((*counted.before, *counted.after, 1))
    ticks = nice_ticks(0, most)
    height = 260.0
    y = linear(0, ticks[-1], height - BOTTOM, TOP + 6)
    x = linear(counted.edges[0], counted.edges[-1], LEFT + 4, WIDTH - RIGHT - 4)
    parts = [y_axis(ticks, y)]
    sides = zip(counted.edges, counted.edges[1:], counted.before, counted.after, strict=False)
    for low, high, before, after in sides:
        wide = (x(high) - x(low)) * (0.84 if alike else 0.42)
        for n, colour, left, word in ((before, BEFORE, x(low) + 1, "source only"), (after, AFTER, x(low) + 1 + wide, "chosen"))[: 1 if alike else 2]:
            about = f"<title>{low:.2f} to {high:.2f}, {word}: {n}</title>"
            parts.append(f'<rect class="bar {colour}" x="{left:.1f}" y="{y(n):.1f}" width="{wide:.1f}" height="{y(0) - y(n):.1f}">{about}</rect>')
    named = counted.edges if len(counted.edges) <= 7 else counted.edges[::2]
    parts += [draw_text(x(edge), height - BOTTOM + 18, f"{edge:g}", "tick middle") for edge in named]
    parts.append(draw_text((LEFT + WIDTH) / 2, height - 6, "probability of the predicted class", "axis middle"))
    return svg(parts, height, "how sure the predictions of the target cases are, of source only and of the chosen candidate")


def rates(rows: Sequence[ClassRate], *, alike: bool = False) -> Markup:
    """Draw each class's share in the source (a stroke), among predictions before and after (dots, one where they are ``alike``), and as estimated (a band)."""
    ends = [v for r in rows for v in (r.source, r.before, r.after, *(r.interval or ()))]
    ticks = nice_ticks(0, max(ends), limit=(0.0, 1.0))
    x = linear(ticks[0], ticks[-1], 14.0, WIDTH - 14.0)
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [x_axis(ticks, x, TOP, height - BOTTOM, "share of the cases", signed=False)]
    for i, row in enumerate(rows):
        y = TOP + ROW * i + 24
        parts.append(draw_text(14, y - 10, row.label, "label"))
        if row.interval is not None:
            parts.append(draw_line(x(row.interval[0]), y, x(row.interval[1]), y, "whisker frozen"))
        parts.append(draw_line(x(row.source), y - 7, x(row.source), y + 7, "mark"))
        for value, colour, word in ((row.before, BEFORE, "source only"), (row.after, AFTER, "chosen"))[: 1 if alike else 2]:
            about = f"<title>{escape(row.label)}, {word}: {value:.3f}</title>"
            parts.append(f'<circle class="dot {colour}" cx="{x(value):.1f}" cy="{y:.1f}" r="5">{about}</circle>')
    return svg(parts, height, "; ".join(f"{r.label}: {r.source:.2f} of the source, {r.before:.2f} of predictions before, {r.after:.2f} after" for r in rows))
