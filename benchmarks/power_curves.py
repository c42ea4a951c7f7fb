"""Draw the guard's power from its table: how often a true gain is called a transfer, by the number of labels.

    python benchmarks/guard.py --part power > power.md
    python benchmarks/power_curves.py power.md docs/power.svg

Bars are 95 % Clopper-Pearson intervals of the shares; hollow marks say how often transfer is shipped, whatever is proven.
"""

from __future__ import annotations

import math
import re
import sys
from collections import defaultdict
from pathlib import Path

from headstart.report.drawing import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Scale, draw_line, draw_text, linear, y_axis

HEIGHT = 300.0
ROW = re.compile(r"\| (\d+) \| (\d+) \| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \| [\d.]+ \| (\d+) \|")
STYLE = """
svg { background: #fff; font: 12px system-ui, sans-serif; } .grid { stroke: #ddd; } .tick, .axis, .name { fill: #333; }
.middle { text-anchor: middle; } .end { text-anchor: end; } .c0 { stroke: #c05a00; } .c1 { stroke: #00719c; } .c2 { stroke: #2d7d2d; }
.line { fill: none; stroke-width: 2; } .spread { stroke-width: 1; opacity: .6; } .hollow { fill: #fff; stroke-width: 1.2; }
.thin { fill: none; stroke-dasharray: 2 3; }
"""


def drawn(table: str) -> str:
    """Return the picture of a table of power, one curve for each true gain."""
    curves: dict[int, list[tuple[int, float, float, float, float]]] = defaultdict(list)
    for gain, n, said, low, high, shipped in ROW.findall(table):
        curves[int(gain)].append((int(n), float(said), float(low), float(high), float(shipped)))
    if not curves:
        raise SystemExit("There are no rows of power in that file. Write it with: python benchmarks/guard.py --part power > power.md")
    labels = sorted({row[0] for rows in curves.values() for row in rows})
    along = linear(math.log(labels[0]), math.log(labels[-1]), LEFT + 10, WIDTH - RIGHT - 60)
    up = linear(0.0, 100.0, HEIGHT - BOTTOM, TOP)
    parts = [f"<style>{STYLE}</style>", y_axis([0, 20, 40, 60, 80, 100], up)]
    parts += [draw_text(along(math.log(n)), HEIGHT - BOTTOM + 18, str(n), "tick middle") for n in labels]
    parts.append(draw_text(WIDTH / 2, HEIGHT - BOTTOM + 36, 'labels (log); said "transfer", % of worlds; dashed: shipped', "axis middle"))
    for colour, (gain, rows) in enumerate(sorted(curves.items())):
        parts += _curve(f"c{colour}", gain, rows, along, up)
    about = "How often a true gain is called a transfer, by the number of labels"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{about}">{"".join(parts)}</svg>\n'


def _curve(colour: str, gain: int, rows: list[tuple[int, float, float, float, float]], along: Scale, up: Scale) -> list[str]:
    places = [(along(math.log(n)), said, low, high, shipped) for n, said, low, high, shipped in sorted(rows)]
    said = " ".join(f"{x:.1f},{up(s):.1f}" for x, s, *_ in places)
    shipped = " ".join(f"{x:.1f},{up(s):.1f}" for x, *_, s in places)
    spread = [draw_line(x, up(low), x, up(high), f"{colour} spread") for x, _, low, high, _ in places]
    marks = [f'<circle class="{colour} hollow" cx="{x:.1f}" cy="{up(s):.1f}" r="2.5"/>' for x, *_, s in places]
    x, last = places[-1][0], places[-1][1]
    lines = [f'<polyline class="{colour} thin" points="{shipped}"/>', f'<polyline class="{colour} line" points="{said}"/>']
    return [*spread, *lines, *marks, draw_text(x + 8, up(last) + 4, f"{gain} points", "name")]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(drawn(Path(sys.argv[1]).read_text(encoding="utf-8")), encoding="utf-8")
