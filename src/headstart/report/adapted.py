"""The report of an adaptation: one self-contained HTML page. It draws what was found, and computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from headstart.adaptation import SOURCE_ONLY, Adaptation, AdaptationVerdict, Candidacy, ClassMove, ClassRate
from headstart.evidence import THINGS
from headstart.report import domain_charts
from headstart.report.charts import Whisker, whiskers
from headstart.report.drawing import legend_mark
from headstart.report.page import filled, interval, matrix, settings
from headstart.validators.panel import PANEL

ANSWERS = {"adapt": "Adapting helps", "do not adapt": "Adapting does not help", "undecided": "Undecided", "nothing to do": "Nothing to adapt"}
SHOWN = 12  # classes and candidates that a chart holds before it is no longer read


def render_adaptation(found: Adaptation) -> str:
    """Return the page; equal findings, with equal times, give equal text."""
    same = found.choice.candidate == SOURCE_ONLY
    return filled(
        "adapted.html.j2",
        a=found,
        answer=ANSWERS[found.verdict.decision],
        because=_because(found.verdict),
        unknown=not found.verdict.is_known,
        things=THINGS[found.modality],
        source_only=SOURCE_ONLY,
        baseline=found.candidate(SOURCE_ONLY),
        shipped=found.candidate(found.shipped),
        chosen=found.candidate(found.choice.candidate),
        panel=[v for v in PANEL if v in found.choice.validators] or sorted(found.choice.validators),
        others=[v for v in sorted(found.choice.validators) if v not in PANEL and set(PANEL) & set(found.choice.validators)],
        same=same,
        after=None if same else found.after,
        shows_gain=found.verdict.method != "none" and (found.verdict.gain, *found.verdict.interval) != (0.0, 0.0, 0.0),
        complete=[c for c in found.candidates if c.status == "complete"],
        moved=sorted((m for m in found.moved if m.moved or m.came), key=lambda m: -m.moved),
        matrix=matrix(found.labels, found.moves) if found.moves and len(found.labels) <= SHOWN else [],
        interval=interval,
        settings=_settings,
        opinion=_opinion,
        sentence=_sentence,
        support=_support,
        key=legend_mark,
        sides=[*found.sources, found.target],
        total=found.times.get("total"),
        **_drawings(found),
    )


def _drawings(found: Adaptation) -> dict[str, Markup]:
    v, unit = found.verdict, f"gain over source only in {found.metric}"
    gain = Whisker("adapted minus source only", v.gain, v.interval, "tone", f"{v.gain:+.3f}")
    told = sorted((c for c in found.candidates if c.gain is not None and c.name != SOURCE_ONLY), key=lambda c: -(c.gain or 0.0))[:SHOWN]
    rows = [Whisker(c.name, c.gain or 0.0, c.interval, "tuned" if c.name == found.choice.candidate else "frozen", f"{c.gain or 0.0:+.3f}") for c in told]
    shares = sorted(found.rates, key=_change)[:SHOWN]
    same = found.choice.candidate == SOURCE_ONLY
    none = Markup("")
    return {
        "gain": whiskers([gain], unit=unit, zero=v.margin, signed=True) if v.method != "none" else none,
        "gains": whiskers(rows, unit=unit, zero=v.margin, signed=True) if rows else none,
        "confidence": domain_charts.confidence(found.confidence, alike=same) if found.confidence is not None else none,
        "rates": domain_charts.rates(shares, alike=same) if shares else none,
    } | {
        f"{when}_{by}": domain_charts.domain_map(found.map, when=when, by=by) if found.map is not None else none
        for when in ("before", "after")
        for by in ("domain", "class")
    }


def _change(rate: ClassRate) -> float:
    return -max(abs(rate.after - rate.before), abs(rate.after - rate.source))


def _because(v: AdaptationVerdict) -> str:
    how = (
        ""
        if not v.is_known
        else {
            "forecast": "Foretold without a label of the target, from what validators said and from gains measured on other pairs of domains.",
            "test": "Measured on labelled target cases, none of which was learned from where it is scored.",
            "none": "",
        }[v.method]
    )
    return " ".join(part for part in (_sentence(v.why), how) if part)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].rstrip('.')}." if words else ""


def _settings(params: Mapping[str, Any]) -> str:
    """Return hyperparameters in words, but for the relation, which names its candidate."""
    return settings({name: value for name, value in params.items() if name != "relation"})


def _opinion(one: Candidacy, validator: str) -> str:
    said = next((s for s in one.said if s.validator == validator), None)
    if said is None or said.value is None:
        return "-"
    return f"{said.value:.3g}" + (f" ({said.rank})" if said.rank is not None else "")


def _support(move: ClassMove) -> str:
    parts = [f"{words} {share:.0%}" for words, share in (("neighbours", move.neighbours), ("other candidates", move.candidates)) if share is not None]
    if move.gained is not None and move.lost is not None:
        parts.append(f"by known labels {move.gained} became right, {move.lost} wrong")
    return ", ".join(parts) or "-"
