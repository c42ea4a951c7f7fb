"""The report of an adaptation: one whole file that draws what was found, whatever is missing, and never passes a forecast off as a measurement."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import pytest

from headstart.adaptation import (
    SOURCE_ONLY,
    Adaptation,
    AdaptationVerdict,
    Candidacy,
    Choice,
    ClassDistance,
    ClassMove,
    ClassRate,
    Confidence,
    Distance,
    DomainMap,
    Opinion,
    Side,
    Warned,
)
from headstart.report import domain_charts
from headstart.report.adapted import render_adaptation
from headstart.result import Provenance, Score
from test_report import Page


def score(value: float) -> Score:
    return Score("balanced accuracy", value, interval=(value - 0.05, value + 0.05), n=60)


def candidacy(name: str, gain: float | None = None, **changes: object) -> Candidacy:
    said = (Opinion("entropy", -0.512, 2), Opinion("dev", None, None))
    whole = Candidacy(
        name, name, "relation", {"k": 30, "penalty": 0.1}, "net", ("photo",), "complete", score(0.9), said, 0.2, gain, gain and (gain - 0.06, gain + 0.06)
    )
    return dataclasses.replace(whole, **changes)


def adaptation(labels: tuple[str, ...] = ("cat", "dog"), **changes: object) -> Adaptation:
    c, k = len(labels), range(len(labels))
    apart = [
        Distance("features of net", score(auc), 0.004, 0.02, 0.003, tuple(ClassDistance(label, 30, 20, None, None, None) for label in labels))
        for auc in (0.98, 0.71)
    ]
    coordinates, domains = tuple(float(i) for i in range(2 * c)), tuple([0] * c + [1] * c)
    classes = (*k, *k)
    whole = Adaptation(
        task="sketch",
        kind="classification",
        modality="image",
        metric="balanced accuracy",
        labels=labels,
        sources=(Side("photo", 80, 60, 20, dict.fromkeys(labels, 30)),),
        target=Side("sketch", 50, 0, 0, {}),
        target_labels="none",
        network="net",
        networks={"net": "ridge .9 on the source"},
        verdict=AdaptationVerdict("undecided", "jda", 0.07, (-0.01, 0.15), 0.91, "forecast", "The interval holds 0"),
        choice=Choice("Mean rank.", "jda", "It leads by mean rank.", {"entropy": "how sure it is", "dev": "weighted accuracy"}),
        candidates=(candidacy(SOURCE_ONLY), candidacy("jda", 0.07), candidacy("kmm", -0.03), candidacy("tca", status="failed", reason="hardly overlap")),
        before=apart[0],
        after=apart[1],
        nearest_source="photo",
        rates=tuple(ClassRate(label, 0.5, 0.4, 0.45, 0.48, (0.4, 0.56)) for label in labels),
        moved=tuple(ClassMove(label, 25, 10, 8, 0.4, 0.3) for label in labels),
        moves=tuple(tuple(15 if i == j else 10 // max(1, c - 1) for j in k) for i in k),
        confidence=Confidence((0.0, 0.5, 1.0), (10, 40), (20, 30)),
        map=DomainMap(
            "t-SNE", ("photo", "sketch"), labels, tuple(range(2 * c)), domains, coordinates, coordinates, classes, coordinates[::-1], coordinates, classes
        ),
        warned=(Warned("open set", "38 cases lie far from every class.", (), "k-NN distance", 0.0004),),
        scored=False,
        provenance=Provenance("headstart adapt photo sketch", 0, "300 s", {"headstart": "0.1.0"}, "d" * 64, {"net": "e" * 64}, "PyTorch", "float32", 2),
        stopped_by="plan",
    )
    return dataclasses.replace(whole, **changes)


def test_the_verdict_comes_first_and_a_forecast_is_called_one() -> None:
    text = Page(render_adaptation(adaptation())).text
    body = text[text.index("Headstart report") :]
    assert body.index("Undecided") < body.index("Look at this first") < body.index("How far apart") < body.index("How to repeat it")
    assert "Foretold gain over source only: +0.070" in body
    assert "this is a forecast, not a measurement" in body
    tested = AdaptationVerdict("adapt", "jda", 0.07, (0.01, 0.13), 0.97, "test", "All of the interval lies above 0")
    body = Page(render_adaptation(adaptation(verdict=tested))).text
    assert "Measured gain over source only: +0.070" in body
    assert "forecast" not in body
    assert "validator reads no label" in body


def test_every_part_of_what_was_found_is_on_the_page() -> None:
    text = Page(render_adaptation(adaptation())).text
    for words in (
        "0.980 [0.930, 1.030]",
        "0.710 [0.660, 0.760]",
        "38 cases lie far",
        "p = 0.0004",
        "-0.512 (2)",
        "failed: hardly overlap",
        "looks wrong",
        "Before, by domain",
    ):
        assert words in text
    assert text.count("neighbours 40%, other candidates 30%") == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"before": None, "after": None, "map": None, "confidence": None, "warned": (), "moved": (), "moves": ()},
        {"labels": (), "rates": (), "moved": (), "moves": (), "confidence": None, "map": None},
        {"sources": (), "nearest_source": "a model", "after": None},
        {
            "verdict": AdaptationVerdict("nothing to do", SOURCE_ONLY, 0.0, (0.0, 0.0), 0.0, "none", "The domains hold the same cases"),
            "candidates": (candidacy(SOURCE_ONLY),),
        },
    ],
)
def test_findings_with_parts_missing_are_drawn(changes: dict[str, object]) -> None:
    assert "How to read this" in Page(render_adaptation(adaptation(**changes))).text


def test_the_page_loads_nothing_and_shows_markup_as_text() -> None:
    text = render_adaptation(adaptation(("<script>alert(1)</script>", "a&b"), task='"><img src=x onerror=1>'))
    assert Page(text).addresses == []
    assert "<script" not in text
    assert not re.findall(r"url\(|@import", text)


def test_fifty_classes_are_drawn_but_not_laid_out_as_a_matrix() -> None:
    text = Page(render_adaptation(adaptation(tuple(f"class {i}" for i in range(50))))).text
    assert "and 26 more" in text
    assert "was \\ is" not in text


def test_equal_findings_give_equal_pages_also_after_a_round_trip() -> None:
    whole = adaptation()
    assert render_adaptation(whole) == render_adaptation(Adaptation.from_json(whole.to_json()))


def test_bars_are_as_high_as_their_counts() -> None:
    root = ElementTree.fromstring(domain_charts.confidence(Confidence((0.0, 0.5, 1.0), (10, 40), (20, 30))))
    heights = [float(bar.get("height", "0")) for bar in root.iter("rect")]
    assert heights[1] / heights[0] == pytest.approx(2.0, abs=0.02)
    assert heights[2] / heights[0] == pytest.approx(4.0, abs=0.02)


def test_a_map_puts_the_target_on_top_and_fades_the_source_by_class() -> None:
    drawn = adaptation().map
    assert drawn is not None
    by_class = domain_charts.domain_map(drawn, when="before", by="class")
    assert by_class.count('class="faint"') == 2
    assert by_class.rindex("photo, row") < by_class.index("(predicted)")
    assert domain_charts.domain_map(drawn, when="before", by="domain") != domain_charts.domain_map(drawn, when="after", by="domain")


def test_a_page_of_a_run_without_its_cases_claims_no_distance_and_no_gain() -> None:
    nothing = AdaptationVerdict("undecided", SOURCE_ONLY, 0.0, (-1.0, 1.0), 0.5, "forecast", "No case of the source was there")
    text = Page(render_adaptation(adaptation(verdict=nothing, source_free=True, before=None, after=None))).text
    assert "Nothing is known of the gain over source only." in text
    assert "gain over source only: +0.000" not in text
    assert "this is a forecast" not in text
    assert "there is nothing to compare the target with" in text
    assert "The target in the plane" in text
    assert "Faint: the source" not in text
