"""Charts of what a better score costs where a model serves: every finished trial's score against its size, or its latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from markupsafe import Markup, escape

from headstart.fronts import FrontPoint, bytes_told, seconds_told
from headstart.report.charts import COLOURS
from headstart.report.drawing import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Scale, draw_line, draw_text, linear, nice_ticks, svg, y_axis
from headstart.result import Trial

HEIGHT = 300.0
MOST_NAMES = 6  # powers of ten that are written below the axis
AXES = {"size": "bytes on disk", "latency": "time for one input"}


def tradeoff(points: Sequence[FrontPoint], trials: Mapping[int, Trial], *, side: Literal["size", "latency"], limit: float | None, metric: str) -> Markup:
    """Draw score against size or latency, on a scale of powers of ten: dominated trials are hollow, a bound is a dashed line."""
    costs = [max(float(getattr(p, side)), 1e-9) for p in points]
    known = costs + ([] if limit is None else [limit])
    low = math.floor(math.log10(min(known)))
    high = max(math.ceil(math.log10(max(known))), low + 1)
    x = linear(low, high, LEFT + 8, WIDTH - RIGHT - 8)
    ys = nice_ticks(min(p.score for p in points), max(p.score for p in points), limit=(0.0, 1.0))
    y = linear(ys[0], ys[-1], HEIGHT - BOTTOM, TOP + 6)
    parts = [y_axis(ys, y), _powers(low, high, x, side)]
    if limit is not None:
        at = x(math.log10(limit))
        parts.append(draw_line(at, TOP, at, HEIGHT - BOTTOM, "zero"))
    rows = zip(points, costs, strict=True)
    # why in this order: what is not dominated lies on top of what is
    parts += [_dot(p, trials[p.trial], x(math.log10(cost)), y(p.score)) for p, cost in sorted(rows, key=lambda row: row[0].on_front)]
    return svg(parts, HEIGHT, f"{metric} of {len(points)} trials against {AXES[side]}; {sum(p.on_front for p in points)} are not dominated")


def _dot(point: FrontPoint, trial: Trial, x: float, y: float) -> str:
    source = f" on {trial.source}" if trial.source else ""
    about = f"trial {point.trial}: {trial.method}{source}, {point.score:.3f}, {bytes_told(point.size)}, {seconds_told(point.latency)}"
    css = f"dot {COLOURS[trial.arm]}" + ("" if point.on_front else " hollow")
    return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{6 if point.on_front else 4}"><title>{escape(about)}</title></circle>'


def _powers(low: int, high: int, x: Scale, side: str) -> str:
    every = math.ceil((high - low + 1) / MOST_NAMES)
    told = seconds_told if side == "latency" else bytes_told
    names = [draw_text(x(p), HEIGHT - BOTTOM + 18, told(10.0**p), "tick middle") for p in range(low, high + 1, every)]
    return "".join([*names, draw_text((LEFT + WIDTH) / 2, HEIGHT - 6, AXES[side], "axis middle")])
