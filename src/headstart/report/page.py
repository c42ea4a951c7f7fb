"""What both reports are written with: the template's environment, and how scores, settings and counts from class to class read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from headstart.result import Score


def filled(template: str, **values: Any) -> str:
    """Return the page that a template of this room makes of the values and the style sheet."""
    from jinja2 import Environment, StrictUndefined

    room = files("headstart.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string((room / template).read_text(encoding="utf-8"))
    return page.render(style=Markup((room / "style.css").read_text(encoding="utf-8")), **values)


def interval(score: Score | None) -> str:
    """Return a score's interval as it stands behind the score; "" where there is none.

    >>> interval(Score("accuracy", 0.8, interval=(0.7, 0.9)))
    ' [0.700, 0.900]'
    """
    return "" if score is None or score.interval is None else f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]"


def settings(params: Mapping[str, Any]) -> str:
    """Return hyperparameters in words, in the order of their names, so that a page of a result in hand is that of the one read back.

    >>> settings({"rate": 0.001, "steps": 50})
    'rate 0.001, steps 50'
    """
    return ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in sorted(params.items()))


def matrix(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Lay counts from class to class out by rows, each cell with its share of the row's cases."""
    rows = []
    for i, (label, row) in enumerate(zip(labels, counts, strict=True)):
        total = sum(row)
        shares = [n / total if total else 0.0 for n in row]
        cells = [{"count": n, "share": f"{s:.3f}", "percent": f"{s:.0%}", "right": i == j} for j, (n, s) in enumerate(zip(row, shares, strict=True))]
        rows.append({"label": label, "cells": cells})
    return rows
